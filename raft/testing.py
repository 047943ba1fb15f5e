"""A small world for one cluster: virtual time, a network that misbehaves on request, disks that forget.

It is what the tests, the golden scenarios and the examples of this package run on. Everything happens in one
heap of events, and all chance comes from one seed.

>>> world = World(3, seed=1)
>>> world.run(ms=1000)
>>> leader = world.leader()
>>> world.call(leader, Put("x", 1))
Done(value=None)
>>> world.call(leader, Get("x"))
Done(value=1)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from raft.api import (
    Cas,
    Command,
    Done,
    Get,
    Mismatch,
    NotLeader,
    Put,
    Refused,
    Request,
    Response,
    Unknown,
)
from raft.core import Message, Options, Record, Saved, replay
from raft.invariants import Invariants, InvariantViolated
from raft.node import DEFAULTS, Node

__all__ = ["Disk", "Get", "Put", "World"]


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


class Owner:
    """A client that alone writes its key, counting up with Cas, and reads everybody's: a sound, cheap oracle.

    Since nobody else writes the key, a Cas that fails, or a read below what was acknowledged before the read
    began, shows a lost write, a write applied twice, or a stale read. What is wrong is appended to `found`.
    """

    def __init__(
        self, world: World, name: str, floor: dict[str, int], found: list[str], *, pause_us: int
    ) -> None:
        self.world, self.name, self.floor, self.found, self.pause_us = world, name, floor, found, pause_us
        self.random = Random(world.random.random())
        self.value: int | None = None  # what the key holds, as far as answers tell
        self.tried = 0
        self.seq = 0
        self.attempt = 0
        self.maybe = False  # an attempt of the request under way may have taken effect
        self.ops = 0
        self.stopped = False
        self.target = world.names[0]
        self.world.later(self.random.randrange(pause_us), self._next)

    def _next(self) -> None:
        if self.random.random() < 0.5:
            self._read(self.random.choice(sorted(self.floor)))
        else:
            self.tried += 1
            self.seq += 1
            self.maybe = False
            self._write()

    def _finished(self) -> None:
        self.ops += 1
        if self.stopped:
            return
        self.world.later(self.random.randrange(2 * self.pause_us), self._next)

    def _ask(
        self, command: Command, answered: Callable[[Response], None], timed_out: Callable[[], None]
    ) -> None:
        self.attempt += 1
        attempt = self.attempt
        timer: list[_Call] = []

        def once(response: Response) -> None:
            if attempt == self.attempt:
                self.attempt += 1
                timer[0].cancel()
                answered(response)

        def late() -> None:
            if attempt == self.attempt:
                self.attempt += 1
                timed_out()

        def reply(response: Response) -> None:
            self.world.later(self._hop_us(), once, response)

        timer.append(self.world.later(500_000, late))
        request = Request(self.name, self.seq, command)
        self.world.later(self._hop_us(), self._arrive, self.target, request, reply, owner=self.target)

    def _hop_us(self) -> int:
        return self.random.randrange(500, 2_000)

    def _arrive(self, target: str, request: Request, reply: Callable[[Response], None]) -> None:
        self.world.nodes[target].on_request(request, reply)

    def _elsewhere(self, leader: str | None) -> None:
        self.target = leader or self.random.choice(self.world.names)

    def _write(self) -> None:
        self._ask(Cas(self.name, self.value, self.tried), self._written, self._write_timed_out)

    def _write_timed_out(self) -> None:
        self.maybe = True
        self._elsewhere(None)
        self._write()

    def _written(self, response: Response) -> None:
        match response:
            case Done():
                self.value = self.tried
                self.floor[self.name] = self.tried
                self._finished()
            case Mismatch(current):
                self.found.append(
                    f"{self.name}: key held {current}, not {self.value}, and nobody else writes it"
                )
                self.value = current
                self.tried = max(self.tried, current or 0)
                self._finished()
            case Unknown():
                self._write_timed_out()
            case NotLeader(leader):
                self._elsewhere(leader)
                if self.maybe:
                    self.world.later(20_000, self._write)
                else:
                    self._finished()  # certainly not: the next write is another one
            case Refused():
                self.world.later(20_000, self._write)

    def _read(self, key: str) -> None:
        floor = self.floor[key]

        def answered(response: Response) -> None:
            match response:
                case Done(value):
                    if (value or 0) < floor:
                        self.found.append(f"{self.name} read {value} of {key} after {floor} was acknowledged")
                    self.floor[key] = max(self.floor[key], value or 0)
                case NotLeader(leader):
                    self._elsewhere(leader)
                case _:
                    pass
            self._finished()

        def timed_out() -> None:
            self._elsewhere(None)
            self._finished()

        self._ask(Get(key), answered, timed_out)


class Disturber:
    """Partitions, kills, pauses, loss and duplicates at random, for as long as it is not stopped."""

    def __init__(self, world: World, *, gap_us: tuple[int, int] = (100_000, 1_000_000)) -> None:
        self.world = world
        self.gap_us = gap_us
        self.random = Random(world.random.random())
        self.stopped = False
        self._later(self._next)

    def stop(self) -> None:
        """Heals everything, for good."""
        self.stopped = True
        self._calm()

    def _later(self, callback: Callable[..., None], *args: Any) -> None:
        self.world.later(self.random.randint(*self.gap_us), callback, *args)

    def _next(self) -> None:
        if self.stopped:
            return
        actions = (self._calm, self._split, self._split, self._isolate_leader, self._one_way)
        others = (self._kill_some, self._kill_some, self._pause_leader, self._weather)
        rare = (self._hand_over, self._change_members)
        self.random.choice(actions + others + rare)()
        self._later(self._next)

    def _calm(self) -> None:
        world = self.world
        world.heal()
        world.delay_us = (500, 2_000)
        for name in world.names:
            world.resume(name)
            if world.nodes[name].stopped:
                world.start(name)

    def _split(self) -> None:
        names = list(self.world.names)
        self.random.shuffle(names)
        cut = self.random.randrange(1, len(names))
        self.world.partition(names[:cut], names[cut:])

    def _isolate_leader(self) -> None:
        leader = self._leader()
        friends = self.random.sample([n for n in self.world.names if n != leader], self.random.randrange(2))
        rest = [name for name in self.world.names if name != leader and name not in friends]
        self.world.partition([leader, *friends], rest)

    def _one_way(self) -> None:
        victim = self.random.choice(self.world.names)
        others = [name for name in self.world.names if name != victim]
        deaf = self.random.random() < 0.5
        self.world.blocked |= {(other, victim) if deaf else (victim, other) for other in others}

    def _kill_some(self) -> None:
        world = self.world
        for name in self.random.sample(world.names, self.random.randrange(1, len(world.names) + 1)):
            if not world.nodes[name].stopped:
                world.crash(name)
            world.later(self.random.randrange(1_000, 400_000), self._revive, name)

    def _revive(self, name: str) -> None:
        if self.world.nodes[name].stopped:
            self.world.start(name)

    def _pause_leader(self) -> None:
        leader = self._leader()
        self.world.pause(leader)
        self._later(self.world.resume, leader)

    def _weather(self) -> None:
        self.world.loss = self.random.choice((0.0, 0.02, 0.2))
        self.world.duplication = self.random.choice((0.0, 0.02, 0.2))
        self.world.delay_us = self.random.choice(((500, 2_000), (500, 30_000), (5_000, 100_000)))

    def _hand_over(self) -> None:
        self.world.nodes[self._leader()].transfer(self.random.choice(self.world.names))

    def _change_members(self) -> None:
        names = list(self.world.names)
        self.random.shuffle(names)
        cut = self.random.randrange(len(names) // 2 + 1, len(names) + 1)
        self.world.nodes[self._leader()].change_config(names[:cut], names[cut : self.random.randrange(6)])

    def _leader(self) -> str:
        try:
            return self.world.leader()
        except LookupError:
            return self.random.choice(self.world.names)


def storm(
    node: type[Node], seed: int, *, seconds: int = 20, size: int = 5, options: Options = DEFAULTS
) -> Storm:
    """Runs a cluster under random faults and owners as clients; checks invariants after every event."""
    clients = 10
    world = World(size, seed, node=node, options=options)
    invariants = Invariants()
    result = Storm(world, [], [])
    floor = {f"k{number}": 0 for number in range(clients)}
    owners = [Owner(world, key, floor, result.client, pause_us=90_000) for key in floor]

    def check() -> None:
        try:
            for node_ in world.nodes.values():
                if not node_.stopped:
                    invariants.check(node_.core)
        except InvariantViolated as violation:
            result.internal.append(str(violation))
            world.after_event = None

    world.after_event = check
    world.on_start = invariants.restarted
    disturber = Disturber(world)
    world.run(ms=seconds * 1000)
    disturber.stop()
    world.run(ms=1500)
    for owner in owners:
        owner.stopped = True
    world.run(ms=1500)
    result.ops = sum(owner.ops for owner in owners)
    return result


@dataclass(slots=True)
class Storm:
    """What a storm has shown: what clients saw that cannot be, and what was wrong inside."""

    world: World
    client: list[str]
    internal: list[str]
    ops: int = 0
