"""Counterexamples: why a history is not linearizable, in at most 20 lines.

Rules of this module
    1. What is shown is a proof: the operations shown are enough to make the history impossible, whatever
       all others did. Weakening an operation can only make more orders possible, so an operation is given
       up when the rest stays impossible with it weakened: a read is removed, anything else becomes
       optional (it may have happened at any later time, with the answer that it got, or never).
    2. The text is the same for the same history: no clock, no set order in it. The work is bounded by
       numbers of checks and configurations, not by seconds.

Theory of operation
    The search fails at an exact completion: everything before it is linearizable, with it nothing is. So
    only operations called before it matter, and what completed later is optional.

    *The window.* At an earlier completion the search knows every state that any order could have left. From
    there on only what was called later is firm; what was open there, and what never returned, may or may
    not still happen. The latest completion from whose states the failing one cannot be reached starts the
    window: the shortest stretch of the history that cannot be linearized.

    *The core.* Of the window's operations a minimal set is kept by giving up chunks, then single ones
    (ddmin, Zeller and Hildebrandt 2002).

    *The reason.* For registers the core is put into a graph (`checkers.order_graph`) and the shortest
    contradiction in it is told. Where there is none (several writes of one value, or another model) the
    dead ends are told: what the failing operation would have found in every state that can be reached, and by
    which operations.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from checkers.clash import clashing
from checkers.drawing import START, Arrow, Box, Figure
from checkers.effects import Effect, Inconsistent, State
from checkers.history import Operation
from checkers.levels import Levels
from checkers.meter import Exhausted, Meter
from checkers.models import Model, effect_of
from checkers.order_graph import contradiction
from checkers.parts import between, first_impossible, give_up
from checkers.problem import Problem, compile_exact, compile_problem
from checkers.search import Outcome, Searcher, Trail, search
from checkers.values import show

LINES_MAX = 20
_CHECKS_MAX = 1_500
_CONFIGURATIONS_PER_CHECK = 3_000
_CONFIGURATIONS_TOTAL = 60_000
_BYTES_MAX = 1 << 28
_SEARCHED_MAX = 4_000
_STATES_MAX = 6
#: A history of fewer completions is told from its start.
_SHORT_LEVELS = 12
_READS = frozenset({"read", "get"})
_WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 255)
_OPERATIONS_SHOWN, _OPERATIONS_MIN = 9, 5
_EARLIER_SHOWN = 2
_VALUES_SHOWN = 4
_BOXES_MAX = 16
_REASONS_SHOWN, _STEPS_SHOWN, _LINE_CHARS = 6, 3, 160
_VALUE_CHARS = 48


@dataclass(frozen=True, slots=True)
class _Window:
    """A stretch of the history that cannot be linearized from any of the states at its start.

    Attributes:
        after: the completion at whose moment it starts, None for the start of the history.
        starts: every state that any order could have left there.
        operations: what may happen from then on, in the order of calls.
    """

    after: Operation | None
    starts: tuple[State, ...]
    operations: list[Operation]


class _From:
    """A model that starts in another state."""

    def __init__(self, model: Model, start: State) -> None:
        self._model = model
        self._start = start
        self.name = model.name

    def initial(self) -> State:
        return self._start

    def step(self, state: Any, operation: Operation, /) -> State | Inconsistent:
        return self._model.step(state, operation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _Impossible:
    """Whether operations are impossible from every start, within a bounded total of work."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.checks = _CHECKS_MAX
        self.configurations = _CONFIGURATIONS_TOTAL

    def __call__(self, operations: Sequence[Operation], starts: Sequence[State]) -> bool:
        return all(self._one(operations, start) for start in starts)

    def _one(self, operations: Sequence[Operation], start: State) -> bool:
        if self.checks <= 0 or self.configurations <= 0:
            return False
        meter = Meter(
            min(_CONFIGURATIONS_PER_CHECK, self.configurations), _BYTES_MAX, time.monotonic() + 3600
        )
        outcome = search(compile_problem(operations, _From(self.model, start)), meter)
        self.checks -= 1
        self.configurations -= meter.used
        return outcome.valid is False


@dataclass(frozen=True, slots=True)
class Explanation:
    """A counterexample, as at most `LINES_MAX` lines and as a figure (`checkers.drawing`)."""

    lines: tuple[str, ...]
    figure: Figure | None = None


