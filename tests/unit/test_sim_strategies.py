"""The strategies keep what they promise: the checker agrees with how each history was made."""

from hypothesis import given, settings

from checkers import check_linearizable
from harness import plan as plans
from harness import strategies
from harness.shrink.attempt import attempt
from nemesis.schedule import check_plan

NODES = ("n1", "n2", "n3")


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


@settings(max_examples=8, deadline=None)
@given(strategies.plans(recovery_s=0.5))
def test_plans_run_repeat_themselves_and_are_linearizable(tmp_path_factory, plan):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_bytes(plans.encode(plan))
    first, second = attempt(plan), attempt(plans.read(path))
    assert first.error is None
    assert first.ops == second.ops
    assert first.violations == ()
