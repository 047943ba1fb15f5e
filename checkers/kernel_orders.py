"""The two orders of search over `checkers.kernels.expand`: level by level, and deep first.

Rules of this module
    1. Those of `checkers.kernels`. `bfs` holds one level; `dfs` remembers every row by level.
    2. Buffers grow by factors up to their bound; what was half done when one was too small is done again.
"""

# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917
# mypy: disable-error-code="misc,arg-type,assignment,no-redef"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from checkers.kernel_rows import Nodes, at_most, core_hash, larger, lend, longer, mixed, new_nodes
from checkers.kernels import (
    NO,
    OUT_OF_CONFIGURATIONS,
    OUT_OF_NODES,
    OUT_OF_ROWS,
    OUT_OF_TRAIL,
    OVERWRITE,
    RECENT_LEVELS,
    RECENT_STATES,
    YES,
    after,
    expand,
    new_work,
)

_Array = Any


class Levelwise(NamedTuple):
    """Where `bfs` is: what it holds between two turns.

    Attributes:
        rows: the configurations at the level.
        at: the level, how many rows there are, the stamp of their index, rows of room for a level's nodes.
        counters: see `checkers.kernels.Work`.
        trail_before: the trail before each entry of the trail.
        trail_op: level * operations + operation, for each entry.
        recent: pairs (level, state) of the last levels, of each at most `RECENT_STATES`.
    """

    rows: _Array
    at: _Array
    counters: _Array
    trail_before: _Array
    trail_op: _Array
    recent: _Array


@njit(cache=True, nogil=True)
def bfs_start(initial: int, width: int) -> Any:
    """Before the first level."""
    rows = np.zeros((64, width + 1), np.uint64)
    rows[0, 0] = np.uint64(initial)
    before, op = np.full(1024, -1, np.int64), np.full(1024, -1, np.int64)
    counters = np.array([0, 1, 0, 0], np.int64)
    recent = np.full((RECENT_LEVELS * RECENT_STATES, 2), -1, np.int64)
    return Levelwise(rows, np.array([0, 1, 0, 64], np.int64), counters, before, op, recent)


@njit(cache=True, nogil=True)
def note_states(recent: _Array, level: int, rows: _Array, held: int) -> None:
    """Notes some of the states of a level."""
    base = (level % RECENT_LEVELS) * RECENT_STATES
    found = 0
    for row in range(held):
        known = found == RECENT_STATES
        for e in range(found):
            known = known or recent[base + e, 1] == np.int64(rows[row, 0])
        if not known:
            recent[base + found, 0] = level
            recent[base + found, 1] = np.int64(rows[row, 0])
            found += 1
    for e in range(found, RECENT_STATES):
        recent[base + e, 0] = -1


@njit(cache=True, nogil=True)
def bfs(
    task: Any, state: Any, words: int, width: int, configurations: int, rows_max: int, trail_max: int
) -> Any:
    """Level by level, from where it was, up to that many configurations in all: (answer, where it is then)."""
    rows, at, recent = state.rows, state.at.copy(), state.recent
    trail_before, trail_op = state.trail_before, state.trail_op
    level, held, stamp, node_size = at[0], at[1], at[2], at[3]
    work = new_work(task, words, state.counters)
    work.counters[2] = 0
    work.counters[3] = 0
    lent_task, lent_work = lend(task), lend(work)
    nodes = new_nodes(node_size, width)
    out = new_nodes(len(rows), width)
    answer = YES
    while level < len(task.rets):
        if work.counters[0] >= configurations:
            answer = OUT_OF_CONFIGURATIONS
            break
        note_states(recent, level, rows, held)
        stamp += 1
        spent, trail = work.counters[0], work.counters[1]
        source, before, op = lend((rows, trail_before, trail_op))
        count = expand(
            lent_task, level, source, 0, held, lend(out), 0, stamp, lend(nodes), lent_work, before, op, words,
            width,
        )  # fmt: skip
        if count < 0:
            work.counters[0], work.counters[1] = spent, trail
            if count == OUT_OF_NODES:
                if 4 * node_size > rows_max:
                    answer = OUT_OF_ROWS
                    break
                node_size *= 4
                nodes = new_nodes(node_size, width)
            elif count == OUT_OF_ROWS:
                if 4 * len(rows) > rows_max:
                    answer = OUT_OF_ROWS
                    break
                rows = larger(rows, held, 4 * len(rows))
                out = new_nodes(len(rows), width)
            elif count == OUT_OF_CONFIGURATIONS:
                answer = OUT_OF_CONFIGURATIONS
                break
            else:
                if 4 * len(trail_op) > trail_max:
                    answer = OUT_OF_TRAIL
                    break
                trail_before, trail_op = longer(trail_before), longer(trail_op)
            continue
        if count == 0:
            answer = NO
            break
        held = 0
        for row in range(count):
            if out.dead[row] == 0:
                for w in range(width + 1):
                    rows[held, w] = out.rows[row, w]
                held += 1
        level += 1
    at[0], at[1], at[2], at[3] = level, held, 0, node_size
    return answer, Levelwise(rows, at, work.counters, trail_before, trail_op, recent)


