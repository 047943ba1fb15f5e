"""How many writes a second the reference Raft acknowledges, beside PySyncObj and etcd, in one run.

    python benchmarks/raft_throughput.py                      all systems at 1, 16 and 64 clients, and the ratios
    python benchmarks/raft_throughput.py --systems ours etcd  some of them
    python benchmarks/raft_throughput.py core                 the protocol core alone: commits a second of CPU
    python benchmarks/raft_throughput.py sim                  simulated minutes under faults: seconds they take

Three servers each, on the loopback, with data on the disk of the working directory. A client is a closed loop: it
writes 64 bytes to a key of its own, waits for the answer, and writes again. All clients of a system live in one
process, each with its usual Python client:

    ours            HTTP/1.1, a connection for each client; every write is on the disks of a majority first
    ours, unsynced  the same with `--unsafe-no-sync`: written to files and not synced, as PySyncObj does
    etcd            Debian's etcd-server (apt-get install etcd-server) through `aetcd`, gRPC on asyncio; synced
    PySyncObj       its clients are function calls inside the leader's process; journal on. It has no setting that
                    syncs the journal before it acknowledges, so a power cut loses what was acknowledged.
                    `appendEntriesUseBatch=False`, as in its own benchmark
    PySyncObj, batching   the same with batches every 10 ms (its default of 100 ms would hold every client up)

The clients' loop is uvloop's. What is not installed is left out, and said so. Needs `pip install -e .[bench]`. Numbers
of a busy machine are low; the ratios hold, for the systems take turns at each number of clients. "CPU" is what a write
costs the three servers together (for PySyncObj: and its clients).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from raft_cluster import Cluster, HttpClient, cpu_s, running

from raft.__main__ import loop_factory
from raft.core import Core, Options
from raft.node import Node
from raft.testing import storm
from raft.testing.processes import free_ports

VALUE = "x" * 64
CLIENTS = (1, 16, 64)
OURS, UNSYNCED, ETCD, PYSYNCOBJ, BATCHING = (
    "ours",
    "ours, unsynced",
    "etcd",
    "PySyncObj",
    "PySyncObj, batching",
)
# The same for all: long enough that a busy machine does not elect a new leader in the middle.
ELECTION_MS = (1000, 2000)


class Row(NamedTuple):
    """One system at one number of clients."""

    clients: int
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def row(clients: int, latencies_s: list[float], took_s: float, used_s: float) -> Row:
    ordered = sorted(latencies_s)
    count = len(ordered)
    p50, p99 = ordered[count // 2], ordered[count * 99 // 100]
    return Row(clients, count / took_s, p50 * 1e3, p99 * 1e3, used_s / count * 1e6)


async def closed_loops(
    writes: list[Callable[[], Awaitable[Any]]], seconds: float
) -> tuple[list[float], float]:
    """Latencies of all writes, and how long it took."""
    latencies: list[float] = []
    began = time.perf_counter()
    end = began + seconds

    async def one(write: Callable[[], Awaitable[Any]]) -> None:
        while (asked := time.perf_counter()) < end:
            await write()
            latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*map(one, writes))
    return latencies, time.perf_counter() - began


# -- the systems -----------------------------------------------------------------------------------


class Ours:
    """The reference system."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def measure(self, clients: int, seconds: float) -> Row:
        port = self.cluster.ports[await self.cluster.leader()]
        connections = [await HttpClient.connect(port) for _ in range(clients)]
        used_s = self.cluster.cpu_s()

        def writer(number: int) -> Callable[[], Awaitable[Any]]:
            async def write() -> None:
                status, body = await connections[number].call(
                    "PUT", f"/v1/keys/k{number}", f'"{VALUE}"'.encode()
                )
                assert status == 200, body

            return write

        latencies, took = await closed_loops([writer(number) for number in range(clients)], seconds)
        used_s = self.cluster.cpu_s() - used_s
        for connection in connections:
            connection.transport.close()
        return row(clients, latencies, took, used_s)


