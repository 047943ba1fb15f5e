"""Combinators that change operations, or what a generator is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from harness.generators.base import (
    NOTHING,
    PENDING,
    Answer,
    Context,
    Event,
    Generator,
    Liftable,
    Pending,
    Quiet,
    is_deaf,
    lift,
)

FILTER_MAX = 100_000  # operations that are left out in a row before that is an error


class _Map:
    __slots__ = ("_change", "_generator", "deaf")

    def __init__(self, change: Callable[[Event], Event | None], generator: Generator) -> None:
        self._change = change
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        generator = self._generator
        for _ in range(FILTER_MAX):
            answer = generator.op(context)
            if answer is None:
                return None
            event, after = answer
            changed = event if isinstance(event, Pending) else self._change(event)
            if changed is not None:
                return (changed, NOTHING if after is NOTHING else _Map(self._change, after))
            generator = after
        raise ValueError(f"{FILTER_MAX} operations in a row were left out; none may ever be let through")

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _Map(self._change, after)


def map_ops(change: Callable[[Event], Event], generator: Liftable) -> Generator:
    """Every operation as the function makes it.

    >>> from harness.generators import ask, quick
    >>> quick(map_ops(lambda event: msgspec.structs.replace(event, key="y"), ask("read", "x")))[0].key
    'y'
    """
    return _Map(change, lift(generator))


def f_map(names: Mapping[str, str], generator: Liftable) -> Generator:
    """Operations under other names, so that several generators can be told apart.

    >>> from harness.generators import ask, quick
    >>> quick(f_map({"start": "start-partition"}, ask("start")))[0].f
    'start-partition'
    """
    return _Map(lambda event: msgspec.structs.replace(event, f=names.get(event.f, event.f)), lift(generator))


def filter_ops(keep: Callable[[Event], bool], generator: Liftable) -> Generator:
    """Only the operations for which the function says so.

    >>> from harness.generators import ask, quick
    >>> [event.value for event in quick(filter_ops(lambda e: e.value % 2, (ask("add", None, n) for n in range(6))))]
    [1, 3, 5]
    """
    return _Map(lambda event: event if keep(event) else None, lift(generator))


class _Deaf(Quiet):
    __slots__ = ("_generator",)

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def op(self, context: Context) -> Answer | None:
        answer = self._generator.op(context)
        return None if answer is None else (answer[0], _Deaf(answer[1]))


def ignore_updates(generator: Liftable) -> Generator:
    """It is told of nothing.

    >>> from harness.generators import ask, quick, until_ok, repeat, limit
    >>> len(quick(limit(3, ignore_updates(until_ok(repeat(ask("read")))))))
    3
    """
    return _Deaf(lift(generator))


OnUpdate = Callable[[Generator, Context, Event], Liftable]


class _OnUpdate:
    __slots__ = ("_function", "_generator")

    def __init__(self, function: OnUpdate, generator: Generator) -> None:
        self._function = function
        self._generator = generator

    def op(self, context: Context) -> Answer | None:
        answer = self._generator.op(context)
        return None if answer is None else (answer[0], _OnUpdate(self._function, answer[1]))

    def update(self, context: Context, event: Event) -> Generator:
        return _OnUpdate(self._function, lift(self._function(self._generator, context, event)))


def on_update(function: OnUpdate, generator: Liftable) -> Generator:
    """What it becomes when something happens is what the function says, of it, the context and the event.

    >>> from harness.generators import ask, quick, repeat
    >>> def stop(generator, context, event):
    ...     return None if event.kind == "ok" else generator.update(context, event)
    >>> len(quick(on_update(stop, repeat(ask("read"))), concurrency=1))
    1
    """
    return _OnUpdate(function, lift(generator))


class _Trace:
    __slots__ = ("_generator", "_say")

    def __init__(self, say: Callable[[str], object], generator: Generator) -> None:
        self._say = say
        self._generator = generator

    def op(self, context: Context) -> Answer | None:
        answer = self._generator.op(context)
        self._say(f"{context.time_us} us: asked, {'nothing any more' if answer is None else answer[0]}")
        return None if answer is None else (answer[0], _Trace(self._say, answer[1]))

    def update(self, context: Context, event: Event) -> Generator:
        self._say(f"{context.time_us} us: told {event}")
        return _Trace(self._say, self._generator.update(context, event))


def trace(generator: Liftable, say: Callable[[str], object]) -> Generator:
    """Says whatever the generator is asked and told, and what it answers.

    >>> from harness.generators import ask, quick
    >>> said = []
    >>> _ = quick(trace(ask("read"), said.append))
    >>> said[-1]
    '0 us: asked, nothing any more'
    """
    return _Trace(say, lift(generator))


class _Later(Quiet):
    """Made when it is first asked, once."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], Liftable]) -> None:
        self._make = make
        self._made: Generator | None = None

    def op(self, context: Context) -> Answer | None:
        if not context.free:
            return (PENDING, self)
        if self._made is None:
            self._made = lift(self._make())
        return self._made.op(context)


def later(make: Callable[[], Liftable]) -> Generator:
    """Made only when an operation of it could be done, and once.

    >>> from harness.generators import ask, quick
    >>> [event.f for event in quick([ask("a"), later(lambda: ask("b"))])]
    ['a', 'b']
    """
    return _Later(make)


class Promise:
    """A generator that is given later; until then it waits.

    Not for plans, which are made before anything happens: for a run that is driven by its generator
    (`execute(..., live=generator)`), where one part decides what another is to do.

    >>> from harness.generators import ask, on_update, quick
    >>> promise = Promise()
    >>> def decide(generator, context, event):
    ...     if event.kind == "ok":
    ...         promise.give(ask("read", event.value))
    ...     return generator
    >>> [event.f for event in quick([on_update(decide, ask("write", "x", 1)), promise])]
    ['write', 'read']
    """

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: Generator | None = None

    def give(self, generator: Liftable) -> None:
        """From now on it is this one; only the first that is given counts."""
        if self._given is None:
            self._given = lift(generator)

    def op(self, context: Context) -> Answer | None:
        """Of the generator that was given."""
        return (PENDING, self) if self._given is None else self._given.op(context)

    def update(self, context: Context, event: Event) -> Generator:
        """Told to the generator that was given."""
        return self if self._given is None else self._given.update(context, event)


def promise() -> Promise:
    """A generator that is given later, by `promise.give(generator)`; see `Promise`.

    >>> from harness.generators import ask, quick
    >>> later_on = promise()
    >>> later_on.give(ask("read"))
    >>> [event.f for event in quick(later_on)]
    ['read']
    """
    return Promise()
