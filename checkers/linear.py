"""Linearizability: the check as a whole, from a history to a verdict.

Rules of this module
    1. Objects that are independent by the model (keys) are checked apart: a history is linearizable iff
       each of its objects is (Herlihy and Wing 1990, locality).
    2. Every yes of a search and of the zones is verified (`checkers.witness`), every no is explained
       (`checkers.explain`), and what runs out of its budget is ``unknown`` and says how far it got.
    3. A fault in a checker or in a user's model is ``unknown`` with the error, never a pass. A history
       that cannot be paired, or has operations that the model does not know, is a `HistoryError`.

>>> from checkers.history import Op
>>> history = History.of([
...     Op(0, 10, 0, "invoke", "write", value=1), Op(1, 20, 0, "ok", "write", value=1),
...     Op(2, 30, 1, "invoke", "read"), Op(3, 40, 1, "ok", "read", value=2),
... ])
>>> check_linearizable(history, model_by_name("register", initial=0)).valid
'invalid'
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from checkers import containers, fast, revisions
from checkers.history import History, HistoryError, Op, Operation, nobody_asked
from checkers.intervals import Stale, refute
from checkers.levels import Levels
from checkers.memory import collector_paused
from checkers.meter import Meter
from checkers.models import (
    Model,
    Register,
    by_key,
    misfit,
    model_by_name,
    reaches_of,
    uses_mismatch,
    uses_revisions,
)
from checkers.own_model import ModelError, remarks_of, vetted
from checkers.problem import Problem, compile_problem
from checkers.registers import PLAIN, Backend, RegisterColumns, columns_of, solve
from checkers.search import Outcome, search
from checkers.values import show
from checkers.verdict import Validity, Verdict
from checkers.witness import WitnessError, replay, verify
from checkers.zones import FITS, VIOLATION

if TYPE_CHECKING:
    from checkers.columns import KeyParts
    from checkers.telling import Telling

#: From that many lines on histories of registers are read into arrays and checked by compiled code: where that must
#: be compiled first, where it must be loaded, and where it is loaded already.
_COLUMNS_LINES_COLD, _COLUMNS_LINES_WARM, _COLUMNS_LINES_LOADED = 100_000, 20_000, 2_000
#: What the plain search tries before the compiled one, by the same three.
_PLAIN_COLD, _PLAIN_WARM, _PLAIN_LOADED = 20_000, 5_000, 1_000
#: Shorter objects go to the plain search first, whatever is loaded.
_COLUMNS_OPERATIONS = 200
#: Where all of the compiled code was used before, so many lines of a history, and operations of an object, are enough.
_COLUMNS_LINES_USED, _COLUMNS_OPERATIONS_USED = 100, 24

#: What ``algorithm`` may be, beside ``auto``: which of them may decide.
ALGORITHMS = ("auto", "zones", "containers", "revisions", "search", "wgl-dfs", "jit-bfs")
_ORDERS = {"wgl-dfs": ("dfs",), "jit-bfs": ("bfs",)}
_BOTH = ("dfs", "bfs")
_PARTS = {"dfs": "deep", "bfs": "levelwise"}
#: Cause of an `Outcome` of a key that the algorithm which the user asked for does not fit.
NOT_THIS = "algorithm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a check may use before it answers ``unknown``.

    Attributes:
        configurations: how many configurations may be expanded, over all keys.
        bytes_max: how many bytes remembered configurations may take, by estimate.
        seconds: how long it may take; the one bound that depends on the machine.
    """

    configurations: int = 5_000_000
    bytes_max: int = 1 << 29
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("configurations", "bytes_max", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"budget {name} is {getattr(self, name)}: give a number above 0")


