"""Proof of faults, reactive ones and changes of membership: on the simulator, where nothing waits."""

import asyncio

import pytest

from harness import plan as plans
from harness.config import load
from harness.effect import Overlaps, Span, kind_of, spans_of, to_json, without_effect
from harness.injector import FaultRecord, Injector
from harness.shrink.attempt import MemoryRecorder, attempt
from harness.sim.trouble import NothingToDamage
from nemesis.faults import (
    ClockDrift,
    ClockSkew,
    ClockStrobe,
    Crash,
    Disk,
    DiskDamage,
    Kill,
    Latency,
    Loss,
    LyingDisk,
    Membership,
    Partition,
    Pause,
    PowerLoss,
    Rate,
    Reset,
    Slow,
)
from nemesis.membership import MembershipDriver
from nemesis.proof import Evidence, judge_link, merge
from nemesis.schedule import FaultEvent
from nemesis.target import LinkProbe, LinkRule, Members
from nemesis.trigger import Trigger

ONE = {"aim": "one", "nodes": ("n2",)}
LEADER = {"aim": "leader", "nodes": ("n2",)}
PROVED = {
    "partition": (Partition(topology="one", nodes=("n2",)), "was not answered"),
    "latency": (Latency(**ONE, delay_ms=40), "a round trip takes 8"),
    "loss": (Loss(**ONE, probability=0.5), "of 20 probes were not answered"),
    "reset": (Reset(**ONE, probability=0.5), "of 20 probes were not answered"),
    "rate": (Rate(**ONE, rate_kbit=1000), "packets met it"),
    "kill": (Kill(**ONE), "n2 is down"),
    "pause": (Pause(**ONE), "n2 is paused"),
    "slow": (Slow(**LEADER, factor=30), "slow"),
    "crash": (Crash(**LEADER, point="after-sync"), "is down: it got to its crash point"),
    "clock": (ClockSkew(**ONE, offset_ms=-5000), "ahead by -5000 ms"),
    "drift": (ClockDrift(**ONE, drift_ppm=50_000), "n2 gained 60.0 ms"),
    "strobe": (ClockStrobe(**ONE, delta_ms=700, period_ms=50), "jumped by 700 ms"),
    "disk": (Disk(**LEADER, sync_delay_ms=20), "sync_delay_ms"),
    "stall": (Disk(**LEADER, stalled=True), "stalled"),
    "power": (PowerLoss(**LEADER), "is down"),
    "lies": (LyingDisk(**LEADER), "lying_sync"),
    "damage": (DiskDamage(**ONE, damage="bit-flip", amount=1, places=(0.5,)), "damaged"),
    "remove": (Membership(**ONE, change="remove"), "the voters are n1 n3"),
    "transfer": (Membership(**ONE, change="transfer"), "n2 leads"),
}


def planned(*events, **settings):
    config = load(
        None,
        {"nodes": 3, "time_limit_s": 3.0, "rate_hz": 50.0, "faults": (), "seed": 1, "concurrency": 5}
        | settings,
    )
    plan = plans.draw(config)
    return plans.Plan(**{name: getattr(plan, name) for name in plan.__struct_fields__} | {"faults": events})


def event(fault, *, start_ms=500, stop_ms=1700, name="fault-1", when=None):
    return FaultEvent(id=name, start_ms=start_ms, stop_ms=stop_ms, fault=fault, when=when)


def records_of(plan):
    done = attempt(plan)
    assert not done.error, done.error
    assert done.record.problems == []
    return done.record.faults


@pytest.mark.parametrize("name", PROVED)
def test_a_fault_in_force_is_proved(name):
    fault, words = PROVED[name]
    (record,) = records_of(planned(event(fault)))
    assert record.evidence.verdict == "proved", record.evidence
    assert any(words in line for line in record.evidence.lines), record.evidence
    assert 500 <= record.started_ns / 1e6 < record.stopped_ns / 1e6 <= 1800


