"""The shrunk run on one page, in order of time: who led, which fault struck, what was lost, what clients saw.

Theory of operation
    The plan is run once more with observers on hosts and network; a simulated run repeats itself, so this is the run
    that was stored. The history gives the operations and the faults, the observers give what clients cannot see. Lost
    messages are told once per link, kind and stretch between two other lines, since a partition loses hundreds, and
    likewise requests that a node turns away at once, since a client asks one node after the other until one leads. The
    completion with which the history went wrong is marked, and a broken invariant stands where it was broken.

Rules of this module
    1. At most `LINES_MAX` lines of events; what is left out is counted.
    2. Nothing here knows the system: an event without a phrase of its own is told by its name and its fields.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from checkers import Op
from harness import judge
from harness.clusters.base import Cluster
from harness.clusters.sim import SimCluster
from harness.plan import Plan
from harness.shrink.attempt import Attempt, attempt

LINES_MAX = 70
EVENTS_MAX = 200_000
COUNTED_SHOWN = 3

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
TURNED_AWAY = "NotLeader"  # the kind of such an answer
WENT_WRONG = "   <== here the history went wrong"


class _Lost(NamedTuple):
    src: str
    dst: str
    kind: str


class _TurnedAway(NamedTuple):
    node: str
    client: str


_Counted: TypeAlias = _Lost | _TurnedAway


class _Event(msgspec.Struct, frozen=True):
    """Something worth a line, or to be counted; `rank` puts equal times in the order in which they were seen."""

    time_ns: int
    rank: int
    who: str
    what: str
    counted: _Counted | None = None


class _Tracer:
    """Observes a cluster while it runs."""

    def __init__(self) -> None:
        self._events: list[_Event] = []
        self._cluster: SimCluster | None = None
        self._request: tuple[str, Any] | None = None

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
        if event in HIDDEN:
            return
        if event == "reply" and self._turned_away(who, fields["response"]):
            return
        phrase = PHRASES.get(event)
        told = {name: _short(value) for name, value in fields.items()}
        shown = ", ".join(f"{name} {value}" for name, value in told.items())
        self._add(who, phrase.format(**told) if phrase is not None else f"{event}: {shown}")
        self._request = (who, fields["request"]) if event == "request" else None

    def _turned_away(self, who: str, response: Any) -> bool:
        """Whether this answers the request just before it, and does nothing for it; then that is only counted."""
        asked, self._request = self._request, None
        if asked is None or asked[0] != who or type(response).__name__ != TURNED_AWAY:
            return False
        self._events.pop()
        self._add(who, "", _TurnedAway(who, str(getattr(asked[1], "client", "somebody"))))
        return True

    def _on_lost(self, src: str, dst: str, message: Any) -> None:
        self._add(src, "", _Lost(src, dst, type(message).__name__))

    def _add(self, who: str, what: str, counted: _Counted | None = None) -> None:
        assert self._cluster is not None, "events come from a cluster"
        if len(self._events) < EVENTS_MAX:
            now_ns = self._cluster.loop.now_us * 1000
            self._events.append(_Event(now_ns, len(self._events), who, what, counted))


def _short(value: Any) -> Any:
    """A message without the fields that say nothing."""
    if not isinstance(value, msgspec.Struct):
        return value
    fields = msgspec.structs.fields(value)
    telling = [(field.name, getattr(value, field.name)) for field in fields]
    shown = [
        f"{name}={_short(content)!s}" if isinstance(content, msgspec.Struct) else f"{name}={content!r}"
        for (name, content), field in zip(telling, fields, strict=True)
        if content != field.default and content not in ("", None)
    ]
    return f"{type(value).__name__}({', '.join(shown)})"


def tell(plan: Plan) -> str:
    """The story of the plan's run; the plan is run for it."""
    tracer = _Tracer()
    told = attempt(plan, prepare=tracer.attach)
    recorded = _up_to_the_end(_from_history(told), told)
    end_ns = recorded[-1].time_ns if recorded else 0
    # What nodes do at the very end of a run is that they are stopped.
    seen = [event for event in tracer.events() if event.time_ns < end_ns or event.time_ns == _broken_ns(told)]
    events = sorted([*recorded, *seen], key=lambda event: (event.time_ns, event.rank))
    lines = [_headline(plan, told), "", "   seconds  who        what", *_rows(events), ""]
    said = [line for check in judge.check_workload(told.ops, plan.config) for line in check.lines]
    if told.record is not None:
        said += [_sentence(violated) for violated in told.record.violations or ()]
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


