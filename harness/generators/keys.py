"""One generator for each of many keys: short histories that can be checked apart from each other.

A key's generator is made when its turn comes, by a function of the key; its operations get the key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from harness.generators.base import (
    NOTHING,
    PENDING,
    Answer,
    Context,
    Event,
    Generator,
    Liftable,
    is_deaf,
    lift,
)
from harness.generators.threads import is_now, soonest, tentative
from harness.generators.wraps import map_ops


def _keyed(key: Any, make: Callable[[Any], Liftable]) -> Generator:
    def with_key(event: Event) -> Event:  # `msgspec.structs.replace` takes four times as long
        return Event(
            event.time_us, event.thread, event.process, event.f, key, event.value, event.kind, event.tentative
        )

    return map_ops(with_key, make(key))


def sequential_keys(keys: Iterable[Any], make: Callable[[Any], Liftable]) -> Generator:
    """All threads work on one key, then all on the next.

    >>> from harness.generators import ask, quick, repeat
    >>> [event.key for event in quick(sequential_keys(["x", "y"], lambda key: repeat(ask("read"), 2)))]
    ['x', 'x', 'y', 'y']
    """
    return lift(_keyed(key, make) for key in keys)


class _Groups:
    """Groups of threads, each with a key of its own; a group whose key is exhausted takes the next."""

    __slots__ = ("deaf", "keys", "make", "masks", "size", "work")

    def __init__(
        self,
        size: int,
        keys: _Keys,
        make: Callable[[Any], Liftable],
        work: tuple[Generator, ...] | None,
        masks: tuple[int, ...] = (),
        *,
        deaf: bool = False,
    ) -> None:
        self.deaf = deaf
        self.size = size
        self.keys = keys
        self.make = make
        self.work = work
        self.masks = masks

    def _started(self, context: Context) -> _Groups:
        threads = (context.all & ~context.nemesis).bit_count()
        if threads % self.size or threads < self.size:
            raise ValueError(
                f"{threads} threads are no groups of {self.size}; give a concurrency that is a multiple of it"
            )
        keys, work = self.keys, []
        for _ in range(threads // self.size):
            generator, keys = self.next_of(keys)
            work.append(generator)
        masks = tuple(self.bits_of(group, context) for group in range(len(work)))
        return _Groups(self.size, keys, self.make, tuple(work), masks, deaf=all(map(is_deaf, work)))

    def next_of(self, keys: _Keys) -> tuple[Generator, _Keys]:
        if not keys.there():
            return NOTHING, keys
        return _keyed(keys.first, self.make), keys.rest

    def bits_of(self, group: int, context: Context) -> int:
        """The threads of a group, counted among those there are."""
        bits, threads = 0, context.all & ~context.nemesis
        for _ in range(group * self.size):
            threads &= threads - 1
        for _ in range(self.size):
            bits |= threads & -threads
            threads &= threads - 1
        return bits

    def op(self, context: Context) -> Answer | None:
        here = self if self.work is not None else self._started(context)
        groups = len(here.work or ())
        first = context.dice.below(groups)
        # One is drawn; if it has something to do at once, the others need not be asked. Nor need those of whom nobody
        # is free: they wait, whatever they would do.
        if context.free & here.masks[first]:
            answer, here = here.ask_of(first, context.only(here.masks[first]))
            if answer is not None and is_now(answer, context):
                return (answer[0], here.with_of(first, answer[1]))
        best: Answer | None = None
        place, ties, waiting = -1, 0, False
        for group in range(groups):
            if not context.free & here.masks[group]:
                waiting = True
                continue
            mine = context.only(here.masks[group])
            answer, here = here.ask_of(group, mine)
            if answer is None:
                waiting = waiting or mine.free != mine.all
                continue
            order = soonest(answer, best)
            ties = ties + 1 if order == 0 else ties
            if order > 0 or (order == 0 and context.dice.random() * ties >= 1):
                continue
            ties = 1 if order < 0 else ties
            best, place = answer, group
        if best is None:
            return (PENDING, here) if waiting else None
        return (tentative(best[0], context) if waiting else best[0], here.with_of(place, best[1]))

    def ask_of(self, group: int, context: Context) -> tuple[Answer | None, _Groups]:
        """What a group does next, with a new key if it has to."""
        here = self
        while here.work is not None:
            answer = here.work[group].op(context)
            if answer is not None or not here.keys.there():
                return answer, here
            generator, keys = here.next_of(here.keys)
            here = _Groups(here.size, keys, here.make, here.work, here.masks, deaf=here.deaf)
            here = here.with_of(group, generator)
        return None, here

    def with_of(self, group: int, generator: Generator) -> _Groups:
        work = self.work or ()
        work = (*work[:group], generator, *work[group + 1 :])
        deaf = is_deaf(generator) if self.deaf else all(map(is_deaf, work))
        return _Groups(self.size, self.keys, self.make, work, self.masks, deaf=deaf)

    def update(self, context: Context, event: Event) -> Generator:
        for group, generator in enumerate(self.work or ()):
            bits = self.masks[group]
            if bits >> event.thread & 1:
                after = generator.update(context.only(bits), event)
                return self if after is generator else self.with_of(group, after)
        return self


class _Keys:
    """Keys from an iterator, remembered as far as they were taken."""

    __slots__ = ("_iterator", "_rest", "first")

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._rest: _Keys | None = None
        self.first: Any = None

    def there(self) -> bool:
        """Whether there is another key: then `first` is it."""
        if self._rest is None:
            for key in self._iterator:
                self.first, self._rest = key, _Keys(self._iterator)
                break
        return self._rest is not None

    @property
    def rest(self) -> _Keys:
        """The keys after `first`."""
        assert self._rest is not None, "`there` is asked before"
        return self._rest


def concurrent_keys(size: int, keys: Iterable[Any], make: Callable[[Any], Liftable]) -> Generator:
    """Groups of `size` clients, each group on a key of its own; whose key is exhausted takes the next one.

    The number of clients must be a multiple of `size`.

    >>> from harness.generators import ask, quick, repeat
    >>> events = quick(concurrent_keys(2, ["x", "y", "z"], lambda key: repeat(ask("read"), 2)), concurrency=4)
    >>> sorted(event.key for event in events)
    ['x', 'x', 'y', 'y', 'z', 'z']
    >>> {event.key for event in events if event.thread < 2} & {"y"}
    set()
    """
    return _Groups(size, _Keys(iter(keys)), make, None)
