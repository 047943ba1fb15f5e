"""Combinators of time: when operations come."""

from __future__ import annotations

from collections.abc import Callable

from harness.generators.base import (
    PENDING,
    Answer,
    Context,
    Event,
    Generator,
    Liftable,
    Pending,
    is_deaf,
    lift,
)

US_PER_S = 1_000_000
WINDOWS_MAX = 1_000_000  # without an operation in a row before that is an error


class _TimeLimit:
    __slots__ = ("_end_us", "_generator", "_limit_us", "deaf")

    def __init__(self, limit_us: int, generator: Generator, end_us: int | None) -> None:
        self._limit_us = limit_us
        self._generator = generator
        self.deaf = is_deaf(generator)
        self._end_us = end_us

    def op(self, context: Context) -> Answer | None:
        if self._end_us is not None and context.time_us >= self._end_us:
            return None
        answer = self._generator.op(context)
        if answer is None:
            return None
        event, after = answer
        if isinstance(event, Pending):
            return (event, _TimeLimit(self._limit_us, after, self._end_us))
        end_us = self._end_us if self._end_us is not None else event.time_us + self._limit_us
        return (event, _TimeLimit(self._limit_us, after, end_us)) if event.time_us < end_us else None

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _TimeLimit(self._limit_us, after, self._end_us)


def time_limit(seconds: float, generator: Liftable) -> Generator:
    """No operation so long after the first one, or later.

    >>> from harness.generators import ask, repeat
    >>> from harness.generators.simulate import simulate
    >>> events = simulate(time_limit(0.02, repeat(ask("read"))), concurrency=1, nemesis=False)
    >>> [event.time_us for event in events if event.kind == "invoke"]
    [0, 10000]
    """
    return _TimeLimit(int(seconds * US_PER_S), lift(generator), None)


class _Spaced:
    """Operations with gaps between them: from when each was due with `late`, else from when it could be done."""

    __slots__ = ("_draw", "_generator", "_late", "_next_us", "deaf")

    def __init__(
        self, draw: Callable[[Context], float], generator: Generator, next_us: float | None, *, late: bool
    ) -> None:
        self._draw = draw
        self._generator = generator
        self.deaf = is_deaf(generator)
        self._next_us = next_us
        self._late = late

    def op(self, context: Context) -> Answer | None:
        due_us = self._next_us if self._next_us is not None else self._first_us(context)
        answer = self._generator.op(context.at(int(due_us)) if due_us > context.time_us else context)
        if answer is None:
            return None
        event, after = answer
        if isinstance(event, Pending):
            # With `late`, what waits for its first operation is not late yet: it may wait for a phase to begin.
            following_us = self._next_us if self._late else due_us
            return (event, _Spaced(self._draw, after, following_us, late=self._late))
        next_us = (due_us if self._late else max(due_us, event.time_us)) + self._draw(context)
        return (event, _Spaced(self._draw, after, next_us, late=self._late))

    def _first_us(self, context: Context) -> float:
        return context.time_us if self._late else context.time_us + self._draw(context)

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return (
            self if after is self._generator else _Spaced(self._draw, after, self._next_us, late=self._late)
        )


def stagger(seconds: float, generator: Liftable) -> Generator:
    """So long between operations on average, drawn between nothing and twice that; for all threads together.

    >>> from harness.generators import ask, limit, repeat
    >>> from harness.generators.simulate import simulate
    >>> events = simulate(limit(1000, stagger(0.01, repeat(ask("read")))), concurrency=10)
    >>> 9 < events[-1].time_us / US_PER_S < 11
    True
    """
    width_us = 2 * seconds * US_PER_S
    return _Spaced(lambda context: context.dice.random() * width_us, lift(generator), None, late=False)


def delay(seconds: float, generator: Liftable) -> Generator:
    """So long between operations, from the first one on; late ones catch up.

    >>> from harness.generators import ask, repeat
    >>> from harness.generators.simulate import simulate
    >>> events = simulate(delay(0.5, repeat(ask("read"), 3)))
    >>> [event.time_us for event in events if event.kind == "invoke"]
    [0, 500000, 1000000]
    """
    gap_us = seconds * US_PER_S
    return _Spaced(lambda _context: gap_us, lift(generator), None, late=True)


