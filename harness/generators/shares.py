"""Threads shared out between generators."""

from __future__ import annotations

from typing import Any

from harness.generators.base import NOTHING, Answer, Context, Event, Generator, Pending, is_deaf, lift
from harness.generators.threads import drawn, is_now, soonest, tentative


class _Reserve:
    __slots__ = ("_counts", "_everyone", "_generators", "deaf", "ranges")

    def __init__(
        self,
        counts: tuple[int, ...],
        generators: tuple[Generator, ...],
        everyone: int = -1,
        ranges: tuple[int, ...] = (),
    ) -> None:
        self._counts = counts
        self._generators = generators
        self._everyone = everyone  # of whom these are the ranges
        self.ranges = ranges
        self.deaf = all(map(is_deaf, generators))

    def of(self, generators: tuple[Generator, ...]) -> _Reserve:
        """The same, with these generators."""
        return _Reserve(self._counts, generators, self._everyone, self.ranges)

    def _shared_out(self, context: Context) -> _Reserve:
        """The same, with the threads of this context given out: so many of them to each, the rest to the last."""
        if self._everyone == context.all:
            return self
        wanted, there = sum(self._counts) + (self._generators[-1] is not NOTHING), context.all.bit_count()
        if wanted > there:
            raise ValueError(
                f"{there} threads are too few for a reserve of {wanted}, the last for the rest; raise the concurrency"
            )
        ranges, left = [], context.all
        for count in self._counts:
            rest = left
            for _ in range(count):
                rest &= rest - 1
            ranges.append(left & ~rest)
            left = rest
        return _Reserve(self._counts, self._generators, context.all, (*ranges, left))

    def op(self, context: Context) -> Answer | None:
        return self._shared_out(context).soonest(context)

    def soonest(self, context: Context) -> Answer | None:
        """Of all that have something to do."""
        ranges = self.ranges
        # One is drawn by its threads; if it has something to do at once, the others need not be asked.
        first = drawn(context.dice.random(), tuple(map(int.bit_count, ranges)))
        chosen = self._generators[first].op(context.only(ranges[first]))
        if chosen is not None and is_now(chosen, context):
            return (
                chosen[0],
                self.of((*self._generators[:first], chosen[1], *self._generators[first + 1 :])),
            )
        best: Answer | None = None
        place = -1
        weight = 0
        waits = False
        for n, bits in enumerate(ranges):
            answer = chosen if n == first else self._generators[n].op(context.only(bits))
            if answer is None:
                continue
            waits = waits or isinstance(answer[0], Pending)
            order = soonest(answer, best)
            size = bits.bit_count()
            if order == 0:
                weight += size
                if context.dice.random() * weight >= size:
                    continue
            elif order > 0:
                continue
            else:
                weight = size
            best, place = answer, n
        if best is None:
            return None
        event = tentative(best[0], context) if waits else best[0]
        return (event, self.of((*self._generators[:place], best[1], *self._generators[place + 1 :])))

    def update(self, context: Context, event: Event) -> Generator:
        here = self._shared_out(context)
        for n, bits in enumerate(here.ranges):
            if bits >> event.thread & 1:
                after = self._generators[n].update(context.only(bits), event)
                if after is not self._generators[n]:
                    return here.of((*self._generators[:n], after, *self._generators[n + 1 :]))
        return here


def reserve(*parts: Any) -> Generator:
    """So many threads for each generator, the rest for the last: ``reserve(5, writes, 10, cas, reads)``.

    Threads are counted among those that there are, so that each group of `concurrent_keys` can reserve of its own.

    >>> from harness.generators import ask, limit, repeat
    >>> from harness.generators.simulate import quick
    >>> events = quick(limit(50, reserve(1, repeat(ask("write")), repeat(ask("read")))), concurrency=3)
    >>> sorted({(event.thread, event.f) for event in events})
    [(0, 'write'), (1, 'read'), (2, 'read')]
    """
    if len(parts) % 2 == 0 or not all(isinstance(count, int) and count >= 0 for count in parts[:-1:2]):
        raise ValueError(
            "reserve takes a number of threads before each generator, and a last one for the rest"
        )
    return _Reserve(parts[:-1:2], tuple(lift(generator) for generator in (*parts[1:-1:2], parts[-1])))
