"""Small libraries in front of the C library (LD_PRELOAD), compiled where they are needed.

Rules of this module
    1. A library is compiled once for a machine, into a directory that may be mounted or copied to where the
       process runs.
    2. What a library does is desired state in a small file, which the process maps: written in place, it
       counts from the next call on. A file of zeros is a healthy machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

SOURCES = Path(__file__).parent


class ShimError(RuntimeError):
    """A library cannot be built here; the message says what helps."""


def build(name: str, directory: Path) -> Path:
    """Compiles `NAME.c` of this package into a directory, unless it is there and newer than its source."""
    source, library = SOURCES / f"{name}.c", directory / f"libsb{name}.so"
    if library.exists() and library.stat().st_mtime >= source.stat().st_mtime:
        return library
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ShimError(f"the fault {name!r} needs a C compiler; on Debian: apt-get install gcc libc6-dev")
    # Written aside and renamed: a process that has the old one mapped keeps it whole.
    partial = directory / f".{library.name}.{os.getpid()}"
    argv = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-o", str(partial), str(source), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    if done.returncode:
        raise ShimError(f"{compiler} could not build {source.name}: {done.stderr.strip()}")
    partial.replace(library)
    return library


def preload(libraries: Iterable[Path]) -> dict[str, str]:
    """The environment that puts libraries in front."""
    return {"LD_PRELOAD": ":".join(map(str, libraries))}


def write_in_place(file: Path, data: bytes, place: int = 0) -> None:
    """Writes a small file over itself: processes that map it must keep seeing the same one."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data, place)
    finally:
        os.close(descriptor)
