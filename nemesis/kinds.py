"""The kinds of fault a plan can draw: the names behind `--fault`, and how each is drawn.

Rules of this module
    1. A kind is a package: how its faults are drawn (`nemesis.variants`), in what rhythm, what sets a reactive one
       off, and how its times are shaded in a plot. When they happen is the business of `nemesis.schedule`; how
       they heal at the end that of `nemesis.nemesis`.
    2. What the reference system does not promise to survive says so (`survivable`).

>>> from random import Random
>>> faults = FAULTS["kill"].draw(("n1", "n2", "n3"), Random(3))
>>> [(fault.aim, fault.nodes) for fault in (next(faults), next(faults))]
[('leader', ('n2',)), ('majority', ('n2', 'n1'))]
"""

from __future__ import annotations

import colorsys
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

from nemesis.draws import chance, integer, log_uniform, uniform
from nemesis.fault_base import FaultError
from nemesis.faults import Topology
from nemesis.target import EventKind
from nemesis.trigger import Trigger
from nemesis.variants import (
    CHANGES,
    KILL_AIMS,
    PAUSE_AIMS,
    STORM_AIMS,
    TOPOLOGIES,
    DrawFaults,
    Nodes,
    cut_leader,
    cut_off_trigger,
    draw_bit_flips,
    draw_bursts,
    draw_changes,
    draw_clocks,
    draw_corruptions,
    draw_crashes,
    draw_disks,
    draw_drifts,
    draw_duplicates,
    draw_jitters,
    draw_kills,
    draw_latencies,
    draw_lies,
    draw_losses,
    draw_misdirections,
    draw_partitions,
    draw_pauses,
    draw_power_losses,
    draw_rates,
    draw_reorderings,
    draw_resets,
    draw_slow,
    draw_stalls,
    draw_strobes,
    draw_timer_drifts,
    draw_truncations,
    kill_trigger,
)

