"""What a generator is, and what it is asked with.

Theory of operation
    A generator is a value that says which operation comes next. It is asked with a context: what time it is, which
    threads are free, which process each thread is. It answers one of

    (event, generator)     the next operation, and the generator for what follows
    (PENDING, generator)   nothing now; ask again when something has happened
    None                   nothing any more, ever

    and is told of everything that happens (`update`), which gives another generator. Whoever asks may drop the
    answer and ask again later: nothing has changed by being asked. So combinators can look at what each of their
    parts would do, and take the soonest.

    Chance comes from the context, as one stream of a seed: the same generator that is asked and told the same gives
    the same operations.

    Most generators do not care what happens. Those say so (`deaf`), and are not told: an operation then costs a
    handful of microseconds however many combinators there are. Such an answer holds until its time, unless it says
    that it is tentative.

What counts as a generator (`lift`)
    None                        nothing
    `ask("read", key)`          one operation, once; as a dict: ``{"f": "read", "key": key, "value": None}``
    a list or tuple             its elements, which are generators, one after the other
    a function                  called (with the context, if it needs an argument) for a generator, again and again
                                when that is exhausted, until it returns None
    a Python generator          what it yields, which are generators; it is run once, as far as is asked for
    whatever has op and update  itself
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

Kind = Literal["invoke", "ok", "fail", "info", "sleep", "log"]
NEMESIS = "nemesis"
EMPTY_MAX = 10_000  # generators without an operation in a row before that is an error


class Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An operation that is to happen, or what became of it.

    Attributes:
        time_us: microseconds since the start.
        thread: who does it: 0 and up are clients; `Context.nemesis` is the nemesis.
        process: as which process; "nemesis" for the nemesis.
        f, key, value: what is asked.
        kind: ``invoke`` for what is to happen; ``sleep`` keeps the thread busy for `value` seconds and ``log`` says
            `value` while a run goes on, both without a trace in the history; the others are completions.
        tentative: of an answer that lies in the future: another part of the generator waits for a thread, and would
            come before it.
    """

    time_us: int
    thread: int
    process: int | str
    f: str
    key: Any = None
    value: Any = None
    kind: Kind = "invoke"
    tentative: bool = False


