"""Configurations as rows of machine words, found again by their hash: what `checkers.kernels` works on.

Rules of this module
    1. Those of `checkers.kernels`.
    2. Arrays that a loop hands to kernels again and again are lent (`lend`): numba counts the references to whatever is
       passed, locked, and a level of a search takes thirty arrays. What is lent does not live on its own: whoever lends
       holds the owner by a variable that is read later, too, or is its caller's.
"""

# ruff: noqa: FBT001, PLR0913, PLR0917, SIM110
# mypy: disable-error-code="misc,no-untyped-call"

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

SIGNS = np.uint64(0x8000800080008000)

#: With how many other configurations of its level one is compared by R6.
DOMINANCE_MAX = 256

_Array = Any


class Nodes(NamedTuple):
    """Rows of one level with their index (R6); ``flags`` is not used where they only wait for the next one."""

    rows: _Array
    flags: _Array
    table: _Array
    chain: _Array
    dead: _Array


def _lend(_typing: Any, arrays: Any) -> Any:
    """The same tuple of arrays, without a share in who keeps them alive (rule 2)."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        found = []
        for place, one in enumerate(kind.types):
            array = context.make_array(one)(context, builder, value=builder.extract_value(args[0], place))
            array.meminfo = cgutils.get_null_value(array.meminfo.type)
            array.parent = cgutils.get_null_value(array.parent.type)
            found.append(array._getvalue())  # noqa: SLF001  (so numba itself reads what it built)
        return context.make_tuple(builder, kind, found)

    return arrays(arrays), generate


def _lowest(_typing: Any, word: Any) -> Any:
    """The number of the lowest bit set in a word that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.true_bit)

    return word(word), generate


lend: Any = intrinsic(_lend)
lowest: Any = intrinsic(_lowest)


@njit(cache=True, nogil=True)
def new_nodes(size: int, width: int) -> Any:
    """Room for that many rows."""
    return Nodes(
        np.zeros((size, width + 1), np.uint64),
        np.zeros(size, np.uint8),
        np.zeros(4 * size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.uint8),
    )


@njit(cache=True, nogil=True)
def longer(column: _Array) -> _Array:
    """The column with four times the room."""
    # A loop: assigning slices would have numba compile the text of the error for unequal lengths, for seconds.
    more = np.empty(4 * len(column), np.int64)
    for place in range(len(column)):
        more[place] = column[place]
    return more


@njit(cache=True, nogil=True)
def larger(rows: _Array, count: int, size: int) -> _Array:
    """The first rows, with room for more."""
    more = np.zeros((size, rows.shape[1]), np.uint64)
    for row in range(count):
        for w in range(rows.shape[1]):
            more[row, w] = rows[row, w]
    return more


@njit(cache=True, nogil=True)
def mixed(h: Any) -> Any:
    """The finalizer of MurmurHash3."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(cache=True, nogil=True)
def core_hash(rows: _Array, row: int, core: int, seed: Any) -> Any:
    """Hash of the first words of a row."""
    h = seed
    for w in range(core):
        h = mixed(h ^ rows[row, w]) + np.uint64(0x632BE59BD9B4E019)
    return h


@njit(cache=True, nogil=True)
def at_most(rows: _Array, one: int, others: _Array, other: int, core: int, width: int) -> bool:
    """Whether the info counts of one row are at most those of another one."""
    for w in range(core, width):
        if ((others[other, w] | SIGNS) - rows[one, w]) & SIGNS != SIGNS:
            return False
    return True


@njit(cache=True, nogil=True)
def insert(
    rows: _Array, row: int, table: _Array, stamp: int, core: int, width: int, chain: _Array, dead: _Array
) -> bool:
    """R6: whether the row is new among those of this stamp; those that it dominates are marked dead."""
    mask = len(table) - 1
    place = np.int64(core_hash(rows, row, core, np.uint64(0x9E3779B97F4A7C15)) & np.uint64(mask))
    while True:
        entry = table[place]
        if (entry >> 32) != stamp:
            table[place] = (stamp << 32) | (row + 1)
            chain[row] = -1
            dead[row] = 0
            return True
        first = (entry & 0xFFFFFFFF) - 1
        same = True
        for w in range(core):
            if rows[first, w] != rows[row, w]:
                same = False
                break
        if same:
            break
        place = (place + 1) & mask
    e = first
    while e >= 0:
        if at_most(rows, e, rows, row, core, width):
            return False
        e = chain[e]
    e = first
    while e >= 0:
        if at_most(rows, row, rows, e, core, width):
            dead[e] = 1
        e = chain[e]
    chain[row] = chain[first]
    chain[first] = row
    dead[row] = 0
    return True


@njit(cache=True, nogil=True)
def dominated(
    rows: _Array,
    first: int,
    row: int,
    words: int,
    core: int,
    width: int,
    pure: _Array,
    dead: _Array,
    marks: bool,
) -> bool:
    """R6 across masks, against the last rows only; with ``marks``, those that the row dominates die."""
    for e in range(max(first, row - DOMINANCE_MAX), row):
        if rows[e, 0] != rows[row, 0] or (marks and dead[e] != 0):
            continue
        below, above = True, True
        for w in range(1, 1 + words):
            differs = (rows[e, w] ^ rows[row, w]) | (rows[e, w + words] ^ rows[row, w + words])
            read = pure[w - 1]
            below = below and differs & ~(rows[e, w + words] | (rows[e, w] & read)) == 0
            above = above and differs & ~(rows[row, w + words] | (rows[row, w] & read)) == 0
            if not below and not above:
                break
        if below and at_most(rows, e, rows, row, core, width):
            return True
        if marks and above and at_most(rows, row, rows, e, core, width):
            dead[e] = 1
    return False
