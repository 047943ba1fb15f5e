"""How long a cluster is without a leader after a crash: Figure 16 of the paper, simulated and with real processes.

    python benchmarks/raft_failover.py                      1000 simulated crashes for each range of timeouts
    python benchmarks/raft_failover.py --real 30            and `kill -9` of the leader of three real servers
    python benchmarks/raft_failover.py --plot failover.png  both as cumulative distributions

Simulated: five nodes whose broadcast takes about 15 ms, as in the paper; the leader crashes at a random moment
between two heartbeats, which come twice in the shortest timeout; downtime ends when another node leads. All that the
reference system does beyond the paper (PreVote, voters that stick to a leader they hear) is on.

Real: three processes on the loopback with timeouts of 150-300 ms; the leader's process is killed while a client
writes; downtime ends with the first write that is acknowledged by its successor. This includes what the machine
does to processes that want to run: on a busy one it is longer.

The plot needs `pip install -e .[bench]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import time
from pathlib import Path

from raft_cluster import Cluster, HttpClient, running

from raft.core import Leader, Options
from raft.testing import World

RANGES_MS = ((150, 150), (150, 151), (150, 155), (150, 175), (150, 200), (150, 300))
GIVEN_UP_MS = 10_000
LABEL = "150-300 ms, real: to the next acknowledged write"


def simulated_ms(low_ms: int, high_ms: int, seed: int) -> float:
    """The downtime after one crash; GIVEN_UP_MS if nobody leads by then."""
    options = Options(
        election_timeout_us_min=low_ms * 1000,
        election_timeout_us_max=high_ms * 1000,
        heartbeat_us=low_ms * 500,
    )
    world = World(5, seed, options=options)
    world.delay_us = (5_000, 9_000)  # there and back, with the disk between: about 15 ms
    while not leaders(world):
        world.run(ms=50)
    world.run(ms=1000 + random.Random(seed).randrange(low_ms // 2))
    (leader,) = leaders(world)
    world.crash(leader)
    began_us = world.now_us
    while not leaders(world):
        world.run(ms=1)
        if world.now_us - began_us > GIVEN_UP_MS * 1000:
            break
    return (world.now_us - began_us) / 1000


def leaders(world: World) -> list[str]:
    alive = [node for node in world.nodes.values() if not node.stopped]
    leading = [node for node in alive if isinstance(node.core.role, Leader)]
    newest = max((node.core.term for node in leading), default=0)
    return [node.name for node in leading if node.core.term == newest]


async def real_ms(cluster: Cluster, number: int) -> float:
    """The downtime after one `kill -9`."""
    leader = await cluster.leader()
    client = await HttpClient.connect(cluster.ports[leader])
    for turn in range(20 + random.randrange(20)):
        await client.call("PUT", "/v1/keys/x", b"%d" % turn)
    cluster.kill(leader)
    began = time.perf_counter()
    answered = asyncio.Event()
    others = [name for name in cluster.names if name != leader]
    asking = [asyncio.create_task(ask(cluster.ports[name], number, answered)) for name in others]
    await asyncio.wait_for(answered.wait(), 30)
    took = time.perf_counter() - began
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    cluster.start(leader)
    await cluster.answers(leader)
    return took * 1000


async def ask(port: int, number: int, answered: asyncio.Event) -> None:
    """Writes again and again until it is acknowledged."""
    while not answered.is_set():
        with contextlib.suppress(OSError):
            client = await HttpClient.connect(port)
            while not answered.is_set():
                status, _ = await asyncio.wait_for(client.call("PUT", "/v1/keys/x", b"%d" % number), 5)
                if status == 200:
                    answered.set()
                    client.transport.close()
                    return
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.005)


async def real(trials: int) -> list[float]:
    with running() as cluster:
        return [await real_ms(cluster, number) for number in range(trials)]


def line(label: str, found: list[float]) -> str:
    ordered = sorted(found)
    given_up = sum(one >= GIVEN_UP_MS for one in ordered)
    note = f", {given_up} without a leader after {GIVEN_UP_MS // 1000} s" if given_up else ""
    return (
        f"{label:>14}: median {statistics.median(ordered):6.0f} ms   p95 {ordered[len(ordered) * 95 // 100]:6.0f} ms"
        f"   longest {ordered[-1]:6.0f} ms   ({len(ordered)} crashes{note})"
    )


def plot(found: dict[str, list[float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 6))
    for label, values in found.items():
        ordered = sorted(values)
        shares = [100 * (at + 1) / len(ordered) for at in range(len(ordered))]
        axes.step(
            ordered, shares, where="post", label=f"{label} (median {statistics.median(ordered):.0f} ms)"
        )
    axes.set(
        xscale="log",
        xlim=(100, GIVEN_UP_MS),
        ylim=(0, 100),
        xlabel="time without leader (ms)",
        ylabel="share of crashes (%)",
        title="Election downtime by range of election timeouts",
    )
    axes.set_xticks([100, 200, 300, 500, 1000, 2000, 5000, 10000])
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--real", type=int, default=0, help="crashes of real processes")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found: dict[str, list[float]] = {}
    for low, high in RANGES_MS:
        label = f"{low}-{high} ms"
        trials = args.trials if high - low > 1 else max(1, args.trials // 10)  # those take long
        found[label] = [simulated_ms(low, high, seed) for seed in range(trials)]
        print(line(label, found[label]), flush=True)
    if args.real:
        found[LABEL] = asyncio.run(real(args.real))
        print(line("real 150-300", found[LABEL]))
    if args.plot:
        plot(found, args.plot)
        print(f"plot in {args.plot}")


if __name__ == "__main__":
    main()
