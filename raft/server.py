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
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from raft import logs, security
from raft.bugs import assemble
from raft.core import Message
from raft.disk import FileDisk, unusable
from raft.file_storage import DiskThread, FileStorage, OpenDisk, Worker
from raft.http import HttpFront
from raft.http1 import CONNECTIONS_MAX
from raft.node import Node
from raft.peers import Guests, Hello, Inbound, Peer
from raft.settings import Address, Member, Settings, SettingsError, parse_member
from raft.wal import Wal


class Broken(Exception):
    """The node has met what it did not expect."""


def _in_batches(node_class: type[Node]) -> type[Node]:
    """A node whose turn comes once all that has arrived is taken in, and which ends with what it did not expect.

    Requests that come together share a message to each follower, a write and a sync, however they came. An exception
    in the middle of an event leaves a node of which nobody knows what it would do next: a loop that reports it and goes
    on would have it skip entries, or forget what it promised.
    """

    class Batched(node_class):  # type: ignore[valid-type, misc]
        _turn_is_due = False

        def on_message(self, message: Message) -> None:
            self.host.guard(super().on_message, message)

        def _on_synced(self, written: int) -> None:
            self.host.guard(super()._on_synced, written)

        def _on_timer(self) -> None:
            self.host.guard(super()._on_timer)

        def _on_end_timer(self) -> None:
            self.host.guard(super()._on_end_timer)

        def _turn(self) -> None:
            if not self._turn_is_due:
                self._turn_is_due = True
                asyncio.get_running_loop().call_soon(self._late_turn)

        def _late_turn(self) -> None:
            self._turn_is_due = False
            if not self.stopped:
                self.host.guard(super()._turn)
                self.host.flush()

    return Batched


