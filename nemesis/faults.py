"""What can go wrong, as plain values.

Rules of this module
    1. A fault is a frozen value that goes to JSON and back without loss: a plan is saved, edited by hand and
       replayed. The tag is the field `fault`.
    2. Every choice is in the value. The names in `nodes` were drawn when the plan was; nothing is drawn here.
    3. What a cluster does can only be known at injection: who leads then, and which node set a reactive fault off.
       Where a fault aims at that node, it takes the place of the first drawn node unless it is among them
       already; without it the drawn nodes stand. So such a fault hits as many nodes with a leader as without.
    4. What each comes to on a given cluster is said by `nemesis.effects`.

>>> encode(Partition(topology="leader", nodes=("n2",)))
'{"fault":"partition","topology":"leader","nodes":["n2"]}'
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import msgspec

from nemesis.fault_base import (
    Aim,
    Aimed,
    AnyFault,
    FaultError,
    name_of,
    require_above_zero,
    require_nodes,
    require_not_negative,
    require_number,
    require_probability,
)
from nemesis.target import (
    HEALTHY_DISK,
    ClockRule,
    CrashPoint,
    Damage,
    DamageKind,
    DiskRule,
    Distribution,
    LinkRule,
)

__all__ = ["FAULT_TYPES", "Aim", "Fault", "FaultError", "LinkFault", "encode", "name_of", "wants_leader"]

Topology = Literal[
    "halves", "one", "minority-third", "majorities-ring", "bridge", "leader", "leader-in-minority",
    "leader-in-majority", "primaries", "trigger", "custom",
]  # fmt: skip
Hearing = Literal["none", "deaf", "mute"]
Direction = Literal["both", "in", "out"]
Change = Literal["remove", "replace", "transfer"]

GROUP_TOPOLOGIES = (
    "halves", "one", "minority-third", "leader", "leader-in-minority", "leader-in-majority", "trigger",
)  # fmt: skip
LEADER_TOPOLOGIES = ("leader", "leader-in-minority", "leader-in-majority")
DRIFT_PPM_MAX = 1_000_000_000


class Partition(AnyFault, frozen=True, kw_only=True, tag_field="fault", tag="partition"):
    """Some nodes do not hear some others.

    Attributes:
        topology: the shape. `halves`, `one`, `minority-third`, `leader`, `leader-in-minority`,
            `leader-in-majority` and `trigger` cut `nodes` off from the rest; the word says how they were drawn, and
            for some that the leader, or the node that set the fault off, is one of them. In `primaries` every node
            that thinks it leads is alone. In `majorities-ring` all nodes stand in ring order. In `bridge` the first
            of `nodes` hears both sides and the others are one side. `custom` takes the grudge as written.
        nodes: the drawn names.
        hearing: what passes between `nodes` and the rest: `none`, or one direction only, so that `nodes`
            are `deaf` (are heard but do not hear) or `mute` (hear but are not heard).
        grudge: for `custom`: node to the nodes it does not hear from.
    """

    topology: Topology
    nodes: tuple[str, ...] = ()
    hearing: Hearing = "none"
    grudge: dict[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        if (self.topology == "custom") != (self.grudge is not None):
            raise FaultError(
                f"partition {self.topology}: a grudge goes with the topology 'custom' and with no other; "
                "set topology to 'custom' or remove the grudge"
            )
        for node, lost in (self.grudge or {}).items():
            if node in lost:
                raise FaultError(
                    f"partition custom: {node!r} is not to hear {node!r}, and a node always hears itself; "
                    "take it out of its own list"
                )
        if self.topology != "custom":
            require_nodes(f"partition {self.topology}", self.nodes)
        if self.hearing != "none" and self.topology not in GROUP_TOPOLOGIES:
            raise FaultError(
                f"partition {self.topology}: hearing {self.hearing!r} needs one group cut off from the rest; "
                f"remove it or take one of the topologies {', '.join(GROUP_TOPOLOGIES)}"
            )


class Kill(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="kill"):
    """The processes die at once (SIGKILL) and are started again when the fault heals."""


class Pause(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="pause"):
    """The processes stand still (SIGSTOP) and do not know it; they run on when the fault heals."""


class Slow(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="slow"):
    """The processes take `factor` times as long for everything."""

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 < self.factor < float("inf"):
            raise FaultError(f"slow: factor is {self.factor:g}; it must be a number above 1")


class Crash(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="crash"):
    """Each process dies when it next gets to `point`, and is started again when the fault heals."""

    point: CrashPoint


class Degrading(Aimed, frozen=True, kw_only=True):
    """A fault of the links of the nodes hit: to and from them, or one direction only.

    Attributes:
        direction: `in` for what the nodes receive from others, `out` for what they send, or `both`.
    """

    direction: Direction = "both"

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        raise NotImplementedError


class Latency(Degrading, frozen=True, kw_only=True, tag_field="fault", tag="latency"):
    """Messages take longer: `delay_ms` one way, and jitter on top; see `nemesis.target.LinkRule`."""

    delay_ms: float
    jitter_ms: float = 0.0
    distribution: Distribution = "uniform"
    correlation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("latency", "delay_ms", self.delay_ms)
        require_not_negative("latency", "jitter_ms", self.jitter_ms)
        require_probability("latency", self.correlation, "correlation")

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(
            delay_ms=self.delay_ms,
            jitter_ms=self.jitter_ms,
            distribution=self.distribution,
            delay_correlation=self.correlation,
        )


class Chance(Degrading, frozen=True, kw_only=True):
    """A fault that befalls each message with the same probability."""

    probability: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probability(name_of(self), self.probability)


class Loss(Chance, frozen=True, kw_only=True, tag_field="fault", tag="loss"):
    """Messages are lost; with a correlation in bursts, the share being the same."""

    correlation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probability("loss", self.correlation, "correlation")

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(loss=self.probability, loss_correlation=self.correlation)


class Duplicate(Chance, frozen=True, kw_only=True, tag_field="fault", tag="duplicate"):
    """Messages arrive twice."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(duplicate=self.probability)


