"""The HTTP/1.1 side: what clients and operators see of a server. `docs/raft-http.md` has every call.

    GET PUT POST DELETE  /v1/keys/{key}     read, set, compare and set, remove
    GET DELETE           /v1/keys?prefix=   the keys of a prefix, or from start= to end=
    POST                 /v1/txn            compare, then, else; or a list of reads, writes and appends
    GET                  /v1/watch?key=     changes as they come, one JSON a line
    GET POST DELETE      /v1/leases[/{id}]  list, grant, read, keep alive, revoke
    POST DELETE          /v1/sessions[/{id}]
    POST                 /v1/request        a whole `raft.api.Request`; 200 and the `Response`, whatever it is
    GET POST             /members           who belongs to the cluster; add, promote, remove
    POST                 /transfer          hands leadership over
    GET                  /health /leader /status /metrics /v1/log

A server that is not the leader answers 307 with the leader's address, or 503 if it knows none; where it may, it
passes the call on instead. 504 means that nobody knows whether the write took effect. A write is made safe to
repeat by the headers `Client` and `Seq`: repeat it with the same pair, and it takes effect once.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from raft import logs
from raft.api import Command, Compacted, Done, NotLeader, Reply, Request, Response, Unknown, Watch
from raft.http1 import Answer, Call, Http1, Refusal, Respond
from raft.http_admin import Admin, Latencies
from raft.http_calls import answer_of, command_of, encode, error, refuse_deep, refuse_long, watch_of
from raft.proxy import FORWARDED, Proxy
from raft.security import token_matches

if TYPE_CHECKING:
    from raft.server import Server

_WATCH_WAIT_MS = 10_000  # after which a stream says that nothing has happened
_OPEN_PATHS = ("/health", "/leader")  # for probes, which have no token
_decode_request = msgspec.json.Decoder(Request).decode


class _Waiting:
    """A request that the node has not answered yet."""

    __slots__ = ("deadline_s", "reply")

    def __init__(self, reply: Reply, deadline_s: float) -> None:
        self.reply: Reply | None = reply
        self.deadline_s = deadline_s


class HttpFront:
    """Answers clients on behalf of one server."""

    def __init__(self, server: Server) -> None:
        settings = server.settings
        self.server = server
        self._loop = asyncio.get_running_loop()
        self.http1 = Http1(
            self.handle, lambda refusal: error(refusal.status, str(refusal)), server.connections_max
        )
        self.answered: dict[str, int] = {}
        self.latencies = Latencies()
        self.proxy = Proxy(settings.name, server.tls.dial_clients, settings.request_timeout_ms / 1000)
        self._timeout_s = settings.request_timeout_ms / 1000
        self._scheme = "https" if settings.client_tls.cert else "http"
        # Calls that name no client get a session of their own, for nobody will repeat them.
        self._anonymous = f"anonymous-{uuid.uuid4().hex}"
        self._count = itertools.count(1)
        self._waiting: deque[_Waiting] = deque()  # in the order of their deadlines
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        admin = Admin(self)
        self._routes: dict[tuple[str, str], Callable[[Call], Answer]] = {
            ("GET", "/health"): admin.on_health,
            ("GET", "/leader"): admin.on_leader,
            ("GET", "/status"): admin.on_status,
            ("GET", "/metrics"): admin.on_metrics,
            ("GET", "/members"): admin.on_members,
            ("POST", "/members"): admin.on_change_members,
            ("POST", "/transfer"): admin.on_transfer,
            ("GET", "/v1/log"): admin.on_log,
        }

    def close(self) -> None:
        """Ends all connections."""
        self.http1.close()
        self.proxy.close()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def handle(self, call: Call, respond: Respond) -> Callable[[], None] | None:
        """Answers one call, now or later; returns what is to be done if its client goes before."""
        try:
            self._authorize(call)
            refuse_deep(call.body)
            if (call.method, call.path) == ("POST", "/v1/request"):
                return self._on_request(call, respond)
            if (call.method, call.path) == ("GET", "/v1/watch"):
                return self._on_watch(call, respond)
            if (command := command_of(call)) is not None:
                self._on_command(call, command, respond)
            else:
                respond(self._route(call))
        except Refusal as refusal:
            headers = (("WWW-Authenticate", "Bearer"),) if refusal.status == 401 else ()
            respond(Answer(refusal.status, error(refusal.status, str(refusal)).body, headers))
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as cause:
            respond(error(400, f"the call is not what it should be: {cause}"))
        except Exception as cause:  # noqa: BLE001 - a client is told, and its connection lives on
            what = f"{type(cause).__name__}: {cause}"
            logs.log.error("a call failed", exc_info=cause, extra={"fields": {"path": call.path}})
            respond(error(500, f"this server failed at the call: {what}"))
        return None

    def _authorize(self, call: Call) -> None:
        token = self.server.settings.token
        if not token or call.path in _OPEN_PATHS:
            return
        if not token_matches(token, call.headers.get("authorization", "")):
            raise Refusal(401, "this needs the header Authorization: Bearer and the token of this cluster")

    def _route(self, call: Call) -> Answer:
        path = call.path if call.path.startswith("/v1/log") else call.path.removeprefix("/v1")
        handler = self._routes.get((call.method, path))
        if handler is None:
            known = path in ("/request", "/watch") or any(path == other for _, other in self._routes)
            raise Refusal(405 if known else 404, f"there is no {call.method} {call.path}")
        return handler(call)

    # -- requests ----------------------------------------------------------------------------------

    def _on_request(self, call: Call, respond: Respond) -> Callable[[], None] | None:
        def reply(response: Response) -> None:
            if isinstance(response, NotLeader) and self._passes_on(call):
                self._pass_on(response.leader, call, respond)
            else:
                respond(Answer(200, encode(response)))

        request = _decode_request(call.body)
        refuse_long(request.command)
        self._ask(request, reply)
        return (
            (lambda: self.server.node.watches.forget(reply)) if isinstance(request.command, Watch) else None
        )

    def _on_command(self, call: Call, command: Command, respond: Respond) -> None:
        def reply(response: Response) -> None:
            if not isinstance(response, NotLeader):
                respond(answer_of(command, response))
            elif self._passes_on(call):
                self._pass_on(response.leader, call, respond)
            else:
                respond(self.redirect(response.leader, call))

        self._ask(self._request(call, command), reply)

    def _request(self, call: Call, command: Command) -> Request:
        client, seq = call.headers.get("client"), call.headers.get("seq", "")
        if client is None:
            number = next(self._count)
            return Request(f"{self._anonymous}-{number % 64}", number, command)
        if not (seq.isascii() and seq.isdigit()) or len(seq) > 18:
            raise Refusal(
                400, f"Seq is {seq[:30]!r}; with Client it must be a number that grows with every request"
            )
        return Request(client, int(seq), command)

    def _ask(self, request: Request, reply: Reply) -> None:
        """Puts a request to the node, and replies what it answers, or Unknown if that takes too long."""
        loop, timeout_s = self._loop, self._timeout_s
        if isinstance(request.command, Watch):  # which has a time of its own
            self.server.node.on_request(request, reply)
            return
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
            self.latencies.add(self._loop.time() - waiting.deadline_s + self._timeout_s)
            reply(response)

    def _expire(self) -> None:
        """One timer serves all requests, for they all get the same time."""
        self._timer = None
        loop, queue = self._loop, self._waiting
        while queue and (queue[0].reply is None or queue[0].deadline_s <= loop.time()):
            self._reply(queue.popleft(), Unknown("no answer within the server's time limit"))
        if queue:
            self._timer = loop.call_later(queue[0].deadline_s - loop.time(), self._expire)

    # -- the leader is elsewhere -------------------------------------------------------------------

    def redirect(self, leader: str | None, call: Call) -> Answer:
        """Names the leader, for a client that follows."""
        url = self.url_of(leader)
        if url is None:
            return error(503, "this server is not the leader, and knows of none now")
        target = f"{call.path}?{call.query}" if call.query else call.path
        return Answer(307, encode({"leader": leader}), (("Location", url + target),))

    def url_of(self, name: str | None) -> str | None:
        """Where clients reach a server."""
        member = self.server.member(name)
        if member is None:
            return None
        host = f"[{member.clients.host}]" if ":" in member.clients.host else member.clients.host
        return f"{self._scheme}://{host}:{member.clients.port}"

    def _passes_on(self, call: Call) -> bool:
        wish = call.headers.get("proxy")
        wanted = self.server.settings.proxy if wish is None else wish.lower() in ("1", "true", "yes")
        return wanted and FORWARDED not in call.headers

    def _pass_on(self, leader: str | None, call: Call, respond: Respond) -> None:
        member = self.server.member(leader)
        if member is None or leader == self.server.settings.name:
            respond(error(503, "this server is not the leader, and knows of none now"))
            return

        async def forward() -> None:
            respond(await self.proxy.forward(member.clients, call))

        self._keep(asyncio.get_running_loop().create_task(forward()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- changes as they come ----------------------------------------------------------------------

    def _on_watch(self, call: Call, respond: Respond) -> Callable[[], None] | None:
        """One answer if the call says how long it waits, and otherwise a stream."""
        watch = watch_of(call)
        if watch.wait_ms:

            def reply(response: Response) -> None:
                respond(answer_of(watch, response))

            self._ask(self._watching(watch), reply)
            return lambda: self.server.node.watches.forget(reply)
        content = ("Content-Type", "application/x-ndjson")
        respond(Answer(200, b"", (content, ("Cache-Control", "no-store")), self._changes(watch)))
        return None  # the stream ends with its connection

    async def _changes(self, watch: Watch) -> AsyncIterator[bytes]:
        after = watch.after
        if after is None:  # from now on, which is said at once
            after = self.server.node.machine.keys.revision
            yield _line({"revision": after, "events": []})
        while True:
            response = await self._next_changes(
                Watch(watch.key, watch.end, after, _WATCH_WAIT_MS, watch.limit)
            )
            match response:
                case Done(value):
                    after = value["revision"]
                    yield _line(value)
                case Compacted(revision):
                    yield _line({"compacted": revision})
                    return
                case _:
                    yield _line({"error": getattr(response, "reason", "the server stops")})
                    return

    async def _next_changes(self, watch: Watch) -> Response:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def reply(response: Response) -> None:
            if not future.done():
                future.set_result(response)

        self._ask(self._watching(watch), reply)
        try:
            return await future
        finally:
            self.server.node.watches.forget(reply)

    def _watching(self, watch: Watch) -> Request:
        return Request(self._anonymous, 0, watch)


def _line(value: Any) -> bytes:
    return encode(value) + b"\n"