def _from_history(told: Attempt) -> list[_Event]:
    events = []
    open_value: dict[int, Any] = {}
    wrong = {violation.index for violation in told.violations if not violation.inside}
    for op in told.ops:
        if isinstance(op.process, int):
            who = f"client {op.process}"
            if op.type == "invoke":
                open_value[op.process] = op.value
                what = f"asks: {_call(op, op.value)}"
            else:
                what = _answer(op, open_value.pop(op.process, None)) + (
                    WENT_WRONG if op.index in wrong else ""
                )
        elif op.value and "description" in op.value:
            begins = op.f.startswith("start-")
            description = str(op.value["description"]).removeprefix("healed ")
            who, what = "FAULT", f"{'begins' if begins else 'heals'}: {description}"
        else:
            continue
        events.append(_Event(op.time_ns, -1, who, what))
    broken_ns = _broken_ns(told)
    if broken_ns is not None and told.record is not None and told.record.violations:
        said = _sentence(told.record.violations[0])
        events.append(_Event(broken_ns, EVENTS_MAX, "INVARIANT", f"is broken: {said}"))
    return events


def _up_to_the_end(events: Sequence[_Event], told: Attempt) -> list[_Event]:
    """Those up to the first violation: of the history, or of an invariant where clients saw nothing."""
    if not told.violations:
        return list(events)
    end_ns = told.violations[0].time_ns
    return sorted((event for event in events if event.time_ns <= end_ns), key=lambda event: event.time_ns)


def _broken_ns(told: Attempt) -> int | None:
    return next((violation.time_ns for violation in told.violations if violation.inside), None)


def _sentence(violated: str) -> str:
    """What is broken, without what happened before: that is told in its place."""
    return violated.partition(", seen ")[0]


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


def _rows(events: Sequence[_Event]) -> list[str]:
    rows: list[str] = []
    counts: Counter[_Counted] = Counter()
    for event in events:
        if event.counted is not None:
            counts[event.counted] += 1
            continue
        rows += _counted_rows(counts)
        counts.clear()
        rows.append(f"{event.time_ns / 1e9:10.6f}  {event.who:<9}  {event.what}")
    rows += _counted_rows(counts)
    return _fitted(rows)


def _counted_rows(counts: Counter[_Counted]) -> list[str]:
    lost = Counter(
        {f"{what.kind} {what.src}->{what.dst}": n for what, n in counts.items() if isinstance(what, _Lost)}
    )
    away = Counter(
        {f"by {what.node} of {what.client}": n for what, n in counts.items() if isinstance(what, _TurnedAway)}
    )
    rows = [("network", "lost: ", lost), ("nodes", "turned away, for they do not lead: ", away)]
    return [f"{'':10}  {who:<9}  {head}{_most_common(counter)}" for who, head, counter in rows if counter]


def _most_common(counter: Counter[str]) -> str:
    shown = counter.most_common(COUNTED_SHOWN)
    more = sum(counter.values()) - sum(count for _, count in shown)
    return ", ".join(f"{count} {what}" for what, count in shown) + (f" and {more} more" if more else "")


def _fitted(rows: list[str]) -> list[str]:
    """The page: the first few rows and the last ones, which matter most."""
    if len(rows) <= LINES_MAX:
        return rows
    head = LINES_MAX // 4
    left_out = len(rows) - LINES_MAX
    return [*rows[:head], f"{'':12}... {left_out} lines left out ...", *rows[head + left_out :]]
