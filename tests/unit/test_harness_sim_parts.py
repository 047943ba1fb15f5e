"""Simulated disk, network and host: what survives, what arrives, what a dead process can still do."""

from __future__ import annotations

import pytest

from harness.seeds import Streams
from harness.sim.disk import DiskParams, SimDisk
from harness.sim.host import HostTimer, SimHost
from harness.sim.loop import SimLoop
from harness.sim.network import NetworkParams, SimNetwork
from nemesis.target import HEALTHY, DiskRule, LinkRule, Ruleset

PERFECT = NetworkParams(loss=0.0, duplicate=0.0)


def never():
    raise AssertionError("a healthy disk does not fail")


def make_disk(seed=1):
    loop = SimLoop()
    return loop, SimDisk(loop, Streams(seed).dice("disk", loop), DiskParams())


def test_synced_records_survive_every_crash():
    """What a sync confirmed is there after the crash; nothing after it is invented."""
    for seed in range(50):
        loop, disk = make_disk(seed)
        done: list[bool] = []
        disk.write(["a", "b"])
        disk.sync(lambda done=done: done.append(True), never)
        loop.run_forever()
        disk.write(["c", "d"])
        disk.crash()
        assert done == [True]
        assert disk.read()[:2] == ["a", "b"]
        assert list(disk.read()) in (["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"])


def test_unsynced_records_are_sometimes_lost_and_sometimes_kept():
    """Both fates occur, or the fault would not bite."""
    kept = set()
    for seed in range(50):
        _, disk = make_disk(seed)
        disk.write(["a", "b"])
        disk.crash()
        kept.add(len(disk.read()))
    assert kept == {0, 1, 2}


def test_a_sync_of_a_dead_process_never_calls_back():
    """The callback belongs to the process that asked."""
    loop, disk = make_disk()
    done: list[bool] = []
    disk.write(["a"])
    disk.sync(lambda: done.append(True), never)
    disk.crash()
    loop.run_forever()
    assert done == []


def make_network(params=PERFECT, seed=1):
    loop = SimLoop()
    network = SimNetwork(loop, Streams(seed), params)
    inbox: list[tuple[str, str, object]] = []
    for name in ("a", "b", "c"):
        network.attach(name, lambda src, message, name=name: inbox.append((src, name, message)))
    return loop, network, inbox


def test_messages_arrive_and_may_overtake_each_other():
    """All arrive on a perfect link, not always in order."""
    loop, network, inbox = make_network()
    for i in range(100):
        network.send("a", "b", i)
    loop.run_forever()
    arrived = [message for _, _, message in inbox]
    assert sorted(arrived) == list(range(100))
    assert arrived != list(range(100))


def test_a_blocked_link_is_blocked_in_its_direction_only():
    """A rule names a direction."""
    loop, network, inbox = make_network()
    network.set_rules(Ruleset({("a", "b"): LinkRule(blocked=True)}))
    network.send("a", "b", 1)
    network.send("b", "a", 2)
    network.send("a", "c", 3)
    loop.run_forever()
    assert sorted(inbox) == [("a", "c", 3), ("b", "a", 2)]
    network.set_rules(HEALTHY)
    network.send("a", "b", 4)
    loop.run_forever()
    assert inbox[-1] == ("a", "b", 4)


def test_a_partition_cuts_what_is_in_flight():
    """A message that would arrive through a cut link is lost."""
    loop, network, inbox = make_network()
    network.send("a", "b", 1)
    network.set_rules(Ruleset({("a", "b"): LinkRule(blocked=True)}))
    loop.run_forever()
    assert inbox == []
    assert network.lost == 1


@pytest.mark.parametrize(("rule", "low", "high"), [(LinkRule(loss=0.3), 0.25, 0.35), (LinkRule(), 0.0, 0.0)])
def test_loss_is_as_asked(rule, low, high):
    """The share of lost messages is what the rule says."""
    loop, network, inbox = make_network()
    network.set_rules(Ruleset({("a", "b"): rule}))
    for i in range(5000):
        network.send("a", "b", i)
    loop.run_forever()
    assert low <= 1 - len(inbox) / 5000 <= high


def test_duplication_and_delay_are_as_asked():
    """Duplicates arrive; the delay is added one way."""
    loop, network, inbox = make_network()
    network.set_rules(Ruleset({("a", "b"): LinkRule(delay_ms=100, duplicate=0.5)}))
    for i in range(1000):
        network.send("a", "b", i)
    loop.schedule(100_000, lambda: inbox.append(("", "", "100 ms")))
    loop.run_forever()
    assert inbox[0][2] == "100 ms"
    assert 1400 < len(inbox) < 1600


def test_links_have_streams_of_their_own():
    """More traffic on one link changes nothing on another."""

    def arrivals(extra):
        loop, network, inbox = make_network(NetworkParams(loss=0.2), seed=5)
        for i in range(50):
            network.send("a", "b", i)
            for _ in range(extra):
                network.send("c", "a", "noise")
        loop.run_forever()
        return [message for src, _, message in inbox if src == "a"]

    assert arrivals(0) == arrivals(3)