class Server:
    """One process of the cluster. `run` returns when `stop` is called, and raises if the disk failed.

    A simulated world brings its own disk, and its own worker in the place of a thread. `observer` is told what the
    node's observer is (see `raft.node`).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        disk: OpenDisk | None = None,
        worker: Callable[[], Worker] = DiskThread,
        observer: Callable[..., None] | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        self.settings = settings
        self.connections_max = connections_max
        self._disk = disk
        self._make_worker = worker
        self._observer = observer
        self.tls = security.contexts(settings.peer_tls, settings.client_tls)
        self._identified = bool(settings.peer_tls.cert) and settings.peer_identity == "name"
        self.received = 0
        self.leader_changes = self.elections = 0
        self.peers: dict[str, Peer] = {}
        self.guests = Guests()
        self._members: dict[str, Member] = {}
        self.storage: FileStorage
        self.node: Node
        self._random = random.Random()
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._leader_seen: str | None = None

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
        """Queues a message for a peer; every turn of the node ends with `flush`."""
        peer = self.peers.get(dst)
        if peer is not None:
            peer.send(message)

    def flush(self) -> None:
        """Sends what is queued."""
        for peer in self.peers.values():
            peer.flush()

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until told to stop."""
        settings = self.settings
        with self._using_the_disk():
            disk = self._disk or _open_disk(settings)
        self.storage = FileStorage(
            Wal(disk),
            self._fail,
            self._make_worker(),
            at_once=settings.unsafe_no_sync,
            quick=self._disk is None,
        )
        names = [] if settings.join else [member.name for member in settings.members]
        node_class = _in_batches(assemble(settings.bugs))
        self.node = node_class(
            settings.name, names, self, settings.options, self._observe, joining=settings.join
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(disk.close)
            stack.callback(self.storage.close)
            stack.callback(self._part)
            self._meet(())
            with self._using_the_disk():
                self.node.start()
            self._meet(self.node.core.config.addresses)
            stack.callback(self.node.stop, "the server stops")
            await self._listen(stack)
            await self._stopping.wait()
            await self._hand_over()
        if self._failure is not None:
            raise self._failure

    def member(self, name: str | None) -> Member | None:
        """Where a member is: as the settings say, and otherwise as the membership does."""
        return self._members.get(name or "")

    def _meet(self, addresses: Sequence[tuple[str, str]]) -> None:
        """Dials who is new among the members of the settings and of the membership, and nobody who is in neither."""
        told = {name: parse_member(f"{name}={address}") for name, address in addresses}
        self._members = {**told, **{member.name: member for member in self.settings.members}}
        for name in [name for name in self.peers if name not in self._members]:
            self.peers.pop(name).task.cancel()
        hello = Hello(self.settings.cluster, self.settings.name)
        for name, member in self._members.items():
            if name != self.settings.name and name not in self.peers:
                self.peers[name] = Peer(
                    hello, name, member.peers, self.tls.dial_peers, identified=self._identified
                )

    def _part(self) -> None:
        for peer in self.peers.values():
            peer.task.cancel()

    async def _listen(self, stack: contextlib.AsyncExitStack) -> None:
        settings, loop = self.settings, asyncio.get_running_loop()
        at = settings.listen_peers or settings.me.peers
        with _listening("peers", at):
            inbound = await loop.create_server(self._inbound, at.host, at.port, ssl=self.tls.accept_peers)
        stack.callback(inbound.close)
        front = HttpFront(self)
        at = settings.listen_clients or settings.me.clients
        with _listening("clients", at):
            clients = await loop.create_server(
                front.http1.connection, at.host, at.port, ssl=self.tls.accept_clients
            )
        stack.callback(front.close)
        stack.callback(clients.close)
        host, port = _where(clients)
        logs.event("listens to clients", host=host, port=port, tls=self.tls.accept_clients is not None)
        for sentence in settings.exposed:
            logs.event(sentence, level=logging.WARNING)

    def reload(self) -> None:
        """Reads certificates anew; what is wrong with them is said, and the old ones stay."""
        try:
            security.reload(self.tls, self.settings.peer_tls, self.settings.client_tls)
        except SettingsError as error:
            logs.event("certificates not reloaded", level=logging.ERROR, reason=str(error))
        else:
            logs.event("certificates reloaded")

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

    def _explained(self, error: BaseException) -> BaseException:
        """What the disk raised, with the directory and a remedy; a disk that somebody brought has words of its own."""
        if self._disk is None and isinstance(error, OSError):
            return unusable(self.settings.data_dir, error)
        return error

    @contextlib.contextmanager
    def _using_the_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if (explained := self._explained(error)) is error:
                raise
            raise explained from error

    def _fail(self, error: BaseException) -> None:
        error = self._explained(error)
        logs.event("the disk failed, so this server stops", level=logging.CRITICAL, reason=str(error))
        self._failure = error
        self.node.stop("the disk failed")
        self.stop()

    def guard(self, event: Callable[..., None], *args: Any) -> None:
        """Has the node take an event; if it is wrong about itself it ends here, rather than do harm."""
        try:
            event(*args)
        except OSError as error:  # of a disk that is not synced, and so written at once
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node is not to be trusted any more
            self._broke(error)

    def _broke(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        fields = {"fields": {"reason": what}}
        logs.log.critical("the node broke, so this server stops", exc_info=error, extra=fields)
        self._failure = self._failure or Broken(f"the node broke, so this server stops: {what}")
        self.node.stop("it broke")
        self.stop()

    def _observe(self, event: str, **fields: Any) -> None:
        if self._observer is not None:
            self._observer(event, **fields)
        if event == "committed":
            return
        if event == "configured":
            self._meet(self.node.core.config.addresses)
        self.elections += event == "candidate"
        leader = self.settings.name if event == "leader" else fields.get("leader")
        if leader is not None and leader != self._leader_seen:
            self._leader_seen = leader
            self.leader_changes += 1
        logs.event(event, **fields)

    def _take(self, messages: list[Message]) -> None:
        """Hands messages of another server to the node."""
        self.received += len(messages)
        for message in messages:
            self.node.on_message(message)

    def _inbound(self) -> Inbound:
        return Inbound(
            self.settings.cluster,
            self._take,
            self._greeted,
            self.guests,
            me=self.settings.name,
            identified=self._identified,
        )

    def _greeted(self, name: str) -> None:
        """A server that dials us is up: dial it too, if we are waiting to."""
        peer = self.peers.get(name)
        if peer is not None:
            peer.dial_now()


def _open_disk(settings: Settings) -> FileDisk:
    """The directory, if it is this server's, or nobody's yet: with the log of another it would vote a second time."""
    disk = FileDisk(settings.data_dir, unsafe_no_sync=settings.unsafe_no_sync)
    owner, name = disk.owner(), settings.name
    if owner is None:
        disk.claim(name)
    elif owner != name:
        disk.close()
        raise SettingsError(
            f"data_dir {settings.data_dir} is the directory of {owner}, and the name of this server is {name}; "
            f"give {name} a directory of its own, or set name to {owner}"
        )
    return disk


@contextlib.contextmanager
def _listening(whom: str, at: Address) -> Iterator[None]:
    """Says which address it was that nothing can listen on."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot listen to {whom} on {at.host}:{at.port}: {error.strerror or error}") from error


def _where(server: asyncio.Server) -> tuple[str, int]:
    host, port = server.sockets[0].getsockname()[:2]
    return str(host), int(port)
