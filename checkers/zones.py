"""Registers whose values are written once: linearizability in nearly linear time, for all keys at once.

Rules of this module
    1. Input: reads, writes and compare-and-sets, where no two operations of a key write the same value and
       nobody writes the initial one. A key that does not fit is `NOT_UNIQUE`, for the general search.
    2. The kernels are plain loops over sequences of integers. They run as they are on lists, and compiled
       by numba on arrays (`checkers.fast`); so they use nothing but arithmetic, indexing and loops.
    3. A yes comes with an order that `check_order` verifies; a no names the operations that clash.

Theory of operation (Gibbons and Korach 1997, with compare-and-set and info operations)
    1. Info operations whose value nobody saw are dropped (the argument is in `checkers.problem`). The other
       info operations took effect; they return at infinity.
    2. A *block* is a write, the reads of its value, the cas from that value, the reads of the new value,
       and so on. The value is written once, so whoever saw it comes before the next write: in every
       linearization a block is contiguous, and its inner order is forced but for reads of one value,
       which go by their calls. Two cas from one value, a circle of cas, or a value that nobody wrote
       are violations. The initial value is a write before everything.
    3. Inside a block let M be the latest call so far; everything later in the block must return after M.
    4. Block A must come before block B iff something in A returns before something in B is called: iff
       f_A < s_B with f the first return and s the last call of a block. An order of blocks that respects
       this exists iff there is no cycle, and a cycle implies one of two blocks: let m have the smallest f
       on the cycle; every x on it has a predecessor p with f_m <= f_p < s_x, so m comes before all of
       them, also before its own predecessor.
    5. f_A < s_B and f_B < s_A for two blocks says: two forward zones [f, s] overlap, or a backward zone
       [s, f] lies inside a forward one. One sweep by min(f, s) finds either, since forward zones seen so
       far are disjoint and only the last can reach further. The same order of blocks is a linearization.
    6. A refused cas ("the value differed from x") is left out above, which can only hide violations.
       Afterwards each is put into the order found, at the first moment between its call and its return at
       which the value is another one. If that fails for one, another order might do: `UNPLACED`, for the
       general search.
"""

# Kernels take flat columns one by one, since that is what numba compiles.
# ruff: noqa: C901, PLR0912, PLR0913, PLR0915, PLR0917

from __future__ import annotations

from typing import Any

READ, WRITE, CAS, DIFFERS = 0, 1, 2, 3
NEVER = 1 << 62

#: What is found for a key.
FITS, NOT_UNIQUE, VIOLATION, UNPLACED = 0, 1, 2, 3

#: Why a key is a VIOLATION.
UNWRITTEN, BEFORE_CALL, TWO_CAS, CAS_CIRCLE, OVERLAP, INSIDE = 1, 2, 3, 4, 5, 6

_Ints = Any


def gather(
    f: _Ints,
    a: _Ints,
    b: _Ints,
    call: _Ints,
    ret: _Ints,
    value_key: _Ints,
    initial: _Ints,
    status: _Ints,
    writer: _Ints,
    reads: _Ints,
    first_ret: _Ints,
    last_call: _Ints,
    observed: _Ints,
) -> int:
    """Step 1: writers, readers and observed values; marks keys `NOT_UNIQUE`. Returns 0."""
    for i in range(len(f)):
        what = f[i]
        if what == READ:
            v = a[i]
            if ret[i] < NEVER and v >= 0:
                reads[v] += 1
                observed[v] = 1
                first_ret[v] = min(first_ret[v], ret[i])
                last_call[v] = max(last_call[v], call[i])
        elif what != DIFFERS:
            v = a[i] if what == WRITE else b[i]
            if initial[v] or writer[v] >= 0:
                status[value_key[v]] = NOT_UNIQUE
            writer[v] = i
            if what == CAS and ret[i] < NEVER:
                observed[a[i]] = 1
    for i in range(len(f)):
        if f[i] == CAS and ret[i] >= NEVER and observed[b[i]] and status[value_key[b[i]]] == FITS:
            x = i
            # Each step marks a value, so the walk is bounded by the number of values.
            while f[x] == CAS and ret[x] >= NEVER and not observed[a[x]]:
                observed[a[x]] = 1
                if writer[a[x]] < 0:
                    break
                x = writer[a[x]]
    return 0


def chain(
    f: _Ints,
    a: _Ints,
    b: _Ints,
    ret: _Ints,
    value_key: _Ints,
    initial: _Ints,
    status: _Ints,
    writer: _Ints,
    observed: _Ints,
    successor: _Ints,
    clash: _Ints,
) -> int:
    """Step 2: the cas from each value; marks violations in ``clash[3 * key:] = reason, value, value``.

    Returns 0. The second value is -1 where there is only one.
    """
    for i in range(len(f)):
        if f[i] != CAS or (ret[i] >= NEVER and not observed[b[i]]):
            continue
        v = a[i]
        key = value_key[v]
        if status[key] != FITS:
            continue
        if writer[v] < 0 and not initial[v]:
            status[key] = VIOLATION
            clash[3 * key] = UNWRITTEN
            clash[3 * key + 1] = v
            clash[3 * key + 2] = -1
        elif successor[v] >= 0:
            status[key] = VIOLATION
            clash[3 * key] = TWO_CAS
            clash[3 * key + 1] = b[successor[v]]
            clash[3 * key + 2] = b[i]
        successor[v] = i
    return 0