class Echo:
    """A process that remembers what reached it."""

    def __init__(self, host, log):
        self.host, self.log = host, log

    def start(self):
        self.log.append("start")

    def on_message(self, src, message):
        self.log.append(message)

    def on_request(self, request, reply):
        self.log.append(request)
        reply(request)

    def leader_term(self):
        return None


def make_host():
    loop = SimLoop()
    network = SimNetwork(loop, Streams(1), PERFECT)
    log: list[object] = []
    disk = SimDisk(loop, Streams(1).dice("disk", loop), DiskParams())
    host = SimHost(
        "a", loop=loop, network=network, disk=disk, rng=Streams(1).stream("a"), factory=lambda h: Echo(h, log)
    )
    network.attach("b", lambda src, message: None)
    host.start()
    return loop, network, host, log


def test_a_dead_process_gets_nothing_and_its_timers_die():
    """Messages, timers and syncs of a killed process are dropped."""
    loop, network, host, log = make_host()
    host.call_later(10, log.append, "timer")
    host.sync(lambda: log.append("synced"))
    network.send("b", "a", "message")
    host.kill()
    host.start()
    host.kill()
    loop.run_forever()
    assert log == ["start", "start"]


def test_a_paused_process_gets_everything_later_in_order():
    """What piles up is run at resume; nothing runs before."""
    loop, network, host, log = make_host()
    host.pause()
    network.send("b", "a", "message")
    host.call_later(10_000_000, log.append, "timer")
    loop.run_forever()
    assert log == ["start"]
    host.resume()
    assert log == ["start", "message", "timer"]


def test_a_timer_cancelled_by_the_first_event_after_a_pause_does_not_run():
    """Events that piled up run one after the other, not all at once."""
    loop, _, host, log = make_host()
    timers: list[HostTimer] = []
    timers: list[HostTimer] = []
    host.call_later(10, lambda: [timer.cancel() for timer in timers])
    timers.append(host.call_later(20, log.append, "cancelled"))
    host.pause()
    loop.run_forever()
    host.resume()
    assert log == ["start"]


def test_kill_start_pause_resume_are_idempotent():
    """Doing it twice is doing it once; a dead process cannot be paused."""
    _, _, host, log = make_host()
    host.start()
    host.resume()
    host.kill()
    host.kill()
    host.pause()
    assert not host.paused
    host.resume()
    assert log == ["start"]


def test_an_uncaught_exception_is_the_end_of_the_process_and_is_kept():
    """A panic kills the node, loses what was not synced, and is told; the node can be started again."""
    loop, network, host, log = make_host()
    host.disk.write(["record"])
    host.call_later(10, lambda: 1 // 0)
    host.call_later(20, log.append, "never")
    loop.run_forever()
    assert not host.alive
    assert len(host.panics) == 1
    assert "a died of ZeroDivisionError" in host.panics[0]
    host.start()
    network.send("b", "a", "again")
    loop.run_forever()
    assert log == ["start", "start", "again"]


def test_reordered_corrupted_and_slow_links():
    """Some messages skip the delay, corrupted ones are lost, a rate makes them queue and then drop."""

    def arrivals(rule, count=1000):
        loop, network, _ = make_network()
        network.set_rules(Ruleset({("a", "b"): rule}))
        times = []
        network.attach("b", lambda src, message: times.append(loop.now_us))
        for i in range(count):
            network.send("a", "b", i)
        loop.run_forever()
        return times

    early = sum(at < 100_000 for at in arrivals(LinkRule(delay_ms=100, reorder=0.25)))
    assert 200 < early < 300
    assert 650 < len(arrivals(LinkRule(corrupt=0.3))) < 750
    slow = arrivals(LinkRule(rate_kbit=64))
    per_message_us = (66 + 1) * 8 * 1000 / 64
    assert slow[1] - slow[0] > 0.5 * per_message_us
    assert len(slow) == pytest.approx(2_000_000 / per_message_us, rel=0.1)


def test_a_full_or_failing_disk_stops_the_process_and_is_no_panic():
    """What was asked for is not reported as a surprise; a slow disk is only slow."""
    loop, _, host, log = make_host()
    host.disk.set_rule(DiskRule(sync_delay_ms=500))
    host.sync(lambda: log.append(loop.now_us >= 500_000))
    loop.run_forever()
    assert log == ["start", True]
    host.disk.set_rule(DiskRule(sync_error=1.0))
    host.sync(never)
    loop.run_forever()
    assert (host.alive, host.disk_deaths, host.panics) == (False, 1, [])
    host.disk.set_rule(DiskRule(write_error=1.0))
    host.start()
    host.call_later(1, host.disk.write, ["record"])
    loop.run_forever()
    assert (host.alive, host.disk_deaths, host.panics) == (False, 2, [])
    assert host.disk.read() == []
