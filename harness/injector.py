"""The faults of a run: planned ones at their times, reactive ones when the cluster sets them off; each with its proof.

Rules of this module
    1. What is asked of the nemesis is recorded in the history before and after (as the operations of clients are),
       and what became of it in a `FaultRecord`.
    2. Proof takes no time of the plan: probes run beside it.
    3. What went wrong is a sentence in `problems`; a fault that a probe found not to be in force is one.
    4. A fault whose time was over before its turn came is left out: real clusters take a while to be asked, and a burst
       that is too quick for them must not become faults after the end of the load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from harness.clusters.base import Cluster
from harness.recorder import Recorder
from nemesis.faults import name_of
from nemesis.nemesis import Nemesis, NemesisError
from nemesis.proof import NOTHING, Begun, Evidence, Prover, merge
from nemesis.reactive import Reactor
from nemesis.schedule import FaultEvent
from nemesis.target import ClusterEvent, EventTarget

EVENTS_MAX = 20_000
LATE_MS_MAX = 250  # behind its time by this much a fault is still injected, even if it is healed at once
AFTERMATH_MS = 1_000.0  # what the cluster does so soon after a heal is counted as caused by the fault
NS_PER_MS = 1_000_000


@dataclass(slots=True)
class FaultRecord:
    """What became of a fault; times in nanoseconds of the run, None where it did not happen.

    Attributes:
        event: the fault; for a reactive one that was set off, with the times of that.
        description: one line, with the nodes it hit.
        started_ns, stopped_ns: when it was in force.
        evidence: what proved that it was.
        caused: what the cluster did meanwhile and shortly after, by kind.
        set_off: for a reactive fault, how often.
        is_late: its time was over before its turn came.
    """

    event: FaultEvent
    description: str = ""
    started_ns: int | None = None
    stopped_ns: int | None = None
    evidence: Evidence = NOTHING
    caused: dict[str, int] = field(default_factory=dict)
    set_off: int = 0
    is_late: bool = False

    @property
    def kind(self) -> str:
        """What `--fault` calls it, as far as the fault alone tells."""
        return name_of(self.event.fault)


SleepUntil = Callable[[int], Awaitable[None]]


class Injector:
    """Everything that the nemesis does in one run.

    Attributes:
        nemesis: what does it.
        faults: one record for each planned fault, then one for each that was set off.
        problems: sentences.
    """

    def __init__(self, cluster: Cluster, recorder: Recorder, planned: Sequence[FaultEvent]) -> None:
        self.nemesis = Nemesis(cluster)
        self.faults = [FaultRecord(event) for event in planned]
        self.problems: list[str] = []
        self._cluster = cluster
        self._recorder = recorder
        self._events: list[ClusterEvent] = []
        self._begun: dict[str, Begun] = {}
        self._prover = Prover(cluster, self.nemesis, self._now_ms)
        self._reactor = Reactor(self._set_off, self._heal_set_off, cluster.leader, self._now_ms)

    def listen(self) -> None:
        """From now on hear what the cluster does; before its nodes are started."""
        if isinstance(self._cluster, EventTarget):
            self._cluster.subscribe(self._on_event)

    async def perform(self, sleep_until: SleepUntil) -> None:
        """Inject and heal as planned."""
        steps = [(record.event.start_ms, 1, record) for record in self.faults]
        steps += [(record.event.stop_ms, 0, record) for record in self.faults]
        # At equal times heal before injecting, so that a planned hand-over does not overlap.
        for at_ms, starts, record in sorted(steps, key=lambda step: (step[0], step[1])):
            await sleep_until(at_ms * 1000)
            if starts:
                record.is_late = self._is_late(record.event)
            if record.is_late:
                continue
            if starts:
                await self.start(record)
            else:
                await self.stop(record)

    def _is_late(self, event: FaultEvent) -> bool:
        lasts_ms = event.stop_ms - event.start_ms
        return lasts_ms > 0 and self._now_ms() >= max(event.stop_ms, event.start_ms + LATE_MS_MAX)

    async def start(self, record: FaultRecord) -> None:
        """Inject a fault, or arm it."""
        if record.event.when is not None:
            record.description = f"{record.kind} on {record.event.when.on}"
            await self._reactor.arm(record.event)
        else:
            await self._inject(record, None)

    async def stop(self, record: FaultRecord) -> None:
        """Heal a fault, or disarm it."""
        if record.event.when is not None:
            record.set_off = await self._reactor.disarm(record.event)
        else:
            await self._heal(record)

    async def heal_all(self) -> None:
        """Heal everything, whatever is in force."""
        await self._reactor.disarm_all()
        begun, self._begun = self._begun, {}
        for one in begun.values():
            await self._prover.before_heal(one)
        self._note(await self.nemesis.heal_all())
        for record in self.faults:
            if record.started_ns is not None and record.stopped_ns is None:
                record.stopped_ns = self._cluster.now_ns()
            if record.event.id in begun:
                found = await self._prover.after_heal(begun[record.event.id])
                record.evidence = merge([record.evidence, found])

    def close(self) -> None:
        """Nothing happens any more: count what each fault caused."""
        for record in self.faults:
            if record.started_ns is not None:
                stop_ns = record.stopped_ns if record.stopped_ns is not None else self._cluster.now_ns()
                record.caused = self._between(record.started_ns, stop_ns)
            if record.evidence.verdict == "refuted":
                self.problems.append(f"fault {record.event.id} was not in force: {record.evidence.lines[0]}")

    def in_force(self) -> list[str]:
        """Descriptions of what is in force."""
        return [r.description for r in self.faults if r.started_ns is not None and r.stopped_ns is None]

    # -- one fault --------------------------------------------------------------------------------------------

    async def _inject(self, record: FaultRecord, trigger: str | None) -> None:
        event = record.event
        f = f"start-{record.kind}"
        self._recorder.record("nemesis", "info", f, value=msgspec.to_builtins(event.fault))
        injected = await self.nemesis.inject(event, trigger=trigger)
        record.description = injected.description
        self._note(injected.errors)
        if not injected.errors:
            record.started_ns = self._cluster.now_ns()
            if injected.effect is not None:
                self._begun[event.id] = self._prover.begin(injected.effect)
            record.evidence = _told(injected.details)
        value = {"event": event.id, "description": injected.description, **injected.details}
        self._recorder.record("nemesis", "info", f, value=value)

    async def _heal(self, record: FaultRecord) -> None:
        begun = self._begun.pop(record.event.id, None)
        if begun is not None:
            await self._prover.before_heal(begun)
        healed = await self.nemesis.heal(record.event)
        self._note(healed.errors)
        if record.started_ns is not None:
            record.stopped_ns = self._cluster.now_ns()
        if begun is not None:
            record.evidence = merge([record.evidence, await self._prover.after_heal(begun)])
        value = {"event": record.event.id, "description": healed.description}
        self._recorder.record("nemesis", "info", f"stop-{record.kind}", value=value)

    async def _set_off(self, event: FaultEvent, node: str) -> None:
        record = FaultRecord(event)
        self.faults.append(record)
        await self._inject(record, node)

    async def _heal_set_off(self, event: FaultEvent) -> None:
        record = next((record for record in self.faults if record.event.id == event.id), None)
        if record is not None:
            await self._heal(record)

    def _note(self, errors: Sequence[NemesisError]) -> None:
        for error in errors:
            where = f" on {error.node}" if error.node else ""
            self.problems.append(f"fault {error.event}: {error.verb}{where} failed: {error.message}")

    # -- what the cluster does --------------------------------------------------------------------------------

    def _on_event(self, happened: ClusterEvent) -> None:
        if len(self._events) < EVENTS_MAX:
            self._events.append(happened)
        self._reactor.on_event(happened)

    def _between(self, start_ns: int, stop_ns: int) -> dict[str, int]:
        start_ms, stop_ms = start_ns / NS_PER_MS, stop_ns / NS_PER_MS + AFTERMATH_MS
        return dict(sorted(Counter(e.kind for e in self._events if start_ms <= e.at_ms <= stop_ms).items()))

    def _now_ms(self) -> float:
        return self._cluster.now_ns() / NS_PER_MS


def _told(details: object) -> Evidence:
    """What the injection itself said of what it did once."""
    assert isinstance(details, dict), "details are JSON"
    done = tuple(f"{node}: {what}" for node, what in details.get("damaged", {}).items())
    refused = tuple(f"{node}: {why}" for node, why in details.get("refused", {}).items())
    if not done and not refused:
        return NOTHING
    return Evidence("proved" if done else "unproved", (*done, *refused))
