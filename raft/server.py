"""The asyncio host: the same `Node` that runs in the simulator, on sockets, files and the real clock.

Theory of operation
    Everything that touches the node happens in the event loop's thread, one callback at a time. The exception
    is the disk: a sync runs in a thread of its own, one at a time, and comes back as a callback.

    A storage error ends the process: see `raft.wal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from raft.bugs import assemble
from raft.core import Message, Record, Saved
from raft.disk import FileDisk
from raft.http import HttpFront
from raft.node import Node
from raft.peers import Hello, Inbound, Peer
from raft.settings import Settings
from raft.wal import Wal

log = logging.getLogger("raft")


class FileStorage:
    """The write-ahead log, written and synced in a thread of its own, or at once where nothing is synced."""

    def __init__(self, wal: Wal, failed: Callable[[BaseException], None], *, at_once: bool) -> None:
        self.wal = wal
        self._at_once = at_once
        self.syncs = 0
        self.sync_seconds = 0.0
        self._failed = failed
        self._pending: list[Record] = []
        self._loop = asyncio.get_running_loop()
        # A queue and a thread cost half of what an executor and its futures do. At most one batch is in it.
        self._batches: SimpleQueue[tuple[list[Record], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="raft-disk", daemon=True)
        self._thread.start()

    def load(self) -> Saved | None:
        """What was durable at the last stop."""
        return self.wal.load()

    def write(self, records: Sequence[Record]) -> None:
        """Queues records for the next sync."""
        self._pending.extend(records)

    def sync(self, done: Callable[[], None]) -> None:
        """Writes and syncs what is queued; the node asks for one sync at a time."""
        batch, self._pending = self._pending, []
        if self._at_once:
            self.wal.commit(batch)
            done()
        else:
            self._batches.put((batch, done))

    def _work(self) -> None:
        while (work := self._batches.get()) is not None:
            batch, done = work
            began = time.monotonic()
            try:
                self.wal.commit(batch)
            except BaseException as error:  # noqa: BLE001 - whatever it is, nothing is durable any more
                self._loop.call_soon_threadsafe(self._failed, error)
                return
            self._loop.call_soon_threadsafe(self._finished, time.monotonic() - began, done)

    def _finished(self, seconds: float, done: Callable[[], None]) -> None:
        self.syncs += 1
        self.sync_seconds += seconds
        done()

    def close(self) -> None:
        """Waits for the sync under way."""
        self._batches.put(None)
        self._thread.join()


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
    """One process of the cluster. `run` returns when `stop` is called, and raises if the disk failed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.received = 0
        self.peers: dict[str, Peer] = {}
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
        disk = FileDisk(settings.data_dir, unsafe_no_sync=settings.unsafe_no_sync)
        self.storage = FileStorage(Wal(disk), self._fail, at_once=settings.unsafe_no_sync)
        names = [] if settings.join else [member.name for member in settings.members]
        node_class = _in_batches(assemble(settings.bugs))
        self.node = node_class(
            settings.name, names, self, settings.options, self._observe, joining=settings.join
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(disk.close)
            stack.callback(self.storage.close)
            hello = Hello(settings.cluster, settings.name)
            for member in settings.members:
                if member.name != settings.name:
                    peer = self.peers[member.name] = Peer(hello, member.name, member.peers)
                    stack.callback(peer.task.cancel)
            self.node.start()
            stack.callback(self.node.stop, "the server stops")
            loop = asyncio.get_running_loop()
            inbound = await loop.create_server(self._inbound, settings.me.peers.host, settings.me.peers.port)
            stack.callback(inbound.close)
            front = HttpFront(self)
            clients = await loop.create_server(
                front.http1.connection, settings.me.clients.host, settings.me.clients.port
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

    def _take(self, messages: list[Message]) -> None:
        """Hands messages of another server to the node."""
        self.received += len(messages)
        for message in messages:
            self.node.on_message(message)

    def _inbound(self) -> Inbound:
        return Inbound(self.settings.cluster, self.settings.name, self._take)


def _where(server: asyncio.Server) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()[:2]
    return str(host), int(port)
