"""Parts of a history that allow all orders that the whole allows, and more.

Rules of this module
    1. If a part is impossible, so is the whole. An operation is weakened by being taken for ``info`` (it may have
       happened at any later time, or never), or, where it changes nothing, by being left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from checkers.effects import Effect
from checkers.history import Operation
from checkers.levels import Levels
from checkers.meter import Meter
from checkers.models import Model, effect_of, register_code
from checkers.problem import Problem, compile_problem
from checkers.search import Outcome, Searcher, search

_CONFIGURATIONS = 200_000
_BYTES_MAX = 1 << 28


def between(operations: Sequence[Operation], start: int, last: int, model: Model) -> list[Operation]:
    """What may happen after ``start``: firm if called and returned within, else it may happen or not."""
    kept: list[Operation] = []
    for operation in operations:
        if operation.call > last or (operation.ret is not None and operation.ret <= start):
            continue
        if operation.call > start and operation.ret is not None and operation.ret <= last:
            kept.append(operation)
        elif effect_of(model, operation) is not Effect.PURE:
            kept.append(weaken(operation, model))
    return kept


def weaken(operation: Operation, model: Model) -> Operation:
    """It may happen or not, from its call on; if it does, with the answer that it got."""
    if operation.status == "info":
        return operation
    gone = {"ret": None, "complete_index": None, "ret_ns": None}
    if register_code(model, operation) is not None:  # what it does then is in its argument
        return msgspec.structs.replace(operation, status="info", result=None, **gone)
    return msgspec.structs.replace(operation, **gone)


def give_up(current: Sequence[Operation], chunk: set[int], model: Model) -> list[Operation]:
    """The operations with those of the chunk, by the index of their invocations, weakened or left out."""
    kept: list[Operation] = []
    for operation in current:
        if operation.invoke_index not in chunk:
            kept.append(operation)
        elif effect_of(model, operation) is not Effect.PURE:
            kept.append(weaken(operation, model))
    return kept


def first_impossible(problem: Problem, levels: Levels, outcome: Outcome, model: Model) -> Outcome:
    """The no of a search that looked ahead (R7 of `checkers.search`), at the first completion that is impossible.

    Args:
        problem: what was searched.
        levels: of the problem.
        outcome: the no, which may have come some levels too early.
        model: of the problem.
    """
    last = len(levels.rets) - 1
    low, high, step = outcome.level, outcome.level, 1
    while high < last and not _impossible(problem, levels, high, model):
        low, high, step = high + 1, min(last, high + step), 2 * step
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _impossible(problem, levels, middle, model) else (middle + 1, high)
    found = Searcher(_upto(problem, levels, high, model), _meter()).bfs()
    return replace(outcome, level=high, recent=found.recent)


def _impossible(problem: Problem, levels: Levels, level: int, model: Model) -> bool:
    return search(_upto(problem, levels, level, model), _meter()).valid is False


def _upto(problem: Problem, levels: Levels, level: int, model: Model) -> Problem:
    return compile_problem(between(problem.operations, -1, problem.ret[levels.rets[level]], model), model)


def _meter() -> Meter:
    return Meter(_CONFIGURATIONS, _BYTES_MAX, time.monotonic() + 3600)
