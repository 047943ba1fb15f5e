"""What a nemesis may do to a cluster: the one protocol between faults and the ways to cause them.

Rules of this module
    1. The network is desired state. `Target.set_network` replaces all rules by the given `Ruleset`; an empty
       one heals everything. Writing the same state twice is the same as writing it once. So are disks, clocks,
       the pace of a process and the point at which it is to crash.
    2. `kill`, `start`, `pause` and `resume` are idempotent: killing a dead node does nothing, and neither
       does pausing or resuming one. A paused node can be killed, and what `start` starts is running.
    3. All verbs are coroutines, so that one runner serves the simulator and real clusters alike.
    4. A rule names a direction: `(src, dst)` is traffic from src to dst. Clients are never named by a rule.
    5. What not every cluster can do is a protocol of its own, found by `isinstance`. What such a cluster can do
       of it is said before the run, by the names of `nemesis.abilities`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

Link = tuple[str, str]
Distribution = Literal["uniform", "normal", "pareto", "paretonormal"]


@dataclass(frozen=True, slots=True)
class LinkRule:
    """What is wrong with one direction of one link; the defaults are a healthy link.

    Attributes:
        blocked: nothing passes.
        delay_ms: added to each message, one way.
        jitter_ms: extra delay; reorders messages where the transport allows it. `uniform` lies in
            [0, jitter_ms]; the other distributions have the mean jitter_ms / 2 and the standard deviation
            jitter_ms / 4, and what would be below no delay at all is none.
        loss: probability in [0, 1] that a message is lost.
        duplicate: probability in [0, 1] that a message arrives twice.
        reorder: probability in [0, 1] that a message skips the delay and so overtakes those before it.
        corrupt: probability in [0, 1] that a message arrives with a bit flipped; with TCP or UDP their
            checksum turns that into a loss.
        rate_kbit: no more than this passes per second, in kilobits; 0 is no limit.
        distribution: of the jitter.
        delay_correlation: in [0, 1]: how much the jitter of a message is that of the one before it.
        loss_correlation: in [0, 1]: how much the fate of a message is that of the one before it: losses come in bursts.
        reset: probability in [0, 1] that a message breaks the connection that carries it: whoever should have
            received it sees a reset, whoever sent it does not know until it sends again, and what was under
            way is lost. Where messages need no connection, those under way both ways on the link are lost.
    """

    blocked: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate_kbit: float = 0.0
    distribution: Distribution = "uniform"
    delay_correlation: float = 0.0
    loss_correlation: float = 0.0
    reset: float = 0.0


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole desired state of the network between nodes; a link that is not named is healthy."""

    links: Mapping[Link, LinkRule] = field(default_factory=lambda: MappingProxyType({}))


HEALTHY = Ruleset()


@dataclass(frozen=True, slots=True)
class DiskRule:
    """What is wrong with the disk of a node; the defaults are a healthy one.

    The last three only show when the process is killed while they are in force, or was written to before.

    Attributes:
        sync_delay_ms: each fsync takes this much longer.
        sync_error: probability in [0, 1] that an fsync fails (EIO); what it should have synced is not.
        write_error: probability in [0, 1] that a write fails because the disk is full (ENOSPC).
        stalled: writes and fsyncs begin and do not end before the fault does.
        misdirect: probability in [0, 1] that a write lands where something older lies.
        lying_sync: probability in [0, 1] that an fsync says that it is done and has made nothing durable.
        lose_unsynced: when the process dies, all that was not synced is lost, as when the power goes.
        torn_write: probability in [0, 1] that of the first write that is lost so, the beginning is kept.
    """

    sync_delay_ms: float = 0.0
    sync_error: float = 0.0
    write_error: float = 0.0
    stalled: bool = False
    misdirect: float = 0.0
    lying_sync: float = 0.0
    lose_unsynced: bool = False
    torn_write: float = 0.0