class Reorder(Chance, frozen=True, kw_only=True, tag_field="fault", tag="reorder"):
    """Messages overtake those before them: all take `delay_ms` longer but the ones chosen, which do not."""

    delay_ms: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("reorder", "delay_ms", self.delay_ms)
        require_not_negative("reorder", "delay_ms", self.delay_ms)

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(delay_ms=self.delay_ms, reorder=self.probability)


class Corrupt(Chance, frozen=True, kw_only=True, tag_field="fault", tag="corrupt"):
    """Messages arrive with a bit flipped; where TCP or UDP carry them, their checksum makes that a loss."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(corrupt=self.probability)


class Reset(Chance, frozen=True, kw_only=True, tag_field="fault", tag="reset"):
    """Messages break the connections that carry them."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(reset=self.probability)


class Rate(Degrading, frozen=True, kw_only=True, tag_field="fault", tag="rate"):
    """Each link passes no more than `rate_kbit` kilobits per second."""

    rate_kbit: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("rate", "rate_kbit", self.rate_kbit)

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(rate_kbit=self.rate_kbit)


class ClockFault(Aimed, frozen=True, kw_only=True):
    """A fault of the clocks of the nodes hit."""

    def rule(self) -> ClockRule:
        """What is wrong with the clocks of each node hit."""
        raise NotImplementedError


class ClockSkew(ClockFault, frozen=True, kw_only=True, tag_field="fault", tag="clock"):
    """The wall clocks of the nodes jump by `offset_ms`, and back when the fault heals."""

    offset_ms: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("clock", "offset_ms", self.offset_ms)

    def rule(self) -> ClockRule:
        """What is wrong with the clocks of each node hit."""
        return ClockRule(offset_ms=self.offset_ms)


class ClockStrobe(ClockFault, frozen=True, kw_only=True, tag_field="fault", tag="clock-strobe"):
    """The wall clocks jump by `delta_ms` and back again, each way every `period_ms`."""

    delta_ms: float
    period_ms: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("clock-strobe", "delta_ms", self.delta_ms)
        require_above_zero("clock-strobe", "period_ms", self.period_ms)
        require_not_negative("clock-strobe", "period_ms", self.period_ms)

    def rule(self) -> ClockRule:
        """What is wrong with the clocks of each node hit."""
        return ClockRule(strobe_ms=self.delta_ms, strobe_period_ms=self.period_ms)


