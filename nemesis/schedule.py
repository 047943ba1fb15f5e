"""When what goes wrong: a plan of fault events, drawn from a seed before the run.

Rules of this module
    1. Each kind draws from its own stream: adding a kind to a run does not change what the others do.
    2. Events of one kind never overlap each other; events of different kinds may, and should.
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

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

import msgspec

from nemesis.draws import deck, integer, log_uniform, uniform
from nemesis.effects import check
from nemesis.faults import FAULT_TYPES, Fault, FaultError, name_of
from nemesis.kinds import FLAPS, FaultKind, Series, kind

Stream = Callable[[str], Random]

INTERVAL_MS = 9_000.0
EPISODES = ("single", "single", "burst", "storm")
LENGTH_MS_MIN = 100.0


class FaultEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault and when it is in force.

    Attributes:
        id: unique in the plan, such as `kill-3`.
        start_ms: when it is injected, from the start of the run.
        stop_ms: when it is healed.
        fault: what goes wrong.
    """

    id: str
    start_ms: int
    stop_ms: int
    fault: Fault

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.stop_ms:
            raise FaultError(
                f"event {self.id}: start_ms {self.start_ms} and stop_ms {self.stop_ms} are out of order; "
                "it must be 0 <= start_ms < stop_ms"
            )


Plan = tuple[FaultEvent, ...]


def draw(
    kinds: Iterable[str],
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
        kinds: names from `nemesis.kinds.FAULTS`.
        nodes: the nodes of the cluster.
        duration_ms: length of the run.
        stream: a seeded generator for a name; the same name gives the same numbers.
        interval_ms: mean time from one episode of a kind to its next.
        intensity: 2 makes episodes twice as frequent.
        quiet_ms: how long before the end everything is healed; if not given a tenth of the run, at most 10 s.
    """
    chosen = [kind(name) for name in dict.fromkeys(kinds)]
    _check_arguments(chosen, nodes, duration_ms, interval_ms, intensity)
    quiet_ms = min(10_000.0, duration_ms / 10) if quiet_ms is None else quiet_ms
    end_ms = duration_ms - quiet_ms
    # In a short run the episodes move closer together, so that each kind still happens a few times.
    mean_ms = min(interval_ms, end_ms / 3) / intensity
    events = [
        event
        for one in chosen
        for event in _events(one, nodes, end_ms, mean_ms, stream(f"nemesis/{one.name}"))
    ]
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
        raise FaultError(f"the fault plan cannot be read: {error}{_hint(str(error))}") from error
    seen: dict[str, FaultEvent] = {}
    for event in events:
        if event.id in seen:
            raise FaultError(f"the fault plan has two events with the id {event.id!r}; give each its own")
        seen[event.id] = event
    return events


def _hint(said: str) -> str:
    """The names of all faults, where the name of one was wrong."""
    if not said.endswith(".fault.fault`"):
        return ""
    return f"; known faults: {', '.join(name_of(one) for one in FAULT_TYPES)}"


def check_plan(events: Plan, nodes: Sequence[str]) -> None:
    """Refuses a plan that names nodes the cluster does not have."""
    for event in events:
        check(event.fault, nodes)


def _events(
    one: FaultKind, nodes: Sequence[str], end_ms: float, mean_ms: float, random: Random
) -> Iterator[FaultEvent]:
    singles = one.draw(nodes, random)
    flaps = one.draw_flap(nodes, random) if one.draw_flap else singles
    storms = one.storm.draw(nodes, random) if one.storm else flaps
    now_ms, number = 0.0, 0
    for episode in deck(random, EPISODES):
        now_ms += mean_ms * uniform(random, 0.2, 0.8)
        if episode == "storm" and one.storm:
            faults, times = storms, _series(one.storm.series, random, mean_ms)
        elif episode != "single" and one.draw_flap:
            faults, times = flaps, _series(FLAPS, random, mean_ms)
        else:
            faults, times = singles, _single(random, mean_ms)
        for gap_ms, length_ms in times:
            start_ms, stop_ms = now_ms + gap_ms, now_ms + gap_ms + length_ms
            if stop_ms > end_ms:
                return
            number += 1
            event = FaultEvent(
                id=f"{one.name}-{number}",
                start_ms=int(start_ms),
                stop_ms=max(int(stop_ms), int(start_ms) + 1),
                fault=next(faults),
            )
            yield event
            now_ms = max(stop_ms, float(event.stop_ms))  # whole milliseconds must not overlap either


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
