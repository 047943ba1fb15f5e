"""What a fault comes to on a given cluster: `resolve` turns a value of `nemesis.faults` into an `Effect`.

Rules of this module
    1. Pure. What only the moment of injection knows comes in as `Now`.

>>> from nemesis.faults import Kill, Partition
>>> cluster = ("n1", "n2", "n3")
>>> cut = Partition(topology="leader", nodes=("n2",))
>>> resolve(cut, cluster, Now(leader="n3")).description
'partition leader: n3 | n1 n2'
>>> resolve(cut, cluster).description
'partition leader: n2 | n1 n3'
>>> resolve(Kill(aim="minority", nodes=("n1",)), cluster).killed
('n1',)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from nemesis import grudges
from nemesis.fault_base import Aimed, check_names, name_of
from nemesis.faults import (
    LEADER_TOPOLOGIES,
    AnyClockFault,
    ClockDrift,
    ClockSkew,
    ClockStrobe,
    Crash,
    Disk,
    DiskDamage,
    DiskFault,
    Fault,
    Kill,
    Latency,
    LinkFault,
    Loss,
    LyingDisk,
    Membership,
    Partition,
    Pause,
    PowerLoss,
    Rate,
    Slow,
)
from nemesis.grudges import Grudge
from nemesis.target import HEALTHY, ClockRule, CrashPoint, Damage, DiskRule, Link, LinkRule, Ruleset


@dataclass(frozen=True, slots=True)
class Now:
    """What is known at the moment of injection.

    Attributes:
        leader: who leads, where that is known.
        primaries: all nodes that think they lead.
        trigger: the node whose doings set the fault off.
    """

    leader: str | None = None
    primaries: tuple[str, ...] = ()
    trigger: str | None = None


NOTHING_KNOWN = Now()


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault comes to on a cluster at one moment.

    Attributes:
        description: one line for people.
        rules: what it does to the network.
        killed: nodes whose process is dead while it is in force.
        paused: nodes whose process stands still while it is in force.
        slowed: how many times as long the process of a node takes while it is in force.
        crash_points: where the process of a node dies while it is in force.
        clocks: what is wrong with the clocks of a node while it is in force.
        disks: what is wrong with the disk of a node while it is in force.
        dies_at_end: nodes whose process is killed just before the fault heals.
        damages: what happens once to the disk of a node that is killed.
        removed: nodes that do not belong to the cluster while it is in force.
        wiped: those of them that forget their disks once they are out.
        transfer_to: who is to lead, once.
        details: the same as JSON, for the record: who was hit, who was leader, the grudge.
    """

    description: str
    rules: Ruleset = HEALTHY
    killed: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    slowed: Mapping[str, float] = field(default_factory=dict)
    crash_points: Mapping[str, CrashPoint] = field(default_factory=dict)
    clocks: Mapping[str, ClockRule] = field(default_factory=dict)
    disks: Mapping[str, DiskRule] = field(default_factory=dict)
    dies_at_end: tuple[str, ...] = ()
    damages: Mapping[str, Damage] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    wiped: tuple[str, ...] = ()
    transfer_to: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def touched(self) -> tuple[str, ...]:
        """Nodes whose process may be down once the fault heals, whoever is to blame."""
        return tuple(dict.fromkeys((*self.crash_points, *self.disks, *self.damages)))


def resolve(fault: Fault, cluster: Sequence[str], now: Now = NOTHING_KNOWN) -> Effect:
    """What the fault does to a cluster with these nodes, now."""
    if isinstance(fault, Partition):
        return _resolve_partition(fault, cluster, now)
    check_names(name_of(fault), fault.nodes, cluster)
    hit = _hit(fault.aim, fault.nodes, cluster, now)
    details = {"hit": hit} | _who(fault.aim, now)
    return _resolve_aimed(fault, cluster, hit, details)


def check(fault: Fault, cluster: Sequence[str]) -> None:
    """Refuses a fault that names nodes the cluster does not have."""
    resolve(fault, cluster)


