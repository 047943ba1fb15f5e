"""How much the reference Raft does on this machine.

    python benchmarks/raft_throughput.py core     the protocol core alone: commits a second, three nodes
    python benchmarks/raft_throughput.py sim      a simulated minute under faults: seconds it takes
    python benchmarks/raft_throughput.py server   three processes with synced disks: requests a second

Prints one line for each shape. The server's shape is a closed loop of connections over HTTP.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
import tempfile
import time

from raft.core import Core, Options
from raft.node import Node
from raft.testing import storm


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


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def call(reader, writer, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    head = f"{method} {path} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(answer[9:12]), await reader.readexactly(length)


async def find_leader(ports: list[int]) -> int:
    for _ in range(500):
        for port in ports:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            status, _ = await call(reader, writer, "GET", "/v1/keys/x")
            writer.close()
            if status == 200:
                return port
        await asyncio.sleep(0.02)
    raise TimeoutError("no leader")


served = [0]


async def load(port: int, method: str, connections: int, seconds: float) -> None:
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            began = time.perf_counter()
            body = b'"%064d"' % number if method == "PUT" else b""
            status, _ = await call(reader, writer, method, f"/v1/keys/k{number}", body)
            assert status == 200, status
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(connections)))
    took = time.perf_counter() - began
    served[0] += len(latencies)
    latencies.sort()
    p50, p99 = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    print(
        f"server  {method} {connections:4} connections   {len(latencies) / took:8,.0f}/s   "
        f"p50 {p50 * 1e3:.1f} ms   p99 {p99 * 1e3:.1f} ms"
    )


def server(seconds: float = 4.0) -> None:
    ports = free_ports(6)
    members = [f"--member=n{i}=127.0.0.1:{ports[i - 1]},127.0.0.1:{ports[i + 2]}" for i in (1, 2, 3)]
    with tempfile.TemporaryDirectory(dir=".") as directory:
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "raft",
                    f"--name=n{i}",
                    f"--data-dir={directory}/{i}",
                    *members,
                ],
                stderr=subprocess.DEVNULL,
            )
            for i in (1, 2, 3)
        ]
        try:
            for method in ("PUT", "GET"):
                for connections in (1, 16, 64):
                    leader = asyncio.run(find_leader(ports[3:]))
                    asyncio.run(load(leader, method, connections, seconds))
        finally:
            for process in processes:
                process.kill()
                process.wait()
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            print(
                f"server  {used.ru_utime + used.ru_stime:.1f} s of CPU in the three servers for {served[0]} requests"
            )


if __name__ == "__main__":
    what = sys.argv[1:] or ["core", "sim", "server"]
    if "core" in what:
        core(1)
        core(64)
    if "sim" in what:
        sim()
    if "server" in what:
        server()
