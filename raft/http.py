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
from collections import deque
from typing import TYPE_CHECKING, Any
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
    Reply,
    Request,
    Response,
    Unknown,
)
from raft.http1 import Answer, Call, Http1, Refusal, Respond

if TYPE_CHECKING:
    from raft.server import Server

_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(Request).decode


class _CasBody(msgspec.Struct):
    expected: Any
    new: Any


class _TransferBody(msgspec.Struct):
    to: str | None = None


class _MembersBody(msgspec.Struct):
    voters: list[str]
    learners: list[str] = []


class _Waiting:
    """A request that the node has not answered yet."""

    __slots__ = ("deadline_s", "reply")

    def __init__(self, reply: Reply, deadline_s: float) -> None:
        self.reply: Reply | None = reply
        self.deadline_s = deadline_s


class HttpFront:
    """Answers clients on behalf of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http1 = Http1(self.handle, lambda refusal: _error(refusal.status, str(refusal)))
        self.answered: dict[str, int] = {}
        # Calls that name no client get a session of their own, for nobody will repeat them.
        self._anonymous = f"anonymous-{uuid.uuid4().hex}"
        self._count = itertools.count(1)
        self._waiting: deque[_Waiting] = deque()  # in the order of their deadlines
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Ends all connections."""
        self.http1.close()
        if self._timer is not None:
            self._timer.cancel()

    def handle(self, call: Call, respond: Respond) -> None:
        """Answers one call, now or later."""
        try:
            if call.path.startswith("/v1/keys/"):
                self._on_key(call, respond)
            elif (call.method, call.path) == ("POST", "/v1/request"):
                self._ask(
                    _decode_request(call.body), lambda response: respond(Answer(200, _encode(response)))
                )
            else:
                respond(self._route(call))
        except Refusal as refusal:
            respond(_error(refusal.status, str(refusal)))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            respond(_error(400, f"the body is not what it should be: {error}"))

    def _route(self, call: Call) -> Answer:
        handler = _ROUTES.get((call.method, call.path))
        if handler is None:
            known = call.path == "/v1/request" or any(path == call.path for _, path in _ROUTES)
            raise Refusal(405 if known else 404, f"there is no {call.method} {call.path}")
        answer: Answer = getattr(self, handler)(call)
        return answer

    # -- keys --------------------------------------------------------------------------------------

    def _on_key(self, call: Call, respond: Respond) -> None:
        key = unquote(call.path.removeprefix("/v1/keys/"))
        request = self._request(call, _command(call, key))
        self._ask(request, lambda response: respond(self._key_answer(call, response)))

    def _key_answer(self, call: Call, response: Response) -> Answer:
        if isinstance(response, Done):
            return _json(200, {"value": response.value}) if call.method == "GET" else _OK
        return self._not_done(call, response)

    def _not_done(self, call: Call, response: Response) -> Answer:
        match response:
            case NotLeader(leader):
                return self._redirect(leader, call.path)
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

    def _request(self, call: Call, command: Command) -> Request:
        client, seq = call.headers.get("client"), call.headers.get("seq", "")
        if client is None:
            number = next(self._count)
            return Request(f"{self._anonymous}-{number % 64}", number, command)
        if not seq.isdigit():
            raise Refusal(
                400, f"Seq is {seq!r}; with Client it must be a number that grows with every request"
            )
        return Request(client, int(seq), command)

    def _ask(self, request: Request, reply: Reply) -> None:
        """Puts a request to the node, and replies what it answers, or Unknown if that takes too long."""
        loop = asyncio.get_running_loop()
        timeout_s = self.server.settings.request_timeout_ms / 1000
        waiting = _Waiting(reply, loop.time() + timeout_s)
        queue = self._waiting
        while queue and queue[0].reply is None:
            queue.popleft()
        queue.append(waiting)
        if self._timer is None:
            self._timer = loop.call_later(timeout_s, self._expire)
        self.server.node.on_request(request, lambda response: self._reply(waiting, response))

    def _reply(self, waiting: _Waiting, response: Response) -> None:
        reply, waiting.reply = waiting.reply, None
        if reply is not None:
            kind = type(response).__name__
            self.answered[kind] = self.answered.get(kind, 0) + 1
            reply(response)

    def _expire(self) -> None:
        """One timer serves all requests, for they all get the same time."""
        self._timer = None
        loop, queue = asyncio.get_running_loop(), self._waiting
        while queue and (queue[0].reply is None or queue[0].deadline_s <= loop.time()):
            self._reply(queue.popleft(), Unknown("no answer within the server's time limit"))
        if queue:
            self._timer = loop.call_later(queue[0].deadline_s - loop.time(), self._expire)

    def _redirect(self, leader: str | None, path: str) -> Answer:
        url = self._client_url(leader)
        if url is None:
            return _error(503, "this server is not the leader, and knows of none now")
        return Answer(307, _encode({"leader": leader}), (("Location", url + path),))

    def _client_url(self, name: str | None) -> str | None:
        found = next((member for member in self.server.settings.members if member.name == name), None)
        return f"http://{found.clients.host}:{found.clients.port}" if found else None

    # -- everything else ---------------------------------------------------------------------------

    def _on_transfer(self, call: Call) -> Answer:
        target = msgspec.json.decode(call.body or b"{}", type=_TransferBody).to
        if self.server.node.status().role != "leader":
            return self._redirect(self.server.node.status().leader, call.path)
        if not self.server.node.transfer(target):
            return _error(409, f"leadership cannot go to {target!r}: it is no other voter")
        return _json(202, {"to": target})

    def _on_members(self, call: Call) -> Answer:
        wanted = msgspec.json.decode(call.body, type=_MembersBody)
        if self.server.node.status().role != "leader":
            return self._redirect(self.server.node.status().leader, call.path)
        outcome = self.server.node.change_config(wanted.voters, wanted.learners)
        return _error(409, outcome) if isinstance(outcome, str) else _json(202, {"index": outcome})

    def _on_health(self, call: Call) -> Answer:
        """Healthy means: there is a leader, so requests can be served, here or there."""
        del call
        status = self.server.node.status()
        return _json(200 if status.leader else 503, {"healthy": status.leader is not None})

    def _on_leader(self, call: Call) -> Answer:
        """200 only on the leader itself: what a load balancer probes."""
        del call
        status = self.server.node.status()
        answer = {"leader": status.leader, "url": self._client_url(status.leader)}
        return _json(200 if status.role == "leader" else 503, answer)

    def _on_status(self, call: Call) -> Answer:
        del call
        core = self.server.node.core
        config = {"voters": core.voters, "outgoing": core.config.outgoing, "learners": core.config.learners}
        return _json(200, {**self.server.node.status()._asdict(), "config": config})

    def _on_metrics(self, call: Call) -> Answer:
        del call
        return Answer(200, self._metrics().encode(), (("Content-Type", "text/plain; version=0.0.4"),))

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
    ("POST", "/v1/transfer"): "_on_transfer",
    ("POST", "/v1/members"): "_on_members",
    ("GET", "/health"): "_on_health",
    ("GET", "/leader"): "_on_leader",
    ("GET", "/status"): "_on_status",
    ("GET", "/metrics"): "_on_metrics",
}


def _command(call: Call, key: str) -> Command:
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
            raise Refusal(405, f"there is no {call.method} of a key")


def _json(status: int, value: Any) -> Answer:
    return Answer(status, _encode(value))


_OK = _json(200, {"ok": True})


def _error(status: int, why: str) -> Answer:
    return _json(status, {"error": why})