def test_a_fault_that_is_not_in_force_is_refuted(monkeypatch):
    """The mutant: a cluster that does nothing of what it is asked."""

    async def nothing(*_args):
        pass

    for verb in ("set_network", "kill", "pause", "set_clock"):
        monkeypatch.setattr(f"harness.clusters.sim.SimCluster.{verb}", nothing)
    for name in ("partition", "latency", "kill", "pause", "clock"):
        done = attempt(planned(event(PROVED[name][0])))
        (record,) = done.record.faults
        assert record.evidence.verdict == "refuted", name
        assert "fault fault-1 was not in force" in done.record.problems[0]


def test_a_disk_that_was_not_damaged_is_no_proof_though_its_process_died(monkeypatch):
    async def refuse(*_args):
        raise NothingToDamage("no file '*.snap' with anything in it")

    monkeypatch.setattr("harness.clusters.sim.SimCluster.damage_disk", refuse)
    (record,) = records_of(planned(event(PROVED["damage"][0])))
    assert record.evidence.verdict == "unproved", record.evidence
    assert record.evidence.lines == ("n2: no file '*.snap' with anything in it",)


def test_the_cluster_is_told_to_have_done_what_it_did():
    (record,) = records_of(planned(event(Kill(aim="leader", nodes=("n1",)))))
    assert record.caused["candidate"] >= 1
    assert record.caused["leader"] >= 1
    assert record.caused["deposed"] == 1


