"""The two orders of search over `checkers.kernels.expand`: level by level, and deep first.

Rules of this module
    1. Those of `checkers.kernels`. `bfs` holds one level; `dfs` remembers every row by level.
    2. Buffers grow by factors up to their bound; what was half done when one was too small is done again.
"""

# ruff: noqa: C901, PLR0911, PLR0912, PLR0913, PLR0915, PLR0917
# mypy: disable-error-code="misc,arg-type,assignment,no-redef"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from checkers.kernels import (
    NO,
    OUT_OF_CONFIGURATIONS,
    OUT_OF_ROWS,
    OUT_OF_TRAIL,
    OVERWRITE,
    RECENT_LEVELS,
    RECENT_STATES,
    YES,
    after,
    at_most,
    core_hash,
    expand,
    mixed,
)

_Array = Any


@njit(cache=True, nogil=True)
def bfs(
    rets: _Array, slot: _Array, slots: int, start: _Array, pending: _Array, ret: _Array, kind: _Array,
    effect: _Array, table: _Array, code: _Array, initial: int, info_kind: _Array, info_start: _Array, info_call: _Array,
    info_place: _Array, configurations: int, rows_max: int, trail_max: int,
) -> Any:  # fmt: skip
    """Level by level: (answer, level, configurations, last trail, trail_before, trail_op, recent).

    ``recent`` holds pairs (level, state) of the last levels, of each at most `RECENT_STATES`.
    """
    words = max(1, (slots + 63) >> 6)
    width = 1 + 2 * words + ((len(info_kind) + 3) >> 2)
    size, node_size = 64, 64
    rows = np.zeros((size, width + 1), np.uint64)
    out = np.zeros((size, width + 1), np.uint64)
    out_table = np.zeros(4 * size, np.int64)
    out_chain = np.zeros(size, np.int64)
    out_dead = np.zeros(size, np.uint8)
    nodes = np.zeros((node_size, width + 1), np.uint64)
    flags = np.zeros(node_size, np.uint8)
    node_table = np.zeros(4 * node_size, np.int64)
    node_chain = np.zeros(node_size, np.int64)
    node_dead = np.zeros(node_size, np.uint8)
    trail_before = np.empty(1024, np.int64)
    trail_op = np.empty(1024, np.int64)
    scratch = np.empty(64 * words + len(info_kind) + 1, np.int64)
    best = np.full((len(effect), 2), -1, np.int64)
    stamps = np.zeros(len(effect), np.int64)
    counters = np.zeros(5, np.int64)
    counters[1] = configurations
    counters[2] = 1
    trail_before[0] = -1
    trail_op[0] = -1
    recent = np.full((RECENT_LEVELS * RECENT_STATES, 2), -1, np.int64)
    rows[0, 0] = np.uint64(initial)
    held = 1
    stamp = 0
    level: Any = np.int64(0)
    while level < len(rets):
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
        stamp += 1
        spent, trail = counters[0], counters[2]
        count = expand(
            level, rows, 0, held, out, 0, out_table, stamp, out_chain, out_dead, nodes, flags, node_table,
            node_chain, node_dead, rets, slot, start, pending, ret, kind, effect, table, code, info_kind, info_start,
            info_call, info_place, words, width, trail_before, trail_op, scratch, best, stamps, counters,
        )  # fmt: skip
        if count == OUT_OF_CONFIGURATIONS and counters[0] <= counters[1]:
            node_size *= 4
            if node_size > rows_max:
                return OUT_OF_ROWS, level, counters[0], 0, trail_before, trail_op, recent
            nodes = np.zeros((node_size, width + 1), np.uint64)
            flags = np.zeros(node_size, np.uint8)
            node_table = np.zeros(4 * node_size, np.int64)
            node_chain = np.zeros(node_size, np.int64)
            node_dead = np.zeros(node_size, np.uint8)
        elif count == OUT_OF_ROWS:
            size *= 4
            if size > rows_max:
                return OUT_OF_ROWS, level, counters[0], 0, trail_before, trail_op, recent
            larger = np.zeros((size, width + 1), np.uint64)
            larger[:held] = rows[:held]
            rows = larger
            out = np.zeros((size, width + 1), np.uint64)
            out_table = np.zeros(4 * size, np.int64)
            out_chain = np.zeros(size, np.int64)
            out_dead = np.zeros(size, np.uint8)
        elif count == OUT_OF_TRAIL:
            if 4 * len(trail_op) > trail_max:
                return OUT_OF_ROWS, level, counters[0], 0, trail_before, trail_op, recent
            longer = np.empty(4 * len(trail_op), np.int64)
            longer[: len(trail_op)] = trail_op
            trail_op = longer
            longer = np.empty(len(trail_op), np.int64)
            longer[: len(trail_before)] = trail_before
            trail_before = longer
        if count < 0:
            if counters[0] > counters[1]:
                return OUT_OF_CONFIGURATIONS, level, counters[0], 0, trail_before, trail_op, recent
            counters[0], counters[2] = spent, trail
            continue
        if count == 0:
            return NO, level, counters[0], 0, trail_before, trail_op, recent
        held = 0
        for row in range(count):
            if out_dead[row] == 0:
                for w in range(width + 1):
                    rows[held, w] = out[row, w]
                held += 1
        level += 1
    return YES, level, counters[0], np.int64(rows[0, width]), trail_before, trail_op, recent


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