class Etcd:
    """Debian's etcd-server, three members."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], ports: list[int]) -> None:
        self.processes = processes
        self.ports = ports

    async def _leader_port(self) -> int:
        import aetcd

        end = time.monotonic() + 30
        while time.monotonic() < end:
            for port in self.ports:
                with contextlib.suppress(Exception):
                    async with aetcd.Client("127.0.0.1", port, timeout=2) as client:
                        leader = (await client.status()).leader
                        if leader is not None and str(port) in str(leader.client_urls):
                            return port
            await asyncio.sleep(0.1)
        raise TimeoutError("etcd elected no leader")

    async def measure(self, clients: int, seconds: float) -> Row:
        import aetcd

        port = await self._leader_port()
        async with contextlib.AsyncExitStack() as stack:
            connected = [
                await stack.enter_async_context(aetcd.Client("127.0.0.1", port)) for _ in range(clients)
            ]
            used_s = sum(cpu_s(process.pid) for process in self.processes)

            def writer(number: int) -> Callable[[], Awaitable[Any]]:
                key, value = b"k%d" % number, VALUE.encode()
                return lambda: connected[number].put(key, value)

            latencies, took = await closed_loops([writer(number) for number in range(clients)], seconds)
            used_s = sum(cpu_s(process.pid) for process in self.processes) - used_s
        return row(clients, latencies, took, used_s)


class PySyncObj:
    """Three processes of PySyncObj; the leader's is told how many clients to be."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self.processes = processes

    async def measure(self, clients: int, seconds: float) -> Row:
        return await asyncio.to_thread(self._measure, clients, seconds)

    def _measure(self, clients: int, seconds: float) -> Row:
        used_s = sum(cpu_s(process.pid) for process in self.processes)
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([clients, seconds]).encode() + b"\n")
            process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for process in self.processes]  # type: ignore[union-attr]
        used_s = sum(cpu_s(process.pid) for process in self.processes) - used_s
        latencies, took = max(answers, key=lambda answer: len(answer[0]))
        return row(clients, latencies, took, used_s)


def pysyncobj_node(at: int, ports: list[int], directory: str, batching: bool) -> None:
    """One process of PySyncObj: reads [clients, seconds], and, if it leads, answers [latencies, seconds]."""
    import threading

    from pysyncobj import SyncObj, SyncObjConf, replicated

    addresses = [f"127.0.0.1:{port}" for port in ports]

    class Store(SyncObj):  # type: ignore[misc]
        def __init__(self) -> None:
            conf = SyncObjConf(
                journalFile=f"{directory}/journal{at}",
                appendEntriesUseBatch=batching,
                appendEntriesPeriod=0.01 if batching else 0.1,
                autoTickPeriod=0.002 if batching else 0.05,
                raftMinTimeout=ELECTION_MS[0] / 1000,
                raftMaxTimeout=ELECTION_MS[1] / 1000,
                connectionRetryTime=0.2,
            )
            super().__init__(addresses[at], addresses[:at] + addresses[at + 1 :], conf)
            self.values: dict[str, str] = {}

        @replicated
        def put(self, key: str, value: str) -> None:
            self.values[key] = value

    store = Store()
    for line in sys.stdin:
        clients, seconds = json.loads(line)
        deadline = time.monotonic() + 30
        while (not store.isReady() or store._getLeader() is None) and time.monotonic() < deadline:
            time.sleep(0.05)
        latencies: list[float] = []
        began = time.perf_counter()
        if str(store._getLeader()) == addresses[at]:
            _pysyncobj_clients(store, clients, began + seconds, latencies, threading.Semaphore(0))
        print(json.dumps([latencies, time.perf_counter() - began]), flush=True)


def _pysyncobj_clients(store: Any, clients: int, end: float, latencies: list[float], done: Any) -> None:
    def one(number: int) -> None:
        asked = time.perf_counter()

        def answered(_: Any, error: Any) -> None:
            now = time.perf_counter()
            if not error:
                latencies.append(now - asked)
            if now < end:
                one(number)
            else:
                done.release()

        store.put(f"k{number}", VALUE, callback=answered)

    for number in range(clients):
        one(number)
    for _ in range(clients):
        done.acquire(timeout=30)


@contextlib.contextmanager
def started(commands: list[list[str]], **streams: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL, **streams) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def ours(*flags: str) -> Iterator[Ours]:
    timing = (f"--election-timeout-ms-min={ELECTION_MS[0]}", f"--election-timeout-ms-max={ELECTION_MS[1]}")
    with running(*timing, *flags) as cluster:
        yield Ours(cluster)


@contextlib.contextmanager
def etcd() -> Iterator[Etcd]:
    ports = free_ports(6)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    everybody = ",".join(f"n{at}={urls[at]}" for at in range(3))
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as directory:
        commands = [
            [
                "etcd",
                f"--name=n{at}",
                f"--data-dir={directory}/{at}",
                f"--initial-cluster={everybody}",
                f"--listen-peer-urls={urls[at]}",
                f"--initial-advertise-peer-urls={urls[at]}",
                f"--listen-client-urls={urls[3 + at]}",
                f"--advertise-client-urls={urls[3 + at]}",
                f"--election-timeout={ELECTION_MS[0]}",
                "--log-level=error",
            ]
            for at in range(3)
        ]
        with started(commands, stdout=subprocess.DEVNULL) as processes:
            yield Etcd(processes, ports[3:])


@contextlib.contextmanager
def pysyncobj(batching: bool) -> Iterator[PySyncObj]:
    ports = free_ports(3)
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as directory:
        me = [sys.executable, __file__, "pysyncobj-node"]
        commands = [[*me, json.dumps([at, ports, directory, batching])] for at in range(3)]
        with started(commands, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as processes:
            yield PySyncObj(processes)


SYSTEMS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    OURS: ours,
    UNSYNCED: lambda: ours("--unsafe-no-sync"),
    ETCD: etcd,
    PYSYNCOBJ: lambda: pysyncobj(batching=False),
    BATCHING: lambda: pysyncobj(batching=True),
}