def explain(operations: Sequence[Operation], model: Model, key: Hashable, outcome: Outcome) -> Explanation:
    """The counterexample for one object that is not linearizable.

    Args:
        operations: those of the object that count for the model, in the order of calls.
        model: the model that they contradict.
        key: the object, None where there is only one.
        outcome: of the search of `checkers.problem.compile_problem` that said no.
    """
    problem = compile_problem(operations, model)
    levels = Levels(problem)
    if problem.grows is not None:
        outcome = first_impossible(problem, levels, outcome, model)
    failing = problem.operations[levels.rets[outcome.level]]
    impossible = _Impossible(model)
    window = _window(problem, levels, outcome, model, impossible)
    core = _minimal(window, model, impossible)
    originals = {operation.invoke_index: operation for operation in operations}
    firm = [originals[o.invoke_index] for o in core if o.ret is not None]
    others = _that_write_what_they_saw(firm, core, operations, failing, model)
    shown = sorted([*firm, *others], key=lambda operation: operation.call)
    headline = _headline(window, len(operations), failing, model, key)
    reasons, arrows, endings = _reasons(window, core, shown, model)
    figure = Figure(
        headline[0],
        f"held {' or '.join(show(start, _VALUE_CHARS) for start in window.starts)}",
        tuple(_box(operation) for operation in shown[:_BOXES_MAX]),
        arrows,
        tuple(endings),
    )
    rows = max(_OPERATIONS_MIN, min(_OPERATIONS_SHOWN, LINES_MAX - len(headline) - len(reasons)))
    return Explanation(tuple([*headline, *_table(shown, rows), *reasons][:LINES_MAX]), figure)


def _box(operation: Operation) -> Box:
    return Box(
        operation.invoke_index,
        str(operation.process),
        call_text(operation),
        operation.status,
        operation.call,
        operation.ret,
    )


def explain_clash(operations: Sequence[Operation], model: Model, key: Hashable) -> Explanation:
    """The counterexample for a register that `checkers.zones` found impossible.

    The search finds where a short history fails. A long one is cut down first: whoever sees the same value
    is kept together, since any part with the writers of all that it sees must be linearizable too.
    """
    if len(operations) <= _SEARCHED_MAX:
        outcome = failed_search(operations, model)
        if outcome is not None:
            return explain(operations, model, key, outcome)
    return explain_part(clashing(operations, model), model, key, len(operations))


def explain_part(
    part: Sequence[Operation], model: Model, key: Hashable, count: int, *, values: Sequence[Hashable] = ()
) -> Explanation:
    """The counterexample in a part of an object's ``count`` operations that is impossible by itself.

    Args:
        part: those operations.
        model: which they contradict.
        key: the object, None where there is only one.
        count: how many operations it has.
        values: the only ones that are left in what was read, where others were taken out.
    """
    outcome = failed_search(part, model) if part else None
    if outcome is None:
        return Explanation(
            (
                "the blocks of two values clash (see checkers.zones); the part that shows it is too long to tell",
            )
        )
    explanation = explain(part, model, key, outcome)
    where = "" if key is None else f"key {show(key, _VALUE_CHARS)}: "
    first = f"{where}these of its {count} operations alone are impossible (model {model.name})"
    if values:
        named = ", ".join(show(value, _VALUE_CHARS) for value in values[:_VALUES_SHOWN])
        more = f" and {len(values) - _VALUES_SHOWN} more" if len(values) > _VALUES_SHOWN else ""
        first += f", with no regard to values other than {named}{more}"
    rest = (line for line in explanation.lines[1:] if not line.startswith("no order is possible"))
    figure = explanation.figure and replace(explanation.figure, title=first)
    return Explanation((first, *rest), figure)


def explain_told(
    part: Sequence[Operation], model: Model, key: Hashable, count: int, why: Sequence[str]
) -> Explanation:
    """Operations that contradict each other, and how, in lines, which stand below the figure as well."""
    where = "" if key is None else f"key {show(key, _VALUE_CHARS)}: "
    first = f"{where}of {count} operations these contradict each other (model {model.name})"
    shown = sorted(part, key=lambda operation: operation.call)
    figure = Figure(first, "", tuple(map(_box, shown[:_BOXES_MAX])), endings=tuple(why))
    return Explanation((first, *_table(shown), *why), figure)


