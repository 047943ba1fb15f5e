"""Simulated connections: what `loop.create_server`, `create_connection` and datagrams are made of.

Theory of operation
    A connection is two endpoints, each an asyncio transport, and two pipes, one for each direction. A pipe keeps what
    was written in order: a segment arrives after the link's delay, never before the one ahead of it. While the link
    is blocked nothing is lost: the segment at the head is sent again and again, with growing pauses, until it passes
    or `TIMEOUT_US` is over, and then the sender's connection breaks. So bytes arrive in order and whole, or the
    connection is reset; they are never silently missing in the middle.

    A partition leaves both ends believing in the connection (half-open). When a process dies its kernel resets its
    connections; where the reset cannot pass, the other end learns of it when it next sends something that does.

Rules of this module
    1. A protocol is called in the context of its own process (`loop.call_soon(..., context=...)`), so that a dead
       process is never called and a paused one later.
    2. Both ends know each other only through pipes; a pipe asks the network about its link each time.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.sim.entropy import SimSocket
from harness.sim.loop import SimTimer

if TYPE_CHECKING:
    from harness.sim.world import World

TIMEOUT_US = 60_000_000  # of data that is not acknowledged; Linux gives up after minutes
CONNECT_TIMEOUT_US = 20_000_000
RETRY_US_MIN, RETRY_US_MAX = 200_000, 3_000_000
HIGH_WATER = 64 * 1024
LOCAL_US = 20

Address = tuple[str, int]
EOF = None  # what a pipe carries besides bytes; and `_BROKEN`, with which the connection ends
_BROKEN = b""


class Pipe:
    """One direction of a connection."""

    def __init__(self, world: World, sender: Endpoint, receiver: Endpoint) -> None:
        self._world = world
        self._sender = sender
        self._receiver = receiver
        self._src, self._dst = sender.host, receiver.host
        self._queue: deque[tuple[int, bytes | None]] = deque()
        self._last_us = 0
        self._stalled_us: int | None = None
        self._retry_us = RETRY_US_MIN
        self._timer: SimTimer | None = None

    def push(self, item: bytes | None) -> None:
        """Send bytes, or the end of the stream."""
        size_bytes = len(item) if item is not None else 0
        if self._src != self._dst and self._world.network.resets(self._src, self._dst):
            item = _BROKEN  # what was written is gone, and only the receiver is told
        arrives_us = self._world.loop.now_us + transit_us(self._world, self._src, self._dst, size_bytes)
        self._last_us = max(self._last_us, arrives_us)
        self._queue.append((self._last_us, item))
        if self._timer is None:
            self._wait_until(self._queue[0][0])

    def drop(self) -> None:
        """Forget what has not arrived."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def kick(self) -> None:
        """The receiver reads again."""
        if self._queue and self._timer is None:
            self._wait_until(self._world.loop.now_us)

    def _wait_until(self, at_us: int) -> None:
        loop = self._world.loop
        self._timer = loop.schedule(at_us - loop.now_us, self._due)

    def _due(self) -> None:
        self._timer = None
        now_us = self._world.loop.now_us
        while self._queue and self._queue[0][0] <= now_us:
            if blocked(self._world, self._src, self._dst):
                self._stall(now_us)
                return
            self._stalled_us, self._retry_us = None, RETRY_US_MIN
            if not self._receiver.readable:
                return  # `kick` goes on
            _, item = self._queue.popleft()
            if item is _BROKEN:
                self.drop()
                self._receiver.reset(ConnectionResetError(104, "Connection reset by peer"))
                return
            self._sender.delivered(len(item) if item is not None else 0)
            self._receiver.receive(item)
        if self._queue and self._timer is None:
            self._wait_until(self._queue[0][0])

    def _stall(self, now_us: int) -> None:
        if self._stalled_us is None:
            self._stalled_us = now_us
        if now_us - self._stalled_us >= TIMEOUT_US:
            self.drop()
            self._sender.reset(TimeoutError(110, "Connection timed out"))
            return
        self._wait_until(now_us + self._retry_us)
        self._retry_us = min(self._retry_us * 2, RETRY_US_MAX)


def blocked(world: World, src: str, dst: str) -> bool:
    """Whether nothing passes now; a host always reaches itself."""
    return src != dst and world.network.blocked(src, dst)


