"""Delta debugging (Zeller and Hildebrandt 2002) over any list.

Rules of this module
    1. `test` says whether a sublist still shows the failure; the whole list is taken to.
    2. The result is 1-minimal: no single item can be left out, unless `test` answers differently when asked
       again, or raised to end the search early (what it accepted last is then its own to remember).
    3. Order is kept. Neighbours are removed together first: neighbours in time often belong together.

>>> ddmin(range(100), lambda kept: 17 in kept and 64 in kept)
[17, 64]
>>> ddmin(range(100), lambda kept: True)
[]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def ddmin(items: Iterable[T], test: Callable[[list[T]], bool]) -> list[T]:
    """The smallest sublist that this search finds for which `test` holds."""
    current = list(items)
    if current and test([]):
        return []
    parts = 2
    while len(current) >= 2:
        chunks = list(_chunks(current, parts))
        smaller = next((chunk for chunk in chunks if test(chunk)), None) if parts < len(current) else None
        if smaller is not None:
            current, parts = smaller, 2
            continue
        current, removed = _without_chunks(chunks, test)
        if removed:
            parts = max(2, min(parts - removed, len(current)))
        elif parts >= len(current):
            break
        else:
            parts = min(len(current), parts * 2)
    return current


def _chunks(items: Sequence[T], parts: int) -> Iterator[list[T]]:
    """The items in so many runs of nearly equal length."""
    start = 0
    for part in range(parts):
        end = start + (len(items) - start) // (parts - part)
        if end > start:
            yield list(items[start:end])
        start = end


def _without_chunks(chunks: Sequence[list[T]], test: Callable[[list[T]], bool]) -> tuple[list[T], int]:
    """Leave out each chunk in turn where that is possible, the last first; what is left, and how many went.

    The last first, because what happens late is more often of no consequence.
    """
    kept = list(chunks)
    removed = 0
    for index in reversed(range(len(chunks))):
        rest = [item for at, chunk in enumerate(kept) if at != index for item in chunk]
        if len(rest) < sum(map(len, kept)) and rest and test(rest):
            kept[index] = []
            removed += 1
    return [item for chunk in kept for item in chunk], removed
