"""What can go wrong, as plain values, and what each comes to on a given cluster.

Rules of this module
    1. A fault is a frozen value that goes to JSON and back without loss: a plan is saved, edited by hand and
       replayed. The tag is the field `fault`.
    2. Every choice is in the value. The names in `nodes` were drawn when the plan was; nothing is drawn here.
    3. Only one thing is left open until injection: who is the leader then. Where a fault aims at the leader,
       the leader takes the place of the first drawn node unless it is among them already; without a leader
       the drawn nodes stand. So such a fault hits as many nodes with a leader as without.
    4. `resolve` is pure. It gives an `Effect`: what is wrong with links, processes and clocks.

>>> cluster = ("n1", "n2", "n3")
>>> cut = Partition(topology="leader", nodes=("n2",))
>>> encode(cut)
'{"fault":"partition","topology":"leader","nodes":["n2"]}'
>>> resolve(cut, cluster, leader="n3").description
'partition leader: n3 | n1 n2'
>>> resolve(cut, cluster, leader=None).description
'partition leader: n2 | n1 n3'
>>> resolve(Kill(aim="minority", nodes=("n1",)), cluster).killed
('n1',)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, assert_never, get_args

import msgspec

from nemesis import grudges
from nemesis.grudges import Grudge
from nemesis.target import HEALTHY, HEALTHY_DISK, ClockRule, DiskRule, Link, LinkRule, Ruleset

Topology = Literal["halves", "one", "minority-third", "majorities-ring", "bridge", "leader", "custom"]
Hearing = Literal["none", "deaf", "mute"]
Aim = Literal["named", "one", "minority", "majority", "all", "leader"]
Direction = Literal["both", "in", "out"]

GROUP_TOPOLOGIES = ("halves", "one", "minority-third", "leader")


class FaultError(ValueError):
    """A fault that makes no sense, or not on this cluster; the message names thing, value and remedy."""


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all faults share: frozen, tagged, strict about fields nobody knows."""


class Partition(_Fault, frozen=True, kw_only=True, tag_field="fault", tag="partition"):
    """Some nodes do not hear some others.

    Attributes:
        topology: the shape. `halves`, `one`, `minority-third` and `leader` cut `nodes` off from the rest; the
            word says how they were drawn, and for `leader` that the leader is one of them. In
            `majorities-ring` all nodes stand in ring order. In `bridge` the first of `nodes` hears both sides
            and the others are one side. `custom` takes the grudge as written.
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
        if self.topology != "custom":
            _require_nodes(f"partition {self.topology}", self.nodes)
        if self.hearing != "none" and self.topology not in GROUP_TOPOLOGIES:
            raise FaultError(
                f"partition {self.topology}: hearing {self.hearing!r} needs one group cut off from the rest; "
                f"remove it or take one of the topologies {', '.join(GROUP_TOPOLOGIES)}"
            )


class _Aimed(_Fault, frozen=True, kw_only=True):
    """A fault that hits nodes.

    Attributes:
        aim: how the nodes were drawn; `leader` puts the leader of the moment in the place of the first.
        nodes: the names of all that are hit.
    """

    aim: Aim
    nodes: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_nodes(name_of(self), self.nodes)


class Kill(_Aimed, frozen=True, kw_only=True, tag_field="fault", tag="kill"):
    """The processes die at once (SIGKILL) and are started again when the fault heals."""


class Pause(_Aimed, frozen=True, kw_only=True, tag_field="fault", tag="pause"):
    """The processes stand still (SIGSTOP) and do not know it; they run on when the fault heals."""


class _Degrading(_Aimed, frozen=True, kw_only=True):
    """A fault of the links of the nodes hit: to and from them, or one direction only.

    Attributes:
        direction: `in` for what the nodes receive from others, `out` for what they send, or `both`.
    """

    direction: Direction = "both"

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        raise NotImplementedError


class Latency(_Degrading, frozen=True, kw_only=True, tag_field="fault", tag="latency"):
    """Messages take longer: `delay_ms` one way, and up to `jitter_ms` more."""

    delay_ms: float
    jitter_ms: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_not_negative("latency", "delay_ms", self.delay_ms)
        _require_not_negative("latency", "jitter_ms", self.jitter_ms)

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(delay_ms=self.delay_ms, jitter_ms=self.jitter_ms)


class _Chance(_Degrading, frozen=True, kw_only=True):
    """A fault that befalls each message with the same probability."""

    probability: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_probability(name_of(self), self.probability)


class Loss(_Chance, frozen=True, kw_only=True, tag_field="fault", tag="loss"):
    """Messages are lost."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(loss=self.probability)


