"""The kinds of fault a plan can draw: the names behind `--fault`, and how each is drawn.

Rules of this module
    1. A kind is an endless, pure sequence of faults for given nodes and a seeded generator; when they happen
       is the business of `nemesis.schedule`.
    2. A kind deals its variants from a deck, so that a run of some minutes visits all of them.
    3. A fault is drawn with names in it. Only the leader is left open (see `nemesis.faults`).

>>> from random import Random
>>> faults = FAULTS["kill"].draw(("n1", "n2", "n3"), Random(3))
>>> [(fault.aim, fault.nodes) for fault in (next(faults), next(faults))]
[('leader', ('n2',)), ('majority', ('n2', 'n1'))]
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from nemesis.draws import chance, deck, log_uniform, pick, shuffled, uniform
from nemesis.faults import (
    Aim,
    ClockSkew,
    Corrupt,
    Disk,
    Duplicate,
    Fault,
    FaultError,
    Hearing,
    Kill,
    Latency,
    Loss,
    Partition,
    Pause,
    Rate,
    Reorder,
    Topology,
)
from nemesis.grudges import bisect, majority, minority_third

Nodes = Sequence[str]
DrawFaults = Callable[[Nodes, Random], Iterator[Fault]]

ONE_WAY_PROBABILITY = 0.4
TOPOLOGIES: tuple[Topology, ...] = ("halves", "one", "minority-third", "majorities-ring", "bridge", "leader")
# Leaders twice: most of what can be lost was promised by a leader.
KILL_AIMS: tuple[Aim, ...] = ("leader", "one", "leader", "minority", "majority", "all")
STORM_AIMS: tuple[Aim, ...] = ("majority", "all", "minority", "majority")
PAUSE_AIMS: tuple[Aim, ...] = ("leader", "one", "leader", "minority", "majority")
LINK_AIMS: tuple[Aim, ...] = ("all", "one", "leader", "minority")


class Series(NamedTuple):
    """Several faults in quick succession: how many, how long each, and the gap before each."""

    counts: tuple[int, int]
    lengths_ms: tuple[float, float]
    gaps_ms: tuple[float, float]


# A flap outlives the election that it causes.
FLAPS = Series(counts=(2, 4), lengths_ms=(150.0, 800.0), gaps_ms=(150.0, 700.0))
# The strokes of a crash storm are over before it; most of them hit an election, some leave time to see what came of it.
CRASHES = Series(counts=(4, 8), lengths_ms=(5.0, 60.0), gaps_ms=(80.0, 1500.0))
# A hunt cuts off a leader for about as long as it takes to elect the next one, and then at once that one.
HUNT = Series(counts=(8, 16), lengths_ms=(130.0, 260.0), gaps_ms=(1.0, 1.0))


class Storm(NamedTuple):
    """Faults in a series that has a rhythm of its own."""

    draw: DrawFaults
    series: Series


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One name behind `--fault`.

    Attributes:
        name: as typed.
        summary: one line for `--help`.
        draw: an endless sequence of faults.
        draw_flap: faults for bursts of short ones in quick succession; none where that makes no sense.
        storm: what a storm of this kind is; likewise.
        nodes_min: fewer nodes than this and the fault means nothing.
    """

    name: str
    summary: str
    draw: DrawFaults
    draw_flap: DrawFaults | None = None
    storm: Storm | None = None
    nodes_min: int = 1


def kind(name: str) -> FaultKind:
    """The kind with this name.

    >>> kind("partion")
    Traceback (most recent call last):
    nemesis.fault_base.FaultError: there is no fault 'partion'; did you mean 'partition'? ...
    """
    if name in FAULTS:
        return FAULTS[name]
    near = difflib.get_close_matches(name, FAULTS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise FaultError(f"there is no fault {name!r}; {hint}known faults: {', '.join(FAULTS)}")


def default_kinds(nodes: Nodes) -> tuple[str, ...]:
    """The mix a run gets when nobody asks for particular faults, as far as it means anything on the nodes."""
    return tuple(name for name in DEFAULT_MIX if FAULTS[name].nodes_min <= len(nodes))


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
    match topology:
        case "halves":
            return bisect(order)[0]
        case "minority-third":
            return order[: minority_third(len(order))]
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
    size = {"minority": max(1, majority(count) - 1), "majority": majority(count), "all": count}.get(aim, 1)
    return shuffled(random, nodes)[:size]


def _draw_kills(aims: Sequence[Aim]) -> DrawFaults:
    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for aim in deck(random, aims):
            yield Kill(aim=aim, nodes=_draw_aim(aim, nodes, random))

    return draw


def _draw_pauses(aims: Sequence[Aim]) -> DrawFaults:
    def draw(nodes: Nodes, random: Random) -> Iterator[Fault]:
        for aim in deck(random, aims):
            yield Pause(aim=aim, nodes=_draw_aim(aim, nodes, random))

    return draw


def _draw_clocks(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, PAUSE_AIMS):
        offset_ms = round(log_uniform(random, 10, 300_000))
        sign = 1 if chance(random, 0.5) else -1
        yield ClockSkew(aim=aim, nodes=_draw_aim(aim, nodes, random), offset_ms=sign * offset_ms)


def _draw_disks(nodes: Nodes, random: Random) -> Iterator[Fault]:
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


def _draw_reorderings(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.1, 0.5), 2)
        delay_ms = round(log_uniform(random, 5, 100), 1)
        yield Reorder(
            aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability, delay_ms=delay_ms
        )


