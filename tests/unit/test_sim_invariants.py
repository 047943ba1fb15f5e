"""The invariants of the protocol are watched in every simulated run, at both depths."""

import pytest

from harness import judge, runner, systems
from harness import plan as plans
from harness.clusters import make_cluster
from harness.config import Config
from harness.progress import QuietProgress
from harness.shrink.attempt import MemoryRecorder


def performed(plan):
    system = systems.by_name("raft")
    cluster = make_cluster(plan, system)
    recorder = MemoryRecorder(cluster.now_ns)
    record = runner.run(plan, cluster, system, recorder, QuietProgress())
    return record, recorder.ops, cluster


def run(seed, **settings):
    record, _, _ = performed(plans.draw(Config(time_limit_s=10.0, **settings), seed))
    (check,) = judge.check_invariants(record)
    return check


@pytest.mark.parametrize("depth", ["fast", "whole"])
def test_a_second_vote_in_a_term_is_seen_where_it_is_given(depth):
    """A defect that clients may take long to notice."""
    for seed in range(10):
        check = run(seed, bug="vote-twice", depth=depth, rate_hz=5.0, concurrency=2)
        if check.valid == "invalid":
            assert "changed its vote of term" in check.lines[0]
            assert "after the nodes were started" in check.lines[0]
            return
    pytest.fail("no seed showed it")


@pytest.mark.parametrize("depth", ["fast", "whole"])
def test_a_right_protocol_keeps_them(depth):
    assert run(1, depth=depth, rate_hz=20.0, nodes=3).valid == "valid"


@pytest.mark.parametrize("depth", ["fast", "whole"])
def test_a_broken_one_stops_the_run_where_that_is_asked_for(depth):
    """The history ends at that moment, and the run is invalid, not interrupted."""
    for seed in range(10):
        plan = plans.draw(
            Config(
                time_limit_s=10.0,
                bug="vote-twice",
                depth=depth,
                rate_hz=5.0,
                concurrency=2,
                stop_when_broken=True,
            ),
            seed,
        )
        record, ops, cluster = performed(plan)
        if record.violations:
            assert (record.stopped, record.interrupted) == (True, False)
            assert record.end_ns == cluster.violated_ns()
            assert all(op.time_ns <= record.end_ns for op in ops)
            (check,) = judge.check_invariants(record)
            assert check.valid == "invalid"
            assert "the run was stopped there" in check.lines[1]
            assert judge.check_harness(record).valid == "valid"
            return
        assert not record.stopped
    pytest.fail("no seed showed it")
