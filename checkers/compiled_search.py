"""The general search on compiled code: tables or registers in, an `Outcome` out.

Rules of this module
    1. A register needs no table, whatever the number of its values. Any other model is explored once into
       a table of states by kinds, up to `CELLS_MAX` cells; an object with more states than that is for the
       search that asks the model as it goes.
    2. Importing it imports numba; see `checkers.fast`.
    3. Deep first and level by level take turns as in `checkers.search`, with growing shares, and each goes on where
       it was. The clock is read between turns, and another thread stops what goes on beyond the last moment; after
       that there is no answer any more.
    4. Where deep first got stuck, the *window* of the last levels before that is searched level by level from all
       states there could be. A no of the window is a no of the history.

Theory of operation
    Whatever the operations before a level did, it left one of the model's states and some of the pending operations
    in. So each configuration that can reach the level is covered by one of these: any state, everything pure that is
    pending in (it has nothing left to ask for), all else that is pending optional (it may have gone in, or may go in),
    no info operation used up. If none of these passes a later level then nothing does. Most violations are within
    some completions of each other, so that a window costs nearly nothing where the frontier of the whole history
    is large. The window must fail at the very level that deep first did not pass: then it is the first that cannot
    be passed, as a no of the whole search says.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from checkers import fast
from checkers.meter import Meter
from checkers.models import RegisterCode
from checkers.problem import GENERAL, NEVER, OVERWRITE, PURE, Problem
from checkers.search import Outcome, Trail

kernel_rows = fast.kernels("kernel_rows")
kernels = fast.kernels("kernels")
kernel_orders = fast.kernels("kernel_orders")
kernel_replay = fast.kernels("kernel_replay")

CELLS_MAX = 1_000_000
#: Of the time that is left, how much may go into that; the search that asks the model as it goes gets the rest.
_EXPLORE_PART = 0.25
#: Configurations of the first turn, and of the longest one: the clock is read between turns.
_FIRST_SHARE = 20_000
_LAST_SHARE = 5_000
_SHARE_MAX = 200_000
#: Level by level gets longer turns: what deep first does not find soon is mostly not there, and only the other can say.
_LEVELWISE_SHARE = 3
#: So many completions may hold a level that takes long; a thread for each short history would cost more.
_STOPPED_FROM = 200
_INFOS_PER_KIND_MAX = 0x7FFF
_RECENT_LEVELS = 256
_NO_VALUE = -2
_FORMS = {"read": kernels.READS, "write": kernels.WRITES, "cas": kernels.CAS, "differs": kernels.DIFFERS}
_CAUSES = {
    kernels.OUT_OF_CONFIGURATIONS: "configurations",
    kernels.OUT_OF_ROWS: "bytes",
    kernels.OUT_OF_TRAIL: "bytes",
}
_NAMES = {"dfs": "wgl-dfs-numba", "bfs": "jit-bfs-numba"}
_WINDOW_NAME = "window-numba"
#: How many levels before the one that deep first does not pass, with how many configurations at most for each window.
_WINDOW_LEVELS, _WINDOW_CONFIGURATIONS, _WINDOW_STATES_MAX = (16, 128), 4_000, 256
_PARTS = {"dfs": "deep", "bfs": "levelwise"}
#: Rows that one level may have, whatever the bytes: so many are a second or two of work between looks at the clock.
_LEVEL_ROWS_MAX = 1 << 21
_TRAIL_SHARE = 64


class TooLarge(Exception):
    """A problem that does not fit into the compiled search; the message says what is too large."""


def explore(problem: Problem, cells_max: int = CELLS_MAX, until_s: float = math.inf) -> Any:
    """The table of the state after each kind in each state (-1: illegal), or None where it is too large.

    ``until_s`` is the `time.monotonic` at which to give up: a model may be slow.
    """
    kinds = len(problem.memo)
    at = 0
    while at < len(problem.states):
        if len(problem.states) * kinds > cells_max or time.monotonic() > until_s:
            return None
        for kind in range(kinds):
            problem.next(kind, at)
        at += 1
    table = np.full((max(1, kinds), len(problem.states)), -1, np.int32)
    for kind, known in enumerate(problem.memo):
        table[kind, list(known)] = list(known.values())
    return table


def settle_effects(problem: Problem, table: Any) -> Any:
    """The effect of each kind, also into `Problem.effect`; what the model left open is read off the table."""
    found = np.array(problem.effect or [GENERAL], np.int64)
    identity = np.arange(table.shape[1])
    for kind in np.flatnonzero(found == GENERAL):
        row = table[kind]
        if ((row == identity) | (row < 0)).all():
            found[kind] = PURE
        elif row[0] >= 0 and (row == row[0]).all():
            found[kind] = OVERWRITE
    problem.effect = found.tolist()
    return found


def register_forms(problem: Problem, forms: Sequence[RegisterCode]) -> Any:
    """The codes of a register's kinds for `kernels.after`, with its values as numbers of states."""
    rows = []
    for form in forms:
        old = problem.number(form[1]) if len(form) > 1 else _NO_VALUE
        new = problem.number(form[2]) if len(form) > 2 else _NO_VALUE
        # A read that says nothing is possible in every state: it differs from what is no state.
        what = _FORMS[str(form[0])] if len(form) > 1 else kernels.DIFFERS
        rows.append((what, old, new))
    return np.array(rows, np.int64).reshape(-1, 3)