def missing() -> dict[str, str]:
    """Systems that cannot run here, and why."""
    why = {}
    if shutil.which("etcd") is None:
        why[ETCD] = "there is no etcd: apt-get install etcd-server"
    elif importlib.util.find_spec("aetcd") is None:
        why[ETCD] = "there is no aetcd: pip install -e .[bench]"
    if importlib.util.find_spec("pysyncobj") is None:
        why[PYSYNCOBJ] = why[BATCHING] = "there is no pysyncobj: pip install -e .[bench]"
    return why


# -- the comparison --------------------------------------------------------------------------------


async def compare(names: list[str], seconds: float, rounds: int) -> dict[str, list[Row]]:
    """The best of some rounds for each system and number of clients; the systems take turns."""
    found: dict[str, list[Row]] = {name: [] for name in names}
    for clients in CLIENTS:
        best: dict[str, Row] = {}
        for _ in range(rounds):
            for name in names:  # one system at a time: the machine is theirs
                with SYSTEMS[name]() as system:
                    await system.measure(clients, 1.0)  # warm
                    got = await system.measure(clients, seconds)
                if name not in best or got.per_s > best[name].per_s:
                    best[name] = got
        for name in names:
            one = best[name]
            found[name].append(one)
            print(
                f"{name:19} {clients:3} clients {one.per_s:8,.0f} writes/s   p50 {one.p50_ms:6.1f} ms   "
                f"p99 {one.p99_ms:6.1f} ms   CPU {one.cpu_us:5.0f} us a write",
                flush=True,
            )
    return found


def print_ratios(found: dict[str, list[Row]]) -> None:
    questions = (
        (OURS, (ETCD,), "both sync"),
        (UNSYNCED, (PYSYNCOBJ, BATCHING), "neither syncs"),
        (OURS, (PYSYNCOBJ, BATCHING), "only ours syncs"),
    )
    for one, others, durability in questions:
        rivals = [found[other] for other in others if other in found]
        if one in found and rivals:
            shown = "   ".join(
                f"{mine.clients} clients {mine.per_s / max(rival.per_s for rival in theirs):.2f}"
                for mine, *theirs in zip(found[one], *rivals, strict=True)
            )
            print(f"ratio {one} / the best of {' and '.join(others)} ({durability}):   {shown}")


def sync_us() -> float:
    """The median time of writing 4 KiB and syncing them, here and now."""
    times = []
    with tempfile.TemporaryFile(dir=".") as file:
        for _ in range(200):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[100] * 1e6


def core(batch: int, seconds: float = 3.0) -> None:
    """Three cores in one process, with instant disks and links."""
    names = ("a", "b", "c")
    options = Options(uncommitted_entries_max=1 << 30, snapshot_entries=1 << 30, entries_per_append_max=1024)
    cores = {n: Core(n, names, None, random=lambda: 0.5, now_us=0, options=options) for n in names}
    leader = cores["a"]

    def settle() -> None:
        quiet = False
        while not quiet:
            quiet = True
            for node in cores.values():
                while (ready := node.ready()) is not None:
                    quiet = False
                    for message in [*ready.messages, *ready.held]:
                        cores[message.dst].step(message, leader.now_us)

    leader.tick(leader.deadline_us)
    settle()
    now_us, done, began = leader.now_us, 0, time.process_time()
    while time.process_time() - began < seconds:
        for _ in range(batch):
            leader.propose(b"x" * 64, now_us)
        settle()
        done += batch
    took = time.process_time() - began
    assert leader.commit_index > done
    print(f"core    batch {batch:4}   {done / took:10,.0f} commits in a second of CPU")


def sim(seeds: int = 3) -> None:
    """The storm of the tests: 5 nodes, 10 clients, random faults, invariants after every event."""
    for seed in range(seeds):
        began = time.process_time()
        result = storm(Node, seed, seconds=60)
        took = time.process_time() - began
        print(
            f"sim     seed {seed}   60 s in {took:.2f} s of CPU ({60 / took:.0f}x), "
            f"{result.world.events} events, {result.ops} operations"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a second of a three-node cluster.")
    parser.add_argument("what", nargs="?", default="compare", choices=["compare", "core", "sim"])
    parser.add_argument("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.what == "core":
        core(1)
        core(64)
    elif args.what == "sim":
        sim()
    else:
        why = missing()
        for name in args.systems:
            if name in why:
                print(f"{name:19} left out: {why[name]}")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, a sync takes {sync_us():,.0f} us")
        names = [name for name in args.systems if name not in why]
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            found = runner.run(compare(names, args.seconds, args.rounds))
        print_ratios(found)
        if args.json:
            rows = {name: [one._asdict() for one in found[name]] for name in found}
            args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["pysyncobj-node"]:
        pysyncobj_node(*json.loads(sys.argv[2]))
    else:
        main()
