"""Edits of plans: what goes, what stays, and that what comes out can be stored and replayed."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plan as plans
from harness.config import Config
from harness.planned import PlannedOp
from harness.seeds import Streams
from harness.shrink import edits
from harness.shrink.attempt import attempt
from harness.shrink.nudge import guess
from nemesis.faults import Kill, Latency, Loss, Partition
from nemesis.schedule import FaultEvent

replace = msgspec.structs.replace


@pytest.fixture(scope="module")
def plan():
    return plans.draw(Config(time_limit_s=4.0, rate_hz=40.0, keys=2), seed=5)


def with_faults(plan, *faults):
    events = tuple(
        FaultEvent(id=f"f{i}", start_ms=1000, stop_ms=2000, fault=fault) for i, fault in enumerate(faults)
    )
    return replace(plan, faults=events)


def stored_and_read(plan, tmp_path):
    (tmp_path / "plan.json").write_bytes(plans.encode(plan))
    return plans.read(tmp_path / "plan.json")


def test_cutting_off_the_end_keeps_the_history_up_to_there(plan):
    history = attempt(plan).ops
    middle = next(op.index for op in history if op.index > len(history) // 2 and op.type == "ok")
    shorter = edits.cut_off_end(plan, history, middle)
    assert len(shorter.ops) < len(plan.ops)
    assert shorter.final == ()
    assert attempt(shorter).ops[: middle + 1] == history[: middle + 1]


def test_cutting_off_the_start_moves_what_is_left_to_the_start(plan):
    later = edits.cut_off_start(plan, 1500)
    assert later.config.time_limit_s == 2.5
    assert [op.at_us + 1_500_000 for op in later.ops] == [
        op.at_us for op in plan.ops if op.at_us >= 1_500_000
    ]
    assert all(0 <= event.start_ms < event.stop_ms <= 2500 for event in later.faults)


def test_closing_a_gap_moves_only_what_is_after_it(plan):
    base = replace(
        plan, ops=tuple(PlannedOp(at, 0, "read", "k1") for at in (100_000, 200_000, 900_000)), faults=()
    )
    closer = edits.shorten_gap(base, 200, 600)
    assert [op.at_us for op in closer.ops] == [100_000, 200_000, 300_000]
    assert closer.config.time_limit_s == 3.4


@settings(deadline=None)
@given(st.integers(0, 4000), st.integers(1, 4000))
def test_closing_a_gap_never_turns_anything_around(start_ms, by_ms):
    base = plans.draw(Config(time_limit_s=4.0, rate_hz=20.0), seed=1)
    closer = edits.shorten_gap(base, start_ms, by_ms)
    times = [op.at_us for op in closer.ops]
    assert times == sorted(times)
    assert all(0 <= event.start_ms < event.stop_ms for event in closer.faults)


def test_fewer_nodes_take_faults_that_make_no_sense_with_them(plan):
    base = with_faults(
        plan,
        Kill(aim="one", nodes=("n5",)),
        Kill(aim="leader", nodes=("n4",)),
        Partition(topology="halves", nodes=("n1", "n5")),
        Partition(topology="custom", grudge={"n1": ("n2", "n5"), "n4": ("n1",)}),
    )
    small = edits.keep_nodes(base, ("n1", "n2", "n3"))
    assert [event.fault for event in small.faults] == [
        Kill(aim="leader", nodes=("n1",)),
        Partition(topology="halves", nodes=("n1",)),
        Partition(topology="custom", grudge={"n1": ("n2",)}),
    ]


def test_packed_workers_keep_their_home_nodes_if_asked(plan):
    ops = tuple(PlannedOp(i * 1000, worker, "read", "k1") for i, worker in enumerate((3, 8, 9)))
    base = replace(plan, ops=ops, final=())
    homes = [op.worker % 5 for op in edits.pack_workers(base, keep_homes=True).ops]
    assert homes == [3, 3, 4]
    packed = edits.pack_workers(base, keep_homes=False)
    assert [op.worker for op in packed.ops] == [0, 1, 2]
    assert packed.config.concurrency == 3


def test_simpler_faults_are_each_simpler_in_one_way(plan):
    base = with_faults(plan, Latency(aim="all", nodes=("n1", "n2"), delay_ms=40.0, jitter_ms=8.0))
    simpler = [p.faults[0].fault for p in edits.simpler_faults(base, base.faults[0])]
    assert Latency(aim="all", nodes=("n1", "n2"), delay_ms=40.0) in simpler
    assert Latency(aim="all", nodes=("n1", "n2"), delay_ms=20.0, jitter_ms=8.0) in simpler
    assert Latency(aim="all", nodes=("n2",), delay_ms=40.0, jitter_ms=8.0) in simpler


def test_simplifying_faults_comes_to_an_end(plan):
    base = with_faults(
        plan, Loss(aim="all", nodes=("n1", "n2"), probability=0.4), Kill(aim="all", nodes=("n1", "n3"))
    )
    for _ in range(200):
        nxt = next((p for event in base.faults for p in edits.simpler_faults(base, event)), None)
        if nxt is None:
            break
        base = nxt
    else:
        pytest.fail("simplifications go on for ever")


def test_a_cas_becomes_a_write_of_its_new_value(plan):
    base = replace(plan, ops=(PlannedOp(0, 0, "cas", "k1", [1, 2]), PlannedOp(9, 0, "read", "k1")))
    (simple,) = edits.simpler_ops(base)
    assert simple.ops == (PlannedOp(0, 0, "write", "k1", 2), PlannedOp(9, 0, "read", "k1"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.3, 0.95))
def test_guesses_are_plans_that_can_be_stored_and_read(tmp_path_factory, seed, keep):
    base = plans.draw(Config(time_limit_s=4.0, rate_hz=40.0, keys=2), seed=5)
    guessed = guess(base, Streams(seed).stream("test"), keep)
    if guessed is not None:
        assert len(guessed.ops) + len(guessed.faults) <= len(base.ops) + len(base.faults)
        assert guessed.seed == base.seed
        assert stored_and_read(guessed, tmp_path_factory.mktemp("plan")) == guessed
