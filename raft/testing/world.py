"""A small world for one cluster: virtual time, a network that misbehaves on request, disks that forget.

It is what the tests, the golden scenarios and the examples of this package run on. Everything happens in one
heap of events, and all chance comes from one seed.

>>> from raft.api import Get, Put
>>> world = World(3, seed=1)
>>> world.run(ms=1000)
>>> leader = world.leader()
>>> world.call(leader, Put("x", 1))
Done(mod_revision=1, revision=1)
>>> world.call(leader, Get("x"))
Done(value=1, mod_revision=1, revision=1)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

from raft.api import (
    Command,
    Request,
    Response,
)
from raft.core import Message, Options, Record, Saved, replay
from raft.node import DEFAULTS, Node


class _Call:
    __slots__ = ("args", "callback", "owner")

    def __init__(self, callback: Callable[..., None], args: tuple[Any, ...], owner: str | None) -> None:
        self.callback: Callable[..., None] | None = callback
        self.args = args
        self.owner = owner  # the node it happens at, which may be paused

    def cancel(self) -> None:
        """Forgets the call."""
        self.callback = None


class Disk:
    """One node's disk: a sync takes a while, and a crash loses what no finished sync has covered."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.durable: list[Record] = []
        self.pending: list[Record] = []
        self.crashes = 0

    def load(self) -> Saved:
        """The durable records, folded."""
        return replay(self.durable)

    def write(self, records: Sequence[Record]) -> None:
        """Queues records."""
        self.pending.extend(records)

    def sync(self, done: Callable[[], None]) -> None:
        """Makes them durable after the world's `sync_us`."""
        low, high = self.world.sync_us
        delay_us = self.world.random.randint(low, high)
        self.world.later(delay_us, self._synced, len(self.pending), self.crashes, done, owner=self.name)

    def crash(self) -> None:
        """Loses what was not synced."""
        self.pending.clear()
        self.crashes += 1

    def _synced(self, count: int, crashes: int, done: Callable[[], None]) -> None:
        if crashes == self.crashes:
            self.durable.extend(self.pending[:count])
            del self.pending[:count]
            done()


class _Host:
    """One node's view of the world."""

    def __init__(self, world: World, name: str, storage: Disk) -> None:
        self.world = world
        self.name = name
        self.storage = storage
        self.random = Random(world.random.random()).random
        self.alive = True

    def now_us(self) -> int:
        return self.world.now_us

    def call_later(self, delay_us: int, callback: Callable[..., None], *args: Any) -> _Call:
        return self.world.later(delay_us, callback, *args, owner=self.name)

    def send(self, dst: str, message: Message) -> None:
        if self.alive:
            self.world.send(self.name, dst, message)


