"""Injects and heals faults on a cluster, and knows at every moment which are in force.

Rules of this module
    1. The set of faults in force is the only state of intent. What the network, each process and the membership
       should be like follows from it; nothing is counted up and down, so nothing can be left over.
    2. The network is written whole, composed of all network faults in force.
    3. A node held by several faults is released when the last of them heals. Killed weighs more than paused:
       a paused node that is killed is dead, and one that is started while a pause still holds it is paused.
    4. Healing is idempotent. `heal_all` does not trust what was believed before: it heals the network,
       resumes and starts every node and sets its clock right, each whatever becomes of the others.
    5. A node whose disk failed, or that was to crash, may have stopped. When such a fault heals, its nodes are
       started once more.
    6. What a target could not do is a `NemesisError` with the fault named, returned and kept in `errors`.
       It never ends the run and never disappears. What the system under test refused (to hand over leadership while
       there is a partition) is no error: it stands in the details of the injection.
    7. One change at a time: concurrent injections and heals wait for each other. Changes of membership take as
       long as the system needs; they go on in the background (`nemesis.membership`), and `heal_all` waits for them.

Theory of operation
    After each change of the set, `_settle` compares what every node should be with what it is known to be
    and asks the target for the difference, all nodes at once. After a failed verb the state of that node is
    not known, and the next change asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from nemesis import aspects
from nemesis.aspects import Aspect
from nemesis.effects import Effect, Now, resolve
from nemesis.faults import FaultError, name_of, wants_leader
from nemesis.membership import MembershipDriver
from nemesis.rules import compose
from nemesis.schedule import FaultEvent
from nemesis.target import (
    HEALTHY,
    DamageTarget,
    MembershipTarget,
    PrimariesTarget,
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
_UNKNOWN: Any = object()


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
        effect: what the fault came to; None for a heal, and where it could not be told.
    """

    event: str
    description: str
    details: Mapping[str, Any]
    errors: tuple[NemesisError, ...] = ()
    effect: Effect | None = None


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
        self._known: dict[tuple[str, str], Any] = {
            (aspect.verb, node): aspect.healthy for aspect in aspects.ALL for node in target.nodes
        }
        self._network: Ruleset | None = HEALTHY
        self._lock = asyncio.Lock()
        self._members: MembershipDriver | None = None
        if isinstance(target, MembershipTarget):
            self._members = MembershipDriver(target, target.nodes, self._make_anew)

    @property
    def in_force(self) -> Mapping[str, str]:
        """Ids of the events in force, oldest first, each with its description."""
        return {name: effect.description for name, (_, effect) in self._in_force.items()}

    @property
    def rules(self) -> Ruleset:
        """What the network should be like now."""
        return compose(effect.rules for _, effect in self._in_force.values())

    @property
    def is_network_written(self) -> bool:
        """Whether the network is what it should be, as far as the target said so."""
        return self._network == self.rules

    def holds(self, node: str) -> bool:
        """Whether a fault wants the node's process down or paused now."""
        return wanted(node, [effect for _, effect in self._in_force.values()]) != "running"

    def wanted(self, aspect: Aspect, node: str) -> Any:
        """What this should be like on a node now."""
        return aspect.wanted(node, [effect for _, effect in self._in_force.values()])

    async def inject(self, event: FaultEvent, *, trigger: str | None = None) -> Injected:
        """Puts a fault in force. One that is in force already stays as it is.

        Args:
            event: the fault.
            trigger: the node whose doings set it off, for a reactive one.
        """
        async with self._lock:
            first_error = len(self.errors)
            is_new = event.id not in self._in_force
            try:
                effect = await self._resolve(event, trigger)
            except FaultError as error:
                self._note(event, "resolve", None, error)
                return Injected(
                    event.id, f"{name_of(event.fault)}: not injected", {}, self._errors(first_error)
                )
            await self._settle(event)
            details = dict(effect.details)
            if is_new:
                details |= await self._act(event, effect)
            return Injected(event.id, effect.description, details, self._errors(first_error), effect)

    async def heal(self, event: FaultEvent) -> Injected:
        """Takes a fault out of force; where it is not in force, nothing happens."""
        async with self._lock:
            first_error = len(self.errors)
            there = self._in_force.get(event.id)
            effect = there[1] if there else None
            if effect:
                await self._end_processes(event, effect.dies_at_end)
                del self._in_force[event.id]
                self._states |= dict.fromkeys(effect.touched, "unknown")
            await self._settle(event)
            description = effect.description if effect else name_of(event.fault)
            return Injected(event.id, f"healed {description}", {}, self._errors(first_error))

    async def heal_all(self) -> tuple[NemesisError, ...]:
        """Leaves the cluster healthy: network whole, every process running, everybody a member.

        Returns what did not work.
        """
        async with self._lock:
            first_error = len(self.errors)
            self._in_force.clear()
            self._network = None
            self._states = dict.fromkeys(self._target.nodes, "unknown")
            for aspect in aspects.ALL:
                if isinstance(self._target, aspect.protocol):
                    self._known |= {(aspect.verb, node): _UNKNOWN for node in self._target.nodes}
            await self._settle(None)
        if self._members:
            error = await self._members.settle()
            if error:
                self._note(None, "change_members", None, FaultError(error))
        return self._errors(first_error)

    async def _resolve(self, event: FaultEvent, trigger: str | None) -> Effect:
        if event.id in self._in_force:
            return self._in_force[event.id][1]
        leader: str | None = None
        primaries: tuple[str, ...] = ()
        if wants_leader(event.fault):
            try:
                leader = await self._target.leader()
                if isinstance(self._target, PrimariesTarget):
                    primaries = tuple(await self._target.primaries())
            except Exception as error:  # noqa: BLE001 - whatever it is, the drawn nodes stand in and it is told
                self._note(event, "leader", None, error)
        effect = resolve(event.fault, self._target.nodes, Now(leader, primaries, trigger))
        self._in_force[event.id] = (event, effect)
        return effect

    async def _act(self, event: FaultEvent, effect: Effect) -> dict[str, Any]:
        """Does what happens once; what the system refused goes into the details."""
        details: dict[str, Any] = {}
        if effect.transfer_to is not None:
            details |= await self._transfer(event, effect.transfer_to)
        done: dict[str, str] = {}
        for node, damage in effect.damages.items():
            if not isinstance(self._target, DamageTarget):
                self._note(event, "damage_disk", node, FaultError("this cluster cannot damage disks"))
                break
            try:
                done[node] = await self._target.damage_disk(node, damage)
            except Exception as error:  # noqa: BLE001 - an empty disk, a missing file: told, and no reason to stop
                details.setdefault("refused", {})[node] = _words(error)
        return details | ({"damaged": done} if done else {})

    async def _transfer(self, event: FaultEvent, node: str) -> dict[str, Any]:
        if not isinstance(self._target, MembershipTarget):
            self._note(event, "transfer", node, FaultError("this cluster cannot hand over leadership"))
            return {}
        try:
            await self._target.transfer(node)
        except Exception as error:  # noqa: BLE001 - the system may refuse; that is its right
            return {"refused": {node: _words(error)}}
        return {}

    async def _end_processes(self, event: FaultEvent, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._states[node] = "unknown"
            if await self._ask(event, "kill", node, self._verb("kill", node)):
                self._states[node] = "down"

    async def _make_anew(self, node: str) -> None:
        """A node that is out forgets its disk and comes back as a new one."""
        assert isinstance(self._target, MembershipTarget), "only such a target has a driver"
        target = self._target
        async with self._lock:
            await self._ask(None, "kill", node, self._verb("kill", node))
            await self._ask(None, "wipe", node, lambda: target.wipe(node))
            self._states[node] = "down"
            await self._settle(None)

    async def _settle(self, event: FaultEvent | None) -> None:
        """Asks the target for what differs between how things should be and how they are known to be."""
        effects = [effect for _, effect in self._in_force.values()]
        nodes = self._target.nodes
        for aspect in aspects.BEFORE_PROCESSES:
            await asyncio.gather(
                *(self._settle_aspect(event, aspect, node, aspect.wanted(node, effects)) for node in nodes)
            )
        await asyncio.gather(
            self._settle_network(event, compose(effect.rules for effect in effects)),
            *(self._settle_node(event, node, wanted(node, effects)) for node in nodes),
            *(
                self._settle_aspect(event, aspect, node, aspect.wanted(node, effects))
                for aspect in aspects.WITH_PROCESSES
                for node in nodes
            ),
        )
        self._settle_members(event, effects)

    def _settle_members(self, event: FaultEvent | None, effects: Sequence[Effect]) -> None:
        removed = {node for effect in effects for node in effect.removed}
        if self._members:
            self._members.want(removed, {node for effect in effects for node in effect.wiped})
        elif removed:
            error = FaultError("this cluster cannot change its members; leave the fault 'membership' out")
            self._note(event, "change_members", None, error)

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

    async def _settle_aspect(self, event: FaultEvent | None, aspect: Aspect, node: str, value: Any) -> None:
        place = (aspect.verb, node)
        if self._known[place] == value:
            return
        self._known[place] = _UNKNOWN
        if await self._ask(event, aspect.verb, node, lambda: aspect.make(self._target, node, value)):
            self._known[place] = value

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
        except Exception as error:  # noqa: BLE001 - a target may fail in any way; rule 6 says what becomes of it
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
                message=_words(error),
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


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