@njit(cache=True, nogil=True)
def pairs(visited: _Array, count: int, width: int) -> _Array:
    """(level, state) of the rows visited."""
    found = np.empty((count, 2), np.int64)
    for e in range(count):
        found[e, 0] = np.int64(visited[e, width])
        found[e, 1] = np.int64(visited[e, 0])
    return found


@njit(cache=True, nogil=True)
def dfs(
    rets: _Array, slot: _Array, slots: int, start: _Array, pending: _Array, ret: _Array, kind: _Array,
    effect: _Array, table: _Array, code: _Array, initial: int, info_kind: _Array, info_start: _Array, info_call: _Array,
    info_place: _Array, configurations: int, rows_max: int, trail_max: int,
) -> Any:  # fmt: skip
    """Deep first: as `bfs`, but with the deepest level and with all levels and states as ``recent``."""
    words = max(1, (slots + 63) >> 6)
    core = 1 + 2 * words
    width = core + ((len(info_kind) + 3) >> 2)
    node_size = 64
    pool = np.zeros((256, width + 1), np.uint64)
    nodes = np.zeros((node_size, width + 1), np.uint64)
    flags = np.zeros(node_size, np.uint8)
    node_table = np.zeros(4 * node_size, np.int64)
    node_chain = np.zeros(node_size, np.int64)
    node_dead = np.zeros(node_size, np.uint8)
    none = np.zeros(2, np.int64)
    none_dead = np.zeros(2, np.uint8)
    trail_before = np.empty(1024, np.int64)
    trail_op = np.empty(1024, np.int64)
    scratch = np.empty(64 * words + len(info_kind) + 1, np.int64)
    best = np.full((len(effect), 2), -1, np.int64)
    stamps = np.zeros(len(effect), np.int64)
    counters = np.zeros(5, np.int64)
    counters[1] = configurations
    counters[2] = 1
    trail_before[0] = -1
    trail_op[0] = -1
    visited = np.zeros((256, width + 1), np.uint64)
    visited_table = np.zeros(1024, np.int64)
    visited_chain = np.zeros(256, np.int64)
    count = 0
    total = len(rets)
    if total == 0:
        return YES, 0, 0, 0, trail_before, trail_op, np.empty((0, 2), np.int64)
    # The kind of the next returning operation that is no overwrite, by level.
    observer = np.full(total + 1, -1, np.int64)
    for level in range(total - 1, -1, -1):
        k = kind[rets[level]]
        observer[level] = k if effect[k] != OVERWRITE else observer[level + 1]
    first = np.zeros(total + 2, np.int64)
    last = np.zeros(total + 2, np.int64)
    pool[0, 0] = np.uint64(initial)
    last[0] = 1
    level: Any = np.int64(0)
    deepest: Any = np.int64(0)
    while level >= 0:
        if last[level] == first[level]:
            level -= 1
            continue
        row = last[level] - 1
        last[level] = row
        if count + 1 >= len(visited):
            if 2 * len(visited) > rows_max:
                return (
                    OUT_OF_ROWS,
                    deepest,
                    counters[0],
                    0,
                    trail_before,
                    trail_op,
                    pairs(visited, count, width),
                )
            more = np.zeros((2 * len(visited), width + 1), np.uint64)
            more[:count] = visited[:count]
            visited = more
            longer = np.zeros(len(visited), np.int64)
            longer[:count] = visited_chain[:count]
            visited_chain = longer
            visited_table = rehash(visited, count, visited_chain, core, width, 4 * len(visited))
        if not remember(pool, row, level, visited, count, visited_table, visited_chain, core, width):
            continue
        count += 1
        made = np.int64(-1)
        while made < 0:
            spent, trail = counters[0], counters[2]
            made = expand(
                level, pool, row, row + 1, pool, row + 1, none, 0, none, none_dead, nodes, flags, node_table,
                node_chain, node_dead, rets, slot, start, pending, ret, kind, effect, table, code, info_kind,
                info_start, info_call, info_place, words, width, trail_before, trail_op, scratch, best, stamps,
                counters,
            )  # fmt: skip
            if made >= 0:
                break
            if counters[0] > counters[1]:
                return (
                    OUT_OF_CONFIGURATIONS,
                    deepest,
                    counters[0],
                    0,
                    trail_before,
                    trail_op,
                    pairs(visited, count, width),
                )
            if made == OUT_OF_CONFIGURATIONS:
                node_size *= 4
                if node_size > rows_max:
                    return (
                        OUT_OF_ROWS,
                        deepest,
                        counters[0],
                        0,
                        trail_before,
                        trail_op,
                        pairs(visited, count, width),
                    )
                nodes = np.zeros((node_size, width + 1), np.uint64)
                flags = np.zeros(node_size, np.uint8)
                node_table = np.zeros(4 * node_size, np.int64)
                node_chain = np.zeros(node_size, np.int64)
                node_dead = np.zeros(node_size, np.uint8)
            elif made == OUT_OF_ROWS:
                if 2 * len(pool) > rows_max:
                    return (
                        OUT_OF_ROWS,
                        deepest,
                        counters[0],
                        0,
                        trail_before,
                        trail_op,
                        pairs(visited, count, width),
                    )
                more = np.zeros((2 * len(pool), width + 1), np.uint64)
                more[: row + 1] = pool[: row + 1]
                pool = more
            else:
                if 4 * len(trail_op) > trail_max:
                    return (
                        OUT_OF_ROWS,
                        deepest,
                        counters[0],
                        0,
                        trail_before,
                        trail_op,
                        pairs(visited, count, width),
                    )
                longer = np.empty(4 * len(trail_op), np.int64)
                longer[: len(trail_op)] = trail_op
                trail_op = longer
                longer = np.empty(len(trail_op), np.int64)
                longer[: len(trail_before)] = trail_before
                trail_before = longer
            counters[0], counters[2] = spent, trail
        if made == row + 1:
            continue
        if level + 1 == total:
            return (
                YES,
                total,
                counters[0],
                np.int64(pool[row + 1, width]),
                trail_before,
                trail_op,
                pairs(visited, count, width),
            )
        # The most promising one is taken first, that is, stands last: where the next observer is possible.
        choice = row + 1
        if observer[level + 1] >= 0:
            for e in range(row + 1, made):
                if after(table, code, observer[level + 1], np.int64(pool[e, 0])) >= 0:
                    choice = e
                    break
        if choice != made - 1:
            for w in range(width + 1):
                swap = pool[choice, w]
                pool[choice, w] = pool[made - 1, w]
                pool[made - 1, w] = swap
        level += 1
        first[level] = row + 1
        last[level] = made
        deepest = max(deepest, level)
    return NO, deepest, counters[0], 0, trail_before, trail_op, pairs(visited, count, width)