class Duplicate(_Chance, frozen=True, kw_only=True, tag_field="fault", tag="duplicate"):
    """Messages arrive twice."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(duplicate=self.probability)


class Reorder(_Chance, frozen=True, kw_only=True, tag_field="fault", tag="reorder"):
    """Messages overtake those before them: all take `delay_ms` longer but the ones chosen, which do not."""

    delay_ms: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_above_zero("reorder", "delay_ms", self.delay_ms)

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(delay_ms=self.delay_ms, reorder=self.probability)


class Corrupt(_Chance, frozen=True, kw_only=True, tag_field="fault", tag="corrupt"):
    """Messages arrive with a bit flipped; where TCP or UDP carry them, their checksum makes that a loss."""

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(corrupt=self.probability)


class Rate(_Degrading, frozen=True, kw_only=True, tag_field="fault", tag="rate"):
    """Each link passes no more than `rate_kbit` kilobits per second."""

    rate_kbit: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_above_zero("rate", "rate_kbit", self.rate_kbit)

    def rule(self) -> LinkRule:
        """What is wrong with each link concerned."""
        return LinkRule(rate_kbit=self.rate_kbit)


class ClockSkew(_Aimed, frozen=True, kw_only=True, tag_field="fault", tag="clock"):
    """The wall clocks of the nodes jump by `offset_ms`, and back when the fault heals."""

    offset_ms: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not abs(self.offset_ms) < float("inf"):
            raise FaultError(f"clock: offset_ms is {self.offset_ms:g}; it must be a number of milliseconds")


class Disk(_Aimed, frozen=True, kw_only=True, tag_field="fault", tag="disk"):
    """The disks of the nodes are slow to sync, fail to sync or are full.

    A node may well stop when its disk fails, and should; it is started again when the fault heals.
    """

    sync_delay_ms: float = 0.0
    sync_error: float = 0.0
    write_error: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_not_negative("disk", "sync_delay_ms", self.sync_delay_ms)
        _require_probability("disk", self.sync_error, "sync_error")
        _require_probability("disk", self.write_error, "write_error")
        if self.rule() == HEALTHY_DISK:
            raise FaultError("disk: nothing is wrong with it; give sync_delay_ms, sync_error or write_error")

    def rule(self) -> DiskRule:
        """What is wrong with each disk concerned."""
        return DiskRule(self.sync_delay_ms, self.sync_error, self.write_error)


LinkFault: TypeAlias = Latency | Loss | Duplicate | Reorder | Corrupt | Rate
Fault: TypeAlias = Partition | LinkFault | Kill | Pause | ClockSkew | Disk
FAULT_TYPES: tuple[type[_Fault], ...] = get_args(Fault)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault comes to on a cluster at one moment.

    Attributes:
        description: one line for people.
        rules: what it does to the network.
        killed: nodes whose process is dead while it is in force.
        paused: nodes whose process stands still while it is in force.
        clocks: what is wrong with the clocks of a node while it is in force.
        disks: what is wrong with the disk of a node while it is in force.
        details: the same as JSON, for the record: who was hit, who was leader, the grudge.
    """

    description: str
    rules: Ruleset = HEALTHY
    killed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    clocks: Mapping[str, ClockRule] = field(default_factory=dict)
    disks: Mapping[str, DiskRule] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)


