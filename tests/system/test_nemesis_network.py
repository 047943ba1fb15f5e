"""The network of real nodes, broken and healed: each means the machine has, in namespaces of our own.

What the kernel lacks is skipped with its reason. tests/system/test_nemesis_uml.py runs this file again inside
a guest whose kernel has netem.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nemesis.backend import Backend, choose, parse, probe_script
from nemesis.netns import Netns, NetnsError
from nemesis.network import CommandReach, Network, NetworkError
from nemesis.target import HEALTHY, LinkRule, Ruleset

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

NODES = ("n1", "n2", "n3")
GIVE_UP_S = 0.7
SETTLE_ROUNDS = 6

# Runs on each node: echoes over TCP, counts datagrams by sender, and answers commands, a line of JSON each.
PROBE = r"""
import json, socket, sys, threading, time
received = {}
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
datagrams.bind(("0.0.0.0", 7001))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 7000))
listener.listen(64)
connections = {}

def count():
    while True:
        data, (source, _) = datagrams.recvfrom(2048)
        late = time.monotonic() - float(data[1:]) if data[:1] == b"t" else None
        received.setdefault(source, []).append(data.decode("latin1") if late is None else late * 1000)

def echo(one):
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        while data := one.recv(1 << 20):
            one.sendall(data)
    except OSError:
        pass

def accept():
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

def connect(name, host, timeout):
    start = time.perf_counter()
    connections[name] = one = socket.create_connection((host, 7000), timeout=timeout)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (time.perf_counter() - start) * 1000

def ping(name, timeout):
    one = connections[name]
    one.settimeout(timeout)
    start = time.perf_counter()
    one.sendall(b"x")
    assert one.recv(1) == b"x"
    return (time.perf_counter() - start) * 1000

def bulk(name, size, timeout):
    one, data, got = connections[name], bytes(range(256)) * (size // 256), bytearray()
    one.settimeout(timeout)
    start = time.perf_counter()
    threading.Thread(target=one.sendall, args=(data,), daemon=True).start()
    while len(got) < len(data):
        got += one.recv(1 << 20)
    assert got == data
    return time.perf_counter() - start

def send(host, count, gap):
    for number in range(count):
        datagrams.sendto(b"%06d" % number, (host, 7001))
        time.sleep(gap)

def send_timed(host, count, gap):
    for _ in range(count):
        datagrams.sendto(b"t%.9f" % time.monotonic(), (host, 7001))
        time.sleep(gap)

def flood(host, count, rate):
    start = time.perf_counter()
    for number in range(count):
        datagrams.sendto(b"%06d" % number, (host, 7001))
        if number % 20 == 0:
            while time.perf_counter() < start + number / rate:
                pass
    return count / (time.perf_counter() - start)

def heard(source):
    return received.pop(source, [])

threading.Thread(target=count, daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
print("ready", flush=True)
commands = dict(connect=connect, ping=ping, bulk=bulk, send=send, send_timed=send_timed, flood=flood, heard=heard)
for line in sys.stdin:
    name, *arguments = json.loads(line)
    try:
        answer = {"ok": commands[name](*arguments)}
    except OSError as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer), flush=True)
"""


class Probe:
    """The program above, on one node; its commands are methods."""

    def __init__(self, net, node):
        self.process = subprocess.Popen(
            net.command(node, [sys.executable, "-c", PROBE]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def __getattr__(self, command):
        def ask(*arguments):
            self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
            if "error" in answer:
                raise ConnectionError(answer["error"])
            return answer["ok"]

        return ask

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


class Lab:
    """Three nodes and the clients' side, with a probe on each."""

    def __init__(self, *, rootless):
        self.net = Netns(NODES, rootless=rootless)
        self.reach = CommandReach(self.net.command)
        self.probes = {node: Probe(self.net, node) for node in (*NODES, None)}
        self.abilities = parse(self.net.run("n1", ["sh"], probe_script(sys.executable)))

    def __getitem__(self, node):
        return self.probes[node]

    def address(self, node):
        return self.net.addresses[node] if node else self.net.client_address

    def lost(self, src, dst, count=10):
        """How many of some datagrams from src to dst did not arrive."""
        self[dst].heard(self.address(src))
        self[src].send(self.address(dst), count, 0.001)
        heard = []
        for _ in range(SETTLE_ROUNDS):  # more than enough for what arrives at all, even on a busy machine
            time.sleep(0.05)
            more = self[dst].heard(self.address(src))
            heard += more
            if len(heard) >= count and not more:
                break
        return count - len(heard)

    def delays_ms(self, src, dst, count, gap_s=0.002):
        """How long each of some datagrams took one way, in the order of arrival; the clock is the same everywhere."""
        self[dst].heard(self.address(src))
        self[src].send_timed(self.address(dst), count, gap_s)
        time.sleep(0.3)
        return self[dst].heard(self.address(src))

    def reaches(self, src, dst):
        """Whether a new connection can be opened and used."""
        try:
            self[src].connect("probe", self.address(dst), GIVE_UP_S)
            self[src].ping("probe", GIVE_UP_S)
        except ConnectionError:
            return False
        return True

    def pings_ms(self, src, name, count=20):
        return sorted(self[src].ping(name, 5) for _ in range(count))

    def close(self):
        for probe in self.probes.values():
            probe.stop()
        self.net.close()


