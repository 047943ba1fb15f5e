"""Requests to nodes over real sockets: a small HTTP/1.1 client, one connection a node for each client process.

Rules of this module
    1. `NotSent` means that not one byte of the request was handed to the kernel: the connection was refused, or was
       not there in time. Whatever goes wrong from the first byte on is `Lost`.
    2. Nothing is sent twice. A kept connection that the node has closed in the meantime is noticed before
       anything is written, and replaced by a new one; if it breaks later, the request is `Lost`.
    3. Who stops waiting (a timeout cancels `request`) loses the connection as well: the late answer to one
       request must never be taken for that to the next.
    4. How a request reads on the wire is the system's business (`harness.systems.base.Service`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from harness.systems.base import Call, Service
from harness.transport import Lost, NotSent

# Long against a connection on one machine, short against the client's time for an attempt, so that it is the
# transport that gives up: it knows that nothing was sent.
CONNECT_TIMEOUT_S = 0.2
BODY_BYTES_MAX = 16 << 20


class Connection(NamedTuple):
    """Both ends of a stream."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_stale(self) -> bool:
        """Whether the other side has closed it, or has said something that nobody asked for."""
        # There is no public way to ask whether bytes wait to be read.
        return self.reader.at_eof() or self.writer.is_closing() or bool(self.reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001

    def drop(self) -> None:
        """End it at once."""
        self.writer.transport.abort()


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    keeps: bool


class BadAnswer(Exception):
    """What came back is not HTTP as it should be."""


Dial = Callable[[str], Awaitable[Connection]]


class HttpTransport:
    """The connections of one client process; see `harness.transport`."""

    def __init__(
        self,
        dial: Dial,
        service: Service,
        on_close: Callable[[HttpTransport], None],
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._dial = dial
        self._service = service
        self._on_close = on_close
        self._kept: dict[str, Connection] = {}

    async def request(self, node: str, request: Any, timeout_s: float | None = None) -> Any:
        """Send once and wait for the answer."""
        async with asyncio.timeout(timeout_s):
            return await self._request(node, request)

    async def _request(self, node: str, request: Any) -> Any:
        call = self._service.encode(request)
        connection = await self._connection(node)
        try:
            answer = await exchange(connection, call, node)
            response = self._service.decode(answer.status, answer.body)
        except (OSError, EOFError, BadAnswer, asyncio.LimitOverrunError) as error:
            connection.drop()
            raise Lost(f"{node}: {str(error) or type(error).__name__}") from None
        except BaseException:
            connection.drop()
            raise
        if answer.keeps and node not in self._kept:
            self._kept[node] = connection
        else:
            connection.drop()
        return response

    async def close(self) -> None:
        """End all connections."""
        self.drop()
        self._on_close(self)

    def drop(self) -> None:
        """End all connections at once."""
        for connection in self._kept.values():
            connection.drop()
        self._kept.clear()

    async def _connection(self, node: str) -> Connection:
        kept = self._kept.pop(node, None)
        if kept is not None:
            if not kept.is_stale:
                return kept
            kept.drop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._dial(node)
        except (OSError, TimeoutError) as error:
            raise NotSent(f"{node}: {str(error) or 'no connection in time'}") from None


async def exchange(connection: Connection, call: Call, host: str) -> Answer:
    """One call and its answer.

    Raises:
        OSError: the connection broke.
        EOFError: it ended before the answer did.
        BadAnswer: the answer is not what it should be.
    """
    head = (
        f"{call.method} {call.path} HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(call.body)}\r\n\r\n"
    )
    connection.writer.write(head.encode("latin-1") + call.body)
    await connection.writer.drain()
    head_bytes = await connection.reader.readuntil(b"\r\n\r\n")
    first, *lines = head_bytes.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise BadAnswer(f"{first[:100]!r} is no answer in HTTP/1.1")
    headers = dict(_header(line) for line in lines if line)
    body = await connection.reader.readexactly(_length(headers))
    return Answer(int(rest[:3]), body, headers.get("connection", "").lower() != "close")


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _length(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length", "")
    if not length.isdigit() or int(length) > BODY_BYTES_MAX:
        raise BadAnswer(f"a body of {length[:20] or 'unknown'} bytes; at most {BODY_BYTES_MAX} are read")
    return int(length)


async def fetch(dial: Dial, node: str, path: str, timeout_s: float) -> Answer | None:
    """GET on a connection of its own; None where no answer came in time."""
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = await dial(node)
            return await exchange(connection, Call("GET", path, b""), node)
    except (OSError, EOFError, TimeoutError, BadAnswer, asyncio.LimitOverrunError):
        return None
    finally:
        if connection is not None:
            connection.drop()
