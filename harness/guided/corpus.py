"""The plans worth changing: each reached something when nothing before it had.

Theory of operation
    Every feature has a count of the runs that reached it. A plan is taken with a weight that is the sum over its
    features of one over that count: what is rare is worth more, and what turns out to be common fades. A part of the
    runs is drawn afresh all the time, so that the search cannot lock itself in.

>>> from harness.config import Config
>>> corpus = Corpus(Config(time_limit_s=1.0), seed=7)
>>> first = corpus.next()
>>> corpus.learn(first, (1, 2, 3)), corpus.learn(first, (2,))
(3, 0)
>>> len(corpus.entries), corpus.reached
(1, 3)
"""

from __future__ import annotations

from collections import Counter

import msgspec

from harness import plan as plans
from harness.config import Config
from harness.guided.mutate import FAULTS_MORE, mutated
from harness.plan import Plan
from harness.seeds import Streams, pick
from harness.sweep.swarm import swarmed

FRESH = 0.3
ENTRIES_MAX = 2_000
FRESH_FIRST = 4


class Entry(msgspec.Struct, frozen=True):
    """A plan and what it has reached."""

    plan: Plan
    features: tuple[int, ...]


class Corpus:
    """A guided search; `next` gives the plan to run, `learn` takes what it reached.

    Attributes:
        entries: the plans that reached something new, the oldest first.
    """

    def __init__(self, config: Config, seed: int, *, swarm: bool = False) -> None:
        self.entries: list[Entry] = []
        self._config = config
        self._swarm = swarm
        self._rng = Streams(seed).stream("guided")
        self._counts: Counter[int] = Counter()
        self._fresh = seed
        self._faults_max = 0

    @property
    def reached(self) -> int:
        """How many features were reached so far."""
        return len(self._counts)

    def next(self) -> Plan:
        """A fresh plan, or one of the corpus changed."""
        if len(self.entries) < FRESH_FIRST or self._rng.random() < FRESH:
            return self._draw()
        plan, other = self._take(), pick(self._rng, self.entries).plan
        return mutated(plan, other, self._faults_max, self._rng)

    def learn(self, plan: Plan, features: tuple[int, ...]) -> int:
        """How many of the features are new; if any is, the plan is kept."""
        new = sum(1 for feature in features if feature not in self._counts)
        self._counts.update(features)
        if new:
            self.entries.append(Entry(plan, features))
            if len(self.entries) > ENTRIES_MAX:
                del self.entries[0]
        return new

    def _draw(self) -> Plan:
        seed, self._fresh = self._fresh, self._fresh + 1
        plan = plans.draw(swarmed(self._config, seed) if self._swarm else self._config, seed)
        self._faults_max = max(self._faults_max, len(plan.faults) + FAULTS_MORE)
        return plan

    def _take(self) -> Plan:
        counts = self._counts
        weights = [sum(1.0 / counts[feature] for feature in entry.features) for entry in self.entries]
        left = self._rng.random() * sum(weights)
        for entry, weight in zip(self.entries, weights, strict=True):
            left -= weight
            if left < 0:
                return entry.plan
        return self.entries[-1].plan
