"""Connections between servers: what one sends and what it is sent, as frames of messages.

Theory of operation
    Each server dials each other one and only sends on that connection; it only receives on those dialled by
    others. A connection begins with a `Hello`: the cluster's name and the sender's, so that servers of two
    clusters that were given each other's addresses by mistake do not mix. All messages that one turn of the
    node has for a peer travel in one frame and one system call; none waits for another's answer, so as much is
    under way as the core's window allows.

    With TLS both sides show a certificate (`raft.security`), and nobody speaks for others: a message comes from the
    member that the connection was greeted by, which is the one that the certificate names.

    A connection on which nothing has been acknowledged for a while is given up and dialled anew: after a partition
    TCP would go on waiting, for longer the longer the partition was.

    What waits to be sent to a peer that is slow or away is bounded, and beyond that dropped: messages may be
    lost, the protocol knows how to repeat itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import Callable
from typing import cast

import msgspec

from raft import logs
from raft.core import Message
from raft.framing import BadFrame, Unframer, frame
from raft.security import wrong_identity
from raft.settings import Address

_FRAME_BYTES_MAX = 64 << 20
_FRAME_BYTES_USUAL_MAX = 8 << 20  # more than that to send becomes several frames
_QUEUE_MESSAGES_MAX = 4_096
_DIAL_AGAIN_S_MIN = 0.02
_DIAL_AGAIN_S_MAX = 1.0
_WELCOME_S_MIN = 0.1  # who ends a connection sooner does not want it
_DIAL_S_MAX = 2.0
_GUESTS_MAX = 64
_UNACKNOWLEDGED_MS_MAX = 2_000
_VERSION = 2
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Message]).decode


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a connection between peers."""

    cluster: str
    name: str
    version: int = _VERSION


_decode_hello = msgspec.msgpack.Decoder(Hello).decode


class Peer(asyncio.Protocol):
    """The outgoing side: one other server. Dials it, again and again, for as long as its task runs."""

    def __init__(
        self,
        hello: Hello,
        name: str,
        address: Address,
        tls: ssl.SSLContext | None = None,
        *,
        identified: bool = False,
    ) -> None:
        self.name = name
        self.address = address
        self.sent = self.dropped = 0
        self._complaint = ""
        self._identified = identified  # by its certificate
        self._wrong: str | None = None  # with the one that it has shown
        self._hello = frame(_encode(hello))
        self._tls = tls
        self._queue: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._lost = asyncio.Event()
        self._seen = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._dial(), name=f"to {name}")

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._transport is not None

    def dial_now(self) -> None:
        """The peer has just been heard of: waiting any longer before the next attempt would be idle."""
        self._seen.set()

    def send(self, message: Message) -> None:
        """Queues a message; it leaves with the next `flush`."""
        if self._transport is None or len(self._queue) >= _QUEUE_MESSAGES_MAX:
            self.dropped += 1  # to nobody: it would be old news by the time anybody listens
            return
        self._queue.append(_encode(message))

    def flush(self) -> None:
        """Sends what is queued, in one frame."""
        transport, queue = self._transport, self._queue
        if transport is None or self._paused or not queue:
            return
        self.sent += len(queue)
        transport.write(_frames(queue))
        queue.clear()

    async def _dial(self) -> None:
        wait_s = _DIAL_AGAIN_S_MIN
        while True:
            self._lost.clear()
            try:
                async with asyncio.timeout(_DIAL_S_MAX):
                    await self._loop.create_connection(
                        lambda: self, self.address.host, self.address.port, ssl=self._tls
                    )
                if self._wrong is not None:
                    raise ssl.SSLCertVerificationError(self._wrong)
            except (OSError, TimeoutError) as error:
                self._complain(error)
            else:
                began_s = self._loop.time()
                try:
                    await self._lost.wait()
                finally:
                    self._close()
                if self._loop.time() - began_s > _WELCOME_S_MIN:
                    wait_s, self._complaint = _DIAL_AGAIN_S_MIN, ""
                    continue
            self._seen.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * (0.5 + random.random() / 2)):
                    await self._seen.wait()
            wait_s = min(2 * wait_s, _DIAL_AGAIN_S_MAX)

    def _complain(self, error: Exception) -> None:
        """Says what is wrong with a certificate, once; that nobody listens is nothing unusual."""
        if isinstance(error, ssl.SSLError) and str(error) != self._complaint:
            self._complaint = str(error)
            logs.event("peer refused", level=logging.WARNING, peer=self.name, reason=self._complaint)

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        self._queue.clear()
        if transport is not None:
            transport.close()

    # -- what the transport says -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The peer has answered."""
        if self._identified:
            self._wrong = wrong_identity(transport.get_extra_info("peercert"), self.name)
            if self._wrong is not None:
                transport.close()
                return
        self._transport = cast("asyncio.Transport", transport)
        self._paused = False
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS_MAX)
        self._transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, or we are."""
        del exc
        self._transport = None
        self._queue.clear()
        self._lost.set()

    def pause_writing(self) -> None:
        """The peer takes less than we send."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._paused = False
        self.flush()


