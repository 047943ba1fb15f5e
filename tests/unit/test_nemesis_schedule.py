"""Fault schedules: the same seed gives the same plan, kinds keep apart, everything heals before the end."""

import hashlib
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemesis import composition, draws, schedule
from nemesis.backend import needs
from nemesis.effects import Now, resolve
from nemesis.faults import FaultError, Kill, Partition
from nemesis.kinds import DEFAULT_MIX, FAULTS, default_kinds, kind

NODES = ("n1", "n2", "n3", "n4", "n5")


def stream_of(seed):
    return lambda name: Random(f"{seed}/{name}")


def plan(seed, kinds=DEFAULT_MIX, nodes=NODES, duration_ms=60_000, **options):
    return schedule.draw(kinds, nodes, duration_ms, stream_of(seed), **options)


def kind_of(event):
    return event.id.rpartition("-")[0]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another():
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_plan_stays_the_same_across_versions():
    """The bytes of one small plan; if this changes, every stored seed means something else."""
    events = plan(7, kinds=["kill"], nodes=("n1", "n2", "n3"), duration_ms=20_000)
    drawn = [
        (event.id, event.start_ms, event.stop_ms, event.fault.aim, event.fault.nodes) for event in events
    ]
    assert drawn == GOLDEN


def test_a_seed_means_the_same_plan_for_every_kind():
    """Digests of whole plans, so that a changed constant or draw is a decision and not an accident."""
    digests = {
        name: hashlib.sha256(schedule.encode(plan(7, kinds=[name])).encode()).hexdigest()[:12]
        for name in FAULTS
    }
    assert digests == DIGESTS


def test_bursts_of_a_short_run_are_shorter():
    """An episode never takes longer than its share of the run, bursts included."""
    lengths_ms = []
    for seed in range(40):
        kills = plan(seed, kinds=["kill"], duration_ms=2_000)
        lengths_ms += [event.stop_ms - event.start_ms for event in kills if event.fault.aim == "leader"]
    assert min(lengths_ms) < 150, "the least of a burst at full length"
    assert max(lengths_ms) <= 600 * 0.8


def test_the_quiet_end_is_bounded():
    last = max(max(event.stop_ms for event in plan(seed, duration_ms=400_000)) for seed in range(40))
    assert 388_000 < last <= 390_000


def test_the_hash_seed_changes_nothing():
    script = (
        "from random import Random; from nemesis import kinds, schedule;"
        "print(schedule.encode(schedule.draw(list(kinds.FAULTS), [f'n{i}' for i in range(7)], 60_000,"
        " lambda name: Random(name))))"
    )
    plans = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(plans) == 1
    assert len(plans.pop()) > 1_000


def test_json_and_back_is_the_same_plan():
    events = plan(3, kinds=list(FAULTS))
    assert events == schedule.decode(schedule.encode(events))


def test_a_minute_has_some_twenty_to_ninety_events():
    counts = [len(plan(seed)) for seed in range(100)]
    assert min(counts) >= 18
    assert max(counts) <= 90
    assert 35 <= sum(counts) / len(counts) <= 60


def test_storms_hit_within_an_election():
    """Several kills, each over within 60 ms, the next often within the 150 to 300 ms of an election."""
    short = [
        event
        for event in plan(1, kinds=["kill"], duration_ms=120_000)
        if event.stop_ms - event.start_ms <= 60
    ]
    assert len(short) >= 4
    gaps = [b.start_ms - a.stop_ms for a, b in itertools.pairwise(short)]
    assert sum(80 <= gap <= 320 for gap in gaps) >= 2


def test_intensity_makes_events_more_frequent():
    usual = sum(len(plan(seed)) for seed in range(20))
    double = sum(len(plan(seed, intensity=2)) for seed in range(20))
    assert 1.6 < double / usual < 2.4


@settings(deadline=None)
@given(
    seed=st.integers(),
    kinds=st.sets(st.sampled_from(list(FAULTS)), min_size=1).map(sorted),
    duration_ms=st.floats(500, 300_000),
    count=st.integers(3, 9),
    intensity=st.floats(0.2, 5),
)
def test_a_kind_never_overlaps_itself_and_all_heal_in_time(seed, kinds, duration_ms, count, intensity):
    nodes = [f"n{i}" for i in range(count)]
    events = plan(seed, kinds, nodes, duration_ms, intensity=intensity)
    quiet_ms = min(10_000, duration_ms / 10)
    assert list(events) == sorted(events, key=lambda event: event.start_ms)
    assert len({event.id for event in events}) == len(events)
    for one in kinds:
        own = [event for event in events if kind_of(event) == one]
        assert all(before.stop_ms <= after.start_ms for before, after in itertools.pairwise(own))
        assert all(0 <= event.start_ms < event.stop_ms <= duration_ms - quiet_ms + 1 for event in own)
    schedule.check_plan(events, nodes)


