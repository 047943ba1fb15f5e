"""The nemesis' side of the simulated cluster: membership, probes, and what the system does while it does it.

Rules of this module
    1. Nothing here moves a draw of the run: probes have links and dice of their own, and whoever listens only
       listens.
    2. What the nemesis asks of a node it asks as an operator would, by a request to a process that runs: one that
       is dead, paused or slow does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from harness.sim.host import Observer, SimHost
from harness.sim.loop import SimLoop
from harness.sim.network import SimNetwork
from nemesis.target import ClusterEvent, EventKind, Link, LinkProbe, Listener, Members, ProcessState

US_PER_MS = 1000
# What a node's observer calls it, and what the nemesis does.
EVENTS: Mapping[str, EventKind] = {
    "started": "started",
    "stopped": "stopped",
    "candidate": "candidate",
    "leader": "leader",
    "truncated": "truncated",
    "snapshot": "snapshot-taken",
    "receiving": "snapshot-receiving",
    "restored": "snapshot-installed",
    "crashed": "crashed",
}


class RefusedError(RuntimeError):
    """The system would not do it; the message says why."""


@runtime_checkable
class MemberProcess(Protocol):
    """A process of a system whose membership can be changed."""

    def members(self) -> Members | None:
        """The members, if this node leads."""

    def change_members(self, voters: Sequence[str], learners: Sequence[str]) -> str | None:
        """Begins a change; why not, if it does not."""

    def transfer(self, node: str) -> str | None:
        """Hands over leadership; why not, if it does not."""


class _Disk(Protocol):
    @property
    def troubles(self) -> Mapping[str, int]: ...


class _Process(Protocol):
    def leader_term(self) -> int | None: ...


class _Machine(Protocol):
    """A simulated machine at either depth: `harness.sim.host.SimHost`, or one of `harness.clusters.whole`."""

    observer: Observer | None

    @property
    def disk(self) -> _Disk: ...

    @property
    def process(self) -> _Process | None: ...

    @property
    def alive(self) -> bool: ...

    @property
    def paused(self) -> bool: ...

    @property
    def held(self) -> bool: ...

    @property
    def waited(self) -> int: ...

    def wall_us(self) -> int: ...

    def wipe(self) -> None: ...


M = TypeVar("M", bound=_Machine)


class SimNemesisSide(Generic[M]):
    """What `SimCluster` is to the nemesis beyond links, processes, clocks and disks."""

    loop: SimLoop
    network: SimNetwork
    hosts: Mapping[str, M]

    def now_ns(self) -> int:
        """Virtual nanoseconds since the cluster was opened."""
        raise NotImplementedError

    async def leader(self) -> str | None:
        """Who leads."""
        raise NotImplementedError

    async def primaries(self) -> Sequence[str]:
        """All nodes that think they lead."""
        return [
            name
            for name, host in self.hosts.items()
            if host.process is not None and host.process.leader_term() is not None
        ]

    # -- membership -------------------------------------------------------------------------------------------

    async def _leading(self) -> MemberProcess | None:
        leader = await self.leader()
        host = self.hosts[leader] if leader is not None else None
        if host is None or host.held or host.process is None:
            return None
        if not isinstance(host.process, MemberProcess):
            raise RefusedError("this system cannot change its members")
        return host.process

    async def members(self) -> Members | None:
        """What the leader says."""
        leading = await self._leading()
        return leading.members() if leading is not None else None

    async def change_members(self, voters: Sequence[str], learners: Sequence[str] = ()) -> None:
        """Ask the leader to begin the change."""
        leading = await self._leading()
        self._ask(leading, lambda process: process.change_members(voters, learners))

    async def transfer(self, node: str) -> None:
        """Ask the leader to hand over."""
        leading = await self._leading()
        self._ask(leading, lambda process: process.transfer(node))

    def _ask(self, leading: MemberProcess | None, call: Callable[[MemberProcess], str | None]) -> None:
        """Ask it; it may die of that, at a crash point or of its disk, as of any other event."""
        said: list[str | None] = []
        asked: object = leading  # as its host holds it
        for host in self.hosts.values():
            if leading is not None and host.process is asked and isinstance(host, SimHost):
                host.guard(lambda: said.append(call(leading)))
        refusal = said[0] if said else "nobody leads"
        if refusal is not None:
            raise RefusedError(refusal)

    async def wipe(self, node: str) -> None:
        """Forget the disk of a node that is down; it comes back as one that joins."""
        self.hosts[node].wipe()

    # -- probes -----------------------------------------------------------------------------------------------

    async def probe_link(self, src: str, dst: str, count: int = 1) -> LinkProbe:
        """Probes over the link and back, all at this moment."""
        rtts_us = [self.network.probe_us(src, dst) for _ in range(count)]
        answered = tuple(rtt_us / US_PER_MS for rtt_us in rtts_us if rtt_us is not None)
        return LinkProbe(count, len(answered), answered)

    async def probe_process(self, node: str) -> ProcessState:
        """What the host says."""
        host = self.hosts[node]
        if not host.alive:
            return "down"
        return "paused" if host.paused else "running"

    async def probe_clock(self, node: str) -> float:
        """How far the wall clock is ahead."""
        return (self.hosts[node].wall_us() - self.loop.now_us) / US_PER_MS

    async def probe_troubles(self, node: str) -> Mapping[str, int]:
        """How often the disk has made trouble, and the pace let something wait."""
        host = self.hosts[node]
        return dict(host.disk.troubles) | ({"slow": host.waited} if host.waited else {})

    async def probe_met(self) -> Mapping[Link, int]:
        """How many messages have met each link that was not healthy then."""
        return self.network.met

    # -- events -----------------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> None:
        """Tell the listener what nodes that are started from now on do."""
        for name, host in self.hosts.items():
            host.observer = _Telling(self, name, listener, host.observer)


class _Telling:
    """An observer that also tells a listener; it knows who led, so as to tell that one no longer does."""

    def __init__(
        self, side: SimNemesisSide[Any], node: str, listener: Listener, before: Observer | None
    ) -> None:
        self._side, self._node, self._listener, self._before = side, node, listener, before
        self._leads = False
        self._has_started = False

    def __call__(self, event: str, **fields: Any) -> None:
        if self._before is not None:
            self._before(event, **fields)
        if event == "committed":
            return  # the commonest, and nothing to tell
        kind: EventKind | None = EVENTS.get(event)
        if event == "restored" and not self._has_started:
            kind = None  # its own, from its disk
        if event == "configured":
            kind = "joint" if fields["outgoing"] else "configured"
        if event in ("killed", "crashed"):
            self._has_started = False
        if self._leads and event in ("follower", "pre-candidate", "candidate", "killed", "crashed"):
            self._leads = False
            self._tell("deposed", {})
        if kind is not None:
            self._leads = self._leads or kind == "leader"
            self._has_started = self._has_started or kind == "started"
            self._tell(kind, fields)

    def _tell(self, kind: EventKind, fields: Mapping[str, Any]) -> None:
        at_ms = self._side.now_ns() / 1_000_000
        self._listener(ClusterEvent(kind, self._node, at_ms, dict(fields)))
