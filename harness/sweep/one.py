"""One seed of a sweep: drawn, run in memory, judged; a run directory is made only for a failure.

Rules of this module
    1. What goes in and out is plain data: it crosses process borders and stands in the results file.
    2. Whatever goes wrong becomes a result: a seed that ends with an exception is ``unknown``, and says with what.
    3. A failure is stored by running its plan once more: a simulated run repeats itself, and if it does not, that is
       the more interesting failure.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from harness import judge, runner, store, systems
from harness import plan as plans
from harness.clusters import make_cluster
from harness.config import Config
from harness.errors import JSON_VALID, InternalError, Valid
from harness.execute import execute
from harness.guided.features import Observer
from harness.judge import Check
from harness.plan import Plan
from harness.progress import QuietProgress
from harness.runner import RunRecord
from harness.shrink.attempt import MemoryRecorder
from harness.sweep.swarm import swarmed

SIGNATURE_CHARS = 120


class Task(msgspec.Struct, frozen=True):
    """What one worker is to do.

    Attributes:
        config: the configuration, but for the seed.
        seed: the seed.
        swarm: whether the seed draws its own mix of faults and rates.
        keep: whether a failure is to be stored.
        plan: what to run; drawn from the configuration where there is none.
    """

    config: Config
    seed: int
    swarm: bool = False
    keep: bool = True
    plan: Plan | None = None


class Result(msgspec.Struct, frozen=True):
    """What became of one seed; a line of the results file.

    Attributes:
        signature: failures of one kind share it; empty where nothing failed.
        evidence: the first lines of what the checks said.
        run_dir: where the failure is stored; None where it is not.
        faults: how many were injected.
        features: what was reached, see `harness.guided.features`; in the file only what no run before it had reached,
            so that who resumes the sweep knows it.
        new_features: how many of them no run before it had reached.
        recovered_ms: with liveness: how long the healed majority took to answer all its clients.
    """

    seed: int
    valid: Literal["valid", "invalid", "unknown"]
    signature: str = ""
    evidence: tuple[str, ...] = ()
    run_dir: str | None = None
    ops: int = 0
    faults: int = 0
    sim_seconds: float = 0.0
    wall_seconds: float = 0.0
    recovered_ms: float | None = None
    features: tuple[int, ...] = ()
    new_features: int = 0


def run_one(task: Task) -> Result:
    """Run one seed to a result; never raises for what happens in the run."""
    started_s = time.monotonic()
    try:
        result = _run(task)
    except Exception as error:  # noqa: BLE001 - rule 2
        result = failed(task.seed, f"{type(error).__name__}: {error}")
    return msgspec.structs.replace(result, wall_seconds=round(time.monotonic() - started_s, 3))


def failed(seed: int, why: str) -> Result:
    """The result of a seed that could not be run."""
    return Result(seed, "unknown", signature=_general(f"crashed: {why}"), evidence=(why,))


def _run(task: Task) -> Result:
    plan = task.plan
    if plan is None:
        plan = plans.draw(swarmed(task.config, task.seed) if task.swarm else task.config, task.seed)
    config = plan.config
    system = systems.by_name(config.system)
    cluster = make_cluster(plan, system)
    observer = Observer()
    observer.attach(cluster)
    recorder = MemoryRecorder(cluster.now_ns)
    record = runner.run(plan, cluster, system, recorder, QuietProgress())
    checks = judge.judge(recorder.ops, config, recorder, record)
    verdict = judge.merged(checks)
    bad = [check for check in checks if check.valid != "valid"]
    return Result(
        task.seed,
        verdict,
        signature=_signature(bad, verdict),
        evidence=tuple(line for check in bad for line in check.lines[:3]),
        run_dir=_store(plan, verdict) if verdict == "invalid" and task.keep else None,
        ops=sum(1 for op in recorder.ops if op.type == "invoke" and isinstance(op.process, int)),
        faults=sum(1 for fault in record.faults if fault.started_ns is not None),
        sim_seconds=record.end_ns / 1e9,
        recovered_ms=_recovered_ms(record),
        features=observer.features(recorder.ops),
    )


def _recovered_ms(record: RunRecord) -> float | None:
    after_ns = record.liveness.recovered_ns if record.liveness is not None else None
    return round(after_ns / 1e6, 3) if after_ns is not None else None


def _store(plan: Plan, verdict: Valid) -> str:
    run_dir = store.create(Path(plan.config.store), plan)
    execution = execute(plan, run_dir, QuietProgress())
    if execution.result["valid"] != JSON_VALID[verdict]:
        raise InternalError(f"run {run_dir}: it was {verdict}, and is not when it is run again")
    return str(run_dir)


def _signature(bad: Sequence[Check], verdict: Valid) -> str:
    """What failures of one kind have in common: the check, and what it said without figures and names."""
    worst = next((check for check in bad if check.valid == verdict), None)
    if worst is None:
        return ""
    model = worst.details.get("model")
    said = f"by {model}" if verdict == "invalid" and model else (worst.lines[0] if worst.lines else verdict)
    return f"{worst.name}: {_general(said)}"


def _general(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)[:SIGNATURE_CHARS]