def open_lab(*, rootless):
    try:
        return Lab(rootless=rootless)
    except NetnsError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lab():
    one = open_lab(rootless=os.geteuid() != 0)
    yield one
    one.close()


@pytest.fixture(params=["tc and netem", "tc and nfqueue", "iptables and nfqueue"])
def backend(request, lab):
    return backend_of(request.param, lab.abilities)


def backend_of(name, abilities):
    blocked, shapes = name.split(" and ")
    needed = {"tc": ("htb", "u32", "blackhole"), "iptables": ("iptables", "nfqueue", "daemon")}[blocked]
    needed += {"netem": ("netem",), "nfqueue": ("iptables", "nfqueue", "daemon")}[shapes]
    if not abilities.can(*needed):
        pytest.skip(abilities.why_not(*needed))
    resets = "nfqueue" if abilities.can("iptables", "nfqueue", "daemon") else None
    return Backend(blocked, "tc" if abilities.can("htb", "u32") else None, shapes, {}, resets)


def run(lab, backend, script):
    """Runs a coroutine function with the network of the lab; heals afterwards, and nothing is left."""

    async def main():
        network = Network(lab.reach, lab.net.addresses, backend)
        try:
            await network.open()
            await script(network)
        finally:
            await network.heal()
            await network.heal()

    asyncio.run(main())
    for node in NODES:
        assert "htb" not in lab.net.run(node, ["tc", "qdisc", "show"])
        if lab.abilities.can("iptables"):
            assert "SPLITBRAIN" not in lab.net.run(node, ["iptables", "-t", "mangle", "-S"])


def cut(*links):
    return Ruleset(dict.fromkeys(links, LinkRule(blocked=True)))


def test_a_partition_stops_new_and_open_connections_and_nothing_else(lab, backend):
    async def script(network):
        lab["n1"].connect("open", lab.address("n2"), 5)
        lab["n2"].connect("back", lab.address("n1"), 5)
        await network.apply(cut(("n1", "n2"), ("n2", "n1")))
        for src, dst, name in (("n1", "n2", "open"), ("n2", "n1", "back")):
            assert not lab.reaches(src, dst)
            assert lab.lost(src, dst) == 10
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
        assert lab["n1"].ping("open", 10) >= 0
        assert lab["n2"].ping("back", 10) >= 0

    run(lab, backend, script)


def test_one_direction_only_and_what_met_it_is_counted(lab, backend):
    async def script(network):
        await network.apply(Ruleset({**cut(("n1", "n2")).links, ("n2", "n3"): LinkRule(delay_ms=1)}))
        assert await network.evidence() == {("n1", "n2"): 0, ("n2", "n3"): 0}
        assert lab.lost("n1", "n2") == 10
        assert lab.lost("n2", "n3", 5) == 0
        assert await network.evidence() == {("n1", "n2"): 10, ("n2", "n3"): 5}
        assert lab.lost("n2", "n1") == 0
        await network.apply(cut(("n2", "n1")))
        assert lab.lost("n1", "n2") == 0
        assert lab.lost("n2", "n1") == 10

    run(lab, backend, script)


