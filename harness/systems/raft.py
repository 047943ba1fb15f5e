"""The reference system: the Raft key-value store of this project.

The client keeps to the outcome rule of `harness.systems.base`. Each command of an operation is one request with the
session's next sequence number; every attempt of it carries the same one, so that the store applies it once
however often it arrives (Raft thesis, section 6.3). That makes it safe to try again after an unknown outcome. The
session is one that nobody opens and that does not end, or with `session_ttl_ms` one with a life time: a client opens it
before it writes, and another one when it learns that the last has ended. Which commands an operation takes is the
contract of the workload (`harness.systems.raft_contracts`).

Each operation is first tried on the node that the client is bound to, as Jepsen binds clients to nodes: a client
of a deposed leader then keeps asking the deposed leader, which is where stale reads are seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from harness.errors import ConfigError
from harness.sim.host import Process, SimHost
from harness.systems import raft_sim
from harness.systems.base import ClientOptions, Machine, Outcome, Service
from harness.systems.raft_contracts import CONTRACTS, contract_of
from harness.systems.raft_service import RaftService
from harness.systems.raft_session import did_nothing
from harness.systems.raft_watch import InvariantWatch
from harness.systems.raft_whole import WholeServer
from harness.transport import Lost, NotSent, Transport
from raft import api
from raft.bugs import BUGS

UNLOGGED = (*api.READS, api.Watch)  # commands that need no entry of the log


class RaftSystem:
    """See the module."""

    name = "raft"
    bugs: Mapping[str, Any] = BUGS
    contracts: Mapping[str, Any] = CONTRACTS
    service: Service = RaftService()

    def watch(self, now_us: Callable[[], int]) -> InvariantWatch:
        """The invariants of the protocol."""
        return InvariantWatch(now_us)

    def sim_process(
        self, host: SimHost, nodes: tuple[str, ...], bug: str | None, watch: InvariantWatch
    ) -> Process:
        """A node's program, with the seeded bug if one is asked for."""
        return raft_sim.process(host, nodes, bug, watch)

    def whole_program(
        self, machine: Machine, addresses: Mapping[str, str], bug: str | None, watch: InvariantWatch
    ) -> WholeServer:
        """The program of ``python -m raft``."""
        return WholeServer(machine, addresses, bug, watch)

    def client(
        self, transport: Transport, nodes: tuple[str, ...], home: str, client_id: str, options: ClientOptions
    ) -> RaftClient:
        """A client with a session of its own."""
        return RaftClient(transport, nodes, home, client_id, options)


