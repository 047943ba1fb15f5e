"""Passing a client's call on to the leader, for clients that cannot follow a redirect.

Rules of this module
    1. A call is sent once. If no connection could be made, nothing was sent, and the answer says so (503);
       whatever goes wrong afterwards leaves it unknown whether the call took effect (504).
    2. A call that was passed on once is not passed on again: two servers that take each other for the leader
       would hand it to and fro.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from raft.http1 import BODY_BYTES_MAX, Answer, Call
from raft.http_calls import error
from raft.settings import Address

_IDLE_MAX = 64
_ANSWER_BYTES_MAX = 4 * BODY_BYTES_MAX
_HOP_BY_HOP = ("connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding")
FORWARDED = "raft-forwarded-by"


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Proxy:
    """Connections to other servers' client side; a few are kept for each."""

    def __init__(self, name: str, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self._name = name
        self._tls = tls
        self._timeout_s = timeout_s
        self._idle: dict[Address, list[_Connection]] = {}

    def close(self) -> None:
        """Ends all connections."""
        for kept in self._idle.values():
            for connection in kept:
                connection.writer.transport.abort()
        self._idle.clear()

    async def forward(self, address: Address, call: Call) -> Answer:
        """What the server there answers."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect(address)
        except (OSError, TimeoutError) as cause:
            return error(503, f"the leader cannot be reached: {str(cause) or 'no connection in time'}")
        answer = None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer, keep = await _exchange(connection, self._head(address, call) + call.body)
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as cause:
            return error(504, f"the leader did not answer: {str(cause) or 'not in time'}")
        finally:
            if answer is None:
                connection.writer.transport.abort()
        kept = self._idle.setdefault(address, [])
        if keep and len(kept) < _IDLE_MAX:
            kept.append(connection)
        else:
            connection.writer.close()
        return answer

    async def _connect(self, address: Address) -> _Connection:
        kept = self._idle.get(address, [])
        while kept:
            connection = kept.pop()
            if not (connection.reader.at_eof() or connection.writer.is_closing()):
                return connection
            connection.writer.close()
        return _Connection(*await asyncio.open_connection(address.host, address.port, ssl=self._tls))

    def _head(self, address: Address, call: Call) -> bytes:
        headers = [(name, value) for name, value in call.headers.items() if name not in _HOP_BY_HOP]
        headers += [("host", f"{address.host}:{address.port}"), (FORWARDED, self._name)]
        headers.append(("content-length", str(len(call.body))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        target = f"{call.path}?{call.query}" if call.query else call.path
        return f"{call.method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


async def _exchange(connection: _Connection, call: bytes) -> tuple[Answer, bool]:
    """Sends a call; returns the answer, and whether the connection may be used again."""
    connection.writer.write(call)
    head = (await connection.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers["content-length"]) if "content-length" in headers else -1
    if not 0 <= length <= _ANSWER_BYTES_MAX:
        raise ValueError("the answer is not of a length that can be passed on")
    body = await connection.reader.readexactly(length)
    passed = [
        (name, headers[name.lower()]) for name in ("Location", "Content-Type") if name.lower() in headers
    ]
    return Answer(int(first.split(" ")[1]), body, tuple(passed)), headers.get("connection") != "close"
