"""Injects and heals faults on a cluster, and knows at every moment which are in force.

Rules of this module
    1. The set of faults in force is the only state of intent. What the network and each process should be
       like follows from it; nothing is counted up and down, so nothing can be left over.
    2. The network is written whole, composed of all network faults in force.
    3. A node held by several faults is released when the last of them heals. Killed weighs more than paused:
       a paused node that is killed is dead, and one that is started while a pause still holds it is paused.
    4. Healing is idempotent. `heal_all` does not trust what was believed before: it heals the network,
       resumes and starts every node and sets its clock right, each whatever becomes of the others.
    5. A node whose disk failed may have stopped. When such a fault heals, its nodes are started once more.
    6. What a target could not do is a `NemesisError` with the fault named, returned and kept in `errors`.
       It never ends the run and never disappears.
    7. One change at a time: concurrent injections and heals wait for each other.

Theory of operation
    After each change of the set, `_settle` compares what every node should be with what it is known to be
    and asks the target for the difference, all nodes at once. After a failed verb the state of that node is
    not known, and the next change asks again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from nemesis.faults import Effect, FaultError, name_of, resolve, wants_leader
from nemesis.rules import combine_clocks, combine_disks, compose
from nemesis.schedule import FaultEvent
from nemesis.target import (
    HEALTHY,
    HEALTHY_DISK,
    RIGHT_CLOCK,
    ClockRule,
    ClockTarget,
    DiskRule,
    DiskTarget,
    Ruleset,
    Target,
)

State = Literal["running", "paused", "down", "unknown"]

# How to get from what a node is to what it should be. The way out of `unknown` assumes the worst.
_WAYS: Mapping[tuple[State, State], tuple[str, ...]] = {
    ("running", "paused"): ("pause",),
    ("running", "down"): ("kill",),
    ("paused", "running"): ("resume",),
    ("paused", "down"): ("kill",),
    ("down", "running"): ("start",),
    ("down", "paused"): ("start", "pause"),
    ("unknown", "running"): ("resume", "start"),
    ("unknown", "paused"): ("start", "pause"),
    ("unknown", "down"): ("kill",),
}


class NemesisError(msgspec.Struct, frozen=True):
    """Something the nemesis was asked for and could not do.

    Attributes:
        event: id of the fault event, or `heal-all`.
        fault: name of the fault, empty for `heal-all`.
        verb: what was asked of the target: `kill`, `set_network`, `leader`, ...
        node: the node, where there is one.
        message: what came back.
    """

    event: str
    fault: str
    verb: str
    node: str | None
    message: str


class Injected(msgspec.Struct, frozen=True):
    """The record of one injection or heal.

    Attributes:
        event: id of the fault event.
        description: one line for people, with the nodes it hit.
        details: the same as JSON.
        errors: what could not be done.
    """

    event: str
    description: str
    details: Mapping[str, Any]
    errors: tuple[NemesisError, ...] = ()


class Nemesis:
    """Breaks and mends one target.

    Attributes:
        errors: everything that could not be done so far, in order.
    """

    def __init__(self, target: Target) -> None:
        self.errors: list[NemesisError] = []
        self._target = target
        self._in_force: dict[str, tuple[FaultEvent, Effect]] = {}
        self._states: dict[str, State] = dict.fromkeys(target.nodes, "running")
        self._clocks: dict[str, ClockRule | None] = dict.fromkeys(target.nodes, RIGHT_CLOCK)
        self._disks: dict[str, DiskRule | None] = dict.fromkeys(target.nodes, HEALTHY_DISK)
        self._network: Ruleset | None = HEALTHY
        self._lock = asyncio.Lock()

    @property
    def in_force(self) -> Mapping[str, str]:
        """Ids of the events in force, oldest first, each with its description."""
        return {name: effect.description for name, (_, effect) in self._in_force.items()}

    async def inject(self, event: FaultEvent) -> Injected:
        """Puts a fault in force. One that is in force already stays as it is."""
        async with self._lock:
            first_error = len(self.errors)
            try:
                effect = await self._resolve(event)
            except FaultError as error:
                self._note(event, "resolve", None, error)
                return Injected(
                    event.id, f"{name_of(event.fault)}: not injected", {}, self._errors(first_error)
                )
            await self._settle(event)
            return Injected(event.id, effect.description, effect.details, self._errors(first_error))

    async def heal(self, event: FaultEvent) -> Injected:
        """Takes a fault out of force; where it is not in force, nothing happens."""
        async with self._lock:
            first_error = len(self.errors)
            _, effect = self._in_force.pop(event.id, (event, None))
            if effect and effect.disks:
                self._states |= dict.fromkeys(effect.disks, "unknown")
            await self._settle(event)
            description = effect.description if effect else name_of(event.fault)
            return Injected(event.id, f"healed {description}", {}, self._errors(first_error))

    async def heal_all(self) -> tuple[NemesisError, ...]:
        """Leaves the cluster healthy: network whole, every process running. Returns what did not work."""
        async with self._lock:
            first_error = len(self.errors)
            self._in_force.clear()
            self._network = None
            self._states = dict.fromkeys(self._target.nodes, "unknown")
            if isinstance(self._target, ClockTarget):
                self._clocks = dict.fromkeys(self._target.nodes, None)
            if isinstance(self._target, DiskTarget):
                self._disks = dict.fromkeys(self._target.nodes, None)
            await self._settle(None)
            return self._errors(first_error)

    async def _resolve(self, event: FaultEvent) -> Effect:
        if event.id in self._in_force:
            return self._in_force[event.id][1]
        leader = None
        if wants_leader(event.fault):
            try:
                leader = await self._target.leader()
            except Exception as error:  # noqa: BLE001 - whatever it is, the drawn nodes stand in and it is told
                self._note(event, "leader", None, error)
        effect = resolve(event.fault, self._target.nodes, leader)
        self._in_force[event.id] = (event, effect)
        return effect

    async def _settle(self, event: FaultEvent | None) -> None:
        """Asks the target for what differs between how things should be and how they are known to be."""
        effects = [effect for _, effect in self._in_force.values()]
        nodes = self._target.nodes
        # Disks before processes: a node that is started must not find the disk it died of.
        await asyncio.gather(*(self._settle_disk(event, node, disk(node, effects)) for node in nodes))
        await asyncio.gather(
            self._settle_network(event, compose(effect.rules for effect in effects)),
            *(self._settle_node(event, node, wanted(node, effects)) for node in nodes),
            *(self._settle_clock(event, node, clock(node, effects)) for node in nodes),
        )

    async def _settle_network(self, event: FaultEvent | None, rules: Ruleset) -> None:
        if self._network == rules:
            return
        self._network = None
        if await self._ask(event, "set_network", None, lambda: self._target.set_network(rules)):
            self._network = rules

    async def _settle_node(self, event: FaultEvent | None, node: str, state: State) -> None:
        verbs = _WAYS.get((self._states[node], state), ())
        if not verbs:
            return
        self._states[node] = "unknown"
        done = [await self._ask(event, verb, node, self._verb(verb, node)) for verb in verbs]
        if all(done):
            self._states[node] = state

    async def _settle_clock(self, event: FaultEvent | None, node: str, rule: ClockRule) -> None:
        if self._clocks[node] == rule:
            return
        self._clocks[node] = None
        if await self._ask(event, "set_clock", node, lambda: self._set_clock(node, rule)):
            self._clocks[node] = rule

    async def _set_clock(self, node: str, rule: ClockRule) -> None:
        if isinstance(self._target, ClockTarget):
            await self._target.set_clock(node, rule)
        elif rule != RIGHT_CLOCK:
            raise FaultError("this cluster cannot shift clocks; leave the fault 'clock' out")

    async def _settle_disk(self, event: FaultEvent | None, node: str, rule: DiskRule) -> None:
        if self._disks[node] == rule:
            return
        self._disks[node] = None
        if await self._ask(event, "set_disk", node, lambda: self._set_disk(node, rule)):
            self._disks[node] = rule

    async def _set_disk(self, node: str, rule: DiskRule) -> None:
        if isinstance(self._target, DiskTarget):
            await self._target.set_disk(node, rule)
        elif rule != HEALTHY_DISK:
            raise FaultError("this cluster cannot break disks; leave the fault 'disk' out")

    def _verb(self, verb: str, node: str) -> Callable[[], Awaitable[None]]:
        verbs = {
            "kill": self._target.kill,
            "start": self._target.start,
            "pause": self._target.pause,
            "resume": self._target.resume,
        }
        return lambda: verbs[verb](node)

    async def _ask(
        self, event: FaultEvent | None, verb: str, node: str | None, call: Callable[[], Awaitable[None]]
    ) -> bool:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - a target may fail in any way; rule 5 says what becomes of it
            self._note(event, verb, node, error)
            return False
        return True

    def _note(self, event: FaultEvent | None, verb: str, node: str | None, error: Exception) -> None:
        self.errors.append(
            NemesisError(
                event=event.id if event else "heal-all",
                fault=name_of(event.fault) if event else "",
                verb=verb,
                node=node,
                message=str(error) or type(error).__name__,
            )
        )

    def _errors(self, first: int) -> tuple[NemesisError, ...]:
        return tuple(self.errors[first:])


def wanted(node: str, effects: Sequence[Effect]) -> State:
    """What a node should be while these effects are in force."""
    if any(node in effect.killed for effect in effects):
        return "down"
    if any(node in effect.paused for effect in effects):
        return "paused"
    return "running"


def clock(node: str, effects: Sequence[Effect]) -> ClockRule:
    """What the clocks of a node should be like: offsets in force add."""
    rules = [effect.clocks[node] for effect in effects if node in effect.clocks]
    return functools.reduce(combine_clocks, rules, RIGHT_CLOCK)


def disk(node: str, effects: Sequence[Effect]) -> DiskRule:
    """What the disk of a node should be like: what is wrong adds up."""
    rules = [effect.disks[node] for effect in effects if node in effect.disks]
    return functools.reduce(combine_disks, rules, HEALTHY_DISK)