def test_kinds_overlap_each_other():
    events = plan(5)
    assert any(
        one.start_ms < other.start_ms < one.stop_ms
        for one in events
        for other in events
        if kind_of(one) != kind_of(other)
    )


def test_a_kind_draws_from_its_own_stream():
    alone = list(plan(9, kinds=["kill"]))
    mixed = [event for event in plan(9) if kind_of(event) == "kill"]
    assert alone == mixed


def test_a_kind_named_twice_counts_once():
    assert plan(4, kinds=["kill"]) == plan(4, kinds=["kill", "kill"])


def test_short_runs_have_each_kind_as_well():
    for seed in range(30):
        assert set(DEFAULT_MIX) == {kind_of(event) for event in plan(seed, duration_ms=5_000)}


def test_five_minutes_visit_every_topology_and_every_aim():
    events = plan(2, duration_ms=300_000)
    topologies = Counter(event.fault.topology for event in events if isinstance(event.fault, Partition))
    aims = Counter(event.fault.aim for event in events if isinstance(event.fault, Kill))
    assert {"halves", "one", "minority-third", "majorities-ring", "bridge", "leader"} == set(topologies)
    assert {"leader", "one", "minority", "majority", "all"} == set(aims)
    assert aims["leader"] > aims["one"] > 0


def test_leaders_die_in_quick_succession():
    for seed in range(20):
        kills = list(plan(seed, kinds=["kill"], duration_ms=120_000))
        assert any(
            one.fault.aim == other.fault.aim == "leader" and other.start_ms - one.start_ms < 1_600
            for one, other in itertools.pairwise(kills)
        ), seed


def test_some_partitions_let_one_direction_pass():
    hearings = {event.fault.hearing for seed in range(20) for event in plan(seed, kinds=["partition"])}
    assert {"none", "deaf", "mute"} == hearings


@pytest.mark.parametrize("name", list(FAULTS))
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_every_kind_resolves_on_every_cluster_it_is_meant_for(name, count):
    nodes = tuple(f"n{i}" for i in range(count))
    if count < FAULTS[name].nodes_min:
        with pytest.raises(FaultError, match=f"needs at least {FAULTS[name].nodes_min} nodes"):
            plan(1, kinds=[name], nodes=nodes)
        return
    faults = FAULTS[name].draw(nodes, Random(3))
    for fault in (next(faults) for _ in range(30)):
        for leader in (None, *nodes):
            effect = resolve(fault, nodes, Now(leader=leader))
            if count > 2:  # of two nodes both are the majority, so a ring is whole
                acts = needs(fault, nodes)
                assert acts, effect.description


def test_minorities_leave_a_majority():
    faults = FAULTS["kill"].draw(NODES, Random(1))
    sizes = {fault.aim: len(fault.nodes) for fault in (next(faults) for _ in range(12))}
    assert sizes == {"leader": 1, "one": 1, "minority": 2, "majority": 3, "all": 5}


@pytest.mark.parametrize("verb", ["kill", "pause"])
def test_processes_are_aimed_at_as_in_jepsen(verb):
    """Beside the aims of the mixed kinds: less than a third, all that think they lead, all."""
    nodes = tuple(f"n{number}" for number in range(1, 8))
    minority = next(FAULTS[f"{verb}-minority"].draw(nodes, Random(1)))
    assert (minority.aim, len(minority.nodes)) == ("minority-third", 2)
    primaries = next(FAULTS[f"{verb}-primaries"].draw(nodes, Random(1)))
    effect = resolve(primaries, nodes, Now(leader="n5", primaries=("n2", "n5")))
    assert effect.killed + effect.paused == ("n2", "n5")
    assert len(next(FAULTS[f"{verb}-all"].draw(nodes, Random(1))).nodes) == 7


def test_the_default_mix_fits_the_cluster():
    assert default_kinds(NODES) == DEFAULT_MIX
    assert default_kinds(("only",)) == ("kill", "pause")