HEALTHY_DISK = DiskRule()
# Of troubles: how often a machine lost power, and how much that was not synced went with it, where that is counted.
POWER_LOSSES, BYTES_LOST = "power losses", "bytes lost"


@dataclass(frozen=True, slots=True)
class ClockRule:
    """What is wrong with the clocks of a node; the defaults are right ones.

    Attributes:
        offset_ms: the wall clock is this far ahead, or behind below zero.
        drift_ppm: the wall clock gains this many microseconds a second, from when the rule is set.
        strobe_ms: every other `strobe_period_ms` the wall clock is ahead by this as well.
        strobe_period_ms: how long it stays; 0 for no strobe.
        timer_drift_ppm: the monotonic clock, and so all time-outs, runs that much too fast.
    """

    offset_ms: float = 0.0
    drift_ppm: float = 0.0
    strobe_ms: float = 0.0
    strobe_period_ms: float = 0.0
    timer_drift_ppm: float = 0.0

    def offset_at_ms(self, elapsed_ms: float) -> float:
        """How far the wall clock is ahead, so long after the rule was set.

        >>> ClockRule(offset_ms=5, drift_ppm=1000, strobe_ms=100, strobe_period_ms=10).offset_at_ms(15_000)
        20.0
        >>> ClockRule(strobe_ms=100, strobe_period_ms=10).offset_at_ms(15)
        100.0
        """
        ahead_ms = self.offset_ms + elapsed_ms * self.drift_ppm / 1_000_000
        if self.strobe_period_ms and int(elapsed_ms / self.strobe_period_ms) % 2:
            ahead_ms += self.strobe_ms
        return ahead_ms


RIGHT_CLOCK = ClockRule()

DamageKind = Literal["bit-flip", "truncate"]


@dataclass(frozen=True, slots=True)
class Damage:
    """What happens once to what lies on the disk of a node that is down; every choice is in the value.

    Attributes:
        kind: `bit-flip` inverts bits, `truncate` cuts off the end.
        amount: how many bits, or how many bytes.
        places: numbers in [0, 1): where, as a share of what there is; one for each bit, none for `truncate`.
        path: a pattern of file names (`*.wal`), where the disk has files; empty for what the system appends to.
    """

    kind: DamageKind
    amount: int
    places: tuple[float, ...] = ()
    path: str = ""


CrashPoint = Literal["before-sync", "after-sync", "snapshot", "membership"]
"""Where a process is to die: it has written and not yet synced; it has synced and not yet told anybody; it
writes a snapshot, or receives one; it has a change of membership in its log that is not finished."""


@dataclass(frozen=True, slots=True)
class Members:
    """A cluster's own view of who belongs to it, as one of its nodes sees it.

    Attributes:
        voters, learners: names, sorted.
        outgoing: the old voters, while a change by joint consensus is under way.
        is_settled: no change is under way.
    """

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()
    is_settled: bool = True


@dataclass(frozen=True, slots=True)
class LinkProbe:
    """What became of probes from one node to another, in the direction named and back.

    Attributes:
        sent, answered: how many; a probe that is not answered in time counts as lost.
        rtt_ms: round trips of those that were answered, in the order of sending.
    """

    sent: int
    answered: int
    rtt_ms: tuple[float, ...] = ()


ProcessState = Literal["running", "paused", "down"]

