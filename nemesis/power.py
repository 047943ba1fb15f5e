r"""The loss of power, for real files: what a process wrote below a directory and never synced is gone.

Rules of this module
    1. The process is dead, and was started with `disk.c` in front and `environment(file)`: the library notes how much
       of each file was synced.
    2. A file is cut to what was synced of it, and is removed if nothing ever was. That is exact for files that only
       grow, such as logs, also into room of zeros that was made ahead; what was overwritten in place is not brought
       back. Names are as durable as in a journal.
    3. With `torn` the first half of what is cut off a file stays.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> _ = (directory / "wal").write_bytes(b"synced, unsynced"), (directory / "new").write_bytes(b"never")
>>> synced = directory.parent / f"{directory.name}.synced"
>>> _ = synced.write_text(f"{(directory / 'wal').stat().st_ino} 9 6\n")
>>> lose(directory, synced, torn=False)
{'wal': 10, 'new': 5}
>>> sorted(file.name for file in directory.iterdir()), (directory / "wal").read_bytes()
(['wal'], b'synced\x00\x00\x00')
"""

from __future__ import annotations

import os
from pathlib import Path

from nemesis.damage import written_bytes
from nemesis.disk import SYNCED_VARIABLE


def environment(file: Path) -> dict[str, str]:
    """Tells the library where to note what was synced."""
    return {SYNCED_VARIABLE: str(file)}


def lose(directory: Path, synced: Path, *, torn: bool) -> dict[str, int]:
    """Lets files below a directory forget what was not synced; how many bytes of which."""
    durable = _sizes(synced)
    lost: dict[str, int] = {}
    for file in sorted(directory.rglob("*"), reverse=True):
        if not file.is_file() or file.is_symlink():
            continue
        inode, written = file.stat().st_ino, written_bytes(file)
        size, kept = durable.get(inode, (0, 0))
        gone = written - kept
        if gone <= 0 and inode in durable:
            continue
        if torn and gone > 1:
            kept += gone // 2
        if kept or size:
            os.truncate(file, kept)
            os.truncate(file, max(kept, size))
        else:
            file.unlink()
        if written > kept:
            lost[str(file.relative_to(directory))] = written - kept
    return lost


def _sizes(synced: Path) -> dict[int, tuple[int, int]]:
    """How long each file, by its inode, was when it was synced last, and how much of that was more than room."""
    sizes: dict[int, tuple[int, int]] = {}
    try:
        lines = synced.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        inode, size, written = map(int, line.split())
        sizes[inode] = (size, written)
    return sizes
