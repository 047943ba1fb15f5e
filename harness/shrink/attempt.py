"""A plan run in memory, and where its history goes wrong.

Rules of this module
    1. An attempt writes nothing to disk and prints nothing: the shrinker makes hundreds of them.
    2. A run that ends with an exception shows no violation: it fails in another way than the one looked for.
    3. A violation is an operation's completion with which the history of its object first became impossible, so
       that whatever happened after it can be cut off.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from checkers import History, Model, Op, Operation, model_by_name
from checkers.catalogue import run_checker
from checkers.levels import Levels
from checkers.meter import Meter
from checkers.models import by_key, uses_mismatch
from checkers.problem import compile_problem
from checkers.search import search
from harness import runner, systems, workloads
from harness.clusters import make_cluster
from harness.clusters.base import Cluster
from harness.config import Config
from harness.plan import Plan
from harness.progress import QuietProgress
from harness.recorder import Recorder
from harness.runner import RunRecord

CONFIGURATIONS_MAX = 3_000  # per key; a history that needs more is not worth a shrinker's time
BYTES_MAX = 1 << 28
LIVENESS = "liveness"


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a history goes wrong.

    Attributes:
        key: the object, None where the model has only one.
        index: `Op.index` of the completion with which it is impossible.
        time_ns: when that was.
        what: the name of what it violates: of the model, of a checker, of an invariant, or `LIVENESS`.
    """

    key: Any
    index: int
    time_ns: int
    what: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a plan.

    Attributes:
        ops: the lines of its history.
        violations: the earliest of each key, in order of time, then what only the harness sees: broken invariants, a
            lack of progress; empty where nothing is invalid.
        record: what the runner has to say; None where the run ended with an exception.
        error: that exception, in words.
    """

    ops: Sequence[Op] = ()
    violations: tuple[Violation, ...] = ()
    record: RunRecord | None = field(default=None, repr=False)
    error: str | None = None


class MemoryRecorder(Recorder):
    """A recorder that keeps the operations and writes no file."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        self.ops: list[Op] = []
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._now_ns = now_ns

    def _write(self, line: bytes) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def attempt(plan: Plan, *, prepare: Callable[[Cluster], None] | None = None) -> Attempt:
    """Run the plan and look for violations of its workload's model; `prepare` sees the cluster before the run."""
    try:
        system = systems.by_name(plan.config.system)
        cluster = make_cluster(plan, system)
        if prepare is not None:
            prepare(cluster)
        recorder = MemoryRecorder(cluster.now_ns)
        record = runner.run(plan, cluster, system, recorder, QuietProgress())
    except Exception as error:  # noqa: BLE001 - rule 2
        return Attempt(error=f"{type(error).__name__}: {error}")
    violations = violations_of(recorder.ops, plan.config)
    return Attempt(recorder.ops, (*violations, *_seen_inside(recorder.ops, record)), record)


def _seen_inside(ops: Sequence[Op], record: RunRecord) -> Iterator[Violation]:
    """What no client could see: a broken invariant, by its name, and a lack of progress. They show at the end."""
    if not ops:
        return
    for said in record.violations or ():
        yield Violation(None, ops[-1].index, ops[-1].time_ns, f"invariant {_name_of(said)}")
    if record.liveness is not None and record.liveness.stuck:
        yield Violation(None, ops[-1].index, ops[-1].time_ns, LIVENESS)


def _name_of(said: str) -> str:
    """The invariant's name, in front of the colon; else the sentence without names of nodes and numbers."""
    name, colon, _ = said.partition(":")
    return name if colon else re.sub(r"\b\w*\d\w*\b", "#", said.partition(",")[0])


def violations_of(
    ops: Sequence[Op], config: Config, *, configurations: int = CONFIGURATIONS_MAX
) -> tuple[Violation, ...]:
    """Where the history goes wrong by its workload's model and checkers, in order of time."""
    workload = workloads.by_name(config.workload)
    found: list[Violation] = []
    if workload.model:
        model = model_by_name(workload.model)
        found += find_violations(ops, model, configurations=configurations)
    for call in workload.checkers(workloads.settings_of(config)):
        at = run_checker(call, History.of(ops)).at
        found += [Violation(ops[index].key, index, ops[index].time_ns, call.name) for index in at]
    return tuple(sorted(found, key=lambda violation: violation.index))


def find_violations(
    ops: Sequence[Op], model: Model, *, configurations: int = CONFIGURATIONS_MAX
) -> tuple[Violation, ...]:
    """Where the history goes wrong first, for each object that does, in order of time; what is undecided does not."""
    split, keep_mismatch = by_key(model), uses_mismatch(model)
    groups: dict[Hashable, list[Operation]] = {}
    for operation in History.of(ops).operations:
        if operation.status != "mismatch" or keep_mismatch:
            groups.setdefault(operation.key if split else None, []).append(operation)
    found = [
        Violation(key, index, ops[index].time_ns, model.name)
        for key, operations in groups.items()
        if (index := _fails_at(operations, model, configurations)) is not None
    ]
    return tuple(sorted(found, key=lambda violation: violation.index))


def _fails_at(operations: Sequence[Operation], model: Model, configurations: int) -> int | None:
    problem = compile_problem(operations, model)
    outcome = search(problem, Meter(configurations, BYTES_MAX, time.monotonic() + 3600))
    if outcome.valid is not False:
        return None
    rets = Levels(problem).rets
    return problem.operations[rets[min(outcome.level, len(rets) - 1)]].complete_index
