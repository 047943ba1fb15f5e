"""Histories of a million operations read into columns, with lines that are decoded only when somebody looks.

Rules of this module
    1. Needs numpy and numba; worth it from some hundred thousand lines on (`checkers.formats` decides).
    2. Whatever is unusual gives None, and the general reader takes the file: it says what is wrong, or copes.

Theory of operation
    `checkers.kernel_lines` gives each distinct scalar a number by its bytes. Numbers stand for values one to one where
    all scalars are plain integers, strings without escapes, null, true and false; anything else is decoded and
    compared here. Lines of processes that are no integers are notes: they are decoded at once and left out.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np

from checkers import fast
from checkers.history import Op
from checkers.memory import collector_paused
from checkers.values import freeze

kernel_lines = fast.kernels("kernel_lines")

_decoder = msgspec.json.Decoder(Op)


class ScannedLines(Sequence[Op]):
    """The lines of a ``jsonl`` history, decoded on demand; all at once when somebody goes through them.

    Attributes:
        columns: a row of numbers for each column and line, see `checkers.kernel_lines.scan`.
        where: where each line starts.
        starts: where the first one of each distinct scalar starts, and ``ends`` where it ends.
        ends: see ``starts``.
    """

    def __init__(self, data: bytes, where: Any, columns: Any, starts: Any, ends: Any) -> None:
        self.columns = columns
        self.where = where
        self.starts = starts
        self.ends = ends
        self._data = data
        self._all: list[Op] | None = None

    def __len__(self) -> int:
        return len(self.where)

    @overload
    def __getitem__(self, place: int) -> Op: ...
    @overload
    def __getitem__(self, place: slice) -> list[Op]: ...
    def __getitem__(self, place: int | slice) -> Op | list[Op]:
        if self._all is not None:
            return self._all[place]
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        start = int(self.where[place])
        return _decoder.decode(self._data[start : self._data.index(b"\n", start)])

    def __iter__(self) -> Iterator[Op]:
        if self._all is None:
            with collector_paused():
                self._all = _decoder.decode_lines(self._data)
        return iter(self._all)

    def scalar(self, number: int) -> Hashable:
        """The value that a number in a column of scalars stands for, in canonical form."""
        return freeze(msgspec.json.decode(self._text(number)))

    def number(self, value: Hashable) -> int:
        """The number of a scalar's value, -1 where it does not occur. Looks at all of them."""
        text = msgspec.json.encode(value) if value is None or isinstance(value, int | str) else b""
        sizes = np.flatnonzero(self.ends - self.starts == len(text))
        return next((int(n) for n in sizes if self._text(int(n)) == text), -1)

    def digest(self) -> bytes:
        """Of the lines."""
        return _digest(self._data)

    def _text(self, number: int) -> bytes:
        return self._data[self.starts[number] : self.ends[number]]

    def client_fs(self) -> set[str]:
        """What clients asked for."""
        fs = self.columns[kernel_lines.F]
        return {str(self.scalar(int(n))) for n in np.unique(fs[self.clients()])}

    def clients(self) -> Any:
        """The places of lines that are no notes."""
        return np.flatnonzero(self.columns[kernel_lines.PROCESS] != kernel_lines.NOTE)

    def tells_revisions(self) -> bool:
        """Whether any completion says which change it made or saw."""
        return bool((self.columns[kernel_lines.REVISION] != kernel_lines.ABSENT).any())

    @property
    def timed(self) -> bool:
        """Whether any line has a time other than 0."""
        return bool((self.columns[kernel_lines.TIME] != 0).any())

    def sound(self) -> bool:
        """Rule 2: whether numbers stand for values one to one, all lines are complete and all notes are lines."""
        c = self.columns
        needed = (kernel_lines.INDEX, kernel_lines.TIME)
        there = (kernel_lines.TYPE, kernel_lines.F)
        clients = self.clients()
        if any((c[column] == kernel_lines.ABSENT).any() for column in needed):
            return False
        if any((c[column][clients] == kernel_lines.ABSENT).any() for column in there):
            return False
        try:
            texts = [self._text(int(n)) for n in np.flatnonzero(~self._plain())]
            decoded = msgspec.json.decode(b"[" + b",".join(texts) + b"]")
            for note in np.flatnonzero(c[kernel_lines.PROCESS] == kernel_lines.NOTE).tolist():
                self[note]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        frozen = [freeze(value) for value in decoded]
        odd = any(isinstance(value, int) for value in frozen)
        return not odd and len(set(frozen)) == len(frozen)

    def _plain(self) -> Any:
        """Which scalars are plain integers."""
        return kernel_lines.plain_integers(np.frombuffer(self._data, np.uint8), self.starts, self.ends)


