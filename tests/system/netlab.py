"""Three nodes in network namespaces, and probes on them that measure what a network does to packets."""

import asyncio
import json
import subprocess
import sys
import time

import pytest

from nemesis.backend import Backend, parse, probe_script
from nemesis.netns import Netns, NetnsError
from nemesis.network import CommandReach, Network
from nemesis.target import LinkRule, Ruleset

NODES = ("n1", "n2", "n3")
GIVE_UP_S = 0.7
# What is to arrive is waited for, so that a machine that stands still for seconds changes no verdict; what is not
# to arrive is given this time to do so all the same.
PATIENCE_S = 20.0
LISTEN_S = 0.3
SAMPLES_MAX = 4

# Runs on each node: echoes over TCP, counts datagrams by sender, and answers commands, a line of JSON each.
PROBE = r"""
import json, socket, sys, threading, time
received = {}
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    datagrams.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
except PermissionError:
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
        now, sent = time.monotonic(), float(data[1:]) if data[:1] == b"t" else None
        received.setdefault(source, []).append(data.decode("latin1") if sent is None else (sent, now))

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

    def heard(self, src, dst, wanted, patience_s=PATIENCE_S):
        """What has come from src at dst, once it is as much as is wanted and no more comes, or patience ends."""
        heard, until_s = [], time.monotonic() + patience_s
        while time.monotonic() < until_s:
            time.sleep(0.05)
            more = self[dst].heard(self.address(src))
            heard += more
            if len(heard) >= wanted and not more:
                break
        return heard

    def heard_until_quiet(self, src, dst):
        """What has come where nobody can say how much it will be."""
        heard = []
        while more := self.heard(src, dst, float("inf"), LISTEN_S):
            heard += more
        return heard

    def sent(self, src, dst, count, gap_s=0.001):
        """Sends some datagrams, and forgets what came before."""
        self[dst].heard(self.address(src))
        self[src].send(self.address(dst), count, gap_s)

    def lost(self, src, dst, count=10, *, wanted=None):
        """How many of some datagrams from src to dst did not arrive; so many are wanted, if not all."""
        self.sent(src, dst, count)
        return count - len(self.heard(src, dst, count if wanted is None else wanted))

    def cuts(self, src, dst, count=10):
        """Whether none of some datagrams from src to dst arrives."""
        self.sent(src, dst, count)
        return self.heard(src, dst, float("inf"), LISTEN_S) == []

    def delays_ms(self, src, dst, count, gap_s=0.002):
        """How long each of some datagrams took one way, in the order of sending; the clock is the same everywhere."""
        self[dst].heard(self.address(src))
        self[src].send_timed(self.address(dst), count, gap_s)
        return [(came - went) * 1000 for went, came in sorted(self.heard(src, dst, count))]

    def reaches(self, src, dst, give_up_s=PATIENCE_S):
        """Whether a new connection can be opened and used."""
        try:
            self[src].connect("probe", self.address(dst), give_up_s)
            self[src].ping("probe", give_up_s)
        except ConnectionError:
            return False
        return True

    def pings_ms(self, src, name, count=20):
        return sorted(self[src].ping(name, PATIENCE_S) for _ in range(count))

    def least_ms(self, src, name, below_ms):
        """The least disturbed round trip of 20, or of up to 200 on a machine so busy that none is below the bound."""
        least_ms = min(self.pings_ms(src, name))
        for _ in range(180):
            if least_ms < below_ms:
                break
            least_ms = min(least_ms, self[src].ping(name, PATIENCE_S))
        return least_ms

    def close(self):
        for probe in self.probes.values():
            probe.stop()
        self.net.close()


def open_lab(*, rootless):
    try:
        return Lab(rootless=rootless)
    except NetnsError as error:
        pytest.skip(str(error))


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


def undisturbed(draw, is_as_asked):
    """A sample that is as asked, or the last of several.

    Others who use the machine spoil a sample now and then, and chance does so very seldom; a wrong rule spoils each.
    """
    for _ in range(SAMPLES_MAX):
        sample = draw()
        if is_as_asked(sample):
            break
    return sample


def cut(*links):
    return Ruleset(dict.fromkeys(links, LinkRule(blocked=True)))
