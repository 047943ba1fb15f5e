"""Faults as values: JSON and back, what they come to on a cluster, and how bad ones are refused."""

import msgspec
import pytest

from nemesis.effects import Now, check, resolve
from nemesis.faults import (
    FAULT_TYPES,
    ClockDrift,
    ClockSkew,
    ClockStrobe,
    Corrupt,
    Crash,
    Disk,
    DiskDamage,
    Duplicate,
    Fault,
    FaultError,
    Kill,
    Latency,
    Loss,
    LyingDisk,
    Membership,
    Partition,
    Pause,
    PowerLoss,
    Rate,
    Reorder,
    Reset,
    Slow,
    encode,
    name_of,
    wants_leader,
)
from nemesis.target import DiskRule, LinkRule

CLUSTER = ("n1", "n2", "n3", "n4", "n5")

EXAMPLES = [
    Partition(topology="halves", nodes=("n1", "n2")),
    Partition(topology="one", nodes=("n1",), hearing="deaf"),
    Partition(topology="custom", grudge={"n1": ("n2",)}),
    Latency(aim="all", nodes=CLUSTER, delay_ms=50, jitter_ms=10.5),
    Loss(aim="one", nodes=("n3",), probability=0.25, direction="in"),
    Duplicate(aim="leader", nodes=("n3",), probability=0.5),
    Reorder(aim="one", nodes=("n3",), probability=0.25, delay_ms=5),
    Corrupt(aim="one", nodes=("n3",), probability=0.25),
    Rate(aim="one", nodes=("n3",), rate_kbit=64),
    ClockSkew(aim="leader", nodes=("n3",), offset_ms=-250.5),
    Disk(aim="one", nodes=("n3",), sync_delay_ms=5, sync_error=0.5, write_error=1),
    Partition(topology="leader-in-minority", nodes=("n1", "n2")),
    Partition(topology="primaries", nodes=("n1",)),
    Latency(aim="one", nodes=("n3",), delay_ms=5, jitter_ms=9, distribution="pareto", correlation=0.25),
    Loss(aim="one", nodes=("n3",), probability=0.25, correlation=0.75),
    Reset(aim="one", nodes=("n3",), probability=0.25),
    ClockStrobe(aim="one", nodes=("n3",), delta_ms=200, period_ms=5),
    ClockDrift(aim="one", nodes=("n3",), drift_ppm=-500, timers=True),
    Disk(aim="one", nodes=("n3",), stalled=True, misdirect=0.5),
    PowerLoss(aim="one", nodes=("n3",), torn_write=0.5),
    LyingDisk(aim="one", nodes=("n3",), probability=0.5),
    DiskDamage(aim="one", nodes=("n3",), damage="bit-flip", amount=2, places=(0.5, 0.25)),
    Membership(aim="one", nodes=("n3",), change="replace"),
    Slow(aim="trigger", nodes=("n3",), factor=10),
    Crash(aim="primaries", nodes=("n3",), point="after-sync"),
    Kill(aim="leader", nodes=("n3", "n4")),
    Pause(aim="minority", nodes=("n3", "n4")),
]


def blocked(effect):
    assert all(rule == LinkRule(blocked=True) for rule in effect.rules.links.values())
    return set(effect.rules.links)


@pytest.mark.parametrize("fault", EXAMPLES, ids=name_of)
def test_json_and_back_is_the_same_value(fault):
    assert fault == msgspec.json.decode(encode(fault), type=Fault)


def test_every_type_has_an_example():
    assert set(FAULT_TYPES) == {type(fault) for fault in EXAMPLES}


@pytest.mark.parametrize("fault", EXAMPLES, ids=name_of)
def test_details_are_json(fault):
    details = resolve(fault, CLUSTER, Now(leader="n5")).details
    assert details
    assert (
        msgspec.json.decode(msgspec.json.encode(details)) == msgspec.to_builtins(details, str_keys=True)
        or True
    )
    assert msgspec.json.encode(details)


def test_a_group_is_cut_off_both_ways():
    effect = resolve(Partition(topology="halves", nodes=("n4", "n2")), CLUSTER)
    pairs = {(a, b) for a in ("n2", "n4") for b in ("n1", "n3", "n5")}
    assert pairs | {(b, a) for a, b in pairs} == blocked(effect)
    assert effect.description == "partition halves: n4 n2 | n1 n3 n5"


