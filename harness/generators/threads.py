"""Combinators of threads: who does what, and who waits for whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
    is_deaf,
    lift,
)

Threads = Iterable[int] | Callable[[int], bool]


def _bits(threads: Threads, context: Context) -> int:
    """The threads of the context that are meant, as bits."""
    if callable(threads):
        return sum(1 << n for n in range(len(context.processes)) if context.all >> n & 1 and threads(n))
    return sum(1 << n for n in threads) & context.all


class _On:
    __slots__ = ("_choose", "_generator", "deaf")

    def __init__(self, choose: Callable[[Context], int], generator: Generator) -> None:
        self._choose = choose
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        answer = self._generator.op(context.only(self._choose(context)))
        if answer is None:
            return None
        return (answer[0], NOTHING if answer[1] is NOTHING else _On(self._choose, answer[1]))

    def update(self, context: Context, event: Event) -> Generator:
        mine = self._choose(context)
        if not mine >> event.thread & 1:
            return self
        after = self._generator.update(context.only(mine), event)
        return self if after is self._generator else _On(self._choose, after)


def on_threads(threads: Threads, generator: Liftable) -> Generator:
    """Done by these threads only (numbers, or a function that says which); it knows of no others.

    >>> from harness.generators import ask, repeat
    >>> from harness.generators.simulate import quick
    >>> {event.thread for event in quick(on_threads([1], repeat(ask("read"), 9)), concurrency=3)}
    {1}
    """
    chosen = threads if callable(threads) else tuple(threads)
    return _On(lambda context: _bits(chosen, context), lift(generator))


def _clients(context: Context) -> int:
    return context.all & ~context.nemesis


def _nemesis(context: Context) -> int:
    return context.all & context.nemesis


def clients(generator: Liftable, nemesis_generator: Liftable = None) -> Generator:
    """Done by clients; the nemesis does the second one, if there is one.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import simulate
    >>> [event.process for event in simulate(clients(ask("read"), ask("kill"))) if event.kind == "invoke"]
    [1, 'nemesis']
    """
    mine = _On(_clients, lift(generator))
    return mine if nemesis_generator is None else any_of(mine, nemesis(nemesis_generator))


def nemesis(generator: Liftable, client_generator: Liftable = None) -> Generator:
    """Done by the nemesis; clients do the second one, if there is one.

    >>> from harness.generators import ask
    >>> nemesis(ask("kill")).op(Context.start(2))[0].process
    'nemesis'
    """
    mine = _On(_nemesis, lift(generator))
    return mine if client_generator is None else any_of(mine, clients(client_generator))


class _Any:
    __slots__ = ("_generators", "_shortest", "_weights", "deaf")

    def __init__(
        self, generators: tuple[Generator, ...], weights: tuple[int, ...], *, shortest: bool = False
    ) -> None:
        self._generators = generators
        self.deaf = all(map(is_deaf, generators))
        self._weights = weights
        self._shortest = shortest

    def op(self, context: Context) -> Answer | None:
        best: Answer | None = None
        place, weight = -1, 0
        waits = False
        for n, generator in enumerate(self._generators):
            answer = generator.op(context)
            if answer is None:
                if self._shortest:
                    return None
                continue
            waits = waits or isinstance(answer[0], Pending)
            order = soonest(answer, best)
            if order == 0:  # a tie: each with the chance of its weight
                weight += self._weights[n]
                if context.dice.random() * weight >= self._weights[n]:
                    continue
            elif order > 0:
                continue
            else:
                weight = self._weights[n]
            best, place = answer, n
        if best is None:
            return None
        generators = (*self._generators[:place], best[1], *self._generators[place + 1 :])
        event = tentative(best[0], context) if waits else best[0]
        return (event, _Any(generators, self._weights, shortest=self._shortest))

    def update(self, context: Context, event: Event) -> Generator:
        generators = tuple(generator.update(context, event) for generator in self._generators)
        if all(new is old for new, old in zip(generators, self._generators, strict=True)):
            return self
        return _Any(generators, self._weights, shortest=self._shortest)


def tentative(event: Event | Pending, context: Context) -> Event | Pending:
    """The event, marked where another part waits and may come before it."""
    if isinstance(event, Pending) or event.time_us <= context.time_us:
        return event
    return msgspec.structs.replace(event, tentative=True)


def soonest(answer: Answer, best: Answer | None) -> int:
    """Below 0 where the answer comes sooner than the best so far, 0 for a tie."""
    if best is None:
        return -1
    if isinstance(answer[0], Pending):
        return 1
    if isinstance(best[0], Pending):
        return -1
    return (answer[0].time_us > best[0].time_us) - (answer[0].time_us < best[0].time_us)


def any_of(*generators: Liftable, weights: Iterable[int] | None = None) -> Generator:
    """Whichever comes soonest; of those that come at the same time one by chance, in proportion to the weights.

    All are told of everything.

    >>> from harness.generators import ask, delay, repeat
    >>> from harness.generators.simulate import simulate
    >>> both = any_of(delay(2, repeat(ask("slow"), 2)), delay(1, repeat(ask("fast"), 3)))
    >>> [event.time_us // 1_000_000 for event in simulate(both) if event.kind == "invoke"]
    [0, 0, 1, 2, 2]
    """
    lifted = tuple(lift(generator) for generator in generators)
    return _Any(lifted, _weights(weights, len(lifted)))


def _weights(weights: Iterable[int] | None, count: int) -> tuple[int, ...]:
    """One weight for each generator."""
    if weights is None:
        return (1,) * count
    given = tuple(weights)
    if len(given) != count or min(given, default=0) < 0 or not sum(given):
        raise ValueError(
            f"the weights {given} are not for {count} generators; give each one, not all of them 0"
        )
    return given


def shortest_any(*generators: Liftable) -> Generator:
    """As `any_of`, but it ends as soon as one of them does.

    >>> from harness.generators import ask, repeat, delay
    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick(shortest_any(delay(1, repeat(ask("read"))), delay(1, [ask("stop")])))].count("stop")
    1
    """
    lifted = tuple(lift(generator) for generator in generators)
    return _Any(lifted, (1,) * len(lifted), shortest=True)


def is_now(answer: Answer, context: Context) -> bool:
    """Whether nothing can come sooner."""
    event = answer[0]
    return isinstance(event, Event) and event.time_us <= context.time_us


class _Each:
    """A copy for each thread, or for each process; made when its turn first comes."""

    __slots__ = ("_by_process", "_copies", "_fresh")

    def __init__(
        self, fresh: Generator, copies: dict[int, tuple[int | str, Generator]], *, by_process: bool
    ) -> None:
        self._fresh = fresh
        self._copies = copies
        self._by_process = by_process

    def _copy(self, thread: int, context: Context) -> Generator:
        process, generator = self._copies.get(thread, (None, self._fresh))
        return self._fresh if self._by_process and process != context.processes[thread] else generator

    def op(self, context: Context) -> Answer | None:
        best: Answer | None = None
        place, ties = -1, 0
        waiting = False
        for thread in range(len(context.processes)):
            if not context.all >> thread & 1:
                continue
            if not context.free >> thread & 1:
                waiting = True  # what it will want when it is free is not known
                continue
            answer = self._copy(thread, context).op(context.only(1 << thread))
            if answer is None:
                continue
            order = soonest(answer, best)
            if order == 0:
                ties += 1
                if context.dice.random() * ties >= 1:
                    continue
            elif order > 0:
                continue
            else:
                ties = 1
            best, place = answer, thread
        if best is None:
            return (PENDING, self) if waiting else None
        return (best[0], self._with(place, context, best[1]))

    def _with(self, thread: int, context: Context, generator: Generator) -> _Each:
        copies = {**self._copies, thread: (context.processes[thread], generator)}
        return _Each(self._fresh, copies, by_process=self._by_process)

    def update(self, context: Context, event: Event) -> Generator:
        if not context.all >> event.thread & 1:
            return self
        if context.processes[event.thread] != event.process and self._by_process:
            return self
        before = self._copy(event.thread, context)
        after = before.update(context.only(1 << event.thread), event)
        return self if after is before else self._with(event.thread, context, after)


def each_thread(generator: Liftable) -> Generator:
    """Every thread does the whole generator for itself.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> sorted((event.thread, event.f) for event in quick(each_thread([ask("a"), ask("b")])))
    [(0, 'a'), (0, 'b'), (1, 'a'), (1, 'b')]
    """
    return _Each(lift(generator), {}, by_process=False)


def each_process(generator: Liftable) -> Generator:
    """As `each_thread`, but a thread begins anew when its process has ended with an unknown outcome.

    >>> from harness.generators import ask, limit
    >>> from harness.generators.simulate import after_ms, simulate
    >>> events = simulate(limit(4, each_process([ask("a"), ask("b")])), concurrency=1, nemesis=False,
    ...                   complete=after_ms(1, "info"))
    >>> [(event.process, event.f) for event in events if event.kind == "invoke"]
    [(0, 'a'), (1, 'a'), (2, 'a'), (3, 'a')]
    """
    return _Each(lift(generator), {}, by_process=True)


class _Mix:
    """Which one is next is drawn when the one before was done, so that looking twice shows the same.

    Where that one waits, another takes its turn, and the lot stays: it is that one's turn as soon as it can.
    """

    __slots__ = ("_generators", "_lot", "_weights", "deaf")

    def __init__(
        self,
        generators: tuple[Generator, ...],
        weights: tuple[int, ...],
        lot: float | None,
        *,
        deaf: bool | None = None,
    ) -> None:
        self._generators = generators
        self.deaf = all(map(is_deaf, generators)) if deaf is None else deaf
        self._weights = weights
        self._lot = lot

    def op(self, context: Context) -> Answer | None:
        generators, weights = self._generators, self._weights
        lot = self._lot if self._lot is not None else context.dice.random()
        while generators:
            place = drawn(lot, weights)
            answer = generators[place].op(context)
            if answer is not None:
                waits = isinstance(answer[0], Pending)
                if waits and context.free:
                    place, answer = _another(generators, place, answer, context)
                event, after = answer
                event = tentative(event, context) if waits else event
                generators = (*generators[:place], after, *generators[place + 1 :])
                following = lot if waits else context.dice.random()
                deaf = is_deaf(after) if self.deaf else None
                return (event, _Mix(generators, weights, following, deaf=deaf))
            generators = (*generators[:place], *generators[place + 1 :])
            weights = (*weights[:place], *weights[place + 1 :])
        return None

    def update(self, context: Context, event: Event) -> Generator:
        generators = tuple(generator.update(context, event) for generator in self._generators)
        if all(new is old for new, old in zip(generators, self._generators, strict=True)):
            return self
        return _Mix(generators, self._weights, self._lot)


def _another(
    generators: tuple[Generator, ...], place: int, waiting: Answer, context: Context
) -> tuple[int, Answer]:
    """The next one round that does not wait, with its operation; else the one that was drawn."""
    for step in range(1, len(generators)):
        other = (place + step) % len(generators)
        answer = generators[other].op(context)
        if answer is not None and not isinstance(answer[0], Pending):
            return other, answer
    return place, waiting


def drawn(lot: float, weights: tuple[int, ...]) -> int:
    """Which one a number in [0, 1) means, each by its weight."""
    left = lot * sum(weights)
    for place, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return place
    return len(weights) - 1


def mix(*generators: Liftable, weights: Iterable[int] | None = None) -> Generator:
    """Each operation from one of them, drawn by the weights; until all are exhausted. All are told of everything.

    One that waits holds up nobody: another takes its turn.

    >>> from harness.generators import ask, limit, repeat
    >>> from harness.generators.simulate import quick
    >>> fs = [event.f for event in quick(limit(1000, mix(repeat(ask("r")), repeat(ask("w")), weights=(3, 1))))]
    >>> 700 < fs.count("r") < 800
    True
    """
    lifted = tuple(lift(generator) for generator in generators)
    return _Mix(lifted, _weights(weights, len(lifted)), None)


class _FlipFlop:
    __slots__ = ("_next", "_other", "deaf")

    def __init__(self, following: Generator, other: Generator) -> None:
        self._next = following
        self._other = other
        self.deaf = is_deaf(following) and is_deaf(other)

    def op(self, context: Context) -> Answer | None:
        answer = self._next.op(context)
        if answer is None:
            return None
        event, after = answer
        if isinstance(event, Pending):
            return (event, _FlipFlop(after, self._other))
        return (event, _FlipFlop(self._other, after))

    def update(self, context: Context, event: Event) -> Generator:
        following, other = self._next.update(context, event), self._other.update(context, event)
        return self if following is self._next and other is self._other else _FlipFlop(following, other)


def flip_flop(first: Liftable, second: Liftable) -> Generator:
    """One of the first, one of the second, one of the first, until one of them is exhausted.

    >>> from harness.generators import ask, repeat
    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick(flip_flop(repeat(ask("start"), 2), repeat(ask("stop"))))]
    ['start', 'stop', 'start', 'stop']
    """
    return _FlipFlop(lift(first), lift(second))


class _Synchronize:
    __slots__ = ("_generator", "deaf")

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.deaf = is_deaf(generator)

    def op(self, context: Context) -> Answer | None:
        if context.free != context.all:
            return (PENDING, self)
        return self._generator.op(context)

    def update(self, context: Context, event: Event) -> Generator:
        after = self._generator.update(context, event)
        return self if after is self._generator else _Synchronize(after)


def synchronize(generator: Liftable) -> Generator:
    """Begins when all threads are free. One operation that hangs holds up everything behind this.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import simulate
    >>> events = simulate([ask("a"), synchronize(ask("b"))])
    >>> [(event.f, event.kind) for event in events]
    [('a', 'invoke'), ('a', 'ok'), ('b', 'invoke'), ('b', 'ok')]
    """
    return _Synchronize(lift(generator))


def phases(*generators: Liftable) -> Generator:
    """One after the other, each when everything of the one before has ended.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import simulate
    >>> [event.f for event in simulate(phases(ask("write"), ask("read"))) if event.kind == "ok"]
    ['write', 'read']
    """
    return lift([synchronize(generator) for generator in generators])


def then(second: Liftable, first: Liftable) -> Generator:
    """`first`, and when everything of it has ended, `second`.

    >>> from harness.generators import ask
    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick(then(ask("read"), ask("write")))]
    ['write', 'read']
    """
    return lift([first, synchronize(second)])