class ClockDrift(ClockFault, frozen=True, kw_only=True, tag_field="fault", tag="clock-drift"):
    """The wall clocks run fast by `drift_ppm`, slow below zero; with `timers` so do time-outs."""

    drift_ppm: float
    timers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1_000_000 < self.drift_ppm <= DRIFT_PPM_MAX:
            raise FaultError(
                f"clock-drift: drift_ppm is {self.drift_ppm:g}; it must be a number above -1000000, where the clock "
                f"would stand still, and at most {DRIFT_PPM_MAX}, a thousand times its pace"
            )

    def rule(self) -> ClockRule:
        """What is wrong with the clocks of each node hit."""
        return ClockRule(drift_ppm=self.drift_ppm, timer_drift_ppm=self.drift_ppm if self.timers else 0.0)


class Disk(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="disk"):
    """The disks of the nodes are slow to sync, fail to sync, are full, stand still, or write to wrong places.

    A node may well stop when its disk fails, and should; it is started again when the fault heals.
    """

    sync_delay_ms: float = 0.0
    sync_error: float = 0.0
    write_error: float = 0.0
    stalled: bool = False
    misdirect: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative("disk", "sync_delay_ms", self.sync_delay_ms)
        require_probability("disk", self.sync_error, "sync_error")
        require_probability("disk", self.write_error, "write_error")
        require_probability("disk", self.misdirect, "misdirect")
        if self.rule() == HEALTHY_DISK:
            raise FaultError(
                "disk: nothing is wrong with it; give sync_delay_ms, sync_error, write_error, stalled or misdirect"
            )

    def rule(self) -> DiskRule:
        """What is wrong with each disk concerned."""
        return DiskRule(self.sync_delay_ms, self.sync_error, self.write_error, self.stalled, self.misdirect)


class PowerLoss(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="power-loss"):
    """The machines lose power: what was not synced is gone, and with `torn_write` the beginning of it stays.

    They are started again when the fault heals.
    """

    torn_write: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probability("power-loss", self.torn_write, "torn_write")

    def rule(self) -> DiskRule:
        """What is wrong with each disk concerned."""
        return DiskRule(lose_unsynced=True, torn_write=self.torn_write)


class LyingDisk(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="lying-disk"):
    """Syncs say that they are done and did nothing; when the fault heals, the machines lose power and are started.

    No system that relies on its disk survives this on enough nodes: it shows what a system relies on.
    """

    probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probability("lying-disk", self.probability)

    def rule(self) -> DiskRule:
        """What is wrong with each disk concerned."""
        return DiskRule(lying_sync=self.probability, lose_unsynced=True)


class DiskDamage(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="disk-damage"):
    """The processes die, what lies on their disks is damaged, and they are started again when the fault heals.

    Attributes:
        damage, amount, places, path: see `nemesis.target.Damage`.
    """

    damage: DamageKind
    amount: int
    places: tuple[float, ...] = ()
    path: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_above_zero("disk-damage", "amount", self.amount)
        for place in self.places:
            require_probability("disk-damage", place, "a place")
        if self.damage == "bit-flip" and len(self.places) != self.amount:
            raise FaultError(
                f"disk-damage: {self.amount} bits and {len(self.places)} places; give one place for each bit"
            )

    def what(self) -> Damage:
        """What happens to each disk concerned."""
        return Damage(self.damage, self.amount, self.places, self.path)


class Membership(Aimed, frozen=True, kw_only=True, tag_field="fault", tag="membership"):
    """The cluster changes while it runs.

    Attributes:
        change: `remove` takes the nodes out, and adds them again when the fault heals; `replace` does the same and
            lets them forget their disks in between, so that new nodes come in their places; `transfer` hands
            leadership to the first of the nodes, once.
    """

    change: Change


LinkFault: TypeAlias = Latency | Loss | Duplicate | Reorder | Corrupt | Reset | Rate
AnyClockFault: TypeAlias = ClockSkew | ClockStrobe | ClockDrift
DiskFault: TypeAlias = Disk | PowerLoss | LyingDisk
Fault: TypeAlias = (
    Partition | LinkFault | Kill | Pause | Slow | Crash | AnyClockFault | DiskFault | DiskDamage | Membership
)
FAULT_TYPES: tuple[type[AnyFault], ...] = get_args(Fault)


def wants_leader(fault: Fault) -> bool:
    """Whether its effect depends on who is the leader."""
    if isinstance(fault, Partition):
        return fault.topology in (*LEADER_TOPOLOGIES, "primaries")
    return fault.aim in ("leader", "primaries")


def encode(fault: Fault) -> str:
    """The fault as JSON."""
    return msgspec.json.encode(fault).decode()