class RaftClient:
    """One session; see the module."""

    def __init__(
        self, transport: Transport, nodes: tuple[str, ...], home: str, client_id: str, options: ClientOptions
    ) -> None:
        self.settings = options.settings
        self.state: dict[str, Any] = {}
        self._contract = contract_of(options.workload)
        self._deadline_s = 0.0
        self._asking = False
        self._transport = transport
        self._nodes = nodes
        self._home = nodes.index(home)
        self.client_id = client_id
        self._options = options
        self._session = "" if options.session_ttl_ms else client_id  # none is open yet
        self._seq = 0
        self.logged: list[tuple[str, int]] = []

    async def invoke(self, f: str, key: Any, value: Any) -> Outcome:
        """What the workload's contract says, within the operation's time."""
        self.logged = []
        self._deadline_s = asyncio.get_running_loop().time() + self._options.op_timeout_ms / 1000
        self._asking = False
        try:
            return await self._contract[f](self, key, value)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            if self._asking:
                raise
            raise ConfigError(
                f"the operation {f} of key {key!r} cannot be performed with the value {value!r} "
                f"({type(error).__name__}: {error}); mend the plan"
            ) from error

    async def ask(self, command: api.Command) -> Outcome:
        """One command of the operation: try until the system answers or the operation's time runs out."""
        self._asking = True  # what is wrong meanwhile is not the plan's value
        outcome = await self._answer(command)
        self._asking = False
        return outcome

    async def _answer(self, command: api.Command) -> Outcome:
        is_logged = not isinstance(command, UNLOGGED)
        if is_logged and not self._session:
            opened = await self._try(self.client_id, api.OpenSession(self._options.session_ttl_ms))
            if opened.type != "ok":
                return did_nothing(opened)
            self._session = opened.value["session"]
        outcome = await self._try(self._session or self.client_id, command)
        if outcome.error == "expired" and self._options.session_ttl_ms:
            self._session = ""
        return outcome

    async def _try(self, client: str, command: api.Command) -> Outcome:
        self._seq += 1
        request = api.Request(client, self._seq, command)
        if not isinstance(command, UNLOGGED):
            self.logged.append((client, self._seq))
        attempts = _Attempts(self._nodes, self._home)
        loop = asyncio.get_running_loop()
        while (left_s := self._deadline_s - loop.time()) > 0:
            outcome = await self._attempt(
                request, attempts, min(left_s, self._options.attempt_timeout_ms / 1000)
            )
            if outcome is not None:
                if self._options.follows_leader:
                    self._home = self._nodes.index(attempts.node)
                return outcome
            if attempts.exhausted:
                attempts.start_over()
                await asyncio.sleep(self._options.backoff_ms / 1000)
        if attempts.unsure:
            return Outcome("info", error="timeout", node=attempts.node)
        return Outcome("fail", error="refused", node=attempts.node)

    async def close(self) -> None:
        """Whatever is still answered finds nobody."""
        await self._transport.close()

    async def _attempt(self, request: api.Request, attempts: _Attempts, timeout_s: float) -> Outcome | None:
        node = attempts.node
        try:
            response = await self._transport.request(node, request, timeout_s)
        except NotSent:
            attempts.try_next()
            return None
        except (Lost, TimeoutError):
            attempts.unsure = True
            attempts.try_next()
            return None
        decided = _decided(response, node, is_unsure=attempts.unsure)
        if decided is not None:
            return decided
        if isinstance(response, api.NotLeader):
            attempts.redirect(response.leader)
            return None
        if not isinstance(response, api.Refused):  # Unknown, and whatever else a node may answer one day
            attempts.unsure = True
        attempts.try_next()
        return None


def _decided(response: api.Response, node: str, *, is_unsure: bool) -> Outcome | None:
    """How an operation ended, if this answer ends it."""
    if isinstance(response, api.NotLeader):
        return None
    if isinstance(response, api.Done):
        return Outcome("ok", response.value, None, node, response.mod_revision or None)
    if isinstance(response, api.Mismatch):
        return Outcome("fail", error="mismatch", node=node, revision=response.mod_revision or None)
    if isinstance(response, api.Compacted):
        return Outcome("fail", value=response.revision, error="compacted", node=node)
    if isinstance(response, api.Expired):
        # In a session that has ended, an attempt before its end may have had an effect.
        unsure = response.what == "session" and is_unsure
        return Outcome("info" if unsure else "fail", error="expired", node=node)
    return None


class _Attempts:
    """Which node to ask next, and whether any attempt may have had an effect."""

    def __init__(self, nodes: tuple[str, ...], home: int) -> None:
        self._nodes = nodes
        self._home = home
        self._next = home
        self._tried: list[str] = []
        self.node = nodes[home]
        self.unsure = False

    @property
    def exhausted(self) -> bool:
        """Whether every node was asked since the last pause."""
        return len(self._tried) >= len(self._nodes)

    def start_over(self) -> None:
        """After a pause: forget who was asked."""
        self._tried.clear()

    def try_next(self) -> None:
        """The next node of the ring."""
        self._tried.append(self.node)
        self._next = (self._next + 1) % len(self._nodes)
        self.node = self._nodes[self._next]

    def redirect(self, leader: str | None) -> None:
        """The node named a leader; follow it, unless that one was asked in vain already."""
        if leader is not None and leader in self._nodes and leader not in self._tried and leader != self.node:
            self._tried.append(self.node)
            self.node = leader
        else:
            self.try_next()