def test_probes_move_no_draw_of_the_run():
    plan = planned(event(PROVED["loss"][0]), event(PROVED["kill"][0], name="kill-1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nemesis.proof.ProbeTarget", int)
        unproved = attempt(plan)
    proved = attempt(plan)
    assert unproved.record.faults[0].evidence.verdict == "unproved"
    assert proved.ops == unproved.ops


# -- reactive -------------------------------------------------------------------------------------------------


def armed(fault, on, **more):
    when = Trigger(on=on, hold_ms=300, **more)
    return event(fault, start_ms=200, stop_ms=2700, name="react-1", when=when)


def test_whoever_becomes_leader_is_cut_off_and_so_is_the_next():
    plan = planned(armed(Partition(topology="trigger", nodes=("n1",)), "leader", times=3))
    window, *fired = records_of(plan)
    assert 2 <= window.set_off <= 3
    assert [record.event.id for record in fired] == ["react-1.1", "react-1.2", "react-1.3"][: window.set_off]
    hit = [record.description.split()[2] for record in fired]
    assert hit[0] != hit[1]
    lengths_ms = [(record.stopped_ns - record.started_ns) / 1e6 for record in fired]
    assert all(length == pytest.approx(300, abs=2) for length in lengths_ms)
    assert all(record.evidence.verdict == "proved" for record in fired)
    assert [r.started_ns for r in fired] == [r.started_ns for r in records_of(plan)[1:]]


def test_a_reactive_fault_heals_when_its_window_ends():
    fault = armed(Kill(aim="trigger", nodes=("n1",)), "leader", delay_ms=2400)
    _, fired = records_of(planned(fault))
    assert fired.stopped_ns / 1e6 == pytest.approx(2700, abs=2)


def test_a_partition_during_the_joint_configuration():
    change = event(Membership(**ONE, change="remove"), name="membership-1")
    cut = armed(Partition(topology="trigger", nodes=("n1",)), "joint", times=2)
    _, window, *fired = records_of(planned(change, cut))
    assert window.set_off >= 1
    assert fired[0].started_ns / 1e6 < 600, "at once when the change began"


def test_a_follower_dies_in_the_middle_of_a_snapshot():
    away = event(Kill(**ONE), start_ms=100, stop_ms=2000, name="kill-1")
    cut = armed(Kill(aim="trigger", nodes=("n1",)), "snapshot-receiving")
    _, window, *fired = records_of(planned(away, cut, rate_hz=600.0, concurrency=20))
    assert window.set_off == 1
    assert fired[0].description == "kill trigger: n2"


# -- overlaps -------------------------------------------------------------------------------------------------


def test_operations_overlap_a_fault_as_they_should():
    done = attempt(planned(event(Kill(**ONE))))
    spans = spans_of(done.ops)
    (record,) = done.record.faults
    overlaps = Overlaps(spans)
    shown = to_json(record, overlaps)
    inside = [
        span
        for span in spans
        if span.invoked_ns <= record.stopped_ns and span.completed_ns >= record.started_ns
    ]
    assert shown["overlapped_ops"] == overlaps.count(record) == len(inside) > 20
    assert shown["overlapped_indexes"] == sorted(span.place for span in inside)
    assert sum(shown["overlapped_by_outcome"].values()) == len(inside)


def test_an_operation_that_never_ended_overlaps_all_that_came_after():
    late = FaultRecord(event(Kill(**ONE)), started_ns=100, stopped_ns=200)
    spans = [Span(0, 5, 2**63, "info"), Span(1, 6, 99, "ok"), Span(3, 7, 100, "ok"), Span(4, 201, 300, "ok")]
    assert Overlaps(spans).of(late).indexes == (0, 3)
    assert Overlaps(spans).count(late) == 2


def test_kinds_without_effect_are_named_with_the_reason():
    proof = Evidence("proved", ("n1 is down",))
    hit = FaultRecord(event(Kill(**ONE), name="kill-1"), started_ns=10, stopped_ns=20, evidence=proof)
    idle = FaultRecord(event(Kill(**ONE), name="kill-leader-1"), started_ns=50, stopped_ns=60, evidence=proof)
    unproved = FaultRecord(event(Pause(**ONE), name="pause-2"), started_ns=10, stopped_ns=20)
    window = FaultRecord(armed(Kill(**ONE), "joint"))
    overlaps = Overlaps([Span(0, 5, 15, "ok")])
    kinds = ["kill", "kill-leader", "pause", "react", "disk"]
    assert without_effect(kinds, [hit, idle, unproved, window], overlaps) == {
        "kill-leader": "no operation overlapped it",
        "pause": "nothing proved that it was in force",
        "react": "nothing set it off",
        "disk": "none was planned in so short a time",
    }
    assert kind_of(hit) == "kill"


def test_a_required_effect_that_is_missing_makes_the_run_unknown(tmp_path):
    from harness.cli import main  # noqa: PLC0415

    options = ["run", "--seed=1", "--time-limit=4", f"--store={tmp_path}", "--fault=partition-in-joint"]
    assert main(options) == 0
    assert main([*options, "--require-effect"]) == 2
    for file in tmp_path.glob("*/report.txt"):
        assert "partition-in-joint had no effect: nothing set it off" in file.read_text()


# -- probes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "back", "found", "verdict"),
    [
        (LinkRule(), LinkRule(blocked=True), LinkProbe(1, 0), "proved"),
        (LinkRule(blocked=True), LinkRule(), LinkProbe(1, 1, (1.0,)), "refuted"),
        (LinkRule(delay_ms=50), LinkRule(delay_ms=50), LinkProbe(3, 3, (1.0, 100.5, 99.0)), "proved"),
        (LinkRule(delay_ms=50), LinkRule(delay_ms=50), LinkProbe(3, 3, (1.0, 51.0, 0.5)), "refuted"),
        (LinkRule(delay_ms=50, distribution="normal"), LinkRule(), LinkProbe(1, 1, (30.0,)), "unproved"),
        (LinkRule(delay_ms=50, reorder=0.5), LinkRule(), LinkProbe(1, 1, (1.0,)), "unproved"),
        (LinkRule(loss=0.2), LinkRule(), LinkProbe(20, 20, (1.0,) * 20), "unproved"),
        (LinkRule(loss=0.2), LinkRule(), LinkProbe(20, 17, (1.0,) * 17), "proved"),
        (LinkRule(delay_ms=50), LinkRule(), LinkProbe(3, 0), "unproved"),
    ],
)
def test_what_probes_of_a_link_say(there, back, found, verdict):
    assert judge_link("a->b", there, back, found).verdict == verdict


def test_one_refutation_weighs_more_than_proofs():
    proofs = [Evidence("proved", ("a",)), Evidence("refuted", ("b",)), Evidence("unproved")]
    assert merge(proofs) == Evidence("refuted", ("b", "a"))
    assert merge([]).verdict == "unproved"


