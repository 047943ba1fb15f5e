"""The shrinker: small results of the same kind, the same ones every time, and honest about what it cannot do."""

import math

import msgspec
import pytest

from checkers import Op, model_by_name
from harness import plan as plans
from harness.config import Config
from harness.shrink import shrinker, story
from harness.shrink.attempt import LIVENESS, Attempt, Violation, attempt, find_violations
from harness.shrink.shrinker import Budget, shrink
from harness.systems import raft_sim
from nemesis.faults import Kill
from raft.core import Core
from raft.node import Node

BUDGET = Budget(seconds=240.0, attempts=300)


def drawn(bug, seed, time_limit_s=5.0):
    """About a hundred operations in 5 s."""
    return plans.draw(Config(time_limit_s=time_limit_s, rate_hz=20.0, bug=bug), seed=seed)


@pytest.fixture(scope="module")
def stale():
    plan = next(plan for seed in range(10, 40) if attempt(plan := drawn("stale-read", seed)).violations)
    return plan, shrink(plan, BUDGET)


def test_a_stale_read_comes_down_to_a_few_operations_and_faults(stale):
    plan, shrunk = stale
    assert len(plan.ops) > 80
    assert len(shrunk.plan.ops) + len(shrunk.plan.final) <= 6
    assert 1 <= len(shrunk.plan.faults) <= 4
    assert len(shrunk.plan.nodes) <= 3
    assert shrunk.plan.config.time_limit_s < 1


def test_the_result_still_fails_and_keeps_the_seed(stale):
    plan, shrunk = stale
    assert shrunk.plan.seed == plan.seed
    assert attempt(shrunk.plan).violations == shrunk.attempt.violations != ()


def test_without_the_bug_the_shrunk_plan_does_not_fail(stale):
    _, shrunk = stale
    config = msgspec.structs.replace(shrunk.plan.config, bug=None)
    assert attempt(msgspec.structs.replace(shrunk.plan, config=config)).violations == ()


@pytest.mark.slow
def test_the_same_run_shrinks_to_the_same_plan(stale):
    plan, shrunk = stale
    assert shrink(plan, BUDGET).plan == shrunk.plan


def test_a_plan_that_does_not_fail_is_not_shrunk():
    assert shrink(drawn(None, 1, 1.0), BUDGET) is None


class Pretended:
    """In the place of runs: a kill and a cas make a history wrong, each alone breaks an invariant.

    Attributes:
        wanted: what each run was asked to look for.
    """

    def __init__(self):
        self.wanted = []

    def __call__(self, plan, *, wanted="", prepare=None):
        self.wanted.append(wanted)
        kills = any(isinstance(event.fault, Kill) for event in plan.faults)
        swaps = any(op.f == "cas" for op in plan.ops)
        ops = [Op(0, 10**9, 0, "invoke", "read", key="k1"), Op(1, 2 * 10**9, 0, "ok", "read", key="k1")]
        found = [Violation("k1", 1, 2 * 10**9, "etcd-register")] if kills and swaps else []
        if kills or swaps:
            found.append(Violation(None, 1, 10**9, "invariant Log Matching"))
        return Attempt(ops, tuple(found))


@pytest.mark.parametrize("first", ["etcd-register", "invariant Log Matching"])
def test_what_is_wrong_stays_what_was_wrong_first(monkeypatch, first):
    """A shrinker that takes any failure for the one looked for leaves out one half of what the history needs."""
    plan = drawn(None, 3)
    if first != "etcd-register":
        plan = msgspec.structs.replace(plan, ops=tuple(op for op in plan.ops if op.f != "cas"))
    pretended = Pretended()
    monkeypatch.setattr(shrinker, "attempt", pretended)
    monkeypatch.setattr(shrinker._Search, "_cut_off_end", lambda _: None)
    shrunk = shrink(plan, Budget(seconds=240.0, attempts=2000))
    assert shrunk.attempt.violations[0].what == first
    assert set(pretended.wanted[1:]) == {first}
    assert len(shrunk.plan.ops) + len(shrunk.plan.faults) == (2 if first == "etcd-register" else 1)


def test_a_plan_that_fails_in_another_way_only_is_not_shrunk(monkeypatch):
    monkeypatch.setattr(shrinker, "attempt", Pretended())
    assert shrink(drawn(None, 3), Budget(attempts=1), wanted=LIVENESS) is None


def test_the_failure_to_keep_can_be_another_one_than_the_first(monkeypatch):
    monkeypatch.setattr(shrinker, "attempt", Pretended())
    monkeypatch.setattr(shrinker._Search, "_cut_off_end", lambda _: None)
    shrunk = shrink(drawn(None, 3), Budget(seconds=240.0, attempts=2000), wanted="invariant Log Matching")
    assert len(shrunk.plan.ops) + len(shrunk.plan.faults) == 1


def test_a_spent_budget_gives_the_best_so_far(stale):
    plan, _ = stale
    shrunk = shrink(plan, Budget(attempts=3))
    assert (shrunk.complete, shrunk.interrupted) == (False, False)
    assert shrunk.attempts == 3
    assert attempt(shrunk.plan).violations


