"""Running a generator without a cluster: to test it, and to make a plan of it.

Theory of operation
    Virtual time, as in the simulator. Whatever is due first happens: completions before new operations, since a
    thread that is free again may be the one that the generator waits for (the other order would make operations
    concurrent that need not be). The generator is asked again after every event.

Rules of this module
    1. The same generator, seed and completions give the same operations.
    2. It ends: a generator that waits for something that cannot come any more is an error that says so, and so is one
       that goes on beyond `ops_max` operations.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import msgspec

from harness.generators.base import PENDING, Context, Event, Generator, Kind, Pending, is_deaf, lift

Complete = Callable[[Event, Context], tuple[int, Kind, Any]]  # -> microseconds later, how it ends, its value
OPS_MAX = 5_000_000


class GeneratorError(ValueError):
    """What a generator asks for cannot be; the message names it."""


def at_once(event: Event, context: Context) -> tuple[int, Kind, Any]:
    """Every operation succeeds in no time."""
    del context
    return 0, "ok", event.value


def after_ms(latency_ms: float, kind: Kind = "ok") -> Complete:
    """Every operation ends so after the same time."""

    def complete(event: Event, context: Context) -> tuple[int, Kind, Any]:
        del context
        return int(latency_ms * 1000), kind, event.value

    return complete


TEN_MS = after_ms(10)


def imperfect(event: Event, context: Context) -> tuple[int, Kind, Any]:
    """Within 20 ms: three of four succeed, one of eight fails, one of eight ends with an unknown outcome."""
    lot = context.dice.random()
    kind: Kind = "ok" if lot < 0.75 else "fail" if lot < 0.875 else "info"
    return 1 + context.dice.below(20_000), kind, event.value


def simulate(
    generator: Any,
    *,
    concurrency: int = 2,
    seed: int = 0,
    nemesis: bool = True,
    complete: Complete = TEN_MS,
    until_us: int | None = None,
    ops_max: int = OPS_MAX,
) -> list[Event]:
    """Everything that happens: operations and their completions, in order of time.

    Args:
        generator: see `harness.generators.base.lift`.
        concurrency: threads of clients.
        seed: where chance comes from.
        nemesis: whether there is a thread of the nemesis.
        complete: how each operation ends.
        until_us: no operation begins at or after this time; those that have begun end.
        ops_max: more operations than these are an error.

    Raises:
        GeneratorError: it waits for what cannot come, asks for what cannot be done, or does not end.
    """
    run = _Run(lift(generator), Context.start(concurrency, seed=seed, nemesis=nemesis), complete)
    begun = 0
    while True:
        answer = run.ask()
        if answer is None or (until_us is not None and run.too_late(answer[0], until_us)):
            if run.finish_one():
                continue
            return run.events
        if isinstance(answer[0], Pending):
            if not run.finish_one():
                if until_us is not None:
                    return run.events
                raise GeneratorError(
                    f"the generator waits at {run.context.time_us / 1e6:.3f} s, and nothing is going on that it could "
                    "wait for; does it ask for threads that there are not?"
                )
            continue
        if run.finish_before(answer[0]):
            continue
        begun += 1
        if begun > ops_max:
            raise GeneratorError(f"the generator asks for more than {ops_max} operations; limit it")
        run.begin(answer[0], answer[1])


class _Run:
    def __init__(self, generator: Generator, context: Context, complete: Complete) -> None:
        self.events: list[Event] = []
        self.context = context
        self._generator = generator
        self._complete = complete
        self._processes = list(context.processes)
        context.processes = self._processes
        self._clients = len(self._processes) - bool(context.nemesis)
        self._open: list[tuple[int, int, Event]] = []
        self._begun = 0

    def ask(self) -> Any:
        return self._generator.op(self.context)

    def too_late(self, event: Event | Pending, until_us: int) -> bool:
        return event is not PENDING and event.time_us >= until_us  # type: ignore[union-attr]

    def begin(self, event: Event, after: Generator) -> None:
        context = self.context
        if not context.free >> event.thread & 1:
            raise GeneratorError(
                f"{event.f!r} at {event.time_us / 1e6:.3f} s is for thread {event.thread}, which is busy or not there"
            )
        context.time_us = max(context.time_us, event.time_us)
        context.free &= ~(1 << event.thread)
        delay_us, kind, value = 0, event.kind, event.value
        if event.kind == "sleep":
            delay_us = int(event.value * 1e6)
        elif event.kind == "invoke":
            self.events.append(msgspec.structs.replace(event, tentative=False) if event.tentative else event)
            delay_us, kind, value = self._complete(event, context)
        done = Event(context.time_us + delay_us, event.thread, event.process, event.f, event.key, value, kind)
        self._begun += 1
        heapq.heappush(self._open, (done.time_us, self._begun, done))
        self._generator = after if is_deaf(after) else after.update(context, event)

    def finish_before(self, answer: Event) -> bool:
        """Let the first completion happen if it is due by then; whether there was one that may change the answer."""
        deaf = is_deaf(self._generator) and not answer.tentative
        while self._open and self._open[0][0] <= answer.time_us:
            self.finish_one()
            if not deaf:
                return True
        return False

    def finish_one(self) -> bool:
        """Let the next completion happen; whether there is one."""
        if not self._open:
            return False
        time_us, _, event = heapq.heappop(self._open)
        context = self.context
        context.time_us = max(context.time_us, time_us)
        context.free |= 1 << event.thread
        if event.kind == "info" and event.thread < self._clients:
            self._processes[event.thread] = int(event.process) + self._clients
        if event.kind not in ("sleep", "log"):
            self.events.append(event)
        if not is_deaf(self._generator):
            self._generator = self._generator.update(context, event)
        return True


def quick(generator: Any, *, concurrency: int = 2, seed: int = 0) -> list[Event]:
    """The operations that a generator asks for if each succeeds at once."""
    events = simulate(generator, concurrency=concurrency, seed=seed, nemesis=False, complete=at_once)
    return [event for event in events if event.kind == "invoke"]