EventKind = Literal[
    "started", "stopped", "candidate", "leader", "deposed", "truncated", "snapshot-taken", "snapshot-receiving",
    "snapshot-installed", "joint", "configured", "crashed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """Something that the system under test did, as one node saw it.

    Attributes:
        kind: `leader` and `deposed` for the beginning and end of leadership, `candidate` for a campaign,
            `truncated` for entries taken back from a log, `snapshot-taken` for one of the node's own,
            `snapshot-receiving` and `snapshot-installed` for a leader's, `joint` and `configured` for the beginning
            and end of a change of membership, `crashed` for a process that reached its crash point.
        node: who.
        at_ms: when, in milliseconds of the run.
        details: what else is known: the term, the index, the voters.
    """

    kind: EventKind
    node: str
    at_ms: float
    details: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[ClusterEvent], None]


class Target(Protocol):
    """A cluster as the nemesis sees it."""

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes, in a fixed order."""

    async def leader(self) -> str | None:
        """The node that most recently became leader and still thinks it is, where the system can tell."""

    async def set_network(self, rules: Ruleset) -> None:
        """Make the network between the nodes exactly this."""

    async def kill(self, node: str) -> None:
        """Stop the node's process at once (SIGKILL); what it had not synced may be lost."""

    async def start(self, node: str) -> None:
        """Start the node's process again on its disk as the kill left it."""

    async def pause(self, node: str) -> None:
        """Stop the process without telling anyone (SIGSTOP)."""

    async def resume(self, node: str) -> None:
        """Let it run on (SIGCONT)."""


@runtime_checkable
class ClockTarget(Protocol):
    """A cluster that can also make the clocks of its nodes wrong."""

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Make the node's clocks exactly this, from now on."""


@runtime_checkable
class DiskTarget(Protocol):
    """A cluster that can also make the disks of its nodes slow, failing, full or forgetful."""

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""


@runtime_checkable
class DamageTarget(Protocol):
    """A cluster that can also damage what lies on a disk."""

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage the disk of a node that is down, once; says what was damaged, for the record.

        Raises whatever it likes where there was nothing to damage: that is told, and not a quiet success.
        """


@runtime_checkable
class SlowTarget(Protocol):
    """A cluster that can also make processes slow."""

    async def set_slowness(self, node: str, factor: float) -> None:
        """Let the node's process, and those started later, take `factor` times as long; 1 is its own pace."""


@runtime_checkable
class CrashTarget(Protocol):
    """A cluster that can also let a process die at a chosen point of what it does."""

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """Let the process die when it next gets there, once; None takes it back.

        `kill` and `start` leave it armed. Who crashed so is down until `start`, and is no death to be told of.
        """


@runtime_checkable
class PrimariesTarget(Protocol):
    """A cluster that can also say of each node whether it thinks that it leads."""

    async def primaries(self) -> Sequence[str]:
        """All nodes that think they lead, in the order of `nodes`."""


@runtime_checkable
class MembershipTarget(Protocol):
    """A cluster whose membership can be changed while it runs."""

    async def members(self) -> Members | None:
        """What the leader says; None where nobody leads or answers."""

    async def change_members(self, voters: Sequence[str], learners: Sequence[str] = ()) -> None:
        """Ask the leader to begin the change; raises where it refuses, and says why."""

    async def transfer(self, node: str) -> None:
        """Ask the leader to hand over to this node; raises where it refuses."""

    async def wipe(self, node: str) -> None:
        """Forget all that is on the disk of a node that is down: it comes back as a new one that joins."""


@runtime_checkable
class ProbeTarget(Protocol):
    """A cluster that can be looked at as the faults should have left it, without the system's help."""

    async def probe_link(self, src: str, dst: str, count: int = 1) -> LinkProbe:
        """Send `count` probes from the machine of one node to that of another, and wait for the answers."""

    async def probe_process(self, node: str) -> ProcessState:
        """What the operating system says of the node's process."""

    async def probe_clock(self, node: str) -> float:
        """How far the wall clock that the node's process reads is ahead now, in milliseconds."""

    async def probe_troubles(self, node: str) -> Mapping[str, int]:
        """How often what is wrong with a node has struck so far: by fields of `DiskRule`, `slow` for its pace."""

    async def probe_met(self) -> Mapping[Link, int]:
        """How many packets or messages have met each link while something was wrong with it.

        What met it since the last `set_network` may be missing.
        """


@runtime_checkable
class EventTarget(Protocol):
    """A cluster that tells what the system does while it does it."""

    def subscribe(self, listener: Listener) -> None:
        """Call the listener for every event from now on, in order; it returns at once and never raises."""
