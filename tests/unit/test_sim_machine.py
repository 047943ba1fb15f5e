"""Simulated machines: slow processes, crash points, clocks that run wrong, connections that break on one side."""

import asyncio
import contextlib
import itertools
import time

import pytest

from harness.seeds import Streams
from harness.sim.disk import Damaged, DiskParams, SimDisk, intact_prefix
from harness.sim.host import SimHost
from harness.sim.loop import SimLoop
from harness.sim.network import LinkParams, NetworkParams, SimNetwork
from harness.sim.trouble import NothingToDamage
from harness.sim.world import World
from nemesis.target import HEALTHY, HEALTHY_DISK, ClockRule, Damage, DiskRule, LinkRule, Ruleset

PERFECT = NetworkParams(loss=0.0, duplicate=0.0)


class Counter:
    """A process that notes when each message was dealt with."""

    def __init__(self, host, log):
        self.host, self.log = host, log

    def start(self):
        self.log.append("start")

    def on_message(self, src, message):
        self.log.append((self.host.loop.now_us, message))
        if message == "write":
            self.host.disk.write(["record"])
            self.host.sync(lambda: self.log.append("synced"))


def make_host(params=PERFECT):
    loop, log = SimLoop(), []
    network = SimNetwork(loop, Streams(1), params)
    disk = SimDisk(loop, Streams(1).dice("disk", loop), DiskParams())
    host = SimHost(
        "a", loop=loop, network=network, disk=disk, rng=Streams(1).dice("a", loop),
        factory=lambda h: Counter(h, log),
    )  # fmt: skip
    network.attach("b", lambda src, message: None)
    host.start()
    return loop, network, host, log


def test_a_slow_process_takes_its_time_for_each_event_and_keeps_their_order():
    loop, network, host, log = make_host()
    host.set_slowness(11)
    for i in range(20):
        loop.schedule(10 * i, network.send, "b", "a", i)
    loop.run_forever()
    times = [at for at, _ in log[1:]]
    assert [b - a >= 1000 for a, b in itertools.pairwise(times)] == [True] * 19
    host.set_slowness(1)
    network.send("b", "a", "quick")
    loop.run_forever()
    assert log[-1][1] == "quick"
    assert not host.held


@pytest.mark.parametrize(("point", "kept"), [("before-sync", {0, 1}), ("after-sync", {1})])
def test_a_process_dies_at_its_crash_point_once(point, kept):
    loop, network, host, log = make_host()
    host.crash_point = point
    network.send("b", "a", "write")
    loop.run_forever()
    assert (host.alive, host.crashes, host.panics, host.crash_point) == (False, 1, [], None)
    assert len(host.disk.read()) in kept
    assert "synced" not in log
    host.start()
    network.send("b", "a", "write")
    loop.run_forever()
    assert host.alive
    assert log[-1] == "synced"


def test_a_fast_clock_fires_timers_early_and_never_jumps():
    loop, _, host, log = make_host()
    host.set_clock(ClockRule(offset_ms=5000, timer_drift_ppm=250_000))
    host.call_later(1_000_000, lambda: log.append(loop.now_us))
    loop.run_forever()
    assert log[-1] == 800_000
    assert host.now_us() == 1_000_000
    assert host.wall_us() == 5_800_000
    host.set_clock(ClockRule())
    assert (host.now_us(), host.wall_us()) == (1_000_000, 800_000), "the wall clock is right again"


@pytest.mark.parametrize("drift_ppm", [-600_000, -3, 3, 1_000, 333_333, 2_000_000])
def test_a_timer_that_fires_finds_that_its_time_has_come(drift_ppm):
    """Or a program that waits for a time would ask for the rest of it for ever, at one moment of true time."""
    loop, _, host, _ = make_host()
    loop.now_us = 12_345
    host.set_clock(ClockRule(timer_drift_ppm=drift_ppm))
    late = []

    def due(deadline_us):
        late.append(host.now_us() - deadline_us)

    for delay_us in (1, 2, 3, 999, 10_001, 123_457):
        host.call_later(delay_us, due, host.now_us() + delay_us)
    loop.run_forever()
    assert len(late) == 6
    assert min(late) >= 0