def stale_words(seen: Operation, writer: Operation | None, shown: Operation | None) -> list[str]:
    """Why a value was not there any more, or not yet, when it was seen; see `checkers.intervals`."""
    value = seen.argument[0] if _is_cas(seen) else seen.result  # type: ignore[index]  # a pair
    name, what = f"[{seen.invoke_index}]", show(value, _VALUE_CHARS)
    lines = [f"{name} cannot have seen {what}, because"]
    if shown is None:
        return [
            *lines,
            f"  when it returned nobody had asked to write {what}, and that is not the initial value",
        ]
    other = f"[{shown.invoke_index}]"
    if writer is None:
        lines.append(f"  {what} is the initial value, and when {name} returned nobody had asked to write it")
    else:
        last = f"[{writer.invoke_index}]"
        lines.append(
            f"  of all who had asked to write {what} by then {last} returned last, before {other} was called"
        )
    return [*lines, f"  at {other} another value was there, and {other} returned before {name} was called"]


def failed_search(operations: Sequence[Operation], model: Model) -> Outcome | None:
    """The no of a search within what an explanation may spend; None where it says anything else."""
    meter = Meter(_CONFIGURATIONS_TOTAL, _BYTES_MAX, time.monotonic() + 3600)
    outcome = search(compile_problem(operations, model), meter)
    return outcome if outcome.valid is False else None


def _window(
    problem: Problem, levels: Levels, outcome: Outcome, model: Model, impossible: _Impossible
) -> _Window:
    """The shortest window, or the whole history up to the failing completion."""
    last = problem.ret[levels.rets[outcome.level]]
    for size in _WINDOWS if outcome.level >= _SHORT_LEVELS else ():
        level = outcome.level - size
        states = outcome.recent.get(level, ())
        if level <= 0 or not 0 < len(states) <= _STATES_MAX:
            continue
        start = levels.rets[level - 1]
        operations = between(problem.operations, problem.ret[start], last, model)
        if impossible(operations, states):
            return _Window(problem.operations[start], states, operations)
    return _Window(None, (model.initial(),), between(problem.operations, -1, last, model))


def _minimal(window: _Window, model: Model, impossible: _Impossible) -> list[Operation]:
    """The window's operations with as much as possible given up; see rule 1 and the core."""
    current = window.operations
    firm = [o.invoke_index for o in current if o.ret is not None]
    size = max(1, len(firm) // 2)
    while True:
        at = 0
        while at < len(firm):
            chunk = set(firm[at : at + size])
            candidate = give_up(current, chunk, model)
            if impossible(candidate, window.starts):
                current = candidate
                del firm[at : at + size]
            else:
                at += size
        if size == 1:
            return current
        size = max(1, size // 2)


def _that_write_what_they_saw(
    firm: Sequence[Operation],
    core: Sequence[Operation],
    operations: Sequence[Operation],
    failing: Operation,
    model: Model,
) -> list[Operation]:
    """Other operations that write a value which the firm ones saw: all in the core, few from before it."""
    assert failing.ret is not None, "a search fails at a completion"
    saw = {o.result for o in firm if o.f in _READS or effect_of(model, o) is Effect.PURE}
    saw |= {
        cast("tuple[Hashable, Hashable]", operation.argument)[0] for operation in firm if _is_cas(operation)
    }
    taken = {operation.invoke_index for operation in firm}
    inside = {operation.invoke_index for operation in core}
    within: list[Operation] = []
    earlier: list[Operation] = []
    for operation in operations:
        writes = operation.argument
        if _is_cas(operation):
            writes = cast("tuple[Hashable, Hashable]", writes)[1]
        if (
            writes is None
            or writes not in saw
            or operation.invoke_index in taken
            or operation.call > failing.ret
        ):
            continue
        if effect_of(model, operation) is not Effect.PURE:
            (within if operation.invoke_index in inside else earlier).append(operation)
    return within + earlier[-_EARLIER_SHOWN:]


def _headline(window: _Window, count: int, failing: Operation, model: Model, key: Hashable) -> list[str]:
    where = "" if key is None else f"key {show(key, _VALUE_CHARS)}: "
    first = f"{where}linearizable up to the completion at index {failing.complete_index}, impossible with it"
    lines = [f"{first} (model {model.name}, {count} operations)"]
    if window.after is None:
        return [*lines, "no order is possible for:"]
    starts = " or ".join(show(start, _VALUE_CHARS) for start in window.starts)
    where = f"index {window.after.complete_index}"
    return [
        *lines,
        f"at {where} every possible order has left {starts}; from there no order is possible for:",
    ]


def _table(shown: Sequence[Operation], rows_max: int = _OPERATIONS_SHOWN) -> list[str]:
    cells = [_describe(operation) for operation in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))] if cells else []
    rows = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    ]
    lines = [row.rstrip() for row in rows]
    if len(lines) <= rows_max:
        return lines
    half = rows_max // 2
    hidden = len(lines) - rows_max + 1
    return [*lines[:half], f"  ... and {hidden} more", *lines[half + hidden :]]


