"""Seeds over worker processes, whatever becomes of the workers.

Theory of operation
    At most two tasks for each worker are under way. When a worker dies, the executor loses all that is under way and
    is of no more use: a new one is made, and the tasks that were lost are tried again one at a time. Then it is known
    whose task it is when a worker dies again, and that task is given up with a result that says so.

Rules of this module
    1. Every task gives exactly one result, in whatever order.
    2. Any executor that gives `concurrent.futures.Future` will do, local or not.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)

from harness.sweep.one import Result, Task, failed, run_one

UNDER_WAY_EACH = 2
POLL_S = 0.5
PARENT_POLL_S = 1.0
HEAL_TIMEOUT_S = 30.0

MakeExecutor = Callable[[], Executor]
Work = Callable[[Task], Result]


def local(jobs: int) -> MakeExecutor:
    """Worker processes on this machine; they leave Ctrl-C to their parent, and end when it is gone."""
    parent = os.getpid()
    return lambda: ProcessPoolExecutor(jobs, initializer=_begin, initargs=(parent,))


def _begin(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever; a run of real nodes is healed before it ends."""
    never = threading.Event()  # and not `time.sleep`, which simulations replace
    while os.getppid() == parent:
        never.wait(PARENT_POLL_S)
    deadline_s = time.monotonic() + HEAL_TIMEOUT_S
    is_told = False
    while signal.getsignal(signal.SIGTERM) != signal.SIG_DFL and time.monotonic() < deadline_s:
        if not is_told:
            os.kill(os.getpid(), signal.SIGTERM)
            is_told = True
        never.wait(0.1)
    os._exit(1)


def results(
    tasks: Iterable[Task], jobs: int, make: MakeExecutor, *, work: Work = run_one, idle: Callable[[], None]
) -> Generator[Result, None, None]:
    """Results as they come; `idle` is called about twice a second while none comes.

    Closing the iterator ends the workers after what they are doing.
    """
    pool = _Pool(iter(tasks), jobs, make, work)
    try:
        while True:
            done = pool.step()
            if done is None:
                return
            yield from done
            if not done:
                idle()
    finally:
        pool.close()


class _Pool:
    def __init__(self, tasks: Iterator[Task], jobs: int, make: MakeExecutor, work: Work) -> None:
        self._tasks = tasks
        self._under_way_max = jobs * UNDER_WAY_EACH
        self._make = make
        self._work = work
        self._executor = make()
        self._under_way: dict[Future[Result], Task] = {}
        self._suspects: deque[Task] = deque()
        self._alone: Task | None = None  # a suspect that is under way with nothing beside it
        self._exhausted = False

    def step(self) -> list[Result] | None:
        """Submit what there is room for, wait a while; None when all is done."""
        alone = bool(self._suspects) or self._alone is not None
        try:
            self._submit(alone=alone)
        except BrokenExecutor:
            return self._recover()
        if not self._under_way:
            return None
        done, _ = wait(self._under_way, timeout=POLL_S, return_when=FIRST_COMPLETED)
        finished: list[Result] = []
        for future in done:
            error = CancelledError() if future.cancelled() else future.exception()
            if isinstance(error, BrokenExecutor | CancelledError):
                return finished + self._recover()
            task = self._under_way.pop(future)
            self._alone = None
            finished.append(future.result() if error is None else failed(task.seed, repr(error)))
        return finished

    def _submit(self, *, alone: bool) -> None:
        if alone:
            if not self._under_way and self._suspects:
                self._alone = self._suspects.popleft()
                self._under_way[self._executor.submit(self._work, self._alone)] = self._alone
            return
        while len(self._under_way) < self._under_way_max and not self._exhausted:
            task = next(self._tasks, None)
            if task is None:
                self._exhausted = True
                return
            self._under_way[self._executor.submit(self._work, task)] = task

    def _recover(self) -> list[Result]:
        """A worker has died: a new executor; what was under way is tried again, or given up if it was alone."""
        lost: list[Result] = []
        finished = {f: t for f, t in self._under_way.items() if _succeeded(f)}
        lost += [future.result() for future in finished]
        rest = [task for future, task in self._under_way.items() if future not in finished]
        if self._alone is not None and rest == [self._alone]:
            lost.append(failed(self._alone.seed, "the worker process died twice (out of memory, or killed)"))
        else:
            self._suspects.extend(rest)
        self._alone = None
        self.close()
        self._under_way.clear()
        self._executor = self._make()
        return lost

    def close(self) -> None:
        for future in self._under_way:
            future.cancel()
        self._executor.shutdown(wait=False)


def _succeeded(future: Future[Result]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None