def scan(body: bytes) -> ScannedLines | None:
    """The lines of a history's body (without header, with its last newline), or None by rule 2."""
    fast.prepare("lines")
    lines = body.count(b"\n")
    data = np.frombuffer(body, np.uint8)
    read, columns, where, starts, ends, count = kernel_lines.scan(data, 0, lines)
    if read != lines:
        return None
    found = ScannedLines(body, where, columns, starts[:count], ends[:count])
    return found if found.sound() else None


def save(path: Path, found: ScannedLines, digest: bytes = b"") -> None:
    """Keeps the columns beside the history, so that they need not be scanned again; quietly not, where it cannot.

    The file holds a digest of the lines, and is of no use to any other lines.
    """
    narrow = {f"column{n}": _narrowed(column) for n, column in enumerate(found.columns)}
    kept = path.with_name(path.name + f".{os.getpid()}.part")
    try:
        with kept.open("wb") as file:
            np.savez(
                file,
                digest=np.frombuffer(digest or found.digest(), np.uint8),
                where=found.where,
                starts=found.starts,
                ends=found.ends,
                **narrow,
            )
        kept.replace(path)
    except OSError:
        pass
    finally:  # of Ctrl-C as well
        with contextlib.suppress(OSError):
            kept.unlink(missing_ok=True)


def _narrowed(column: Any) -> Any:
    """The column in the narrowest integers that hold it."""
    for kind in (np.int8, np.int16, np.int32):
        limits = np.iinfo(kind)
        if len(column) == 0 or (column.min() >= limits.min and column.max() <= limits.max):
            return column.astype(kind)
    return column


def restore(path: Path, body: bytes) -> ScannedLines | None:
    """The lines with the columns that were kept for them, or None where there are none for exactly these."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            with _digesting(body) as digest:
                columns = np.stack([kept[f"column{n}"].astype(np.int64) for n in range(kernel_lines.COLUMNS)])
                if kept["digest"].tobytes() != digest.result():
                    return None
            return ScannedLines(body, kept["where"], columns, kept["starts"], kept["ends"])
    except Exception:  # noqa: BLE001  (whatever zipfile and numpy say of a damaged file; it is made anew)
        return None


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16, person=_scanner()).digest()


@functools.cache
def _scanner() -> bytes:
    """Which scanner made the columns: those of another one, of an older version, may mean something else."""
    return hashlib.blake2b(Path(str(kernel_lines.__file__)).read_bytes(), digest_size=16).digest()


@contextlib.contextmanager
def _digesting(body: bytes) -> Iterator[Future[bytes]]:
    """The digest in the making, beside what is done meanwhile: neither it nor the compiled code holds a lock."""
    with ThreadPoolExecutor(1, "splitbrain-digest") as pool:
        yield pool.submit(_digest, body)


def scan_and_keep(path: Path, body: bytes) -> ScannedLines | None:
    """`scan`, and `save` beside the file."""
    with _digesting(body) as digest:
        found = scan(body)
        if found is not None:
            save(path, found, digest.result())
    return found


def scan_tiny() -> None:
    """Compiles the kernels, or loads them."""
    data = b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"cas","value":[1,2],"revision":3}\n'
    kernel_lines.scan(np.frombuffer(data, np.uint8), 0, 1)
    kernel_lines.plain_integers(np.frombuffer(data, np.uint8), np.zeros(1, np.int64), np.ones(1, np.int64))
