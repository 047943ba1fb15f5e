"""Liveness: a healthy majority must answer; a system that needs everybody is caught, and only there."""

import msgspec
import pytest

from harness import judge, runner, systems
from harness import plan as plans
from harness.clusters import make_cluster
from harness.config import Config, load
from harness.errors import ConfigError
from harness.progress import QuietProgress
from harness.shrink.attempt import MemoryRecorder
from harness.systems import raft_sim
from nemesis.grudges import majority
from raft.core import Core
from raft.node import Node

LIVE = Config(time_limit_s=3.0, rate_hz=40.0, recovery_s=0.5, liveness=True)


def run(plan):
    system = systems.by_name("raft")
    cluster = make_cluster(plan, system)
    recorder = MemoryRecorder(cluster.now_ns)
    record = runner.run(plan, cluster, system, recorder, QuietProgress())
    return record, judge.judge(recorder.ops, plan.config, recorder, record)


class NeedsEverybody(Core):
    """Elects and commits with the votes of all members: safe, and stuck as soon as one is gone."""

    __slots__ = ()

    def _election_won(self, role):
        return len(role.granted) == len(self.voters)


class NeedsEverybodyNode(Node):
    core_class = NeedsEverybody


@pytest.fixture
def needs_everybody(monkeypatch):
    monkeypatch.setattr(raft_sim, "_node_class", lambda *_: NeedsEverybodyNode)


def verdicts(checks):
    return {check.name: check.valid for check in checks}


@pytest.mark.parametrize("seed", range(4))
def test_the_correct_system_makes_progress_in_time(seed):
    record, checks = run(plans.draw(LIVE, seed=seed))
    assert set(verdicts(checks).values()) == {"valid"}, checks
    assert 0 <= record.liveness.recovered_ns < 5e9
    assert min(record.liveness.answered.values()) == record.liveness.plan.needed


def test_a_system_that_needs_all_nodes_is_safe_and_not_live(needs_everybody):
    # Its leader of the moment may be in the core and stay: the first seed in which it has to elect another.
    for seed in range(10):
        record, checks = run(plans.draw(LIVE, seed=seed))
        if verdicts(checks)["liveness"] == "invalid":
            break
    assert verdicts(checks)["linearizable"] == "valid"
    assert verdicts(checks)["liveness"] == "invalid"
    assert judge.merged(checks) == "invalid"
    (check,) = [check for check in checks if check.name == "liveness"]
    assert "no progress" in check.lines[0]
    assert all(node in check.lines[1] for node in record.liveness.plan.core)
    assert check.details["recovered_ms"] is None
    safe = msgspec.structs.replace(LIVE, liveness=False)
    _, checks = run(plans.draw(safe, seed=seed))
    assert "liveness" not in verdicts(checks)
    assert judge.merged(checks) != "invalid"


def test_the_core_is_a_majority_and_everybody_else_has_a_trouble():
    for seed in range(20):
        plan = plans.draw(msgspec.structs.replace(LIVE, nodes=3 + seed % 5), seed=seed)
        core, hit = set(plan.liveness.core), {event.fault.nodes[0] for event in plan.liveness.outside}
        assert len(core) == majority(len(plan.nodes))
        assert core | hit == set(plan.nodes)
        assert not core & hit
        homes = {plan.nodes[op.worker % len(plan.nodes)] for op in plan.liveness.ops}
        assert homes <= core
        assert homes


def test_one_client_is_always_of_the_core():
    plan = plans.draw(msgspec.structs.replace(LIVE, concurrency=1), seed=3)
    assert plan.nodes[0] in plan.liveness.core
    assert {op.worker for op in plan.liveness.ops} == {0}


def test_faults_are_in_force_up_to_the_end_of_the_load():
    lengths = [max(event.stop_ms for event in plans.draw(LIVE, seed=seed).faults) for seed in range(10)]
    assert max(lengths) == 3000
    assert sum(length == 3000 for length in lengths) >= 5


def test_a_plan_with_liveness_is_stored_and_read_again_and_one_without_says_nothing_of_it(tmp_path):
    path = tmp_path / "plan.json"
    plan = plans.draw(LIVE, seed=1)
    path.write_bytes(plans.encode(plan))
    assert plans.read(path) == plan
    without = plans.draw(msgspec.structs.replace(LIVE, liveness=False), seed=1)
    assert without.ops == plan.ops
    assert b'"core"' not in plans.encode(without)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="liveness bound is 0"):
        load(None, {"liveness_bound_s": 0.0})


def test_the_phase_repeats_itself():
    plan = plans.draw(LIVE, seed=2)
    first, second = run(plan)[0], run(plan)[0]
    assert first.liveness == second.liveness
    assert first.end_ns == second.end_ns
