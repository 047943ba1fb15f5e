"""The asyncio host: the same `Node` that runs in the simulator, on sockets, files and the real clock.

Theory of operation
    Everything that touches the node happens in the event loop's thread, one callback at a time. The exception
    is the disk: a sync runs in a thread of its own, one at a time, and comes back as a callback.

    Each server dials each other one and only sends on that connection; it only receives on those dialled by
    others. A connection begins with the cluster's name and the sender's, so that servers of two clusters that
    were given each other's addresses by mistake do not mix. What waits to be sent to a peer that is slow or
    away is bounded, and beyond that dropped: messages may be lost, the protocol knows how to repeat itself.

    A storage error ends the process: see `raft.wal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import msgspec

from raft.bugs import assemble
from raft.core import Message, Record, Saved
from raft.disk import FileDisk
from raft.framing import BadFrame, Unframer, frame
from raft.http import HttpFront
from raft.node import Node
from raft.settings import Member, Settings
from raft.wal import Disk, Wal

log = logging.getLogger("raft")

_MESSAGE_BYTES_MAX = 64 << 20
_QUEUE_MESSAGES_MAX = 4_096
_DIAL_AGAIN_S_MAX = 1.0
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class OpenDisk(Disk, Protocol):
    """A directory that is held open."""

    def close(self) -> None:
        """Lets go of it."""


class _Hello(msgspec.Struct, frozen=True, array_like=True):
    """The first frame of a connection between peers."""

    cluster: str
    name: str
    version: int = 1


_decode_hello = msgspec.msgpack.Decoder(_Hello).decode


class FileStorage:
    """The write-ahead log, synced in a thread."""

    def __init__(self, wal: Wal, failed: Callable[[BaseException], None]) -> None:
        self.wal = wal
        self.syncs = 0
        self.sync_seconds = 0.0
        self._failed = failed
        self._pending: list[Record] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="raft-disk")

    def load(self) -> Saved | None:
        """What was durable at the last stop."""
        return self.wal.load()

    def write(self, records: Sequence[Record]) -> None:
        """Queues records for the next sync."""
        self._pending.extend(records)

    def sync(self, done: Callable[[], None]) -> None:
        """Writes and syncs what is queued; the node asks for one sync at a time."""
        batch, self._pending = self._pending, []
        began = time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._thread, self.wal.commit, batch)

        def finished(outcome: asyncio.Future[None]) -> None:
            error = None if outcome.cancelled() else outcome.exception()
            if error is not None:
                self._failed(error)
            elif not outcome.cancelled():
                self.syncs += 1
                self.sync_seconds += time.monotonic() - began
                done()

        future.add_done_callback(finished)

    def close(self) -> None:
        """Waits for the sync under way."""
        self._thread.shutdown(wait=True)


class _Peer:
    """The outgoing side of a connection to one other server."""

    def __init__(self, server: Server, member: Member) -> None:
        self.member = member
        self.sent = self.dropped = 0
        self._server = server
        self._queue: list[bytes] = []
        self._wake = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"to {member.name}")

    def send(self, message: Message) -> None:
        if len(self._queue) >= _QUEUE_MESSAGES_MAX:
            self.dropped += 1
            return
        self._queue.append(frame(_encode(message)))
        self._wake.set()

    async def _run(self) -> None:
        wait_s = 0.02
        while True:
            try:
                address = self.member.peers
                _, writer = await asyncio.open_connection(address.host, address.port)
            except OSError:
                self._queue.clear()  # old news by the time anybody listens
                await asyncio.sleep(wait_s * (0.5 + random.random() / 2))
                wait_s = min(2 * wait_s, _DIAL_AGAIN_S_MAX)
                continue
            wait_s = 0.02
            try:
                await self._pump(writer)
            except OSError:
                pass
            finally:
                writer.close()

    async def _pump(self, writer: asyncio.StreamWriter) -> None:
        hello = _Hello(self._server.settings.cluster, self._server.settings.name)
        writer.write(frame(_encode(hello)))
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._queue = self._queue, []
            self.sent += len(batch)
            writer.writelines(batch)
            await writer.drain()


def _in_batches(node_class: type[Node]) -> type[Node]:
    """A node whose turn comes once all that has arrived is taken in.

    So requests that come together share a message to each follower, a write and a sync, however they came.
    """

    class Batched(node_class):  # type: ignore[valid-type, misc]
        _turn_is_due = False

        def _turn(self) -> None:
            if not self._turn_is_due:
                self._turn_is_due = True
                asyncio.get_running_loop().call_soon(self._late_turn)

        def _late_turn(self) -> None:
            self._turn_is_due = False
            if not self.stopped:
                super()._turn()

    return Batched


class Server:
    """One process of the cluster. `run` returns when `stop` is called, and raises if the disk failed.

    A simulated world brings its own `open_disk`. `observer` is told what the node's observer is (see `raft.node`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        open_disk: Callable[[Path], OpenDisk] = FileDisk,
        observer: Callable[..., None] | None = None,
    ) -> None:
        self.settings = settings
        self._open_disk = open_disk
        self._observer = observer
        self.received = 0
        self.peers: dict[str, _Peer] = {}
        self.storage: FileStorage
        self.node: Node
        self._random = random.Random()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None

    # -- the host of the node ----------------------------------------------------------------------

    def now_us(self) -> int:
        """Monotonic time in microseconds."""
        return time.monotonic_ns() // 1000

    def random(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def call_later(self, delay_us: int, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        """Calls back once."""
        return asyncio.get_running_loop().call_later(delay_us / 1e6, callback, *args)

    def send(self, dst: str, message: Message) -> None:
        """Queues a message for a peer."""
        peer = self.peers.get(dst)
        if peer is not None:
            peer.send(message)

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until told to stop."""
        settings = self.settings
        disk = self._open_disk(settings.data_dir)
        self.storage = FileStorage(Wal(disk), self._fail)
        names = [] if settings.join else [member.name for member in settings.members]
        node_class = _in_batches(assemble(settings.bugs))
        self.node = node_class(
            settings.name, names, self, settings.options, self._observe, joining=settings.join
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(disk.close)
            stack.callback(self.storage.close)
            for member in settings.members:
                if member.name != settings.name:
                    peer = self.peers[member.name] = _Peer(self, member)
                    stack.callback(peer.task.cancel)
            self.node.start()
            stack.callback(self.node.stop, "the server stops")
            inbound = await asyncio.start_server(
                self._on_peer, settings.me.peers.host, settings.me.peers.port
            )
            stack.callback(inbound.close)
            front = HttpFront(self)
            clients = await asyncio.start_server(
                front.serve, settings.me.clients.host, settings.me.clients.port
            )
            stack.callback(front.close)
            stack.callback(clients.close)
            log.info("%s listens to clients at %s:%d", settings.name, *_where(clients))
            await self._stopping.wait()
            await self._hand_over()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends `run`, after leadership has been handed over if this server has it."""
        self._stopping.set()

    async def _hand_over(self) -> None:
        """Saves the cluster an election timeout (thesis 3.10)."""
        if self._failure is None and self.node.transfer():
            deadline = time.monotonic() + self.settings.options.election_timeout_us_max / 1e6
            # The node knows nothing of loops and their events, so it is looked at now and then.
            while self.node.status().role == "leader" and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    def _fail(self, error: BaseException) -> None:
        log.critical("%s: the disk failed, so this server stops: %s", self.settings.name, error)
        self._failure = error
        self.node.stop("the disk failed")
        self.stop()

    def _observe(self, event: str, **fields: Any) -> None:
        if event != "committed":
            log.info("%s %s %s", self.settings.name, event, fields)
        if self._observer is not None:
            self._observer(event, **fields)

    async def _on_peer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unframer = Unframer(_MESSAGE_BYTES_MAX)
        greeted = False
        try:
            while data := await reader.read(1 << 16):
                for body in unframer.feed(data):
                    if greeted:
                        self.received += 1
                        self.node.on_message(_decode(body))
                    else:
                        self._greet(_decode_hello(body))
                        greeted = True
        except (OSError, BadFrame, msgspec.DecodeError) as error:
            log.warning("%s: a peer's connection ended: %s", self.settings.name, error)
        except asyncio.CancelledError:
            pass  # the server stops; Python 3.11 would report the handler's cancellation as an error
        finally:
            writer.close()

    def _greet(self, hello: _Hello) -> None:
        if hello.cluster != self.settings.cluster or hello.version != 1:
            raise BadFrame(f"it is {hello.name} of cluster {hello.cluster!r}, version {hello.version}")


def _where(server: asyncio.Server) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()[:2]
    return str(host), int(port)