def test_ctrl_c_gives_the_best_so_far_and_is_passed_on_before_there_is_any(stale, monkeypatch):
    plan, _ = stale

    def stop(_pass_name, _smaller, attempts):
        if attempts > 1:
            raise KeyboardInterrupt

    shrunk = shrink(plan, BUDGET, stop)
    assert (shrunk.complete, shrunk.interrupted) == (False, True)
    assert attempt(shrunk.plan).violations

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(shrinker, "attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shrink(plan, BUDGET)


def test_the_story_names_leader_fault_operations_and_what_is_wrong(stale):
    _, shrunk = stale
    text = story.tell(shrunk.plan)
    for part in ("becomes leader of term", "FAULT      begins: ", "asks: ", "Where it went wrong"):
        assert part in text
    assert len(text.splitlines()) < 110
    times = [
        float(line.split()[0])
        for line in text.split("what\n")[1].splitlines()
        if line[:10].strip()[:1].isdigit()
    ]
    assert times == sorted(times)


def test_the_story_of_a_run_under_a_partition_names_the_messages_that_were_lost(stale):
    plan, _ = stale
    assert "lost: " in story.tell(plan)


def test_a_violation_is_the_completion_with_which_the_history_became_impossible():
    ops = [
        Op(0, 10, 0, "invoke", "write", key="a", value=1),
        Op(1, 20, 0, "ok", "write", key="a", value=1),
        Op(2, 30, 1, "invoke", "read", key="a"),
        Op(3, 40, 1, "ok", "read", key="a", value=None),
        Op(4, 50, 1, "invoke", "read", key="a"),
        Op(5, 60, 1, "ok", "read", key="a", value=1),
    ]
    (violation,) = find_violations(ops, model_by_name("etcd-register"))
    assert (violation.key, violation.index, violation.time_ns) == ("a", 3, 40)
    assert find_violations(ops[:3], model_by_name("etcd-register")) == ()


def test_being_observed_changes_nothing(stale):
    _, shrunk = stale
    seen = []

    def observe(cluster):
        cluster.network.observer = lambda *lost: seen.append(lost)
        for host in cluster.hosts.values():
            host.observer = lambda event, **fields: seen.append((event, fields))

    assert attempt(shrunk.plan, prepare=observe).ops == attempt(shrunk.plan).ops
    assert seen


def test_keys_and_values_become_plain(stale):
    """They do not change what the cluster does, so nothing stands in the way."""
    _, shrunk = stale
    ops = (*shrunk.plan.ops, *shrunk.plan.final)
    assert ops[0].key == "k1"
    assert {op.value for op in ops if isinstance(op.value, int)} <= set(range(1, len(ops) + 1))


def test_a_shrunk_watch_fails_by_the_bug_and_not_by_a_key_outside_of_what_is_watched():
    config = Config(time_limit_s=5.0, rate_hz=20.0, workload="watch", bug="watch-gap")
    plan = next(plan for seed in range(40) if attempt(plan := plans.draw(config, seed)).violations)
    shrunk = shrink(plan, BUDGET)
    assert len(shrunk.plan.ops) + len(shrunk.plan.final) <= 20
    without = msgspec.structs.replace(shrunk.plan.config, bug=None)
    assert attempt(msgspec.structs.replace(shrunk.plan, config=without)).violations == ()


@pytest.mark.slow
def test_a_run_of_thousands_of_operations_becomes_small_through_a_moment_of_it():
    plan = next(
        plan
        for seed in range(30)
        if attempt(
            plan := plans.draw(Config(time_limit_s=15.0, bug="ack-before-majority"), seed=seed)
        ).violations
    )
    seen = []
    shrunk = shrink(
        plan,
        Budget(seconds=240.0, attempts=60),
        lambda name, smaller, _: seen.append((name, len(smaller.ops))),
    )
    assert "moment" in {name for name, _ in seen}
    assert len(shrunk.plan.ops) + len(shrunk.plan.final) <= 12


@pytest.mark.slow
def test_no_progress_shrinks_too_and_stays_a_lack_of_progress(monkeypatch):
    class NeedsEverybody(Core):
        __slots__ = ()

        def _election_won(self, role):
            return len(role.granted) == len(self.voters)

    class NeedsEverybodyNode(Node):
        core_class = NeedsEverybody

    monkeypatch.setattr(raft_sim, "_node_class", lambda *_: NeedsEverybodyNode)
    config = Config(time_limit_s=2.0, rate_hz=20.0, liveness=True, liveness_bound_s=3.0)
    plan = next(plan for seed in range(20) if attempt(plan := plans.draw(config, seed=seed)).violations)
    shrunk = shrink(plan, Budget(seconds=240.0, attempts=60))
    assert [violation.what for violation in shrunk.attempt.violations] == [LIVENESS]
    assert len(shrunk.plan.ops) + len(shrunk.plan.faults) < (len(plan.ops) + len(plan.faults)) / 2
    assert {event.start_ms for event in shrunk.plan.liveness.outside} == {
        math.ceil(shrunk.plan.config.time_limit_s * 1000)
    }


@pytest.mark.slow
def test_a_broken_invariant_that_no_client_has_seen_is_shrunk_as_well():
    config = Config(nodes=3, time_limit_s=2.0, rate_hz=20.0, recovery_s=0.3, bug="vote-twice")
    runs = (attempt(plan) for seed in range(40) if (plan := plans.draw(config, seed=seed)))
    seed, run = next(
        (n, r) for n, r in enumerate(runs) if r.violations and r.violations[0].what.startswith("invariant")
    )
    shrunk = shrink(plans.draw(config, seed=seed), Budget(seconds=240.0, attempts=150))
    assert shrunk.attempt.violations[0].what == run.violations[0].what == "invariant Monotonic Vote"
    assert len(shrunk.plan.ops) <= 12
    assert len(shrunk.plan.faults) <= 5
    assert "Monotonic Vote: " in story.tell(shrunk.plan)
