"""A shell on a host that stays, so that a command costs one round trip and not the start of a session.

Rules of this module
    1. One command at a time; whoever has a shell has it alone (`Shells.borrow`).
    2. What a command prints on either stream ends with a line of ours, which is new with each shell. A command that
       took too long takes its shell with it.
    3. Input is text, and ends when the command does not read any further.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: bytes
    error: bytes


class Shell:
    """A shell at the other end of a channel."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._end = f"end-{uuid.uuid4().hex}"
        self._rests = {"out": b"", "error": b""}

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked."""
        return not self._channel.closed and not self._channel.exit_status_ready()

    def ask(self, command: str, stdin: str = "") -> Answer:
        """Run a command to its end.

        Raises:
            TimeoutError: it took too long.
            EOFError: the shell or the connection ended meanwhile.
            OSError: likewise.
        """
        here = (
            f"<<'{self._end}'\n{stdin}{'' if stdin.endswith(chr(10)) or not stdin else chr(10)}{self._end}\n"
        )
        tell = f"code=$?; printf '\\n%s %s\\n' {self._end} $code; printf '\\n%s \\n' {self._end} >&2\n"
        self._channel.sendall(f"sh -c {shlex.quote(command)} {here}{tell}".encode())
        out, said = self._until_end("out", self._channel.recv)
        error, _ = self._until_end("error", self._channel.recv_stderr)
        return Answer(int(said), out, error)

    def _until_end(self, stream: str, receive: Callable[[int], bytes]) -> tuple[bytes, bytes]:
        mark = f"\n{self._end} ".encode()
        heard = bytearray(self._rests[stream])
        at = 0
        while (found := heard.find(mark, at)) < 0 or b"\n" not in heard[found + 1 :]:
            at = max(0, len(heard) - len(mark)) if found < 0 else found
            if not (part := receive(1 << 16)):
                raise EOFError("the shell has ended")
            heard += part
        line, _, rest = bytes(heard[found + len(mark) :]).partition(b"\n")
        self._rests[stream] = rest
        return bytes(heard[:found]), line

    def close(self) -> None:
        """End it."""
        self._channel.close()


class Shells:
    """Shells of one host and one user, opened when needed; one that is not in use is kept."""

    def __init__(self, open_channel: Callable[[], Any]) -> None:
        self._open_channel = open_channel
        self._idle: Shell | None = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Shell]:
        """A shell for one command."""
        shell = self._swap(None)
        if shell is None or not shell.is_usable:
            shell = Shell(self._open_channel())
        try:
            yield shell
        except BaseException:
            shell.close()
            raise
        if (other := self._swap(shell)) is not None:
            other.close()

    def _swap(self, shell: Shell | None) -> Shell | None:
        """Keep this one, in the place of that which was kept."""
        with self._lock:
            kept, self._idle = self._idle, shell
            return kept
