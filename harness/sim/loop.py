"""An asyncio event loop on virtual time.

Theory of operation
    Time is an integer of microseconds. The loop runs every callback that is ready, then jumps to the time of the
    next timer; a minute that holds a thousand events takes a thousand callbacks and no waiting. Callbacks that are
    ready at the same time run in the order in which they were scheduled (asyncio guarantees that for `call_soon`),
    timers of equal time in the order in which they were set. So a program whose only inputs are its seeded streams
    runs the same way every time.

Rules of this module
    1. No real clock, no real socket, no thread: what would need one raises `NotImplementedError`, as asyncio's
       abstract loop does, and never falls back on the real thing.
    2. A loop in which the main task waits and nothing is scheduled is a deadlock: it is reported with the tasks.
    3. Ctrl-C only sets a flag, which is looked at between callbacks, so that no callback is torn in two.

>>> import asyncio
>>> async def main():
...     await asyncio.sleep(3600)
...     return asyncio.get_running_loop().time()
>>> SimLoop().run_until_complete(main())
3600.0
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import inspect
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from harness.errors import InternalError, Interrupted

T = TypeVar("T")

US_PER_S = 1_000_000
CLOSES_MAX = 20
MAX_EVENTS_DEFAULT = 2_000_000_000


class SimTimer:
    """A pending call on the virtual clock; ordered by time, then by the order in which it was set."""

    __slots__ = ("args", "callback", "seq", "when_us")

    def __init__(self, when_us: int, seq: int, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.when_us = when_us
        self.seq = seq
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Forget the call; its place in the queue is cleared when its time comes."""
        self.callback = None
        self.args = ()


class SimDeadlock(InternalError):
    """The program waits for something that can never happen."""


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. `schedule` is the fast way in for simulated parts; the rest is asyncio's interface."""

    def __init__(self, *, max_events: int = MAX_EVENTS_DEFAULT) -> None:
        self.now_us = 0
        self.events_run = 0
        self._max_events = max_events
        self._seq = 0
        self._heap: list[tuple[int, int, SimTimer]] = []
        self._ready: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._running = False
        self._stopping = False
        self._closed = False
        self._interrupted = False
        self._failure: BaseException | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    # -- the simulator's own interface ------------------------------------------------------------------------

    def schedule(self, delay_us: int, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Call back `delay_us` microseconds from now (0: after everything that is already due now)."""
        when_us = self.now_us + (max(0, delay_us))
        self._seq = seq = self._seq + 1
        timer = SimTimer(when_us, seq, callback, args)
        heapq.heappush(self._heap, (when_us, seq, timer))
        return timer

    def interrupt(self) -> None:
        """Make the run end with `Interrupted` before the next callback; safe in a signal handler."""
        self._interrupted = True

    # -- running ----------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Awaitable[T]) -> T:  # type: ignore[override]
        """Run until the coroutine or future is done; return its result or raise its exception."""
        task: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)
        self._run(task)
        return task.result()

    def run_forever(self) -> None:
        """Run until `stop` or until nothing is scheduled any more."""
        self._run(None)

    def _run(self, main: asyncio.Future[Any] | None) -> None:
        if self._running or events._get_running_loop() is not None:  # noqa: SLF001 - asyncio offers no public question
            raise RuntimeError("a simulation cannot be started from inside a running event loop")
        self._running = True
        self._stopping = False
        events._set_running_loop(self)  # noqa: SLF001 - how every loop makes itself the running one
        try:
            self._turn(main)
        finally:
            self._running = False
            events._set_running_loop(None)  # noqa: SLF001

    def _turn(self, main: asyncio.Future[Any] | None) -> None:
        heap, ready = self._heap, self._ready
        pop = heapq.heappop
        count, limit = self.events_run, self._max_events
        try:
            while not (main is not None and main.done()) and not self._stopping:
                if self._interrupted:
                    raise Interrupted("interrupted")
                if self._failure is not None:
                    raise self._failure
                while ready:
                    callback, args = ready.popleft()
                    callback(*args)
                    count += 1
                    if main is not None and main.done():
                        return
                if not heap:
                    if main is None:
                        return
                    raise SimDeadlock(self._deadlock_report())
                when_us, _, timer = pop(heap)
                if timer.callback is None:
                    continue
                self.now_us = when_us
                timer.callback(*timer.args)
                count += 1
                if count > limit:
                    raise InternalError(
                        f"the simulation ran {limit} callbacks without ending; raise max_events"
                    )
        finally:
            self.events_run = count

    def _deadlock_report(self) -> str:
        waiting = [t.get_coro() for t in self._tasks if not t.done()]
        names = ", ".join(getattr(c, "__qualname__", str(c)) for c in waiting[:10])
        return (
            f"deadlock at {self.now_us / US_PER_S:.3f} s: nothing is scheduled and these tasks wait: {names}"
        )

    def stop(self) -> None:
        """Leave `run_forever` after the callback that is running."""
        self._stopping = True

    def close(self) -> None:
        """Drop everything that is scheduled; tasks that are not done are cancelled without being run."""
        self._closed = True
        self._heap.clear()
        self._ready.clear()
        events._set_running_loop(self)  # noqa: SLF001 - a `finally` block may ask which task it is in
        try:
            for task in self._tasks:
                self._close_task(task)
        finally:
            events._set_running_loop(None)  # noqa: SLF001
            self._ready.clear()
        self._tasks.clear()

    @staticmethod
    def _close_task(task: asyncio.Task[Any]) -> None:
        """Run the `finally` blocks of a task now, and keep asyncio from complaining later."""
        if task.done():
            return
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        coro = task.get_coro()
        for _ in range(
            CLOSES_MAX
        ):  # a `finally` block that awaits makes the coroutine wait there: close it again
            if not inspect.iscoroutine(coro) or inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED:
                break
            with contextlib.suppress(Exception):
                coro.close()

    def is_running(self) -> bool:
        """Whether the loop is inside `run_until_complete` or `run_forever`."""
        return self._running

    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators die with the loop."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Nothing to do: there is no executor."""

    # -- asyncio's interface ----------------------------------------------------------------------------------

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.now_us / US_PER_S

    def call_soon(  # type: ignore[override]  # asyncio's own signature, without its type variables
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        """Run the callback in this instant, after those that are ready already."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((_run_handle, (handle,)))
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback `delay` virtual seconds from now."""
        return self._call_at_us(self.now_us + round(delay * US_PER_S), callback, args, context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback at virtual time `when`, in seconds."""
        return self._call_at_us(round(when * US_PER_S), callback, args, context)

    def _call_at_us(
        self,
        when_us: int,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when_us / US_PER_S, callback, args, self, context)
        self.schedule(when_us - self.now_us, _run_handle, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled handle stays in the queue and does nothing when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """Start a coroutine as a task of this loop."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 256 and len(self._tasks) % 256 == 0:
            self._tasks = [t for t in self._tasks if not t.done()]
        return task

    def get_debug(self) -> bool:
        """Always off: asyncio's debug mode measures real time."""
        return False

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's signature
        """Ignored, see `get_debug`."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """See `call_exception_handler`."""
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An exception that nobody caught ends the simulation: it is a bug in the simulated program."""
        error = context.get("exception")
        if self._failure is None and not self._closed:
            self._failure = error if error is not None else InternalError(str(context.get("message")))


def _run_handle(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()  # noqa: SLF001 - how every loop runs its handles


def run(main: Coroutine[Any, Any, T], loop: SimLoop) -> T:
    """Run a coroutine to its end on the loop and close the loop, however it ends."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
