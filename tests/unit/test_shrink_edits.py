"""Edits of plans: what goes, what stays, and that what comes out can be stored and replayed."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plan as plans
from harness.config import Config
from harness.planned import PlannedOp
from harness.seeds import Streams
from harness.shrink import edits
from harness.shrink.attempt import Violation, attempt
from harness.shrink.burst import burst
from harness.shrink.grow import Core, Cores, core_of, grown
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
    shorter = edits.cut_off_end(plan, history, Violation(None, middle, history[middle].time_ns))
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


def test_the_words_for_how_nodes_were_drawn_go_when_they_are_no_longer_true(plan):
    base = with_faults(
        plan, Kill(aim="majority", nodes=("n1",)), Partition(topology="halves", nodes=("n1",)),
        Kill(aim="leader", nodes=("n1",)),
    )  # fmt: skip
    simpler = [[p.faults[at].fault for p in edits.simpler_faults(base, base.faults[at])] for at in range(3)]
    assert Kill(aim="named", nodes=("n1",)) in simpler[0]
    assert Partition(topology="one", nodes=("n1",)) in simpler[1]
    assert {fault.aim for fault in simpler[2]} == {"leader"}


def test_cutting_off_the_end_after_a_broken_invariant_keeps_it():
    """It is broken between two lines of the history, and the run that ends there breaks it as well."""
    config = Config(time_limit_s=4.0, rate_hz=40.0, bug="vote-twice")
    runs = ((plan, attempt(plan)) for seed in range(40) if (plan := plans.draw(config, seed)))
    broken, run, violation = next((p, r, one) for p, r in runs for one in r.violations if one.inside)
    shorter = edits.cut_off_end(broken, run.ops, violation)
    assert len(shorter.ops) < len(broken.ops)
    assert violation.time_ns < shorter.config.time_limit_s * 1e9
    found = [one for one in attempt(shorter).violations if one.inside]
    assert [(one.what, one.time_ns) for one in found] == [(violation.what, violation.time_ns)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_bursts_and_grown_plans_are_small_and_can_be_stored_and_read(tmp_path_factory, seed):
    rng = Streams(seed).stream("test")
    base = plans.draw(Config(time_limit_s=4.0, rate_hz=40.0, keys=2), seed=5)
    first = burst(base, rng)
    more = grown(Core(replace(first, faults=first.faults[:4]), 200, "invariant"), base, rng)
    for plan in (first, more):
        assert plan.seed == base.seed
        assert len(plan.faults) <= 5
        assert len(plan.ops) + len(plan.final) <= 16
        assert stored_and_read(plan, tmp_path_factory.mktemp("plan")) == plan


def test_a_grown_plan_is_the_same_until_its_invariant_was_broken():
    """Only what comes after it is new, so it is broken again at the same moment."""
    base = plans.draw(Config(nodes=3, time_limit_s=4.0, rate_hz=20.0, bug="vote-twice"), seed=1)
    rng = Streams(1).stream("test")
    runs = ((plan, attempt(plan)) for _ in range(400) if (plan := burst(base, rng)))
    core = next(core for plan, run in runs if (core := core_of(plan, run)) is not None)
    for _ in range(5):
        found = next(one for one in attempt(grown(core, base, rng)).violations if one.inside)
        assert (found.what, found.time_ns // 1_000_000 + 1) == (core.what, core.broken_ms)


def test_each_broken_invariant_has_the_same_share_of_what_is_grown(plan):
    cores = Cores()
    for number in range(100):
        cores.keep(Core(plan, number, "often"))
    cores.keep(Core(plan, 0, "seldom"))
    assert Counter(cores.next().what for _ in range(20)) == {"often": 10, "seldom": 10}
