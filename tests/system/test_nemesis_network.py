"""The network of real nodes, broken and healed: each means the machine has, in namespaces of our own.

What the kernel lacks is skipped with its reason. tests/system/test_nemesis_uml.py runs this file again inside
a guest whose kernel has netem.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import threading
import time
from pathlib import Path

import pytest

from nemesis.backend import Backend, choose
from nemesis.network import Network, NetworkError
from nemesis.target import HEALTHY, LinkRule, Ruleset
from tests.system.netlab import (
    GIVE_UP_S,
    LISTEN_S,
    PATIENCE_S,
    backend_of,
    cut,
    open_lab,
    run,
    undisturbed,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab():
    one = open_lab(rootless=os.geteuid() != 0)
    yield one
    one.close()


@pytest.fixture(params=["tc and netem", "tc and nfqueue", "iptables and nfqueue"])
def backend(request, lab):
    return backend_of(request.param, lab.abilities)


def test_a_partition_stops_new_and_open_connections_and_nothing_else(lab, backend):
    async def script(network):
        lab["n1"].connect("open", lab.address("n2"), 5)
        lab["n2"].connect("back", lab.address("n1"), 5)
        await network.apply(cut(("n1", "n2"), ("n2", "n1")))
        for src, dst, name in (("n1", "n2", "open"), ("n2", "n1", "back")):
            assert not lab.reaches(src, dst, GIVE_UP_S)
            assert lab.cuts(src, dst)
            with pytest.raises(ConnectionError, match="TimeoutError"):
                lab[src].ping(name, GIVE_UP_S)
        for src, dst in (("n1", "n3"), ("n3", "n2"), (None, "n1"), (None, "n2")):
            assert lab.reaches(src, dst)
            assert lab.lost(src, dst) == 0
            assert lab.lost(dst, src) == 0
        await network.apply(HEALTHY)
        assert lab.reaches("n1", "n2")
        assert lab.reaches("n2", "n1")
        # One byte still under way from before, then the new one: the connection itself survived.
        # It is sent again after as long as the cut has lasted, at most.
        assert lab["n1"].ping("open", 60) >= 0
        assert lab["n2"].ping("back", 60) >= 0

    run(lab, backend, script)


def test_one_direction_only_and_what_met_it_is_counted(lab, backend):
    async def script(network):
        await network.apply(Ruleset({**cut(("n1", "n2")).links, ("n2", "n3"): LinkRule(delay_ms=1)}))
        assert await network.evidence() == {("n1", "n2"): 0, ("n2", "n3"): 0}
        assert lab.cuts("n1", "n2")
        assert lab.lost("n2", "n3", 5) == 0
        assert await network.evidence() == {("n1", "n2"): 10, ("n2", "n3"): 5}
        assert lab.lost("n2", "n1") == 0
        await network.apply(cut(("n2", "n1")))
        assert lab.lost("n1", "n2") == 0
        assert lab.cuts("n2", "n1")

    run(lab, backend, script)


def test_a_change_of_one_link_never_opens_another(lab, backend):
    async def script(network):
        lab["n2"].heard(lab.address("n1"))
        await network.apply(cut(("n1", "n2")))
        is_over, changes, until_s = threading.Event(), 0, time.monotonic() + 1.2

        def keep_sending():
            while not is_over.is_set():
                lab["n1"].send(lab.address("n2"), 100, 0.0005)

        sending = asyncio.create_task(asyncio.to_thread(keep_sending))
        try:
            while changes < 12 or time.monotonic() < until_s:
                other = LinkRule(delay_ms=changes % 3, blocked=changes % 2 == 1)
                await network.apply(Ruleset({**cut(("n1", "n2")).links, ("n1", "n3"): other}))
                changes += 1
        finally:
            is_over.set()
            await sending
        assert lab.heard("n1", "n2", float("inf"), LISTEN_S) == []

    run(lab, backend, script)


def test_latency_is_what_was_asked_for_and_only_there(lab, backend):
    async def script(network):
        lab["n1"].connect("slow", lab.address("n2"), 5)
        lab["n1"].connect("fast", lab.address("n3"), 5)
        lab[None].connect("client", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=50)}))
        least_ms = lab.least_ms("n1", "slow", 52)
        assert 50 <= least_ms < 52, "the least disturbed round trip"
        slow = undisturbed(lambda: lab.pings_ms("n1", "slow"), lambda slow: statistics.median(slow) < 75)
        print(f"asked for 50 ms, round trips min {least_ms:.2f} median {statistics.median(slow):.2f} ms")
        assert slow[0] >= 50
        assert statistics.median(slow) < 75, "and what a busy machine adds is bounded"
        assert lab.least_ms("n1", "fast", 5) < 5
        assert lab.least_ms(None, "client", 5) < 5
        await network.apply(
            Ruleset({("n1", "n2"): LinkRule(delay_ms=20), ("n2", "n1"): LinkRule(delay_ms=10)})
        )
        assert 30 <= lab.least_ms("n1", "slow", 33) < 33
        await network.apply(HEALTHY)
        assert lab.least_ms("n1", "slow", 5) < 5

    run(lab, backend, script)


def test_jitter_is_extra_and_spread(lab, backend):
    async def script(network):
        lab["n1"].connect("slow", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, jitter_ms=20)}))
        slow = undisturbed(
            lambda: lab.pings_ms("n1", "slow", 80),
            lambda slow: slow[0] < 27 and 25 < statistics.median(slow) < 40,
        )
        print(
            f"20 to 40 ms asked for: {slow[0]:.1f} to {slow[-1]:.1f}, median {statistics.median(slow):.1f} ms"
        )
        assert 20 <= slow[0] < 27
        assert slow[-1] > 30
        assert 25 < statistics.median(slow) < 40

    run(lab, backend, script)


# Median and distance of the quartiles in ms, of 20 ms and a jitter of 20 ms, by the tables of netem.
SHAPES = {"normal": (30.0, 6.7), "pareto": (28.4, 3.2), "paretonormal": (28.8, 4.1)}


@pytest.mark.parametrize("distribution", SHAPES)
def test_jitter_has_the_distribution_that_was_asked_for(lab, backend, distribution):
    """Mean half the jitter, deviation a quarter of it.

    Below, the tolerances are over five deviations of such a sample; above, they are for what a busy machine adds.
    """

    async def script(network):
        rule = LinkRule(delay_ms=20, jitter_ms=20, distribution=distribution)
        await network.apply(Ruleset({("n1", "n2"): rule}))
        middle, spread = SHAPES[distribution]

        def is_as_asked(delays):
            low, median, high = delays[250], delays[500], delays[750]
            print(f"{distribution}: quartiles {low:.1f} {median:.1f} {high:.1f}, 99 % {delays[990]:.1f} ms")
            return middle - 1.5 < median < middle + 4 and 0.7 * spread < high - low < 2 * spread + 2

        delays = undisturbed(lambda: sorted(lab.delays_ms("n1", "n2", 1_000)), is_as_asked)
        assert len(delays) == 1_000
        assert is_as_asked(delays)
        if distribution == "pareto":
            assert delays[-6] > 42, "its tail is heavy: 28 of 1,000 are expected there"
            assert delays[0] > 25, "and it has none on the other side"

    run(lab, backend, script)


def test_correlated_jitter_follows_the_one_before(lab, backend):
    """By the queue, also where there is netem: what netem calls so does nothing."""
    if backend.resets is None:
        pytest.skip(lab.abilities.why_not("iptables", "nfqueue", "daemon"))

    async def script(network):
        found = {}
        for correlation in (0.0, 0.9):
            rule = LinkRule(delay_ms=20, jitter_ms=200, delay_correlation=correlation)
            await network.apply(Ruleset({("n1", "n2"): rule}))
            found[correlation] = undisturbed(
                lambda: correlation_of_ranks(lab.delays_ms("n1", "n2", 300, 0.01)),
                lambda r, asked=correlation: r > 0.6 if asked else r < 0.35,
            )
        print(f"correlation of one delay with the next, asked for 0 and 0.9: {found}")
        assert found[0.9] > 0.6
        assert found[0.0] < 0.35

    run(lab, backend, script)


def correlation_of_ranks(values):
    """Of each value with the next, by ranks: one that a busy machine made very large weighs no more than others."""
    rank = {at: number for number, at in enumerate(sorted(range(len(values)), key=values.__getitem__))}
    return statistics.correlation(
        *zip(*itertools.pairwise(rank[at] for at in range(len(values))), strict=True)
    )


def test_losses_in_bursts_keep_their_share(lab, backend):
    def share_and_bursts():
        lab.sent("n1", "n2", 2_000, 0.0005)
        heard = {int(number) for number in lab.heard_until_quiet("n1", "n2")}
        bursts = [
            len(list(run)) for lost, run in itertools.groupby(range(2_000), lambda n: n not in heard) if lost
        ]
        share, mean = 1 - len(heard) / 2_000, statistics.mean(bursts)
        print(f"lost {share:.0%} in {len(bursts)} bursts of {mean:.1f}; asked for 30 % in bursts of 7")
        return share, mean

    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.3, loss_correlation=0.8)}))
        share, mean = undisturbed(share_and_bursts, lambda found: 0.18 < found[0] < 0.42 and found[1] > 4)
        assert 0.18 < share < 0.42
        assert mean > 4, "independent losses come in bursts of 1.4"

    run(lab, backend, script)


def test_a_reset_ends_open_connections_and_no_others(lab, backend):
    if backend.resets is None:
        pytest.skip(lab.abilities.why_not("iptables", "nfqueue", "daemon"))

    async def script(network):
        lab["n1"].connect("open", lab.address("n2"), 5)
        lab["n1"].connect("other", lab.address("n3"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(reset=1.0)}))
        with pytest.raises(ConnectionError):
            lab["n1"].ping("open", GIVE_UP_S)
        assert lab["n1"].ping("other", PATIENCE_S) > 0
        assert (await network.evidence())["n1", "n2"] >= 1
        await network.apply(HEALTHY)
        with pytest.raises(ConnectionError, match=r"Reset|BrokenPipe"):
            lab["n1"].ping("open", 60)
        assert lab.reaches("n1", "n2")

    run(lab, backend, script)


def test_loss_is_a_probability(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.5)}))
        lab.sent("n1", "n2", 400)
        assert 120 <= len(lab.heard_until_quiet("n1", "n2")) <= 280
        assert lab.lost("n2", "n1", 100) == 0

    run(lab, backend, script)


def test_duplicates_arrive_twice_and_streams_stay_whole(lab, backend):
    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(duplicate=1.0)}))
        assert lab.lost("n1", "n2", 50, wanted=100) == -50
        await network.apply(Ruleset({("n1", "n2"): LinkRule(duplicate=0.3, delay_ms=2)}))
        assert lab["n1"].bulk("bulk", 2 << 20, 60) > 0

    run(lab, backend, script)


def test_reordered_messages_all_arrive(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, reorder=0.3)}))
        lab.sent("n1", "n2", 100)
        numbers = lab.heard("n1", "n2", 100)
        assert sorted(numbers) == [f"{number:06d}" for number in range(100)]
        assert numbers != sorted(numbers)

    run(lab, backend, script)


def test_corrupt_messages_do_not_pass_as_good_ones(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(corrupt=0.5)}))
        lab.sent("n1", "n2", 200)
        numbers = lab.heard_until_quiet("n1", "n2")
        assert 40 <= len(numbers) <= 160
        assert set(numbers) <= {f"{number:06d}" for number in range(200)}

    run(lab, backend, script)


def test_a_rate_limits_a_stream(lab, backend):
    if backend.rate is None:
        pytest.skip(lab.abilities.why_not("htb", "u32"))

    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(rate_kbit=4_000)}))
        took_s = undisturbed(lambda: lab["n1"].bulk("bulk", 1 << 20, 60), lambda took_s: took_s < 6)
        print(f"a megabyte in {took_s:.2f} s")
        assert 1.7 < took_s < 6, "a megabyte at 4 Mbit/s"

    run(lab, backend, script)


def test_bulk_over_a_slow_link_is_not_throttled_to_a_crawl(lab, backend):
    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20)}))
        took_s = undisturbed(lambda: lab["n1"].bulk("bulk", 8 << 20, 60), lambda took_s: took_s < 10)
        print(f"eight megabytes in {took_s:.2f} s")
        assert took_s < 10

    run(lab, backend, script)


def test_a_node_that_lost_its_rules_gets_them_again(lab, backend):
    async def script(network):
        await network.apply(cut(("n1", "n2")))
        await network.leave("n2")
        await network.leave("n1")
        lab.net.run("n1", ["sh"], "tc qdisc del dev eth0 root 2>/dev/null || true")
        assert lab.lost("n1", "n2") == 0
        await network.apply(cut(("n1", "n2"), ("n1", "n3")))
        await network.refresh("n2")
        await network.refresh("n1")
        assert lab.cuts("n1", "n2")

    run(lab, backend, script)


def test_the_queue_takes_20_000_packets_a_second(lab):
    """Measured as processor time for each packet, against what this processor needs for a thousand turns of a loop."""

    def seconds_used(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def turns_us():
        """A thousand turns, in processor time; the median, for a processor's speed changes."""
        found = []
        for _ in range(9):
            before_s, total = time.process_time(), 0
            for number in range(200_000):
                total += number
            found.append((time.process_time() - before_s) / 200 * 1e6)
        return statistics.median(found)

    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, jitter_ms=5)}))
        (daemon,) = daemons_in(lab, "n2")
        lab["n2"].heard(lab.address("n1"))
        before_s = seconds_used(daemon)
        rate = lab["n1"].flood(lab.address("n2"), 40_000, 20_000)
        arrived = len(lab.heard("n1", "n2", 40_000, 5))
        used_us = (seconds_used(daemon) - before_s) / 40_000 * 1e6
        bound_us = max(50, turns_us() / 4)
        print(
            f"sent {rate:.0f}/s, arrived {arrived} of 40000, {used_us:.1f} of {bound_us:.1f} us of processor time each"
        )
        assert await network.evidence() == {("n1", "n2"): 40_000}
        assert used_us < bound_us
        assert arrived > 20_000

    run(lab, backend_of("tc and nfqueue", lab.abilities), script)