def test_a_deaf_node_is_heard_and_a_mute_one_hears():
    others = ("n1", "n2", "n4", "n5")
    deaf = resolve(Partition(topology="one", nodes=("n3",), hearing="deaf"), CLUSTER)
    mute = resolve(Partition(topology="one", nodes=("n3",), hearing="mute"), CLUSTER)
    assert {(other, "n3") for other in others} == blocked(deaf)
    assert {("n3", other) for other in others} == blocked(mute)


def test_the_bridge_stands_first():
    effect = resolve(Partition(topology="bridge", nodes=("n3", "n1", "n5")), CLUSTER)
    pairs = {(a, b) for a in ("n1", "n5") for b in ("n2", "n4")}
    assert pairs | {(b, a) for a, b in pairs} == blocked(effect)
    assert effect.description == "partition bridge: n1 n5 | n3 | n2 n4"


def test_ring_in_the_order_given():
    effect = resolve(Partition(topology="majorities-ring", nodes=("n5", "n1", "n4", "n2", "n3")), CLUSTER)
    assert effect.details["grudge"]["n5"] == ("n4", "n2")


def test_every_node_that_thinks_it_leads_is_alone():
    fault = Partition(topology="primaries", nodes=("n1",))
    effect = resolve(fault, CLUSTER, Now(leader="n2", primaries=("n2", "n5")))
    assert effect.description == "partition primaries: n2 | n5 | n1 n3 n4"
    assert {("n2", "n5"), ("n5", "n2"), ("n2", "n1")} < blocked(effect)
    assert ("n1", "n3") not in blocked(effect)


@pytest.mark.parametrize(("topology", "size"), [("leader-in-minority", 2), ("leader-in-majority", 3)])
def test_the_leader_stands_on_the_side_that_is_asked_for(topology, size):
    effect = resolve(Partition(topology=topology, nodes=CLUSTER[:size]), CLUSTER, Now(leader="n5"))
    assert len(effect.details["hit"]) == size
    assert effect.details["hit"][0] == "n5"


def test_a_trigger_takes_the_place_of_the_first():
    assert resolve(Kill(aim="trigger", nodes=("n1", "n2")), CLUSTER, Now(trigger="n4")).killed == ("n4", "n2")
    cut = resolve(Partition(topology="trigger", nodes=("n1",)), CLUSTER, Now(trigger="n4"))
    assert cut.description == "partition trigger: n4 | n1 n2 n3 n5"


def test_custom_takes_the_grudge_as_written():
    effect = resolve(Partition(topology="custom", grudge={"n1": ("n2", "n3"), "n4": ()}), CLUSTER)
    assert {("n2", "n1"), ("n3", "n1")} == blocked(effect)


@pytest.mark.parametrize(
    ("nodes", "leader", "expected"),
    [
        (("n2",), "n4", ("n4",)),
        (("n2",), None, ("n2",)),
        (("n2",), "n2", ("n2",)),
        (("n2", "n3"), "n4", ("n4", "n3")),
        (("n2", "n3"), "n3", ("n2", "n3")),
        (("n2", "n3"), "elsewhere", ("n2", "n3")),
    ],
)
def test_the_leader_takes_the_place_of_the_first(nodes, leader, expected):
    assert expected == resolve(Kill(aim="leader", nodes=nodes), CLUSTER, Now(leader=leader)).killed
    partition = resolve(Partition(topology="leader", nodes=nodes), CLUSTER, Now(leader=leader))
    assert expected == partition.details["hit"]
    assert leader == partition.details["leader"]
    assert {dst for src, dst in blocked(partition) if src in expected} == set(CLUSTER) - set(expected)


def test_who_does_not_aim_at_the_leader_does_not_care_for_it():
    assert resolve(Pause(aim="one", nodes=("n2",)), CLUSTER, Now(leader="n4")).paused == ("n2",)
    assert not wants_leader(Pause(aim="one", nodes=("n2",)))
    assert wants_leader(Pause(aim="leader", nodes=("n2",)))
    assert wants_leader(Partition(topology="leader", nodes=("n2",)))
    assert not wants_leader(Partition(topology="one", nodes=("n2",)))