def test_records_that_were_damaged_are_told_from_a_torn_tail():
    loop = SimLoop()
    disk = SimDisk(loop, Streams(1).dice("disk", loop), DiskParams())
    with pytest.raises(NothingToDamage):
        disk.damage(Damage("bit-flip", 1, (0.0,)))
    disk.write(["a", "b", "c", "d"])
    disk.sync(lambda: None, lambda: None)
    loop.run_forever()
    disk.damage(Damage("bit-flip", 1, (0.99,)))
    assert intact_prefix(disk.read()) == (["a", "b", "c"], True)
    disk.damage(Damage("bit-flip", 1, (0.3,)))
    assert intact_prefix(disk.read()) == (["a"], False)
    assert disk.read()[1] == Damaged("b")
    disk.damage(Damage("truncate", 64))
    disk.set_rule(DiskRule(misdirect=1.0))
    disk.write(["e"])
    assert disk.read()[-1] == Damaged("e")


def test_a_stalled_disk_goes_on_when_it_is_healed():
    loop, _, host, log = make_host()
    host.disk.set_rule(DiskRule(stalled=True))
    host.sync(lambda: log.append(loop.now_us))
    loop.run_forever()
    assert log == ["start"]
    loop.schedule(2_000_000, host.disk.set_rule, HEALTHY_DISK)
    loop.run_forever()
    assert log[-1] >= 2_000_000


def make_network(params=PERFECT, seed=1):
    loop = SimLoop()
    network = SimNetwork(loop, Streams(seed), params)
    inbox = []
    for name in ("a", "b"):
        network.attach(name, lambda src, message: inbox.append((loop.now_us, message)))
    return loop, network, inbox


def test_a_reset_loses_what_is_under_way_both_ways():
    loop, network, inbox = make_network()
    network.send("a", "b", 1)
    network.send("b", "a", 2)
    network.set_rules(Ruleset({("a", "b"): LinkRule(reset=1.0)}))
    network.send("a", "b", 3)
    network.set_rules(HEALTHY)
    network.send("a", "b", 4)
    loop.run_forever()
    assert [message for _, message in inbox] == [4]
    assert network.lost == 3


def test_correlated_losses_come_in_bursts_and_are_as_many():
    def fates(correlation):
        loop, network, inbox = make_network()
        network.set_rules(Ruleset({("a", "b"): LinkRule(loss=0.3, loss_correlation=correlation)}))
        for i in range(5000):
            loop.schedule(i * 10_000, network.send, "a", "b", i)
        loop.run_forever()
        arrived = {message for _, message in inbox}
        return [i in arrived for i in range(5000)]

    alone, bursts = fates(0.0), fates(0.9)
    changes = [sum(a != b for a, b in itertools.pairwise(f)) for f in (alone, bursts)]
    assert changes[1] < changes[0] / 4
    assert 0.6 < sum(bursts) / 5000 < 0.8


@pytest.mark.parametrize("distribution", ["uniform", "normal", "pareto", "paretonormal"])
def test_jitter_has_the_mean_and_the_shape_asked_for(distribution):
    loop, network, inbox = make_network(NetworkParams(0, 0, 0.0, 0.0))
    network.set_rules(Ruleset({("a", "b"): LinkRule(jitter_ms=100, distribution=distribution)}))
    for i in range(4000):
        loop.schedule(i * 1_000_000, network.send, "a", "b", i)
    loop.run_forever()
    delays_ms = [(at - 1_000_000 * message) / 1000 for at, message in inbox]
    assert sum(delays_ms) / 4000 == pytest.approx(50, rel=0.1)
    assert (max(delays_ms) > 150) == distribution.startswith("pareto")


def test_links_can_be_slower_than_others_and_start_slowly_after_a_partition():
    far = LinkParams(delay_min_us=80_000, rate_kbit=1000)
    loop, network, inbox = make_network(
        NetworkParams(loss=0, duplicate=0, slow_start_ms=1000, links={"a->b": far})
    )
    network.send("a", "b", "far")
    network.send("b", "a", "near")
    loop.run_forever()
    assert [message for _, message in inbox] == ["near", "far"]
    assert inbox[1][0] > 80_000
    inbox.clear()
    network.set_rules(Ruleset({("b", "a"): LinkRule(blocked=True)}))
    network.set_rules(HEALTHY)
    began_us = loop.now_us
    for i in range(200):
        loop.schedule(i * 10_000, network.send, "b", "a", i)
    loop.run_forever()
    late = [at - began_us - 10_000 * i for at, i in inbox]
    assert max(late) > 300_000
    assert max(delay for delay, (_, i) in zip(late, inbox, strict=True) if i >= 100) < 20_000


