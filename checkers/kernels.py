"""The searches of `checkers.search`, written for numba: the same reductions, on rows of machine words.

Rules of this module
    1. Compiled only (`checkers.fast`): the arithmetic is that of uint64. `checkers.search` is the text to
       read; R1 to R6 are argued there and only named here.
    2. A configuration is a row: the state, the masks ``used`` and ``opt`` over slots (64 a word), counts of
       info operations (four of 15 bits a word, so that one subtraction compares all four), and last the
       number of its trail, which is no part of its identity.
    3. Nothing grows without a bound: a search that would need more than its budget of configurations or
       rows gives up and says at which level.

Theory of operation
    `levels` gives returns in order, slots, and for each level what is pending. `expand` takes rows of one
    level to rows of the next one, as `Searcher.expand` does. The two orders of search stand in
    `checkers.kernel_orders`. Each row that is made gets a trail entry (the trail before it, the
    level and operation put in), from which a yes is replayed and verified.
"""

# Kernels take flat columns one by one, and numba wants every integer's width said.
# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917, SIM110
# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from checkers.kernel_rows import dominated, insert, longer, lowest

PURE, OVERWRITE = 0, 1
NEVER = 1 << 62
ONE = np.uint64(1)

YES, NO, OUT_OF_CONFIGURATIONS, OUT_OF_ROWS, OUT_OF_TRAIL, OUT_OF_NODES = 1, 0, -1, -2, -3, -4

#: The rows of the masks of what is pending.
PURES, OVERWRITES, ALL = 0, 1, 2

#: What a kind does: the table says it, or it is a register's.
BY_TABLE, READS, WRITES, CAS, DIFFERS = 0, 1, 2, 3, 4

RECENT_LEVELS, RECENT_STATES = 256, 8

_Array = Any


class Task(NamedTuple):
    """One problem as the kernels see it; `levels` makes the first five, `checkers.compiled_search` the rest.

    Whoever sets ``stop[0]``, from another thread, ends what runs: a level can take longer than all the time there is.
    """

    rets: _Array
    slot: _Array
    start: _Array
    pending: _Array
    ret: _Array
    kind: _Array
    effect: _Array
    table: _Array
    code: _Array
    info_kind: _Array
    info_start: _Array
    info_call: _Array
    info_place: _Array
    stop: _Array


class Work(NamedTuple):
    """Room to work in, and ``counters``.

    These are: configurations expanded, trail entries, stamp of the node table, stamp of ``best`` and ``watched``.
    """

    scratch: _Array
    best: _Array
    stamps: _Array
    watched: _Array
    masks: _Array
    holder: _Array
    counters: _Array


@njit(cache=True, nogil=True)
def new_work(task: Any, words: int, counters: _Array) -> Any:
    """Room to work in, with counters that go on from these."""
    return Work(
        np.empty(64 * words + len(task.info_kind) + 1, np.int64),
        np.full((len(task.effect), 2), -1, np.int64),
        np.zeros(len(task.effect), np.int64),
        np.zeros(len(task.effect), np.int64),
        np.zeros((3, words), np.uint64),
        np.zeros(64 * words, np.int64),
        counters.copy(),
    )


@njit(cache=True, nogil=True)
def levels(call: _Array, ret: _Array, rets: _Array) -> Any:
    """Slots, their number, and what is pending at each level (CSR, by call); ``rets`` are returning places in order."""
    n = len(call)
    answered = len(rets)
    slot = np.full(n, -1, np.int64)
    free = np.empty(answered + 1, np.int64)
    window = np.empty(answered + 1, np.int64)
    start = np.zeros(answered + 1, np.int64)
    pending = np.empty(max(16, 4 * answered), np.int64)
    free_count = 0
    slots = 0
    width = 0
    upcoming = 0
    for level in range(answered):
        returning = rets[level]
        while upcoming < n and call[upcoming] < ret[returning]:
            if ret[upcoming] < NEVER:
                if free_count > 0:
                    free_count -= 1
                    slot[upcoming] = free[free_count]
                else:
                    slot[upcoming] = slots
                    slots += 1
                window[width] = upcoming
                width += 1
            upcoming += 1
        end = start[level] + width
        while end > len(pending):
            pending = longer(pending)
        kept = 0
        for w in range(width):
            pending[start[level] + w] = window[w]
            if window[w] != returning:
                window[kept] = window[w]
                kept += 1
        width = kept
        start[level + 1] = end
        free[free_count] = slot[returning]
        free_count += 1
    return slot, slots, start, pending


@njit(cache=True, nogil=True)
def after(table: _Array, code: _Array, kind: Any, state: Any) -> Any:
    """The state after an operation of that kind, -1 where it is illegal.

    ``code[kind]`` is READS a, WRITES a, CAS a to b or DIFFERS from a; or `BY_TABLE`.
    """
    what = code[kind, 0]
    if what == BY_TABLE:
        return np.int64(table[kind, state])
    if what == WRITES:
        return code[kind, 1]
    if what == CAS:
        return code[kind, 2] if state == code[kind, 1] else np.int64(-1)
    if (state == code[kind, 1]) != (what == DIFFERS):
        return state
    return np.int64(-1)


