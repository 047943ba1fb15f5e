"""Pure functions from a plan to a smaller or simpler plan.

Rules of this module
    1. The seed stays: what is left in a plan draws from the same named streams as before.
    2. An edit that would make no sense (a fault without nodes, no node at all) leaves the thing out or answers
       None; what comes out is always a plan that can be stored and replayed.
    3. Every simplification makes some number smaller, so that a search that repeats them comes to an end.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from checkers import Op
from harness.plan import Plan
from harness.planned import PlannedOp
from harness.shrink.attempt import Violation
from nemesis.effects import check
from nemesis.faults import (
    Corrupt,
    Duplicate,
    Fault,
    FaultError,
    Latency,
    Loss,
    Partition,
    Reorder,
    wants_leader,
)
from nemesis.schedule import FaultEvent

US_PER_MS = 1_000
LIMIT_MS_MIN = 1
DRAWN_AIMS = (
    "one",
    "minority",
    "majority",
    "all",
)  # words for how the nodes were drawn, no longer true of fewer
replace = msgspec.structs.replace


def end_us(plan: Plan) -> int:
    """When load and faults end."""
    return round(plan.config.time_limit_s * 1e6)


def with_limit_ms(plan: Plan, limit_ms: int) -> Plan:
    """The same plan with another end of load and faults."""
    config = replace(plan.config, time_limit_s=max(LIMIT_MS_MIN, limit_ms) / 1000)
    return _liveness_at_the_end(replace(plan, config=config))


def _liveness_at_the_end(plan: Plan) -> Plan:
    """What is to be shown of liveness begins when the load ends."""
    if plan.liveness is None:
        return plan
    limit_ms = math.ceil(plan.config.time_limit_s * 1000)
    outside = tuple(
        replace(event, start_ms=limit_ms, stop_ms=limit_ms + plan.liveness.bound_ms)
        for event in plan.liveness.outside
    )
    return replace(plan, liveness=replace(plan.liveness, outside=outside))


def cut_off_end(plan: Plan, history: Sequence[Op], violation: Violation) -> Plan:
    """Drop all that was to happen after the violation in the plan's own history.

    Everything before it draws the same numbers as before, so this cannot lose it.
    """
    end_ns = violation.time_ns
    if plan.liveness is not None:
        return replace(plan, final=())
    if end_ns > plan.config.time_limit_s * 1e9 and plan.final:
        return plan if violation.inside else _cut_off_finals(plan, history, violation.index)
    started = Counter(
        op.process % plan.config.concurrency
        for op in history[: violation.index]
        if isinstance(op.process, int) and op.type == "invoke"
    )
    limit_ms = max(0, end_ns) // 1_000_000 + 1
    plan = replace(plan, ops=_first_of_each_worker(plan.ops, started), final=())
    return with_limit_ms(_clip_faults(plan, limit_ms), limit_ms)


def _first_of_each_worker(ops: Sequence[PlannedOp], counts: Counter[int]) -> tuple[PlannedOp, ...]:
    left = counts.copy()
    kept = []
    for op in ops:
        if left[op.worker] > 0:
            left[op.worker] -= 1
            kept.append(op)
    return tuple(kept)


def _cut_off_finals(plan: Plan, history: Sequence[Op], index: int) -> Plan:
    wrong = history[index].key
    return replace(plan, final=tuple(op for op in plan.final if op.key == wrong))


def _clip_faults(plan: Plan, limit_ms: int) -> Plan:
    """Heal at the latest just after the limit: the runner waits for planned healings."""
    faults = tuple(
        replace(event, stop_ms=min(event.stop_ms, max(limit_ms, event.start_ms + 1)))
        for event in plan.faults
        if event.start_ms < limit_ms
    )
    return replace(plan, faults=faults)


def cut_off_start(plan: Plan, cut_ms: int) -> Plan:
    """Drop what was over by then, and let the rest happen so much earlier."""
    cut_us = cut_ms * US_PER_MS
    ops = tuple(replace(op, at_us=op.at_us - cut_us) for op in plan.ops if op.at_us >= cut_us)
    faults = tuple(
        replace(event, start_ms=max(0, event.start_ms - cut_ms), stop_ms=event.stop_ms - cut_ms)
        for event in plan.faults
        if event.stop_ms > cut_ms
    )
    limit_ms = round(plan.config.time_limit_s * 1000) - cut_ms
    return with_limit_ms(replace(plan, ops=ops, faults=faults), limit_ms)


def keep_ops(plan: Plan, keep: Callable[[PlannedOp], bool]) -> Plan:
    """Only these operations; the final ones stay."""
    return replace(plan, ops=tuple(op for op in plan.ops if keep(op)))


def keep_keys(plan: Plan, keys: Sequence[Any]) -> Plan:
    """Only operations of these keys, the final ones too."""
    return replace(
        plan,
        ops=tuple(op for op in plan.ops if op.key in keys),
        final=tuple(op for op in plan.final if op.key in keys),
    )


def keep_faults(plan: Plan, ids: Sequence[str]) -> Plan:
    """Only these fault events."""
    return replace(plan, faults=tuple(event for event in plan.faults if event.id in ids))


def pack_workers(plan: Plan, *, keep_homes: bool) -> Plan:
    """Give the workers that have operations the lowest numbers; with `keep_homes`, each one of the same node."""
    used = sorted({op.worker for op in (*plan.ops, *plan.final)})
    stride = len(plan.nodes) if keep_homes else 1
    taken: Counter[int] = Counter()
    number: dict[int, int] = {}
    for worker in used:
        home = worker % stride
        number[worker] = home + stride * taken[home]
        taken[home] += 1
    concurrency = max(number.values(), default=0) + 1

    def renumbered(ops: Sequence[PlannedOp]) -> tuple[PlannedOp, ...]:
        return tuple(replace(op, worker=number[op.worker]) for op in ops)

    config = replace(plan.config, concurrency=concurrency)
    return replace(plan, ops=renumbered(plan.ops), final=renumbered(plan.final), config=config)


def keep_nodes(plan: Plan, nodes: Sequence[str]) -> Plan:
    """A cluster of these nodes only; a fault that then makes no sense goes too."""
    faults = []
    for event in plan.faults:
        fault = _on_nodes(event.fault, nodes)
        if fault is not None:
            faults.append(replace(event, fault=fault))
    config = replace(plan.config, nodes=len(nodes))
    return replace(plan, nodes=tuple(nodes), faults=tuple(faults), config=config)


def _on_nodes(fault: Fault, nodes: Sequence[str]) -> Fault | None:
    named = tuple(node for node in fault.nodes if node in nodes)
    aims = (getattr(fault, "topology", None), getattr(fault, "aim", None))
    if not named and (wants_leader(fault) or "trigger" in aims):
        named = (nodes[0],)  # it stands for a node that is known only when the time has come
    changes: dict[str, Any] = {"nodes": named}
    if isinstance(fault, Partition) and fault.grudge is not None:
        changes["grudge"] = {
            node: tuple(one for one in lost if one in nodes)
            for node, lost in fault.grudge.items()
            if node in nodes
        }
    return _changed(fault, nodes, **changes)


def _changed(fault: Fault, cluster: Sequence[str], **changes: Any) -> Fault | None:
    """The fault with some fields changed, or None where that makes no sense."""
    try:
        changed = replace(fault, **changes)
        check(changed, cluster)
    except (FaultError, IndexError):
        return None
    return changed


# -- time -------------------------------------------------------------------------------------------------------


def instants_ms(plan: Plan) -> list[int]:
    """The times at which something is planned, in order, with the start and the end."""
    times = {0, round(plan.config.time_limit_s * 1000)}
    times.update(op.at_us // US_PER_MS for op in plan.ops)
    for event in plan.faults:
        times.update((event.start_ms, event.stop_ms))
    return sorted(times)


def shorten_gap(plan: Plan, start_ms: int, by_ms: int) -> Plan:
    """Let all that is planned after `start_ms` happen so much earlier."""

    def moved(at_ms: int) -> int:
        return at_ms if at_ms <= start_ms else max(start_ms, at_ms - by_ms)

    start_us, by_us = start_ms * US_PER_MS, by_ms * US_PER_MS
    ops = tuple(
        op if op.at_us <= start_us else replace(op, at_us=max(start_us, op.at_us - by_us)) for op in plan.ops
    )
    faults = tuple(
        replace(
            event,
            start_ms=moved(event.start_ms),
            stop_ms=max(moved(event.stop_ms), moved(event.start_ms) + 1),
        )
        for event in plan.faults
    )
    limit_ms = moved(round(plan.config.time_limit_s * 1000))
    return with_limit_ms(replace(plan, ops=ops, faults=faults), limit_ms)


def round_times(plan: Plan, step_ms: int) -> Plan:
    """All times at multiples of the step, rounded down; lengths of faults stay at least one step."""

    def down(at_ms: int) -> int:
        return at_ms // step_ms * step_ms

    ops = tuple(replace(op, at_us=down(op.at_us // US_PER_MS) * US_PER_MS) for op in plan.ops)
    faults = tuple(
        replace(
            event,
            start_ms=down(event.start_ms),
            stop_ms=max(
                down(event.stop_ms), down(event.start_ms) + min(step_ms, event.stop_ms - event.start_ms)
            ),
        )
        for event in plan.faults
    )
    return replace(plan, ops=ops, faults=faults)


def plain_times(plan: Plan) -> Plan:
    """Operations at whole milliseconds."""
    return replace(plan, ops=tuple(replace(op, at_us=op.at_us // US_PER_MS * US_PER_MS) for op in plan.ops))


# -- values -----------------------------------------------------------------------------------------------------


def simpler_faults(plan: Plan, event: FaultEvent) -> Iterator[Plan]:
    """The plan with one fault simpler, one way at a time."""
    for fault in _simpler(event.fault, plan.nodes):
        yield _with_event(plan, replace(event, fault=fault))
    length_ms = event.stop_ms - event.start_ms
    for shorter_ms in (length_ms // 8, length_ms // 2, length_ms * 9 // 10):
        if 0 < shorter_ms < length_ms:
            yield _with_event(plan, replace(event, stop_ms=event.start_ms + shorter_ms))
            yield _with_event(plan, replace(event, start_ms=event.stop_ms - shorter_ms))


def _with_event(plan: Plan, changed: FaultEvent) -> Plan:
    faults = tuple(changed if event.id == changed.id else event for event in plan.faults)
    return replace(plan, faults=faults)


def _simpler(fault: Fault, cluster: Sequence[str]) -> Iterator[Fault]:
    changes = _milder(fault)
    if len(fault.nodes) > 1 and getattr(fault, "topology", None) != "majorities-ring":
        changes += [
            {"nodes": tuple(one for one in fault.nodes if one != left_out)} for left_out in fault.nodes
        ]
    for change in changes:
        changed = _changed(fault, cluster, **change)
        if changed is not None:
            yield changed


def _milder(fault: Fault) -> list[dict[str, Any]]:
    """Changes of fields, each of which makes the fault do less or easier to tell."""
    if getattr(fault, "aim", None) in DRAWN_AIMS:
        return [{"aim": "named"}, *_weaker(fault)]
    return _weaker(fault)


def _weaker(fault: Fault) -> list[dict[str, Any]]:
    match fault:
        case Partition(topology="halves" | "minority-third", nodes=(_,)):
            return [{"topology": "one"}]
        case Partition(topology="majorities-ring" | "bridge"):
            return [{"topology": "one", "nodes": fault.nodes[:1]}]
        case Partition(hearing="deaf" | "mute"):
            return [{"hearing": "none"}]
        case Latency():
            changes: list[dict[str, Any]] = [{"jitter_ms": 0.0}] if fault.jitter_ms else []
            return changes + ([{"delay_ms": float(fault.delay_ms // 2)}] if fault.delay_ms >= 2 else [])
        case Loss() | Duplicate() | Reorder() | Corrupt() if fault.probability >= 0.02:
            return [{"probability": round(fault.probability / 2, 2)}]
    return []


def plain_values(plan: Plan) -> Plan:
    """Whole numbers that are written or expected become 1, 2, 3 in the order in which they come."""
    numbers: dict[int, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if type(value) is not int:
            return value
        return numbers.setdefault(value, len(numbers) + 1)

    def of(ops: Sequence[PlannedOp]) -> tuple[PlannedOp, ...]:
        return tuple(replace(op, value=plain(op.value)) for op in ops)

    return replace(plan, ops=of(plan.ops), final=of(plan.final))


def plain_keys(plan: Plan) -> Plan:
    """Keys that are names become k1, k2 in the order in which they come."""
    names: dict[str, str] = {}

    def of(ops: Sequence[PlannedOp]) -> tuple[PlannedOp, ...]:
        return tuple(
            replace(op, key=names.setdefault(op.key, f"k{len(names) + 1}")) if isinstance(op.key, str) else op
            for op in ops
        )

    return replace(plan, ops=of(plan.ops), final=of(plan.final))


def simpler_ops(plan: Plan) -> Iterator[Plan]:
    """The plan with one operation of a simpler kind: a cas becomes a write of its new value."""
    for index, op in enumerate(plan.ops):
        if op.f == "cas" and isinstance(op.value, list | tuple) and len(op.value) == 2:
            simple = replace(op, f="write", value=op.value[1])
            yield replace(plan, ops=(*plan.ops[:index], simple, *plan.ops[index + 1 :]))