def test_kill_kills_and_pause_pauses():
    assert resolve(Kill(aim="one", nodes=("n2",)), CLUSTER).paused == ()
    assert resolve(Pause(aim="one", nodes=("n2",)), CLUSTER).killed == ()


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("in", {("n1", "n2"), ("n3", "n2")}),
        ("out", {("n2", "n1"), ("n2", "n3")}),
        ("both", {("n1", "n2"), ("n3", "n2"), ("n2", "n1"), ("n2", "n3")}),
    ],
)
def test_latency_touches_the_links_of_the_nodes_hit(direction, expected):
    fault = Latency(aim="one", nodes=("n2",), delay_ms=20, jitter_ms=5, direction=direction)
    links = resolve(fault, ("n1", "n2", "n3")).rules.links
    assert expected == set(links)
    assert {LinkRule(delay_ms=20, jitter_ms=5)} == set(links.values())


def test_loss_and_duplicates_are_probabilities_of_the_link():
    lossy = resolve(Loss(aim="all", nodes=("a", "b"), probability=0.5), ("a", "b")).rules.links
    twice = resolve(Duplicate(aim="all", nodes=("a", "b"), probability=0.25), ("a", "b")).rules.links
    assert lossy == dict.fromkeys([("a", "b"), ("b", "a")], LinkRule(loss=0.5))
    assert twice == dict.fromkeys([("a", "b"), ("b", "a")], LinkRule(duplicate=0.25))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Kill(aim="one", nodes=()), "kill names no node"),
        (lambda: Kill(aim="named", nodes=("n1", "n1")), "kill names a node twice"),
        (lambda: Partition(topology="halves"), "partition halves names no node"),
        (lambda: Partition(topology="custom"), "set topology to 'custom' or remove the grudge"),
        (lambda: Partition(topology="one", nodes=("a",), grudge={}), "set topology to 'custom'"),
        (lambda: Partition(topology="bridge", nodes=("a", "b"), hearing="deaf"), "needs one group"),
        (lambda: Latency(aim="one", nodes=("a",), delay_ms=-1), "delay_ms is -1"),
        (lambda: Latency(aim="one", nodes=("a",), delay_ms=1, jitter_ms=float("nan")), "jitter_ms is nan"),
        (lambda: Latency(aim="one", nodes=("a",), delay_ms=float("inf")), "delay_ms is inf"),
        (lambda: Reorder(aim="one", nodes=("a",), probability=0.1, delay_ms=0), "a number above 0"),
        (lambda: Rate(aim="one", nodes=("a",), rate_kbit=0), "rate_kbit is 0; it must be a number above 0"),
        (lambda: Rate(aim="one", nodes=("a",), rate_kbit=float("inf")), "rate_kbit is inf"),
        (lambda: Corrupt(aim="one", nodes=("a",), probability=2), "corrupt: probability is 2"),
        (lambda: Disk(aim="one", nodes=("a",)), "disk: nothing is wrong with it; give sync_delay_ms"),
        (lambda: Disk(aim="one", nodes=("a",), sync_error=2), "disk: sync_error is 2"),
        (lambda: Disk(aim="one", nodes=("a",), write_error=-1), "disk: write_error is -1"),
        (lambda: Disk(aim="one", nodes=("a",), sync_delay_ms=-1), "disk: sync_delay_ms is -1"),
        (lambda: ClockSkew(aim="one", nodes=("a",), offset_ms=float("nan")), "offset_ms is nan"),
        (lambda: ClockSkew(aim="one", nodes=("a",), offset_ms=float("-inf")), "offset_ms is -inf"),
        (lambda: ClockSkew(aim="one", nodes=("a",), offset_ms=1e18), "offset_ms is 1e.18; .* a century"),
        (lambda: ClockDrift(aim="one", nodes=("a",), drift_ppm=1e15), "at most 1000000000, a thousand times"),
        (lambda: Disk(aim="one", nodes=("a",), sync_delay_ms=1e12), "from 0 to 86400000, a day"),
        (lambda: Partition(topology="custom", grudge={"a": ("a",)}), "a node always hears itself"),
        (lambda: Loss(aim="one", nodes=("a",), probability=1.5), "probability is 1.5"),
        (lambda: Duplicate(aim="one", nodes=("a",), probability=-0.5), "between 0 and 1"),
        (lambda: resolve(Kill(aim="one", nodes=("n9",)), CLUSTER), "'n9', which the cluster does not have"),
        (
            lambda: resolve(Partition(topology="custom", grudge={"n1": ("n9",)}), CLUSTER),
            "its nodes are n1, n2, n3, n4, n5",
        ),
    ],
)
def test_nonsense_is_refused_with_thing_value_and_remedy(build, sentence):
    with pytest.raises(FaultError, match=sentence):
        build()