def transit_us(world: World, src: str, dst: str, size_bytes: int = 0) -> int:
    """How long a segment takes."""
    return LOCAL_US if src == dst else world.network.transit_us(src, dst, size_bytes)


class Endpoint(asyncio.Transport):
    """One end of a connection, as its process sees it."""

    def __init__(self, world: World, local: tuple[str, Address], remote: tuple[str, Address]) -> None:
        super().__init__({"sockname": local[1], "peername": remote[1], "socket": SimSocket(endpoint=self)})
        self.host = local[0]
        self.out: Pipe  # set by `connect`
        self.peer: Endpoint
        self._world = world
        self._protocol: asyncio.BaseProtocol | None = None
        self._context: contextvars.Context | None = None
        self._process = world.current()
        self._reading = True
        self._open = True
        self._broken: Exception | None = None  # what broke it
        self._eof_sent = False
        self._buffered = 0
        self._writing_paused = False
        self._high = HIGH_WATER

    # -- between the two ends ---------------------------------------------------------------------------------

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """The process that runs now speaks through this protocol from now on."""
        self._process = self._world.current()
        self._context = contextvars.copy_context()
        self._protocol = protocol
        if not self._open:  # it was broken while its process was on the way to it
            protocol.connection_made(self)
            self._call(protocol.connection_lost, self._broken)
            return
        self._process.endpoints[self] = None
        protocol.connection_made(self)
        self.peer.out.kick()

    @property
    def readable(self) -> bool:
        """Whether something can be delivered now; what is closed takes everything, and answers with a reset."""
        return not self._open or (self._protocol is not None and self._reading)

    def receive(self, item: bytes | None) -> None:
        """Something has arrived."""
        if not self._open or not self._process.alive:
            if item is not EOF:
                self._send_reset()
        elif item is EOF:
            self._call(self._eof_received)
        else:
            self._call(self._data_received, item)

    def delivered(self, count: int) -> None:
        """So many bytes have left the buffer."""
        self._buffered -= count
        if self._writing_paused and self._buffered <= self._high // 4:
            self._writing_paused = False
            if self._open and self._protocol is not None:
                self._call(self._protocol.resume_writing)

    def reset(self, error: Exception | None) -> None:
        """The connection is broken."""
        if self._open:
            self._open = False
            self._broken = error
            self.out.drop()
            self._process.endpoints.pop(self, None)
            if self._protocol is not None:
                self._call(self._protocol.connection_lost, error)

    def die(self) -> None:
        """The process is gone: its kernel resets the connection."""
        if self._open:
            self._open = False
            self.out.drop()
            self._send_reset()

    def _send_reset(self) -> None:
        world, src, dst = self._world, self.host, self.peer.host
        if blocked(world, src, dst):
            return  # the other end learns of it when it sends something
        error = ConnectionResetError(104, "Connection reset by peer")
        world.loop.post(transit_us(world, src, dst), self._deliver_reset, error)

    def _deliver_reset(self, error: Exception) -> None:
        if not blocked(self._world, self.host, self.peer.host):
            self.peer.reset(error)

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        self._world.loop.call_soon(callback, *args, context=self._context)

    def _data_received(self, data: bytes) -> None:
        protocol = self._protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            while data:
                buffer = memoryview(protocol.get_buffer(len(data)))
                count = min(len(buffer), len(data))
                buffer[:count] = data[:count]
                protocol.buffer_updated(count)
                data = data[count:]
        elif isinstance(protocol, asyncio.Protocol):
            protocol.data_received(data)

    def _eof_received(self) -> None:
        protocol = self._protocol
        keep = (
            protocol.eof_received()
            if isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
            else False
        )
        if not keep:
            self.close()

    # -- asyncio's interface ----------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes; on a broken connection they go nowhere, as with asyncio."""
        if not self._open or self._eof_sent or not data or not self._process.alive:
            return
        self._buffered += len(data)
        self.out.push(bytes(data))
        if self._buffered > self._high and not self._writing_paused and self._protocol is not None:
            self._writing_paused = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Close this direction."""
        if self._open and not self._eof_sent:
            self._eof_sent = True
            self.out.push(EOF)

    def can_write_eof(self) -> bool:
        """Directions close one by one."""
        return True

    def close(self) -> None:
        """Send what is written, then the end."""
        if not self._open or not self._process.alive:
            return
        self.write_eof()
        self._open = False
        self._process.endpoints.pop(self, None)
        if self._protocol is not None:
            self._call(self._protocol.connection_lost, None)
        self.peer.out.kick()

    def abort(self) -> None:
        """Reset the connection."""
        if self._open and self._process.alive:
            self._send_reset()
            self.reset(None)

    def is_closing(self) -> bool:
        """Whether it is closed or broken."""
        return not self._open

    def pause_reading(self) -> None:
        """Let the other end wait."""
        self._reading = False

    def resume_reading(self) -> None:
        """Go on."""
        self._reading = True
        self.peer.out.kick()

    def is_reading(self) -> bool:
        """Whether bytes are taken."""
        return self._reading and self._open

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Speak through another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol."""
        assert self._protocol is not None, "an endpoint is handed out with its protocol"
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Only `high` counts; reading goes on at a quarter of it."""
        self._high = high if high is not None else (4 * low if low is not None else HIGH_WATER)

    def get_write_buffer_size(self) -> int:
        """Bytes that have not arrived."""
        return self._buffered

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
        return (self._high // 4, self._high)


def connected(world: World, a: tuple[str, Address], b: tuple[str, Address]) -> tuple[Endpoint, Endpoint]:
    """Both ends of a new connection."""
    left, right = Endpoint(world, a, b), Endpoint(world, b, a)
    left.peer, right.peer = right, left
    left.out, right.out = Pipe(world, left, right), Pipe(world, right, left)
    return left, right


class Server(asyncio.AbstractServer):
    """A listening port of one process."""

    def __init__(self, world: World, address: Address, accept: Callable[[], asyncio.BaseProtocol]) -> None:
        self.world = world
        self.address = address
        self.accept = accept
        self.process = world.current()
        self.context = contextvars.copy_context()
        self._closed = world.loop.create_future()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """One socket that knows its address."""
        return (SimSocket(bound=self.address),) if self.is_serving() else ()

    def take(self, endpoint: Endpoint) -> None:
        """A client has connected; runs in the context of the server's process."""
        endpoint.attach(self.accept())

    def close(self) -> None:
        """Listen no more; connections stay."""
        self.process.host.ports.pop(self.address[1], None)
        if not self._closed.done():
            self._closed.set_result(None)

    async def wait_closed(self) -> None:
        """Wait for `close`."""
        await self._closed

    async def start_serving(self) -> None:
        """It does so from the start."""

    async def serve_forever(self) -> None:
        """Wait until cancelled or closed."""
        try:
            await asyncio.shield(self._closed)
        finally:
            self.close()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The simulator's loop."""
        return self.world.loop

    def is_serving(self) -> bool:
        """Whether clients can connect."""
        return not self._closed.done()


