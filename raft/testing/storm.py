"""A world with clients that know what they must read, and faults at random: does the cluster hold?"""

from __future__ import annotations

from collections.abc import Callable
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
    Refused,
    Request,
    Response,
    Unknown,
)
from raft.core import Options
from raft.invariants import Invariants, InvariantViolated
from raft.node import DEFAULTS, Node
from raft.testing.world import World, _Call


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
        self.ambushes = 0
        world.on_event = self._on_event
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
        rare = (self._hand_over, self._change_members, self._ambush)
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

    def _ambush(self) -> None:
        """Cuts off each of the next few leaders just after its election, and lets everybody else talk.

        This is how Figure 8 comes about: leaders that leave something behind, and come back.
        """
        self.ambushes = self.random.randrange(2, 8)

    def _on_event(self, name: str, event: str) -> None:
        if event == "leader" and self.ambushes and not self.stopped:
            self.ambushes -= 1
            self.world.later(self.random.randrange(10_000), self._cut_off, name)

    def _cut_off(self, name: str) -> None:
        if not self.stopped:
            self.world.partition([other for other in self.world.names if other != name])

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
