"""The shrunk run on one page, in order of time: who led, which fault struck, what was lost, what clients saw.

Theory of operation
    The plan is run once more with observers on hosts and network; a simulated run repeats itself, so this is the run
    that was stored. The history gives the operations and the faults, the observers give what clients cannot see. Lost
    messages are told once per link, kind and stretch between two other lines, since a partition loses hundreds.

Rules of this module
    1. At most `LINES_MAX` lines of events; what is left out is counted.
    2. Nothing here knows the system: an event without a phrase of its own is told by its name and its fields.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from checkers import Op
from harness import judge
from harness.clusters.base import Cluster
from harness.clusters.sim import SimCluster
from harness.plan import Plan
from harness.shrink.attempt import Attempt, attempt

LINES_MAX = 70
EVENTS_MAX = 200_000
LOST_SHOWN = 3

PHRASES: Mapping[str, str] = {
    "started": "starts in term {term} with {last_index} entries on its disk",
    "leader": "becomes leader of term {term}; its log has {last_index} entries",
    "candidate": "stands for election in term {term}",
    "truncated": "TRUNCATES its log from entry {index} on",
    "committed": "commits entries {first} to {last}",
    "stopped": "stops: {reason}",
    "killed": "is dead; {unsynced_lost} records that were not synced are lost",
    "request": "gets {request}",
    "reply": "answers {response}",
}
HIDDEN = ("follower", "following")


class _Event(msgspec.Struct, frozen=True):
    """Something worth a line; `rank` puts equal times in the order in which they were seen."""

    time_ns: int
    rank: int
    who: str
    what: str
    lost: tuple[str, str, str] | None = None


class _Tracer:
    """Observes a cluster while it runs."""

    def __init__(self) -> None:
        self._events: list[_Event] = []
        self._cluster: SimCluster | None = None

    def events(self) -> list[_Event]:
        """What was seen, in nanoseconds of the run; what nodes did before the cluster was open has times below 0."""
        if self._cluster is None:
            return []
        opened_ns = self._cluster.loop.now_us * 1000 - self._cluster.now_ns()
        return [msgspec.structs.replace(event, time_ns=event.time_ns - opened_ns) for event in self._events]

    def attach(self, cluster: Cluster) -> None:
        if isinstance(cluster, SimCluster):
            self._cluster = cluster
            cluster.network.observer = self._on_lost
            for name, host in cluster.hosts.items():
                host.observer = host.request_observer = functools.partial(self._on_event, name)

    def _on_event(self, who: str, event: str, **fields: Any) -> None:
        if event not in HIDDEN:
            phrase = PHRASES.get(event)
            shown = ", ".join(f"{name} {value}" for name, value in fields.items())
            self._add(who, phrase.format(**fields) if phrase is not None else f"{event}: {shown}")

    def _on_lost(self, src: str, dst: str, message: Any) -> None:
        self._add(src, "", (src, dst, type(message).__name__))

    def _add(self, who: str, what: str, lost: tuple[str, str, str] | None = None) -> None:
        assert self._cluster is not None, "events come from a cluster"
        if len(self._events) < EVENTS_MAX:
            now_ns = self._cluster.loop.now_us * 1000
            self._events.append(_Event(now_ns, len(self._events), who, what, lost))


def tell(plan: Plan) -> str:
    """The story of the plan's run; the plan is run for it."""
    tracer = _Tracer()
    told = attempt(plan, prepare=tracer.attach)
    end = told.violations[0].index if told.violations else len(told.ops)
    recorded = _from_history(told.ops[: end + 1])
    events = _merged(tracer.events(), recorded)
    lines = [_headline(plan, told), "", "   seconds  who        what", *_rows(events), ""]
    said = [line for check in judge.check_workload(told.ops, plan.config) for line in check.lines]
    if told.record is not None:
        said += told.record.violations or ()
        said += told.record.liveness.lines() if told.record.liveness is not None else ()
    lines += ["Where it went wrong:", *(f"  {line}" for line in said)]
    return "\n".join(lines) + "\n"


def _headline(plan: Plan, told: Attempt) -> str:
    operations = sum(1 for op in told.ops if op.type == "invoke" and isinstance(op.process, int))
    bug = f" with the seeded bug {plan.config.bug}" if plan.config.bug else ""
    return (
        f"{plan.config.system}{bug} on {len(plan.nodes)} nodes, seed {plan.seed}: {operations} operations, "
        f"{len(plan.faults)} faults, {plan.config.time_limit_s:g} s"
    )


# -- the history's part -----------------------------------------------------------------------------------------


def _from_history(ops: Sequence[Op]) -> list[_Event]:
    events = []
    open_value: dict[int, Any] = {}
    for op in ops:
        if isinstance(op.process, int):
            who = f"client {op.process}"
            if op.type == "invoke":
                open_value[op.process] = op.value
                what = f"asks: {_call(op, op.value)}"
            else:
                what = _answer(op, open_value.pop(op.process, None))
        elif op.value and "description" in op.value:
            begins = op.f.startswith("start-")
            who, what = "FAULT", f"{'begins' if begins else 'heals'}: {op.value['description']}"
        else:
            continue
        events.append(_Event(op.time_ns, -1, who, what))
    return events


def _call(op: Op, value: Any) -> str:
    key = f" {op.key}" if op.key is not None else ""
    if op.f == "cas" and isinstance(value, list | tuple):
        return f"cas{key} from {value[0]} to {value[1]}"
    return f"{op.f}{key}" + (f" = {value}" if value is not None else "")


def _answer(op: Op, asked: Any) -> str:
    call = _call(op, asked)
    node = f" (from {op.node})" if op.node else ""
    if op.type == "ok":
        result = f" -> {op.value}" if asked is None else ""
        return f"ok:   {call}{result}{node}"
    unknown = "; it may have happened" if op.type == "info" else "; it did not happen"
    return f"{op.type}: {call}: {op.error}{unknown}{node}"


# -- telling ----------------------------------------------------------------------------------------------------


def _merged(seen: Sequence[_Event], recorded: Sequence[_Event]) -> list[_Event]:
    """All events up to the last of the history, in order of time."""
    end_ns = recorded[-1].time_ns if recorded else 0
    before = [event for event in seen if event.time_ns < end_ns]
    return sorted([*recorded, *before], key=lambda event: (event.time_ns, event.rank))


def _rows(events: Sequence[_Event]) -> list[str]:
    rows: list[str] = []
    lost: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.lost is not None:
            lost[event.lost] += 1
            continue
        rows += _lost_row(lost)
        lost.clear()
        rows.append(f"{event.time_ns / 1e9:10.6f}  {event.who:<9}  {event.what}")
    rows += _lost_row(lost)
    return _fitted(rows)


def _lost_row(lost: Counter[tuple[str, str, str]]) -> list[str]:
    if not lost:
        return []
    shown = [f"{count} {kind} {src}->{dst}" for (src, dst, kind), count in lost.most_common(LOST_SHOWN)]
    more = sum(lost.values()) - sum(count for _, count in lost.most_common(LOST_SHOWN))
    rest = f" and {more} more" if more else ""
    return [f"{'':10}  {'network':<9}  lost: {', '.join(shown)}{rest}"]


def _fitted(rows: list[str]) -> list[str]:
    """The page: the first few rows and the last ones, which matter most."""
    if len(rows) <= LINES_MAX:
        return rows
    head = LINES_MAX // 4
    left_out = len(rows) - LINES_MAX
    return [*rows[:head], f"{'':12}... {left_out} lines left out ...", *rows[head + left_out :]]
