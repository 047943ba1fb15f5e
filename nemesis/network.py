"""Writes a ruleset to real nodes: the part of a cluster that breaks its network.

Rules of this module
    1. How a node is reached (a namespace, `docker exec`, ssh) is a `Reach`; everything else is the same for
       all of them.
    2. The device of a node is found by its address, each time the node starts: its name may change when a
       container is reconnected.
    3. All nodes are written at once. A node for which nothing changed is left alone.
    4. A namespace that ends with its process (a stopped container) takes the rules with it. The cluster says
       so: `leave` when the node stops, `refresh` when it was started again.
    5. `heal` removes all that `apply` may have set up, also what an earlier process left, and only that.
    6. One change at a time: a node that is started while a fault is written gets what is wanted last.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from nemesis import backend as backends
from nemesis import nfqueue, prober, tc
from nemesis.abilities import SHAPES
from nemesis.backend import Backend, only
from nemesis.target import HEALTHY, Link, LinkRule, Ruleset

ANSWER_S_MAX = 30.0
NOBODY = nfqueue.State({})


class NetworkError(RuntimeError):
    """A node refused a rule; the message names node, command and answer."""


class Conversation(Protocol):
    """A program on a node that answers each line with a line."""

    async def ask(self, line: str) -> str:
        """Sends a line and returns the answer."""

    async def close(self) -> None:
        """Ends its input and waits for its end."""


class Reach(Protocol):
    """How to run something on a node, with the right to change its network."""

    async def run(self, node: str, argv: Sequence[str], stdin: str = "") -> str:
        """Runs a command to its end; raises `NetworkError` where it fails."""

    async def talk(self, node: str, argv: Sequence[str]) -> Conversation:
        """Starts a program that answers lines."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What a node was brought to: by tc (None where it was never touched), and by the queue."""

    rules: Ruleset | None
    state: nfqueue.State
    counts_by_tc: bool = False