# -- worlds -------------------------------------------------------------------------------------------------------


async def echo():
    async def on_client(reader, writer):
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except ConnectionResetError:
            broken.append("n1")
        writer.close()

    await (await asyncio.start_server(on_client, port=80)).serve_forever()


broken = []


def world_with(program=echo, seed=1):
    world = World(seed)
    world.host("n1", program)
    return world


def test_a_half_open_connection_is_noticed_when_its_other_end_sends():
    world = world_with()
    broken.clear()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.half_open("test", "n1")
        await asyncio.sleep(5)
        assert broken == ["n1"]
        assert not writer.is_closing()
        writer.write(b"anybody?")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    world.run(test)


def test_a_reset_breaks_connections_and_bytes_are_never_missing_in_the_middle():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.reset_connections("n1", "test")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        world.network.set_rules(Ruleset({("test", "n1"): LinkRule(reset=0.1)}))
        got = b""
        reader, writer = await asyncio.open_connection("n1", 80)
        sent = b"".join(b"%03d." % i for i in range(200))

        async def talk():
            nonlocal got
            for i in range(200):
                writer.write(b"%03d." % i)
                with contextlib.suppress(TimeoutError):  # the sender learns of it when it sends again
                    got += await asyncio.wait_for(reader.read(1000), 1)

        with pytest.raises(ConnectionResetError):
            await talk()
        writer.close()
        return sent, got

    sent, got = world.run(test)
    assert 0 < len(got) < len(sent)
    assert sent.startswith(got)


def test_a_program_waits_for_its_disk_and_dies_at_its_crash_point():
    lives = []

    async def program():
        files = world.hosts["n1"].files
        lives.append(files.read("log") if "log" in files.names() else None)
        began = time.monotonic()
        for i in range(3):
            files.append("log", b"%d" % i)
            await asyncio.to_thread(files.sync, "log")
            await asyncio.to_thread(files.sync_names)
        lives.append(time.monotonic() - began)
        files.append("log", b"x")
        files.sync("log")  # in the loop itself: everything stands still
        await asyncio.sleep(0)
        lives.append(time.monotonic() - began)
        await asyncio.Event().wait()

    world = world_with(program)
    world.hosts["n1"].crash_point = "after-sync"

    async def test():
        await asyncio.sleep(1)
        world.hosts["n1"].start()
        await asyncio.sleep(1)

    world.run(test)
    nothing, after_crash, took_s, then_s = lives
    assert nothing is None
    assert after_crash in (None, b"0")
    assert 0.0006 < took_s < then_s < 0.05
    assert world.hosts["n1"].exits[0] == "crashed after-sync"
    assert world.hosts["n1"].exits[1] == "killed"
    assert world.uncaught == []


def test_clocks_of_hosts_run_at_their_own_rates():
    seen = {}

    async def program():
        await asyncio.sleep(10)
        seen["n1"] = (world.loop.now_us, time.monotonic(), time.time())

    world = world_with(program)

    async def test():
        await world.set_clock(
            "n1", ClockRule(timer_drift_ppm=1_000_000, strobe_ms=3000, strobe_period_ms=10_000)
        )
        await asyncio.sleep(20)
        return asyncio.get_running_loop().time()

    assert world.run(test) == 20
    assert seen["n1"][0] == pytest.approx(5_000_000, abs=10)
    assert seen["n1"][1] == pytest.approx(10)


def test_a_slow_program_is_slow_and_a_stalled_disk_stops_only_who_waits():
    ticks = []

    async def program():
        files = world.hosts["n1"].files
        files.append("log", b"x")

        async def tick():
            while True:
                ticks.append(world.loop.now_us)
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        await asyncio.to_thread(files.sync, "log")
        ticks.append("synced")
        ticking.cancel()
        await asyncio.Event().wait()

    world = world_with(program)

    async def test():
        await world.set_disk("n1", DiskRule(stalled=True))
        await world.set_slowness("n1", 101)
        await asyncio.sleep(2)
        assert "synced" not in ticks
        await world.set_disk("n1", HEALTHY_DISK)
        await asyncio.sleep(1)
        await world.set_slowness("n1", 1)

    world.run(test)
    assert ticks[-1] == "synced"
    assert 150 < len(ticks) < 230
