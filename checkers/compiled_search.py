"""The general search on compiled code: tables in, an `Outcome` out, in turns as `checkers.search.search`.

Rules of this module
    1. A register needs no table, whatever the number of its values. Any other model is explored once into
       a table of states by kinds, up to `CELLS_MAX` cells; an object with more states than that is for the
       search that asks the model as it goes.
    2. Importing it imports numba; see `checkers.fast`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from checkers import kernel_orders, kernels
from checkers.models import RegisterCode
from checkers.problem import GENERAL, NEVER, OVERWRITE, PURE, Problem
from checkers.search import Meter, Outcome, Trail

CELLS_MAX = 1_000_000
_FIRST_SHARE = 100_000
#: No turn is longer, since the clock is read between turns.
_SHARE_MAX = 1_000_000
_INFOS_PER_KIND_MAX = 0x7FFF
_RECENT_LEVELS = 256
_NO_VALUE = -2
_FORMS = {"read": kernels.READS, "write": kernels.WRITES, "cas": kernels.CAS, "differs": kernels.DIFFERS}
_CAUSES = {-1: "configurations", -2: "bytes", -3: "bytes"}


def explore(problem: Problem, cells_max: int = CELLS_MAX) -> Any:
    """The table of the state after each kind in each state (-1: illegal), or None where it is too large."""
    kinds = len(problem.memo)
    at = 0
    while at < len(problem.states):
        if len(problem.states) * kinds > cells_max:
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


def _transitions(problem: Problem) -> tuple[Any, Any, Any]:
    """Table, codes and effects for the kernels."""
    if problem.forms:
        effect = np.array(problem.effect, np.int64)
        return np.zeros((1, 1), np.int32), register_forms(problem, problem.forms), effect
    table = explore(problem)
    if table is None:
        raise TooLarge(f"more than {CELLS_MAX} cells")
    codes = np.zeros((table.shape[0], 3), np.int64)
    return table, codes, settle_effects(problem, table)


class CompiledSearcher:
    """Both searches over one problem, compiled.

    Raises:
        TooLarge: where the model has too many states here, or too many info operations are equal.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        table, code, effect = _transitions(problem)
        call = np.array(problem.call, np.int64)
        ret = np.array(problem.ret, np.int64)
        kind = np.array(problem.kind, np.int64)
        rets, slot, slots, start, pending = kernels.levels(call, ret)
        self.returns = len(rets)
        unanswered = [place for place, value in enumerate(problem.ret) if value == NEVER]
        by_kind: dict[int, list[int]] = {}
        for place in unanswered:
            by_kind.setdefault(problem.kind[place], []).append(place)
        if any(len(places) > _INFOS_PER_KIND_MAX for places in by_kind.values()):
            raise TooLarge(f"more than {_INFOS_PER_KIND_MAX} equal info operations")
        places = np.array([place for group in by_kind.values() for place in group], np.int64)
        info_start = np.cumsum([0, *map(len, by_kind.values())])
        self.width = 2 + 2 * max(1, slots + 63 >> 6) + (len(by_kind) + 3 >> 2)
        self.arguments = (
            rets, slot, slots, start, pending, ret, kind, effect, table, code,
            problem.initial, np.array(list(by_kind), np.int64), info_start, call[places], places,
        )  # fmt: skip

    def run(self, order: str, meter: Meter, configurations: int) -> Outcome:
        """One search, ``dfs`` or ``bfs``, with that share of the meter."""
        rows_max = max(1024, meter.bytes_max // (16 * self.width))
        trail_max = max(4096, meter.bytes_max // 16)
        answer, level, used, trail, before, op, recent = getattr(kernel_orders, order)(
            *self.arguments, configurations, rows_max, trail_max
        )
        used = min(int(used), configurations)
        meter.left -= used
        meter.used += used
        valid = {kernels.YES: True, kernels.NO: False}.get(answer)
        return Outcome(
            valid=valid,
            level=int(level),
            configurations=used,
            algorithm={"dfs": "wgl-dfs-numba", "bfs": "jit-bfs-numba"}[order],
            trail=self._trail(trail, before, op) if valid else None,
            recent=self._recent(recent, int(level)) if valid is False else {},
            cause=_CAUSES.get(int(answer)),
        )

    def _trail(self, last: int, before: Any, op: Any) -> Trail | None:
        """The chosen operations, each with its level; an entry is level * operations + operation."""
        chosen: list[int] = []
        while last > 0:
            chosen.append(int(op[last]))
            last = before[last]
        trail: Trail | None = None
        for entry in reversed(chosen):
            trail = Trail(trail, *divmod(entry, len(self.problem.operations)))
        return trail

    def _recent(self, recent: Any, level: int) -> dict[int, tuple[Any, ...]]:
        rows = recent[(recent[:, 0] >= 0) & (recent[:, 0] > level - _RECENT_LEVELS)]
        found: dict[int, dict[int, None]] = {}
        for at, state in rows.tolist():
            found.setdefault(at, {}).setdefault(state)
        return {at: tuple(self.problem.states[state] for state in states) for at, states in found.items()}


def ready() -> None:
    """Loads the kernels from their cache on disk, or compiles them (half a minute or so)."""
    from checkers.history import Operation  # noqa: PLC0415

    write = Operation(0, "write", None, 1, 1, "ok", 0, 1, 0)
    lost = Operation(1, "write", None, 2, None, "info", 0, None, 2)
    problem = Problem([write, lost], [(0,), (1,)], [OVERWRITE, OVERWRITE], None, lambda _state, place: place)
    searcher = CompiledSearcher(problem)
    for order in ("dfs", "bfs"):
        searcher.run(order, Meter(10, 1 << 20, 0), 10)


class TooLarge(Exception):
    """A problem that does not fit into the compiled search; the message says what is too large."""


def search(problem: Problem, meter: Meter) -> Outcome:
    """Deep first and level by level in turns with growing shares, like `checkers.search.search`.

    Raises:
        TooLarge: see `CompiledSearcher`.
    """
    searcher = CompiledSearcher(problem)
    share = _FIRST_SHARE
    best: Outcome | None = None
    while True:
        for order in ("dfs", "bfs"):
            outcome = searcher.run(order, meter, min(share, meter.left))
            if outcome.valid is not None:
                return outcome
            if best is None or outcome.level >= best.level:
                best = outcome
            if time.monotonic() > meter.deadline_s:
                return Outcome(None, best.level, best.configurations, best.algorithm, cause="seconds")
            if meter.left <= 0:
                return best
        share = min(4 * share, _SHARE_MAX)