class Network:
    """The network of some nodes, broken and healed through a backend."""

    def __init__(
        self, reach: Reach, addresses: Mapping[str, str], backend: Backend, *, python: str = sys.executable
    ) -> None:
        self._reach = reach
        self._addresses = dict(addresses)
        self._backend = backend
        self._python = python
        self._rules = HEALTHY
        self._devices: dict[str, str] = {}
        self._written: dict[str, _Written] = {}
        self._daemons: dict[str, Conversation] = {}
        self._probers: dict[str, Conversation] = {}
        self._closing: list[asyncio.Future[None]] = []
        self._probing = {node: asyncio.Lock() for node in addresses}
        self._counted: dict[tuple[Link, str], int] = {}  # when it was last asked, by whom
        self._told: Counter[str] = Counter()
        self._has_tree: dict[str, bool] = dict.fromkeys(addresses, False)
        self._is_gone: dict[str, bool] = dict.fromkeys(addresses, False)
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Finds devices and starts what takes long to start, so that the first fault comes on time."""
        await _all(self._open(node) for node in self._present())

    async def apply(self, rules: Ruleset) -> None:
        """Makes the network between the nodes exactly this."""
        async with self._lock:
            self._rules = rules
            await self._write_all()

    async def leave(self, node: str) -> None:
        """Leaves a node out whose namespace is gone."""
        async with self._lock:
            await self._leave(node)

    async def _leave(self, node: str) -> None:
        self._is_gone[node] = True
        self._has_tree[node] = False
        self._devices.pop(node, None)
        self._written.pop(node, None)
        await self._close_daemon(node)
        await self._drop_prober(node)

    async def refresh(self, node: str, address: str | None = None) -> None:
        """Writes a node again that was started anew; where its address changed, the other nodes as well."""
        async with self._lock:
            await self._leave(node)
            self._is_gone[node] = False
            if address and address != self._addresses[node]:
                self._addresses[node] = address
                # The filters of the others name the old address.
                await _all(self._heal(other) for other in self._present())
            await self._write_all()

    async def evidence(self) -> dict[Link, int]:
        """How many packets met each link that something is wrong with now, since this was last asked or since it is."""
        sick = list(self._rules.links)
        counts = dict.fromkeys(sick, 0)
        concerned = {node for link in sick for node in link}
        async with self._lock:
            results = await asyncio.gather(
                *(self._met(node) for node in self._present() if node in concerned)
            )
        before, self._counted = self._counted, {}
        for link, counter, count in (one for result in results for one in result):
            self._counted[link, counter] = count
            if link in counts:  # on both ways at once it is the same packets
                counts[link] = max(counts[link], count - before.get((link, counter), 0))
        return counts

    async def _met(self, node: str) -> list[tuple[Link, str, int]]:
        """What met the leaves of tc on the way out of a node, and our chain on the way in, and who counted it."""
        counts: list[tuple[Link, str, int]] = []
        written = self._written.get(node)
        if self._has_tree[node] and (written is None or written.counts_by_tc):
            rules = written.rules if written and written.rules else HEALTHY
            counts += await self._met_by_tc(node, tc.rated(rules, node))
        name_of = {address: name for name, address in self._addresses.items()}
        if written is not None and written.state.peers:
            script = "".join(
                f"{tool} -w -t mangle -nvxL {nfqueue.CHAIN} 2>/dev/null || true\n"
                for tool in nfqueue.tools(written.state.peers)
            )
            for address, count in nfqueue.met(await self._reach.run(node, ["sh"], script)).items():
                if address in name_of:
                    counts.append(((name_of[address], node), f"queue {self._told[node]}", count))
        return counts

    async def _met_by_tc(self, node: str, rated: frozenset[str]) -> list[tuple[Link, str, int]]:
        device = await self._device(node)
        said = await self._reach.run(node, ["tc", "-s", "-j", "qdisc", "show", "dev", device])
        leaves = tc.met(said, node, self._addresses, rated)
        return [((node, peer), f"leaf {leaf.handle}", leaf.packets) for peer, leaf in leaves.items()]

    async def probe(self, src: str, dst: str, port: int, count: int, timeout_ms: float) -> list[float | None]:
        """How long connections from one node to a port of another took to be answered; None for those that were not."""
        question = prober.Question(self._addresses[dst], port, count, timeout_ms)
        async with self._probing[src]:
            if src not in self._probers:
                self._probers[src] = await self._reach.talk(src, [self._python, "-m", "nemesis.prober"])
            try:
                answer = await self._probers[src].ask(msgspec.json.encode(question).decode())
                return msgspec.json.decode(answer, type=list[float | None])
            except msgspec.DecodeError:
                await self._drop_prober(src)
                raise NetworkError(f"the prober of {src} answered {answer or 'nothing'!r}") from None
            except asyncio.CancelledError:
                # Its answer to this question would be taken for one to the next. It ends when it has given it: whoever
                # wants to heal does not wait for that.
                self._closing.append(asyncio.ensure_future(self._probers.pop(src).close()))
                raise

    async def _drop_prober(self, node: str) -> None:
        if node in self._probers:
            await self._probers.pop(node).close()

    async def heal(self) -> None:
        """Removes every rule of ours from every node."""
        async with self._lock:
            self._rules = HEALTHY
            probers, self._probers = self._probers, {}
            closing, self._closing = self._closing, []
            await _all([*closing, *(one.close() for one in probers.values())])
            await _all(self._heal(node) for node in self._present())

    async def _write_all(self) -> None:
        await _all(self._write(node) for node in self._present())

    def _present(self) -> list[str]:
        return [node for node in self._addresses if not self._is_gone[node]]

    async def _open(self, node: str) -> None:
        await self._device(node)
        if self._uses_daemons:
            await self._tell(node, NOBODY)
            self._written[node] = _Written(None, NOBODY)

    def _fields_of_queue(self, rule: LinkRule) -> tuple[str, ...]:
        """What of a rule is done on the receiver's side; what netem cannot do takes the other shapes with it."""
        shapes = SHAPES if self._backend.shapes == "nfqueue" or rule.delay_correlation else ()
        blocked = ("blocked",) if self._backend.blocked == "iptables" else ()
        return (*blocked, *shapes, "reset")

    @property
    def _uses_daemons(self) -> bool:
        """Whether the usual faults need them; only for resets they are started when the first comes."""
        return self._backend.shapes == "nfqueue" or self._backend.blocked == "iptables"

    async def _write(self, node: str) -> None:
        wanted = self._wanted(node)
        before = self._written.get(node)
        if before == wanted:
            return
        self._written.pop(node, None)
        # The queue first: between the two steps a link is slower than it should be rather than open. One that had
        # nothing to do and gets nothing to do need not be told.
        is_idle = before is not None and not before.state.peers and not wanted.state.peers
        if (wanted.state.peers or node in self._daemons) and not is_idle:
            await self._tell(node, wanted.state)
        if wanted.rules is not None and (before is None or before.rules != wanted.rules):
            device = await self._device(node)
            write = tc.change_script if self._has_tree[node] else tc.script
            await self._run_script(node, write(wanted.rules, node, self._addresses, device))
            self._has_tree[node] = True
            await self._begin_counting(node, wanted.rules, before.rules if before is not None else None)
        self._written[node] = wanted

    async def _begin_counting(self, node: str, rules: Ruleset, before: Ruleset | None) -> None:
        """A leaf that has a rate from now on has counted already, when it was healthy."""
        new = tc.rated(rules, node) - (tc.rated(before, node) if before is not None else frozenset())
        if new:
            for link, counter, count in await self._met_by_tc(node, new):
                if link[1] in new:
                    self._counted[link, counter] = count

    def _wanted(self, node: str) -> _Written:
        """What tc and what the queue should do on a node. A node that was never touched stays so."""
        by_queue = {link: self._fields_of_queue(rule) for link, rule in self._rules.links.items()}
        rules = only(
            self._rules, lambda link: [n for n in backends.NETWORK_FIELDS if n not in by_queue[link]]
        )
        state = nfqueue.state(self._rules, node, self._addresses, lambda link: by_queue[link])
        mine = Ruleset({link: rule for link, rule in rules.links.items() if link[0] == node})
        if not self._has_tree[node] and not mine.links:
            return _Written(None, state)
        return _Written(mine, state, counts_by_tc=tc.is_sick(mine, node))

    async def _heal(self, node: str) -> None:
        self._written.pop(node, None)
        await self._close_daemon(node)
        script = tc.heal_script(await self._device(node)) if self._backend.rate else ""
        if self._uses_daemons or self._backend.resets:
            script += nfqueue.heal_script()
        await self._run_script(node, script)
        self._has_tree[node] = False

    async def _tell(self, node: str, state: nfqueue.State) -> None:
        if node not in self._daemons:
            self._daemons[node] = await self._reach.talk(node, [self._python, "-m", "nemesis.nfqueue", node])
        answer = await self._daemons[node].ask(msgspec.json.encode(state).decode())
        self._told[node] += 1  # its chain is written anew, and counts from nothing
        if answer != "ok":
            await self._close_daemon(node)
            raise NetworkError(f"the packet queue of {node} answered {answer or 'nothing'!r}")

    async def _close_daemon(self, node: str) -> None:
        daemon = self._daemons.pop(node, None)
        if daemon:
            await daemon.close()

    async def _device(self, node: str) -> str:
        if node not in self._devices:
            address = self._addresses[node]
            said = await self._reach.run(node, ["ip", "-o", "addr", "show", "to", address])
            fields = said.split()
            if len(fields) < 2:
                raise NetworkError(f"{node} has no device with the address {address}")
            self._devices[node] = fields[1].partition("@")[0]
        return self._devices[node]

    async def _run_script(self, node: str, script: str) -> None:
        await self._reach.run(node, ["sh"], script)