def test_an_unknown_kind_is_told_with_the_known_ones():
    with pytest.raises(FaultError, match=r"no fault 'kil'; did you mean 'kill'\? known faults: partition"):
        kind("kil")
    with pytest.raises(FaultError, match="no fault 'earthquake'; known faults"):
        plan(1, kinds=["earthquake"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "cannot be read"),
        ('[{"id":"a","start_ms":0,"stop_ms":1,"fault":{"fault":"kil"}}]', "'kil'.*known faults: partition"),
        ('[{"id":"a","start_ms":5,"stop_ms":5,"fault":{"fault":"kill","aim":"one","nodes":["n"]}}]', "order"),
        (
            '[{"id":"a","start_ms":0,"stop_ms":5,"fault":{"fault":"kill","aim":"one","nodes":[]}}]',
            "names no node",
        ),
        (
            "["
            + ",".join(
                ['{"id":"a","start_ms":0,"stop_ms":5,"fault":{"fault":"kill","aim":"one","nodes":["n"]}}'] * 2
            )
            + "]",
            "two events with the id 'a'",
        ),
    ],
)
def test_a_plan_edited_wrongly_is_refused(text, sentence):
    with pytest.raises(FaultError, match=sentence):
        schedule.decode(text)


def test_faults_are_listed_only_where_a_name_is_wrong():
    with pytest.raises(FaultError) as caught:
        schedule.decode('[{"id":"a","start_ms":0,"stop_ms":5,"fault":{"fault":"kill","aim":"one"}}]')
    assert str(caught.value).endswith("missing required field `nodes` - at `$[0].fault`")


def test_the_plans_in_the_documentation_are_some():
    page = Path(__file__).parents[2] / "docs" / "nemesis.md"
    examples = re.findall(r"```json\n(.*?)```", page.read_text(), re.DOTALL)
    plans = [schedule.decode(example) for example in examples]
    for events in plans:
        schedule.check_plan(events, ("n1", "n2", "n3"))
    assert [len(events) for events in plans] == [1, 4]


def test_the_documentation_names_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "nemesis.md").read_text()
    rows = [f"| `{name}` | {one.summary} |" for name, one in FAULTS.items()]
    assert [row for row in rows if row not in page] == []


def test_a_plan_for_another_cluster_is_refused():
    with pytest.raises(FaultError, match="which the cluster does not have"):
        schedule.check_plan(plan(1), ("n1", "n2", "n3"))


@pytest.mark.parametrize(
    "options", [{"intensity": 0}, {"interval_ms": -1}, {"duration_ms": 0}, {"intensity": float("inf")}]
)
def test_lengths_must_be_above_zero(options):
    with pytest.raises(FaultError, match="needs a number above 0"):
        plan(1, **options)


def test_draws_use_only_the_stable_method():
    class OnlyRandom:
        def __init__(self):
            self.random = Random(1).random

    dice = OnlyRandom()
    assert sorted(draws.shuffled(dice, NODES)) == list(NODES)
    assert draws.pick(dice, NODES) in NODES
    assert 5 <= draws.log_uniform(dice, 5, 300) < 300
    assert {1, 2, 3} == {draws.integer(dice, 1, 3) for _ in range(100)}
    events = schedule.draw(list(FAULTS), NODES, 60_000, lambda _name: OnlyRandom())
    assert events


def test_shuffles_are_fair():
    counts = Counter(draws.shuffled(dice, "abc") for dice in [Random(1)] for _ in range(6_000))
    assert len(counts) == 6
    assert all(850 < count < 1_150 for count in counts.values())


GOLDEN = [
    ("kill-1", 2695, 2854, "leader", ("n2",)),
    ("kill-2", 3072, 3773, "leader", ("n3",)),
    ("kill-3", 4267, 5030, "leader", ("n2",)),
    ("kill-4", 5204, 5667, "leader", ("n2",)),
    ("kill-5", 6887, 9456, "minority", ("n1",)),
    ("kill-6", 11331, 12355, "one", ("n3",)),
    ("kill-7", 16172, 16192, "majority", ("n3", "n1")),
    ("kill-8", 16486, 16524, "minority", ("n3",)),
    ("kill-9", 17372, 17410, "majority", ("n2", "n1")),
    ("kill-10", 17950, 17969, "all", ("n3", "n1", "n2")),
]

