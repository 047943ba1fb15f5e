"""The strategies keep what they promise: histories are as they were made, plans run, failures shrink and are kept."""

import os
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, find, given, settings

from checkers import check_linearizable
from harness import plan as plans
from harness import strategies
from harness.shrink.attempt import attempt
from nemesis.kinds import FAULTS
from nemesis.schedule import check_plan

NODES = ("n1", "n2", "n3")
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@settings(deadline=None)
@given(strategies.valid_histories())
def test_histories_that_are_valid_by_construction_are_found_valid(lines):
    assert check_linearizable(lines, "etcd-register").valid == "valid"


@settings(deadline=None)
@given(strategies.broken_histories())
def test_a_value_that_nobody_wrote_is_found(lines):
    assert check_linearizable(lines, "etcd-register").valid == "invalid"


@settings(deadline=None)
@given(strategies.fault_plans(NODES))
def test_fault_plans_fit_their_nodes_and_stand_in_order(events):
    check_plan(events, NODES)
    assert [event.start_ms for event in events] == sorted(event.start_ms for event in events)


@pytest.mark.parametrize("name", [name for name in FAULTS if FAULTS[name].nodes_min <= 3])
def test_every_kind_of_fault_has_a_first_variant(name):
    fault = find(strategies.faults(NODES, kinds=[name]), lambda _: True, settings=FEW)
    assert fault == strategies._variant(name, NODES, 0)


@settings(max_examples=8, deadline=None)
@given(strategies.plans(recovery_s=0.5))
def test_plans_run_repeat_themselves_and_are_linearizable(tmp_path_factory, plan):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_bytes(plans.encode(plan))
    first, second = attempt(plan), attempt(plans.read(path))
    assert first.error is None
    assert first.ops == second.ops
    assert first.violations == ()


def test_the_simplest_plan_has_nothing_in_it_and_a_wanted_one_little_more():
    empty = find(strategies.plans(), lambda _: True, settings=FEW)
    assert (empty.ops, empty.faults, len(empty.nodes), empty.config.concurrency) == ((), (), 3, 1)
    wanted = find(strategies.plans(), lambda plan: len(plan.ops) >= 2 and len(plan.faults) >= 1, settings=FEW)
    assert (len(wanted.ops), len(wanted.faults)) == (2, 1)
    assert [op.at_us for op in wanted.ops] == [0, 0]
    assert (wanted.faults[0].start_ms, wanted.faults[0].stop_ms) == (0, 1)


USERS_TEST = """
from hypothesis import HealthCheck, Phase, given, seed, settings
from harness.shrink.attempt import attempt
from harness.strategies import plans

@settings(max_examples=500, deadline=None, phases=set(Phase) - {Phase.explain}, suppress_health_check=list(HealthCheck))
@seed(0)  # a user's test has none: how small its failure becomes is luck then, which has no place in CI
@given(plans(bug="ack-before-majority", nodes=3, concurrency=3, faults=("partition-leader", "kill-leader")))
def test_my_system(plan):
    run = attempt(plan)
    print("RAN", len(plan.ops), len(plan.faults), bool(run.violations))
    assert run.violations == ()
"""


def test_faults_are_left_out_without_moving_the_others():
    """Or shrinking stops at plans with faults that do nothing, which were there only to put off the one that does."""
    late = find(
        strategies.fault_plans(NODES), lambda events: any(e.start_ms >= 2_000 for e in events), settings=FEW
    )
    assert [event.start_ms for event in late] == [2_000]


@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_failure_in_a_users_own_test_shrinks_and_is_kept_for_the_next_time(tmp_path):
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    options = ["-q", "-s", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, "test_mine.py"]
    # Where Hypothesis sees that it runs in CI it keeps no database.
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS")}
    first, second = (
        subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900, check=False
        )
        for _ in range(2)
    )
    assert first.returncode == second.returncode == 1, first.stdout + first.stderr
    assert re.search("Falsifying example|Failing test case", first.stdout), first.stdout  # older, newer
    ran = [line.split()[1:] for line in first.stdout.splitlines() if line.startswith("RAN")]
    failing = [(int(ops), int(faults)) for ops, faults, failed in ran if failed == "True"]
    assert sum(failing[-1]) <= sum(failing[0])
    assert failing[-1][0] <= 12
    assert failing[-1][1] <= 5
    again = [line.split()[3] for line in second.stdout.splitlines() if line.startswith("RAN")]
    assert again[0] == "True", "what failed the last time is tried first"
    assert len(again) < len(ran)
