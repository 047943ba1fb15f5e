"""Reactive faults: injected when the cluster does something, while they are armed.

Rules of this module
    1. What the cluster does comes in as `ClusterEvent`s, in order. Every armed fault with that trigger is set off,
       as long as it may be, each time as an event of its own, named after the planned one: `kill-in-snapshot-2.1`.
    2. A fault that was set off holds for as long as its trigger says, but is healed when the planned one ends.
    3. In the simulator events come at the very moment in the order of the run, so the same seed sets off the same
       faults at the same times. Real clusters tell of what happened a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from nemesis.schedule import FaultEvent
from nemesis.target import ClusterEvent
from nemesis.trigger import Trigger

Inject = Callable[[FaultEvent, str], Awaitable[None]]
Heal = Callable[[FaultEvent], Awaitable[None]]
Leader = Callable[[], Awaitable[str | None]]


@dataclass(slots=True)
class _Armed:
    event: FaultEvent
    when: Trigger
    count: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Reactor:
    """Arms, sets off and disarms.

    Args:
        inject: puts a fault in force, set off by a node.
        heal: takes it out of force.
        leader: who leads.
        now_ms: time of the run.
    """

    def __init__(self, inject: Inject, heal: Heal, leader: Leader, now_ms: Callable[[], float]) -> None:
        self._inject, self._heal, self._leader, self._now_ms = inject, heal, leader, now_ms
        self._armed: dict[str, _Armed] = {}

    async def arm(self, event: FaultEvent) -> None:
        """From now on the fault may be set off."""
        assert event.when is not None, "only reactive faults are armed"
        armed = self._armed[event.id] = _Armed(event, event.when)
        if event.when.on == "leader":
            leader = await self._leader()
            if leader is not None:
                self._set_off(armed, leader)

    async def disarm(self, event: FaultEvent) -> int:
        """The fault may no longer be set off, and is healed where it is in force; how often it was set off."""
        armed = self._armed.pop(event.id, None)
        if armed is None:
            return 0
        for task in armed.tasks:
            task.cancel()
        await asyncio.gather(*armed.tasks, return_exceptions=True)
        return armed.count

    async def disarm_all(self) -> None:
        """The same for all."""
        for armed in tuple(self._armed.values()):
            await self.disarm(armed.event)

    def on_event(self, happened: ClusterEvent) -> None:
        """The cluster did something. Returns at once."""
        for armed in tuple(self._armed.values()):
            if armed.when.on == happened.kind:
                self._set_off(armed, happened.node)

    def _set_off(self, armed: _Armed, node: str) -> None:
        if armed.count < armed.when.times:
            armed.count += 1
            task = asyncio.get_running_loop().create_task(self._hold(armed, armed.count, node))
            armed.tasks.append(task)

    async def _hold(self, armed: _Armed, number: int, node: str) -> None:
        when = armed.when
        await asyncio.sleep(when.delay_ms / 1000)
        start_ms = int(self._now_ms())
        event = msgspec.structs.replace(
            armed.event,
            id=f"{armed.event.id}.{number}",
            start_ms=max(0, start_ms),
            stop_ms=max(0, start_ms) + max(1, int(when.hold_ms)),
            when=None,
        )
        # From here on it is healed on every way out, also when it is disarmed in the middle of the injection.
        try:
            await self._inject(event, node)
            await asyncio.sleep(when.hold_ms / 1000)
        finally:
            await asyncio.shield(self._heal(event))