def test_a_change_of_one_link_never_opens_another(lab, backend):
    async def script(network):
        lab["n2"].heard(lab.address("n1"))
        await network.apply(cut(("n1", "n2")))
        sending = asyncio.create_task(asyncio.to_thread(lab["n1"].send, lab.address("n2"), 2_000, 0.0005))
        changes = 0
        while not sending.done():
            other = LinkRule(delay_ms=changes % 3, blocked=changes % 2 == 1)
            await network.apply(Ruleset({**cut(("n1", "n2")).links, ("n1", "n3"): other}))
            changes += 1
        await sending
        assert lab["n2"].heard(lab.address("n1")) == []
        assert changes >= 3

    run(lab, backend, script)


def test_latency_is_what_was_asked_for_and_only_there(lab, backend):
    async def script(network):
        lab["n1"].connect("slow", lab.address("n2"), 5)
        lab["n1"].connect("fast", lab.address("n3"), 5)
        lab[None].connect("client", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=50)}))
        slow = lab.pings_ms("n1", "slow")
        print(f"asked for 50 ms, round trips min {slow[0]:.2f} median {statistics.median(slow):.2f} ms")
        assert 50 <= slow[0] < 52, "the least disturbed round trip"
        assert statistics.median(slow) < 75, "and what a busy machine adds is bounded"
        assert lab.pings_ms("n1", "fast")[0] < 5
        assert lab.pings_ms(None, "client")[0] < 5
        await network.apply(
            Ruleset({("n1", "n2"): LinkRule(delay_ms=20), ("n2", "n1"): LinkRule(delay_ms=10)})
        )
        assert 30 <= lab.pings_ms("n1", "slow")[0] < 33
        await network.apply(HEALTHY)
        assert lab.pings_ms("n1", "slow")[0] < 5

    run(lab, backend, script)


def test_jitter_is_extra_and_spread(lab, backend):
    async def script(network):
        lab["n1"].connect("slow", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, jitter_ms=20)}))
        slow = lab.pings_ms("n1", "slow", 80)
        assert slow[0] >= 20
        assert slow[0] < 27
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
        delays = sorted(lab.delays_ms("n1", "n2", 1_000))
        assert len(delays) == 1_000
        low, median, high = delays[250], delays[500], delays[750]
        print(f"{distribution}: quartiles {low:.1f} {median:.1f} {high:.1f}, 99 % {delays[990]:.1f} ms")
        middle, spread = SHAPES[distribution]
        assert middle - 1.5 < median < middle + 4
        assert 0.7 * spread < high - low < 2 * spread + 2
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
            rule = LinkRule(delay_ms=20, jitter_ms=80, delay_correlation=correlation)
            await network.apply(Ruleset({("n1", "n2"): rule}))
            # So far apart that none overtakes another: the order of arrival is that of sending.
            found[correlation] = statistics.correlation(*zip(*itertools.pairwise(
                lab.delays_ms("n1", "n2", 50, 0.1)
            ), strict=True))  # fmt: skip
        print(f"correlation of one delay with the next, asked for 0 and 0.9: {found}")
        assert found[0.9] > max(0.25, found[0.0] + 0.2)

    run(lab, backend, script)


def test_losses_in_bursts_keep_their_share(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.3, loss_correlation=0.8)}))
        lab["n2"].heard(lab.address("n1"))
        lab["n1"].send(lab.address("n2"), 2_000, 0.0005)
        await asyncio.sleep(0.3)
        heard = {int(number) for number in lab["n2"].heard(lab.address("n1"))}
        bursts = [
            len(list(run)) for lost, run in itertools.groupby(range(2_000), lambda n: n not in heard) if lost
        ]
        share = 1 - len(heard) / 2_000
        print(
            f"lost {share:.0%} in {len(bursts)} bursts of {statistics.mean(bursts):.1f}; asked for 30 % in bursts of 7"
        )
        assert 0.18 < share < 0.42
        assert statistics.mean(bursts) > 4, "independent losses come in bursts of 1.4"

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
        assert lab["n1"].ping("other", GIVE_UP_S) < 500
        assert (await network.evidence())["n1", "n2"] >= 1
        await network.apply(HEALTHY)
        with pytest.raises(ConnectionError, match=r"Reset|BrokenPipe"):
            lab["n1"].ping("open", 10)
        assert lab.reaches("n1", "n2")

    run(lab, backend, script)