def _frames(messages: list[bytes]) -> bytes:
    """Encoded messages as few frames, each a list of them."""
    if sum(map(len, messages)) <= _FRAME_BYTES_USUAL_MAX:
        return frame(
            b"".join((b"\xdd", len(messages).to_bytes(4), *messages))
        )  # the head of a list in msgpack
    half = len(messages) // 2
    if not half:
        return frame(b"\xdd\0\0\0\1" + messages[0])
    return _frames(messages[:half]) + _frames(messages[half:])


class Guests:
    """The connections that others have dialled, of which there are never too many.

    A server has one. If it dials again, the one before is worth nothing, although nobody may have told us: behind a
    partition it would stay for ever. When there are too many the oldest goes, also of those who have not said yet who
    they are.
    """

    def __init__(self, guests_max: int = _GUESTS_MAX) -> None:
        self._max = guests_max  # of each kind
        self._strangers: dict[Inbound, None] = {}
        self._named: dict[str, Inbound] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._named)

    def came(self, inbound: Inbound) -> None:
        """Somebody has dialled."""
        self._strangers[inbound] = None
        if len(self._strangers) > self._max:
            next(iter(self._strangers)).end()

    def greeted(self, inbound: Inbound, name: str) -> None:
        """It has said who it is."""
        self._strangers.pop(inbound, None)
        former = self._named.pop(name, None)
        self._named[name] = inbound
        if former is not None:
            former.end()
        if len(self._named) > self._max:
            next(iter(self._named.values())).end()

    def went(self, inbound: Inbound, name: str | None) -> None:
        """It is gone."""
        self._strangers.pop(inbound, None)
        if name is not None and self._named.get(name) is inbound:
            del self._named[name]


class Inbound(asyncio.Protocol):
    """The incoming side: a connection that another server has dialled."""

    def __init__(
        self,
        cluster: str,
        take: Callable[[list[Message]], None],
        greeted: Callable[[str], None],
        guests: Guests,
        *,
        me: str,
        identified: bool = False,
    ) -> None:
        self._guests = guests
        self._me = me
        self._cluster = cluster
        self._on_greeted = greeted
        self._take = take
        self._identified = identified  # by their certificates
        self._name: str | None = None  # whose connection it is, once that is known
        self._unframer = Unframer(_FRAME_BYTES_MAX)
        self._transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has dialled."""
        self._transport = transport
        self._guests.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._guests.went(self, self._name)

    def end(self) -> None:
        """Ends the connection."""
        self._guests.went(self, self._name)
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes of frames; a connection that sends anything else is ended."""
        try:
            for body in self._unframer.feed(data):
                if self._name is not None:
                    self._take(self._own(_decode(body)))
                else:
                    self._greet(_decode_hello(body))
        except (BadFrame, msgspec.DecodeError) as error:
            logs.event("peer's connection ended", level=logging.WARNING, reason=str(error))
            self._transport.close()

    def _greet(self, hello: Hello) -> None:
        if hello.cluster != self._cluster or hello.version != _VERSION:
            raise BadFrame(f"it is {hello.name} of cluster {hello.cluster!r}, version {hello.version}")
        if self._identified:
            wrong = wrong_identity(self._transport.get_extra_info("peercert"), hello.name)
            if wrong is not None:
                raise BadFrame(wrong)
        self._guests.greeted(self, hello.name)
        self._name = hello.name
        self._on_greeted(hello.name)

    def _own(self, messages: list[Message]) -> list[Message]:
        """The messages, if they are all of the one who sends them, and for this server."""
        for message in messages:
            if message.src != self._name:
                raise BadFrame(f"{self._name} speaks for {message.src}")
            if message.dst != self._me:
                raise BadFrame(
                    f"{self._name} takes this server, {self._me}, for {message.dst}: compare their --member lines"
                )
        return messages
