r"""The loss of power, for real files: what a process wrote below a directory and never synced is gone.

Rules of this module
    1. The process is dead, and was started with `disk.c` in front and `environment(file)`: the library notes what
       was written, over what, and what was synced.
    2. Each file becomes what it was when it was synced last, also where it was overwritten or cut since; one that was
       made and never synced is gone. A file of which nothing is known is left alone.
    3. Names are as durable as in a journal: a file that was synced is found by its last name, and one that was removed
       does not come back.
    4. With `torn` the first half of the first write that is lost stays, in each file.

`python -m nemesis.power DIRECTORY FILE [torn]` does it where the files are.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> _ = (directory / "wal").write_bytes(b"OVER, unsynced"), (directory / "new").write_bytes(b"never")
>>> wal, new = ((directory / name).stat().st_ino for name in ("wal", "new"))
>>> notes = directory.parent / f"{directory.name}.synced"
>>> _ = notes.write_text(f"s {wal} 6\nc {new}\nw {wal} 6 8 z0\nw {wal} 0 4 73796e63\nw {new} 0 5 z0\n")
>>> lose(directory, notes, torn=False)
{'wal': 12, 'new': 5}
>>> sorted(file.name for file in directory.iterdir()), (directory / "wal").read_bytes()
(['wal'], b'sync, ')
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from nemesis.disk import SYNCED_VARIABLE


class Change(NamedTuple):
    """So many bytes were written at a place, over these; none where these were cut off."""

    place: int
    length: int
    old: bytes


@dataclass(slots=True)
class Notes:
    """What is known of a file.

    Attributes:
        size: when it was synced last; None where it never was.
        is_new: it was made while notes were taken.
        changes: since it was synced last.
    """

    size: int | None = None
    is_new: bool = False
    changes: list[Change] = field(default_factory=list)


UNKNOWN = Notes()


def environment(file: Path) -> dict[str, str]:
    """Tells the library where to note what was synced."""
    return {SYNCED_VARIABLE: str(file)}


def lose(directory: Path, synced: Path, *, torn: bool) -> dict[str, int]:
    """Lets files below a directory forget what was not synced; how many bytes that was written of which."""
    known = _read(synced)
    lost: dict[str, int] = {}
    durable: list[str] = []
    for file in sorted(directory.rglob("*"), reverse=True):
        if not file.is_file() or file.is_symlink():
            continue
        inode = file.stat().st_ino
        if (notes := known.get(inode, UNKNOWN)) == UNKNOWN:
            continue
        kept = _undo(file, notes, torn=torn)
        if file.exists():
            durable.append(f"s {inode} {file.stat().st_size}\n")
        gone = sum(change.length for change in notes.changes) - kept
        if gone > 0:
            lost[str(file.relative_to(directory))] = gone
    if known:  # what is there now is not lost again
        with synced.open("r+") as opened:
            opened.truncate(0)
            opened.writelines(durable)
    return lost


def _undo(file: Path, notes: Notes, *, torn: bool) -> int:
    """Makes a file what it was; how much of its first lost write stays."""
    torn_bytes = b""
    with file.open("r+b") as opened:
        for number in range(len(notes.changes) - 1, -1, -1):
            place, length, old = notes.changes[number]
            if torn and number == 0:
                opened.seek(place)
                torn_bytes = opened.read(length // 2)
            opened.seek(place)
            opened.write(old)
        opened.truncate(notes.size or 0)
        if torn_bytes:
            opened.seek(notes.changes[0].place)
            opened.write(torn_bytes)
    if notes.size is None and not torn_bytes:
        file.unlink()
    return len(torn_bytes)


def _read(synced: Path) -> dict[int, Notes]:
    """What is known of each file, by its inode; a line that was cut off by the end of its writer is left out."""
    known: dict[int, Notes] = {}
    try:
        text = synced.read_text(encoding="ascii")
    except FileNotFoundError:
        return {}
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, *words = line.split()
        inode, values = int(words[0]), words[1:]
        if what == "c":
            known[inode] = Notes(is_new=True)
        elif what == "s":
            known[inode] = Notes(int(values[0]))
        elif inode in known:  # of others nobody knows what they were before
            known[inode].changes.append(_change(values))
    return known


def _change(values: Sequence[str]) -> Change:
    place, length, old = values
    replaced = bytes(int(old[1:])) if old.startswith("z") else bytes.fromhex(old)
    return Change(int(place), int(length), replaced)


def argv(directory: Path, synced: Path, *, torn: bool) -> list[str]:
    """The command line that does it on another machine; `lost_bytes` reads what it says."""
    return ["python3", "-m", "nemesis.power", str(directory), str(synced), *(["torn"] if torn else [])]


def lost_bytes(said: str) -> int:
    """How much was lost there."""
    return sum(json.loads(said).values())


def main(arguments: list[str]) -> int:
    """Lose, and say what."""
    directory, synced, *torn = arguments
    try:
        lost = lose(Path(directory), Path(synced), torn=bool(torn))
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(lost) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
