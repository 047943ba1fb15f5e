"""The straight line from a plan to a result: open, run, check, seal. `run` and `replay` both walk it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from checkers import model_by_name
from checkers.models import Register
from checkers.online import Online
from harness import judge, report, runner, store, systems, workloads
from harness import plan as plans
from harness.clusters import make_cluster
from harness.errors import ConfigError
from harness.interrupts import interruptible
from harness.judge import Check
from harness.plan import Plan
from harness.recorder import Recorder
from harness.runner import Progress


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that is over and sealed."""

    run_dir: Path
    result: dict[str, Any]
    checks: Sequence[Check]
    report: str


def execute(plan: Plan, run_dir: Path, progress: Progress, *, live: Any = None) -> Execution:
    """Run the plan in that directory, check the history, store everything.

    A generator `live` decides what is done in the place of the plan's operations; what it asked for is stored as the
    plan, so that the run can be replayed and made smaller.

    Raises:
        SplitbrainError: the plan names something unknown, or the environment fails; what was recorded is kept.
    """
    started_s = time.monotonic()
    system = systems.by_name(plan.config.system)
    workload = workloads.by_name(plan.config.workload)
    if plan.config.bug is not None and plan.config.bug not in system.bugs:
        raise ConfigError(unknown_bug(plan.config.bug, system.bugs))
    cluster = make_cluster(plan, system, run_dir)
    recorder = Recorder(
        run_dir / store.HISTORY,
        model=workload.model,
        checkers=workload.checkers(workloads.settings_of(plan.config)),
        now_ns=cluster.now_ns,
        online=online_check(plan, workload.model) if plan.config.online else None,
    )
    try:
        with interruptible(cluster.interrupt):
            record = runner.run(plan, cluster, system, recorder, progress, live=live)
    finally:
        recorder.close()
    if live is not None:
        plan = msgspec.structs.replace(plan, ops=tuple(record.performed))
        (run_dir / store.PLAN).write_bytes(plans.encode(plan))
    log = judge.log_of(record)
    if plan.config.with_log and not isinstance(log, str):
        store.save_log(run_dir, log)
    checks = judge.judge(recorder.ops, plan.config, recorder, record)
    result = report.results(plan, recorder, record, checks, run_dir, time.monotonic() - started_s)
    text = report.text(result, checks)
    store.seal(run_dir, result, text)
    return Execution(run_dir, result, checks, text)


def online_check(plan: Plan, model_name: str) -> Online:
    """What checks the plan's history while it is recorded.

    Raises:
        ConfigError: it is no history of a register that is only read and written.
    """
    model = model_by_name(model_name) if model_name else None
    if not isinstance(model, Register):
        raise ConfigError(
            f"online checks registers, and the workload {plan.config.workload} has none; leave it out"
        )
    other = next((op.f for op in (*plan.ops, *plan.final) if op.f not in ("read", "write")), None)
    if other is not None:
        raise ConfigError(
            f"online checks reads and writes only, and the plan has {other}; add --option cas=false, or leave it out"
        )
    return Online(model.start, silent_nil=not model.strict_nil, model=model.name)


def unknown_bug(name: str, known: Any) -> str:
    """The sentence for a bug that the system does not have."""
    return f"unknown bug {name!r}; `splitbrain bugs` lists them: {', '.join(known)}"
