"""The wall clock of a process, shifted while it runs, without touching the machine's.

Rules of this module
    1. The clock of the machine is never set: it is everybody's. The library `clock.c` adds an offset to what
       one process reads.
    2. Only CLOCK_REALTIME moves; see `clock.c` for why, and for what the library cannot reach.

Theory of operation
    Start the process with `shim.preload([shim.build("clock", directory)])` and `environment(file)`, where
    the file exists. `write_offset` moves the clock of all processes so started, from their next reading on.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> write_offset(directory / "clock", -1500.25)
>>> read_offset(directory / "clock")
-1500.25
"""

from __future__ import annotations

import sys
from pathlib import Path

from nemesis.shim import write_in_place

FILE_VARIABLE = "SPLITBRAIN_CLOCK_FILE"
OFFSET_BYTES = 8
NS_PER_MS = 1_000_000


def environment(file: Path) -> dict[str, str]:
    """Tells the library which file to follow."""
    return {FILE_VARIABLE: str(file)}


def write_offset(file: Path, offset_ms: float) -> None:
    """Sets how far the clock is ahead (or, below zero, behind)."""
    write_in_place(file, round(offset_ms * NS_PER_MS).to_bytes(OFFSET_BYTES, sys.byteorder, signed=True))


def read_offset(file: Path) -> float:
    """How far the clock is ahead, in milliseconds; zero where there is no file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return 0.0
    return int.from_bytes(data[:OFFSET_BYTES], sys.byteorder, signed=True) / NS_PER_MS