class DatagramEndpoint(asyncio.DatagramTransport):
    """A socket for datagrams: each arrives once, twice or never."""

    def __init__(
        self, world: World, local: Address, remote: Address | None, protocol: asyncio.DatagramProtocol
    ) -> None:
        sock = SimSocket(type=socket.SOCK_DGRAM, endpoint=self)
        super().__init__({"sockname": local, "peername": remote, "socket": sock})
        self._world = world
        self._local = local
        self._remote = remote
        self._protocol = protocol
        self.process = world.current()
        self._context = contextvars.copy_context()
        self._open = True
        self.process.host.datagram_ports[local[1]] = self

    def sendto(self, data: bytes | bytearray | memoryview[Any], addr: Any = None) -> None:
        """Send a datagram."""
        address = addr if addr is not None else self._remote
        if not self._open or not self.process.alive or address is None:
            return
        host = self._world.host_at(address[0], self.process.host)
        if host is not None:
            self._world.network.send(
                self.process.host.name, host.name, (self._local, address[1], bytes(data))
            )

    def receive(self, src: Address, data: bytes) -> None:
        """A datagram has arrived."""
        if self._open and self.process.alive:
            self._world.loop.call_soon(self._protocol.datagram_received, data, src, context=self._context)

    def close(self) -> None:
        """Close the socket."""
        if self._open:
            self._open = False
            self.process.host.datagram_ports.pop(self._local[1], None)
            self._world.loop.call_soon(self._protocol.connection_lost, None, context=self._context)

    abort = close

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return not self._open