def _reasons(
    window: _Window, core: Sequence[Operation], shown: Sequence[Operation], model: Model
) -> tuple[Sequence[str], tuple[Arrow, ...], Sequence[str]]:
    """In words, as arrows, and as endings of a figure."""
    if len(window.starts) == 1:
        value = (
            "the initial value"
            if window.after is None
            else f"the value at index {window.after.complete_index}"
        )
        told = contradiction(core, shown, _From(model, window.starts[0]), value)
        if told.lines:
            known = {START, *(operation.invoke_index for operation in shown[:_BOXES_MAX])}
            arrows = tuple(arrow for arrow in told.arrows if {arrow.before, arrow.after} <= known)
            return told.lines, arrows, told.lines[-1:]
    dead_ends = _dead_ends(core, window.starts, model)
    return dead_ends, (), dead_ends


def _is_cas(operation: Operation) -> bool:
    return operation.f == "cas" and isinstance(operation.argument, tuple) and len(operation.argument) == 2


def _describe(operation: Operation) -> tuple[str, ...]:
    indices = f"[{operation.invoke_index}"
    indices += "]" if operation.complete_index is None else f"..{operation.complete_index}]"
    return (
        indices,
        f"process {operation.process}",
        call_text(operation),
        operation.status,
        _times(operation),
    )


def call_text(operation: Operation) -> str:
    """The operation as one would write it: ``write 3``, ``read -> 3``, ``cas 1 -> 2``."""
    if _is_cas(operation):
        old, new = cast("tuple[Hashable, Hashable]", operation.argument)
        refused = " refused" if operation.status == "mismatch" else ""
        return f"cas {show(old, _VALUE_CHARS)} to {show(new, _VALUE_CHARS)}{refused}"
    argument = "" if operation.argument is None else f" {show(operation.argument, _VALUE_CHARS)}"
    if operation.status != "ok" or operation.result == operation.argument:
        return operation.f + (argument or (" -> null" if operation.status == "ok" else ""))
    return f"{operation.f}{argument} -> {show(operation.result, _VALUE_CHARS)}"


def _times(operation: Operation) -> str:
    if operation.call_ns is None:
        return ""
    end = "never returned" if operation.ret_ns is None else f"{operation.ret_ns / 1e9:.6f} s"
    return f"{operation.call_ns / 1e9:.6f} s .. {end}"


def _dead_ends(core: Sequence[Operation], starts: Sequence[State], model: Model) -> list[str]:
    """For every state in which the last operation could be tried: what leads there, and why it does not fit."""
    paths: dict[str, list[str]] = {}
    what = ""
    for start in starts:
        problem = compile_exact(core, _From(model, start))
        searcher = Searcher(problem, Meter(_CONFIGURATIONS_PER_CHECK, _BYTES_MAX, time.monotonic() + 3600))
        outcome = searcher.bfs()
        if outcome.valid is not False:
            return []
        failing = problem.operations[searcher.levels.rets[outcome.level]]
        what = what or f"[{failing.invoke_index}] {call_text(failing)}"
        try:
            ends = searcher.reachable(outcome.frontier, outcome.level)
        except Exhausted:
            return []
        for end in ends:
            after = model.step(problem.states[end.state], failing)
            if isinstance(after, Inconsistent):
                paths.setdefault(after.reason, _path(problem, end.trail))
    lines = [f"in every order that is left, {what} is stuck:"]
    lines += [_dead_end(reason, path) for reason, path in list(paths.items())[:_REASONS_SHOWN]]
    if len(paths) > _REASONS_SHOWN:
        lines.append(f"  and so in {len(paths) - _REASONS_SHOWN} states more")
    return lines


def _path(problem: Problem, trail: Trail | None) -> list[str]:
    """The operations by which a search got to a state, the last one first; what made no difference is not in it."""
    steps: list[str] = []
    while trail is not None and len(steps) <= _STEPS_SHOWN:
        operation = problem.operations[trail.operation]
        steps.append(f"[{operation.invoke_index}] {call_text(operation)}")
        trail = trail.before
    return steps


def _dead_end(reason: str, path: Sequence[str]) -> str:
    """A line, with as much of the path as there is room for."""
    line = f"  it {reason}"
    for count in range(1, min(len(path), _STEPS_SHOWN) + 1):
        more = "..., " if count < len(path) else ""
        longer = f"  after {more}{', '.join(reversed(path[:count]))}: it {reason}"
        if len(longer) > _LINE_CHARS:
            break
        line = longer
    return line