Category = Literal["network", "process", "clock", "disk", "membership"]
# How the times in force of each are shaded in a plot: its kinds are spread over these hues, in degrees.
HUES: Mapping[Category, tuple[float, float]] = {
    "network": (185.0, 245.0),
    "process": (345.0, 380.0),
    "clock": (265.0, 320.0),
    "disk": (32.0, 62.0),
    "membership": (95.0, 150.0),
}
# Neighbours in the list, which go together in a run, lie apart in the range.
GOLDEN = 0.618034
LIGHTNESSES, SATURATION = (0.78, 0.68, 0.85), 0.62


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
        category: what it is a fault of.
        survivable: whether a system that keeps the promises of Raft stays linearizable under it.
        only_flaps: every episode is a burst.
        draw_trigger: for a reactive kind: what sets its faults off, while it is armed.
    """

    name: str
    summary: str
    draw: DrawFaults
    draw_flap: DrawFaults | None = None
    storm: Storm | None = None
    nodes_min: int = 1
    category: Category = "network"
    survivable: bool = True
    only_flaps: bool = False
    draw_trigger: Callable[[Random], Trigger] | None = None

    @property
    def shade(self) -> str:
        """The colour of its times in a plot: one of its own, near those of the kinds of its category.

        >>> FAULTS["partition"].shade, FAULTS["kill"].shade
        ('#a4e4ea', '#eaa4b6')
        """
        mine = [one.name for one in FAULTS.values() if one.category == self.category]
        first, last = HUES[self.category]
        hue = first + (last - first) * (mine.index(self.name) * GOLDEN % 1)
        lightness = LIGHTNESSES[mine.index(self.name) % len(LIGHTNESSES)]
        red, green, blue = colorsys.hls_to_rgb(hue / 360 % 1, lightness, SATURATION)
        return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


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


def _partition_kind(name: str, summary: str, topology: Topology, nodes_min: int) -> FaultKind:
    return FaultKind(name, summary, draw_partitions((topology,)), nodes_min=nodes_min)


def _triggers(
    on: EventKind, times: tuple[int, int], hold_ms: tuple[float, float], delays: float = 0.5
) -> Callable[[Random], Trigger]:
    def draw(random: Random) -> Trigger:
        return Trigger(
            on=on,
            delay_ms=round(uniform(random, 0, 50), 1) if chance(random, delays) else 0.0,
            hold_ms=round(log_uniform(random, *hold_ms)),
            times=integer(random, *times),
        )

    return draw


def _registry(kinds: Iterable[FaultKind]) -> Mapping[str, FaultKind]:
    return {one.name: one for one in kinds}


_MIXED: tuple[FaultKind, ...] = (
    FaultKind(
        "partition",
        "the network falls apart: halves, one, a minority, ring, bridge, the leader by turns; leaders also in bursts",
        draw_partitions(TOPOLOGIES),
        draw_flap=cut_leader,
        storm=Storm(cut_leader, HUNT),
        nodes_min=2,
    ),
    FaultKind("latency", "messages take 5 to 300 ms longer, with jitter", draw_latencies, nodes_min=2),
    FaultKind(
        "kill",
        "processes die (SIGKILL) and start again: leaders, one, a minority, a majority, all; also in storms",
        draw_kills(KILL_AIMS),
        draw_flap=draw_kills(("leader",)),
        storm=Storm(draw_kills(STORM_AIMS), CRASHES),
        category="process",
    ),
    FaultKind(
        "pause", "processes stand still (SIGSTOP) and run on", draw_pauses(PAUSE_AIMS), category="process"
    ),
    FaultKind("loss", "messages are lost, 5 to 40 % of them", draw_losses, nodes_min=2),
    FaultKind("duplicate", "messages arrive twice, 10 to 50 % of them", draw_duplicates, nodes_min=2),
    FaultKind("reorder", "messages overtake others, 10 to 50 % of them", draw_reorderings, nodes_min=2),
    FaultKind("corrupt", "messages arrive damaged, 1 to 20 % of them", draw_corruptions, nodes_min=2),
    FaultKind("rate", "links pass 32 to 4000 kbit/s", draw_rates, nodes_min=2),
    FaultKind(
        "clock", "wall clocks jump by 10 ms to 5 min, either way, and back", draw_clocks, category="clock"
    ),
    FaultKind(
        "disk",
        "disks are slow to sync by 5 to 500 ms, fail to sync, or are full",
        draw_disks,
        category="disk",
    ),
)

_PARTITIONS: tuple[FaultKind, ...] = (
    _partition_kind("partition-halves", "two halves, drawn anew each time", "halves", 2),
    _partition_kind("partition-one", "one node alone", "one", 2),
    _partition_kind("partition-minority", "less than a third of the nodes alone", "minority-third", 2),
    _partition_kind("partition-ring", "every node hears another majority", "majorities-ring", 3),
    _partition_kind("partition-bridge", "two sides joined by one node", "bridge", 3),
    FaultKind(
        "partition-leader",
        "the leader of the moment alone or in a minority; also in bursts",
        draw_partitions(("leader",)),
        draw_flap=cut_leader,
        storm=Storm(cut_leader, HUNT),
        nodes_min=2,
    ),
    _partition_kind("partition-primaries", "every node that thinks it leads, each alone", "primaries", 2),
    _partition_kind(
        "partition-leader-minority", "the leader in the largest minority", "leader-in-minority", 3
    ),
    _partition_kind(
        "partition-leader-majority", "the leader in the smallest majority", "leader-in-majority", 3
    ),
    FaultKind(
        "partition-flapping",
        "halves, minorities and leaders cut off several times in quick succession",
        draw_partitions(TOPOLOGIES),
        draw_flap=draw_partitions(("halves", "minority-third", "leader")),
        nodes_min=2,
        only_flaps=True,
    ),
)

_LINKS: tuple[FaultKind, ...] = (
    FaultKind(
        "jitter",
        "messages take 1 to 50 ms longer and up to four times that: uniform, normal, pareto, some correlated",
        draw_jitters,
        nodes_min=2,
    ),
    FaultKind("loss-bursts", "5 to 40 % of messages are lost, many in a row", draw_bursts, nodes_min=2),
    FaultKind("reset", "0.5 to 50 % of messages break their connections", draw_resets, nodes_min=2),
)

_PROCESSES: tuple[FaultKind, ...] = (
    FaultKind(
        "kill-leader", "the leader of the moment dies; also in bursts", draw_kills(("leader",)),
        draw_flap=draw_kills(("leader",)), category="process",
    ),
    FaultKind(
        "kill-all", "all processes die at once; also in storms", draw_kills(("all",)),
        storm=Storm(draw_kills(("all",)), CRASHES), category="process",
    ),
    FaultKind(
        "pause-leader", "the leader of the moment stands still", draw_pauses(("leader",)), category="process"
    ),
    FaultKind("slow", "processes take 2 to 50 times as long", draw_slow, category="process"),
    FaultKind(
        "crash",
        "processes die before a sync, after one, in a snapshot, or in a change of membership",
        draw_crashes,
        category="process",
    ),
    FaultKind(
        "kill-minority", "less than a third of the processes die", draw_kills(("minority-third",)),
        category="process",
    ),
    FaultKind(
        "kill-primaries", "every process that thinks it leads dies", draw_kills(("primaries",)), category="process"
    ),
    FaultKind(
        "pause-minority", "less than a third of the processes stand still", draw_pauses(("minority-third",)),
        category="process",
    ),
    FaultKind(
        "pause-primaries", "every process that thinks it leads stands still", draw_pauses(("primaries",)),
        category="process",
    ),
    FaultKind("pause-all", "all processes stand still at once", draw_pauses(("all",)), category="process"),
)  # fmt: skip

_CLOCKS: tuple[FaultKind, ...] = (
    FaultKind(
        "clock-strobe", "wall clocks jump by up to 5 min to and fro, every 1 to 1000 ms", draw_strobes,
        category="clock",
    ),
    FaultKind(
        "clock-drift", "wall clocks run fast or slow by 0.01 to 20 %", draw_drifts, category="clock"
    ),
    FaultKind("timer-drift", "the same, and time-outs too", draw_timer_drifts, category="clock"),
)  # fmt: skip

_DISKS: tuple[FaultKind, ...] = (
    FaultKind("disk-stall", "disks stand still, and go on", draw_stalls, category="disk"),
    FaultKind(
        "power-loss", "machines die, and what they had not synced is gone",
        draw_power_losses(KILL_AIMS, torn=False), draw_flap=draw_power_losses(("leader",), torn=False),
        category="disk",
    ),
    FaultKind(
        "torn-write", "machines die in the middle of a write",
        draw_power_losses(KILL_AIMS, torn=True), category="disk",
    ),
    FaultKind(
        "lying-disk", "syncs of a minority do nothing, until they lose power", draw_lies,
        category="disk", survivable=False,
    ),
    FaultKind(
        "misdirected-write", "writes of a minority land on older ones", draw_misdirections,
        category="disk", survivable=False,
    ),
    FaultKind(
        "bit-flip", "1 to 16 bits on the disks of a minority turn around", draw_bit_flips,
        category="disk", survivable=False,
    ),
    FaultKind(
        "truncate", "logs of a minority lose up to 16 kB of their end", draw_truncations,
        category="disk", survivable=False,
    ),
)  # fmt: skip

_MEMBERSHIP: tuple[FaultKind, ...] = (
    FaultKind(
        "membership", "nodes leave and come back, as they were or as new ones; leadership is handed over",
        draw_changes(CHANGES), nodes_min=3, category="membership",
    ),
    FaultKind(
        "transfer", "leadership is handed over", draw_changes(("transfer",)), nodes_min=2,
        category="membership",
    ),
)  # fmt: skip

_REACTIVE: tuple[FaultKind, ...] = (
    FaultKind(
        "isolate-new-leader", "whoever becomes the leader is cut off, and whoever does next",
        cut_off_trigger, nodes_min=3, draw_trigger=_triggers("leader", (2, 5), (150, 2_000)),
    ),
    FaultKind(
        "kill-new-leader", "whoever becomes the leader dies, and whoever does next",
        kill_trigger, nodes_min=3, category="process",
        draw_trigger=_triggers("leader", (2, 5), (150, 2_000)),
    ),
    FaultKind(
        "kill-in-snapshot", "a follower dies in the middle of a snapshot",
        kill_trigger, nodes_min=2, category="process",
        draw_trigger=_triggers("snapshot-receiving", (1, 3), (50, 2_000)),
    ),
    FaultKind(
        "partition-in-joint", "the network falls apart during a change of membership",
        draw_partitions(("leader-in-minority", "leader-in-minority", "halves", "leader-in-majority", "one")),
        nodes_min=3, draw_trigger=_triggers("joint", (1, 3), (400, 2_000), delays=0.2),
    ),
)  # fmt: skip

FAULTS: Mapping[str, FaultKind] = _registry(
    (
        *_MIXED, *_PARTITIONS, *_LINKS, *_PROCESSES, *_CLOCKS, *_DISKS, *_MEMBERSHIP, *_REACTIVE,
    )
)  # fmt: skip

DEFAULT_MIX = ("partition", "latency", "kill", "pause")
