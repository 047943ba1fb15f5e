"""A drawn plan against real processes in namespaces of our own: all of it bites, all of it heals."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from nemesis import clock, disk, schedule, shim
from nemesis.backend import check_faults, choose, parse, probe_script
from nemesis.nemesis import Nemesis
from nemesis.netns import Netns, NetnsError
from nemesis.network import CommandReach, Network
from nemesis.target import HEALTHY_DISK

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

NODES = ("n1", "n2", "n3")
SECONDS = 12

# Sends a datagram to each peer every few milliseconds, and answers each line with clock and a synced write.
NODE = """
import os, select, socket, sys, time
own, data, *peers = sys.argv[1:]
beats = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
beats.bind((own, 7001))
log = os.open(data + "/log", os.O_CREAT | os.O_WRONLY)
print("up", flush=True)
while True:
    for peer in peers:
        beats.sendto(b"beat", (peer, 7001))
    if select.select([sys.stdin], [], [], 0.005)[0]:
        if not sys.stdin.readline():
            break
        os.write(log, b"x")
        os.fsync(log)
        print(time.time(), flush=True)
"""


KINDS = (
    "partition", "latency", "loss", "duplicate", "reorder", "corrupt", "rate", "kill", "pause", "clock", "disk",
)  # fmt: skip
OTHERS = ("kill", "pause", "clock", "disk")  # what the cluster below can do beside its network


class Cluster:
    """A target as a cluster of the harness will be: processes, a network, and what to do to them."""

    def __init__(self, net, directory):
        self.nodes = NODES
        self.net = net
        self.directory = directory
        self.libraries = [shim.build(name, directory) for name in ("clock", "disk")]
        self.processes = {}
        self.bitten = {}
        self.times_started = dict.fromkeys(NODES, 0)
        for node in NODES:
            (directory / node).mkdir()
            clock.write_offset(directory / f"{node}.clock", 0)
            disk.write_rule(directory / f"{node}.disk", HEALTHY_DISK)

    async def open(self):
        reach = CommandReach(self.net.command)
        backend = choose(parse(await reach.run("n1", ["sh"], probe_script(sys.executable))))
        self.network = Network(reach, self.net.addresses, backend)
        await self.network.open()
        for node in NODES:
            await self.start(node)
        return backend

    async def leader(self):
        return "n2"

    async def set_network(self, rules):
        for link, count in (await self.network.evidence()).items():
            self.bitten[link] = self.bitten.get(link, 0) + count
        await self.network.apply(rules)

    async def kill(self, node):
        self.processes[node].kill()
        await asyncio.to_thread(self.processes[node].wait)

    async def start(self, node):
        if node in self.processes:
            if self.processes[node].poll() is None:
                return
            forget(self.processes[node])
        self.times_started[node] += 1
        peers = [address for peer, address in self.net.addresses.items() if peer != node]
        arguments = [self.net.addresses[node], str(self.directory / node), *peers]
        self.processes[node] = subprocess.Popen(  # noqa: ASYNC220 - a few milliseconds
            self.net.command(node, [sys.executable, "-c", NODE, *arguments]),
            env=os.environ
            | shim.preload(self.libraries)
            | clock.environment(self.directory / f"{node}.clock")
            | disk.environment(self.directory / f"{node}.disk", self.directory / node),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def pause(self, node):
        self.processes[node].send_signal(signal.SIGSTOP)

    async def resume(self, node):
        self.processes[node].send_signal(signal.SIGCONT)

    async def set_clock(self, node, rule):
        clock.write_offset(self.directory / f"{node}.clock", rule.offset_ms)

    async def set_disk(self, node, rule):
        disk.write_rule(self.directory / f"{node}.disk", rule)

    def ask(self, node):
        """The wall clock of a node that runs and whose disk takes a synced write."""
        process = self.processes[node]
        process.stdin.write("\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) == "up\n":
            pass
        return float(line)

    async def close(self):
        await self.network.heal()
        for process in self.processes.values():
            forget(process)


def forget(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


async def play(nemesis, plan):
    """Injects and heals each event in its time; what a runner does."""
    start_s = time.monotonic()
    steps = [(event.start_ms, nemesis.inject, event) for event in plan]
    steps += [(event.stop_ms, nemesis.heal, event) for event in plan]
    records = []
    for at_ms, verb, event in sorted(steps, key=lambda step: step[0]):
        await asyncio.sleep(max(0.0, start_s + at_ms / 1000 - time.monotonic()))
        records.append(await verb(event))
    return records


def test_a_plan_bites_and_heals(tmp_path):
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler; on Debian: apt-get install gcc libc6-dev")
    try:
        net = Netns(NODES)
    except NetnsError as error:
        pytest.skip(str(error))

    async def main():
        cluster = Cluster(net, tmp_path)
        backend = await cluster.open()
        if None in (backend.blocked, backend.shapes, backend.rate):
            await cluster.close()
            pytest.skip(str(dict(backend.reasons)))
        plan = schedule.draw(KINDS, NODES, SECONDS * 1000, lambda name: Random(f"5/{name}"))
        check_faults([event.fault for event in plan], NODES, backend, OTHERS)
        nemesis = Nemesis(cluster)
        try:
            records = await play(nemesis, plan)
            assert nemesis.errors == []
            assert len(records) == 2 * len(plan) > 40
            assert await nemesis.heal_all() == ()
            assert await cluster.network.evidence() == {}
            for node in NODES:
                before_s = time.time()
                assert before_s - 0.01 <= cluster.ask(node) <= time.time(), "runs, on time, and can write"
            print(f"{sum(cluster.bitten.values())} met, {cluster.times_started}")
            assert sum(cluster.bitten.values()) > 500, "heartbeats that met a sick link"
            assert set(cluster.bitten) == {(a, b) for a in NODES for b in NODES if a != b}
            assert sum(cluster.times_started.values()) > 6
        finally:
            await nemesis.heal_all()
            await cluster.close()

    try:
        asyncio.run(main())
    finally:
        net.close()
