"""The HTTP/1.1 side: what clients and operators see of a server.

    GET    /v1/keys/{key}      the value: 200 {"value": ...}
    PUT    /v1/keys/{key}      sets it to the JSON in the body
    POST   /v1/keys/{key}      {"expected": ..., "new": ...}: 200 if it held what was expected, else 409
           {"current": ...}
    DELETE /v1/keys/{key}      removes it
    POST   /v1/request         a whole `raft.api.Request` as JSON; 200 and the `Response` as JSON, whatever it
           is
    POST   /v1/transfer        {"to": name or null}: hands leadership over
    POST   /v1/members         {"voters": [...], "learners": [...]}: changes the membership
    GET    /health /leader /status /metrics

A server that is not the leader answers 307 with the leader's address, or 503 if it knows none. 504 means that
nobody knows whether the write took effect. A write is made safe to repeat by the headers `Client` and `Seq`:
repeat it with the same pair, and it takes effect once.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

import msgspec

from raft.api import (
    Cas,
    Command,
    Delete,
    Done,
    Expired,
    Get,
    Mismatch,
    NotLeader,
    Put,
    Refused,
    Request,
    Response,
    Unknown,
)

if TYPE_CHECKING:
    from raft.server import Server

_HEAD_BYTES_MAX = 16 << 10
_BODY_BYTES_MAX = 4 << 20
_REASONS = {
    200: "OK",
    202: "Accepted",
    307: "Temporary Redirect",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode


class _Call(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Answer(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class _Refusal(Exception):
    """A call that is answered with an error, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class _CasBody(msgspec.Struct):
    expected: Any
    new: Any


class _TransferBody(msgspec.Struct):
    to: str | None = None


class _MembersBody(msgspec.Struct):
    voters: list[str]
    learners: list[str] = []


