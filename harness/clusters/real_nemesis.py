"""The nemesis' side of clusters of real processes: pace, crash points, membership, probes, events.

Rules of this module
    1. A slow process is stopped and let go in turns, so that it gets its share of every tenth of a second.
    2. A process that died at its crash point, or of what was done to its disk, is not held against the system.
    3. Probes are sent from the machine of a node, where the faults are, by a helper that is started with the first.
    4. What the system does is read from the logs of the nodes where they can be read while they are written;
       elsewhere from the samples of their status, which show less.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.clusters.http import BadAnswer, Connection, exchange
from harness.clusters.shims import ShimFiles
from harness.systems.base import Call, Service
from nemesis.network import Network
from nemesis.target import (
    BYTES_LOST,
    POWER_LOSSES,
    ClusterEvent,
    CrashPoint,
    EventKind,
    Link,
    LinkProbe,
    Listener,
    Members,
    ProcessState,
)

ANSWER_TIMEOUT_S = 2.0
PROBE_TIMEOUT_MS = 400.0
# How far a clock is ahead: with the library in front, as the node has it, and without. What nobody shifts, the
# monotonic clock, stands for the time between the two.
CLOCK_SCRIPT = """
script='import time; print(time.time() - time.monotonic())'
python3 -Sc "$script"; env -u LD_PRELOAD python3 -Sc "$script"
"""
TAIL_INTERVAL_S = 0.01
READ_BYTES_MAX = 1 << 20
# What a node's log calls it, and what the nemesis does.
EVENTS: Mapping[str, EventKind] = {
    "candidate": "candidate",
    "leader": "leader",
    "truncated": "truncated",
    "snapshot": "snapshot-taken",
    "receiving": "snapshot-receiving",
    "restored": "snapshot-installed",
    "started": "started",
    "stopped": "stopped",
}
DEPOSING = ("follower", "candidate", "pre-candidate", "started")


def ahead_ms(said: str) -> float:
    """What `CLOCK_SCRIPT` found.

    >>> ahead_ms("1002.5 1000.0")
    2500.0
    """
    shifted_s, true_s = map(float, said.split())
    return (shifted_s - true_s) * 1000


def state_of(stat: str) -> ProcessState:
    """What `/proc/PID/stat` says; nothing of a process that is gone.

    >>> state_of("7 (python3) T 1 7 7 0"), state_of("")
    ('paused', 'down')
    """
    letter = (stat.rpartition(")")[2].split() or ["X"])[0]
    return "down" if letter in "ZX" else "paused" if letter in "Tt" else "running"


class RefusedError(RuntimeError):
    """The system would not do it; the message says why."""


@runtime_checkable
class MemberService(Protocol):
    """A system whose membership can be changed over HTTP.

    Attributes:
        join_options: what is added to the command line of a node that is to wait to be made a member.
    """

    join_options: list[str]

    def members(self, status: Any) -> Members:
        """Who belongs to the cluster, as the node with this status sees it."""

    def change_members(self, voters: Sequence[str], learners: Sequence[str]) -> Call:
        """Asks a leader to begin a change; 2xx where it does."""

    def transfer(self, node: str) -> Call:
        """Asks a leader to hand over to this node; 2xx where it begins to."""


class RealNemesisSide:
    """What `RealCluster` is to the nemesis beyond links, signals, clocks and disks."""

    slow_run_s = 0.01  # how long a slow process runs at a time
    log_is_live = False  # whether the log of a node can be read while it is written

    _nodes: tuple[str, ...]
    _service: Service
    _network: Network | None
    _shims: ShimFiles | None
    _up: set[str]
    _met: dict[Link, int]
    _excused: set[str]  # whose end is no surprise
    _lost_bytes: dict[str, list[int]]  # that were not synced, each time the power went

    def __init__(self) -> None:
        self._pacers: dict[str, asyncio.Task[None]] = {}
        self._paces: dict[str, float] = {}
        self._held: dict[str, int] = {}
        self._paused: set[str] = set()
        self._listeners: list[Listener] = []
        self._tailer: asyncio.Task[None] | None = None
        self._leading: set[str] = set()
        self._crash_in_change: set[str] = set()
        self._joins: set[str] = set()  # nodes that come back as new ones

    def now_ns(self) -> int:
        """Nanoseconds of the run."""
        raise NotImplementedError

    async def leader(self) -> str | None:
        """Who leads."""
        raise NotImplementedError

    async def kill(self, node: str) -> None:
        """SIGKILL."""
        raise NotImplementedError

    async def _statuses(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _dial(self, node: str) -> Connection:
        raise NotImplementedError

    async def _signal(self, node: str, number: signal.Signals) -> None:
        raise NotImplementedError

    async def _is_up(self, node: str) -> bool:
        raise NotImplementedError

    def log_file(self, node: str) -> Path:
        """Where a node's output goes."""
        raise NotImplementedError

    async def _state(self, node: str) -> ProcessState:
        """What the operating system says of a process that was started and has not ended."""
        raise NotImplementedError(f"nobody can look at the process of {node} here")

    async def _wall_ahead_ms(self, node: str) -> float:
        """How far the clock that a node's process reads is ahead."""
        raise NotImplementedError(f"nobody can read the clock of {node} here")

    # -- pace ---------------------------------------------------------------------------------------------------

    async def set_slowness(self, node: str, factor: float) -> None:
        """Let the node's process run for a while, and stand for so much longer, again and again."""
        pacer = self._pacers.pop(node, None)
        if pacer is not None:
            pacer.cancel()
            await asyncio.gather(pacer, return_exceptions=True)
        self._paces[node] = factor
        if factor > 1:
            self._pacers[node] = asyncio.create_task(self._pace(node, factor))

    async def _pace(self, node: str, factor: float) -> None:
        try:
            while True:
                await asyncio.sleep(self.slow_run_s)
                if node in self._paused or not await self._is_up(node):
                    continue
                await self._signal(node, signal.SIGSTOP)
                self._held[node] = self._held.get(node, 0) + 1
                await asyncio.sleep(self.slow_run_s * (factor - 1))
                await self._let_go(node)
        finally:
            await asyncio.shield(self._let_go(node))

    async def _let_go(self, node: str) -> None:
        if node not in self._paused and await self._is_up(node):
            with contextlib.suppress(Exception):  # it may have died a moment ago
                await self._signal(node, signal.SIGCONT)

    # -- crash points ---------------------------------------------------------------------------------------------

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """Let the node die when it next gets there; in a change of membership, when its log tells of it."""
        self._crash_in_change.discard(node)
        if point is not None:
            self._excused.add(node)
        if point == "membership":
            self._crash_in_change.add(node)
            self._start_tailing()
        if self._shims is not None:
            await self._shims.set_crash_point(node, None if point == "membership" else point)

    # -- membership ---------------------------------------------------------------------------------------------

    async def primaries(self) -> Sequence[str]:
        """All nodes that think they lead, and say so in time."""
        statuses = await self._statuses()
        leads = self._service.leader_term
        return [node for node, status in statuses.items() if status is not None and leads(status) is not None]

    async def members(self) -> Members | None:
        """What the leader says."""
        statuses = await self._statuses()
        leader = await self.leader()
        if leader is None or statuses.get(leader) is None:
            return None
        return self._member_service().members(statuses[leader])

    async def change_members(self, voters: Sequence[str], learners: Sequence[str] = ()) -> None:
        """Ask the leader to begin the change."""
        await self._ask_leader(self._member_service().change_members(voters, learners))

    async def transfer(self, node: str) -> None:
        """Ask the leader to hand over."""
        await self._ask_leader(self._member_service().transfer(node))

    def _member_service(self) -> MemberService:
        if not isinstance(self._service, MemberService):
            raise RefusedError("this system cannot change its members")
        return self._service

    async def _ask_leader(self, call: Call) -> None:
        leader = await self.leader()
        if leader is None:
            raise RefusedError("nobody leads")
        connection: Connection | None = None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                connection = await self._dial(leader)
                answer = await exchange(connection, call, leader)
        except (OSError, EOFError, BadAnswer) as error:
            raise RefusedError(f"{leader} did not answer: {error}") from None
        finally:
            if connection is not None:
                connection.drop()
        if not 200 <= answer.status < 300:
            raise RefusedError(
                f"{leader} answered {answer.status}: {answer.body[:200].decode(errors='replace')}"
            )

    # -- probes ---------------------------------------------------------------------------------------------------

    async def probe_link(self, src: str, dst: str, count: int = 1) -> LinkProbe:
        """Connections from the machine of one node to that of another."""
        assert self._network is not None, "the cluster is open"
        took_ms = await self._network.probe(src, dst, self._service.client_port, count, PROBE_TIMEOUT_MS)
        answered = tuple(one_ms for one_ms in took_ms if one_ms is not None)
        return LinkProbe(count, len(answered), answered)

    async def probe_process(self, node: str) -> ProcessState:
        """What the operating system says."""
        return await self._state(node) if await self._is_up(node) else "down"

    async def probe_clock(self, node: str) -> float:
        """How far the clock that the node's process reads is ahead."""
        return await self._wall_ahead_ms(node)

    async def probe_troubles(self, node: str) -> Mapping[str, int]:
        """What the library in front of the disk counted, what went with the power, how often a process was held."""
        struck = dict(self._shims.struck(node)) if self._shims is not None else {}
        lost = self._lost_bytes.get(node, [])
        if lost:
            struck |= {POWER_LOSSES: len(lost), BYTES_LOST: sum(lost)}
        return struck | ({"slow": self._held[node]} if node in self._held else {})

    async def probe_met(self) -> Mapping[Link, int]:
        """How many packets met each link that was sick, up to the last change of the network."""
        return dict(self._met)

    # -- events -----------------------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> None:
        """Tell the listener what the logs of the nodes tell."""
        self._listeners.append(listener)

    def _start_tailing(self) -> None:
        if self._tailer is None and self.log_is_live:
            self._tailer = asyncio.create_task(self._tail())

    async def _tail(self) -> None:
        """Reads what is new in the logs, whole lines only."""
        places = dict.fromkeys(self._nodes, 0)
        rests = dict.fromkeys(self._nodes, b"")
        while True:
            for node in self._nodes:
                data = _read_from(self.log_file(node), places[node])
                places[node] += len(data)
                *lines, rests[node] = (rests[node] + data).split(b"\n")
                for line in lines:
                    await self._read_line(node, line.decode(errors="replace"))
            await asyncio.sleep(TAIL_INTERVAL_S)

    async def _read_line(self, node: str, line: str) -> None:
        said = self._service.event(line)
        if said is None:
            return
        _, event, fields = said
        kind = EVENTS.get(event)
        if event == "configured":
            kind = "joint" if fields.get("outgoing") else "configured"
            if node in self._crash_in_change:
                self._crash_in_change.discard(node)
                await self.kill(node)
                self._tell("crashed", node, {"point": "membership"})
        if node in self._leading and event in DEPOSING:
            self._leading.discard(node)
            self._tell("deposed", node, {})
        if kind is not None:
            if kind == "leader":
                self._leading.add(node)
            self._tell(kind, node, fields)

    def _tell(self, kind: EventKind, node: str, details: Mapping[str, Any]) -> None:
        happened = ClusterEvent(kind, node, self.now_ns() / 1_000_000, details)
        for listener in self._listeners:
            listener(happened)

    async def _end_nemesis_side(self) -> None:
        """Ends what runs beside the nodes."""
        tasks = [*self._pacers.values(), *([self._tailer] if self._tailer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read_from(file: Path, place: int) -> bytes:
    try:
        with file.open("rb") as log:
            log.seek(place)
            return log.read(READ_BYTES_MAX)
    except OSError:
        return b""