def blocks(
    f: _Ints,
    b: _Ints,
    call: _Ints,
    ret: _Ints,
    value_key: _Ints,
    initial: _Ints,
    status: _Ints,
    writer: _Ints,
    reads: _Ints,
    first_ret: _Ints,
    last_call: _Ints,
    observed: _Ints,
    successor: _Ints,
    seen: _Ints,
    zone_f: _Ints,
    zone_s: _Ints,
    zone_root: _Ints,
    clash: _Ints,
) -> int:
    """Steps 2 and 3: one zone for each block. Returns their number.

    ``clash`` of BEFORE_CALL is the value whose group returns too early and the root of its block.
    """
    count = 0
    for v in range(len(writer)):
        key = value_key[v]
        if status[key] != FITS:
            continue
        w = writer[v]
        low = NEVER
        high = -1
        if w < 0:
            if not initial[v]:
                if reads[v] > 0:
                    status[key] = VIOLATION
                    clash[3 * key] = UNWRITTEN
                    clash[3 * key + 1] = v
                    clash[3 * key + 2] = -1
                seen[v] = 1
                continue
            low = -1
        else:
            if ret[w] >= NEVER and not observed[v]:
                seen[v] = 1
                continue
            if f[w] == CAS:
                continue
            low = ret[w]
            high = call[w]
        u = v
        while status[key] == FITS:
            seen[u] = 1
            if reads[u] > 0:
                if first_ret[u] < high:
                    status[key] = VIOLATION
                low = min(low, first_ret[u])
                high = max(high, last_call[u])
            x = successor[u]
            if status[key] != FITS or x < 0:
                break
            if ret[x] < high:
                status[key] = VIOLATION
            low = min(low, ret[x])
            high = max(high, call[x])
            u = b[x]
        if status[key] != FITS:
            clash[3 * key] = BEFORE_CALL
            clash[3 * key + 1] = u
            clash[3 * key + 2] = v
            continue
        zone_f[count] = low
        zone_s[count] = high
        zone_root[count] = v
        count += 1
    for v in range(len(writer)):
        key = value_key[v]
        if status[key] == FITS and not seen[v]:
            status[key] = VIOLATION
            clash[3 * key] = CAS_CIRCLE
            clash[3 * key + 1] = v
            clash[3 * key + 2] = -1
    return count


def sweep(
    order: _Ints,
    zone_f: _Ints,
    zone_s: _Ints,
    zone_root: _Ints,
    value_key: _Ints,
    status: _Ints,
    reach: _Ints,
    clash: _Ints,
) -> int:
    """Step 5: over the zones of all keys by min(f, s). ``reach[key]`` is the last forward zone or -1.

    ``clash`` is the roots of the two blocks.
    """
    for at in range(len(order)):
        z = order[at]
        key = value_key[zone_root[z]]
        if status[key] != FITS:
            continue
        last = reach[key]
        if last >= 0 and zone_f[z] < zone_s[last]:
            status[key] = VIOLATION
            clash[3 * key] = OVERLAP if zone_f[z] < zone_s[z] else INSIDE
            clash[3 * key + 1] = zone_root[last]
            clash[3 * key + 2] = zone_root[z]
        elif zone_f[z] < zone_s[z]:
            reach[key] = z
    return 0


def lay_out(
    order: _Ints,
    zone_root: _Ints,
    b: _Ints,
    value_key: _Ints,
    status: _Ints,
    writer: _Ints,
    successor: _Ints,
    read_start: _Ints,
    read_list: _Ints,
    out: _Ints,
) -> int:
    """The order of step 5: places of operations, block after block, into ``out``. Returns their number.

    ``read_list[read_start[v]:read_start[v + 1]]`` are the reads of value v by their calls.
    """
    n = 0
    for at in range(len(order)):
        v = zone_root[order[at]]
        if status[value_key[v]] != FITS:
            continue
        if writer[v] >= 0:
            out[n] = writer[v]
            n += 1
        while True:
            for r in range(read_start[v], read_start[v + 1]):
                out[n] = read_list[r]
                n += 1
            x = successor[v]
            if x < 0:
                break
            out[n] = x
            n += 1
            v = b[x]
    return n


