"""Majorities: the only place that counts.

Both kinds of question the protocol asks are here: "has a majority said yes?" (elections) and "what is the
largest number a majority has reached?" (commit index, confirmed read round). Keep them pure; the property
tests compare them with slow and obvious versions.
"""

from __future__ import annotations

from collections.abc import Iterable


def majority(size: int) -> int:
    """The smallest number of members any two groups of which must share one.

    >>> [majority(size) for size in (1, 2, 3, 4, 5)]
    [1, 2, 2, 3, 3]
    """
    return size // 2 + 1


def reached(values: Iterable[int]) -> int:
    """The largest number that a majority of the members has reached, one value for each member.

    >>> reached([7, 3, 5])  # two of three have reached 5
    5
    >>> reached([7, 3, 5, 4])  # three of four have reached 4
    4
    """
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]  # from the bottom: all but a majority lie below