def _transitions(problem: Problem, until_s: float) -> tuple[Any, Any, Any]:
    """Table, codes and effects for the kernels."""
    if problem.forms:
        effect = np.array(problem.effect, np.int64)
        return np.zeros((1, 1), np.int32), register_forms(problem, problem.forms), effect
    table = explore(problem, until_s=until_s)
    if table is None:
        raise TooLarge(f"more than {CELLS_MAX} cells, or too slow a model")
    codes = np.zeros((table.shape[0], 3), np.int64)
    return table, codes, settle_effects(problem, table)


class Race:
    """Both orders of search over one task, in turns.

    Args:
        call: order numbers of invocations, ascending.
        ret: order numbers of completions, `NEVER` for info operations.
        kind: the kind of each operation.
        effect: PURE, OVERWRITE or GENERAL, by kind.
        table: the state after each kind in each state, for kinds whose code is `kernels.BY_TABLE`.
        code: see `kernels.after`, by kind.
        initial: number of the initial state.
        states: how many states there are, all those below that number.

    Raises:
        TooLarge: where too many info operations are equal.
    """

    def __init__(
        self, call: Any, ret: Any, kind: Any, effect: Any, table: Any, code: Any, initial: int, states: int
    ) -> None:
        rets = np.argsort(ret, kind="stable")[: int((ret < NEVER).sum())]
        slot, slots, start, pending = kernels.levels(call, ret, rets)
        lost = np.flatnonzero(ret == NEVER)
        lost = lost[np.argsort(kind[lost], kind="stable")]
        kinds, counts = np.unique(kind[lost], return_counts=True)
        if len(counts) and counts.max() > _INFOS_PER_KIND_MAX:
            raise TooLarge(f"more than {_INFOS_PER_KIND_MAX} equal info operations")
        info_start = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        self.initial = initial
        self.call, self.state_count = call, states
        self.returns = len(rets)
        self.words = max(1, slots + 63 >> 6)
        self.width = 1 + 2 * self.words + (len(kinds) + 3 >> 2)
        self.task = kernels.Task(
            rets, slot, start, pending, ret, kind, effect, table, code, kinds, info_start, call[lost], lost,
            np.zeros(1, np.int64),
        )  # fmt: skip
        self.states: dict[str, Any] = {}
        self.answers: dict[str, int] = {}

    def turn(self, order: str, meter: Meter, configurations: int) -> Outcome:
        """One turn of an order, ``dfs`` or ``bfs``, with that share of the meter."""
        fast.prepare("expand")
        fast.prepare(_PARTS[order])
        if order not in self.states:
            start = (self.task, self.initial, self.width) if order == "dfs" else (self.initial, self.width)
            self.states[order] = getattr(kernel_orders, f"{order}_start")(*start)
        state = self.states[order]
        before = int(state.counters[0])
        row_bytes = 3 * (8 * (self.width + 1) + 52)
        rows_max = max(1024, meter.bytes_max // row_bytes)
        if order == "bfs":
            rows_max = min(rows_max, _LEVEL_ROWS_MAX)
        trail_max = max(4096, meter.bytes_max // _TRAIL_SHARE)
        answer, state = getattr(kernel_orders, order)(
            self.task, state, self.words, self.width, before + configurations, rows_max, trail_max
        )
        self.states[order] = state
        self.answers[order] = answer
        used = int(state.counters[0]) - before
        meter.left -= min(used, meter.left)
        meter.used += used
        return Outcome(
            valid={kernels.YES: True, kernels.NO: False}.get(answer),
            level=int(state.at[1 if order == "dfs" else 0]),
            configurations=meter.used,
            algorithm=_NAMES[order],
            cause=_CAUSES.get(int(answer)),
        )

    def chosen(self, order: str) -> Any:
        """For a yes: level * operations + operation, for each choice from first to last."""
        state = self.states[order]
        if self.returns == 0:
            return np.empty(0, np.int64)
        last = state.pool[0, self.width] if order == "dfs" else state.rows[0, self.width]
        return kernel_replay.choices(int(last), state.trail_before, state.trail_op)

    def recent(self, order: str, level: int) -> dict[int, tuple[int, ...]]:
        """For a no: states in which the last levels could be reached; for a window's, and perhaps others."""
        state = self.states[order]
        if order != "dfs":
            rows = state.recent
        else:
            visited = state.visited[: int(state.at[2])]
            rows = np.stack((visited[:, self.width], visited[:, 0]), axis=1).astype(np.int64)
        rows = rows[(rows[:, 0] >= 0) & (rows[:, 0] > level - _RECENT_LEVELS)]
        found: dict[int, dict[int, None]] = {}
        for at, value in rows.tolist():
            found.setdefault(at, {}).setdefault(value)
        return {at: tuple(values) for at, values in found.items()}

    @contextlib.contextmanager
    def _stopped_in_time(self, deadline_s: float) -> Iterator[None]:
        left_s = min(max(0.0, deadline_s - time.monotonic()), threading.TIMEOUT_MAX)
        timer = threading.Timer(left_s, self.task.stop.fill, (1,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def run(self, meter: Meter, orders: Sequence[str] = ("dfs", "bfs")) -> tuple[str, Outcome]:
        """Turns until one order is sure or the meter runs out; which one it was, and what it found."""
        if self.returns < _STOPPED_FROM:
            return self._turns(meter, orders)
        with self._stopped_in_time(meter.deadline_s):
            return self._turns(meter, orders)

    def _turns(self, meter: Meter, orders: Sequence[str]) -> tuple[str, Outcome]:
        share = _FIRST_SHARE
        stuck = -1
        best: tuple[str, Outcome] | None = None
        going = list(orders)
        pace = _Pace(meter)
        while True:
            for order in tuple(going):
                turn = share * (_LEVELWISE_SHARE if order == "bfs" else 1)
                outcome = self.turn(order, meter, min(turn, meter.left, pace.left()))
                if outcome.valid is not None:
                    return order, outcome
                if order == "dfs" and len(orders) > 1 and outcome.level != stuck:
                    stuck = outcome.level
                    if self.window_fails(stuck, meter):
                        return "window", Outcome(False, stuck, meter.used, _WINDOW_NAME)
                if best is None or outcome.level >= best[1].level:
                    best = order, outcome
                if outcome.cause == "bytes":
                    going.remove(order)
                if time.monotonic() > meter.deadline_s:
                    return order, Outcome(None, best[1].level, meter.used, best[1].algorithm, cause="seconds")
            if meter.left <= 0 or not going:
                return best  # type: ignore[return-value]  # set by the first turn
            share = min(2 * share, _SHARE_MAX)

    def window_fails(self, level: int, meter: Meter) -> bool:
        """Whether no configuration at all passes the level, as far as the levels just before it tell (rule 4)."""
        if self.state_count > _WINDOW_STATES_MAX:
            return False
        fast.prepare(_PARTS["bfs"])
        task = self.task._replace(rets=self.task.rets[: level + 1])
        for size in _WINDOW_LEVELS:
            if level - size <= 0 or meter.left <= 0:
                break
            share = min(_WINDOW_CONFIGURATIONS, meter.left)
            start = self._anything(level - size)
            answer, state = kernel_orders.bfs(
                task, start, self.words, self.width, share, _LEVEL_ROWS_MAX, 1 << 20
            )
            meter.left -= min(int(state.counters[0]), meter.left)
            meter.used += int(state.counters[0])
            if answer == kernels.NO and state.at[0] == level:
                self.states["window"] = state
                return True
        return False

    def _anything(self, level: int) -> Any:
        """Level by level, at a level that was reached in all ways at once: see the theory of operation."""
        task = self.task
        rows = np.zeros((max(64, self.state_count), self.width + 1), np.uint64)
        rows[: self.state_count, 0] = np.arange(self.state_count, dtype=np.uint64)
        for place in task.pending[task.start[level] : task.start[level + 1]]:
            if self.call[place] > task.ret[task.rets[level - 1]]:
                continue
            word, bit = 1 + (task.slot[place] >> 6), np.uint64(1 << int(task.slot[place] & 63))
            rows[:, word if task.effect[task.kind[place]] == PURE else word + self.words] |= bit
        start = kernel_orders.bfs_start(self.initial, self.width)
        at = np.array([level, self.state_count, 0, max(64, 4 * self.state_count)], np.int64)
        return start._replace(rows=rows, at=at)


class _Pace:
    """How many configurations there is still time for, by those so far."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._began_s = time.monotonic()
        self._before = meter.used

    def left(self) -> int:
        """At least `_LAST_SHARE`, so that an end is reached."""
        now_s = time.monotonic()
        done = self._meter.used - self._before
        if done == 0:
            return _FIRST_SHARE * _LEVELWISE_SHARE
        return max(_LAST_SHARE, int(done * (self._meter.deadline_s - now_s) / (now_s - self._began_s)))


class CompiledSearcher:
    """Both searches over one problem, compiled.

    Args:
        problem: what to search.
        until_s: the `time.monotonic` until which its states may be explored.

    Raises:
        TooLarge: where the model has too many states here, or too many info operations are equal.
    """

    def __init__(self, problem: Problem, until_s: float = math.inf) -> None:
        self.problem = problem
        table, code, effect = _transitions(problem, until_s)
        call, ret, kind = (np.array(column, np.int64) for column in (problem.call, problem.ret, problem.kind))
        states = len(problem.states)
        self.race = Race(call, ret, kind, effect, table, code, problem.initial, states)

    def run(self, order: str, meter: Meter, configurations: int) -> Outcome:
        """One search, ``dfs`` or ``bfs``, with that share of the meter."""
        return self._told(order, self.race.turn(order, meter, configurations))

    def search(self, meter: Meter, orders: Sequence[str] = ("dfs", "bfs")) -> Outcome:
        """Both in turns, see `Race.run`."""
        return self._told(*self.race.run(meter, orders))

    def _told(self, order: str, outcome: Outcome) -> Outcome:
        trail: Trail | None = None
        recent: dict[int, tuple[Any, ...]] = {}
        if outcome.valid:
            for entry in self.race.chosen(order).tolist():
                trail = Trail(trail, *divmod(entry, len(self.problem.operations)))
        elif outcome.valid is False:
            found = self.race.recent(order, outcome.level)
            recent = {at: tuple(self.problem.states[n] for n in numbers) for at, numbers in found.items()}
        return Outcome(
            outcome.valid,
            outcome.level,
            outcome.configurations,
            outcome.algorithm,
            trail=trail,
            recent=recent,
            cause=outcome.cause,
        )


def search(problem: Problem, meter: Meter, orders: Sequence[str] = ("dfs", "bfs")) -> Outcome:
    """Deep first and level by level in turns, like `checkers.search.search`.

    Raises:
        TooLarge: see `CompiledSearcher`.
    """
    now_s = time.monotonic()
    until_s = now_s + _EXPLORE_PART * (meter.deadline_s - now_s)
    return CompiledSearcher(problem, until_s).search(meter, orders)


def tiny_race() -> Race:
    """Two writes, one of which was lost: enough to compile everything."""
    call, ret = np.array([0, 2], np.int64), np.array([1, NEVER], np.int64)
    code = np.array([[kernels.WRITES, 1, _NO_VALUE], [kernels.WRITES, 2, _NO_VALUE]], np.int64)
    table, effect = np.zeros((1, 1), np.int32), np.array([OVERWRITE, OVERWRITE], np.int64)
    return Race(call, ret, np.array([0, 1], np.int64), effect, table, code, 0, 3)


def expand_tiny() -> None:
    """Compiles what both orders share."""
    race = tiny_race()
    nodes, out = (kernel_rows.new_nodes(64, race.width) for _ in "ab")
    work = kernels.new_work(race.task, race.words, np.array([0, 1, 0, 0], np.int64))
    before, op = np.empty(64, np.int64), np.empty(64, np.int64)
    rows = np.zeros((4, race.width + 1), np.uint64)
    kernels.expand(race.task, 0, rows, 0, 1, out, 0, 1, nodes, work, before, op, race.words, race.width)


def run_tiny(order: str) -> None:
    """Compiles one order of search, or loads it; for `checkers.fast`."""
    race = tiny_race()
    start = (race.task, race.initial, race.width) if order == "dfs" else (race.initial, race.width)
    state = getattr(kernel_orders, f"{order}_start")(*start)
    getattr(kernel_orders, order)(race.task, state, race.words, race.width, 10, 1024, 4096)


def replay_tiny() -> None:
    """The same for the replay."""
    race = tiny_race()
    trail = np.array([-1, -1], np.int64)
    kernel_replay.replay(race.task, 0, kernel_replay.choices(0, trail, trail))