def check_order(
    out: _Ints,
    f: _Ints,
    a: _Ints,
    b: _Ints,
    call: _Ints,
    ret: _Ints,
    key: _Ints,
    status: _Ints,
    value: _Ints,
    latest: _Ints,
    used: _Ints,
) -> int:
    """Rule 3: verifies the order from nothing but the operations; 0 if it holds, else -1 - place.

    ``value[key]`` starts as the initial value of the key, ``latest[key]`` as -1, ``used`` as zeros.
    """
    for at in range(len(out)):
        i = out[at]
        k = key[i]
        if status[k] != FITS:
            continue
        if used[i] or ret[i] < latest[k]:
            return -1 - int(i)
        used[i] = 1
        latest[k] = max(latest[k], call[i])
        if f[i] != WRITE and (value[k] != a[i]) != (f[i] == DIFFERS):
            return -1 - int(i)
        if f[i] == WRITE:
            value[k] = a[i]
        elif f[i] == CAS:
            value[k] = b[i]
    for i in range(len(f)):
        silent = f[i] == READ and a[i] < 0
        if status[key[i]] == FITS and ret[i] < NEVER and not used[i] and not silent:
            return -1 - i
    return 0


def index_reads(f: _Ints, a: _Ints, ret: _Ints, at: _Ints, read_list: _Ints) -> int:
    """Fills ``read_list`` by values; ``at[v]`` starts as the start of value v's part. Returns 0."""
    for i in range(len(f)):
        if f[i] == READ and a[i] >= 0 and ret[i] < NEVER:
            read_list[at[a[i]]] = i
            at[a[i]] += 1
    return 0


def locate(out: _Ints, key: _Ints, key_start: _Ints, position: _Ints) -> int:
    """Where each operation stands in the order of its key. Returns 0."""
    for at in range(len(out)):
        position[out[at]] = at - key_start[key[out[at]]]
    return 0


def bounds(
    refused: _Ints,
    by_ret: _Ints,
    position: _Ints,
    call: _Ints,
    ret: _Ints,
    key: _Ints,
    so_far: _Ints,
    after: _Ints,
) -> int:
    """Step 6: ``after[r]``, how many of its key's operations must come before the r-th refused cas.

    ``refused`` goes by call, ``by_ret`` by return; ``position[i]`` is the place in the key's order or -1;
    ``so_far[key]`` starts as 0.
    """
    at = 0
    for r in range(len(refused)):
        i = refused[r]
        while at < len(by_ret) and ret[by_ret[at]] < call[i]:
            j = by_ret[at]
            so_far[key[j]] = max(so_far[key[j]], position[j] + 1)
            at += 1
        after[r] = so_far[key[i]]
    return 0


def bounds_above(
    refused: _Ints,
    by_call: _Ints,
    position: _Ints,
    call: _Ints,
    ret: _Ints,
    key: _Ints,
    so_far: _Ints,
    before: _Ints,
) -> int:
    """Step 6: ``before[r]``, how many of its key's operations may come before the r-th refused cas.

    ``refused`` numbers go by return, latest first, and so does ``by_call`` by call; ``so_far[key]`` starts
    as the number of the key's ordered operations. ``before`` goes like ``refused``.
    """
    at = 0
    for r in range(len(refused)):
        i = refused[r]
        while at < len(by_call) and call[by_call[at]] > ret[i]:
            j = by_call[at]
            if position[j] >= 0 and position[j] < so_far[key[j]]:
                so_far[key[j]] = position[j]
            at += 1
        before[r] = so_far[key[i]]
    return 0


def place_refused(
    refused: _Ints,
    by_ret: _Ints,
    out: _Ints,
    key_start: _Ints,
    f: _Ints,
    a: _Ints,
    b: _Ints,
    call: _Ints,
    ret: _Ints,
    key: _Ints,
    status: _Ints,
    after: _Ints,
    before: _Ints,
    initial_value: _Ints,
    floor: _Ints,
    gap: _Ints,
) -> int:
    """Step 6: ``gap[r]`` is how many of the key's ordered operations come before the r-th refused cas.

    ``refused`` goes by call; ``by_ret`` holds its positions by return. A refused cas comes after those that
    returned before it was called: ``floor[key]``, at first 0, is the latest gap of these.
    ``out[key_start[k]:key_start[k + 1]]`` is the order of key k.
    """
    passed = 0
    for r in range(len(refused)):
        i = refused[r]
        k = key[i]
        while passed < len(by_ret) and ret[refused[by_ret[passed]]] < call[i]:
            q = by_ret[passed]
            floor[key[refused[q]]] = max(floor[key[refused[q]]], gap[q])
            passed += 1
        if status[k] != FITS:
            continue
        at = max(after[r], floor[k])
        found = -1
        while at <= before[r] and found < 0:
            value = initial_value[k]
            if at > 0:
                j = out[key_start[k] + at - 1]
                value = b[j] if f[j] == CAS else a[j]
            if value != a[i]:
                found = at
            at += 1
        if found < 0:
            status[k] = UNPLACED
        gap[r] = found
    return 0