@njit(cache=True, nogil=True)
def window(
    masks: _Array, holder: _Array, words: int, pending: _Array, p0: int, p1: int, slot: _Array, kind: _Array,
    effect: _Array,
) -> None:  # fmt: skip
    """The slots of what is pending: of pure operations, of overwrites, of all; and the kind in each of them."""
    for w in range(words):
        masks[PURES, w] = 0
        masks[OVERWRITES, w] = 0
        masks[ALL, w] = 0
    for p in range(p0, p1):
        x = pending[p]
        bit = ONE << np.uint64(slot[x] & 63)
        masks[ALL, slot[x] >> 6] |= bit
        if effect[kind[x]] == PURE:
            masks[PURES, slot[x] >> 6] |= bit
        elif effect[kind[x]] == OVERWRITE:
            masks[OVERWRITES, slot[x] >> 6] |= bit
        holder[slot[x]] = x


@njit(cache=True, nogil=True)
def settle(
    rows: _Array, row: int, words: int, masks: _Array, holder: _Array, kind: _Array, table: _Array, code: _Array,
) -> bool:  # fmt: skip
    """R1 and R4; whether a pure operation went in."""
    state = np.int64(rows[row, 0])
    observed = False
    for w in range(words):
        opt = rows[row, 1 + words + w]
        left = masks[ALL, w] & ~rows[row, 1 + w] & ~(opt & masks[OVERWRITES, w])
        while left != 0:
            place = lowest(left)
            bit = ONE << place
            left ^= bit
            if after(table, code, kind[holder[64 * w + np.int64(place)]], state) == state:
                if masks[PURES, w] & bit != 0:
                    rows[row, 1 + w] |= bit
                    observed = True
                else:
                    rows[row, 1 + words + w] |= bit
    return observed


@njit(cache=True, nogil=True)
def absorb(rows: _Array, row: int, words: int, masks: _Array) -> bool:
    """R3; whether something became optional."""
    changed = False
    for w in range(words):
        fresh = masks[OVERWRITES, w] & ~(rows[row, 1 + w] | rows[row, 1 + words + w])
        if fresh != 0:
            rows[row, 1 + words + w] |= fresh
            changed = True
    return changed


@njit(cache=True, nogil=True)
def wanted(state: Any, watchers: _Array, count: int, table: _Array, code: _Array) -> bool:
    """R5."""
    for n in range(count):
        if after(table, code, watchers[n], state) >= 0:
            return True
    return False


@njit(cache=True, nogil=True)
def emit(
    source: _Array, row: int, out: _Array, first: int, count: int, words: int, core: int, width: int, sw: int,
    bit: Any, table: _Array, stamp: int, chain: _Array, dead: _Array, pure: _Array,
) -> int:  # fmt: skip
    """Passes a row to the next level, without the slot that was returned; how many there are then."""
    for w in range(width + 1):
        out[count, w] = source[row, w]
    out[count, sw] &= ~bit
    out[count, sw + words] &= ~bit
    if dominated(out, first, count, words, core, width, pure, dead, stamp != 0):
        return count
    if stamp == 0 or insert(out, count, table, stamp, core, width, chain, dead):
        return count + 1
    return count


@njit(cache=True, nogil=True)
def candidates(
    rows: _Array, row: int, words: int, masks: _Array, holder: _Array, ret: _Array, kind: _Array, effect: _Array,
    scratch: _Array, best: _Array, stamps: _Array, watched: _Array, mark: int,
) -> int:  # fmt: skip
    """R2 and R5: the best operation of each kind, and the kinds that wait to see something; how many these are.

    ``best[kind, 0]`` is of those that are not optional, ``best[kind, 1]`` of those that are, where ``stamps[kind]`` is
    the mark.
    """
    watching = 0
    for w in range(words):
        left = masks[ALL, w] & ~rows[row, 1 + w]
        while left != 0:
            place = lowest(left)
            bit = ONE << place
            left ^= bit
            x = holder[64 * w + np.int64(place)]
            k = kind[x]
            if effect[k] != OVERWRITE and watched[k] != mark:
                watched[k] = mark
                scratch[watching] = k
                watching += 1
            if masks[PURES, w] & bit != 0:
                continue
            o = 1 if effect[k] != OVERWRITE and rows[row, 1 + words + w] & bit != 0 else 0
            if stamps[k] != mark:
                stamps[k] = mark
                best[k, 0] = -1
                best[k, 1] = -1
            if best[k, o] < 0 or ret[x] < ret[best[k, o]]:
                best[k, o] = x
    return watching