def name_of(fault: Any) -> str:
    """The name of a fault as it stands in its JSON."""
    return str(fault.__struct_config__.tag)


def wants_leader(fault: Fault) -> bool:
    """Whether `resolve` needs to know who is the leader."""
    return (fault.topology if isinstance(fault, Partition) else fault.aim) == "leader"


def resolve(fault: Fault, cluster: Sequence[str], leader: str | None = None) -> Effect:
    """What the fault does to a cluster with these nodes and, where one is known, this leader."""
    match fault:
        case Partition():
            return _resolve_partition(fault, cluster, leader)
        case Kill() | Pause():
            return _resolve_process(fault, cluster, leader)
        case ClockSkew():
            return _resolve_clock(fault, cluster, leader)
        case Disk():
            return _resolve_disk(fault, cluster, leader)
        case Latency() | Loss() | Duplicate() | Reorder() | Corrupt() | Rate():
            return _resolve_degrading(fault, cluster, leader)
    assert_never(fault)


def check(fault: Fault, cluster: Sequence[str]) -> None:
    """Refuses a fault that names nodes the cluster does not have."""
    resolve(fault, cluster)


def encode(fault: Fault) -> str:
    """The fault as JSON."""
    return msgspec.json.encode(fault).decode()


def _resolve_partition(fault: Partition, cluster: Sequence[str], leader: str | None) -> Effect:
    what = f"partition {fault.topology}"
    check_names(what, _names_in(fault), cluster)
    group = _hit(fault.nodes, leader if fault.topology == "leader" else None, cluster)
    grudge = partition_grudge(fault, group, cluster)
    details: dict[str, Any] = {"grudge": grudge}
    if fault.topology == "leader":
        details |= {"leader": leader, "hit": group}
    return Effect(
        description=f"{what}: {_describe_partition(fault, group, cluster)}",
        rules=grudges.to_ruleset(grudge),
        details=details,
    )


def partition_grudge(fault: Partition, group: Sequence[str], cluster: Sequence[str]) -> Grudge:
    """Who does not hear whom when `group` stands where the topology wants it."""
    if fault.grudge is not None:
        return {node: tuple(lost) for node, lost in fault.grudge.items() if lost}
    rest = tuple(node for node in cluster if node not in group)
    if fault.topology == "majorities-ring":
        return grudges.majorities_ring((*group, *rest))
    if fault.topology == "bridge":
        return grudges.bridge(group[0], group[1:], rest)
    if fault.hearing == "deaf":
        return grudges.one_way(deaf=group, mute=rest)
    if fault.hearing == "mute":
        return grudges.one_way(deaf=rest, mute=group)
    return grudges.complete((group, rest))


def _describe_partition(fault: Partition, group: Sequence[str], cluster: Sequence[str]) -> str:
    rest = [node for node in cluster if node not in group]
    if fault.grudge is not None:
        return ", ".join(f"{node} does not hear {' '.join(lost)}" for node, lost in fault.grudge.items())
    if fault.topology == "majorities-ring":
        return " ".join((*group, *rest))
    if fault.topology == "bridge":
        return f"{' '.join(group[1:])} | {group[0]} | {' '.join(rest)}"
    arrow = {"none": "|", "deaf": "->", "mute": "<-"}[fault.hearing]
    return f"{' '.join(group)} {arrow} {' '.join(rest)}"


def _resolve_process(fault: Kill | Pause, cluster: Sequence[str], leader: str | None) -> Effect:
    hit = _aimed_at(fault, cluster, leader)
    is_kill = isinstance(fault, Kill)
    return Effect(
        description=f"{name_of(fault)} {fault.aim}: {' '.join(hit)}",
        killed=hit if is_kill else (),
        paused=() if is_kill else hit,
        details=_details(fault, hit, leader),
    )


def _resolve_clock(fault: ClockSkew, cluster: Sequence[str], leader: str | None) -> Effect:
    hit = _aimed_at(fault, cluster, leader)
    return Effect(
        description=f"clock {fault.aim}: {' '.join(hit)} {fault.offset_ms:+g} ms",
        clocks=dict.fromkeys(hit, ClockRule(offset_ms=fault.offset_ms)),
        details=_details(fault, hit, leader),
    )


