"""How many files a server may have open, and so how many clients it may take: the log must always find room for one."""

from __future__ import annotations

import contextlib
import resource

#: For the log, for peers, for calls that are passed on, and for connections that are only taken to be refused.
RESERVED = 512


def for_connections(wanted: int) -> int:
    """Lets this process open as many files as that takes, where it may; returns how many connections it can take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = wanted + RESERVED
    goal = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if soft != resource.RLIM_INFINITY and soft < goal:
        with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
            soft = goal
    if soft == resource.RLIM_INFINITY or soft >= enough:
        return wanted
    return max(soft - RESERVED, soft // 2)
