"""Sockets of another network namespace, for a process that stays outside.

Rules of this module
    1. A socket belongs for good to the namespace in which it was made. So a helper inside makes it and hands
       it over (SCM_RIGHTS); from then on the helper has no part in it.
    2. One byte asks for one TCP socket, not connected. The helper ends when its asker does.
    3. Nothing but the standard library is imported: the helper starts in a few dozen milliseconds.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

ASK = b"s"


class Door:
    """Hands out sockets of the namespace that `command` enters."""

    def __init__(self, command: Callable[[Sequence[str]], Sequence[str]]) -> None:
        self._here, there = socket.socketpair()
        with there:
            argv = command([sys.executable, "-m", "nemesis.door"])
            self._helper = subprocess.Popen(argv, stdin=there.fileno(), start_new_session=True)  # noqa: S603 - nsenter, by Netns
        self._here.settimeout(30)

    def socket(self) -> socket.socket:
        """A TCP socket of that namespace, not connected and blocking."""
        self._here.sendall(ASK)
        _, descriptors, _, _ = socket.recv_fds(self._here, len(ASK), 1)
        if not descriptors:
            raise ConnectionError("the helper that makes sockets in the clients' namespace has ended")
        return socket.socket(fileno=descriptors[0])

    def close(self) -> None:
        """Ends the helper; sockets it made live on."""
        self._here.close()
        self._helper.wait()


def serve() -> None:
    """The helper: standard input is the other end of the pair."""
    with socket.socket(fileno=0) as asker:
        while asker.recv(len(ASK)):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
                socket.send_fds(asker, [ASK], [one.fileno()])


if __name__ == "__main__":
    serve()
