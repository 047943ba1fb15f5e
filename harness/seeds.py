"""One root seed, many named streams.

Rules of this module
    1. Every random choice of a run comes from `Streams(seed).stream(name)`; equal seed and name give the same
       numbers on every machine, in every process, under every PYTHONHASHSEED.
    2. Streams are independent: drawing more from one never shifts another. That is what lets a plan be edited
       (an operation removed, a fault added) without every other choice changing.
    3. Only `random()` of a stream is used, because its sequence is the one that Python guarantees across
       versions; the helpers below build the rest on it.

>>> a, b = Streams(7), Streams(7)
>>> a.stream("network").random() == b.stream("network").random()
True
>>> a.stream("x").random() == a.stream("y").random()
False
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

MAX_SEED = 2**63 - 1


def fresh_seed() -> int:
    """A seed that nobody chose, short enough to type: below 10^9."""
    return int.from_bytes(os.urandom(8), "big") % 1_000_000_000


class Streams:
    """The named random streams of one root seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """A new generator at the start of the stream of that name."""
        digest = hashlib.sha256(f"splitbrain:{self.seed}:{name}".encode()).digest()
        return random.Random(int.from_bytes(digest[:16], "big"))


def below(rng: random.Random, n: int) -> int:
    """An integer in [0, n)."""
    return int(rng.random() * n)


def between(rng: random.Random, low: float, high: float) -> float:
    """A float in [low, high)."""
    return low + (high - low) * rng.random()


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]


def skewed(rng: random.Random, mean: float) -> float:
    """A non-negative delay with the given mean: mostly short, at most three means, once in 128 ten times that.

    Built from multiplication alone: a logarithm may differ in its last bit from one machine to the next.
    """
    r = rng.random()
    delay = 2.78 * mean * r * r
    return delay * 10.0 if rng.random() < 1 / 128 else delay
