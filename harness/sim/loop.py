"""An asyncio event loop on virtual time.

Theory of operation
    Time is an integer of microseconds. The loop runs every callback that is ready, then jumps to the time of the
    next timer; a minute that holds a thousand events takes a thousand callbacks and no waiting. Callbacks that are
    ready at the same time run in the order in which they were scheduled (asyncio guarantees that for `call_soon`),
    timers of equal time in the order in which they were set (a `World` draws that order from its seed, because asyncio
    guarantees none). So a program whose only inputs are its seeded streams runs the same way every time.

    What ran is kept as a digest: the time and the number of every timer that fired, and how many callbacks ran.

Rules of this module
    1. No real clock, no real socket, no thread: what would need one raises `NotImplementedError`, as asyncio's
       abstract loop does, and never falls back on the real thing.
    2. A loop in which the main task waits and nothing is scheduled is a deadlock: it is reported with the tasks, and
       where each of them waits.
    3. Ctrl-C only sets a flag, which is looked at between callbacks, so that no callback is torn in two.
    4. Garbage is collected between callbacks, every so many of them, and at no other time: what a finalizer does
       belongs to the run, and must come at the same place each time.

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
import ctypes
import gc
import hashlib
import inspect
from array import array
from asyncio import events
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from heapq import heappop, heappush
from typing import Any, NoReturn, TypeVar

from harness.errors import InternalError, Interrupted

T = TypeVar("T")

US_PER_S = 1_000_000
CLOSES_MAX = 20
WAITING_SHOWN = 12
EVENTS_BETWEEN_LOOKS = 1 << 18
NEVER_US = 1 << 62
SPINS_MAX = 2_000_000  # callbacks in one instant
ASYNCIO = asyncio.__file__.rsplit("/", 1)[0]
MAX_EVENTS_DEFAULT = 2_000_000_000


class SimTimer:
    """A pending call on the virtual clock that can be cancelled."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.callback: Callable[..., Any] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Forget the call; its place in the queue is cleared when its time comes."""
        self.callback = None
        self.args = ()

    def fire(self) -> None:
        """The time has come."""
        if self.callback is not None:
            self.callback(*self.args)


