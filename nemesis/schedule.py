"""When what goes wrong: a plan of fault events, drawn from a seed before the run.

Rules of this module
    1. Each kind draws from its own stream: adding a kind to a run does not change what the others do.
    2. Events of one kind never overlap each other; events of different kinds may, and should, unless they are put
       together otherwise (`nemesis.composition`).
    3. Every fault heals before the end: the last `quiet_ms` of a run are without faults, so that the system
       can recover and final reads mean something.
    4. Times are whole milliseconds since the start of the run. A plan is data: it goes to JSON and back, and
       may be edited by hand in between.

Theory of operation
    A kind alternates pauses and episodes. Most episodes are one fault of some seconds. Where the kind has
    something to flap, one episode in four is a burst: two to four faults of a few hundred milliseconds each,
    the next one shortly after a new leader can have been elected. Bugs such as the one of Figure 8 of the
    Raft paper need leaders that die just after they were elected, several times in a row.

>>> from random import Random
>>> events = draw(["kill", "partition"], ("n1", "n2", "n3"), 60_000, lambda name: Random(f"7/{name}"))
>>> events == decode(encode(events))
True
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple, get_args

import msgspec

from nemesis.composition import Composition, Together, kinds_in, parse
from nemesis.draws import deck, integer, log_uniform, uniform
from nemesis.effects import check
from nemesis.fault_base import Aim
from nemesis.faults import (
    FAULT_TYPES,
    Change,
    Direction,
    Fault,
    FaultError,
    Hearing,
    Topology,
    name_of,
)
from nemesis.kinds import FLAPS, FaultKind, Series, kind
from nemesis.target import CrashPoint, DamageKind, Distribution, EventKind
from nemesis.trigger import Trigger

Stream = Callable[[str], Random]

INTERVAL_MS = 9_000.0
EPISODES = ("single", "single", "burst", "storm")
LENGTH_MS_MIN = 100.0


class FaultEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault and when it is in force.

    Attributes:
        id: unique in the plan, such as `kill-3`.
        start_ms: when it is injected, from the start of the run.
        stop_ms: when it is healed.
        fault: what goes wrong.
        when: for a reactive fault: what sets it off. The times above then say while it is armed.
    """

    id: str
    start_ms: int
    stop_ms: int
    fault: Fault
    when: Trigger | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.stop_ms:
            raise FaultError(
                f"event {self.id}: start_ms {self.start_ms} and stop_ms {self.stop_ms} are out of order; "
                "it must be 0 <= start_ms < stop_ms"
            )


def kind_of(event: FaultEvent) -> str:
    """What `--fault` calls it: events that were drawn are named after their kind."""
    return event.id.rpartition("-")[0] or name_of(event.fault)


Plan = tuple[FaultEvent, ...]


def draw(
    kinds: Iterable[str | Composition],
    nodes: Sequence[str],
    duration_ms: float,
    stream: Stream,
    *,
    interval_ms: float = INTERVAL_MS,
    intensity: float = 1.0,
    quiet_ms: float | None = None,
) -> Plan:
    """The fault events of a run, sorted by start.

    Args:
        kinds: names from `nemesis.kinds.FAULTS`, or compositions of them (`nemesis.composition`).
        nodes: the nodes of the cluster.
        duration_ms: length of the run.
        stream: a seeded generator for a name; the same name gives the same numbers.
        interval_ms: mean time from one episode of a kind to its next.
        intensity: 2 makes episodes twice as frequent.
        quiet_ms: how long before the end everything is healed; if not given a tenth of the run, at most 10 s.
    """
    chosen = [parse(one) if isinstance(one, str) else one for one in dict.fromkeys(kinds)]
    known = [kind(name) for name in kinds_in(chosen)]
    _check_arguments(known, nodes, duration_ms, interval_ms, intensity)
    quiet_ms = min(10_000.0, duration_ms / 10) if quiet_ms is None else quiet_ms
    drawer = _Drawer(nodes, stream, interval_ms, intensity)
    events = drawer.events(Together("any", tuple(chosen)), 0.0, duration_ms - quiet_ms)
    return tuple(sorted(events, key=lambda event: (event.start_ms, event.stop_ms, event.id)))