def test_if_the_queue_dies_traffic_passes_and_it_is_told(lab):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=1.0)}))
        assert lab.cuts("n1", "n2")
        (daemon,) = daemons_in(lab, "n2")
        os.kill(daemon, signal.SIGKILL)
        until_s = time.monotonic() + PATIENCE_S
        while lab.cuts("n1", "n2") and time.monotonic() < until_s:
            pass
        assert lab.lost("n1", "n2") == 0
        with pytest.raises(NetworkError, match="the packet queue of n2 answered"):
            await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.99)}))
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=1.0)}))
        assert lab.cuts("n1", "n2")

    run(lab, backend_of("tc and nfqueue", lab.abilities), script)


def test_without_root_as_well():
    one = open_lab(rootless=True)
    try:
        backend = choose(one.abilities)
        if backend.blocked is None:
            pytest.skip(backend.reason("blocked"))

        async def script(network):
            await network.apply(cut(("n1", "n2")))
            assert one.cuts("n1", "n2")
            assert one.reaches("n1", "n3")
            if backend.shapes:
                await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=30)}))
                one["n1"].connect("slow", one.address("n2"), 5)
                assert one.pings_ms("n1", "slow")[0] >= 30

        run(one, backend, script)
    finally:
        one.close()


def test_a_refused_rule_names_node_and_answer(lab):
    async def script(network):
        backend = Backend("tc", "tc", "netem", {})
        if lab.abilities.can("netem"):
            pytest.skip("this kernel has netem")
        with pytest.raises(NetworkError, match=r"sh on n1 failed: .*Specified qdisc kind is unknown"):
            await Network(lab.reach, lab.net.addresses, backend).apply(
                Ruleset({("n1", "n2"): LinkRule(delay_ms=1)})
            )

    run(lab, backend_of("tc and nfqueue", lab.abilities), script)


def daemons_in(lab, node):
    namespace = Path(f"/proc/{lab[node].process.pid}/ns/net").stat().st_ino
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            is_daemon = b"nemesis.nfqueue" in (process / "cmdline").read_bytes()
            if is_daemon and (process / "ns/net").stat().st_ino == namespace:
                yield int(process.name)
