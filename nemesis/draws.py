"""Draws from a seeded generator, on top of `Random.random()` alone.

Rules of this module
    1. Only `.random()` is called: its sequence for a seed is the same in every version of Python, while
       `shuffle`, `choice` and `uniform` may change how many numbers they take and what they do with them.
    2. Each function takes a fixed count of numbers for its arguments, so that a drawn plan stays readable
       as a sequence of choices.

>>> from random import Random
>>> dice = Random(7)
>>> pick(dice, ["n1", "n2", "n3"]), shuffled(dice, ["n1", "n2", "n3"])
('n1', ('n3', 'n2', 'n1'))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


def chance(random: Random, probability: float) -> bool:
    """True with the given probability."""
    return random.random() < probability


def uniform(random: Random, low: float, high: float) -> float:
    """A number in [low, high), each as likely as another."""
    return low + (high - low) * random.random()


def log_uniform(random: Random, low: float, high: float) -> float:
    """A number in [low, high) whose logarithm is uniform: 1 to 10 is as likely as 10 to 100."""
    return math.exp(uniform(random, math.log(low), math.log(high)))


def integer(random: Random, low: int, high: int) -> int:
    """A whole number in [low, high], both ends included."""
    return low + int(random.random() * (high - low + 1))


def pick(random: Random, items: Sequence[T]) -> T:
    """One of the items."""
    return items[int(random.random() * len(items))]


def shuffled(random: Random, items: Sequence[T]) -> tuple[T, ...]:
    """All items in a drawn order (Fisher and Yates, from the back)."""
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        other = int(random.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return tuple(order)


def deck(random: Random, cards: Sequence[T]) -> Iterator[T]:
    """All cards in a drawn order, then all again in another: nothing is left out for long."""
    assert cards, "a deck without cards would never yield"
    while True:
        yield from shuffled(random, cards)
