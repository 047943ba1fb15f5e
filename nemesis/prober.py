"""Probes links from a node: opens connections to addresses and says how long each took to be answered.

Rules of this module
    1. An answer is an answer whatever it says: a refused connection has been there and back as well.
    2. The time is that of the first packet and its answer, one round trip; nothing is sent on the connection.

Theory of operation
    Run as `python -m nemesis.prober` on the node. A line of JSON on standard input is a question,

        {"address": "10.91.0.2", "port": 7000, "count": 3, "timeout_ms": 400}

    and is answered by a list of milliseconds, null for what was not answered in time. All connections are opened at
    once. It ends when its input does.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
import time

import msgspec

COUNT_MAX = 100
_ANSWERED = (0, errno.ECONNREFUSED, errno.ECONNRESET)


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to probe, how often, and how long to wait."""

    address: str
    port: int
    count: int = 1
    timeout_ms: float = 400.0


def probe(question: Question) -> list[float | None]:
    """How many milliseconds each connection took; None where nobody answered in time."""
    family = socket.AF_INET6 if ":" in question.address else socket.AF_INET
    took_ms: list[float | None] = []
    waiting: dict[int, tuple[socket.socket, float, int]] = {}
    poll = select.poll()
    for number in range(min(question.count, COUNT_MAX)):
        end = socket.socket(family, socket.SOCK_STREAM)
        end.setblocking(False)
        start_s = time.monotonic()
        took_ms.append(None)
        error = end.connect_ex((question.address, question.port))
        if error == errno.EINPROGRESS:
            waiting[end.fileno()] = (end, start_s, number)
            poll.register(end, select.POLLOUT)
        else:
            took_ms[number] = (time.monotonic() - start_s) * 1000 if error in _ANSWERED else None
            end.close()
    deadline_s = time.monotonic() + question.timeout_ms / 1000
    while waiting and (left_s := deadline_s - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left_s * 1000):
            end, start_s, number = waiting.pop(descriptor)
            poll.unregister(descriptor)
            if end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in _ANSWERED:
                took_ms[number] = (time.monotonic() - start_s) * 1000
            end.close()
    for end, _, _ in waiting.values():
        end.close()
    return took_ms


def main() -> int:
    """Answers lines until the input ends."""
    print("ready", flush=True)  # noqa: T201 - the greeting of the protocol
    for line in sys.stdin:
        try:
            answer = msgspec.json.encode(probe(msgspec.json.decode(line, type=Question))).decode()
        except (OSError, msgspec.DecodeError) as error:
            answer = f"error: {str(error).replace(chr(10), ' ')}"
        print(answer, flush=True)  # noqa: T201 - the answer of the protocol
    return 0


if __name__ == "__main__":
    sys.exit(main())