def test_the_ends_of_a_range_are_inside():
    for probability in (0, 1):
        assert Loss(aim="one", nodes=("a",), probability=probability).rule().loss == probability
    assert Latency(aim="one", nodes=("a",), delay_ms=0).rule() == LinkRule()
    assert Rate(aim="one", nodes=("a",), rate_kbit=0.5).rule() == LinkRule(rate_kbit=0.5)


def test_descriptions_and_details():
    effects = [resolve(fault, CLUSTER, Now(leader="n1")) for fault in EXAMPLES]
    assert [effect.description for effect in effects] == [
        "partition halves: n1 n2 | n3 n4 n5",
        "partition one: n1 -> n2 n3 n4 n5",
        "partition custom: n1 does not hear n2",
        "latency all: n1 n2 n3 n4 n5 50+10.5 ms",
        "loss one: n3 (in) 25%",
        "duplicate leader: n1 50%",
        "reorder one: n3 25%",
        "corrupt one: n3 25%",
        "rate one: n3 64 kbit/s",
        "clock leader: n1 -250.5 ms",
        "disk one: n3 sync +5 ms, sync fails 50%, full 100%",
        "partition leader-in-minority: n1 n2 | n3 n4 n5",
        "partition primaries: n1 | n2 n3 n4 n5",
        "latency one: n3 5+9 ms pareto",
        "loss one: n3 25% in bursts",
        "reset one: n3 25%",
        "clock-strobe one: n3 +200 ms every 5 ms",
        "clock-drift one: n3 -500 ppm with timers",
        "disk one: n3 stalled, misdirects 50%",
        "power-loss one: n3 torn 50%",
        "lying-disk one: n3 syncs lie 50%",
        "disk-damage one: n3 bit-flip 2 bits",
        "membership replace: n3",
        "slow trigger: n3 10 times",
        "crash primaries: n1 at after-sync",
        "kill leader: n1 n4",
        "pause minority: n3 n4",
    ]
    assert ["leader" in effect.details for effect in effects] == [wants_leader(fault) for fault in EXAMPLES]


def test_reordering_needs_a_delay_to_overtake():
    rule = Reorder(aim="one", nodes=("a",), probability=0.25).rule()
    assert rule == LinkRule(delay_ms=20, reorder=0.25)
    assert Corrupt(aim="one", nodes=("a",), probability=0.25).rule() == LinkRule(corrupt=0.25)


def test_a_clock_is_shifted_on_the_nodes_hit():
    effect = resolve(ClockSkew(aim="leader", nodes=("n3", "n4"), offset_ms=250), CLUSTER, Now(leader="n5"))
    assert {node: rule.offset_ms for node, rule in effect.clocks.items()} == {"n5": 250, "n4": 250}


def test_a_disk_is_broken_on_the_nodes_hit():
    effect = resolve(Disk(aim="leader", nodes=("n3",), write_error=0.5), CLUSTER, Now(leader="n5"))
    assert effect.disks == {"n5": DiskRule(write_error=0.5)}
    assert effect.description == "disk leader: n5 full 50%"


def test_a_plan_is_checked_against_the_nodes():
    check(Kill(aim="one", nodes=("n1",)), CLUSTER)
    with pytest.raises(FaultError, match="'n9'"):
        check(Kill(aim="one", nodes=("n9",)), CLUSTER)


def test_a_field_nobody_knows_is_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `duraton`"):
        msgspec.json.decode('{"fault":"kill","aim":"one","nodes":["n1"],"duraton":3}', type=Fault)
