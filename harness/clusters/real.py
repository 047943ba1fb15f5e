"""What all clusters of real processes share: the real clock, requests over HTTP, and looking at the nodes.

Rules of this module
    1. A cluster is ready when every node answers and one of them leads; there is a limit to the wait.
    2. Whatever ends a run, `_end` is called last, outside the event loop: it must leave nothing behind.
    3. A node that died although nobody killed it is named, with its last words; one whose disk was made to fail
       is expected to stop, and is only counted.
    4. Verbs are idempotent: what each kind of cluster implements (`_kill`, `_start`, `_signal`) is asked only where
       there is something to do.
    5. One change of the network at a time.

Theory of operation
    Once a second each node is asked for its status, and what it said goes to `nodes/status.jsonl` of the run: who
    led when, as the nodes saw it. What they logged is in `nodes/events.jsonl`, on the same clock as the history. The
    seed fixes the plan and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec

from harness.clusters import events, shims
from harness.clusters.cgroups import limits_of
from harness.clusters.http import Connection, HttpTransport, fetch
from harness.clusters.log_follower import LogFollower, LoggedService
from harness.clusters.real_nemesis import RealNemesisSide
from harness.clusters.shims import ShimFiles
from harness.errors import Interrupted, SetupError
from harness.plan import Plan
from harness.systems.base import Call, CommittedRequests, Service
from nemesis.backend import Backend
from nemesis.network import Network, NetworkError
from nemesis.target import HEALTHY_DISK, ClockRule, DiskRule, Link, Ruleset

T = TypeVar("T")

READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.05
STATUS_TIMEOUT_S = 0.25
SAMPLE_INTERVAL_S = 1.0
LOG_TIMEOUT_S = 2.0
LAST_WORDS_BYTES = 4096
LAST_WORDS_LINES = 3


class RealCluster(RealNemesisSide, ABC):
    """See the module; one instance serves one run."""

    kind: str

    def __init__(self, plan: Plan, service: Service, directory: Path, backend: Backend) -> None:
        super().__init__()
        self._nodes = tuple(plan.nodes)
        self._plan = plan
        self._limits = limits_of(plan)
        self._service = service
        self._directory = directory
        self._opened_ns = time.monotonic_ns()
        self._closed_ns: int | None = None
        self._transports: set[HttpTransport] = set()
        self._sampler: asyncio.Task[None] | None = None
        self._log: LogFollower | None = None
        self._log_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._is_interrupted = False
        self._backend = backend
        self._network: Network | None = None
        self._writing = asyncio.Lock()
        self._met: dict[Link, int] = {}
        self._addresses: dict[str, str] = {}
        self._up: set[str] = set()  # those that run, unless they died by themselves
        self._ahead_ns: dict[str, int] = {}  # monotonic clocks of other machines, beside ours
        self._starts = 0
        self._deaths: list[str] = []
        self._stopped_by_disk = 0
        self._stopped_by_fault = 0
        self._shims: ShimFiles | None = None
        self._sick_disks: set[str] = set()
        self._excused: set[str] = set()  # whose end is no surprise: a crash point, a damaged disk
        self._met_sick_disk: set[str] = set()  # since they were started
        self._kinds = shims.needed(plan)
        self._notes_synced = shims.loses_power(plan)
        self._disks: dict[str, DiskRule] = {}
        self._unlost: set[str] = set()  # died by themselves while their disk was to lose what was not synced
        self._lost_bytes: dict[str, list[int]] = {}

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes."""
        return self._nodes

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end on the real clock."""
        try:
            with asyncio.Runner() as runner:
                return runner.run(self._guard(main))
        except asyncio.CancelledError:
            raise Interrupted("interrupted") from None
        finally:
            try:
                self._end()
            finally:
                self._write_events()

    def _write_events(self) -> None:
        ahead_ns = {node: self._ahead_ns.get(node, 0) for node in self._nodes}
        with contextlib.suppress(OSError):  # a full disk; the logs are there
            events.write(self._directory / "nodes", self._service, self._opened_ns, ahead_ns)

    async def _guard(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        if self._is_interrupted:
            raise asyncio.CancelledError
        try:
            return await main()
        finally:
            self._main = None

    def interrupt(self) -> None:
        """Cancel what is going on; it heals and closes on its way out."""
        self._is_interrupted = True
        if self._loop is not None and self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)

    def now_ns(self) -> int:
        """Real nanoseconds since the cluster was opened; the clock stands still once it is closed."""
        return (self._closed_ns or time.monotonic_ns()) - self._opened_ns

    # -- opening and closing ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start all nodes and wait until one of them leads."""
        try:
            (self._directory / "nodes").mkdir(exist_ok=True)
            await self._begin()
            await self._wait_until_ready()
        except BaseException as error:
            await self._heal_quietly()
            if isinstance(error, OSError):
                where = f"{error.filename}: " if error.filename else ""
                raise SetupError(f"cluster {self.kind!r}: {where}{error.strerror or error}") from None
            raise
        self._sampler = asyncio.create_task(self._sample())
        if self._plan.config.with_log and isinstance(self._service, LoggedService):
            self._log = LogFollower(self._service, self._nodes, self._ask, self.now_ns)
            self._log_task = asyncio.create_task(self._log.follow())
        if self._listeners:
            self._start_tailing()
        self._opened_ns = time.monotonic_ns()

    async def close(self) -> None:
        """End connections and nodes."""
        self._closed_ns = time.monotonic_ns()
        for task in (self._sampler, self._log_task):
            if task is not None:
                task.cancel()
        await self._end_nemesis_side()
        for transport in self._transports:
            transport.drop()
        self._transports.clear()
        for node in self._nodes:
            await self._is_up(node)
        if self._network is not None:
            await self._network.heal()
        await asyncio.sleep(0)  # lets dropped connections go

    async def _heal_quietly(self) -> None:
        """Ends what talks to the network of the nodes, when there is something worse to tell."""
        if self._network is not None:
            with contextlib.suppress(Exception):
                await self._network.heal()

    async def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        statuses: dict[str, Any] = {}
        while time.monotonic() < deadline_s:
            statuses = await self._statuses()
            everybody = all(status is not None for status in statuses.values())
            # A seeded bug may be that nobody can be elected.
            if everybody and (self._leader_of(statuses) or self._plan.config.bug):
                return
            for node in self._nodes:
                await self._is_up(node)
            if self._deaths:
                raise SetupError(
                    f"cluster {self.kind!r}: {self._deaths[0]}; see its log in {self._directory / 'nodes'}"
                )
            await asyncio.sleep(READY_POLL_S)
        silent = [node for node, status in statuses.items() if status is None]
        what = f"no answer from {', '.join(silent)}" if silent else "no node became the leader"
        raise SetupError(
            f"cluster {self.kind!r}: {what} within {READY_TIMEOUT_S:g} s{self._limits.told()}; see the logs in "
            f"{self._directory / 'nodes'}"
        )

    # -- looking at nodes ---------------------------------------------------------------------------------------

    def transport(self) -> HttpTransport:
        """Connections for one client process."""
        transport = HttpTransport(self._dial, self._service, self._transports.discard)
        self._transports.add(transport)
        return transport

    async def leader(self) -> str | None:
        """The node that leads in the highest term, of those that think they lead and say so in time."""
        return self._leader_of(await self._statuses())

    def _leader_of(self, statuses: dict[str, Any]) -> str | None:
        best: tuple[int, str] | None = None
        for node, status in statuses.items():
            term = self._service.leader_term(status) if status is not None else None
            if term is not None and (best is None or term > best[0]):
                best = (term, node)
        return best[1] if best is not None else None

    async def _statuses(self) -> dict[str, Any]:
        answers = await asyncio.gather(*(self._status(node) for node in self._nodes))
        return dict(zip(self._nodes, answers, strict=True))

    async def _status(self, node: str) -> Any:
        if node in self._paused:  # it would not answer, and who looks for the leader would wait
            return None
        answer = await fetch(self._dial, node, self._service.status_path, STATUS_TIMEOUT_S)
        if answer is None or answer.status != 200:
            return None
        try:
            return msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            return None

    async def _sample(self) -> None:
        # A full disk ends the samples; whether it ends the run is for the history to say.
        with (
            contextlib.suppress(OSError),
            (self._directory / "nodes" / "status.jsonl").open("w", encoding="utf-8") as file,
        ):
            while True:
                at_s = round(self.now_ns() / 1e9, 3)
                for node, status in (await self._statuses()).items():
                    file.write(json.dumps({"at_s": at_s, "node": node, "status": status}) + "\n")
                file.flush()
                await asyncio.sleep(SAMPLE_INTERVAL_S)

    async def committed(self, leader: str | None) -> CommittedRequests | str:
        """What is in the committed log, as the nodes told it."""
        if self._log is None or self._log_task is None:
            return "the nodes of this system do not tell their log"
        self._log_task.cancel()
        await asyncio.gather(self._log_task, return_exceptions=True)
        status = await self._status(leader) if leader is not None else None
        return await self._log.committed(
            leader, self._service.leader_term(status) if status is not None else None
        )

    async def _ask(self, node: str, call: Call) -> bytes | None:
        if node not in self._up or node in self._paused:
            return None
        answer = await fetch(self._dial, node, call.path, LOG_TIMEOUT_S)
        return answer.body if answer is not None and answer.status == 200 else None

    def deaths(self) -> list[str]:
        """Nodes that died although nobody killed them."""
        return self._deaths

    def violations(self) -> Sequence[str] | None:
        """What their logs tell; nobody looks inside of real nodes."""
        return events.two_leaders(self._directory / "nodes")

    def log_file(self, node: str) -> Path:
        """Where a node's output goes."""
        return self._directory / "nodes" / f"{node}.log"

    def last_words(self, node: str) -> str:
        """The end of a node's log, in one line."""
        try:
            with self.log_file(node).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LAST_WORDS_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return " / ".join(line.strip() for line in lines[-LAST_WORDS_LINES:]) or "nothing"

    async def _is_up(self, node: str) -> bool:
        """Whether its process runs; one that has ended by itself is taken note of, once."""
        if node not in self._up:
            return False
        how = await self._ended(node)
        if how is None:
            return True
        self._up.discard(node)
        if self._disks.get(node, HEALTHY_DISK).lose_unsynced:
            self._unlost.add(node)
        if node in self._excused:
            self._stopped_by_fault += 1
        elif node in self._met_sick_disk:
            self._stopped_by_disk += 1
        else:
            self._deaths.append(
                f"{node} ended with {how}, its last words: {self.last_words(node)}{self._limits.told()}"
            )
        return False

    def facts(self) -> dict[str, Any]:
        """The means that were used, and whether they bit."""
        return {
            "network_backend": msgspec.to_builtins(self._backend),
            "packets_met_by_faults": sum(self._met.values()),
            "packets_met_by_link": {f"{src}->{dst}": n for (src, dst), n in sorted(self._met.items())},
            "processes_started": self._starts,
            "nodes_stopped_by_their_disk": self._stopped_by_disk,
            "nodes_stopped_by_other_faults": self._stopped_by_fault,
        }

    # -- the nemesis' side ----------------------------------------------------------------------------------------

    async def set_network(self, rules: Ruleset) -> None:
        """Count what the rules so far met, then replace them."""
        if self._network is None:
            return
        async with self._writing:
            met = await self._on_living(self._network.evidence)
            for link, count in met.items():
                self._met[link] = self._met.get(link, 0) + count
            await self._on_living(functools.partial(self._network.apply, rules))

    async def _on_living(self, call: Callable[[], Awaitable[T]]) -> T:
        """Do something to the network of all nodes; once more where it failed because a machine has just died."""
        try:
            return await call()
        except NetworkError:
            up = [node for node in self._nodes if node in self._up]
            if all(await asyncio.gather(*(self._is_up(node) for node in up))):
                raise
        return await call()

    async def kill(self, node: str) -> None:
        """SIGKILL; what was written and not synced survives in the kernel, unless the disk is one that loses it."""
        if not await self._is_up(node):
            return
        self._up.discard(node)
        self._paused.discard(node)
        await self._kill(node)
        if self._disks.get(node, HEALTHY_DISK).lose_unsynced:
            await self._lose_unsynced(node)

    async def _lose_unsynced(self, node: str) -> None:
        rule = self._disks.get(node, HEALTHY_DISK)
        torn = Random(f"{self._plan.seed}/{node}/{self._starts}").random() < rule.torn_write
        self._unlost.discard(node)
        self._lost_bytes.setdefault(node, []).append(await self._lose(node, torn=torn))

    async def start(self, node: str) -> None:
        """Start the node again on its data, unless it runs."""
        if self._network is not None and not await self._is_up(node):
            await self._launch(node)

    async def _launch(self, node: str) -> None:
        if node in self._unlost:
            await self._lose_unsynced(node)
        self._met_sick_disk.discard(node)
        if node in self._sick_disks:
            self._met_sick_disk.add(node)
        await self._start(node)
        self._up.add(node)
        self._starts += 1

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        if await self._is_up(node):
            self._paused.add(node)
            await self._signal(node, signal.SIGSTOP)

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        self._paused.discard(node)
        if await self._is_up(node):
            await self._signal(node, signal.SIGCONT)

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Shift what the node's process reads as the wall clock."""
        if self._shims is not None:
            await self._shims.set_clock(node, rule)

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this; a disk that lied may have left what no node can start from."""
        if self._shims is None:
            return
        self._disks[node] = rule
        if rule.lying_sync:
            self._excused.add(node)
        if rule.sync_error or rule.write_error:
            self._sick_disks.add(node)
            self._met_sick_disk.add(node)
        else:
            self._sick_disks.discard(node)
        await self._shims.set_disk(node, rule)

    # -- what each kind of cluster does in its own way ----------------------------------------------------------

    @abstractmethod
    async def _begin(self) -> None:
        """Start all nodes, by `_launch`, and set up `_network` and `_shims`."""

    @abstractmethod
    def _end(self) -> None:
        """Remove whatever is left, also of a cluster that was opened only in part. Called once, and last."""

    @abstractmethod
    async def _dial(self, node: str) -> Connection:
        """A connection to the clients' side of a node; OSError where there is none."""

    @abstractmethod
    async def _ended(self, node: str) -> str | None:
        """How the process of a node ended, its log being up to date; None while it runs."""

    @abstractmethod
    async def _kill(self, node: str) -> None:
        """SIGKILL, and wait for the end."""

    @abstractmethod
    async def _lose(self, node: str, *, torn: bool) -> int:
        """Let the files of a node that is down forget what was not synced; how many bytes that were."""

    @abstractmethod
    async def _start(self, node: str) -> None:
        """Start the node's process."""

    @abstractmethod
    async def _signal(self, node: str, number: signal.Signals) -> None:
        """Send a signal to the node's process."""