def _resolve_disk(fault: Disk, cluster: Sequence[str], leader: str | None) -> Effect:
    hit = _aimed_at(fault, cluster, leader)
    troubles = (
        f"sync +{fault.sync_delay_ms:g} ms" if fault.sync_delay_ms else "",
        f"sync fails {fault.sync_error:.0%}" if fault.sync_error else "",
        f"full {fault.write_error:.0%}" if fault.write_error else "",
    )
    return Effect(
        description=f"disk {fault.aim}: {' '.join(hit)} {', '.join(filter(None, troubles))}",
        disks=dict.fromkeys(hit, fault.rule()),
        details=_details(fault, hit, leader),
    )


def _resolve_degrading(fault: LinkFault, cluster: Sequence[str], leader: str | None) -> Effect:
    hit = _aimed_at(fault, cluster, leader)
    rule = fault.rule()
    links: dict[Link, LinkRule] = {}
    for src in cluster:
        for dst in cluster:
            sends = src in hit and fault.direction != "in"
            receives = dst in hit and fault.direction != "out"
            if src != dst and (sends or receives):
                links[src, dst] = rule
    way = "" if fault.direction == "both" else f" ({fault.direction})"
    return Effect(
        description=f"{name_of(fault)} {fault.aim}: {' '.join(hit)}{way} {_amount(fault)}",
        rules=Ruleset(links),
        details=_details(fault, hit, leader),
    )


def _amount(fault: LinkFault) -> str:
    match fault:
        case Latency():
            return f"{fault.delay_ms:g}+{fault.jitter_ms:g} ms"
        case Rate():
            return f"{fault.rate_kbit:g} kbit/s"
        case _:
            return f"{fault.probability:.0%}"


def _aimed_at(fault: _Aimed, cluster: Sequence[str], leader: str | None) -> tuple[str, ...]:
    check_names(name_of(fault), fault.nodes, cluster)
    return _hit(fault.nodes, leader if fault.aim == "leader" else None, cluster)


def _hit(drawn: tuple[str, ...], leader: str | None, cluster: Sequence[str]) -> tuple[str, ...]:
    """The drawn nodes, with the leader in the place of the first unless it is among them (rule 3)."""
    if leader is None or leader in drawn or leader not in cluster:
        return drawn
    return (leader, *drawn[1:])


def _details(fault: _Aimed, hit: tuple[str, ...], leader: str | None) -> dict[str, Any]:
    return {"hit": hit} | ({"leader": leader} if fault.aim == "leader" else {})


def _names_in(fault: Partition) -> list[str]:
    grudge = fault.grudge or {}
    return [*fault.nodes, *grudge, *(node for lost in grudge.values() for node in lost)]


def check_names(what: str, names: Iterable[str], cluster: Sequence[str]) -> None:
    """Refuses names of nodes the cluster does not have."""
    for name in names:
        if name not in cluster:
            raise FaultError(
                f"{what} names node {name!r}, which the cluster does not have; "
                f"its nodes are {', '.join(cluster)}"
            )


def _require_nodes(what: str, nodes: Sequence[str]) -> None:
    if not nodes:
        raise FaultError(f"{what} names no node; list at least one in 'nodes'")
    if len(frozenset(nodes)) != len(nodes):
        raise FaultError(f"{what} names a node twice: {', '.join(nodes)}; list each once")


def _require_not_negative(what: str, name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise FaultError(f"{what}: {name} is {value:g}; it must be a number of milliseconds, 0 or more")


def _require_above_zero(what: str, name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise FaultError(f"{what}: {name} is {value:g}; it must be a number above 0")


def _require_probability(what: str, value: float, name: str = "probability") -> None:
    if not 0 <= value <= 1:
        raise FaultError(f"{what}: {name} is {value:g}; it must lie between 0 and 1")