def partition_grudge(fault: Partition, group: Sequence[str], cluster: Sequence[str]) -> Grudge:
    """Who does not hear whom when `group` stands where the topology wants it."""
    if fault.grudge is not None:
        return {node: tuple(lost) for node, lost in fault.grudge.items() if lost}
    rest = tuple(node for node in cluster if node not in group)
    if fault.topology == "majorities-ring":
        return grudges.majorities_ring((*group, *rest))
    if fault.topology == "bridge":
        return grudges.bridge(group[0], group[1:], rest)
    alone = fault.topology == "primaries"
    if fault.hearing == "deaf":
        return grudges.one_way(deaf=group, mute=rest)
    if fault.hearing == "mute":
        return grudges.one_way(deaf=rest, mute=group)
    return grudges.complete((*((node,) for node in group), rest) if alone else (group, rest))


def _resolve_partition(fault: Partition, cluster: Sequence[str], now: Now) -> Effect:
    what = f"partition {fault.topology}"
    check_names(what, _names_in(fault), cluster)
    aim = "leader" if fault.topology in LEADER_TOPOLOGIES else fault.topology
    group = _hit(aim, fault.nodes, cluster, now)
    grudge = partition_grudge(fault, group, cluster)
    details: dict[str, Any] = {"grudge": grudge} | _who(aim, now)
    if len(details) > 1:
        details["hit"] = group
    return Effect(
        description=f"{what}: {_describe_partition(fault, group, cluster)}",
        rules=grudges.to_ruleset(grudge),
        details=details,
    )


def _describe_partition(fault: Partition, group: Sequence[str], cluster: Sequence[str]) -> str:
    rest = [node for node in cluster if node not in group]
    if fault.grudge is not None:
        return ", ".join(f"{node} does not hear {' '.join(lost)}" for node, lost in fault.grudge.items())
    if fault.topology == "majorities-ring":
        return " ".join((*group, *rest))
    if fault.topology == "bridge":
        return f"{' '.join(group[1:])} | {group[0]} | {' '.join(rest)}"
    if fault.topology == "primaries":
        return f"{' | '.join(group)} | {' '.join(rest)}"
    arrow = {"none": "|", "deaf": "->", "mute": "<-"}[fault.hearing]
    return f"{' '.join(group)} {arrow} {' '.join(rest)}"


def _resolve_aimed(
    fault: Any, cluster: Sequence[str], hit: tuple[str, ...], details: Mapping[str, Any]
) -> Effect:
    start = f"{name_of(fault)} {fault.aim}: {' '.join(hit)}"
    match fault:
        case Kill() | Pause() | Slow() | Crash():
            return _resolve_process(fault, start, hit, details)
        case ClockSkew() | ClockStrobe() | ClockDrift():
            clocks = dict.fromkeys(hit, fault.rule())
            return Effect(f"{start} {_clock_amount(fault)}", clocks=clocks, details=details)
        case Disk() | PowerLoss() | LyingDisk() | DiskDamage():
            return _resolve_disk(fault, start, hit, details)
        case Membership():
            return _resolve_membership(fault, hit, details)
        case _:
            return _resolve_degrading(fault, cluster, hit, details)


def _resolve_process(
    fault: Kill | Pause | Slow | Crash, start: str, hit: tuple[str, ...], details: Mapping[str, Any]
) -> Effect:
    match fault:
        case Kill():
            return Effect(start, killed=hit, details=details)
        case Pause():
            return Effect(start, paused=hit, details=details)
        case Slow():
            slowed = dict.fromkeys(hit, fault.factor)
            return Effect(f"{start} {fault.factor:g} times", slowed=slowed, details=details)
        case Crash():
            points = dict.fromkeys(hit, fault.point)
            return Effect(f"{start} at {fault.point}", crash_points=points, details=details)
    assert_never(fault)


def _clock_amount(fault: AnyClockFault) -> str:
    match fault:
        case ClockSkew():
            return f"{fault.offset_ms:+g} ms"
        case ClockStrobe():
            return f"{fault.delta_ms:+g} ms every {fault.period_ms:g} ms"
        case ClockDrift():
            return f"{fault.drift_ppm:+g} ppm{' with timers' if fault.timers else ''}"
    assert_never(fault)


