"""A directory on a real file system, as the write-ahead log wants it; one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from pathlib import Path

#: Room is made where so many times its size are free.
_FREE_FACTOR = 64
_OPEN_MAX = 8
_NAME_ANOTHER = "name a directory that can be written"
_REMEDIES = {
    errno.ENOSPC: "make room on its file system, and start this server again",
    errno.EDQUOT: "raise the quota or remove other files, and start this server again",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), and start this server again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), and start this server again",
    errno.EIO: "the device fails, so move the directory to another, or remove this member and add it again with an "
    "empty directory",
    errno.EROFS: "mount its file system such that it can be written, or name a directory that can be written",
    errno.EACCES: "give the user of this server the right to read and write it and what is in it",
    errno.EPERM: "give the user of this server the right to read and write it and what is in it",
}


class DirectoryInUse(Exception):
    """Another process has the directory open."""


def unusable(directory: str | Path, error: OSError) -> OSError:
    """An error of a disk in one sentence: where, what, and what to do.

    >>> print(unusable("data/n1", OSError(errno.ENOSPC, "No space left on device")))
    data_dir data/n1 cannot be used: No space left on device; make room on its file system, and start this server again
    """
    remedy = _REMEDIES.get(error.errno or 0, _NAME_ANOTHER)
    return OSError(f"data_dir {directory} cannot be used: {error.strerror or error}; {remedy}")


class FileDisk:
    """Files in one directory, which is locked for as long as the object is open.

    With `unsafe_no_sync` nothing is synced: a power cut loses what was promised. It is there to be measured.
    """

    def __init__(self, directory: str | Path, *, unsafe_no_sync: bool = False) -> None:
        self.directory = Path(directory)
        self._syncs = not unsafe_no_sync
        self.directory.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, int] = {}
        self._ends: dict[str, int] = {}  # of what was appended to the open files; behind it there may be room
        self._lock = os.open(self.directory / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            if not isinstance(error, BlockingIOError):  # a file system without locks, say
                raise
            raise DirectoryInUse(
                f"{self.directory} is in use by another process: give each node a directory of its own"
            ) from error
        self.sync_names()

    def close(self) -> None:
        """Closes all files and lets go of the directory."""
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()
        os.close(self._lock)

    def owner(self) -> str | None:
        """Which server the directory is of; None if none has claimed it, or what it wrote is damaged."""
        line = os.pread(self._lock, os.fstat(self._lock).st_size, 0)
        name, _, _ = line.rpartition(b" ")
        return name.decode() if name and line == _claim_of(name) else None

    def claim(self, name: str) -> None:
        """Writes down which server the directory is of, in the lock, which is no file of the log."""
        line = _claim_of(name.encode())
        os.ftruncate(self._lock, 0)
        self._write(self._lock, 0, line)
        if self._syncs:
            os.fsync(self._lock)

    def names(self) -> list[str]:
        """All files but the lock."""
        return sorted(path.name for path in self.directory.iterdir() if path.name != "lock")

    def read(self, name: str) -> bytes:
        """A whole file, made durable before it is believed: a process that was killed has left it in the cache only."""
        with (self.directory / name).open("rb") as file:
            if self._syncs:
                os.fdatasync(file.fileno())
            return file.read()

    def append(self, name: str, data: bytes) -> None:
        """Adds to the end of a file, or of what was appended to it since it has room."""
        self._ends[name] = self._write(self._handle(name), self._ends[name], data)

    def reserve(self, name: str, size: int) -> bool:
        """Makes a file so long, with zeros: room that is merely allocated is written down as used at the next sync.

        Not where the disk is nearly full: then what there is belongs to what must be written.
        """
        handle = self._handle(name)
        now = os.fstat(handle).st_size
        if size > now:
            disk = os.fstatvfs(handle)
            if disk.f_bavail * disk.f_frsize < _FREE_FACTOR * (size - now):
                return False
            self._write(handle, now, bytes(size - now))
        return True

    def sync(self, name: str) -> None:
        """Makes the contents of a file durable."""
        handle = self._handle(name)
        if self._syncs:
            os.fdatasync(handle)

    def sync_names(self) -> None:
        """Makes durable which files there are."""
        if not self._syncs:
            return
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, old: str, new: str) -> None:
        """Gives a file another name."""
        self._close(old)
        self._close(new)
        (self.directory / old).rename(self.directory / new)

    def truncate(self, name: str, size: int) -> None:
        """Cuts a file off."""
        os.ftruncate(self._handle(name), size)
        self._ends[name] = min(size, self._ends[name])

    def remove(self, name: str) -> None:
        """Removes a file."""
        self._close(name)
        (self.directory / name).unlink()

    def _handle(self, name: str) -> int:
        handle = self._open.get(name)
        if handle is None:
            while len(self._open) >= _OPEN_MAX:  # nobody writes to the oldest any more
                self._close(next(iter(self._open)))
            flags = os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
            handle = self._open[name] = os.open(self.directory / name, flags, 0o600)
            self._ends[name] = os.fstat(handle).st_size
        return handle

    @staticmethod
    def _write(handle: int, at: int, data: bytes) -> int:
        """Writes at a place; returns the place after it."""
        view = memoryview(data)
        while view:
            count = os.pwrite(handle, view, at)
            view, at = view[count:], at + count
        return at

    def _close(self, name: str) -> None:
        handle = self._open.pop(name, None)
        if handle is not None:
            os.close(handle)


def _claim_of(name: bytes) -> bytes:
    """A line with a checksum: damage to it must not look like the name of another server."""
    return b"%b %08x\n" % (name, zlib.crc32(name))