class SimDeadlock(InternalError):
    """The program waits for something that can never happen."""


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. `post` is the fast way in for simulated parts; the rest is asyncio's interface."""

    def __init__(self, *, max_events: int = MAX_EVENTS_DEFAULT) -> None:
        self.now_us = 0
        self.events_run = 0
        self._max_events = max_events
        self._seq = 0
        self._heap: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._ready: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._running = False
        self._closed = False
        self._halted = False  # somebody wants the loop to end: one of the next three
        self._stopping = False
        self._interrupted = False
        self._failure: BaseException | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._trace = hashlib.sha256()
        self._traced: list[int] = []

    # -- the simulator's own interface ------------------------------------------------------------------------

    def post(self, delay_us: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call back `delay_us` microseconds from now (0: after everything that is already due now), for certain."""
        self._seq = seq = self._seq + 1
        heappush(self._heap, (self.now_us + delay_us if delay_us > 0 else self.now_us, seq, callback, args))

    def schedule(self, delay_us: int, callback: Callable[..., Any], *args: Any) -> SimTimer:
        """Call back `delay_us` microseconds from now, unless it is cancelled before."""
        timer = SimTimer(callback, args)
        self.post(delay_us, timer.fire)
        return timer

    def interrupt(self) -> None:
        """Make the run end with `Interrupted` before the next callback; safe in a signal handler."""
        self._interrupted = self._halted = True

    def fail(self, error: BaseException) -> None:
        """End the run with this error before the next callback; the first one counts."""
        if self._failure is None:
            self._failure = error
            self._halted = True

    @property
    def trace_sha256(self) -> str:
        """Digest of all that has run: two runs with the same digest went the same way."""
        trace = self._trace.copy()
        trace.update(array("Q", [*self._traced, self.events_run]).tobytes())
        return trace.hexdigest()

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
        self._halted = self._interrupted or self._failure is not None
        collects = gc.isenabled()
        events._set_running_loop(self)  # noqa: SLF001 - how every loop makes itself the running one
        if collects:
            gc.disable()
            gc.freeze()
        try:
            self._turn(main)
        finally:
            if collects:
                gc.unfreeze()
                gc.enable()
            self._running = False
            events._set_running_loop(None)  # noqa: SLF001

    def _turn(self, main: asyncio.Future[Any] | None) -> None:
        heap, ready, pop = self._heap, self._ready, heappop
        take, traced = ready.popleft, self._traced
        main_is_done = main.done if main is not None else _never
        is_task = isinstance(main, asyncio.Task)  # which ends in a callback that is ready, and in no other
        count = self.events_run
        look_at = min(count + EVENTS_BETWEEN_LOOKS, self._max_events)
        spins_at = count + SPINS_MAX
        try:
            while True:
                while ready:
                    callback, args = take()
                    callback(*args)
                    count += 1
                    if main_is_done():
                        return
                    if count > spins_at:
                        self._spin()
                if self._halted:
                    self._end_early()
                    return
                if not heap:
                    if main is None:
                        return
                    raise SimDeadlock(self._deadlock_report())
                when_us, seq, callback, args = pop(heap)
                self.now_us = when_us
                spins_at = count + SPINS_MAX
                traced.append(when_us)
                traced.append(seq)
                callback(*args)
                count += 1
                if count > look_at:
                    self._look(count)
                    look_at = min(count + EVENTS_BETWEEN_LOOKS, self._max_events)
                if not is_task and main_is_done():
                    return
        finally:
            self.events_run = count

    def _end_early(self) -> None:
        if self._interrupted:
            raise Interrupted("interrupted")
        if self._failure is not None:
            raise self._failure

    def _look(self, count: int) -> None:
        """Every so many callbacks: the bound, the garbage, the digest."""
        if count > self._max_events:
            raise InternalError(
                f"the simulation ran {self._max_events} callbacks without ending; raise max_events"
            )
        if not gc.isenabled():
            gc.collect()
        self._trace.update(array("Q", self._traced).tobytes())
        self._traced.clear()

    def _spin(self) -> NoReturn:
        """What is ready makes ready what comes next, for ever."""
        at_s = self.now_us / US_PER_S
        raise SimDeadlock(
            f"{SPINS_MAX} callbacks ran at {at_s:.3f} s and no time passed, as where a program goes round "
            f"`await asyncio.sleep(0)`; {self._waiting()}"
        )

    def _deadlock_report(self) -> str:
        return f"deadlock at {self.now_us / US_PER_S:.3f} s: nothing is scheduled any more; {self._waiting()}"

    def _waiting(self) -> str:
        """The tasks that are not done, and where each of them waits."""
        waiting = [task for task in self._tasks if not task.done()]
        shown = "; ".join(self._describe(task) for task in waiting[:WAITING_SHOWN])
        more = f"; and {len(waiting) - WAITING_SHOWN} more" if len(waiting) > WAITING_SHOWN else ""
        return f"{len(waiting)} tasks wait: {shown}{more}"

    def _describe(self, task: asyncio.Task[Any]) -> str:
        return where(task)

    def stop(self) -> None:
        """Leave `run_forever` after the callbacks that are ready."""
        self._stopping = self._halted = True

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
        else:
            # It catches its own end, as with a bare `except:` in a loop. Python would close it again when it frees it,
            # and with no loop running what it waits for raises at once, for ever: so it is never freed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(coro))

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
        """Run the callback in this instant, after those that are ready already.

        Who gives a context is asyncio itself, which never asks for the handle and so gets none. All run in one context
        here: a simulated cluster has no variables of its own in it, and switching costs as much as a callback.
        """
        if context is not None:
            self._ready.append((callback, args))
            return None
        timer = SimTimer(callback, args)
        self._ready.append((timer.fire, ()))
        return timer

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """Run the callback `delay` virtual seconds from now."""
        return self._call_at_us(self.now_us + _us(delay), callback, args, context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """Run the callback at virtual time `when`, in seconds."""
        return self._call_at_us(_us(when), callback, args, context)

    def _call_at_us(
        self,
        when_us: int,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> Any:
        del context  # see `call_soon`
        if when_us >= NEVER_US:
            return SimTimer(callback, args)
        return self.schedule(when_us - self.now_us, callback, *args)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled handle stays in the queue and does nothing when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """Start a coroutine as a task of this loop."""
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._keep(task)
        return task

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.append(task)
        if len(self._tasks) > 256 and len(self._tasks) % 256 == 0:
            self._tasks = [t for t in self._tasks if not t.done()]

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
        if not self._closed:
            self.fail(error if error is not None else InternalError(str(context.get("message"))))


def where(task: asyncio.Task[Any]) -> str:
    """The place at which a task waits: the innermost line that is not of asyncio, and the function it began with."""
    coro: Any = task.get_coro()
    name = getattr(coro, "__qualname__", str(coro)).replace("<locals>.", "")
    place = "its start"
    while inspect.iscoroutine(coro) and coro.cr_frame is not None:
        code = coro.cr_frame.f_code
        if not code.co_filename.startswith(ASYNCIO):
            place = f"{code.co_filename.rsplit('/', 1)[-1]}:{coro.cr_frame.f_lineno} in {code.co_name}"
        coro = coro.cr_await
    return f"{name} at {place}"


def _never() -> bool:
    return False


def _us(seconds: float) -> int:
    """Microseconds; programs sleep for `math.inf` too, and what comes then is never scheduled."""
    try:
        return round(seconds * US_PER_S)
    except OverflowError:
        return NEVER_US if seconds > 0 else 0


def run(main: Coroutine[Any, Any, T], loop: SimLoop) -> T:
    """Run a coroutine to its end on the loop and close the loop, however it ends."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
