"""The wall clock of a process, shifted while it runs, without touching the machine's.

Rules of this module
    1. The clock of the machine is never set: it is everybody's. A library put in front of the C library
       (`clock.c`, LD_PRELOAD) adds an offset to what one process reads.
    2. Only CLOCK_REALTIME moves; see `clock.c` for why, and for what the library cannot reach.
    3. The offset is desired state in a file of 8 bytes: writing it again changes nothing, and zero heals.

Theory of operation
    `build` compiles the library once for a machine, into a directory that may be mounted or copied to where
    the process runs. `environment` is what the process needs to be started with. `write_offset` moves the
    clock of all processes that were started with that file, from their next reading on.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> write_offset(directory / "clock", -1500.25)
>>> read_offset(directory / "clock")
-1500.25
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FILE_VARIABLE = "SPLITBRAIN_CLOCK_FILE"
LIBRARY = "libsbclock.so"
SOURCE = Path(__file__).with_name("clock.c")
OFFSET_BYTES = 8
NS_PER_MS = 1_000_000


class ClockError(RuntimeError):
    """The library cannot be built here; the message says what helps."""


def build(directory: Path) -> Path:
    """Compiles the library into a directory, unless it is there and newer than its source."""
    library = directory / LIBRARY
    if library.exists() and library.stat().st_mtime >= SOURCE.stat().st_mtime:
        return library
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ClockError("clock skew needs a C compiler once; on Debian: apt-get install gcc libc6-dev")
    # Written aside and renamed: a process that has the old one mapped keeps it whole.
    partial = directory / f".{LIBRARY}.{os.getpid()}"
    argv = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", str(partial), str(SOURCE), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    if done.returncode:
        raise ClockError(f"{compiler} could not build {SOURCE.name}: {done.stderr.strip()}")
    partial.replace(library)
    return library


def environment(library: Path, file: Path) -> dict[str, str]:
    """What to start a process with, so that the file moves its clock. The file must exist by then."""
    return {"LD_PRELOAD": str(library), FILE_VARIABLE: str(file)}


def write_offset(file: Path, offset_ms: float) -> None:
    """Sets how far the clock is ahead (or, below zero, behind); in place, since processes map the file."""
    data = round(offset_ms * NS_PER_MS).to_bytes(OFFSET_BYTES, sys.byteorder, signed=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def read_offset(file: Path) -> float:
    """How far the clock is ahead, in milliseconds; zero where there is no file."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return 0.0
    return int.from_bytes(data[:OFFSET_BYTES], sys.byteorder, signed=True) / NS_PER_MS