# -- membership -----------------------------------------------------------------------------------------------


class Clique:
    """A cluster whose changes take some looks to settle, and whose leader refuses now and then."""

    def __init__(self):
        self.voters, self.learners = ("n1", "n2", "n3"), ()
        self.asked, self.anew, self.unsettled, self.refusals = [], [], 0, 0

    async def members(self):
        self.unsettled -= 1
        return Members(self.voters, self.learners, is_settled=self.unsettled < 0)

    async def change_members(self, voters, learners=()):
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("another change is under way")
        self.asked.append((tuple(voters), tuple(learners)))
        self.voters, self.learners, self.unsettled = tuple(voters), tuple(learners), 2

    async def transfer(self, node):
        raise NotImplementedError

    async def wipe(self, node):
        raise NotImplementedError


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr("nemesis.membership.POLL_S", 0.001)


@pytest.mark.usefixtures("_quick")
def test_members_leave_and_come_back_as_learners_first():
    async def script():
        clique = Clique()
        clique.refusals = 2

        async def make_anew(node):
            assert node not in clique.voters
            clique.anew.append(node)

        driver = MembershipDriver(clique, clique.voters, make_anew)
        assert await driver.settle() == "", "nothing was asked for"
        driver.want({"n2"}, {"n2"})
        assert await driver.settle() == ""
        driver.want((), ())
        assert await driver.settle() == ""
        return clique

    clique = asyncio.run(script())
    assert clique.asked == [(("n1", "n3"), ()), (("n1", "n3"), ("n2",)), (("n1", "n2", "n3"), ())]
    assert clique.anew == ["n2"]


@pytest.mark.usefixtures("_quick")
def test_members_that_never_settle_are_told(monkeypatch):
    monkeypatch.setattr("nemesis.membership.SETTLE_S_MAX", 0.05)

    async def script():
        clique = Clique()
        clique.refusals = 10**9
        driver = MembershipDriver(clique, clique.voters, lambda node: None)
        driver.want({"n2"}, ())
        return [await driver.settle(), await driver.settle()], asyncio.all_tasks() - {asyncio.current_task()}

    (said, again), going_on = asyncio.run(script())
    assert said.endswith("in 0.05 s: another change is under way")
    assert again == "", "it was told; whoever heals once more must not be cancelled by what was given up"
    assert not going_on


# -- a cluster that is slow to be asked --------------------------------------------------------------------------


class Sluggish:
    """A target with a clock of its own, on which each change of the network takes 0.4 s."""

    nodes = ("n1", "n2", "n3")

    def __init__(self):
        self.at_ms = 0.0
        self.written = []

    def now_ns(self):
        return int(self.at_ms * 1e6)

    async def leader(self):
        return "n1"

    async def set_network(self, rules):
        self.at_ms += 400
        self.written.append(bool(rules.links))

    async def sleep_until(self, at_us):
        self.at_ms = max(self.at_ms, at_us / 1000)


def test_a_burst_that_is_too_quick_for_the_cluster_does_not_pile_up():
    """Thirty partitions within a second took a real cluster half a minute, long after the load."""
    slow = Sluggish()
    burst = [
        event(Partition(topology="one", nodes=("n2",)), start_ms=at, stop_ms=at + 30, name=f"partition-{at}")
        for at in range(0, 1000, 33)
    ]
    last = event(Partition(topology="one", nodes=("n3",)), start_ms=2000, stop_ms=2500, name="partition-n3")
    injector = Injector(slow, MemoryRecorder(slow.now_ns), [*burst, last])
    asyncio.run(injector.perform(slow.sleep_until))
    assert slow.at_ms <= 2500 + 400
    assert slow.written[-2:] == [True, False]
    injected = [record for record in injector.faults if record.started_ns is not None]
    assert injected[0].event is burst[0]
    assert injected[-1].event is last
    assert {record.is_late for record in injected} == {False}
    assert all(record.is_late for record in injector.faults if record not in injected)
    assert injector.problems == []
    missing = without_effect(["partition"], [r for r in injector.faults if r.is_late], Overlaps([]))
    assert missing == {"partition": "the cluster was too slow for it"}
