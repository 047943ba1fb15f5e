"""The disk of a process, made slow, failing or full while it runs.

Rules of this module
    1. Only files below one directory are concerned, the data of a node; all else of the process is healthy.
    2. `disk.c` says what exactly fails, and what it cannot reach. What was not synced is lost by `nemesis.power`: the
       kernel outlives the process and keeps it.

Theory of operation
    Start the process with `shim.preload([shim.build("disk", directory)])` and `environment(file, data)`,
    where the file exists. `write_rule` changes the disk of all processes so started, from their next call on.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> write_rule(directory / "disk", DiskRule(sync_delay_ms=20.5, sync_error=0.25))
>>> read_rule(directory / "disk")
DiskRule(sync_delay_ms=20.5, sync_error=0.25, write_error=0.0, stalled=False, ...)
>>> write_crash_point(directory / "disk", "before-sync")
>>> read_struck(directory / "disk")
{}
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from nemesis.shim import write_in_place
from nemesis.target import CrashPoint, DiskRule

FILE_VARIABLE, DIRECTORY_VARIABLE = "SPLITBRAIN_DISK_FILE", "SPLITBRAIN_DISK_DIR"
SYNCED_VARIABLE = "SPLITBRAIN_DISK_SYNCED"
MILLION = 1_000_000
US_PER_MS = 1000
DELAY_US_MAX = 2**32 - 1  # 71 minutes
# struct rule of disk.c
_RULE = struct.Struct("=IIII")
_CRASH = struct.Struct("=I")
_LIES = struct.Struct("=I")
_STRUCK = struct.Struct("=QQQQQQ")
_STRUCK_AT = _RULE.size + _CRASH.size + _LIES.size
STRUCK = ("sync_delay_ms", "sync_error", "write_error", "stalled", "crash", "lying_sync")
CRASH_POINTS: Mapping[CrashPoint | None, int] = {None: 0, "before-sync": 1, "after-sync": 2, "snapshot": 3}


def environment(file: Path, data: Path) -> dict[str, str]:
    """Tells the library which file to follow and which directory is the disk."""
    return {FILE_VARIABLE: str(file), DIRECTORY_VARIABLE: str(data.resolve())}


def write_rule(file: Path, rule: DiskRule) -> None:
    """Makes the disk exactly this, as far as it is done here; what struck before stays counted."""
    _make_whole(file)
    delay_us = round(rule.sync_delay_ms * US_PER_MS)
    shares = (round(rule.sync_error * MILLION), round(rule.write_error * MILLION))
    write_in_place(file, _RULE.pack(min(delay_us, DELAY_US_MAX), *shares, int(rule.stalled)))
    write_in_place(file, _LIES.pack(round(rule.lying_sync * MILLION)), _RULE.size + _CRASH.size)


def write_crash_point(file: Path, point: CrashPoint | None) -> None:
    """Lets the process die when it next gets there, or no more."""
    _make_whole(file)
    write_in_place(file, _CRASH.pack(CRASH_POINTS[point]), _RULE.size)


def read_rule(file: Path) -> DiskRule:
    """What the disk is like; healthy where there is no file."""
    try:
        delay_us, sync_errors, write_errors, stalled = _RULE.unpack(file.read_bytes()[: _RULE.size])
    except FileNotFoundError:
        return DiskRule()
    return DiskRule(delay_us / US_PER_MS, sync_errors / MILLION, write_errors / MILLION, bool(stalled))


def read_struck(file: Path) -> dict[str, int]:
    """How often what is wrong has struck, by fields of a `DiskRule`; `crash` for a crash point."""
    try:
        counts = _STRUCK.unpack(file.read_bytes()[_STRUCK_AT : _STRUCK_AT + _STRUCK.size])
    except (FileNotFoundError, struct.error):
        return {}
    return {name: count for name, count in zip(STRUCK, counts, strict=True) if count}


def _make_whole(file: Path) -> None:
    """What is beyond the end of a mapped file reaches nobody."""
    size = _STRUCK_AT + _STRUCK.size
    if not file.exists() or file.stat().st_size < size:
        file.write_bytes(bytes(size))
