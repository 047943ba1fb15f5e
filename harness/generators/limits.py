"""Combinators that end or hold back a generator."""

from __future__ import annotations

from harness.generators.base import (
    NOTHING,
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


class _Limit:
    __slots__ = ("_generator", "_left", "deaf")

    def __init__(self, left: int, generator: Generator) -> None:
        self._left = left
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        if self._left <= 0:
            return None
        answer = self._generator.op(context)
        if answer is None:
            return None
        event, after = answer
        if isinstance(event, Pending):
            return (event, _Limit(self._left, after))
        return (event, _Limit(self._left - 1, after) if self._left > 1 else NOTHING)

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _Limit(self._left, after)


def limit(count: int, generator: Liftable) -> Generator:
    """At most so many operations.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> len(quick(limit(3, repeat(ask("read")))))
    3
    """
    return _Limit(count, lift(generator))


def once(generator: Liftable) -> Generator:
    """At most one operation.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> len(quick(once(repeat(ask("read")))))
    1
    """
    return limit(1, generator)


class _Repeat:
    __slots__ = ("_generator", "_left", "deaf")

    def __init__(self, left: int, generator: Generator) -> None:
        self._left = left
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        if not self._left:
            return None
        answer = self._generator.op(context)
        if answer is None:
            return None
        event = answer[0]
        if isinstance(event, Pending):
            return (event, self)
        return (event, _Repeat(self._left - 1, self._generator) if self._left > 0 else self)

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _Repeat(self._left, after)


def repeat(generator: Liftable, count: int = -1) -> Generator:
    """The first operation again and again, for ever or `count` times: the generator stays as it is.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick(repeat([ask("a"), ask("b")], 3))]
    ['a', 'a', 'a']
    """
    return _Repeat(count, lift(generator))


class _Cycle:
    __slots__ = ("_left", "_now", "_whole", "deaf")

    def __init__(self, left: int, whole: Generator, now: Generator) -> None:
        self._left = left
        self._whole = whole
        self._now = now
        self.deaf = is_deaf(now) and is_deaf(whole)

    def op(self, context: Context) -> Answer | None:
        if not self._left:
            return None
        answer = self._now.op(context)
        left = self._left
        if answer is None:
            left -= 1
            answer = self._whole.op(context) if left else None
        return None if answer is None else (answer[0], _Cycle(left, self._whole, answer[1]))

    def update(self, context: Context, event: Event) -> Generator:
        after = self._now.update(context, event)
        return self if after is self._now else _Cycle(self._left, self._whole, after)


def cycle(generator: Liftable, count: int = -1) -> Generator:
    """The whole generator again and again, for ever or `count` times.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick(cycle([ask("a"), ask("b")], 2))]
    ['a', 'b', 'a', 'b']
    """
    whole = lift(generator)
    return _Cycle(count, whole, whole)


class _ProcessLimit:
    __slots__ = ("_count", "_generator", "_seen", "deaf")

    def __init__(self, count: int, generator: Generator, seen: frozenset[int | str]) -> None:
        self._count = count
        self._generator = generator
        self.deaf = is_deaf(generator)
        self._seen = seen

    def _within(self, context: Context) -> Context:
        """As many of the threads as there may be processes, always the same ones."""
        surplus = context.all.bit_count() - self._count
        if surplus <= 0:
            return context
        threads = context.all
        for _ in range(surplus):
            threads &= ~(1 << threads.bit_length() - 1)
        return context.only(threads)

    def op(self, context: Context) -> Answer | None:
        context = self._within(context)
        answer = self._generator.op(context)
        if answer is None:
            return None
        event, after = answer
        if isinstance(event, Pending):
            return (event, _ProcessLimit(self._count, after, self._seen))
        possible = _processes(context)
        seen = self._seen if possible <= self._seen else self._seen | possible
        return (event, _ProcessLimit(self._count, after, seen)) if len(seen) <= self._count else None

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(self._within(context), event)
        return self if after is self._generator else _ProcessLimit(self._count, after, self._seen)


def _processes(context: Context) -> frozenset[int | str]:
    return frozenset(process for n, process in enumerate(context.processes) if context.all >> n & 1)


def process_limit(count: int, generator: Liftable) -> Generator:
    """Ends when more than so many processes could have done its operations.

    Where there are more threads than that from the start, so many of them do all of it. Each operation of unknown
    outcome costs a process; with few processes a history has few such operations open at the same time, which is what
    makes checking costly.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import after_ms, simulate
    >>> events = simulate(process_limit(4, repeat(ask("read"))), nemesis=False, complete=after_ms(1, "info"))
    >>> sorted({event.process for event in events})
    [0, 1, 2, 3]
    """
    return _ProcessLimit(count, lift(generator), frozenset())


class _ConcurrencyLimit:
    __slots__ = ("_count", "_generator", "deaf")

    def __init__(self, count: int, generator: Generator) -> None:
        self._count = count
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        if (context.all & ~context.free).bit_count() >= self._count:
            return (PENDING, self)
        answer = self._generator.op(context)
        return None if answer is None else (answer[0], _ConcurrencyLimit(self._count, answer[1]))

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _ConcurrencyLimit(self._count, after)


def concurrency_limit(count: int, generator: Liftable) -> Generator:
    """Waits while so many threads are busy.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import simulate
    >>> events = simulate(concurrency_limit(1, repeat(ask("read"), 2)), nemesis=False)
    >>> [event.kind for event in events]
    ['invoke', 'ok', 'invoke', 'ok']
    """
    return _ConcurrencyLimit(count, lift(generator))


class _UntilOk:
    __slots__ = ("_generator", "_waiting")

    def __init__(self, generator: Generator, waiting: frozenset[int | str]) -> None:
        self._generator = generator
        self._waiting = waiting

    def op(self, context: Context) -> Answer | None:
        answer = self._generator.op(context)
        if answer is None:
            return None
        event, after = answer
        waiting = self._waiting if isinstance(event, Pending) else self._waiting | {event.process}
        return (event, _UntilOk(after, waiting))

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        if event.kind == "invoke" or event.process not in self._waiting:
            return self if after is self._generator else _UntilOk(after, self._waiting)
        return NOTHING if event.kind == "ok" else _UntilOk(after, self._waiting - {event.process})


def until_ok(generator: Liftable) -> Generator:
    """Until one of its own operations succeeds.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import simulate
    >>> kinds = iter(["fail", "fail", "ok"])
    >>> events = simulate(until_ok(repeat(ask("read"))), concurrency=1, nemesis=False,
    ...                   complete=lambda event, context: (10, next(kinds), None))
    >>> [event.kind for event in events if event.kind != "invoke"]
    ['fail', 'fail', 'ok']
    """
    return _UntilOk(lift(generator), frozenset())