def _resolve_disk(
    fault: DiskFault | DiskDamage, start: str, hit: tuple[str, ...], details: Mapping[str, Any]
) -> Effect:
    if isinstance(fault, DiskDamage):
        what = f"{start} {fault.damage} {fault.amount} {'bits' if fault.damage == 'bit-flip' else 'bytes'}"
        return Effect(what, killed=hit, damages=dict.fromkeys(hit, fault.what()), details=details)
    disks = dict.fromkeys(hit, fault.rule())
    match fault:
        case Disk():
            return Effect(f"{start} {_disk_troubles(fault)}", disks=disks, details=details)
        case PowerLoss():
            torn = f" torn {fault.torn_write:.0%}" if fault.torn_write else ""
            return Effect(f"{start}{torn}", killed=hit, disks=disks, details=details)
        case LyingDisk():
            what = f"{start} syncs lie {fault.probability:.0%}"
            return Effect(what, disks=disks, dies_at_end=hit, details=details)
    assert_never(fault)


def _disk_troubles(fault: Disk) -> str:
    troubles = (
        f"sync +{fault.sync_delay_ms:g} ms" if fault.sync_delay_ms else "",
        f"sync fails {fault.sync_error:.0%}" if fault.sync_error else "",
        f"full {fault.write_error:.0%}" if fault.write_error else "",
        "stalled" if fault.stalled else "",
        f"misdirects {fault.misdirect:.0%}" if fault.misdirect else "",
    )
    return ", ".join(filter(None, troubles))


def _resolve_membership(fault: Membership, hit: tuple[str, ...], details: Mapping[str, Any]) -> Effect:
    description = f"membership {fault.change}: {' '.join(hit)}"
    if fault.change == "transfer":
        return Effect(description, transfer_to=hit[0], details=details)
    wiped = hit if fault.change == "replace" else ()
    return Effect(description, removed=hit, wiped=wiped, details=details)


def _resolve_degrading(
    fault: LinkFault, cluster: Sequence[str], hit: tuple[str, ...], details: Mapping[str, Any]
) -> Effect:
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
        details=details,
    )


def _amount(fault: LinkFault) -> str:
    match fault:
        case Latency():
            shape = "" if fault.distribution == "uniform" else f" {fault.distribution}"
            return f"{fault.delay_ms:g}+{fault.jitter_ms:g} ms{shape}"
        case Rate():
            return f"{fault.rate_kbit:g} kbit/s"
        case Loss() if fault.correlation:
            return f"{fault.probability:.0%} in bursts"
        case _:
            return f"{fault.probability:.0%}"


def _hit(aim: str, drawn: tuple[str, ...], cluster: Sequence[str], now: Now) -> tuple[str, ...]:
    """The drawn nodes, with whom the aim names in the place of the first unless it is among them (rule 3 of faults)."""
    if aim == "primaries":
        found = tuple(node for node in now.primaries or (now.leader,) if node is not None and node in cluster)
        return found or drawn
    first = {"leader": now.leader, "trigger": now.trigger}.get(aim)
    if first is None or first in drawn or first not in cluster:
        return drawn
    return (first, *drawn[1:])


def _who(aim: str, now: Now) -> dict[str, Any]:
    """What of the moment went into the effect, for the record."""
    match aim:
        case "leader":
            return {"leader": now.leader}
        case "trigger":
            return {"trigger": now.trigger}
        case "primaries":
            return {"leader": now.leader, "primaries": now.primaries}
        case _:
            return {}


def _names_in(fault: Partition) -> list[str]:
    grudge = fault.grudge or {}
    return [*fault.nodes, *grudge, *(node for lost in grudge.values() for node in lost)]


def names_of(fault: Fault) -> tuple[str, ...]:
    """All nodes that the fault names."""
    return tuple(dict.fromkeys(_names_in(fault) if isinstance(fault, Partition) else fault.nodes))


__all__ = ["NOTHING_KNOWN", "Aimed", "Effect", "Now", "check", "names_of", "partition_grudge", "resolve"]
