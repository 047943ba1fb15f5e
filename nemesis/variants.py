"""How the faults of each kind are drawn: endless, pure sequences for given nodes and a seeded generator.

Rules of this module
    1. A kind deals its variants from a deck, so that a run of some minutes visits all of them.
    2. A fault is drawn with names in it. Only the leader, and whoever sets a reactive fault off, are left open
       (see `nemesis.faults`).
    3. What damages disks for good only ever hits the same minority, as otherwise nobody could tell the system's
       failure from the promise that no system makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import get_args

from nemesis.draws import chance, deck, integer, log_uniform, pick, shuffled, uniform
from nemesis.fault_base import Aim
from nemesis.faults import (
    Change,
    ClockDrift,
    ClockSkew,
    ClockStrobe,
    Corrupt,
    Crash,
    Disk,
    DiskDamage,
    Duplicate,
    Fault,
    Hearing,
    Kill,
    Latency,
    Loss,
    LyingDisk,
    Membership,
    Partition,
    Pause,
    PowerLoss,
    Rate,
    Reorder,
    Reset,
    Slow,
    Topology,
)
from nemesis.grudges import bisect, majority, minority_third
from nemesis.target import CrashPoint, Distribution

Nodes = Sequence[str]
DrawFaults = Callable[[Nodes, Random], Iterator[Fault]]

ONE_WAY_PROBABILITY = 0.4
TOPOLOGIES: tuple[Topology, ...] = ("halves", "one", "minority-third", "majorities-ring", "bridge", "leader")
# Leaders twice: most of what can be lost was promised by a leader.
KILL_AIMS: tuple[Aim, ...] = ("leader", "one", "leader", "minority", "majority", "all")
STORM_AIMS: tuple[Aim, ...] = ("majority", "all", "minority", "majority")
PAUSE_AIMS: tuple[Aim, ...] = ("leader", "one", "leader", "minority", "majority")
LINK_AIMS: tuple[Aim, ...] = ("all", "one", "leader", "minority")


CRASH_POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)
SHAPED: tuple[Distribution, ...] = ("normal", "pareto", "paretonormal", "uniform")
SIZES: Mapping[Topology, Callable[[int], int]] = {
    "minority-third": minority_third,
    "leader-in-minority": lambda count: max(1, majority(count) - 1),
    "leader-in-majority": majority,
}
REMOVAL_AIMS: tuple[Aim, ...] = ("one", "leader", "minority")
CHANGES: tuple[Change, ...] = ("remove", "transfer", "replace", "remove", "transfer")


def draw_partitions(topologies: Sequence[Topology], *, one_way: bool = True) -> DrawFaults:
    """Partitions of these topologies; some of those that cut off a group let one direction pass."""

    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for topology in deck(random, topologies):
            order = shuffled(random, nodes)
            hearing: Hearing = "none"
            if topology in {"halves", "one", "leader"} and one_way and chance(random, ONE_WAY_PROBABILITY):
                hearing = pick(random, ("deaf", "mute"))
            yield Partition(topology=topology, nodes=_group(topology, order, random), hearing=hearing)

    return draw


def _group(topology: Topology, order: tuple[str, ...], random: Random) -> tuple[str, ...]:
    """Which of the nodes, in drawn order, the topology names; see `Partition.nodes`."""
    if topology in SIZES:
        return order[: SIZES[topology](len(order))]
    match topology:
        case "halves":
            return bisect(order)[0]
        case "majorities-ring":
            return order
        case "bridge":
            return (order[0], *bisect(order[1:])[0])
        case "leader":
            # Now and then with company, as far as that stays a minority: its entries reach somebody.
            company = len(order) >= 5 and chance(random, 0.5)
            return order[:2] if company else order[:1]
        case _:
            return order[:1]


def _draw_aim(aim: Aim, nodes: Nodes, random: Random) -> tuple[str, ...]:
    """The nodes an aim names, drawn."""
    count = len(nodes)
    sizes = {
        "minority-third": minority_third(count),
        "minority": max(1, majority(count) - 1),
        "majority": majority(count),
        "all": count,
    }
    return shuffled(random, nodes)[: sizes.get(aim, 1)]


def draw_kills(aims: Sequence[Aim]) -> DrawFaults:
    """Deaths with these aims."""

    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for aim in deck(random, aims):
            yield Kill(aim=aim, nodes=_draw_aim(aim, nodes, random))

    return draw


def draw_pauses(aims: Sequence[Aim]) -> DrawFaults:
    """Processes that stand still, with these aims."""

    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for aim in deck(random, aims):
            yield Pause(aim=aim, nodes=_draw_aim(aim, nodes, random))

    return draw


def draw_clocks(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Wall clocks that jump."""
    for aim in deck(random, PAUSE_AIMS):
        offset_ms = round(log_uniform(random, 10, 300_000))
        sign = 1 if chance(random, 0.5) else -1
        yield ClockSkew(aim=aim, nodes=_draw_aim(aim, nodes, random), offset_ms=sign * offset_ms)


