"""One root seed, many named streams.

Rules of this module
    1. Every random choice of a run comes from `Streams(seed).stream(name)`; equal seed and name give the same
       numbers on every machine, in every process, under every PYTHONHASHSEED.
    2. Streams are independent: drawing more from one never shifts another. That is what lets a plan be edited
       (an operation removed, a fault added) without every other choice changing.
    3. What the simulator draws while it runs comes from `Dice`, whose numbers depend on the moment they are drawn at
       and not on how many were drawn before: leaving one message out of a run leaves the fate of the others as it
       was, which is what makes failing runs shrink.
    4. Only `random()` of a stream is used, because its sequence is the one that Python guarantees across
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
from typing import Protocol, TypeVar

T = TypeVar("T")

MAX_SEED = 2**63 - 1


def fresh_seed() -> int:
    """A seed that nobody chose, short enough to type: below 10^9."""
    return int.from_bytes(os.urandom(8), "big") % 1_000_000_000


class HasRandom(Protocol):
    """Whatever draws numbers in [0, 1)."""

    def random(self) -> float:
        """The next number."""


class HasTime(Protocol):
    """Whatever tells virtual time."""

    now_us: int


class Dice:
    """Numbers in [0, 1) fixed by a key, the virtual time, and how many were drawn before at that very time.

    The mixing is that of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """

    __slots__ = ("_at_us", "_clock", "_key", "_state")

    def __init__(self, key: int, clock: HasTime) -> None:
        self._key = key
        self._clock = clock
        self._at_us = -1
        self._state = 0

    def random(self) -> float:
        """The next number of this moment."""
        now_us = self._clock.now_us
        if now_us != self._at_us:
            self._at_us = now_us
            self._state = self._key + now_us * 0x9E3779B97F4A7C15
        self._state = x = (self._state + 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((x ^ (x >> 31)) >> 11) * 1.1102230246251565e-16

    def skewed(self, mean: float) -> float:
        """What `skewed` makes of the next two numbers, in one call: most messages need exactly that."""
        now_us = self._clock.now_us
        if now_us != self._at_us:
            self._at_us = now_us
            self._state = self._key + now_us * 0x9E3779B97F4A7C15
        y = self._state + 0xD1B54A32D192ED03
        self._state = z = (y + 0xD1B54A32D192ED03) & 0xFFFFFFFFFFFFFFFF
        y &= 0xFFFFFFFFFFFFFFFF
        y = ((y ^ (y >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        y = ((y ^ (y >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        r = ((y ^ (y >> 31)) >> 11) * 1.1102230246251565e-16
        delay = 2.78 * mean * r * r
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return delay * 10.0 if ((z ^ (z >> 31)) >> 11) < 0x400000000000 else delay


class Streams:
    """The named random streams of one root seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def stream(self, name: str) -> random.Random:
        """A new generator at the start of the stream of that name."""
        return random.Random(int.from_bytes(self._digest(name)[:16], "big"))

    def dice(self, name: str, clock: HasTime) -> Dice:
        """The dice of that name on a virtual clock."""
        return Dice(int.from_bytes(self._digest(name)[:8], "big"), clock)

    def _digest(self, name: str) -> bytes:
        return hashlib.sha256(f"splitbrain:{self.seed}:{name}".encode()).digest()


def below(rng: HasRandom, n: int) -> int:
    """An integer in [0, n)."""
    return int(rng.random() * n)


def between(rng: HasRandom, low: float, high: float) -> float:
    """A float in [low, high)."""
    return low + (high - low) * rng.random()


def pick(rng: HasRandom, items: Sequence[T]) -> T:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]


def skewed(rng: HasRandom, mean: float) -> float:
    """A non-negative delay with the given mean: mostly short, at most three means, once in 128 ten times that.

    Built from multiplication alone: a logarithm may differ in its last bit from one machine to the next.
    """
    r = rng.random()
    delay = 2.78 * mean * r * r
    return delay * 10.0 if rng.random() < 1 / 128 else delay
