"""Plans as numbers for Hypothesis: there and back, smaller only, and never an exception from inside."""

import msgspec
import pytest

from harness import plan as plans
from harness.config import Config
from harness.shrink import edits, polish

pytestmark = pytest.mark.skipif(not polish.AVAILABLE, reason="needs hypothesis")


@pytest.fixture
def plan():
    return plans.draw(Config(time_limit_s=0.2, rate_hz=40, faults=("kill",)), seed=3)


def test_a_plan_is_its_numbers(plan):
    assert polish.with_numbers(plan, polish.numbers_of(plan)) == plan
    assert sum(polish.numbers_of(plan).gaps_ms) == 200


def test_the_smallest_numbers_are_found_that_still_fail(plan):
    def fails(candidate):
        return candidate.ops[3].worker >= 3 and edits.end_us(candidate) >= 100_000

    best = []
    polish.polish(plan, lambda candidate: fails(candidate) and (best.append(candidate) or True))
    assert best[-1].ops[3].worker == 3
    assert {op.worker for op in best[-1].ops} == {0, 3}
    assert edits.end_us(best[-1]) == 100_000
    assert [op.key for op in best[-1].ops] == [op.key for op in plan.ops]


def test_who_always_says_no_changes_nothing_and_nothing_is_raised(plan):
    asked = []
    polish.polish(plan, asked.append)
    assert asked
    assert plan not in asked, "the plan itself need not be run again"


def test_no_number_grows(plan):
    before = polish.numbers_of(plan)
    polish.polish(plan, lambda candidate: smaller(polish.numbers_of(candidate), before))


def smaller(numbers, before):
    assert sum(numbers.gaps_ms) <= sum(before.gaps_ms)
    assert all(a <= b for a, b in zip(numbers.workers, before.workers, strict=True))
    return len(numbers.workers) > 0


def test_a_large_plan_is_left_alone():
    plan = plans.draw(Config(time_limit_s=5.0), seed=3)
    polish.polish(msgspec.structs.replace(plan), lambda _: pytest.fail("asked"))