DIGESTS = {
    "partition": "8b65127309db",
    "latency": "8e2cbc393286",
    "kill": "ea858d81c429",
    "pause": "b1ce10937acb",
    "loss": "3b3a931b2926",
    "duplicate": "88d1d6821bbd",
    "reorder": "eebedb064179",
    "corrupt": "14979a77a4c1",
    "rate": "d5b852e7bc8f",
    "clock": "a63ee1f0879f",
    "disk": "39e5bfe6870a",
    "partition-halves": "10e6e39b4f3a",
    "partition-one": "6698f159eb22",
    "partition-minority": "d7ff64bb76f6",
    "partition-ring": "5087cb824a9e",
    "partition-bridge": "ddfceea237a0",
    "partition-leader": "3e92c25a4ebe",
    "partition-primaries": "4740f6fb87c6",
    "partition-leader-minority": "443a95008e69",
    "partition-leader-majority": "cd318c63833d",
    "partition-flapping": "48c3b63ed7a4",
    "jitter": "92ac2cb76408",
    "loss-bursts": "0337a7d1bb8e",
    "reset": "7d35be9f31a3",
    "kill-leader": "61f1e31f9940",
    "kill-all": "b6c5c2da0a4d",
    "pause-leader": "a8e9bf860a35",
    "slow": "7a53c6a5dc94",
    "crash": "2064bb6a2756",
    "kill-minority": "9e24598bb22f",
    "kill-primaries": "04710e02826f",
    "pause-minority": "1dbc62b85076",
    "pause-primaries": "2630877b3c05",
    "pause-all": "0444818aee4b",
    "clock-strobe": "c0cea4928567",
    "clock-drift": "7444cae2d85d",
    "timer-drift": "5be6b3b9f029",
    "disk-stall": "189caeb57ae5",
    "power-loss": "f5dd7bb472ab",
    "torn-write": "2082f7320973",
    "lying-disk": "9da4d2e217ec",
    "misdirected-write": "17d130596807",
    "bit-flip": "9cfe9fe349da",
    "truncate": "e647f5d73114",
    "membership": "4a3756030595",
    "transfer": "019f7f936a59",
    "isolate-new-leader": "ee73434c4108",
    "kill-new-leader": "816cc41c3ed4",
    "kill-in-snapshot": "7ae551e19e23",
    "partition-in-joint": "9a96d7de350a",
}


def spans(events, kind):
    return [(event.start_ms, event.stop_ms) for event in events if kind_of(event) == kind]


def test_a_list_of_kinds_means_any_of_them():
    assert plan(7, kinds=["kill", "pause"]) == plan(7, kinds=["any(kill, pause)"])


def test_a_mix_has_one_fault_at_a_time_and_all_of_them():
    events = plan(7, kinds=["mix(kill,pause,partition)"], duration_ms=300_000)
    assert {kind_of(event) for event in events} == {"kill", "pause", "partition"}
    assert all(before.stop_ms <= after.start_ms for before, after in itertools.pairwise(events))


def test_phases_follow_one_another_and_a_part_may_be_empty():
    events = plan(7, kinds=["phases(kill,any(),any(pause,kill))"], duration_ms=90_000, quiet_ms=0)
    assert all(stop <= 30_000 or start >= 60_000 for start, stop in spans(events, "kill"))
    assert any(stop <= 30_000 for _, stop in spans(events, "kill"))
    assert any(start >= 60_000 for start, _ in spans(events, "kill"))
    assert all(start >= 60_000 for start, _ in spans(events, "pause"))
    assert len({event.id for event in events}) == len(events)


def test_every_composition_is_drawn_again_from_its_text():
    for text in ("mix(kill,kill)", "phases(mix(kill,pause),any(clock,phases(disk,loss)))", "any()"):
        assert str(composition.parse(text)) == text
        assert plan(3, kinds=[text]) == plan(3, kinds=[composition.parse(text)])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mix()", "takes kinds, at least one"),
        ("mix(any(kill))", "takes kinds, at least one"),
        ("phases()", "without parts"),
        ("sum(kill)", "'sum' takes no parts"),
        ("any(kill", "ends too early"),
        ("any(kill pause)", "lacks a comma"),
        ("kill)", "goes on with"),
        ("any(kil)", "did you mean 'kill'"),
        ("kill & pause", "there is no fault 'kill & pause'"),
        ("any(kill;pause)", "there is no fault"),
        ("any(" * 20, "nests deeper"),
        ("", "ends too early"),
    ],
)
def test_a_composition_that_is_none_is_told(text, sentence):
    with pytest.raises(FaultError, match=re.escape(sentence)):
        composition.parse(text)


def test_reactive_kinds_say_what_sets_them_off():
    for name, one in FAULTS.items():
        events = plan(7, kinds=[name])
        assert all((event.when is not None) == (one.draw_trigger is not None) for event in events)
    assert {event.when.on for event in plan(7, kinds=["kill-in-snapshot"])} == {"snapshot-receiving"}


def test_flapping_is_never_a_single_long_cut():
    events = plan(7, kinds=["partition-flapping"], duration_ms=120_000)
    assert len(events) > 20
    assert max(event.stop_ms - event.start_ms for event in events) <= 800


def test_damage_for_good_stays_in_a_minority():
    for name in ("bit-flip", "truncate", "lying-disk", "misdirected-write"):
        events = plan(11, kinds=[name], duration_ms=600_000)
        assert 1 <= len({node for event in events for node in event.fault.nodes}) <= 2
