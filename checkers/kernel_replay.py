"""`checkers.witness.replay` for numba: from the choices of a search to an order of operations.

Rules of this module
    1. Compiled only (`checkers.fast`). What it returns is a claim, which `checkers.zones.check_order` or
       `checkers.witness.verify` then looks at on its own.
"""

# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from checkers.kernels import OVERWRITE, PURE, after

_Array = Any


@njit(cache=True, nogil=True)
def choices(last: int, trail_before: _Array, trail_op: _Array) -> _Array:
    """The entries of a trail, first to last."""
    count = 0
    at = last
    while at > 0:
        count += 1
        at = trail_before[at]
    found = np.empty(count, np.int64)
    at = last
    while at > 0:
        count -= 1
        found[count] = trail_op[at]
        at = trail_before[at]
    return found


@njit(cache=True, nogil=True)
def _settle(
    task: Any, level: int, state: int, placed: _Array, order: _Array, count: int, spot: _Array, became: _Array
) -> int:
    for p in range(task.start[level], task.start[level + 1]):
        x = task.pending[p]
        k = task.kind[x]
        if placed[x] or np.int64(after(task.table, task.code, k, state)) != state:
            continue
        if task.effect[k] == PURE:
            placed[x] = 1
            order[count] = x
            count += 1
        elif spot[x] < 0:
            spot[x] = count
            became[0] += 1
            became[1 + x] = became[0]
    return count


@njit(cache=True, nogil=True)
def replay(task: Any, initial: int, chosen: _Array) -> Any:
    """(order, how many, spot, rank): operations put in by choice, and where those go that were optional.

    ``spot[x]`` is the position in ``order`` before which an optional operation that returned unchosen stands, and
    ``rank[x]`` (above 0) its turn there; -1 and 0 for all others. The count is -1 - x where operation x returns
    without being anywhere.
    """
    n = len(task.ret)
    placed, spot = np.zeros(n, np.uint8), np.full(n, -1, np.int64)
    order, became = np.empty(n, np.int64), np.zeros(n + 1, np.int64)
    rank = np.zeros(n, np.int64)
    state: Any = np.int64(initial)
    count = 0
    at = 0
    for level in range(len(task.rets)):
        count = _settle(task, level, state, placed, order, count, spot, became)
        while at < len(chosen) and chosen[at] // n == level:
            x = chosen[at] % n
            at += 1
            if task.effect[task.kind[x]] == OVERWRITE:
                for p in range(task.start[level], task.start[level + 1]):
                    y = task.pending[p]
                    if not placed[y] and spot[y] < 0 and task.effect[task.kind[y]] == OVERWRITE:
                        spot[y] = count
                        became[0] += 1
                        became[1 + y] = became[0]
            state = np.int64(after(task.table, task.code, task.kind[x], state))
            if state < 0:
                return order, -1 - x, spot, rank
            placed[x] = 1
            order[count] = x
            count += 1
            count = _settle(task, level, state, placed, order, count, spot, became)
        returning = task.rets[level]
        if not placed[returning]:
            if spot[returning] < 0:
                return order, -1 - returning, spot, rank
            placed[returning] = 1
            rank[returning] = became[1 + returning]
    return order, count, spot, rank