@njit(cache=True, nogil=True)
def expand(
    task: Any, level: int, source: _Array, r0: int, r1: int, into: Any, first: int, out_stamp: int, nodes_: Any,
    work: Any, trail_before: _Array, trail_op: _Array, words: int, width: int,
) -> int:  # fmt: skip
    """The rows at the next level into ``into`` from ``first``; their end, or what ran out."""
    # Taken out of the tuples once: each look into one counts references.
    (
        rets,
        slot,
        start,
        pending,
        ret,
        kind,
        effect,
        table,
        code,
        info_kind,
        info_start,
        info_call,
        info_place,
        stop,
    ) = task
    out, _, out_table, out_chain, out_dead = into
    nodes, flags, node_table, node_chain, node_dead = nodes_
    scratch, best, stamps, watched, masks, holder, counters = work
    pure = masks[PURES]
    core = 1 + 2 * words
    returning = rets[level]
    horizon = ret[returning]
    sw = 1 + (slot[returning] >> 6)
    rbit = ONE << np.uint64(slot[returning] & 63)
    p0, p1 = start[level], start[level + 1]
    room = min(len(nodes), len(node_table) // 2) - 1
    out_room = len(out) - 2
    if out_stamp != 0:
        out_room = min(out_room, len(out_table) // 2 - 2)
    window(masks, holder, words, pending, p0, p1, slot, kind, effect)
    counters[2] += 1
    stamp = counters[2]
    count = first
    n = 0
    for row in range(r0, r1):
        if n >= room:
            return OUT_OF_NODES
        for w in range(width + 1):
            nodes[n, w] = source[row, w]
        if source[row, sw] & rbit == 0:
            settle(nodes, n, words, masks, holder, kind, table, code)
        if insert(nodes, n, node_table, stamp, core, width, node_chain, node_dead):
            flags[n] = 2
            n += 1
    at = -1
    while at + 1 < n:
        at += 1
        if stop[0] != 0:
            return OUT_OF_CONFIGURATIONS
        if node_dead[at] != 0:
            continue
        done = nodes[at, sw] & rbit != 0
        if done or (flags[at] & 2 != 0 and nodes[at, sw + words] & rbit != 0):
            if count >= out_room:
                return OUT_OF_ROWS
            count = emit(
                nodes, at, out, first, count, words, core, width, sw, rbit, out_table, out_stamp, out_chain,
                out_dead, pure,
            )  # fmt: skip
            if done:
                continue
        counters[0] += 1
        state = np.int64(nodes[at, 0])
        unseen = flags[at] & 1 != 0
        counters[3] += 1
        mark = counters[3]
        watching = candidates(
            nodes, at, words, masks, holder, ret, kind, effect, scratch, best, stamps, watched, mark
        )
        for i in range(len(info_kind)):
            k = info_kind[i]
            used = np.int64((nodes[at, core + (i >> 2)] >> np.uint64(16 * (i & 3))) & np.uint64(0x7FFF))
            place = info_start[i] + used
            if effect[k] != OVERWRITE and place < info_start[i + 1] and info_call[place] < horizon:
                scratch[watching] = k
                watching += 1
        for m in range(p0, p1 + len(info_kind)):
            w = 0
            bit = np.uint64(0)
            i = m - p1
            used = np.int64(0)
            if m < p1:
                x = pending[m]
                w = 1 + (slot[x] >> 6)
                bit = ONE << np.uint64(slot[x] & 63)
                k = kind[x]
                if nodes[at, w] & bit != 0 or effect[k] == PURE:
                    continue
                if best[k, 0] != x and best[k, 1] != x:
                    continue
                if best[k, 1] == x and best[k, 0] >= 0 and ret[best[k, 0]] < ret[x]:
                    continue
            else:
                k = info_kind[i]
                used = np.int64((nodes[at, core + (i >> 2)] >> np.uint64(16 * (i & 3))) & np.uint64(0x7FFF))
                place = info_start[i] + used
                if place >= info_start[i + 1] or info_call[place] >= horizon or stamps[k] == mark:
                    continue
                x = info_place[place]
            wrote = effect[k] == OVERWRITE
            then = np.int64(after(table, code, k, state))
            if then < 0 or (wrote and unseen):
                continue
            waits = (wrote and x != returning) or m >= p1
            if waits and not wanted(then, scratch, watching, table, code):
                continue
            if n >= room:
                return OUT_OF_NODES
            for w2 in range(width + 1):
                nodes[n, w2] = nodes[at, w2]
            nodes[n, 0] = np.uint64(then)
            if m < p1:
                nodes[n, w] |= bit
                nodes[n, w + words] &= ~bit
            absorbed = wrote and absorb(nodes, n, words, masks)
            if waits and then == state and not absorbed:
                continue
            if m >= p1:
                nodes[n, core + (i >> 2)] += ONE << np.uint64(16 * (i & 3))
            if counters[1] >= len(trail_op):
                return OUT_OF_TRAIL
            trail_before[counters[1]] = np.int64(nodes[at, width])
            trail_op[counters[1]] = level * len(ret) + x
            nodes[n, width] = np.uint64(counters[1])
            counters[1] += 1
            # With the returning operation in, it only waits to be passed on.
            observed = x != returning and settle(nodes, n, words, masks, holder, kind, table, code)
            if insert(nodes, n, node_table, stamp, core, width, node_chain, node_dead):
                flags[n] = 1 if wrote and not observed else 0
                n += 1
    return count
