"""Clients that take locks by leases, that watch, and that write in sessions, under faults: do they see what they must?

Theory of operation
    A client here is a generator: it yields commands and is sent their answers. Its driver asks again, elsewhere
    and with the same number, until an answer decides what became of the command.

    Who holds a lock may believe so until the time to live after it last *asked* for a renewal that was answered.
    No two of these times may overlap, in the time of the world, which no node knows. Since the key of the lock is
    created anew each time, the revision that created it is a fencing token: it must grow from holder to holder.

    Who watches must have seen, when everything is over, exactly the changes that the store has made, in their
    order, except for those that it was told were forgotten.

    Who appends in a session that has a life time must find each element once that was acknowledged, and none that
    was refused for certain because the session had ended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from raft.api import (
    Command,
    Compacted,
    Compare,
    Done,
    Expired,
    Get,
    Grant,
    If,
    Json,
    KeepAlive,
    NotLeader,
    OpenSession,
    Put,
    Refused,
    Request,
    Response,
    Revoke,
    Txn,
    Unknown,
    Watch,
)
from raft.core import Options
from raft.node import DEFAULTS, Node
from raft.testing.storm import Disturber
from raft.testing.world import World

_ATTEMPT_US = 400_000
_PAUSE_US = 20_000
_TTL_MS = 700
Step = Command | tuple[str, Command]  # in the client's own name, or in a session
Steps = Generator[Step, Response, None]


class _Driver:
    """Performs one client's commands, one after another."""

    def __init__(self, world: World, name: str, steps: Steps) -> None:
        self.world, self.name, self.steps = world, name, steps
        self.random = Random(world.random.random())
        self.target = world.names[0]
        self.seq = self.attempt = self.done = 0
        self.stopped = False
        self.unsure = False  # whether an attempt at the command under way may have had an effect
        world.later(self.random.randrange(100_000), self._next, None)

    def _next(self, answer: Response | None) -> None:
        if self.stopped:
            return
        command = next(self.steps) if answer is None else self.steps.send(answer)
        self.seq += 1
        self.unsure = False
        self._ask(command)

    def _ask(self, step: Step) -> None:
        client, command = step if isinstance(step, tuple) else (self.name, step)
        self.attempt += 1
        attempt = self.attempt

        def reply(response: Response) -> None:
            self.world.later(self._hop_us(), once, response)

        def once(response: Response) -> None:
            if attempt == self.attempt:
                self.attempt += 1
                self._answered(step, response)

        def late() -> None:
            if attempt == self.attempt:
                self.unsure = True
                self._elsewhere(None)
                self._ask(step)

        self.world.later(_ATTEMPT_US + (command.wait_ms * 1000 if isinstance(command, Watch) else 0), late)
        target, request = self.target, Request(client, self.seq, command)
        self.world.later(self._hop_us(), self._arrive, target, request, reply, owner=target)

    def _arrive(self, target: str, request: Request, reply: Callable[[Response], None]) -> None:
        self.world.nodes[target].on_request(request, reply)

    def _answered(self, step: Step, response: Response) -> None:
        if isinstance(response, (NotLeader, Refused, Unknown)):
            self.unsure = self.unsure or isinstance(response, Unknown)
            self._elsewhere(response.leader if isinstance(response, NotLeader) else None)
            self.world.later(_PAUSE_US, self._ask, step)
            return
        self.done += 1
        if isinstance(step, Watch):
            self._elsewhere(None)  # any node will do, so see many
        self.world.later(1 + self.random.randrange(_PAUSE_US), self._next, response)

    def _elsewhere(self, leader: str | None) -> None:
        self.target = leader or self.random.choice(self.world.names)

    def _hop_us(self) -> int:
        return self.random.randrange(500, 2_000)


@dataclass(slots=True)
class Coordination:
    """What a run has shown.

    Attributes:
        wrong: what cannot be, in words.
        held: how often a lock was held.
        changes: how many changes watchers have seen, over all of them.
        appended: how many elements were acknowledged in sessions.
    """

    world: World
    wrong: list[str] = field(default_factory=list)
    held: int = 0
    changes: int = 0
    appended: int = 0


class _Lock:
    """Who holds a lock, by the holders' own account."""

    def __init__(self, result: Coordination, key: str) -> None:
        self.result, self.key = result, key
        self.token = 0
        self.holder: tuple[str, int] | None = None  # and until when

    def taken(self, by: str, token: int, until_us: int) -> None:
        """Somebody was told that the lock is theirs; it may be news from the past."""
        now_us = self.result.world.now_us
        if until_us <= now_us:
            return
        self.result.held += 1
        if self.holder is not None and self.holder[1] > now_us:
            self.result.wrong.append(f"{self.key}: {by} holds it at {now_us}, and so does {self.holder[0]}")
        if token <= self.token:
            self.result.wrong.append(f"{self.key}: the token went from {self.token} to {token}")
        self.token, self.holder = max(token, self.token), (by, until_us)

    def extended(self, by: str, until_us: int) -> None:
        """The holder's lease was renewed."""
        if self.holder is not None and self.holder[0] == by:
            self.holder = (by, until_us)

    def released(self, by: str) -> None:
        """The holder is about to let go."""
        if self.holder is not None and self.holder[0] == by:
            self.holder = None


