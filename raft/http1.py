"""HTTP/1.1 on a transport: calls in, answers out, and nothing of what they mean.

Theory of operation
    A connection is an `asyncio.Protocol`, for a stream with a task of its own costs more than everything else
    that a server does for a small call. Calls of one connection are handled one after another, in order; what a
    client sends ahead waits in the buffer. A handler may answer at once or later, once, from the loop's thread.

Rules of this module
    1. Everything a client can make grow has a bound: the head, the body, what is sent ahead, the time a half-sent
       call may take, the number of connections.
    2. What is no HTTP/1.1 is answered with why, and the connection ends, for nobody knows where its next call
       would begin.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, TypeAlias, cast

HEAD_BYTES_MAX = 16 << 10
BODY_BYTES_MAX = 4 << 20
CONNECTIONS_MAX = 10_000
_HALF_CALL_S_MAX = 30.0
_EMPTY_LINES_MAX = 2
_REASONS = {
    200: "OK",
    202: "Accepted",
    307: "Temporary Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_CR = 13
_JSON = ("Content-Type", "application/json")
_FIRST = {status: f"HTTP/1.1 {status} {reason}\r\n" for status, reason in _REASONS.items()}


class Call(NamedTuple):
    """What a client asks; names of headers are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What it gets. With `chunks` the body is what they yield, for as long as they do."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    chunks: AsyncIterator[bytes] | None = None


