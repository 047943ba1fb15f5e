"""What is wrong with a generator, found without a cluster.

`problems` runs a generator against simulated clusters, a perfect one and one in which operations fail and get lost,
and looks at everything it asks for. `validate` looks at each operation while a run goes on.
"""

from __future__ import annotations

from typing import Any

from harness.generators.base import Answer, Context, Event, Generator, Liftable, Pending, lift
from harness.generators.limits import limit
from harness.generators.simulate import GeneratorError, after_ms, imperfect, simulate

PROBLEMS_MAX = 20
_KINDS = ("invoke", "sleep", "log")


class _Validate:
    __slots__ = ("_generator",)

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def op(self, context: Context) -> Answer | None:
        try:
            answer = self._generator.op(context)
        except GeneratorError:
            raise
        except Exception as error:
            raise GeneratorError(
                f"the generator {self._generator!r} failed at {context.time_us / 1e6:.3f} s when it was asked for an "
                f"operation: {type(error).__name__}: {error}"
            ) from error
        if answer is None:
            return None
        event, after = answer
        wrong = None if isinstance(event, Pending) else _wrong(event, context)
        if wrong:
            raise GeneratorError(f"at {context.time_us / 1e6:.3f} s the generator asks for {wrong}")
        return (event, _Validate(after))

    def update(self, context: Context, event: Event) -> Generator:
        try:
            after = self._generator.update(context, event)
        except Exception as error:
            raise GeneratorError(
                f"the generator {self._generator!r} failed at {context.time_us / 1e6:.3f} s when it was told of "
                f"{event}: {type(error).__name__}: {error}"
            ) from error
        return self if after is self._generator else _Validate(after)


def _wrong(event: Any, context: Context) -> str | None:
    """What is wrong with an operation, as the object of a sentence."""
    if not isinstance(event, Event):
        return f"{event!r}, which is no event: combinators answer `(event, generator)`"
    there = 0 <= event.thread < len(context.processes) and context.all >> event.thread & 1
    process = context.processes[event.thread] if there else None
    named = f"{event.f!r} by thread {event.thread}"
    checks = (
        (not event.f, f"an operation without a name: {event!r}"),
        (event.kind not in _KINDS, f"{named} of the kind {event.kind!r}; give one of {', '.join(_KINDS)}"),
        (not there, f"{named}, which is none of the threads that there are"),
        (there and not context.free >> event.thread & 1, f"{named}, which is busy with another operation"),
        (event.process != process, f"{named} as process {event.process}, but it is process {process}"),
        (event.time_us < context.time_us, f"{named} at {event.time_us / 1e6:.3f} s, which is in the past"),
    )
    return next((sentence for wrong, sentence in checks if wrong), None)


def validate(generator: Liftable) -> Generator:
    """The same, every operation looked at; a wrong one, or a failure, is a `GeneratorError` that names it.

    >>> from harness.generators import ask, quick
    >>> class Wrong:
    ...     def op(self, context):
    ...         return (Event(0, 7, 7, "read"), self)
    ...     def update(self, context, event):
    ...         return self
    >>> quick(validate(Wrong()))
    Traceback (most recent call last):
    harness.generators.simulate.GeneratorError: at 0.000 s the generator asks for 'read' by thread 7, which is none of \
the threads that there are
    """
    return _Validate(lift(generator))


def problems(
    generator: Liftable,
    *,
    concurrency: int = 5,
    client_fs: frozenset[str] | None = None,
    nemesis_fs: frozenset[str] = frozenset(),
    ops_max: int = 20_000,
) -> list[str]:
    """What is wrong with a generator, in sentences; empty if nothing was found.

    Args:
        generator: a generator that was not asked before.
        concurrency: how many clients to simulate.
        client_fs: operations that clients can do; None for any.
        nemesis_fs: operations that only the nemesis can do.
        ops_max: how many operations to look at, at most.

    >>> from harness.generators import ask, clients, nemesis, on_threads, repeat, limit
    >>> problems(limit(9, clients(repeat(ask("read")))), client_fs=frozenset({"read"}))
    []
    >>> problems(limit(1, nemesis(ask("read"))), client_fs=frozenset({"read"}))
    ["'read' is asked of the nemesis, and is an operation of clients; wrap it in `clients`"]
    >>> problems(limit(1, clients(ask("kill"))), nemesis_fs=frozenset({"kill"}))
    ["'kill' is asked of a client, and is an operation of the nemesis; wrap it in `nemesis`"]
    >>> problems(on_threads([99], ask("read")))[0][:28]
    'the generator waits at 0.000'
    """
    found: dict[str, None] = {}
    value = lift(generator)
    for complete in (after_ms(1), imperfect):
        try:
            events = simulate(limit(ops_max, validate(value)), concurrency=concurrency, complete=complete)
        except GeneratorError as error:
            found[str(error)] = None
            continue
        for event in events:
            if event.kind == "invoke":
                sentence = _misplaced(event, client_fs, nemesis_fs)
                if sentence:
                    found[sentence] = None
    return list(found)[:PROBLEMS_MAX]


def _misplaced(event: Event, client_fs: frozenset[str] | None, nemesis_fs: frozenset[str]) -> str | None:
    of_client = isinstance(event.process, int)
    if of_client and event.f in nemesis_fs:
        return f"{event.f!r} is asked of a client, and is an operation of the nemesis; wrap it in `nemesis`"
    if of_client and client_fs is not None and event.f not in client_fs:
        return f"{event.f!r} is asked of a client, which can do {', '.join(sorted(client_fs))} only"
    if not of_client and client_fs is not None and event.f in client_fs and event.f not in nemesis_fs:
        return f"{event.f!r} is asked of the nemesis, and is an operation of clients; wrap it in `clients`"
    return None