def _locker(world: World, name: str, lock: _Lock, random: Random) -> Steps:
    key = lock.key
    for number in range(1 << 30):
        lease, until_us = f"{name}/{number}", world.now_us + _TTL_MS * 1000
        if not isinstance((yield Grant(_TTL_MS, lease)), Done):
            continue
        answer = yield If((Compare(key, "create", "=", 0),), (Put(key, name, lease), Get(key, detail=True)))
        if not isinstance(answer, Done) or not answer.value["succeeded"]:
            yield Revoke(lease)
            continue
        me = f"{name}#{number}"
        lock.taken(me, answer.value["results"][1]["create_revision"], until_us)
        for _ in range(random.randrange(12)):
            asked_us = world.now_us
            if not isinstance((yield KeepAlive(lease)), Done):
                break
            lock.extended(me, asked_us + _TTL_MS * 1000)
            yield Get(f"{name}/pause")  # takes a while
        if random.random() < 0.5:  # or else lets it run out
            lock.released(me)
            yield Revoke(lease)


class _Watcher:
    def __init__(self) -> None:
        self.after = 0
        self.events: list[Json] = []
        self.missed: list[tuple[int, int]] = []  # revisions that it was told it would not see

    def steps(self) -> Steps:
        while True:
            answer = yield Watch("", "", self.after, wait_ms=200, limit=50)
            if isinstance(answer, Compacted):
                self.missed.append((self.after, answer.revision))
                self.after = answer.revision
            elif isinstance(answer, Done):
                self.events += answer.value["events"]
                self.after = answer.value["revision"]


class _Appender:
    """Appends numbers to a list of its own, in sessions that it lets run out now and then."""

    def __init__(self, world: World, key: str, random: Random) -> None:
        self.key, self.random = key, random
        self.done: list[int] = []
        self.never: list[int] = []
        self.driver = _Driver(world, key, self._steps())

    def _steps(self) -> Steps:
        number = 0
        while True:
            opened = yield OpenSession(_TTL_MS)
            for _ in range(self.random.randrange(1, 30)):
                number += 1
                answer = yield opened.value["session"], Txn((("append", self.key, number),))  # type: ignore[union-attr]
                if isinstance(answer, Done):
                    self.done.append(number)
                elif not self.driver.unsure:
                    self.never.append(number)
                for _ in range(self.random.choice((0, 1, 1, 3, 40))):  # 40 take longer than a session lives
                    yield Get(self.key)
                if isinstance(answer, Expired):
                    break

    def check(self, found: Any) -> list[str]:
        """What is wrong with the list as it is in the end."""
        held: list[int] = found or []
        wrong = []
        if sorted(set(held)) != held:
            wrong.append(f"{self.key} holds {held}: an element twice, or out of order")
        if lost := sorted(set(self.done) - set(held)):
            wrong.append(f"{self.key} lacks {lost}, which were acknowledged")
        if ghosts := sorted(set(self.never) & set(held)):
            wrong.append(f"{self.key} holds {ghosts}, which were refused for certain")
        return wrong


def _writer(name: str, random: Random) -> Steps:
    for number in range(1 << 30):
        yield Put(f"{name}/{random.randrange(3)}", number)
        yield Get(name)


def _check_watcher(result: Coordination, number: int, watcher: _Watcher, truth: list[Json]) -> None:
    expected = [
        event
        for event in truth
        if event["mod_revision"] <= watcher.after
        and not any(first < event["mod_revision"] <= last for first, last in watcher.missed)
    ]
    result.changes += len(watcher.events)
    if watcher.events != expected:
        pairs = zip(watcher.events, expected, strict=False)
        where = next((one["mod_revision"] for one, other in pairs if one != other), "the end")
        result.wrong.append(
            f"watcher {number} saw {len(watcher.events)} changes up to revision {watcher.after}, not the "
            f"{len(expected)} that there were; they differ from {where} on"
        )


def coordinate(
    node: type[Node], seed: int, *, seconds: int = 20, size: int = 5, options: Options = DEFAULTS
) -> Coordination:
    """Runs a cluster under random faults with lockers, watchers and writers as clients."""
    world = World(size, seed=seed, node=node, options=options)
    result = Coordination(world)
    truth: list[Json] = []
    newest = 0

    def note() -> None:
        """Keeps the changes, as whichever node applies them first has them."""
        nonlocal newest
        for node_ in world.nodes.values():
            keys = node_.machine.keys
            if keys.revision > newest:
                truth.extend(keys.events("", "", newest, 1 << 30)[0])
                newest = keys.revision

    world.after_event = note
    locks = [_Lock(result, f"lock{number}") for number in range(2)]
    watchers = [_Watcher() for _ in range(3)]
    scripts: list[tuple[str, Any]] = [
        (name, _locker(world, name, locks[number % 2], Random(f"{seed}/{name}")))
        for number, name in enumerate(f"locker{n}" for n in range(6))
    ]
    scripts += [(f"watcher{number}", watcher.steps()) for number, watcher in enumerate(watchers)]
    scripts += [("writer", _writer("w", Random(seed)))]
    appenders = [_Appender(world, f"list{number}", Random(f"{seed}/{number}")) for number in range(3)]
    drivers = [_Driver(world, name, steps) for name, steps in scripts]
    drivers += [appender.driver for appender in appenders]
    disturber = Disturber(world)
    world.run(ms=seconds * 1000)
    disturber.stop()
    world.run(ms=3000)
    for driver in drivers:
        driver.stopped = True
    world.run(ms=1500)
    for number, watcher in enumerate(watchers):
        _check_watcher(result, number, watcher, truth)
    machine = world.nodes[world.leader()].machine
    for appender in appenders:
        result.appended += len(appender.done)
        result.wrong += appender.check(machine.value_of(appender.key))
    return result
