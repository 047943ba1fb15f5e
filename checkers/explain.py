"""Counterexamples: why a history is not linearizable, in at most 20 lines.

Rules of this module
    1. What is shown is a proof: the operations shown are enough to make the history impossible, whatever
       all others did. Weakening an operation can only make more orders possible, so an operation is given
       up when the rest stays impossible with it weakened: a read is removed, anything else becomes
       ``info`` (it may have happened at any later time, or never).
    2. The text is the same for the same history: no clock, no set order in it. The work is bounded by
       numbers of checks and configurations, not by seconds.

Theory of operation
    The search fails at an exact completion: everything before it is linearizable, with it nothing is. So
    only operations called before it matter, and what completed later counts as ``info``. Of these a
    minimal core is found by giving up chunks, then single operations (ddmin, Zeller and Hildebrandt 2002).

    For registers the core is put into a graph: A before B because A returned before B was called; a write
    before the reads that saw its value; and, until nothing more follows, a read before every overwrite
    that its write precedes, and an overwrite before the write whose reader it precedes. A cycle of forced
    steps is the contradiction, and the shortest is told. Where there is none (several writes of one value,
    or another model) the dead ends are told: what the failing operation would have found in every state
    that can be reached.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import cast

import msgspec

from checkers.history import Operation
from checkers.models import Effect, Inconsistent, Model, effect_of
from checkers.order_graph import contradiction
from checkers.problem import compile_exact, compile_problem
from checkers.search import Exhausted, Levels, Meter, Searcher, search
from checkers.values import show

LINES_MAX = 20
_CHECKS_MAX = 1_500
_CONFIGURATIONS_PER_CHECK = 3_000
_CONFIGURATIONS_TOTAL = 60_000
_BYTES_MAX = 1 << 28
_OPERATIONS_SHOWN = 9
_REASONS_SHOWN = 6
_VALUE_CHARS = 48


def explain(operations: Sequence[Operation], model: Model, key: Hashable, level: int) -> list[str]:
    """The counterexample for one object that is not linearizable.

    Args:
        operations: those of the object that count for the model, in the order of calls.
        model: the model that they contradict.
        key: the object, None where there is only one.
        level: `checkers.search.Outcome.level` of the search that said no.

    Returns:
        At most `LINES_MAX` lines.
    """
    returns = sorted(o.ret for o in operations if o.ret is not None)
    failing = next(o for o in operations if o.ret == _failing_return(operations, model, level, returns))
    window = _prefix(operations, failing)
    core = _minimal(window, model)
    by_index = {operation.invoke_index: operation for operation in operations}
    shown = _with_writers(core, window, model, by_index)
    lines = [_headline(operations, shown, core, model, key, failing)]
    cells = [_describe(operation) for operation in shown]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    rows = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
    ]
    lines += [row.rstrip() for row in rows[:_OPERATIONS_SHOWN]]
    if len(rows) > _OPERATIONS_SHOWN:
        lines.append(f"  and {len(rows) - _OPERATIONS_SHOWN} more")
    reasons = contradiction(core, shown, model) or _dead_ends(core, model)
    return [*lines, *reasons][:LINES_MAX]


def _failing_return(operations: Sequence[Operation], model: Model, level: int, returns: Sequence[int]) -> int:
    """Order number of the completion at which the search failed (it skips operations of no consequence)."""
    problem = compile_problem(operations, model)
    rets = Levels(problem).rets
    return problem.ret[rets[min(level, len(rets) - 1)]] if rets else returns[-1]


def _prefix(operations: Sequence[Operation], failing: Operation) -> list[Operation]:
    """What was called before the failing completion; what completed after it is weakened."""
    assert failing.ret is not None, "a search fails at a completion"
    return [
        _weaken(operation) if operation.ret is None or operation.ret > failing.ret else operation
        for operation in operations
        if operation.call < failing.ret
    ]


def _weaken(operation: Operation) -> Operation:
    return msgspec.structs.replace(
        operation, status="info", result=None, ret=None, complete_index=None, ret_ns=None
    )


def _minimal(window: list[Operation], model: Model) -> list[Operation]:
    """The window with as much as possible given up, so that it is still impossible; see rule 1."""
    left = [_CHECKS_MAX, _CONFIGURATIONS_TOTAL]

    def impossible(candidate: Sequence[Operation]) -> bool:
        if left[0] <= 0 or left[1] <= 0:
            return False
        meter = Meter(min(_CONFIGURATIONS_PER_CHECK, left[1]), _BYTES_MAX, time.monotonic() + 3600)
        outcome = search(compile_problem(candidate, model), meter)
        left[0] -= 1
        left[1] -= meter.used
        return outcome.valid is False

    current = [o for o in window if not (o.ret is None and effect_of(model, o) is Effect.PURE)]
    firm = [o.invoke_index for o in current if o.ret is not None]
    size = max(1, len(firm) // 2)
    while True:
        at = 0
        while at < len(firm):
            chunk = set(firm[at : at + size])
            candidate = _give_up(current, chunk, model)
            if impossible(candidate):
                current = candidate
                del firm[at : at + size]
            else:
                at += size
        if size == 1:
            return [o for o in current if o.ret is not None] + [o for o in current if o.ret is None]
        size = max(1, size // 2)


def _give_up(current: Sequence[Operation], chunk: set[int], model: Model) -> list[Operation]:
    kept: list[Operation] = []
    for operation in current:
        if operation.invoke_index not in chunk:
            kept.append(operation)
        elif effect_of(model, operation) is not Effect.PURE:
            kept.append(_weaken(operation))
    return kept


def _with_writers(
    core: Sequence[Operation], window: Sequence[Operation], model: Model, by_index: dict[int, Operation]
) -> list[Operation]:
    """The firm operations of the core and those that write what they saw, as they stand in the history."""
    firm = [operation for operation in core if operation.ret is not None]
    saw = {operation.result for operation in firm if effect_of(model, operation) is Effect.PURE}
    saw |= {operation.argument[0] for operation in firm if _is_cas(operation)}  # type: ignore[index]
    chosen = {operation.invoke_index for operation in firm}
    for operation in window:
        writes = operation.argument[1] if _is_cas(operation) else operation.argument  # type: ignore[index]
        if effect_of(model, operation) is not Effect.PURE and writes in saw and writes is not None:
            chosen.add(operation.invoke_index)
    return [by_index[index] for index in sorted(chosen, key=lambda index: by_index[index].call)]


def _is_cas(operation: Operation) -> bool:
    return operation.f == "cas" and isinstance(operation.argument, tuple) and len(operation.argument) == 2


def _headline(
    operations: Sequence[Operation],
    shown: Sequence[Operation],
    core: Sequence[Operation],
    model: Model,
    key: Hashable,
    failing: Operation,
) -> str:
    where = "" if key is None else f"key {show(key, _VALUE_CHARS)}: "
    firm = sum(operation.ret is not None for operation in core)
    what = "this operation is" if firm == 1 else f"{firm} of these operations are"
    return (
        f"{where}everything before the completion at index {failing.complete_index} is linearizable; "
        "with it, "
        f"{what} impossible for {model.name} in any order (of {len(operations)}, {len(shown)} shown):"
    )


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


def _dead_ends(core: Sequence[Operation], model: Model) -> list[str]:
    """For every state in which the last operation could be tried: why it does not fit there."""
    problem = compile_exact(sorted(core, key=lambda operation: operation.call), model)
    searcher = Searcher(problem, Meter(_CONFIGURATIONS_PER_CHECK, _BYTES_MAX, time.monotonic() + 3600))
    outcome = searcher.bfs()
    if outcome.valid is not False:
        return []
    try:
        states = searcher.reachable(outcome.frontier, outcome.level)
    except Exhausted:
        return []
    failing = problem.operations[searcher.levels.rets[outcome.level]]
    reasons: list[str] = []
    for state in states:
        after = model.step(problem.states[state], failing)
        if isinstance(after, Inconsistent) and after.reason not in reasons:
            reasons.append(after.reason)
    rest = f"  and {len(reasons) - _REASONS_SHOWN} states more" if len(reasons) > _REASONS_SHOWN else ""
    what = f"[{failing.invoke_index}] {call_text(failing)}"
    lines = [f"in every order that is left, {what} is stuck:"]
    lines += [f"  it {reason}" for reason in reasons[:_REASONS_SHOWN]]
    return [*lines, rest] if rest else lines
