"""How a simulated machine fails: what its disk throws, and what ends a process at its crash point.

`nemesis.target` says what can be wrong with a disk, a clock and a process; this package does it.
"""

from __future__ import annotations

import errno
from fnmatch import fnmatch

from nemesis.target import Damage


class DiskError(OSError):
    """An injected failure of a disk: EIO or ENOSPC."""


def eio(what: str) -> DiskError:
    """The device failed."""
    return DiskError(errno.EIO, f"the simulated disk failed to {what}")


def enospc() -> DiskError:
    """There is no room."""
    return DiskError(errno.ENOSPC, "the simulated disk is full")


class Crashed(BaseException):
    """Thrown in a process at its crash point: it does nothing more. Not an `Exception`: no program may catch it."""


class NothingToDamage(Exception):
    """There is nothing on the disk that the damage could befall."""


def matches(damage: Damage, name: str) -> bool:
    """Whether the damage is meant for a file of that name."""
    return not damage.path or fnmatch(name, damage.path)
