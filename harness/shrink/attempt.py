"""A plan run in memory, and where its history goes wrong.

Rules of this module
    1. An attempt writes nothing to disk and prints nothing: the shrinker makes hundreds of them.
    2. A run that ends with an exception shows no violation: it fails in another way than the one looked for.
    3. A violation of a history is the completion with which that of its object first became impossible, one of an
       invariant is the moment at which it was broken: whatever happens after it can be cut off.
    4. Who looks for a broken invariant needs nothing of the run that breaks it after that moment.
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
from harness.clusters.base import Cluster, Insight
from harness.config import Config
from harness.plan import Plan
from harness.progress import QuietProgress
from harness.recorder import Recorder
from harness.runner import RunRecord

CONFIGURATIONS_MAX = 3_000  # per key; a history that needs more is not worth a shrinker's time
BYTES_MAX = 1 << 28
LIVENESS = "liveness"
INVARIANT = "invariant "  # in front of its name


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a history goes wrong.

    Attributes:
        key: the object, None where the model has only one.
        index: `Op.index` of the completion with which it is impossible; of an invariant, of the first line after.
        time_ns: when that was.
        what: the name of what it violates: of the model, of a checker, of an invariant, or `LIVENESS`.
    """

    key: Any
    index: int
    time_ns: int
    what: str = ""

    @property
    def inside(self) -> bool:
        """Whether nodes broke an invariant, be it seen by clients or not."""
        return self.what.startswith(INVARIANT)


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


def attempt(plan: Plan, *, wanted: str = "", prepare: Callable[[Cluster], None] | None = None) -> Attempt:
    """Run the plan and look for violations.

    Args:
        plan: what to run.
        wanted: what is looked for, if only that is: a broken invariant then ends the run (rule 4).
        prepare: sees the cluster before the run.
    """
    try:
        system = systems.by_name(plan.config.system)
        cluster = make_cluster(plan, system)
        if prepare is not None:
            prepare(cluster)
        if wanted.startswith(INVARIANT) and isinstance(cluster, Insight):
            cluster.end_when_violated()
        recorder = MemoryRecorder(cluster.now_ns)
        record = runner.run(plan, cluster, system, recorder, QuietProgress())
    except Exception as error:  # noqa: BLE001 - rule 2
        return Attempt(error=f"{type(error).__name__}: {error}")
    ops = recorder.ops
    violations = () if record.interrupted else violations_of(ops, plan.config)
    return Attempt(ops, (*violations, *_seen_inside(ops, record, cluster)), record)


def _seen_inside(ops: Sequence[Op], record: RunRecord, cluster: Cluster) -> Iterator[Violation]:
    """What no client could see: a broken invariant, by its name, and a lack of progress, which shows at the end."""
    end_ns = ops[-1].time_ns if ops else 0
    for said in record.violations or ():
        at_ns = cluster.violated_ns() if isinstance(cluster, Insight) else None
        at_ns = end_ns if at_ns is None else at_ns
        index = next((op.index for op in ops if op.time_ns > at_ns), len(ops))
        yield Violation(None, index, at_ns, INVARIANT + _name_of(said))
    if ops and record.liveness is not None and record.liveness.stuck:
        yield Violation(None, ops[-1].index, end_ns, LIVENESS)


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