class Pending:
    """Nothing now."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "PENDING"


PENDING = Pending()


class Draws:
    """Where chance comes from: the stream of one seed."""

    __slots__ = ("random",)

    def __init__(self, seed: int) -> None:
        self.random: Callable[[], float] = Random(seed).random

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return int(self.random() * n)


class Context:
    """When and by whom an operation may be done; sets of threads are bits of an integer.

    Attributes:
        time_us: now.
        free: the threads that are free.
        all: the threads that there are.
        processes: the process of each thread.
        dice: where chance comes from.
    """

    __slots__ = ("all", "dice", "free", "processes", "time_us")

    def __init__(
        self, time_us: int, free: int, everyone: int, processes: Sequence[int | str], dice: Draws
    ) -> None:
        self.time_us = time_us
        self.free = free
        self.all = everyone
        self.processes = processes
        self.dice = dice

    @classmethod
    def start(cls, concurrency: int, *, seed: int = 0, nemesis: bool = True) -> Context:
        """At time 0, everybody free."""
        everyone = (1 << concurrency + nemesis) - 1
        processes: list[int | str] = [*range(concurrency), *([NEMESIS] if nemesis else [])]
        return cls(0, everyone, everyone, processes, Draws(seed))

    @property
    def nemesis(self) -> int:
        """The thread of the nemesis, as a bit; 0 where there is none."""
        return 1 << len(self.processes) - 1 if self.processes[-1] == NEMESIS else 0

    def only(self, threads: int) -> Context:
        """The same for these threads alone."""
        return Context(self.time_us, self.free & threads, self.all & threads, self.processes, self.dice)

    def at(self, time_us: int) -> Context:
        """The same at another time."""
        return Context(time_us, self.free, self.all, self.processes, self.dice)

    def some_free(self) -> int:
        """A free thread, each as likely; -1 where there is none."""
        free = self.free
        count = free.bit_count()
        if count <= 1:
            return free.bit_length() - 1
        for _ in range(self.dice.below(count)):
            free &= free - 1
        return (free & -free).bit_length() - 1


Answer: TypeAlias = "tuple[Event | Pending, Generator]"
"""What comes next, and the generator for what follows."""


@runtime_checkable
class Generator(Protocol):
    """See the module."""

    def op(self, context: Context) -> Answer | None:
        """The next operation; changes nothing."""
        ...

    def update(self, context: Context, event: Event) -> Generator:
        """The generator after the event: an operation that began, or a completion."""
        ...


def is_deaf(generator: Generator) -> bool:
    """Whether what happens does not matter to the generator, nor to what it becomes before its next operation."""
    return getattr(generator, "deaf", False)


class Quiet:
    """For generators that what happens does not matter to."""

    __slots__ = ()
    deaf = True

    def update(self, context: Context, event: Event) -> Generator:
        """Itself."""
        del context, event
        return self  # type: ignore[return-value]


class Nothing(Quiet):
    """No operation, ever."""

    __slots__ = ()

    def op(self, context: Context) -> None:
        """Nothing."""
        del context


NOTHING = Nothing()


class Ask(Quiet):
    """One operation, once, by some free thread.

    >>> generator = ask("read", "x")
    >>> event, after = generator.op(Context.start(2, nemesis=False))
    >>> event.f, event.key, after.op(Context.start(2))
    ('read', 'x', None)
    """

    __slots__ = ("f", "key", "kind", "value")

    def __init__(self, f: str, key: Any = None, value: Any = None, kind: Kind = "invoke") -> None:
        self.f, self.key, self.value, self.kind = f, key, value, kind

    def op(self, context: Context) -> Answer:
        """See the class."""
        thread = context.some_free()
        if thread < 0:
            return (PENDING, self)
        event = Event(
            context.time_us, thread, context.processes[thread], self.f, self.key, self.value, self.kind
        )
        return (event, NOTHING)

    def __repr__(self) -> str:
        return f"ask({self.f!r}, {self.key!r}, {self.value!r})"


def ask(f: str, key: Any = None, value: Any = None) -> Ask:
    """One operation, once."""
    return Ask(f, key, value)


def sleep(seconds: float) -> Ask:
    """Keeps one thread busy for so long.

    >>> sleep(2.0).op(Context.start(1))[0].kind
    'sleep'
    """
    return Ask("sleep", None, seconds, "sleep")


def log(message: str) -> Ask:
    """Prints a line when a live run (`harness.live`) comes to it; nothing of it is in the history, nor in a plan.

    >>> log("half way").op(Context.start(1))[0].value
    'half way'
    """
    return Ask("log", None, message, "log")


class Sequence_:  # noqa: N801 - `Sequence` is taken
    """Generators one after the other; what happens is told to the first that is left.

    >>> from harness.generators.simulate import quick
    >>> [event.f for event in quick([ask("a"), [ask("b"), None], ask("c")])]
    ['a', 'b', 'c']
    """

    __slots__ = ("_parts", "_place", "deaf")

    def __init__(self, parts: Sequence[Generator], place: int = 0) -> None:
        self._parts = parts
        self._place = place
        self.deaf = place >= len(parts) or is_deaf(parts[place])

    def op(self, context: Context) -> Answer | None:
        """Of the first that is not exhausted."""
        place = self._place
        while place < len(self._parts):
            answer = self._parts[place].op(context)
            if answer is not None:
                event, after = answer
                return (event, Sequence_.of(after, self._parts, place + 1))
            place += 1
        return None

    def update(self, context: Context, event: Event) -> Generator:
        """Told to the first."""
        if self._place >= len(self._parts):
            return self
        first = self._parts[self._place]
        after = first.update(context, event)
        return self if after is first else Sequence_.of(after, self._parts, self._place + 1)

    @staticmethod
    def of(first: Generator, parts: Sequence[Generator], place: int) -> Generator:
        """`first`, and then the parts from `place` on."""
        if first is NOTHING:
            return Sequence_(parts, place) if place < len(parts) else NOTHING
        return Begun(first, Sequence_(parts, place)) if place < len(parts) else first


class Begun:
    """A generator that is being done, and what follows it."""

    __slots__ = ("_first", "_rest", "deaf")

    def __init__(self, first: Generator, rest: Generator) -> None:
        self._first = first
        self._rest = rest
        self.deaf = is_deaf(first)

    def op(self, context: Context) -> Answer | None:
        """Of the first, then of the rest."""
        answer = self._first.op(context)
        if answer is None:
            return self._rest.op(context)
        event, after = answer
        return (event, self._rest if after is NOTHING else Begun(after, self._rest))

    def update(self, context: Context, event: Event) -> Generator:
        """Told to the first."""
        after = self._first.update(context, event)
        return self if after is self._first else Begun(after, self._rest)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Calls(Quiet):
    """A function, called for a generator whenever the one that it gave is exhausted.

    >>> from harness.generators.simulate import quick
    >>> from harness.generators.limits import limit
    >>> [event.f for event in quick(limit(3, lambda: ask("read")))]
    ['read', 'read', 'read']

    What an argument is bound to already is left alone, so that a loop can make functions:

    >>> [event.key for event in quick([limit(1, lambda key=key: ask("read", key)) for key in "xy"])]
    ['x', 'y']
    """

    __slots__ = ("_function", "_needs_context")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._needs_context = any(
            argument.default is argument.empty and argument.kind in _POSITIONAL
            for argument in inspect.signature(function).parameters.values()
        )

    def op(self, context: Context) -> Answer | None:
        """Of what the function gives; one that is exhausted from the start is passed over."""
        for _ in range(EMPTY_MAX):
            made = self._function(context) if self._needs_context else self._function()
            if made is None:
                return None
            answer = lift(made).op(context)
            if answer is not None:
                event, after = answer
                return (event, self if after is NOTHING else Begun(after, self))
        raise ValueError(
            f"{self._function!r} gave {EMPTY_MAX} generators in a row without an operation; let it give None at its end"
        )


class Stream(Quiet):
    """What an iterator yields, remembered as far as it was asked for, so that asking twice is the same as once.

    >>> from harness.generators.simulate import quick
    >>> [event.value for event in quick(ask("write", None, n) for n in range(3))]
    [0, 1, 2]
    """

    __slots__ = ("_iterator", "first", "rest")

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self.first: Generator | None = None
        self.rest: Stream | None = None

    def op(self, context: Context) -> Answer | None:
        """Of the first, then of the rest."""
        here: Stream | None = self
        while here is not None:
            if here.rest is None and not here.advance():
                return None
            assert here.first is not None, "it was just advanced"
            answer = here.first.op(context)
            if answer is not None:
                event, after = answer
                assert here.rest is not None, "it was just advanced"
                return (event, here.rest if after is NOTHING else Begun(after, here.rest))
            here = here.rest
        return None

    def advance(self) -> bool:
        """Take one from the iterator, if there is one."""
        for made in self._iterator:
            self.first = lift(made)
            self.rest = Stream(self._iterator)
            return True
        return False


Liftable: TypeAlias = Any  # see "What counts as a generator"


def lift(thing: Liftable) -> Generator:
    """The thing as a generator; see the module.

    Raises:
        TypeError: it is none of the things that count as a generator.

    >>> lift({"f": "read", "key": "x"})
    ask('read', 'x', None)
    >>> lift(3)
    Traceback (most recent call last):
    TypeError: 3 is no generator: give an operation, a list, a function, a Python generator, or None
    """
    if thing is None:
        return NOTHING
    if isinstance(thing, Mapping):
        if "f" not in thing or not thing.keys() <= {"f", "key", "value"}:
            raise TypeError(
                f"{dict(thing)!r} is no operation: give an f, and a key and a value where there are any"
            )
        return Ask(thing["f"], thing.get("key"), thing.get("value"))
    # Lifted once: a Python generator among the members is remembered as it is asked.
    if isinstance(thing, list | tuple):
        return Sequence_(tuple(map(lift, thing))) if thing else NOTHING
    if hasattr(thing, "op") and hasattr(thing, "update"):
        return thing  # type: ignore[no-any-return]
    if callable(thing):
        return Calls(thing)
    if isinstance(thing, Iterator):
        return Stream(thing)
    raise TypeError(
        f"{thing!r} is no generator: give an operation, a list, a function, a Python generator, or None"
    )