class Refusal(Exception):
    """A call that is answered with an error, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


Respond: TypeAlias = Callable[[Answer], None]
Handler: TypeAlias = Callable[
    [Call, Respond], Callable[[], None] | None
]  # what to do if the client goes before


class Http1:
    """Makes connections that one handler answers: `loop.create_server(http1.connection, ...)`."""

    def __init__(
        self, handle: Handler, refuse: Callable[[Refusal], Answer], connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self.handle = handle
        self.connections_max = connections_max
        self.refuse = refuse  # how an error is worded
        self.connections: dict[Connection, None] = {}  # in the order in which they came

    def connection(self) -> Connection:
        """A protocol for one more connection."""
        return Connection(self)

    def makes_room(self) -> bool:
        """Whether there is a place for one more: if there are many, who asks nothing makes room, the oldest first."""
        if len(self.connections) < self.connections_max:
            return True
        idle = next((connection for connection in self.connections if connection.is_idle), None)
        if idle is not None:
            idle.close()
            self.connections.pop(idle)
        return idle is not None

    def close(self) -> None:
        """Ends all connections."""
        for connection in list(self.connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, http1: Http1) -> None:
        self._http1 = http1
        self._transport: asyncio.Transport
        self._buffer = b""
        self._keep = True  # whether another call may follow
        self._busy = False  # a call is being answered
        self._head_only = False  # it asks for no body
        self._chunked = True  # it can be answered in chunks
        self._taking = False
        self._ended = False  # the client sends no more
        self._empty_lines = 0  # before the next call
        self._told_to_go_on = False
        self._timer: asyncio.TimerHandle | None = None
        self._pump: asyncio.Task[None] | None = None
        self._abandon: Callable[[], None] | None = (
            None  # what is to be done if the client goes before its answer
        )
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_idle(self) -> bool:
        """Whether no call is being answered, or half here."""
        return not (self._busy or self._buffer)

    # -- what the transport says -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        if not self._http1.makes_room():
            self._keep = False
            self._write(self._http1.refuse(Refusal(503, "this server has too many connections")))
            return
        self._http1.connections[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._http1.connections.pop(self, None)
        self._stop_timer()
        if self._pump is not None:
            self._pump.cancel()
        if self._abandon is not None and self._busy:
            self._abandon()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """More bytes of calls."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._take_calls()
        elif len(self._buffer) > HEAD_BYTES_MAX + BODY_BYTES_MAX:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more; true if the connection is kept for the answers to what it has sent.

        Who watches has mostly gone altogether, and would not be missed before the next change. TLS has no half of a
        connection in Python.
        """
        self._ended = True
        watches = self._abandon is not None or self._pump is not None
        tls = self._transport.get_extra_info("sslcontext") is not None
        return self._busy and not watches and not tls

    # -- calls -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the connection."""
        self._keep = False
        self._transport.close()

    def _take_calls(self) -> None:
        """Takes calls off the buffer until one has to wait for its answer, or is not there as a whole."""
        self._taking = True
        try:
            while self._buffer and not self._busy and self._keep:
                call = self._next_call()
                if call is None:
                    self._wait_for_more()
                    break
                self._stop_timer()
                self._busy = True
                self._abandon = self._http1.handle(call, self._respond)
        except Refusal as refusal:
            self._keep = False
            self._write(self._http1.refuse(refusal))
        finally:
            self._taking = False

    def _wait_for_more(self) -> None:
        if self._ended:
            self.close()
        elif self._buffer:
            self._start_timer()
        else:  # it was an empty line
            self._stop_timer()

    def _skip_empty_lines(self) -> None:
        """Drops what some clients send after a body (RFC 9112, section 2.2)."""
        while self._buffer.startswith(b"\r\n") and self._empty_lines < _EMPTY_LINES_MAX:
            self._buffer = self._buffer[2:]
            self._empty_lines += 1

    def _next_call(self) -> Call | None:
        if self._buffer[0] == _CR:
            self._skip_empty_lines()
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
        if end < 0:
            if len(buffer) >= HEAD_BYTES_MAX:
                raise Refusal(413, f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
            return None
        first, *lines = buffer[:end].decode("latin-1").split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise Refusal(400, f"{first[:100]!r} is no HTTP/1.1 request")
        headers = _headers_of(lines)
        length = _body_length(headers)
        start, stop = end + 4, end + 4 + length
        if len(buffer) < stop:
            if "expect" in headers and not self._told_to_go_on:
                self._told_to_go_on = True
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        self._buffer = buffer[stop:]
        self._told_to_go_on = False
        self._empty_lines = 0
        self._keep = _keeps(parts[2], headers.get("connection", ""))
        self._chunked = parts[2] != "HTTP/1.0"
        # What is asked with HEAD is what GET would answer, and not sent (RFC 9110, section 9.3.2).
        self._head_only = parts[0] == "HEAD"
        path, _, query = parts[1].partition("?")
        if path[:1] != "/":
            path, _, query = _origin_form(parts[1]).partition("?")
        return Call("GET" if self._head_only else parts[0], path, query, headers, buffer[start:stop])

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_HALF_CALL_S_MAX, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._keep = False
        self._write(self._http1.refuse(Refusal(408, f"half a call after {_HALF_CALL_S_MAX:.0f} s")))

    # -- answers -----------------------------------------------------------------------------------

    def _respond(self, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        if answer.chunks is not None and self._head_only:
            self._write_head_of_stream(answer)
            self._end_stream()
            return
        if answer.chunks is not None:
            self._pump = asyncio.get_running_loop().create_task(self._stream(answer, answer.chunks))
            return
        self._write(answer)
        self._answered()

    def _answered(self) -> None:
        self._busy = False
        if self._taking:
            return
        if self._buffer:
            if not self._ended:
                self._transport.resume_reading()
            self._take_calls()
        if self._ended and not self._busy:
            self.close()

    def _write(self, answer: Answer) -> None:
        head = f"{_FIRST[answer.status]}Content-Length: {len(answer.body)}\r\n{self._headers(answer)}\r\n"
        self._transport.write(head.encode("latin-1") + (b"" if self._head_only else answer.body))
        if not self._keep:
            self._transport.close()

    def _headers(self, answer: Answer) -> str:
        if not answer.headers:
            return "Content-Type: application/json\r\n" + ("" if self._keep else "Connection: close\r\n")
        headers = answer.headers
        if not any(name == "Content-Type" for name, _ in headers):
            headers = (_JSON, *headers)
        if not self._keep:
            headers = (*headers, ("Connection", "close"))
        return "".join(f"{name}: {value}\r\n" for name, value in headers)

    async def _stream(self, answer: Answer, chunks: AsyncIterator[bytes]) -> None:
        """Sends chunks as they come, no faster than the client takes them."""
        self._keep = (
            self._keep and self._chunked
        )  # whoever knows no chunks reads to the end of the connection
        self._write_head_of_stream(answer)
        async for chunk in chunks:
            if chunk:
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
                await self._may_write.wait()
        self._pump = None
        if self._chunked:
            self._transport.write(b"0\r\n\r\n")
        self._end_stream()

    def _end_stream(self) -> None:
        if not self._keep:
            self._transport.close()
        self._answered()

    def _write_head_of_stream(self, answer: Answer) -> None:
        coding = "Transfer-Encoding: chunked\r\n" if self._chunked else ""
        head = f"{_FIRST[answer.status]}{coding}{self._headers(answer)}\r\n"
        self._transport.write(head.encode("latin-1"))


def _origin_form(target: str) -> str:
    """The path and query of a target that names the server too, as a proxy is asked (RFC 9112, section 3.2.2).

    >>> _origin_form("http://n1:8001/v1/keys/a?b"), _origin_form("HTTPS://n1?b"), _origin_form("*")
    ('/v1/keys/a?b', '/?b', '*')
    """
    scheme, _, rest = target.partition("://")
    if scheme.lower() not in ("http", "https"):
        return target
    at = min((place for mark in "/?" if (place := rest.find(mark)) >= 0), default=len(rest))
    return rest[at:] if rest[at : at + 1] == "/" else "/" + rest[at:]


def _headers_of(lines: list[str]) -> dict[str, str]:
    """Headers by name.

    What two readers could take for two different things is refused: a request is not to be longer for us than
    for a proxy before us (RFC 9112, sections 5.1, 5.2 and 6.3).
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or " " in name or "\t" in name:
            raise Refusal(400, f"{line[:100]!r} is no header")
        name = name.lower()
        if name in headers and name in ("content-length", "transfer-encoding", "host"):
            raise Refusal(400, f"{name} is there twice")
        headers[name] = value.strip()
    return headers


def _body_length(headers: dict[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise Refusal(400, "a body needs Content-Length; chunks are not taken")
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit()) or int(text) > BODY_BYTES_MAX:
        raise Refusal(413, f"a body of {text[:20]} bytes; at most {BODY_BYTES_MAX} are taken")
    return int(text)


def _keeps(version: str, connection: str) -> bool:
    """Whether a connection lives on after a call."""
    wishes = [wish.strip() for wish in connection.lower().split(",")]
    return "keep-alive" in wishes if version == "HTTP/1.0" else "close" not in wishes
