"""The runner: performs a plan on a cluster, and records what happened.

Theory of operation
    One coroutine per worker performs that worker's operations in order, each not before its time and as soon as
    the worker is free; one coroutine injects and heals the planned faults. After the time limit everything is
    healed, the cluster gets a while to recover, and the final reads are made, each until it succeeds.

    The same coroutines run on the simulator's virtual time and on a real event loop.

Rules of this module
    1. An invocation is recorded before it is sent, a completion after it came back.
    2. After an ``info`` the process is retired: its client is closed, and the worker goes on as a new process with
       a number that was never used (Jepsen's rule: process + concurrency).
    3. The cluster is healed on every way out.
    4. Nothing that goes wrong here is swallowed: it ends up in `RunRecord.problems`, and a run with problems is
       never valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness import workloads
from harness.clusters.base import LOAD_BALANCER, Cluster, Insight, LogExporter
from harness.errors import Interrupted
from harness.generators.base import Event, Kind
from harness.generators.simulate import GeneratorError
from harness.injector import FaultRecord, Injector
from harness.live import drive
from harness.liveness import RETRY_PAUSE_S, LivenessRecord
from harness.plan import Plan
from harness.planned import LivenessPlan, PlannedOp
from harness.recorder import Recorder
from harness.seeds import Streams
from harness.systems.base import Client, ClientOptions, CommittedRequests, LoggedClient, System

FINAL_ATTEMPTS = 10
PROGRESS_INTERVAL_S = 0.25
US_PER_S = 1_000_000


@dataclass(slots=True)
class RunRecord:
    """What a run leaves behind, beside the history.

    Attributes:
        faults: one record for each planned fault, in order of their start, then one for each that was set off.
        problems: sentences about what the harness could not do.
        skipped: operations that were planned but not started before the time limit.
        performed: what a live generator has asked for, as operations of a plan.
        interrupted: the user ended the run early.
        stopped: a broken invariant did, as was asked for.
        end_ns: time of the run at its end.
        violations: invariants of the system that its nodes broke; None where nobody could look.
        facts: the cluster's own counts.
        liveness: what became of the demand for progress; None where there was none.
        requests: what the operations asked of the log: index of the invocation, client, number.
        log: the committed log where that was asked for, or a sentence why there is none.
    """

    faults: list[FaultRecord] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: int = 0
    performed: list[PlannedOp] = field(default_factory=list)
    interrupted: bool = False
    stopped: bool = False
    end_ns: int = 0
    violations: Sequence[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    liveness: LivenessRecord | None = None
    requests: list[tuple[int, str, int]] = field(default_factory=list)
    log: CommittedRequests | str = "the run was interrupted"


class Progress(Protocol):
    """Who wants to know how far a run is."""

    def update(self, now_s: float, recorder: Recorder, faults_in_force: list[str]) -> None:
        """Called a few times per second of the run."""


def run(
    plan: Plan,
    cluster: Cluster,
    system: System,
    recorder: Recorder,
    progress: Progress,
    *,
    live: Any = None,
) -> RunRecord:
    """Perform the plan; returns after everything was healed and the cluster closed, also when interrupted.

    With a generator `live`, that decides what is done until the time limit instead of the plan's operations
    (`harness.live`).
    """
    runner = _Runner(plan, cluster, system, recorder, progress)
    runner.live = live
    if plan.config.stop_when_broken and isinstance(cluster, Insight):
        cluster.end_when_violated()
    try:
        cluster.run(runner.main)
    except Interrupted:
        runner.result.stopped = plan.config.stop_when_broken and bool(cluster.violations())
        runner.result.interrupted = not runner.result.stopped
    runner.injector.close()
    runner.result.problems += runner.injector.problems
    runner.result.problems += cluster.deaths()
    runner.result.violations = cluster.violations()
    runner.result.end_ns = cluster.now_ns()
    runner.result.facts = cluster.facts()
    return runner.result


class _Runner:
    def __init__(
        self, plan: Plan, cluster: Cluster, system: System, recorder: Recorder, progress: Progress
    ) -> None:
        self.plan = plan
        self.cluster = cluster
        self.system = system
        self.recorder = recorder
        self.progress = progress
        self.settings = workloads.settings_of(plan.config)
        self.injector = Injector(cluster, recorder, plan.faults)
        self.result = RunRecord(faults=self.injector.faults)
        self.limit_ns = int(plan.config.time_limit_s * 1e9)
        self.live: Any = None

    async def main(self) -> None:
        """Open, run, heal, read, close."""
        self.injector.listen()
        await self.cluster.open()
        watcher = asyncio.ensure_future(self._watch())
        workers = [_Worker(self, index) for index in range(self.plan.config.concurrency)]
        try:
            await self._disturbed_phase(workers)
            if self.plan.liveness is not None and not self.recorder.is_violated:
                await self._liveness_phase(self.plan.liveness, workers)
            await self.injector.heal_all()
            if not self.recorder.is_violated:
                await self._final_phase(workers)
            if self.plan.config.with_log:
                await self._export_log()
        finally:
            watcher.cancel()
            try:
                await self.injector.heal_all()
            finally:  # what could not be healed must not keep the nodes alive
                await self.cluster.close()

    async def _disturbed_phase(self, workers: list[_Worker]) -> None:
        ops: list[list[PlannedOp]] = [[] for _ in workers]
        for op in self.plan.ops:
            ops[op.worker].append(op)
        faults = asyncio.ensure_future(self._inject_faults())
        try:
            if self.live is not None:
                await self._drive(workers)
            else:
                await asyncio.gather(
                    *(worker.perform_all(mine) for worker, mine in zip(workers, ops, strict=True))
                )
            if self.recorder.is_violated:
                faults.cancel()
                await asyncio.wait([faults])
            else:
                await faults
        except BaseException:
            faults.cancel()  # nothing may be injected any more while everything is healed
            raise

    async def _drive(self, workers: list[_Worker]) -> None:
        async def perform(event: Event) -> tuple[Kind, Any, int]:
            op = PlannedOp(self.cluster.now_ns() // 1000, event.thread, event.f, event.key, event.value)
            self.result.performed.append(op)
            return await workers[event.thread].perform_live(op)

        try:
            await drive(
                self.live,
                concurrency=len(workers),
                seed=int(Streams(self.plan.seed).stream("workload/generator").random() * 2**53),
                limit_us=self.limit_ns // 1000,
                now_us=lambda: self.cluster.now_ns() // 1000,
                perform=perform,
            )
        except GeneratorError as error:
            self.result.problems.append(str(error))

    async def _final_phase(self, workers: list[_Worker]) -> None:
        if not self.plan.final:
            return
        await asyncio.sleep(self.plan.config.recovery_s)
        ops: list[list[PlannedOp]] = [[] for _ in workers]
        for op in self.plan.final:
            ops[op.worker].append(op)
        await asyncio.gather(*(worker.read_finally(mine) for worker, mine in zip(workers, ops, strict=True)))

    async def _export_log(self) -> None:
        if not self.plan.final:
            await asyncio.sleep(self.plan.config.recovery_s)
        if isinstance(self.cluster, LogExporter):
            self.result.log = await self.cluster.committed(await self.cluster.leader())
        else:
            self.result.log = f"a cluster of kind {self.cluster.kind} exports no log"

    async def _liveness_phase(self, wanted: LivenessPlan, workers: list[_Worker]) -> None:
        """What `harness.liveness` says: each client of the core is to get its answers within the bound."""
        healed_us = self.limit_ns // 1000
        await self.sleep_until(healed_us)
        until_us = healed_us + wanted.bound_ms * 1000
        ops: dict[int, list[PlannedOp]] = {}
        for op in wanted.ops:
            ops.setdefault(op.worker, []).append(op)
        record = self.result.liveness = LivenessRecord(
            wanted, outside=tuple(self.injector.nemesis.in_force.values())
        )
        answers = await asyncio.gather(
            *(workers[index].progress(mine, wanted.needed, until_us) for index, mine in ops.items())
        )
        record.answered = dict(zip(ops, answers, strict=True))
        if not record.stuck:
            record.recovered_ns = max(0, self.cluster.now_ns() - self.limit_ns)

    async def _inject_faults(self) -> None:
        await self.injector.perform(self.sleep_until)
        if self.plan.liveness is not None:
            for event in self.plan.liveness.outside:
                await self.sleep_until(event.start_ms * 1000)
                record = FaultRecord(event)
                self.injector.faults.append(record)
                await self.injector.start(record)

    # -- time -------------------------------------------------------------------------------------------------

    async def sleep_until(self, at_us: int) -> None:
        """Wait until that time of the run; returns at once if it has passed."""
        wait_us = at_us - self.cluster.now_ns() // 1000
        if wait_us > 0:
            await asyncio.sleep(wait_us / US_PER_S)

    def time_is_up(self) -> bool:
        """Whether no further operation is to be started."""
        return self.recorder.is_violated or self.cluster.now_ns() >= self.limit_ns

    async def _watch(self) -> None:
        while True:
            in_force = self.injector.in_force()
            self.progress.update(self.cluster.now_ns() / 1e9, self.recorder, in_force)
            await asyncio.sleep(PROGRESS_INTERVAL_S)


class _Worker:
    """One of the concurrent clients: a sequence of processes, one after the other."""

    def __init__(self, runner: _Runner, index: int) -> None:
        self._runner = runner
        self._process = index
        self._told: Any = None
        plan = runner.plan
        self._nodes = (LOAD_BALANCER,) if plan.config.via == "lb" else plan.nodes
        self._home = self._nodes[index % len(self._nodes)]
        self._options = ClientOptions(
            op_timeout_ms=plan.config.op_timeout_ms,
            attempt_timeout_ms=plan.config.attempt_timeout_ms,
            session_ttl_ms=plan.config.session_ttl_ms,
            follows_leader=plan.config.via == "leader",
            workload=plan.config.workload,
            settings=runner.settings,
        )
        self._client = self._new_client()

    def _new_client(self) -> Client:
        runner = self._runner
        return runner.system.client(
            runner.cluster.transport(), self._nodes, self._home, f"c{self._process}", self._options
        )

    async def perform_all(self, ops: list[PlannedOp]) -> None:
        """Perform operations in order until they are done or the time is up."""
        for done, op in enumerate(ops):
            await self._runner.sleep_until(op.at_us)
            if self._runner.time_is_up():
                self._runner.result.skipped += len(ops) - done
                return
            await self._perform(op)

    async def read_finally(self, ops: list[PlannedOp]) -> None:
        """Perform each operation until it succeeds, at most `FINAL_ATTEMPTS` times."""
        for op in ops:
            for _ in range(FINAL_ATTEMPTS):
                if await self._perform(op) == "ok":
                    break
            else:
                self._runner.result.problems.append(
                    f"the final {op.f} of key {op.key} did not succeed in {FINAL_ATTEMPTS} attempts after "
                    "everything was healed: the system did not recover"
                )
                return  # the next ones would wait as long for the same reason

    async def perform_live(self, op: PlannedOp) -> tuple[Kind, Any, int]:
        """One operation; how it ended, its value, and which process the worker is now."""
        outcome = await self._perform(op)
        kind: Kind = "ok" if outcome == "ok" else "info" if outcome == "info" else "fail"
        return kind, self._told, self._process

    async def progress(self, ops: list[PlannedOp], needed: int, until_us: int) -> int:
        """Perform operations until so many were answered, or the time is up; how many were."""
        answered = 0
        for op in ops:
            outcome = ""
            while outcome not in ("ok", "mismatch", "info"):
                if answered == needed or self._runner.cluster.now_ns() >= until_us * 1000:
                    return answered
                outcome = await self._perform(op)
                if outcome == "fail":
                    await asyncio.sleep(RETRY_PAUSE_S)
            answered += outcome != "info"
        return answered

    async def _perform(self, op: PlannedOp) -> str:
        """One operation, recorded; how it ended: ok, fail, info, or ``mismatch`` where a condition was not met."""
        record = self._runner.recorder.record
        invoked = record(self._process, "invoke", op.f, key=op.key, value=op.value)
        outcome = await self._client.invoke(op.f, op.key, op.value)
        if self._runner.plan.config.with_log and isinstance(self._client, LoggedClient):
            self._runner.result.requests += [(invoked.index, *request) for request in self._client.logged]
        value = self._told = op.value if outcome.value is None else outcome.value
        record(
            self._process,
            outcome.type,
            op.f,
            key=op.key,
            value=value,
            error=outcome.error,
            node=outcome.node,
            revision=outcome.revision,
        )
        if outcome.type == "info":
            await self._client.close()
            self._process += self._runner.plan.config.concurrency
            self._client = self._new_client()
        return "mismatch" if outcome.error == "mismatch" else outcome.type
