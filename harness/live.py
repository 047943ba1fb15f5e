"""Driving a run by a generator that looks at what happens, instead of by a plan.

Theory of operation
    The generator is asked with the time of the run and the workers that are free, as `harness.generators.simulate`
    asks it with virtual ones: completions are told before it is asked again, and an answer that lies in the future is
    kept until its time, or until something happens that may change it.

    What was asked for is written down as a plan when the run is over (`performed`): `splitbrain replay` and `shrink`
    work with that plan, which has no generator any more. In the simulator the generator itself repeats itself too: its
    chance is a stream of the seed.

Rules of this module
    1. A generator that waits while nothing is going on will wait for ever: that is an error, and the run is not valid.
    2. The threads are clients. Faults come from the plan, drawn or by hand, reactive ones among them: there is no
       thread of the nemesis, and a generator for one waits for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from harness.generators.base import Context, Event, Generator, Kind, Pending, is_deaf, lift
from harness.generators.simulate import GeneratorError

US_PER_S = 1_000_000

Perform = Callable[
    [Event], Awaitable[tuple[Kind, Any, int]]
]  # how it ended, its value, the worker's process now


async def drive(
    generator: Any, *, concurrency: int, seed: int, limit_us: int, now_us: Callable[[], int], perform: Perform
) -> None:
    """Let the generator decide what the workers do, until it is exhausted or the time is up.

    Raises:
        GeneratorError: it waits for what cannot come.
    """
    run = _Drive(lift(generator), concurrency, seed, perform)
    try:
        await run.go(limit_us, now_us)
    finally:
        for task in list(run.tasks):
            task.cancel()


class _Drive:
    def __init__(self, generator: Generator, concurrency: int, seed: int, perform: Perform) -> None:
        self.tasks: dict[asyncio.Task[None], None] = {}
        self._generator = generator
        self._perform = perform
        self._processes: list[int | str] = list(range(concurrency))
        self._context = Context.start(concurrency, seed=seed, nemesis=False)
        self._context.processes = self._processes
        self._done: asyncio.Queue[tuple[Event, int] | BaseException] = asyncio.Queue()
        self._going_on = 0
        self._left_s: Callable[[], float] = lambda: 0.0

    async def go(self, limit_us: int, now_us: Callable[[], int]) -> None:
        context = self._context
        self._left_s = lambda: max(0.0, (limit_us - now_us()) / US_PER_S)
        while True:
            while not self._done.empty():
                self._tell(*await self._next(), now_us())
            context.time_us = now_us()
            answer = self._generator.op(context) if context.time_us < limit_us else None
            if answer is None:
                if not self._going_on:
                    return
                self._tell(*await self._next(), now_us())
                continue
            event, after = answer
            if isinstance(event, Pending):
                if not self._going_on:
                    raise GeneratorError(
                        f"the generator waits at {context.time_us / 1e6:.3f} s for nothing that is going on; does it "
                        "ask for threads that there are not, or for the nemesis, whose faults are in the plan?"
                    )
                self._tell(*await self._next(), now_us())
            elif await self._until(event, limit_us, now_us) and event.time_us < limit_us:
                self._begin(event, after)

    async def _next(self) -> tuple[Event, int]:
        """The next completion; raises what a worker failed with."""
        done = await self._done.get()
        if isinstance(done, BaseException):
            raise done
        return done

    async def _until(self, wanted: Event, limit_us: int, now_us: Callable[[], int]) -> bool:
        """Wait until its time; False where something happened before that may change what comes next."""
        while (wait_us := min(wanted.time_us, limit_us) - now_us()) > 0:
            if not self._going_on:
                await asyncio.sleep(wait_us / US_PER_S)
                continue
            try:
                async with asyncio.timeout(wait_us / US_PER_S):
                    event, process = await self._next()
            except TimeoutError:
                continue
            self._tell(event, process, now_us())
            if wanted.tentative or not is_deaf(self._generator):
                return False
        return True

    def _begin(self, event: Event, after: Generator) -> None:
        self._context.free &= ~(1 << event.thread)
        self._generator = after if is_deaf(after) else after.update(self._context, event)
        self._going_on += 1
        task = asyncio.ensure_future(self._do(event))
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)

    async def _do(self, event: Event) -> None:
        try:
            self._done.put_nowait(await self._outcome(event))
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes it
            self._done.put_nowait(error)

    async def _outcome(self, event: Event) -> tuple[Event, int]:
        kind, value, process = event.kind, event.value, int(event.process)
        if kind == "sleep":
            await asyncio.sleep(min(value, self._left_s()))
        elif kind == "log":
            sys.stderr.write(f"{value}\n")
        elif kind == "invoke":
            kind, value, process = await self._perform(event)
        return Event(event.time_us, event.thread, event.process, event.f, event.key, value, kind), process

    def _tell(self, event: Event, process: int, time_us: int) -> None:
        self._going_on -= 1
        self._context.time_us = time_us
        self._context.free |= 1 << event.thread
        self._processes[event.thread] = process
        if not is_deaf(self._generator):
            told = Event(time_us, event.thread, event.process, event.f, event.key, event.value, event.kind)
            self._generator = self._generator.update(self._context, told)
