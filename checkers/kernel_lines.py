"""The lines of a ``jsonl`` history for numba: from bytes to columns, without making a value for each.

Rules of this module
    1. Compiled only (`checkers.fast`). It takes lines as `checkers.formats.encode_op` writes them: an object whose
       names are among those of `checkers.history.Op`, in any order, each at most once, without blanks.
    2. Whatever is not so (blanks, escapes where they matter, nested values other than ``[x,y]``) ends the scan with
       the place; the general reader then takes the whole file.

Theory of operation
    A *scalar* (a number, a string, null, true, false) is known by its bytes: equal bytes get one number from a hash
    table, and the place of the first one says what the number stands for. Different bytes may stand for one value
    (``1`` and ``1.0``); `checkers.line_columns` merges such numbers by decoding each distinct scalar that is no plain
    integer.
"""

# ruff: noqa: C901, PLR0911, PLR0912, PLR0915
# mypy: disable-error-code="misc"

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from checkers.kernel_rows import longer

_Array = Any

QUOTE, COMMA, COLON, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST, BACKSLASH, NEWLINE, MINUS = (
    34,
    44,
    58,
    123,
    125,
    91,
    93,
    92,
    10,
    45,
)

#: Numbers of the columns: first those of numbers (index, time_ns, process, revision),
#: then those of scalars (type, f, key, value, error, node, and the second half of a value).
INDEX, TIME, PROCESS, REVISION, TYPE, F, KEY, VALUE, ERROR, NODE, SECOND = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
COLUMNS = 11
ABSENT = -1
NOTE = -(1 << 61)


def _word(name: bytes) -> int:
    return int.from_bytes(name, "big")


#: Names as numbers, of their bytes.
_INDEX, _TIME, _PROCESS, _REVISION = map(_word, (b"index", b"time_ns", b"process", b"revision"))
_TYPE, _F, _KEY, _VALUE, _ERROR, _NODE = map(_word, (b"type", b"f", b"key", b"value", b"error", b"node"))


@njit(cache=True, nogil=True)
def name_column(word: int, size: int) -> int:
    """The column of the name of so many bytes, which make the number, -1 for none."""
    if size == 5:
        if word == _INDEX:
            return INDEX
        if word == _VALUE:
            return VALUE
        if word == _ERROR:
            return ERROR
    elif size == 7:
        if word == _TIME:
            return TIME
        if word == _PROCESS:
            return PROCESS
    elif size == 4:
        if word == _TYPE:
            return TYPE
        if word == _NODE:
            return NODE
    elif size == 1 and word == _F:
        return F
    elif size == 3 and word == _KEY:
        return KEY
    elif size == 8 and word == _REVISION:
        return REVISION
    return -1


@njit(cache=True, nogil=True)
def scalar_end(data: _Array, at: int) -> int:
    """Where the scalar that starts there ends, -1 where there is none or it has an escape."""
    if data[at] == QUOTE:
        at += 1
        while data[at] != QUOTE:
            if data[at] == BACKSLASH or data[at] == NEWLINE:
                return -1
            at += 1
        return at + 1
    start = at
    while data[at] not in (COMMA, CLOSE, CLOSE_LIST):
        byte = data[at]
        if byte in (QUOTE, OPEN, OPEN_LIST, NEWLINE, 32, 9, 13):
            return -1
        at += 1
    return at if at > start else -1


@njit(cache=True, nogil=True)
def integer(data: _Array, start: int, end: int) -> Any:
    """The plain integer between two places, or -1 << 62 where it is none or has more than 17 digits."""
    sign = 1
    if data[start] == MINUS:
        sign = -1
        start += 1
    if end - start > 17 or end == start:
        return -(1 << 62)
    if data[start] == 48 and (end - start > 1 or sign < 0):
        return -(1 << 62)
    value: Any = 0
    for at in range(start, end):
        digit = np.int64(data[at]) - 48
        if digit < 0 or digit > 9:
            return -(1 << 62)
        value = 10 * value + digit
    return sign * value