def encode(events: Plan) -> str:
    """The plan as JSON, indented for editing by hand."""
    return msgspec.json.format(msgspec.json.encode(events), indent=2).decode()


def decode(text: str | bytes) -> Plan:
    """The plan from JSON; what is wrong with it is told in one sentence.

    >>> decode('[{"id": "a", "start_ms": 0, "stop_ms": 9, "fault": {"fault": "meteor"}}]')
    Traceback (most recent call last):
    nemesis.fault_base.FaultError: ... Invalid value 'meteor' - at ...; known faults: partition, latency, ...
    """
    try:
        events = msgspec.json.decode(text, type=Plan)
    except msgspec.DecodeError as error:  # a validation error is one as well
        raise FaultError(f"the fault plan cannot be read: {error}{hint(str(error))}") from error
    _check_ids(events)
    return events


# What may stand where a fault has one of a few words; by the end of the place that a decoder names.
_CHOICES: dict[str, tuple[str, ...]] = {
    ".aim": get_args(Aim),
    ".topology": get_args(Topology),
    ".hearing": get_args(Hearing),
    ".direction": get_args(Direction),
    ".distribution": get_args(Distribution),
    ".change": get_args(Change),
    ".damage": get_args(DamageKind),
    ".point": get_args(CrashPoint),
    ".when.on": get_args(EventKind),
}


def hint(said: str) -> str:
    """What can be given, where a decoder says of a plan that a word in it is none of those.

    >>> hint("Invalid enum value 'back' - at `$[0].fault.direction`")
    '; give one of both, in, out'
    """
    if said.endswith(".fault.fault`"):
        return f"; known faults: {', '.join(name_of(one) for one in FAULT_TYPES)}"
    if said.startswith("Invalid enum value"):
        for place, words in _CHOICES.items():
            if said.endswith(f"{place}`"):
                return f"; give one of {', '.join(words)}"
    return ""


def check_plan(events: Plan, nodes: Sequence[str]) -> None:
    """Refuses a plan that names nodes the cluster does not have, or two events alike."""
    _check_ids(events)
    for event in events:
        check(event.fault, nodes)


def _check_ids(events: Plan) -> None:
    seen: dict[str, FaultEvent] = {}
    for event in events:
        if event.id in seen:
            raise FaultError(f"the fault plan has two events with the id {event.id!r}; give each its own")
        seen[event.id] = event


class _Episode(NamedTuple):
    """One fault, or several in quick succession, some time after the episode before.

    Attributes:
        gap_ms: how long after.
        times_ms: of each fault the gap before it and its length.
        faults: where they come from; only as many are drawn as happen.
    """

    gap_ms: float
    times_ms: list[tuple[float, float]]
    faults: Iterator[Fault]