class CommandReach:
    """Reaches a node by putting something in front of a command line, such as `docker exec -i NAME`."""

    def __init__(self, command: Callable[[str, Sequence[str]], Sequence[str]]) -> None:
        self._command = command

    async def run(self, node: str, argv: Sequence[str], stdin: str = "") -> str:
        """Runs a command to its end; raises `NetworkError` where it fails."""
        process = await self._start(node, argv)
        try:
            out, error = await asyncio.wait_for(process.communicate(stdin.encode()), ANSWER_S_MAX)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NetworkError(f"{' '.join(argv)} on {node} took more than {ANSWER_S_MAX:g} s") from None
        if process.returncode:
            raise NetworkError(f"{' '.join(argv)} on {node} failed: {error.decode().strip()}")
        return out.decode()

    async def talk(self, node: str, argv: Sequence[str]) -> Conversation:
        """Starts a program that greets with `ready` and then answers lines."""
        conversation = _ProcessConversation(await self._start(node, argv))
        try:
            greeting = await conversation.hear()
        except asyncio.CancelledError:
            await conversation.close()
            raise
        if greeting != "ready":
            await conversation.close()
            raise NetworkError(f"{' '.join(argv)} on {node} did not start: {greeting or 'no answer'}")
        return conversation

    async def _start(self, node: str, argv: Sequence[str]) -> asyncio.subprocess.Process:
        pipe, command = asyncio.subprocess.PIPE, self._command(node, argv)
        try:
            return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            raise NetworkError(f"{command[0]}, by which {node} is reached, did not start: {error}") from error


class _ProcessConversation:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, line: str) -> str:
        assert self._process.stdin, "stdin was asked for as a pipe"
        try:
            self._process.stdin.write(f"{line}\n".encode())
            await self._process.stdin.drain()
        except ConnectionError:
            return "nothing: it has ended"
        return await self.hear()

    async def hear(self) -> str:
        assert self._process.stdout, "stdout was asked for as a pipe"
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_S_MAX)
        except TimeoutError:
            return f"nothing within {ANSWER_S_MAX:g} s"
        return line.decode().strip()

    async def close(self) -> None:
        if self._process.returncode is None:
            try:
                # With no input at all, communicate() would leave stdin open in Python 3.11.
                await asyncio.wait_for(self._process.communicate(b""), ANSWER_S_MAX)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


async def _all(steps: Iterable[Awaitable[None]]) -> None:
    """Runs all coroutines to their end, whatever becomes of the others, then raises what went wrong."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise NetworkError("; ".join(str(error) for error in errors)) from errors[0]
