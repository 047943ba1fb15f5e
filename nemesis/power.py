r"""The loss of power, for real files: what a process wrote below a directory and never synced is gone.

Rules of this module
    1. The process is dead, and was started with `disk.c` in front and `environment(file)`: the library notes how much
       of each file was synced.
    2. A file is cut to what was synced of it, and is removed if nothing ever was. That is exact for files that only
       grow, such as logs; what was overwritten in place is not brought back. Names are as durable as in a journal.
    3. With `torn` the first half of what is cut off a file stays.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> _ = (directory / "wal").write_bytes(b"synced, unsynced"), (directory / "new").write_bytes(b"never")
>>> synced = directory.parent / f"{directory.name}.synced"
>>> _ = synced.write_text(f"{(directory / 'wal').stat().st_ino} 6\n")
>>> lose(directory, synced, torn=False)
{'wal': 10, 'new': 5}
>>> sorted(file.name for file in directory.iterdir()), (directory / "wal").read_bytes()
(['wal'], b'synced')
"""

from __future__ import annotations

import os
from pathlib import Path

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
        status = file.stat()
        kept = durable.get(status.st_ino, 0)
        gone = status.st_size - kept
        if gone <= 0 and status.st_ino in durable:
            continue
        if torn and gone > 1:
            kept += gone // 2
        if kept:
            os.truncate(file, kept)
        else:
            file.unlink()
        if status.st_size > kept:
            lost[str(file.relative_to(directory))] = status.st_size - kept
    return lost


def _sizes(synced: Path) -> dict[int, int]:
    """How much of each file, by its inode, was synced last."""
    sizes: dict[int, int] = {}
    try:
        lines = synced.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return {}
    for line in lines:
        inode, size = line.split()
        sizes[int(inode)] = int(size)
    return sizes