def _draw_corruptions(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.01, 0.2), 2)
        yield Corrupt(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


def _draw_rates(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        rate_kbit = round(log_uniform(random, 32, 4_000))
        yield Rate(aim=aim, nodes=_draw_aim(aim, nodes, random), rate_kbit=rate_kbit)


def _draw_latencies(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        delay_ms = round(log_uniform(random, 5, 300), 1)
        jitter_ms = round(delay_ms * uniform(random, 0, 1), 1)
        yield Latency(aim=aim, nodes=_draw_aim(aim, nodes, random), delay_ms=delay_ms, jitter_ms=jitter_ms)


def _draw_losses(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.05, 0.4), 2)
        yield Loss(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


def _draw_duplicates(nodes: Nodes, random: Random) -> Iterator[Fault]:
    for aim in deck(random, LINK_AIMS):
        probability = round(uniform(random, 0.1, 0.5), 2)
        yield Duplicate(aim=aim, nodes=_draw_aim(aim, nodes, random), probability=probability)


_cut_leader = draw_partitions(("leader",), one_way=False)


def _partition_kind(name: str, summary: str, topology: Topology, nodes_min: int) -> FaultKind:
    return FaultKind(name, summary, draw_partitions((topology,)), nodes_min=nodes_min)


def _registry(kinds: Iterable[FaultKind]) -> Mapping[str, FaultKind]:
    return {one.name: one for one in kinds}


FAULTS: Mapping[str, FaultKind] = _registry(
    (
        FaultKind(
            "partition",
            "the network falls apart, in all topologies by turns; leaders also in bursts",
            draw_partitions(TOPOLOGIES),
            draw_flap=_cut_leader,
            storm=Storm(_cut_leader, HUNT),
            nodes_min=2,
        ),
        FaultKind("latency", "messages take 5 to 300 ms longer, with jitter", _draw_latencies, nodes_min=2),
        FaultKind(
            "kill",
            "processes die (SIGKILL) and start again: leaders, one, a minority, a majority, all; also in storms",
            _draw_kills(KILL_AIMS),
            draw_flap=_draw_kills(("leader",)),
            storm=Storm(_draw_kills(STORM_AIMS), CRASHES),
        ),
        FaultKind("pause", "processes stand still (SIGSTOP) and run on", _draw_pauses(PAUSE_AIMS)),
        FaultKind("loss", "messages are lost, 5 to 40 % of them", _draw_losses, nodes_min=2),
        FaultKind("duplicate", "messages arrive twice, 10 to 50 % of them", _draw_duplicates, nodes_min=2),
        FaultKind("reorder", "messages overtake others, 10 to 50 % of them", _draw_reorderings, nodes_min=2),
        FaultKind("corrupt", "messages arrive damaged, 1 to 20 % of them", _draw_corruptions, nodes_min=2),
        FaultKind("rate", "links pass 32 to 4000 kbit/s", _draw_rates, nodes_min=2),
        FaultKind("clock", "wall clocks jump by 10 ms to 5 min, either way, and back", _draw_clocks),
        FaultKind("disk", "disks are slow to sync by 5 to 500 ms, fail to sync, or are full", _draw_disks),
        _partition_kind("partition-halves", "two halves, drawn anew each time", "halves", 2),
        _partition_kind("partition-one", "one node alone", "one", 2),
        _partition_kind("partition-minority", "less than a third of the nodes alone", "minority-third", 2),
        _partition_kind("partition-ring", "every node hears another majority", "majorities-ring", 3),
        _partition_kind("partition-bridge", "two sides joined by one node", "bridge", 3),
        FaultKind(
            "partition-leader",
            "the leader of the moment alone or in a minority; also in bursts",
            draw_partitions(("leader",)),
            draw_flap=_cut_leader,
            storm=Storm(_cut_leader, HUNT),
            nodes_min=2,
        ),
        FaultKind("kill-leader", "the leader of the moment dies; also in bursts", _draw_kills(("leader",)),
                  draw_flap=_draw_kills(("leader",))),
        FaultKind("kill-all", "all processes die at once; also in storms", _draw_kills(("all",)),
                  storm=Storm(_draw_kills(("all",)), CRASHES)),
        FaultKind("pause-leader", "the leader of the moment stands still", _draw_pauses(("leader",))),
    )
)  # fmt: skip

DEFAULT_MIX = ("partition", "latency", "kill", "pause")
