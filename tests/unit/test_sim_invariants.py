"""The invariants of the protocol are watched in every simulated run, at both depths."""

import pytest

from harness import judge, runner, systems
from harness import plan as plans
from harness.clusters import make_cluster
from harness.config import Config
from harness.progress import QuietProgress
from harness.shrink.attempt import MemoryRecorder


def run(seed, **settings):
    plan = plans.draw(Config(time_limit_s=10.0, **settings), seed)
    system = systems.by_name("raft")
    cluster = make_cluster(plan, system)
    recorder = MemoryRecorder(cluster.now_ns)
    record = runner.run(plan, cluster, system, recorder, QuietProgress())
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