class World:
    """A cluster of nodes `n1`, `n2`, ... and everything between them."""

    def __init__(
        self,
        size: int,
        seed: int = 0,
        *,
        node: type[Node] = Node,
        options: Options = DEFAULTS,
        names: Iterable[str] | None = None,
    ) -> None:
        self.random = Random(seed)
        self.now_us = 0
        self.delay_us = (500, 2_000)  # one way
        self.sync_us = (100, 1_000)
        self.loss = 0.0
        self.duplication = 0.0
        self.blocked: set[tuple[str, str]] = set()  # directed links that lose everything
        self.after_event: Callable[[], None] | None = None
        self.on_start: Callable[[str], None] | None = None
        self.on_event: Callable[[str, str], None] | None = None
        self.trace: list[tuple[int, str, str, dict[str, Any]]] = []
        self.events = 0
        self.names = tuple(names) if names else tuple(f"n{number}" for number in range(1, size + 1))
        self.disks = {name: Disk(self, name) for name in self.names}
        self.nodes: dict[str, Node] = {}
        self._node_class, self._options = node, options
        self._classes: dict[str, type[Node]] = {}
        self._hosts: dict[str, _Host] = {}
        self._heap: list[tuple[int, int, _Call]] = []
        self._scheduled = 0
        self._seq = 0
        self._paused: dict[str | None, list[_Call]] = {}
        for name in self.names:
            self.start(name)

    # -- faults ------------------------------------------------------------------------------------

    def add(self, name: str, node: type[Node]) -> Node:
        """A node that was not there before, of a class of its own; it has to be made a member."""
        self.disks[name] = Disk(self, name)
        self._classes[name] = node
        return self.start(name)

    def start(self, name: str) -> Node:
        """Starts a node from what its disk holds."""
        host = _Host(self, name, self.disks[name])

        def observe(event: str, **fields: Any) -> None:
            self.trace.append((self.now_us, name, event, fields))
            if self.on_event:
                self.on_event(name, event)

        node = self._classes.get(name, self._node_class)(name, self.names, host, self._options, observe)
        self._hosts[name], self.nodes[name] = host, node
        if self.on_start:
            self.on_start(name)
        node.start()
        return node

    def crash(self, name: str) -> None:
        """Kills a node; what was not synced is gone."""
        self.nodes[name].stop("crashed")
        self._hosts[name].alive = False
        self.disks[name].crash()

    def restart(self, name: str) -> None:
        """Kills a node, if it runs, and starts it again."""
        if not self.nodes[name].stopped:
            self.crash(name)
        self.start(name)

    def pause(self, name: str) -> None:
        """Freezes a node; what comes for it waits."""
        self._paused.setdefault(name, [])

    def resume(self, name: str) -> None:
        """Lets a node go on, with all that waited."""
        for call in self._paused.pop(name, ()):
            self._scheduled += 1
            heapq.heappush(self._heap, (self.now_us, self._scheduled, call))

    def partition(self, *groups: Iterable[str]) -> None:
        """Lets the members of each group talk to each other only; those in no group talk to nobody."""
        joined = {(a, b) for group in map(tuple, groups) for a in group for b in group}
        self.blocked = {(a, b) for a in self.names for b in self.names if (a, b) not in joined}

    def heal(self) -> None:
        """A perfect network again."""
        self.blocked = set()
        self.loss = self.duplication = 0.0

    # -- time --------------------------------------------------------------------------------------

    def later(
        self, delay_us: int, callback: Callable[..., None], *args: Any, owner: str | None = None
    ) -> _Call:
        """Calls back after a while; if `owner` is paused then, once it goes on."""
        call = _Call(callback, args, owner)
        self._scheduled += 1
        heapq.heappush(self._heap, (self.now_us + delay_us, self._scheduled, call))
        return call

    def send(self, src: str, dst: str, message: Message) -> None:
        """Takes a message for delivery, once, twice or never."""
        random = self.random.random
        if (src, dst) in self.blocked or (self.loss and random() < self.loss):
            return
        for _ in range(2 if self.duplication and random() < self.duplication else 1):
            low, high = self.delay_us
            self.later(low + int(random() * (high - low)), self._deliver, src, dst, message, owner=dst)

    def _deliver(self, src: str, dst: str, message: Message) -> None:
        if (src, dst) not in self.blocked:
            self.nodes[dst].on_message(message)

    def run(self, *, ms: int, until: Callable[[], bool] | None = None) -> None:
        """Lets time pass, until the condition holds if one is given."""
        end_us = self.now_us + ms * 1000
        while self._heap and self._heap[0][0] <= end_us:
            self.now_us, _, call = heapq.heappop(self._heap)
            if call.callback is None:
                continue
            if call.owner in self._paused:
                self._paused[call.owner].append(call)
                continue
            call.callback(*call.args)
            self.events += 1
            if self.after_event:
                self.after_event()
            if until and until():
                return
        self.now_us = end_us

    # -- use ---------------------------------------------------------------------------------------

    def leader(self) -> str:
        """The running leader of the highest term."""
        leaders = [node.status() for node in self.nodes.values() if not node.stopped]
        found = max((s for s in leaders if s.role == "leader"), key=lambda s: s.term, default=None)
        if found is None:
            raise LookupError("the cluster has no leader now")
        return found.name

    def call(
        self, name: str, command: Command, *, client: str = "test", seq: int = 0, ms: int = 5000
    ) -> Response:
        """Sends a request to a node, and lets time pass until it is answered."""
        self._seq += 1
        answers: list[Response] = []
        self.nodes[name].on_request(Request(client, seq or self._seq, command), answers.append)
        if not answers:
            self.run(ms=ms, until=lambda: bool(answers))
        if not answers:
            raise TimeoutError(f"{name} did not answer {command} within {ms} ms of virtual time")
        return answers[0]