@njit(cache=True, nogil=True)
def intern(
    data: _Array, start: int, end: int, table: _Array, starts: _Array, ends: _Array, count: int
) -> int:
    """The number of these bytes; ``count`` itself where they are new, and then they are put into the table."""
    h = np.uint64(0xCBF29CE484222325)
    for at in range(start, end):
        h = (h ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
    h ^= h >> np.uint64(32)
    mask = len(table) - 1
    place = np.int64(h & np.uint64(mask))
    while table[place] != 0:
        number = table[place] - 1
        if ends[number] - starts[number] == end - start:
            same = True
            for at in range(end - start):
                if data[starts[number] + at] != data[start + at]:
                    same = False
                    break
            if same:
                return int(number)
        place = (place + 1) & mask
    table[place] = count + 1
    starts[count] = start
    ends[count] = end
    return count


@njit(cache=True, nogil=True)
def grown(data: _Array, starts: _Array, ends: _Array, count: int) -> _Array:
    """A table of four times the room."""
    table = np.zeros(16 * len(starts), np.int64)
    mask = len(table) - 1
    for number in range(count):
        h = np.uint64(0xCBF29CE484222325)
        for at in range(starts[number], ends[number]):
            h = (h ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        h ^= h >> np.uint64(32)
        place = np.int64(h & np.uint64(mask))
        while table[place] != 0:
            place = (place + 1) & mask
        table[place] = number + 1
    return table


@njit(cache=True, nogil=True)
def scan(data: _Array, at: int, lines: int) -> Any:
    """(lines read, columns, starts, ends): a row of numbers for each line, and where the distinct scalars stand.

    Index, time, process and revision are numbers themselves where they are plain integers. Others are numbers of
    scalars.
    A value ``[x,y]`` puts y into the column `SECOND`. The lines read are -1 - n where line n is not as it should be.
    """
    columns = np.full((COLUMNS, lines), np.int64(ABSENT), np.int64)
    where = np.zeros(lines, np.int64)
    starts, ends = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
    table = np.zeros(4096, np.int64)
    count = 0
    line = 0
    size = len(data)
    while at < size:
        if line >= lines or data[at] != OPEN:
            return -1 - line, columns, where, starts, ends, count
        where[line] = at
        while True:
            at += 1
            if data[at] != QUOTE:
                return -1 - line, columns, where, starts, ends, count
            start = at + 1
            at = start
            word: Any = np.int64(0)  # of its last eight bytes, which are all in a name of ours
            while data[at] != QUOTE and data[at] != NEWLINE:
                word = (word << 8) | np.int64(data[at])
                at += 1
            column = name_column(word, at - start)
            if column < 0 or data[at] != QUOTE or data[at + 1] != COLON or columns[column, line] != ABSENT:
                return -1 - line, columns, where, starts, ends, count
            at += 2
            pair = data[at] == OPEN_LIST and column == VALUE
            for part in range(2 if pair else 1):
                if pair:
                    at += 1
                end = scalar_end(data, at)
                if end < 0 or (pair and data[end] != (COMMA if part == 0 else CLOSE_LIST)):
                    return -1 - line, columns, where, starts, ends, count
                if column <= REVISION:
                    number = integer(data, at, end)
                    if number == -(1 << 62) and column == PROCESS and data[at] == QUOTE:
                        number = NOTE
                    if number == -(1 << 62):
                        return -1 - line, columns, where, starts, ends, count
                else:
                    if 2 * count >= len(starts):
                        starts, ends = longer(starts), longer(ends)
                        table = grown(data, starts, ends, count)
                    number = intern(data, at, end, table, starts, ends, count)
                    if number == count:
                        count += 1
                columns[SECOND if part == 1 else column, line] = number
                at = end
            if column == PROCESS and number == NOTE:
                # The rest of a note may be anything; whoever takes the columns decodes the line.
                while data[at] != NEWLINE:
                    at += 1
                at -= 1
                break
            if pair:
                at += 1
            if data[at] == CLOSE:
                break
            if data[at] != COMMA:
                return -1 - line, columns, where, starts, ends, count
        at += 1
        if data[at] != NEWLINE:
            return -1 - line, columns, where, starts, ends, count
        at += 1
        line += 1
    return line, columns, where, starts, ends, count


@njit(cache=True, nogil=True)
def plain_integers(data: _Array, starts: _Array, ends: _Array) -> _Array:
    """Which scalars are plain integers."""
    found = np.zeros(len(starts), np.bool_)
    for number in range(len(starts)):
        found[number] = integer(data, starts[number], ends[number]) != -(1 << 62)
    return found
