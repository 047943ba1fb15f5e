"""The results file of a sweep: a header, then a line a seed, appended as they come.

Rules of this module
    1. A line is written with one system call when its result is there: whatever dies later, it stays.
    2. A sweep resumes from its file alone: configuration and seeds stand in the header. A last line that was torn
       when the sweep was killed is dropped, and its seed is run again.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from harness.config import Config
from harness.errors import ConfigError, SetupError
from harness.store import unwritable
from harness.sweep.one import Result

SAME_SECOND_MAX = 1000


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a sweep was asked to do: seeds `first` to `last` - 1 of a configuration."""

    config: Config
    first: int
    last: int
    swarm: bool = False
    guided: bool = False
    splitbrain: str = "sweep"
    version: int = 1


class ResultsFile:
    """An open results file; a context manager."""

    def __init__(self, path: Path, header: Header, done: tuple[Result, ...] = ()) -> None:
        self.path = path
        self.header = header
        self.done = done
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND)

    def append(self, result: Result) -> None:
        """Add a line."""
        try:
            os.write(self._fd, msgspec.json.encode(result) + b"\n")
        except OSError as error:
            raise SetupError(f"sweep {self.path}: {error.strerror}; what it has already is kept") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def create(directory: Path, header: Header) -> ResultsFile:
    """A new file in the store.

    Raises:
        SetupError: the store cannot be written.
    """
    now = dt.datetime.now(tz=dt.UTC)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for attempt in range(SAME_SECOND_MAX):
            suffix = f"-{attempt + 1}" if attempt else ""
            path = directory / f"{now:%Y%m%dT%H%M%S}-sweep-{header.config.system}{suffix}.jsonl"
            if not path.exists():
                path.write_bytes(msgspec.json.encode(header) + b"\n")
                return ResultsFile(path, header)
    except OSError as error:
        raise unwritable(directory, error) from None
    raise SetupError(
        f"store {directory}: {SAME_SECOND_MAX} sweeps in one second; choose another with --store DIR"
    )


def resume(path: Path) -> ResultsFile:
    """An existing file, to go on with.

    Raises:
        ConfigError: it cannot be read, or is no results file.
    """
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        lines = whole.splitlines()
        header = msgspec.json.decode(lines[0] if lines else b"", type=Header)
        done = tuple(msgspec.json.decode(line, type=Result) for line in lines[1:])
        if len(whole) < len(data):
            os.truncate(path, len(whole))
        return ResultsFile(path, header, done)
    except OSError as error:
        raise ConfigError(f"sweep {path}: {error.strerror}; give the results file of a sweep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"sweep {path}: not the results file of a sweep: {error}; give another file"
        ) from None