class _CycleTimes:
    __slots__ = ("_generators", "_start_us", "_times_us", "deaf")

    def __init__(
        self, times_us: tuple[int, ...], generators: tuple[Generator, ...], start_us: int | None
    ) -> None:
        self._times_us = times_us
        self._generators = generators
        self.deaf = all(map(is_deaf, generators))
        self._start_us = start_us

    def op(self, context: Context) -> Answer | None:
        start_us = self._start_us if self._start_us is not None else context.time_us
        period_us = sum(self._times_us)
        now_us = context.time_us
        for _ in range(WINDOWS_MAX):
            place, end_us = self._window((now_us - start_us) % period_us, now_us)
            answer = self._generators[place].op(context.at(now_us) if now_us > context.time_us else context)
            if answer is None:
                return None
            event, after = answer
            if isinstance(event, Pending) or event.time_us < end_us:
                generators = (*self._generators[:place], after, *self._generators[place + 1 :])
                return (event, _CycleTimes(self._times_us, generators, start_us))
            now_us = end_us  # it comes only after its window: then it is another one's turn
        raise ValueError(
            f"{WINDOWS_MAX} windows of `cycle_times` went by without an operation; make them longer"
        )

    def _window(self, into_us: int, now_us: int) -> tuple[int, int]:
        for place, length_us in enumerate(self._times_us):
            if into_us < length_us:
                return place, now_us + length_us - into_us
            into_us -= length_us
        raise AssertionError("a time within the period is within one of its windows")

    def update(self, context: Context, event: Event) -> Generator:
        generators = tuple(one.update(context, event) for one in self._generators)
        return _CycleTimes(self._times_us, generators, self._start_us)


def cycle_times(*windows: tuple[float, Liftable]) -> Generator:
    """By the clock: so many seconds of the first, so many of the second, and so on, round and round.

    Each goes on where it was when its turn comes again.

    >>> from harness.generators import ask, repeat, time_limit
    >>> from harness.generators.simulate import simulate
    >>> calm, busy = delay(1, repeat(ask("calm"))), delay(0.5, repeat(ask("busy")))
    >>> events = simulate(time_limit(4, cycle_times((2, calm), (1, busy))))
    >>> [(event.time_us // 100_000, event.f) for event in events if event.kind == "invoke"][:5]
    [(0, 'calm'), (10, 'calm'), (20, 'busy'), (25, 'busy'), (30, 'calm')]
    """
    times_us = tuple(int(seconds * US_PER_S) for seconds, _ in windows)
    if min(times_us, default=0) <= 0:
        raise ValueError(f"cycle_times takes windows of some time, not {[seconds for seconds, _ in windows]}")
    return _CycleTimes(times_us, tuple(lift(generator) for _, generator in windows), None)


class _Cache:
    __slots__ = ("_generator", "_kept", "_until_us", "_width_us", "deaf")

    def __init__(
        self, width_us: int, generator: Generator, kept: Answer | None = None, until_us: int = 0
    ) -> None:
        self._width_us = width_us
        self._generator = generator
        self.deaf = is_deaf(generator)
        self._kept = kept  # what it last answered, which may not have been taken
        self._until_us = until_us

    def op(self, context: Context) -> Answer | None:
        if not context.free:
            return (PENDING, self)
        if self._kept is None or context.time_us >= self._until_us:
            self._kept = self._generator.op(context)
            self._until_us = context.time_us + self._width_us
        if self._kept is None:
            return None
        event, after = self._kept
        if isinstance(event, Pending):
            return (event, self)
        thread = event.thread if context.free >> event.thread & 1 else context.some_free()
        process = context.processes[thread]
        time_us = max(event.time_us, context.time_us)
        event = Event(time_us, thread, process, event.f, event.key, event.value, event.kind, event.tentative)
        return (event, _Cache(self._width_us, after))

    def update(self, context: Context, event: Event) -> Generator:
        after, kept = self._generator.update(context, event), self._kept
        if kept is not None:
            kept = (kept[0], kept[1].update(context, event))
        return _Cache(self._width_us, after, kept, self._until_us)


def cache(seconds: float, generator: Liftable) -> Generator:
    """For operations that are costly to make: one that was shown and not done is shown again for so long.

    A combinator that takes the soonest of several asks all of them each time. What is shown again is for a thread that
    is free then, and not before then.

    >>> from harness.generators import any_of, ask, limit, repeat
    >>> from harness.generators.simulate import simulate
    >>> made = []
    >>> def costly():
    ...     made.append(len(made))
    ...     return ask("write", None, made[-1])
    >>> busy = limit(20, any_of(delay(0.3, cache(1, costly)), delay(0.05, repeat(ask("read")))))
    >>> [event.value for event in simulate(busy) if event.kind == "invoke" and event.f == "write"]
    [0, 1, 2]
    >>> len(made)
    4
    """
    return _Cache(int(seconds * US_PER_S), lift(generator))