def draw_disks(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Disks that are slow, fail to sync or are full."""
    troubles = deck(random, ("slow", "failing", "full"))
    for aim in deck(random, PAUSE_AIMS):
        hit, trouble = _draw_aim(aim, nodes, random), next(troubles)
        amount = uniform(random, 0, 1)
        if trouble == "slow":
            yield Disk(aim=aim, nodes=hit, sync_delay_ms=round(5 * 100**amount, 1))
        elif trouble == "failing":
            yield Disk(aim=aim, nodes=hit, sync_error=round(0.05 + 0.95 * amount, 2))
        else:
            yield Disk(aim=aim, nodes=hit, write_error=1.0)


def draw_reorderings(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Messages that overtake others."""
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.1, 0.5), 2)
        delay_ms = round(log_uniform(random, 5, 100), 1)
        yield Reorder(
            aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability, delay_ms=delay_ms
        )


def draw_corruptions(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Messages that arrive damaged."""
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.01, 0.2), 2)
        yield Corrupt(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


def draw_rates(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Slow links."""
    for aim in deck(random, LINK_AIMS):
        rate_kbit = round(log_uniform(random, 32, 4_000))
        yield Rate(aim=aim, nodes=_draw_aim(aim, nodes, random), rate_kbit=rate_kbit)


def draw_latencies(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Messages that take longer."""
    for aim in deck(random, LINK_AIMS):
        delay_ms = round(log_uniform(random, 5, 300), 1)
        jitter_ms = round(delay_ms * uniform(random, 0, 1), 1)
        yield Latency(aim=aim, nodes=_draw_aim(aim, nodes, random), delay_ms=delay_ms, jitter_ms=jitter_ms)


def draw_losses(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Messages that are lost."""
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.05, 0.4), 2)
        yield Loss(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


def draw_duplicates(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Messages that arrive twice."""
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.1, 0.5), 2)
        yield Duplicate(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


cut_leader = draw_partitions(("leader",), one_way=False)


def draw_jitters(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Delays of all distributions, some of them correlated."""
    shapes = deck(random, SHAPED)
    for aim in deck(random, LINK_AIMS):
        delay_ms = round(log_uniform(random, 1, 50), 1)
        yield Latency(
            aim=aim,
            nodes=_draw_aim(aim, nodes, random),
            delay_ms=delay_ms,
            jitter_ms=round(delay_ms * uniform(random, 1, 4), 1),
            distribution=next(shapes),
            correlation=round(uniform(random, 0.1, 0.9), 2) if chance(random, 0.5) else 0.0,
        )


def draw_bursts(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Losses that come in bursts."""
    for aim in deck(random, LINK_AIMS):
        yield Loss(
            aim=aim,
            nodes=_draw_aim(aim, nodes, random),
            probability=round(uniform(random, 0.05, 0.4), 2),
            correlation=round(uniform(random, 0.5, 0.9), 2),
        )


def draw_resets(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Connections that break, once in a while or all the time."""
    for aim in deck(random, LINK_AIMS):
        probability = round(log_uniform(random, 0.005, 0.5), 3)
        yield Reset(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


def draw_slow(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Processes that take 2 to 50 times as long."""
    for aim in deck(random, PAUSE_AIMS):
        factor = round(log_uniform(random, 2, 50), 1)
        yield Slow(aim=aim, nodes=_draw_aim(aim, nodes, random), factor=factor)


def draw_crashes(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Processes that die at a chosen point."""
    points = deck(random, CRASH_POINTS)
    aims: tuple[Aim, ...] = ("leader", "one", "minority")
    for aim in deck(random, aims):
        yield Crash(aim=aim, nodes=_draw_aim(aim, nodes, random), point=next(points))


def draw_strobes(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Wall clocks that jump to and fro."""
    for aim in deck(random, PAUSE_AIMS):
        delta_ms = round(log_uniform(random, 4, 262_144))
        sign = 1 if chance(random, 0.5) else -1
        period_ms = round(log_uniform(random, 1, 1_000), 1)
        hit = _draw_aim(aim, nodes, random)
        yield ClockStrobe(aim=aim, nodes=hit, delta_ms=sign * delta_ms, period_ms=period_ms)


def draw_drifts(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Clocks that run fast or slow, by 0.01 % to 20 %."""
    for aim in deck(random, PAUSE_AIMS):
        drift_ppm = round(log_uniform(random, 100, 200_000))
        sign = 1 if chance(random, 0.5) else -1
        yield ClockDrift(aim=aim, nodes=_draw_aim(aim, nodes, random), drift_ppm=sign * drift_ppm)


def draw_timer_drifts(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """The same, and time-outs with them."""
    for fault in draw_drifts(nodes, random):
        assert isinstance(fault, ClockDrift), "drifts are what it draws"
        yield ClockDrift(aim=fault.aim, nodes=fault.nodes, drift_ppm=fault.drift_ppm, timers=True)


def draw_stalls(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Disks that stand still."""
    for aim in deck(random, PAUSE_AIMS):
        yield Disk(aim=aim, nodes=_draw_aim(aim, nodes, random), stalled=True)


def draw_misdirections(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Writes that land elsewhere, always of the same minority."""
    victims = _draw_aim("minority", nodes, random)
    while True:
        probability = round(log_uniform(random, 0.01, 0.5), 3)
        yield Disk(aim="one", nodes=(pick(random, victims),), misdirect=probability)


def draw_power_losses(aims: Sequence[Aim], *, torn: bool) -> DrawFaults:
    """Machines that lose what they had not synced, all of it or all but the beginning."""

    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for aim in deck(random, aims):
            yield PowerLoss(aim=aim, nodes=_draw_aim(aim, nodes, random), torn_write=1.0 if torn else 0.0)

    return draw


def draw_lies(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Disks whose syncs lie, until the power goes; always of the same minority."""
    victims = _draw_aim("minority", nodes, random)
    while True:
        probability = 1.0 if chance(random, 0.5) else round(uniform(random, 0.1, 1), 2)
        yield LyingDisk(aim="one", nodes=(pick(random, victims),), probability=probability)


def draw_bit_flips(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Bits of a disk that turn around; always of the same minority."""
    victims = _draw_aim("minority", nodes, random)
    while True:
        places = tuple(round(random.random(), 6) for _ in range(integer(random, 1, 16)))
        hit = (pick(random, victims),)
        yield DiskDamage(aim="one", nodes=hit, damage="bit-flip", amount=len(places), places=places)


def draw_truncations(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Logs that lose their end; always of the same minority."""
    victims = _draw_aim("minority", nodes, random)
    while True:
        amount = round(log_uniform(random, 1, 16_384))
        yield DiskDamage(aim="one", nodes=(pick(random, victims),), damage="truncate", amount=amount)


def draw_changes(changes: Sequence[Change]) -> DrawFaults:
    """Changes of membership; each leaves a majority of the old members in.

    Several nodes at once now and then: where one leaves or joins, any majority of the old members meets any of the new
    ones, so that it takes two to see whether a joint configuration asks both.
    """

    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for change in deck(random, changes):
            aim: Aim = pick(random, REMOVAL_AIMS) if change != "transfer" else "one"
            yield Membership(aim=aim, nodes=_draw_aim(aim, nodes, random), change=change)

    return draw


def cut_off_trigger(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Whoever sets it off is alone."""
    while True:
        yield Partition(topology="trigger", nodes=_draw_aim("one", nodes, random))


def kill_trigger(nodes: Nodes, random: Random) -> Iterator[Fault]:
    """Whoever sets it off dies."""
    while True:
        yield Kill(aim="trigger", nodes=_draw_aim("one", nodes, random))