class HttpFront:
    """Answers clients on behalf of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.answered: dict[str, int] = {}
        # Calls that name no client get a session of their own, for nobody will repeat them.
        self._anonymous = f"anonymous-{uuid.uuid4().hex}"
        self._count = itertools.count(1)
        self._connections: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Ends all connections."""
        for task in self._connections:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the calls of one connection, one after another."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (call := await _read_call(reader)) is not None:
                keep = call.headers.get("connection", "").lower() != "close"
                _write_answer(writer, await self._answer(call), keep=keep)
                await writer.drain()
                if not keep:
                    break
        except _Refusal as refusal:
            _write_answer(writer, _error(refusal.status, str(refusal)), keep=False)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, call: _Call) -> _Answer:
        try:
            return await self._route(call)
        except _Refusal as refusal:
            return _error(refusal.status, str(refusal))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _error(400, f"the body is not what it should be: {error}")

    async def _route(self, call: _Call) -> _Answer:
        if call.path.startswith("/v1/keys/"):
            return await self._on_key(call)
        handler = _ROUTES.get((call.method, call.path))
        if handler is None:
            known = any(path == call.path for _, path in _ROUTES)
            raise _Refusal(405 if known else 404, f"there is no {call.method} {call.path}")
        answer: _Answer = await getattr(self, handler)(call)
        return answer

    # -- keys --------------------------------------------------------------------------------------

    async def _on_key(self, call: _Call) -> _Answer:
        key = unquote(call.path.removeprefix("/v1/keys/"))
        response = await self._ask(self._request(call, _command(call, key)))
        if isinstance(response, Done):
            return _json(200, {"value": response.value} if call.method == "GET" else {"ok": True})
        return self._not_done(response, call.path)

    def _not_done(self, response: Response, path: str) -> _Answer:
        match response:
            case NotLeader(leader):
                return self._redirect(leader, path)
            case Mismatch(current):
                return _json(409, {"current": current})
            case Expired(what, name):
                return _error(404, f"there is no {what} {name!r} (any more)")
            case Refused(reason):
                return _error(503, reason)
            case Unknown(reason):
                return _error(504, reason)
            case _:
                return _json(410, {"compacted": getattr(response, "revision", None)})

    def _request(self, call: _Call, command: Command) -> Request:
        client, seq = call.headers.get("client"), call.headers.get("seq", "")
        if client is None:
            number = next(self._count)
            return Request(f"{self._anonymous}-{number % 64}", number, command)
        if not seq.isdigit():
            raise _Refusal(
                400, f"Seq is {seq!r}; with Client it must be a number that grows with every request"
            )
        return Request(client, int(seq), command)

    async def _ask(self, request: Request) -> Response:
        """What the node answers; Unknown if it takes too long."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def reply(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        self.server.node.on_request(request, reply)
        if not future.done():
            await asyncio.wait([future], timeout=self.server.settings.request_timeout_ms / 1000)
        response = future.result() if future.done() else Unknown("no answer within the server's time limit")
        kind = type(response).__name__
        self.answered[kind] = self.answered.get(kind, 0) + 1
        return response

    def _redirect(self, leader: str | None, path: str) -> _Answer:
        url = self._client_url(leader)
        if url is None:
            return _error(503, "this server is not the leader, and knows of none now")
        return _Answer(307, _encode({"leader": leader}), (("Location", url + path),))

    def _client_url(self, name: str | None) -> str | None:
        found = next((member for member in self.server.settings.members if member.name == name), None)
        return f"http://{found.clients.host}:{found.clients.port}" if found else None

    # -- everything else ---------------------------------------------------------------------------

    async def _on_request(self, call: _Call) -> _Answer:
        return _Answer(200, _encode(await self._ask(_decode_request(call.body))))

    async def _on_transfer(self, call: _Call) -> _Answer:
        target = msgspec.json.decode(call.body or b"{}", type=_TransferBody).to
        if self.server.node.status().role != "leader":
            return self._redirect(self.server.node.status().leader, call.path)
        if not self.server.node.transfer(target):
            return _error(409, f"leadership cannot go to {target!r}: it is no other voter")
        return _json(202, {"to": target})

    async def _on_members(self, call: _Call) -> _Answer:
        wanted = msgspec.json.decode(call.body, type=_MembersBody)
        if self.server.node.status().role != "leader":
            return self._redirect(self.server.node.status().leader, call.path)
        outcome = self.server.node.change_config(wanted.voters, wanted.learners)
        return _error(409, outcome) if isinstance(outcome, str) else _json(202, {"index": outcome})

    async def _on_health(self, call: _Call) -> _Answer:
        """Healthy means: there is a leader, so requests can be served, here or there."""
        del call
        status = self.server.node.status()
        return _json(200 if status.leader else 503, {"healthy": status.leader is not None})

    async def _on_leader(self, call: _Call) -> _Answer:
        del call
        leader = self.server.node.status().leader
        return _json(200 if leader else 503, {"leader": leader, "url": self._client_url(leader)})

    async def _on_status(self, call: _Call) -> _Answer:
        del call
        core = self.server.node.core
        config = {"voters": core.voters, "outgoing": core.config.outgoing, "learners": core.config.learners}
        return _json(200, {**self.server.node.status()._asdict(), "config": config})

    async def _on_metrics(self, call: _Call) -> _Answer:
        del call
        return _Answer(200, self._metrics().encode(), (("Content-Type", "text/plain; version=0.0.4"),))

    def _metrics(self) -> str:
        server, status = self.server, self.server.node.status()
        values: list[tuple[str, float]] = [
            ("raft_term", status.term),
            ("raft_is_leader", int(status.role == "leader")),
            ("raft_commit_index", status.commit_index),
            ("raft_applied_index", status.applied_index),
            ("raft_last_index", status.last_index),
            ("raft_log_entries", len(server.node.core.log.entries)),
            ("raft_syncs_total", server.storage.syncs),
            ("raft_sync_seconds_total", server.storage.sync_seconds),
            ("raft_messages_received_total", server.received),
        ]
        for name, peer in server.peers.items():
            values.append((f'raft_messages_sent_total{{peer="{name}"}}', peer.sent))
            values.append((f'raft_messages_dropped_total{{peer="{name}"}}', peer.dropped))
        values += [(f'raft_answers_total{{kind="{kind}"}}', n) for kind, n in sorted(self.answered.items())]
        return "".join(f"{name} {value}\n" for name, value in values)


_ROUTES = {
    ("POST", "/v1/request"): "_on_request",
    ("POST", "/v1/transfer"): "_on_transfer",
    ("POST", "/v1/members"): "_on_members",
    ("GET", "/health"): "_on_health",
    ("GET", "/leader"): "_on_leader",
    ("GET", "/status"): "_on_status",
    ("GET", "/metrics"): "_on_metrics",
}


def _command(call: _Call, key: str) -> Command:
    match call.method:
        case "GET":
            return Get(key)
        case "PUT":
            return Put(key, msgspec.json.decode(call.body))
        case "POST":
            body = msgspec.json.decode(call.body, type=_CasBody)
            return Cas(key, body.expected, body.new)
        case "DELETE":
            return Delete(key)
        case _:
            raise _Refusal(405, f"there is no {call.method} of a key")


def _json(status: int, value: Any) -> _Answer:
    return _Answer(status, _encode(value))


def _error(status: int, why: str) -> _Answer:
    return _json(status, {"error": why})


async def _read_call(reader: asyncio.StreamReader) -> _Call | None:
    """The next call of a connection; None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise
        return None
    except asyncio.LimitOverrunError as error:
        raise _Refusal(413, f"the head of the request is longer than {_HEAD_BYTES_MAX} bytes") from error
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _Refusal(400, f"{first[:100]!r} is no HTTP/1.1 request")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if "transfer-encoding" in headers:
        raise _Refusal(400, "a body needs Content-Length; chunks are not taken")
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > _BODY_BYTES_MAX:
        raise _Refusal(413, f"a body of {length[:20]} bytes; at most {_BODY_BYTES_MAX} are taken")
    body = await reader.readexactly(int(length)) if int(length) else b""
    return _Call(parts[0], parts[1].partition("?")[0], headers, body)


def _write_answer(writer: asyncio.StreamWriter, answer: _Answer, *, keep: bool) -> None:
    headers = [("Content-Length", str(len(answer.body))), *answer.headers]
    if not any(name == "Content-Type" for name, _ in answer.headers):
        headers.append(("Content-Type", "application/json"))
    if not keep:
        headers.append(("Connection", "close"))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n{lines}\r\n"
    writer.write(head.encode("latin-1") + answer.body)
