"""Whether the faults of a run did anything: which operations they overlapped, and what proved that they were in force.

Rules of this module
    1. An operation overlaps a fault if it was not over when the fault began, and had begun when it ended.
    2. A kind of fault had an effect if one of its faults overlapped an operation and was proved. Where some kind had
       none the run says so; with `require_effect` it is then ``unknown``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from checkers import Op
from harness.injector import FaultRecord
from nemesis import schedule

NEVER_NS = 2**63
INDEXES_MAX = 1_000


class Span(NamedTuple):
    """One operation of a client: where it stands in the history, and when it was."""

    place: int
    invoked_ns: int
    completed_ns: int  # NEVER_NS: not in this run
    outcome: str


class Overlap(NamedTuple):
    """Operations that overlapped a fault: how many, by outcome, and where they stand, the first ones."""

    total: int
    by_outcome: dict[str, int]
    indexes: tuple[int, ...]


def spans_of(ops: Sequence[Op]) -> list[Span]:
    """All operations of clients, in the order of their completion; those without one last."""
    spans: list[Span] = []
    open_at: dict[int, tuple[int, int]] = {}
    for place, op in enumerate(ops):
        if not isinstance(op.process, int):
            continue
        if op.type == "invoke":
            open_at[op.process] = (place, op.time_ns)
        else:
            index, invoked_ns = open_at.pop(op.process)
            spans.append(Span(index, invoked_ns, op.time_ns, op.type))
    spans += [Span(index, at_ns, NEVER_NS, "info") for index, at_ns in open_at.values()]
    return spans


class Overlaps:
    """Finds the operations that a fault overlapped."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._by_start = sorted(spans, key=lambda span: span.invoked_ns)
        self._starts = [span.invoked_ns for span in self._by_start]
        self._ends = sorted(span.completed_ns for span in spans)
        self._longest_ns = max(
            (span.completed_ns - span.invoked_ns for span in spans if span.completed_ns < NEVER_NS), default=0
        )
        self._open_ended = [span for span in self._by_start if span.completed_ns == NEVER_NS]

    def count(self, fault: FaultRecord) -> int:
        """How many."""
        if fault.started_ns is None:
            return 0
        stop_ns = NEVER_NS if fault.stopped_ns is None else fault.stopped_ns
        return bisect_right(self._starts, stop_ns) - bisect_left(self._ends, fault.started_ns)

    def of(self, fault: FaultRecord) -> Overlap:
        """Which."""
        if fault.started_ns is None:
            return Overlap(0, {}, ())
        start_ns = fault.started_ns
        stop_ns = NEVER_NS if fault.stopped_ns is None else fault.stopped_ns
        first = bisect_left(self._starts, start_ns - self._longest_ns)
        last = bisect_right(self._starts, stop_ns)
        found = [span for span in self._by_start[first:last] if span.completed_ns >= start_ns]
        found += [span for span in self._open_ended if span.invoked_ns < start_ns - self._longest_ns]
        by_outcome: dict[str, int] = {}
        for span in found:
            by_outcome[span.outcome] = by_outcome.get(span.outcome, 0) + 1
        indexes = tuple(sorted(span.place for span in found)[:INDEXES_MAX])
        return Overlap(len(found), dict(sorted(by_outcome.items())), indexes)


def kind_of(fault: FaultRecord) -> str:
    """The kind of fault that it was drawn for."""
    return schedule.kind_of(fault.event)


def without_effect(kinds: Sequence[str], faults: Sequence[FaultRecord], overlaps: Overlaps) -> dict[str, str]:
    """Kinds that had no effect, and in which way."""
    missing: dict[str, str] = {}
    for kind in kinds:
        mine = [fault for fault in faults if kind_of(fault) == kind]
        injected = [fault for fault in mine if fault.started_ns is not None]
        overlapped = [fault for fault in injected if overlaps.count(fault)]
        if not mine:
            missing[kind] = "none was planned in so short a time"
        elif not injected:
            missing[kind] = _why_not_injected(mine)
        elif not overlapped:
            missing[kind] = "no operation overlapped it"
        elif all(fault.evidence.verdict != "proved" for fault in overlapped):
            missing[kind] = _why_unproved(overlapped)
    return missing


def _why_not_injected(faults: Sequence[FaultRecord]) -> str:
    if all(fault.event.when is not None for fault in faults):
        return "nothing set it off"
    return (
        "the cluster was too slow for it"
        if all(fault.is_late for fault in faults)
        else "it could not be injected"
    )


def _why_unproved(faults: Sequence[FaultRecord]) -> str:
    lines = [line for fault in faults for line in fault.evidence.lines]
    return f"nothing proved that it was in force{f' ({lines[0]})' if lines else ''}"


def to_json(fault: FaultRecord, overlaps: Overlaps) -> dict[str, Any]:
    """What became of a fault, for the results."""
    overlap = overlaps.of(fault)
    shown: dict[str, Any] = {
        "id": fault.event.id,
        "kind": fault.kind,
        "description": fault.description,
        "start_s": _seconds(fault.started_ns),
        "stop_s": _seconds(fault.stopped_ns),
        "overlapped_ops": overlap.total,
        "overlapped_by_outcome": overlap.by_outcome,
        "overlapped_indexes": list(overlap.indexes),
        "proof": fault.evidence.verdict,
        "evidence": list(fault.evidence.lines),
        "caused": fault.caused,
        "is_late": fault.is_late,
    }
    if fault.event.when is not None:
        shown["set_off"] = fault.set_off
    return shown


def _seconds(at_ns: int | None) -> float | None:
    return None if at_ns is None else round(at_ns / 1e9, 3)
