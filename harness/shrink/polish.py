"""The last stage: Hypothesis makes the numbers of a small plan smaller.

Theory of operation
    The passes of `shrinker` close one gap at a time by some fixed fractions. Hypothesis is better at numbers: it looks
    for the smallest value that still fails, for each number alone and for two together, where one must grow for another
    to shrink. So the plan is written as a list of numbers: the gaps between all planned instants in whole
    milliseconds, and the worker of each operation. Each number may become smaller and none larger. Hypothesis is shown
    the plan as it is, as if it had found it before (the phase in which it reuses its database), and shrinks it with
    `test` as the judge.

Rules of this module
    1. Hypothesis is an extra: without it a plan stays as it is.
    2. `test` may always say no, to end the search when the budget is spent.
    3. Nothing is stored; the database lives in memory and holds this one example.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from harness.plan import Plan
from harness.shrink import edits

try:
    import hypothesis
    from hypothesis import strategies as st
    from hypothesis.database import InMemoryExampleDatabase, choices_to_bytes
except ImportError:  # an extra
    AVAILABLE = False
else:
    AVAILABLE = True

SHRINKS_MAX = 2_000
NUMBERS_MAX = 120  # a plan with more is not small yet
KEY = b"plan"
replace = msgspec.structs.replace


class Numbers(NamedTuple):
    """A plan as numbers: see the module."""

    gaps_ms: tuple[int, ...]
    workers: tuple[int, ...]


def numbers_of(plan: Plan) -> Numbers:
    """The numbers of a plan."""
    times = [0, *_instants(plan)]
    gaps = tuple(later - at for at, later in itertools.pairwise(times))
    return Numbers(gaps, tuple(op.worker for op in (*plan.ops, *plan.final)))


def with_numbers(plan: Plan, numbers: Numbers) -> Plan:
    """The plan with these numbers instead of its own."""
    moved_ms = dict(zip(_instants(plan), itertools.accumulate(numbers.gaps_ms), strict=True))
    workers = iter(numbers.workers)
    ops = tuple(
        replace(op, at_us=moved_ms.get(op.at_us // 1000, 0) * 1000 + op.at_us % 1000, worker=next(workers))
        for op in plan.ops
    )
    final = tuple(replace(op, worker=next(workers)) for op in plan.final)
    faults = []
    for event in plan.faults:
        start_ms = moved_ms.get(event.start_ms, 0)
        faults.append(replace(event, start_ms=start_ms, stop_ms=max(start_ms + 1, moved_ms[event.stop_ms])))
    limit_ms = moved_ms[round(plan.config.time_limit_s * 1000)]
    return edits.with_limit_ms(replace(plan, ops=ops, final=final, faults=tuple(faults)), limit_ms)


def _instants(plan: Plan) -> list[int]:
    return [at_ms for at_ms in edits.instants_ms(plan) if at_ms > 0] or [1]


def polish(plan: Plan, test: Callable[[Plan], bool]) -> None:
    """Let Hypothesis look for smaller numbers; `test` says whether a plan fails, and remembers the best."""
    numbers = numbers_of(plan)
    if not AVAILABLE or not 0 < sum(map(len, numbers)) <= NUMBERS_MAX:
        return
    database = InMemoryExampleDatabase()
    # One number more than is drawn: an example that matches exactly would be taken for one that was shrunk already.
    database.save(KEY, choices_to_bytes((*numbers.gaps_ms, *numbers.workers, 0)))

    known = {numbers: True}  # Hypothesis asks about its best example again

    def fails(drawn: tuple[Sequence[int], Sequence[int]]) -> bool:
        asked = Numbers(tuple(drawn[0]), tuple(drawn[1]))
        if asked not in known:
            known[asked] = test(with_numbers(plan, asked))
        return known[asked]

    def up_to(highest: Sequence[int]) -> st.SearchStrategy[tuple[int, ...]]:
        return st.tuples(*(st.integers(0, number) for number in highest))

    settings = hypothesis.settings(
        database=database, derandomize=False, deadline=None, max_examples=SHRINKS_MAX,
        phases=(hypothesis.Phase.reuse, hypothesis.Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    hypothesis.find(
        st.tuples(up_to(numbers.gaps_ms), up_to(numbers.workers)), fails, settings=settings, database_key=KEY
    )