@njit(cache=True, nogil=True)
def remember(
    pool: _Array, row: int, level: Any, visited: _Array, count: int, table: _Array, chain: _Array, core: int,
    width: int,
) -> bool:  # fmt: skip
    """Whether this row was not yet visited at this level, nor one that can do all that it can (R6)."""
    mask = len(table) - 1
    seed = mixed(np.uint64(level) + np.uint64(0x9E3779B97F4A7C15))
    place = np.int64(core_hash(pool, row, core, seed) & np.uint64(mask))
    first = np.int64(-1)
    while table[place] != 0:
        entry = table[place] - 1
        same = visited[entry, width] == np.uint64(level)
        w = 0
        while same and w < core:
            same = visited[entry, w] == pool[row, w]
            w += 1
        if same:
            first = entry
            break
        place = (place + 1) & mask
    e = first
    while e >= 0:
        if at_most(visited, e, pool, row, core, width):
            return False
        e = chain[e]
    for w in range(width):
        visited[count, w] = pool[row, w]
    visited[count, width] = np.uint64(level)
    if first < 0:
        table[place] = count + 1
        chain[count] = -1
    else:
        chain[count] = chain[first]
        chain[first] = count
    return True


@njit(cache=True, nogil=True)
def rehash(visited: _Array, count: int, chain: _Array, core: int, width: int, size: int) -> Any:
    """A larger table over the rows visited; chained rows are found through the first of their chain."""
    table = np.zeros(size, np.int64)
    inner = np.zeros(count, np.uint8)
    for e in range(count):
        if chain[e] >= 0:
            inner[chain[e]] = 1
    for e in range(count):
        if inner[e] == 0:
            seed = mixed(visited[e, width] + np.uint64(0x9E3779B97F4A7C15))
            place = np.int64(core_hash(visited, e, core, seed) & np.uint64(size - 1))
            while table[place] != 0:
                place = (place + 1) & (size - 1)
            table[place] = e + 1
    return table


class Deep(NamedTuple):
    """Where `dfs` is: what it holds between two turns.

    Attributes:
        pool: the rows of the stack, level after level; those of level n from ``first[n]`` to ``last[n]``.
        first: see ``pool``.
        last: see ``pool``.
        visited: the rows that it was in, with their level in the last word; ``table`` and ``chain`` find them.
        table: see ``visited``.
        chain: see ``visited``.
        at: the level, the deepest one, how many were visited, rows of room for a level's nodes.
        counters: as in `Levelwise`, and the trail too.
        trail_before: see ``counters``.
        trail_op: see ``counters``.
    """

    pool: _Array
    first: _Array
    last: _Array
    visited: _Array
    table: _Array
    chain: _Array
    at: _Array
    counters: _Array
    trail_before: _Array
    trail_op: _Array


@njit(cache=True, nogil=True)
def dfs_start(task: Any, initial: int, width: int) -> Any:
    """Before the first level."""
    pool = np.zeros((256, width + 1), np.uint64)
    pool[0, 0] = np.uint64(initial)
    total = len(task.rets)
    first, last = np.zeros(total + 2, np.int64), np.zeros(total + 2, np.int64)
    last[0] = 1
    before, op = np.full(1024, -1, np.int64), np.full(1024, -1, np.int64)
    counters = np.array([0, 1, 0, 0], np.int64)
    visited, table, chain = (
        np.zeros((256, width + 1), np.uint64),
        np.zeros(1024, np.int64),
        np.zeros(256, np.int64),
    )
    at = np.array([0, 0, 0, 64], np.int64)
    return Deep(pool, first, last, visited, table, chain, at, counters, before, op)