def check_linearizable(
    history: History | Iterable[Op],
    model: Model | str,
    *,
    budget: Budget | None = None,
    algorithm: str = "auto",
    explain: bool = True,
) -> Verdict:
    """Whether the history could have come from one correct object that does one thing at a time.

    Args:
        history: a history, or its lines.
        model: what a correct object does; a name stands for that model with the history's initial value.
        budget: what the check may use.
        algorithm: one of `ALGORITHMS`; what it alone cannot decide is ``unknown``.
        explain: whether an invalid history gets its counterexample, which may take longer than the check.

    Returns:
        A verdict that names the model and the algorithm; invalid ones hold a counterexample.

    Raises:
        HistoryError: where the lines do not pair, or hold operations that the model does not know.
        ValueError: for an unknown name of a model or an algorithm.
        TypeError: for what is no history, or no model.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}: use one of {', '.join(ALGORITHMS)}")
    if not isinstance(history, History):
        history = _history_of(history)
    model = model_by_name(model, history.initial) if isinstance(model, str) else vetted(model)
    budget = budget or Budget()
    nothing = nobody_asked(history)
    if nothing is not None:
        return Verdict(
            valid="unknown", model=model.name, algorithm="none", cause=nothing, notes=history.notes
        )
    try:
        with collector_paused():
            return Check(history, model, budget, algorithm, explain=explain).run()
    except HistoryError:
        raise
    except Exception as error:  # noqa: BLE001  (rule 3: a crash is never a pass)
        return _crashed(history, model, error)


def _history_of(lines: Any) -> History:
    kept = list(lines) if isinstance(lines, Iterable) else [lines]
    if isinstance(lines, str | bytes) or not all(isinstance(op, Op) for op in kept):
        raise TypeError(
            f"{repr(lines)[:60]} is no history: give its lines (`checkers.Op`), or read_history(path)"
        )
    return History.of(kept)


def groups_of(history: History, model: Model) -> dict[Hashable, list[Operation]]:
    """Operations that count for the model, by object, in the order of first calls."""
    split, keep_mismatch = by_key(model), uses_mismatch(model)
    groups: dict[Hashable, list[Operation]] = {}
    for operation in history.operations:
        if operation.status == "mismatch" and not keep_mismatch:
            continue
        problem = misfit(model, operation)
        if problem is not None:
            where = f"{history.source}: " if history.source else ""
            raise HistoryError(f"{where}index {operation.invoke_index}: {problem}: choose another model")
        groups.setdefault(operation.key if split else None, []).append(operation)
    return groups


def _tells_revisions(history: History) -> bool:
    lines: Any = history.lines
    if hasattr(lines, "tells_revisions"):
        return bool(lines.tells_revisions())
    return any(op.revision is not None for op in lines)


def _crashed(history: History, model: Model, error: Exception) -> Verdict:
    return Verdict(
        valid="unknown",
        model=model.name,
        algorithm="none",
        operations=sum(op.type == "invoke" for op in history.lines),
        cause=str(error)
        if isinstance(error, ModelError)
        else f"the check failed with {type(error).__name__}: {error}; a fault of the model or of splitbrain",
        notes=history.notes,
    )


class Check:
    """One run of `check_linearizable`: its objects, its budget and what it has found.

    Operations of a long history of registers are made only for the keys that need them (`operations`).
    """

    def __init__(
        self, history: History, model: Model, budget: Budget, algorithm: str = "auto", *, explain: bool = True
    ) -> None:
        self.history = history
        self.model = model
        self.budget = budget
        self.algorithm = algorithm
        self.explain = explain
        self.orders = _ORDERS.get(algorithm, _BOTH)
        self.deadline_s = time.monotonic() + budget.seconds
        self.spent = 0
        self.algorithms: dict[str, None] = {}
        self.failing: dict[Hashable, Outcome | None] = {}
        self.undecided: dict[Hashable, Outcome] = {}
        self.groups: dict[Hashable, list[Operation]] = {}
        self.columns: RegisterColumns | None = None
        self.parts: KeyParts | None = None
        self.clashes: dict[Hashable, list[int]] = {}
        self.status: Any = None
        self.stale: dict[Hashable, Stale] = {}
        self.found: dict[Hashable, containers.Found] = {}
        self.misordered: dict[Hashable, revisions.Found] = {}
        self.notes: list[str] = []
        self.places: dict[Hashable, Any] = {}
        self.backend: Backend = PLAIN
        self._prepare()

    def _prepare(self) -> None:
        """Columns for registers (see `checkers.zones`), straight from the lines of a long history."""
        model = self.model
        if (
            isinstance(model, Register)
            and fast.installed()
            and len(self.history.lines) >= self._lines_for_columns()
        ):
            from checkers.columns import register_columns  # noqa: PLC0415  (numpy only for long histories)

            self.columns = register_columns(self.history, model)
            if self.columns is not None:
                self._ready("zones")
                self.backend = fast.Compiled()
        if self.columns is None:
            self.backend = PLAIN
            self.groups = groups_of(self.history, model)
            if by_key(model):
                self.columns = columns_of(self.groups, model)

    def _lines_for_columns(self) -> int:
        if self._used():
            return _COLUMNS_LINES_USED
        return fast.by_readiness("zones", _COLUMNS_LINES_COLD, _COLUMNS_LINES_WARM, _COLUMNS_LINES_LOADED)

    def _used(self) -> bool:
        """Whether this process has used all of the compiled code that registers need."""
        return fast.used("zones", "expand", "replay", *(_PARTS[order] for order in self.orders))

    @property
    def keys(self) -> list[Hashable]:
        """The objects that are checked apart."""
        return list(self.groups) if self.columns is None else self.columns.keys

    @property
    def count(self) -> int:
        """How many operations there are."""
        if self.columns is None:
            return sum(map(len, self.groups.values()))
        return len(self.columns.f)

    def run(self) -> Verdict:
        """The verdict."""
        if not self.count:
            self.notes.append("every operation failed, so that nothing was there to contradict the model")
        left = self.keys
        if self.columns is not None and self.algorithm in {"auto", "zones"}:
            left = self._by_zones()
            if self.algorithm == "auto":
                left = self._by_intervals(left)
        elif self.columns is None and self.algorithm in {"auto", "containers"}:
            left = self._by_containers()
        if self.algorithm in {"auto", "revisions"}:
            left = self._by_revisions(left)
        if self.algorithm in {"zones", "containers", "revisions"}:
            self.undecided.update(dict.fromkeys(left, Outcome(None, 0, 0, "none", cause=NOT_THIS)))
            left = []
        for key in self._by_columns(left):
            self._search(key, self._plain_share())
        for key in list(self.undecided):
            self._search_hard(key)
        explanation = self._told().explanation() if self.explain and self.failing else None
        valid: Validity = "invalid" if self.failing else "unknown" if self.undecided else "valid"
        return Verdict(
            valid=valid,
            model=self.model.name,
            algorithm="+".join(self.algorithms) or "none",
            operations=self.count,
            keys=len(self.keys),
            configurations=self.spent,
            cause=self._told().cause() if valid == "unknown" else None,
            failing_keys=tuple(show(key, 40) for key in self.keys if key in self.failing),
            unknown_keys=tuple(show(key, 40) for key in self.keys if key in self.undecided),
            evidence=explanation.lines if explanation else (),
            figure=explanation.figure if explanation else None,
            notes=(*self.history.notes, *self.notes, *remarks_of(self.model)),
        )

    def _by_zones(self) -> list[Hashable]:
        """The keys that it cannot decide: not registers with values written once."""
        columns = self.columns
        assert columns is not None, "called for registers only"
        solution = solve(columns, self.backend)
        self.status = solution.status
        left: list[Hashable] = []
        for number, (key, status) in enumerate(zip(columns.keys, solution.status, strict=True)):
            if status in (FITS, VIOLATION):
                self.algorithms.setdefault("zones")
            if status == VIOLATION:
                self.failing[key] = None
                self.clashes[key] = [int(value) for value in solution.clash[3 * number + 1 : 3 * number + 3]]
            elif status != FITS:
                left.append(key)
        return left

    def _told(self) -> Telling:
        from checkers.telling import Telling  # noqa: PLC0415  (only for what is not valid)

        return Telling(self)

    def _by_intervals(self, left: list[Hashable]) -> list[Hashable]:
        """The keys that it does not refute: see `checkers.intervals`."""
        if not left:
            return left
        assert self.columns is not None, "called for registers only"
        found = refute(self.columns, self.status, self.backend)
        for number, stale in found.items():
            key = self.columns.keys[number]
            self.algorithms.setdefault("intervals")
            self.failing[key] = None
            self.stale[key] = stale
        return [key for key in left if key not in self.stale]

    def operations(self, key: Hashable) -> list[Operation]:
        """The operations of a key; of a long history they are made when somebody asks."""
        if key not in self.groups:
            self.groups[key] = groups_of(self.key_parts().part(key), self.model).get(key, [])
        return self.groups[key]

    def key_parts(self) -> KeyParts:
        """The lines of each key of a long history."""
        if self.parts is None:
            assert self.columns is not None, "groups hold all keys where there are no columns"
            from checkers.columns import KeyParts  # noqa: PLC0415  (only for long histories)

            self.parts = KeyParts(self.history, self.columns)
        return self.parts

    def _by_containers(self) -> list[Hashable]:
        """The keys that it cannot decide: see `checkers.containers`."""
        left: list[Hashable] = []
        for key, operations in self.groups.items():
            found = containers.decide(operations, self.model)
            if found is None:
                left.append(key)
                continue
            self.algorithms.setdefault("containers")
            if not found.valid:
                self.failing[key] = None
                self.found[key] = found
        return left

    def _by_revisions(self, left: list[Hashable]) -> list[Hashable]:
        """The keys that it cannot decide: see `checkers.revisions`."""
        if not left or not by_key(self.model) or not _tells_revisions(self.history):
            return left
        still: list[Hashable] = []
        for key in left:
            operations = self.operations(key)
            found = revisions.decide(operations, self.model)
            if found is None or not self._accepts(found, key, operations):
                still.append(key)
                continue
            self.algorithms.setdefault("revisions")
            if not found.valid:
                self.failing[key] = None
                self.misordered[key] = found
        return still

    def _accepts(self, found: revisions.Found, key: Hashable, operations: Sequence[Operation]) -> bool:
        """Whether what the revisions say is what the model says."""
        if found.valid:
            try:
                verify(found.order, operations, self.model)
            except WitnessError:
                return False
            return True
        if not uses_revisions(self.model) and not self.notes:
            where = "" if key is None else f"key {show(key, 40)}: "
            self.notes.append(
                f"{where}the revisions contradict each other, at which the model {self.model.name} does not look "
                f"(use revision-register): {found.why}"
            )
        return uses_revisions(self.model)

    def _ready(self, part: str) -> None:
        """Loads or compiles a part; what that takes is no fault of the history."""
        began_s = time.monotonic()
        fast.prepare(part)
        self.deadline_s += time.monotonic() - began_s

    def _by_columns(self, left: list[Hashable]) -> list[Hashable]:
        """The keys that are not for the compiled search on columns; of the others long ones are searched at once."""
        columns = self.columns
        chosen = [key for key in left if self._for_columns(key)]
        if columns is None or not chosen:
            return left
        for part in ("expand", *(_PARTS[order] for order in self.orders)):
            self._ready(part)
        from checkers.register_search import batches, search_keys  # noqa: PLC0415  (imports numba)

        for batch in batches(chosen, [len(self.places[key]) for key in chosen]):
            meters = {key: self._meter(key, self.budget.configurations, len(batch)) for key in batch}
            tasks = {key: (self.places[key], meter) for key, meter in meters.items() if meter is not None}
            outcomes = search_keys(columns, list(tasks.values()), self.orders)
            for (key, (_, meter)), outcome in zip(tasks.items(), outcomes, strict=True):
                self.spent += meter.used
                self._settle(key, outcome)
        searched = set(chosen)
        return [key for key in left if key not in searched]

    def _for_columns(self, key: Hashable) -> bool:
        columns = self.columns
        if self.backend is PLAIN or columns is None or key in self.undecided:
            return False
        if not self.places:
            from checkers.columns import places_by_key  # noqa: PLC0415  (only for long histories)

            self.places = places_by_key(columns)
        count = len(self.places[key])
        return count >= (_COLUMNS_OPERATIONS_USED if self._used() else _COLUMNS_OPERATIONS) and (
            fast.warm("deep") or count >= _COLUMNS_LINES_WARM // 4
        )

    def _plain_share(self) -> int:
        """Objects that only grow have too many states for tables, and the plain search looks ahead for them."""
        if reaches_of(self.model) is not None:
            return self.budget.configurations
        return fast.by_readiness("deep", _PLAIN_COLD, _PLAIN_WARM, _PLAIN_LOADED)

    def _search_hard(self, key: Hashable) -> None:
        """Compiled where that can be had; the plain search has gone on for long."""
        if self.undecided[key].cause == NOT_THIS or reaches_of(self.model) is not None:
            return
        by = self.compiled if fast.installed() else self._plain
        self._search(key, self.budget.configurations, by=by)

    def _plain(self, problem: Problem, meter: Meter) -> Outcome:
        return search(problem, meter, self.orders)

    def compiled(self, problem: Problem, meter: Meter) -> Outcome:
        """The compiled search, or the plain one for what does not fit into it."""
        began_s = time.monotonic()
        for part in ("expand", *(_PARTS[order] for order in self.orders)):
            fast.prepare(part)
        from checkers import compiled_search  # noqa: PLC0415  (imports numba)

        meter.deadline_s += time.monotonic() - began_s
        try:
            return compiled_search.search(problem, meter, self.orders)
        except compiled_search.TooLarge:
            return search(problem, meter, self.orders)

    def _meter(self, key: Hashable, configurations: int, at_once: int = 1) -> Meter | None:
        """What a search of the key may use, of so many at once; None where nothing is left, which is then said."""
        left = self.budget.configurations - self.spent
        late = time.monotonic() > self.deadline_s
        if late or (left <= 0 and key in self.undecided):
            before = self.undecided.get(key, Outcome(None, 0, 0, "none"))
            self.undecided[key] = replace(before, cause="seconds" if late else "configurations")
            return None
        bytes_max = max(1, self.budget.bytes_max // at_once)
        return Meter(max(1, min(left, configurations) // at_once), bytes_max, self.deadline_s)

    def _search(
        self, key: Hashable, configurations: int, by: Callable[[Problem, Meter], Outcome] | None = None
    ) -> None:
        meter = self._meter(key, configurations)
        if meter is None:
            return
        operations = self.operations(key)
        problem = compile_problem(operations, self.model)
        outcome = (by or self._plain)(problem, meter)
        self.spent += meter.used
        self._settle(key, outcome)
        if outcome.valid:
            verify(replay(problem, Levels(problem), outcome.trail), operations, self.model)

    def _settle(self, key: Hashable, outcome: Outcome) -> None:
        self.undecided.pop(key, None)
        if outcome.valid is None:
            self.undecided[key] = outcome
            return
        self.algorithms.setdefault(outcome.algorithm)
        if not outcome.valid:
            self.failing[key] = outcome