def test_loss_is_a_probability(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.5)}))
        assert 120 <= lab.lost("n1", "n2", 400) <= 280
        assert lab.lost("n2", "n1", 100) == 0

    run(lab, backend, script)


def test_duplicates_arrive_twice_and_streams_stay_whole(lab, backend):
    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(duplicate=1.0)}))
        assert lab.lost("n1", "n2", 50) == -50
        await network.apply(Ruleset({("n1", "n2"): LinkRule(duplicate=0.3, delay_ms=2)}))
        assert lab["n1"].bulk("bulk", 2 << 20, 30) > 0

    run(lab, backend, script)


def test_reordered_messages_all_arrive(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, reorder=0.3)}))
        lab["n2"].heard(lab.address("n1"))
        lab["n1"].send(lab.address("n2"), 100, 0.001)
        await asyncio.sleep(0.3)
        numbers = lab["n2"].heard(lab.address("n1"))
        assert sorted(numbers) == [f"{number:06d}" for number in range(100)]
        assert numbers != sorted(numbers)

    run(lab, backend, script)


def test_corrupt_messages_do_not_pass_as_good_ones(lab, backend):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(corrupt=0.5)}))
        lab["n2"].heard(lab.address("n1"))
        lab["n1"].send(lab.address("n2"), 200, 0.001)
        await asyncio.sleep(0.2)
        numbers = lab["n2"].heard(lab.address("n1"))
        assert 40 <= len(numbers) <= 160
        assert set(numbers) <= {f"{number:06d}" for number in range(200)}

    run(lab, backend, script)


def test_a_rate_limits_a_stream(lab, backend):
    if backend.rate is None:
        pytest.skip(lab.abilities.why_not("htb", "u32"))

    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(rate_kbit=4_000)}))
        took_s = lab["n1"].bulk("bulk", 1 << 20, 30)
        assert 1.7 < took_s < 6, "a megabyte at 4 Mbit/s"

    run(lab, backend, script)


def test_bulk_over_a_slow_link_is_not_throttled_to_a_crawl(lab, backend):
    async def script(network):
        lab["n1"].connect("bulk", lab.address("n2"), 5)
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20)}))
        assert lab["n1"].bulk("bulk", 8 << 20, 30) < 10

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
        assert lab.lost("n1", "n2") == 10

    run(lab, backend, script)


def test_the_queue_takes_20_000_packets_a_second(lab):
    """Measured as processor time for each packet, which a busy machine does not change much."""

    def seconds_used(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, jitter_ms=5)}))
        (daemon,) = daemons_in(lab, "n2")
        lab["n2"].heard(lab.address("n1"))
        before_s = seconds_used(daemon)
        rate = lab["n1"].flood(lab.address("n2"), 40_000, 20_000)
        await asyncio.sleep(0.5)
        used_us = (seconds_used(daemon) - before_s) / 40_000 * 1e6
        arrived = len(lab["n2"].heard(lab.address("n1")))
        print(f"sent {rate:.0f}/s, arrived {arrived} of 40000, {used_us:.1f} us of processor time each")
        assert await network.evidence() == {("n1", "n2"): 40_000}
        assert used_us < 50
        assert arrived > 20_000

    run(lab, backend_of("tc and nfqueue", lab.abilities), script)


def test_if_the_queue_dies_traffic_passes_and_it_is_told(lab):
    async def script(network):
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=1.0)}))
        assert lab.lost("n1", "n2") == 10
        (daemon,) = daemons_in(lab, "n2")
        os.kill(daemon, signal.SIGKILL)
        await asyncio.sleep(0.1)
        assert lab.lost("n1", "n2") == 0
        with pytest.raises(NetworkError, match="the packet queue of n2 answered"):
            await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=0.99)}))
        await network.apply(Ruleset({("n1", "n2"): LinkRule(loss=1.0)}))
        assert lab.lost("n1", "n2") == 10

    run(lab, backend_of("tc and nfqueue", lab.abilities), script)


def test_without_root_as_well():
    one = open_lab(rootless=True)
    try:
        backend = choose(one.abilities)
        if backend.blocked is None:
            pytest.skip(backend.reason("blocked"))

        async def script(network):
            await network.apply(cut(("n1", "n2")))
            assert one.lost("n1", "n2") == 10
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