class _Drawer:
    """Draws the events of compositions; holds what they have in common."""

    def __init__(self, nodes: Sequence[str], stream: Stream, interval_ms: float, intensity: float) -> None:
        self._nodes = nodes
        self._stream = stream
        self._interval_ms = interval_ms
        self._intensity = intensity
        self._streams: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()

    def events(self, composition: Composition, start_ms: float, end_ms: float) -> Iterator[FaultEvent]:
        """The events between two times."""
        # In a short run the episodes move closer together, so that each kind still happens a few times.
        mean_ms = min(self._interval_ms, (end_ms - start_ms) / 3) / self._intensity
        if isinstance(composition, str):
            episodes = self._episodes(kind(composition), mean_ms)
            yield from self._place(episodes, start_ms, end_ms)
        elif composition.manner == "any":
            for part in composition.parts:
                yield from self.events(part, start_ms, end_ms)
        elif composition.manner == "phases":
            length_ms = (end_ms - start_ms) / len(composition.parts)
            for number, part in enumerate(composition.parts):
                yield from self.events(
                    part, start_ms + number * length_ms, start_ms + (number + 1) * length_ms
                )
        else:
            yield from self._place(self._mixed(composition, mean_ms), start_ms, end_ms)

    def _random(self, name: str) -> Random:
        """A stream for each use of a name."""
        self._streams[name] += 1
        number = self._streams[name]
        return self._stream(f"nemesis/{name}" if number == 1 else f"nemesis/{name}#{number}")

    def _mixed(self, composition: Together, mean_ms: float) -> Iterator[tuple[FaultKind, _Episode, Random]]:
        names = [str(part) for part in composition.parts]
        parts = [self._episodes(kind(name), mean_ms) for name in names]
        for turn in deck(self._random(str(composition)), range(len(parts))):
            yield next(parts[turn])

    def _episodes(self, one: FaultKind, mean_ms: float) -> Iterator[tuple[FaultKind, _Episode, Random]]:
        """Endless episodes of one kind."""
        random = self._random(one.name)
        singles = one.draw(self._nodes, random)
        flaps = one.draw_flap(self._nodes, random) if one.draw_flap else singles
        storms = one.storm.draw(self._nodes, random) if one.storm else flaps
        for drawn in deck(random, EPISODES):
            episode = "burst" if one.only_flaps else drawn
            gap_ms = mean_ms * uniform(random, 0.2, 0.8)
            if episode == "storm" and one.storm:
                faults, times = storms, _series(one.storm.series, random, mean_ms)
            elif episode != "single" and one.draw_flap:
                faults, times = flaps, _series(FLAPS, random, mean_ms)
            else:
                faults, times = singles, _single(random, mean_ms)
            yield one, _Episode(gap_ms, times, faults), random

    def _place(
        self, episodes: Iterator[tuple[FaultKind, _Episode, Random]], start_ms: float, end_ms: float
    ) -> Iterator[FaultEvent]:
        """Lets episodes follow one another, until the time is up."""
        now_ms = start_ms
        for one, episode, random in episodes:
            now_ms += episode.gap_ms
            for gap_ms, length_ms in episode.times_ms:
                from_ms, to_ms = now_ms + gap_ms, now_ms + gap_ms + length_ms
                if to_ms > end_ms:
                    return
                self._numbers[one.name] += 1
                event = FaultEvent(
                    id=f"{one.name}-{self._numbers[one.name]}",
                    start_ms=int(from_ms),
                    stop_ms=max(int(to_ms), int(from_ms) + 1),
                    fault=next(episode.faults),
                    when=one.draw_trigger(random) if one.draw_trigger else None,
                )
                yield event
                now_ms = max(to_ms, float(event.stop_ms))  # whole milliseconds must not overlap either


def _single(random: Random, mean_ms: float) -> list[tuple[float, float]]:
    """One fault: no gap before it, and its length."""
    return [(0.0, max(LENGTH_MS_MIN, mean_ms * uniform(random, 0.1, 0.8)))]


def _series(series: Series, random: Random, mean_ms: float) -> list[tuple[float, float]]:
    """Some short faults: the gap before each, and its length."""
    count = integer(random, *series.counts)
    # Never longer than an episode of this run should take, however short the run.
    scale = min(1.0, mean_ms / (count * (series.lengths_ms[1] + series.gaps_ms[1])))
    return [
        (scale * log_uniform(random, *series.gaps_ms), scale * uniform(random, *series.lengths_ms))
        for _ in range(count)
    ]


def _check_arguments(
    kinds: Sequence[FaultKind],
    nodes: Sequence[str],
    duration_ms: float,
    interval_ms: float,
    intensity: float,
) -> None:
    for name, value in (
        ("duration_ms", duration_ms),
        ("interval_ms", interval_ms),
        ("intensity", intensity),
    ):
        if not 0 < value < float("inf"):
            raise FaultError(f"{name} is {value:g}; a fault schedule needs a number above 0")
    for one in kinds:
        if len(nodes) < one.nodes_min:
            raise FaultError(
                f"fault {one.name!r} needs at least {one.nodes_min} nodes and the cluster has {len(nodes)}; "
                "add nodes or leave the fault out"
            )
