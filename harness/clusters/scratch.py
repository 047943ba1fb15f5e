"""Temporary directories of runs, named after the process that made them, so that what a killed run left is found."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "sb-run-"


def make(kind: str) -> Path:
    """A new directory, which others may look into: nodes run as other users."""
    directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-{kind}-"))
    directory.chmod(0o755)
    return directory


def passing(kind: str) -> tempfile.TemporaryDirectory[str]:
    """One for a `with` statement."""
    return tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-{kind}-")


def sweep() -> list[str]:
    """Remove those whose maker is gone; says what was removed."""
    found = []
    for directory in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*")):
        maker = directory.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", maker).exists():
            shutil.rmtree(directory, ignore_errors=True)
            found.append(f"removed {directory}")
    return found