@njit(cache=True, nogil=True)
def observers(task: Any) -> _Array:
    """The kind of the next returning operation that is no overwrite, by level; -1 for none."""
    total = len(task.rets)
    kinds = np.full(total + 1, -1, np.int64)
    for level in range(total - 1, -1, -1):
        k = task.kind[task.rets[level]]
        kinds[level] = k if task.effect[k] != OVERWRITE else kinds[level + 1]
    return kinds


@njit(cache=True, nogil=True)
def promising_last(task: Any, kind: int, pool: _Array, first: int, end: int, width: int) -> None:
    """Puts a row where the next observer is possible last, for it is taken first."""
    if kind < 0:
        return
    for e in range(first, end):
        if after(task.table, task.code, kind, np.int64(pool[e, 0])) >= 0:
            for w in range(width + 1):
                swap = pool[e, w]
                pool[e, w] = pool[end - 1, w]
                pool[end - 1, w] = swap
            return


@njit(cache=True, nogil=True)
def dfs(
    task: Any, state: Any, words: int, width: int, configurations: int, rows_max: int, trail_max: int
) -> Any:
    """Deep first, from where it was, up to that many configurations in all: (answer, where it is then)."""
    core = 1 + 2 * words
    pool, first, last, at = state.pool, state.first, state.last, state.at.copy()
    visited, table, chain = state.visited, state.table, state.chain
    trail_before, trail_op = state.trail_before, state.trail_op
    level, deepest, count, node_size = at[0], at[1], at[2], at[3]
    work = new_work(task, words, state.counters)
    work.counters[2] = 0
    work.counters[3] = 0
    lent_task, lent_work = lend(task), lend(work)
    nodes = new_nodes(node_size, width)
    none = new_nodes(1, width)
    observer = observers(task)
    total = len(task.rets)
    answer = NO
    if total == 0:
        answer, level = YES, -1
    while level >= 0:
        if last[level] == first[level]:
            level -= 1
            continue
        if work.counters[0] >= configurations:
            answer = OUT_OF_CONFIGURATIONS
            break
        row = last[level] - 1
        if count + 1 >= len(visited):
            if 2 * len(visited) > rows_max:
                answer = OUT_OF_ROWS
                break
            visited = larger(visited, count, 2 * len(visited))
            if len(chain) < len(visited):
                chain = longer(chain)
            table = rehash(visited, count, chain, core, width, 4 * len(visited))
        last[level] = row
        source, known, places, links = lend((pool, visited, table, chain))
        if not remember(source, row, level, known, count, places, links, core, width):
            continue
        count += 1
        made = np.int64(-1)
        while made < 0:
            spent, trail = work.counters[0], work.counters[1]
            out = lend(Nodes(pool, none.flags, none.table, none.chain, none.dead))
            before, op = lend((trail_before, trail_op))
            made = expand(
                lent_task, level, out.rows, row, row + 1, out, row + 1, 0, lend(nodes), lent_work, before, op,
                words, width,
            )  # fmt: skip
            if made >= 0:
                break
            work.counters[0], work.counters[1] = spent, trail
            if made == OUT_OF_NODES:
                if 4 * node_size > rows_max:
                    answer = OUT_OF_ROWS
                    break
                node_size *= 4
                nodes = new_nodes(node_size, width)
            elif made == OUT_OF_ROWS:
                if 2 * len(pool) > rows_max:
                    answer = OUT_OF_ROWS
                    break
                pool = larger(pool, row + 1, 2 * len(pool))
            elif made == OUT_OF_CONFIGURATIONS:
                answer = OUT_OF_CONFIGURATIONS
                break
            else:
                if 4 * len(trail_op) > trail_max:
                    answer = OUT_OF_TRAIL
                    break
                trail_before, trail_op = longer(trail_before), longer(trail_op)
        if made < 0:
            break
        if made == row + 1:
            continue
        if level + 1 == total:
            answer = YES
            for w in range(width + 1):
                pool[0, w] = pool[row + 1, w]
            deepest = total
            break
        promising_last(lent_task, observer[level + 1], pool, row + 1, made, width)
        level += 1
        first[level] = row + 1
        last[level] = made
        deepest = max(deepest, level)
    if answer == NO and task.stop[0] != 0:
        answer = OUT_OF_CONFIGURATIONS  # a row that was being expanded then, in this turn or before, is lost
    at[0], at[1], at[2], at[3] = level, deepest, count, node_size
    return answer, Deep(pool, first, last, visited, table, chain, at, work.counters, trail_before, trail_op)
