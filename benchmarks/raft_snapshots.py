"""What log compaction is for: a follower that was away catches up, and memory does not grow.

    python benchmarks/raft_snapshots.py catch-up      a follower 10^5 entries behind, while writes go on
    python benchmarks/raft_snapshots.py memory        the servers' memory over 10^6 writes

Three real servers on the loopback with the disk of the working directory. Catch-up: one follower is killed, 10^5
writes go by, it is started again, and gets a snapshot and then the log, while clients keep writing; printed is how
long it takes and what the writers notice. Memory: the resident size of each server after each tenth of the writes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable

from raft_cluster import Cluster, HttpClient, rss_mib, running

CLIENTS = 64
TIMING = ("--election-timeout-ms-min=1000", "--election-timeout-ms-max=2000")


async def write(cluster: Cluster, goes_on: Callable[[int], bool], keys: int = 1000) -> list[float]:
    """Closed loops of writers to `keys` keys until told otherwise; latencies in the order of the answers."""
    port = cluster.ports[await cluster.leader()]
    latencies: list[float] = []
    begun = 0

    async def one() -> None:
        nonlocal begun
        client = await HttpClient.connect(port)
        while goes_on(begun):
            begun += 1
            asked = time.perf_counter()
            status, body = await client.call("PUT", f"/v1/keys/k{begun % keys}", b'"%064d"' % begun)
            assert status == 200, body
            latencies.append(time.perf_counter() - asked)
        client.transport.close()

    await asyncio.gather(*(one() for _ in range(CLIENTS)))
    return latencies


async def status(cluster: Cluster, name: str) -> dict[str, object] | None:
    try:
        client = await HttpClient.connect(cluster.ports[name])
    except OSError:
        return None
    _, body = await client.call("GET", "/status")
    client.transport.close()
    return json.loads(body)


def told(latencies: list[float], seconds: float) -> str:
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3
    longest = ordered[-1] * 1e3
    return f"{len(ordered) / seconds:,.0f} writes/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.0f} ms"


async def catch_up(entries: int) -> None:
    with running(*TIMING) as cluster:
        leader = await cluster.leader()
        away = next(name for name in cluster.names if name != leader)
        cluster.kill(away)
        began = time.perf_counter()
        latencies = await write(cluster, lambda begun: begun < entries)
        print(
            f"{away} is away for {entries:,} writes: {told(latencies, time.perf_counter() - began)}",
            flush=True,
        )

        caught_up = asyncio.Event()
        writers = asyncio.create_task(write(cluster, lambda _: not caught_up.is_set()))
        began = time.perf_counter()
        cluster.start(away)
        behind = served = None
        while not caught_up.is_set():
            here, there = await status(cluster, away), await status(cluster, leader)
            if here is not None and there is not None:
                served = served or time.perf_counter()
                lag = int(there["applied_index"]) - int(here["applied_index"])  # type: ignore[call-overload]
                behind = lag if behind is None else behind
                if lag < 2 * CLIENTS:
                    caught_up.set()
            await asyncio.sleep(0.01)
        took, since = time.perf_counter() - began, time.perf_counter() - (served or began)
        latencies = await writers
        print(f"meanwhile: {told(latencies, took)}")
        print(
            f"{away} was {behind:,} entries behind when it served, and had caught up {took:.2f} s after its start, "
            f"{since:.2f} s after it served"
        )


async def memory(writes: int) -> None:
    with running(*TIMING) as cluster:
        leader = await cluster.leader()
        print(
            f"{'writes':>10}  "
            + "  ".join(f"{name + (' leads' if name == leader else ''):>12}" for name in cluster.names)
        )
        for tenth in range(11):
            if tenth:
                await write(cluster, lambda begun: begun < writes // 10)
            sizes = [rss_mib(cluster.processes[name].pid) for name in cluster.names]
            print(
                f"{tenth * writes // 10:>10,}  " + "  ".join(f"{size:8.1f} MiB" for size in sizes), flush=True
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["catch-up", "memory"])
    parser.add_argument("--count", type=int, help="writes; default 10^5 for catch-up, 10^6 for memory")
    args = parser.parse_args()
    if args.what == "catch-up":
        asyncio.run(catch_up(args.count or 100_000))
    else:
        asyncio.run(memory(args.count or 1_000_000))


if __name__ == "__main__":
    main()
