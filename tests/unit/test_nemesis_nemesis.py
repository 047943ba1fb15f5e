"""The nemesis on a target that only keeps books: composing, healing, and what becomes of errors."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemesis.faults import ClockSkew, Disk, Kill, Latency, Loss, Partition, Pause
from nemesis.nemesis import Nemesis
from nemesis.schedule import FaultEvent
from nemesis.target import HEALTHY, HEALTHY_DISK, DiskRule, LinkRule

NODES = ("n1", "n2", "n3")


class Books:
    """A target that follows the contract strictly and notes every call."""

    def __init__(self, nodes=NODES):
        self.nodes = nodes
        self.leading = "n2"
        self.rules = HEALTHY
        self.alive = dict.fromkeys(nodes, True)
        self.stopped = dict.fromkeys(nodes, False)
        self.clocks = dict.fromkeys(nodes, 0)
        self.disks = dict.fromkeys(nodes, HEALTHY_DISK)
        self.calls = []
        self.failing = set()

    def _called(self, *call):
        self.calls.append(call)
        if call[0] in self.failing or " ".join(map(str, call)) in self.failing:
            raise RuntimeError(f"no {' '.join(map(str, call))}")

    async def leader(self):
        self._called("leader")
        return self.leading

    async def set_network(self, rules):
        self._called("set_network", rules)
        await asyncio.sleep(0)
        self.rules = rules

    async def kill(self, node):
        self._called("kill", node)
        await asyncio.sleep(0)
        self.alive[node] = self.stopped[node] = False

    async def start(self, node):
        self._called("start", node)
        await asyncio.sleep(0)
        self.alive[node] = True

    async def pause(self, node):
        self._called("pause", node)
        self.stopped[node] = self.alive[node]

    async def resume(self, node):
        self._called("resume", node)
        self.stopped[node] = False

    async def set_clock(self, node, rule):
        self._called("set_clock", node, rule)
        self.clocks[node] = rule.offset_ms

    async def set_disk(self, node, rule):
        self._called("set_disk", node, rule)
        self.disks[node] = rule

    def states(self):
        return {
            n: "down" if not self.alive[n] else "paused" if self.stopped[n] else "running" for n in self.nodes
        }

    def healthy(self):
        running = set(self.states().values()) == {"running"}
        machines = not any(self.clocks.values()) and set(self.disks.values()) == {HEALTHY_DISK}
        return self.rules == HEALTHY and running and machines


def event(name, fault):
    return FaultEvent(id=name, start_ms=0, stop_ms=1, fault=fault)


KILL_12 = event("kill-1", Kill(aim="minority", nodes=("n1", "n2")))
KILL_23 = event("kill-2", Kill(aim="minority", nodes=("n2", "n3")))
PAUSE_1 = event("pause-1", Pause(aim="one", nodes=("n1",)))
CUT_1 = event("cut-1", Partition(topology="one", nodes=("n1",)))
CUT_LEADER = event("cut-2", Partition(topology="leader", nodes=("n3",)))
SLOW_1 = event("slow-1", Latency(aim="one", nodes=("n1",), delay_ms=20, jitter_ms=2))
SLOW_ALL = event("slow-2", Latency(aim="all", nodes=NODES, delay_ms=30))
LOSSY = event("loss-1", Loss(aim="all", nodes=NODES, probability=0.5))
SKEW_1 = event("clock-1", ClockSkew(aim="one", nodes=("n1",), offset_ms=-1500))
SKEW_12 = event("clock-2", ClockSkew(aim="minority", nodes=("n1", "n2"), offset_ms=200))
SLOW_DISK_1 = event("disk-1", Disk(aim="one", nodes=("n1",), sync_delay_ms=20, sync_error=0.5))
BAD_DISK_12 = event("disk-2", Disk(aim="minority", nodes=("n1", "n2"), sync_delay_ms=5, sync_error=0.5))
EVENTS = [
    SLOW_DISK_1,
    BAD_DISK_12,
    SKEW_1,
    KILL_12,
    KILL_23,
    PAUSE_1,
    CUT_1,
    CUT_LEADER,
    SLOW_1,
    SLOW_ALL,
    LOSSY,
]


def run(script, target=None):
    """Runs the coroutine function with a nemesis and its target; returns both."""
    target = target or Books()

    async def main():
        nemesis = Nemesis(target)
        await script(nemesis)
        return nemesis

    return asyncio.run(main()), target


def test_inject_tells_whom_it_hit_and_heal_undoes_it():
    async def script(nemesis):
        injected = await nemesis.inject(CUT_LEADER)
        assert injected.description == "partition leader: n2 | n1 n3"
        assert injected.details["leader"] == "n2"
        assert msgspec.json.encode(injected.details)
        assert {"cut-2": injected.description} == dict(nemesis.in_force)
        healed = await nemesis.heal(CUT_LEADER)
        assert healed.description == "healed partition leader: n2 | n1 n3"
        assert dict(nemesis.in_force) == {}

    nemesis, target = run(script)
    assert target.healthy()
    assert nemesis.errors == []
    assert [call[0] for call in target.calls] == ["leader", "set_network", "set_network"]


def test_the_leader_is_asked_only_by_whoever_needs_it():
    async def script(nemesis):
        await nemesis.inject(CUT_1)

    _, target = run(script)
    assert "leader" not in [call[0] for call in target.calls]


def test_network_faults_in_force_are_written_as_one():
    async def script(nemesis):
        for one in (SLOW_1, SLOW_ALL, LOSSY, event("loss-2", LOSSY.fault), CUT_1):
            await nemesis.inject(one)
        links = target.rules.links
        assert links["n1", "n2"] == LinkRule(blocked=True, delay_ms=50, jitter_ms=2, loss=0.75)
        assert links["n3", "n2"] == LinkRule(delay_ms=30, loss=0.75)
        await nemesis.heal(CUT_1)
        assert target.rules.links["n1", "n2"] == LinkRule(delay_ms=50, jitter_ms=2, loss=0.75)
        await nemesis.heal(SLOW_1)
        await nemesis.heal(SLOW_ALL)
        assert set(target.rules.links.values()) == {LinkRule(loss=0.75)}

    target = Books()
    run(script, target)


def test_a_node_is_started_when_nobody_holds_it_any_more():
    async def script(nemesis):
        await nemesis.inject(KILL_12)
        await nemesis.inject(KILL_23)
        await nemesis.heal(KILL_12)
        assert target.states() == {"n1": "running", "n2": "down", "n3": "down"}
        await nemesis.heal(KILL_23)

    target = Books()
    run(script, target)
    assert target.healthy()
    assert [call for call in target.calls if call[0] == "kill"] == [
        ("kill", "n1"),
        ("kill", "n2"),
        ("kill", "n3"),
    ]


def test_killed_weighs_more_than_paused():
    async def script(nemesis):
        await nemesis.inject(PAUSE_1)
        assert target.states()["n1"] == "paused"
        await nemesis.inject(KILL_12)
        assert target.states()["n1"] == "down"
        await nemesis.heal(KILL_12)
        assert target.states()["n1"] == "paused"
        await nemesis.heal(PAUSE_1)

    target = Books()
    run(script, target)
    assert target.healthy()


def test_a_pause_that_ends_while_the_node_is_dead_leaves_it_dead():
    async def script(nemesis):
        await nemesis.inject(PAUSE_1)
        await nemesis.inject(KILL_12)
        await nemesis.heal(PAUSE_1)
        assert target.states()["n1"] == "down"
        await nemesis.heal(KILL_12)

    target = Books()
    run(script, target)
    assert target.healthy()


def test_injecting_twice_and_healing_twice_changes_nothing():
    async def script(nemesis):
        await nemesis.inject(KILL_12)
        await nemesis.inject(KILL_12)
        await nemesis.heal(KILL_12)
        await nemesis.heal(KILL_12)
        healed = await nemesis.heal(SLOW_1)
        assert healed.description == "healed latency"

    _, target = run(script)
    assert target.healthy()
    assert len(target.calls) == 4


def test_the_leader_hit_stays_the_one_of_the_injection():
    async def script(nemesis):
        first = await nemesis.inject(CUT_LEADER)
        target.leading = "n1"
        assert first.description == (await nemesis.inject(CUT_LEADER)).description

    target = Books()
    run(script, target)
    assert [call[0] for call in target.calls] == ["leader", "set_network"]


def test_without_a_leader_the_drawn_node_is_hit():
    target = Books()
    target.leading = None
    _, target = run(lambda nemesis: nemesis.inject(CUT_LEADER), target)
    assert ("n3", "n1") in target.rules.links


def test_a_leader_that_cannot_be_asked_is_an_error_and_the_drawn_node_is_hit():
    target = Books()
    target.failing = {"leader"}
    nemesis, target = run(lambda nemesis: nemesis.inject(CUT_LEADER), target)
    (error,) = nemesis.errors
    assert msgspec.structs.astuple(error) == ("cut-2", "partition", "leader", None, "no leader")
    assert ("n3", "n1") in target.rules.links


def test_errors_name_the_fault_and_do_not_stop_the_others():
    async def script(nemesis):
        injected = await nemesis.inject(KILL_12)
        (error,) = injected.errors
        assert msgspec.structs.astuple(error) == ("kill-1", "kill", "kill", "n1", "no kill n1")
        assert target.states() == {"n1": "running", "n2": "down", "n3": "running"}
        target.failing = set()
        await nemesis.inject(PAUSE_1)
        assert target.states()["n1"] == "down", "what could not be done is tried again"

    target = Books()
    target.failing = {"kill n1"}
    nemesis, _ = run(script, target)
    assert len(nemesis.errors) == 1


def test_a_network_that_could_not_be_written_is_written_again():
    async def script(nemesis):
        target.failing = {"set_network"}
        assert (await nemesis.inject(CUT_1)).errors
        target.failing = set()
        assert not (await nemesis.heal(CUT_1)).errors

    target = Books()
    run(script, target)
    assert [call[0] for call in target.calls] == ["set_network", "set_network"]


def test_a_fault_for_another_cluster_is_an_error_and_not_in_force():
    async def script(nemesis):
        injected = await nemesis.inject(event("kill-9", Kill(aim="one", nodes=("n9",))))
        assert injected.description == "kill: not injected"
        assert "n9" in injected.errors[0].message
        assert not nemesis.in_force

    nemesis, target = run(script)
    assert nemesis.errors[0].verb == "resolve"
    assert target.calls == []


def test_heal_all_does_not_trust_what_was_believed():
    async def script(nemesis):
        target.rules = "something somebody left"
        target.alive["n1"] = False
        target.stopped["n2"] = True
        assert await nemesis.heal_all() == ()

    target = Books()
    run(script, target)
    assert target.healthy()


def test_heal_all_goes_on_after_an_error_and_returns_it():
    async def script(nemesis):
        for one in EVENTS:
            await nemesis.inject(one)
        target.failing = {"start n1", "set_network"}
        errors = await nemesis.heal_all()
        assert {("heal-all", "", "start", "n1"), ("heal-all", "", "set_network", None)} == {
            msgspec.structs.astuple(error)[:4] for error in errors
        }
        assert target.states() == {"n1": "down", "n2": "running", "n3": "running"}
        target.failing = set()
        assert await nemesis.heal_all() == ()

    target = Books()
    run(script, target)
    assert target.healthy()


def test_clocks_add_and_come_back():
    async def script(nemesis):
        await nemesis.inject(SKEW_1)
        await nemesis.inject(SKEW_12)
        assert target.clocks == {"n1": -1300, "n2": 200, "n3": 0}
        await nemesis.heal(SKEW_1)
        assert target.clocks == {"n1": 200, "n2": 200, "n3": 0}
        await nemesis.heal(SKEW_12)

    target = Books()
    nemesis, _ = run(script, target)
    assert target.healthy()
    assert len(target.calls) == 6
    assert not nemesis.errors


def test_a_cluster_without_clocks_and_disks_is_told_so_once_and_never_bothered_by_healing():
    class NoClock(Books):
        set_clock = None
        set_disk = None

    async def script(nemesis):
        injected = await nemesis.inject(SKEW_1)
        (error,) = injected.errors
        assert msgspec.structs.astuple(error)[:4] == ("clock-1", "clock", "set_clock", "n1")
        assert "cannot shift clocks" in error.message
        assert not (await nemesis.heal(SKEW_1)).errors
        (error,) = (await nemesis.inject(SLOW_DISK_1)).errors
        assert "cannot break disks" in error.message
        assert not (await nemesis.heal(SLOW_DISK_1)).errors
        assert await nemesis.heal_all() == ()

    run(script, NoClock())


def test_disks_add_up_and_a_node_that_stopped_of_it_is_started_again():
    async def script(nemesis):
        await nemesis.inject(SLOW_DISK_1)
        await nemesis.inject(BAD_DISK_12)
        assert target.disks["n1"] == DiskRule(sync_delay_ms=25, sync_error=0.75)
        assert target.disks["n2"] == DiskRule(sync_delay_ms=5, sync_error=0.5)
        target.alive["n2"] = False  # it gave up, rightly
        await nemesis.heal(BAD_DISK_12)
        assert target.disks["n2"] == HEALTHY_DISK
        await nemesis.heal(SLOW_DISK_1)

    target = Books()
    run(script, target)
    assert target.healthy()
    assert [call[0] for call in target.calls].count("set_disk") == 6, "written when it changes and only then"
    verbs = [call[0] for call in target.calls if call[1] == "n2"]
    assert verbs.index("start") > verbs.index("set_disk", 1), "mended before it is started"


def test_a_node_that_a_kill_holds_stays_dead_when_its_disk_heals():
    async def script(nemesis):
        await nemesis.inject(SLOW_DISK_1)
        await nemesis.inject(KILL_12)
        await nemesis.heal(SLOW_DISK_1)
        assert target.states()["n1"] == "down"

    target = Books()
    run(script, target)


def test_an_exception_without_words_is_told_by_its_name():
    class Silent(Books):
        async def kill(self, node):
            raise TimeoutError

    nemesis, _ = run(lambda nemesis: nemesis.inject(KILL_12), Silent())
    assert nemesis.errors[0].message == "TimeoutError"


def test_a_cancelled_injection_is_healed_all_the_same():
    class Slow(Books):
        async def kill(self, node):
            await super().kill(node)
            down.set()
            await asyncio.sleep(60)

    async def script(nemesis):
        injection = asyncio.ensure_future(nemesis.inject(KILL_12))
        await down.wait()
        injection.cancel()
        with pytest.raises(asyncio.CancelledError):
            await injection
        assert target.states()["n1"] == "down"
        await nemesis.heal_all()

    target, down = Slow(), asyncio.Event()
    run(script, target)
    assert target.healthy()


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from(EVENTS), st.booleans()), max_size=12), st.booleans())
def test_any_sequence_leaves_what_is_in_force_and_heals(steps, at_once):
    """Concurrent or one by one, with calls failing now and then: heal_all mends everything."""
    target = Books()

    async def step(nemesis, inject, one, fail):
        target.failing = {"kill", "pause", "set_network"} if fail else set()
        await (nemesis.inject if inject else nemesis.heal)(one)

    async def script(nemesis):
        if at_once:
            await asyncio.gather(*(step(nemesis, *one) for one in steps))
        else:
            for one in steps:
                await step(nemesis, *one)
        target.failing = set()
        await nemesis.heal(event("none", KILL_12.fault))
        down = {n for name in nemesis.in_force if name.startswith("kill") for n in holds[name]}
        assert down == {node for node, state in target.states().items() if state == "down"}
        cut = any(name.startswith("cut") for name in nemesis.in_force)
        assert cut == any(rule.blocked for rule in target.rules.links.values())
        assert await nemesis.heal_all() == ()
        assert not nemesis.in_force

    holds = {"kill-1": KILL_12.fault.nodes, "kill-2": KILL_23.fault.nodes}
    run(script, target)
    assert target.healthy()
