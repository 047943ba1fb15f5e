"""Plans from generators: what a generator would ask of a cluster that does all it is asked.

Theory of operation
    A plan is a value that is saved before the run, so that it can be replayed, and made smaller by leaving
    operations out. A generator that asks for the same whatever happens becomes one by simulating it against an ideal
    cluster, in which every operation succeeds within some milliseconds: each operation that it asks for is planned at
    its time for the thread that would have done it. In the real run a worker that is slower does its operations
    later, and as many of them as there is time for.

    What depends on the answers in a small way, within one operation (a dequeue looks before it takes), is the
    business of the contract (`harness.systems.base.System.contracts`). What depends on them in the large cannot be
    planned: a workload with `live` set drives the runner with its generator, and its operations become a plan after
    the run (`harness.live`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

from harness.config import Config
from harness.generators import Context, Event, clients, simulate, stagger
from harness.generators.base import Kind
from harness.seeds import Streams, below, between
from harness.workloads.base import OpTuple

LATENCY_US = 5_000  # of the ideal cluster, at least, and at most three times that


def _ideal(event: Event, context: Context) -> tuple[int, Kind, Any]:
    return LATENCY_US + context.dice.below(2 * LATENCY_US), "ok", event.value


def planned(generator: Any, config: Config, streams: Streams) -> list[OpTuple]:
    """The operations of a generator, which comes without a rate and without an end, at the configured rate.

    Args:
        generator: see `harness.generators.base.lift`; clients do all of it.
        config: the rate, the time limit, the concurrency.
        streams: of the seed; `workload/generator` is drawn from.

    Raises:
        GeneratorError: the generator asks for what cannot be done.
    """
    paced = stagger(1 / config.rate_hz, clients(generator))
    seed = int(streams.stream("workload/generator").random() * 2**53)
    events = simulate(
        paced,
        concurrency=config.concurrency,
        seed=seed,
        nemesis=False,
        complete=_ideal,
        until_us=int(config.time_limit_s * 1_000_000),
    )
    return [
        (event.time_us, event.thread, event.f, event.key, event.value)
        for event in events
        if event.kind == "invoke"
    ]


def finals(keys: Sequence[Any], config: Config, f: str = "read") -> list[OpTuple]:
    """One operation for each key at the end, by one worker after the other."""
    return [(0, n % config.concurrency, f, key, None) for n, key in enumerate(keys)]


class Keys:
    """Keys in use: one is drawn for each operation, each is retired after its share, and a fresh one takes its place.

    The length of one key's history, and with it the cost of checking it, is bounded so.
    """

    def __init__(self, in_use: int, ops_per_key: int, streams: Streams, prefix: str = "k") -> None:
        self._rng = streams.stream("workload/keys")
        self._share = ops_per_key
        self._prefix = prefix
        self._numbers = count(1)
        self.used: list[str] = []
        self._live = [self._fresh() for _ in range(in_use)]

    def _fresh(self) -> list[Any]:
        # Within 10 % of the share, so that keys do not all change at once.
        return [
            f"{self._prefix}{next(self._numbers)}",
            max(1, int(self._share * between(self._rng, 0.9, 1.1))),
            False,
        ]

    def next(self) -> str:
        """The key of the next operation."""
        place = below(self._rng, len(self._live))
        name, left, used = self._live[place]
        if not used:
            self.used.append(name)
            self._live[place][2] = True
        self._live[place][1] = left - 1
        if left <= 1:
            self._live[place] = self._fresh()
        return str(name)

    def some(self, most: int) -> list[str]:
        """Different keys that are in use, at least one, at most so many."""
        names = dict.fromkeys(self.next() for _ in range(1 + below(self._rng, most)))
        return list(names)


def forever(make: Callable[[], Any]) -> Iterator[Any]:
    """What the function makes, again and again: a Python generator, which the simulation runs once."""
    while True:
        yield make()
