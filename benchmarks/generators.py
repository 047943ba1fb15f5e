"""How many operations a second generators schedule, and how fast dependency graphs are checked.

Run it with `python benchmarks/generators.py`. The speed of a machine varies, and so does what else it does: each figure
comes with the time that this process takes for a million steps of an empty loop, for comparison, and is the best of
three.
"""

from __future__ import annotations

import random
import time

from checkers import History, Op
from checkers.list_append import check_list_append
from checkers.rw_register import check_rw_register
from harness.generators import (
    ask,
    clients,
    concurrent_keys,
    limit,
    mix,
    repeat,
    reserve,
    simulate,
    stagger,
)

OPS = 50_000
TRANSACTIONS = 100_000


def best(work, repetitions=3):
    """Seconds of this process, the least of a few."""
    times = []
    for _ in range(repetitions):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def loop():
    for _ in range(1_000_000):
        pass


def generators():
    """The same kinds of generator that workloads use, simulated with ten threads."""
    reads, writes, cas = repeat(ask("read")), repeat(ask("write")), repeat(ask("cas"))
    yield "one operation again and again", limit(OPS, reads)
    yield (
        "a Python generator, paced",
        limit(OPS, clients(stagger(1e-4, (ask("w", None, n) for n in range(OPS))))),
    )
    yield "mix, paced", limit(OPS, clients(stagger(1e-4, mix(reads, writes))))
    yield "reserve and mix, paced", limit(OPS, clients(stagger(1e-4, reserve(5, reads, mix(writes, cas)))))
    keys = concurrent_keys(5, range(OPS), lambda _key: limit(100, mix(reads, writes)))
    yield "two groups with keys of their own", limit(OPS, clients(stagger(1e-4, keys)))


def history(write, count):
    """Strictly serializable transactions of ten processes, each performed at one moment within its interval."""
    rng = random.Random(1)
    lines, state, time_ns, value, fresh = [], {}, 0, 0, 10
    live = [f"k{n}" for n in range(10)]
    written = dict.fromkeys(live, 0)
    under_way = {}
    begun = 0
    while begun < count or under_way:
        time_ns += rng.randrange(1, 1000)
        if begun < count and len(under_way) < 10 and rng.random() < 0.55:
            process = rng.choice([n for n in range(10) if n not in under_way])
            ops = []
            for _ in range(rng.randrange(1, 5)):
                place = rng.randrange(10)
                key = live[place]
                if rng.random() < 0.5:
                    ops.append(["r", key, None])
                    continue
                value += 1
                ops.append([write, key, value])
                written[key] = written.get(key, 0) + 1
                if written[key] > 16:
                    live[place] = f"k{fresh}"
                    fresh += 1
            lines.append(Op(len(lines), time_ns, process, "invoke", "txn", value=ops))
            under_way[process] = (ops, None)
            begun += 1
            continue
        if not under_way:
            continue
        process = rng.choice(list(under_way))
        ops, done = under_way[process]
        if done is None:
            done = []
            for f, key, what in ops:
                if f == "r":
                    held = state.get(key)
                    done.append([f, key, list(held or []) if write == "append" else held])
                else:
                    state[key] = [*state.get(key, []), what] if write == "append" else what
                    done.append([f, key, what])
            under_way[process] = (ops, done)
        else:
            lines.append(Op(len(lines), time_ns, process, "ok", "txn", value=done))
            del under_way[process]
    return History.of(lines)


def main():
    empty = best(loop)
    print(f"a million steps of an empty loop: {empty:.3f} s")
    for name, generator in generators():
        seconds = best(lambda made=generator: simulate(made, concurrency=10))
        print(
            f"{name:36} {OPS / seconds:9,.0f} operations/s   {seconds / empty / OPS * 1e6:6.1f} loop steps each"
        )
    for write, check in (("append", check_list_append), ("w", check_rw_register)):
        recorded = history(write, TRANSACTIONS)
        seconds = best(lambda one=recorded, by=check: by(one))
        valid = check(recorded).valid
        print(f"{TRANSACTIONS:,} transactions, {check.__name__}: {seconds:.2f} s, {valid}")


if __name__ == "__main__":
    main()
