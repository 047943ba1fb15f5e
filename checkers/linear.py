"""Linearizability: the check as a whole, from a history to a verdict.

Rules of this module
    1. Objects that are independent by the model (keys) are checked apart: a history is linearizable iff
       each of its objects is (Herlihy and Wing 1990, locality).
    2. Every yes is verified (`checkers.witness`), every no is explained (`checkers.explain`), and what
       runs out of its budget is ``unknown`` and says how far it got.
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

import sys
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from checkers import fast
from checkers.history import History, HistoryError, Op, Operation
from checkers.models import Model, Register, by_key, misfit, model_by_name, uses_mismatch
from checkers.problem import Problem, compile_problem
from checkers.registers import PLAIN, Backend, RegisterColumns, columns_of, solve
from checkers.search import Levels, Meter, Outcome, search
from checkers.values import show
from checkers.verdict import Validity, Verdict
from checkers.witness import replay, verify
from checkers.zones import FITS, VIOLATION

if TYPE_CHECKING:
    from checkers.columns import KeyParts

#: From that many lines on histories of registers are read into arrays and checked by compiled code.
_COLUMNS_LINES = 100_000
_FIRST_PASS_CONFIGURATIONS = 20_000
_PLAIN_CONFIGURATIONS = 150_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a check may use before it answers ``unknown``.

    Attributes:
        configurations: how many configurations may be expanded, over all keys.
        bytes_max: how many bytes remembered configurations may take, by estimate.
        seconds: how long it may take; the one bound that depends on the machine.
    """

    configurations: int = 5_000_000
    bytes_max: int = 1 << 30
    seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("configurations", "bytes_max", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"budget {name} is {getattr(self, name)}: give a number above 0")


def check_linearizable(
    history: History | Iterable[Op], model: Model | str, *, budget: Budget | None = None
) -> Verdict:
    """Whether the history could have come from one correct object that does one thing at a time.

    Args:
        history: a history, or its lines.
        model: what a correct object does; a name stands for that model with the history's initial value.
        budget: what the check may use.

    Returns:
        A verdict that names the model and the algorithm; invalid ones hold a counterexample.

    Raises:
        HistoryError: where the lines do not pair, or hold operations that the model does not know.
        ValueError: for an unknown name of a model.
    """
    if not isinstance(history, History):
        history = History.of(history)
    if isinstance(model, str):
        model = model_by_name(model, history.initial)
    budget = budget or Budget()
    try:
        return _Check(history, model, budget).run()
    except HistoryError:
        raise
    except Exception as error:  # noqa: BLE001  (rule 3: a crash is never a pass)
        return _crashed(history, model, error)


def _groups(history: History, model: Model) -> dict[Hashable, list[Operation]]:
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


def _crashed(history: History, model: Model, error: Exception) -> Verdict:
    return Verdict(
        valid="unknown",
        model=model.name,
        algorithm="none",
        operations=sum(op.type == "invoke" for op in history.lines),
        cause=f"the check failed with {type(error).__name__}: {error}; a fault of the model or of splitbrain",
        notes=history.notes,
    )


class _Check:
    """One run of `check_linearizable`: its objects, its budget and what it has found.

    Operations of a long history of registers are made only for the keys that need them (`_operations`).
    """

    def __init__(self, history: History, model: Model, budget: Budget) -> None:
        self.history = history
        self.model = model
        self.budget = budget
        self.deadline_s = time.monotonic() + budget.seconds
        self.spent = 0
        self.algorithms: dict[str, None] = {}
        self.failing: dict[Hashable, Outcome | None] = {}
        self.undecided: dict[Hashable, Outcome] = {}
        self.groups: dict[Hashable, list[Operation]] = {}
        self.columns: RegisterColumns | None = None
        self.parts: KeyParts | None = None
        self.clashes: dict[Hashable, list[int]] = {}
        self.backend: Backend = PLAIN
        self._prepare()

    def _prepare(self) -> None:
        """Columns for registers (see `checkers.zones`), straight from the lines of a long history."""
        model = self.model
        if isinstance(model, Register) and len(self.history.lines) >= _COLUMNS_LINES and fast.installed():
            from checkers.columns import register_columns  # noqa: PLC0415  (numpy only for long histories)

            self.columns = register_columns(self.history, model)
            self.backend = fast.Compiled()
        if self.columns is None:
            self.backend = PLAIN
            self.groups = _groups(self.history, model)
            if by_key(model):
                self.columns = columns_of(self.groups, model)

    @property
    def keys(self) -> list[Hashable]:
        return list(self.groups) if self.columns is None else self.columns.keys

    @property
    def count(self) -> int:
        if self.columns is None:
            return sum(map(len, self.groups.values()))
        return len(self.columns.f)

    def run(self) -> Verdict:
        left = self._by_zones() if self.columns is not None else list(self.groups)
        # Where the compiled search is loaded already, it is worth its set-up much earlier.
        loaded = "checkers.compiled_search" in sys.modules
        for key in left:
            self._search(key, _FIRST_PASS_CONFIGURATIONS // (10 if loaded else 1))
        for key in list(self.undecided):
            self._search_hard(key)
        valid: Validity = "invalid" if self.failing else "unknown" if self.undecided else "valid"
        return Verdict(
            valid=valid,
            model=self.model.name,
            algorithm="+".join(self.algorithms) or "none",
            operations=self.count,
            keys=len(self.keys),
            configurations=self.spent,
            cause=self._cause() if valid == "unknown" else None,
            failing_keys=tuple(show(key, 40) for key in self.keys if key in self.failing),
            unknown_keys=tuple(show(key, 40) for key in self.keys if key in self.undecided),
            evidence=self._evidence(),
            notes=self.history.notes,
        )

    def _by_zones(self) -> list[Hashable]:
        """The keys that it cannot decide: not registers with values written once."""
        columns = self.columns
        assert columns is not None, "called for registers only"
        solution = solve(columns, self.backend)
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

    def _operations(self, key: Hashable) -> list[Operation]:
        if key not in self.groups:
            self.groups[key] = _groups(self._key_parts().part(key), self.model)[key]
        return self.groups[key]

    def _key_parts(self) -> KeyParts:
        if self.parts is None:
            assert self.columns is not None, "groups hold all keys where there are no columns"
            from checkers.columns import KeyParts  # noqa: PLC0415  (only for long histories)

            self.parts = KeyParts(self.history, self.columns)
        return self.parts

    def _search_hard(self, key: Hashable) -> None:
        """Compiled where that is ready, or where the plain search has gone on for long."""
        if not fast.installed():
            self._search(key, self.budget.configurations)
            return
        if not fast.warm():
            self._search(key, _PLAIN_CONFIGURATIONS)
        if key in self.undecided:
            self._search(key, self.budget.configurations, by=self._compiled)

    def _compiled(self, problem: Problem, meter: Meter) -> Outcome:
        began_s = time.monotonic()
        from checkers import compiled_search  # noqa: PLC0415  (imports numba, and may have to compile)

        compiled_search.ready()
        # What compiling takes is no fault of the history.
        meter.deadline_s += time.monotonic() - began_s
        try:
            return compiled_search.search(problem, meter)
        except compiled_search.TooLarge:
            return search(problem, meter)

    def _search(
        self, key: Hashable, configurations: int, by: Callable[[Problem, Meter], Outcome] = search
    ) -> None:
        left = self.budget.configurations - self.spent
        late = time.monotonic() > self.deadline_s
        if late and key in self.undecided:
            self.undecided[key] = replace(self.undecided[key], cause="seconds")
        if key in self.undecided and (late or left <= 0):
            return
        meter = Meter(max(1, min(left, configurations)), self.budget.bytes_max, self.deadline_s)
        operations = self._operations(key)
        problem = compile_problem(operations, self.model)
        outcome = by(problem, meter)
        self.spent += meter.used
        self.undecided.pop(key, None)
        if outcome.valid is None:
            self.undecided[key] = outcome
            return
        self.algorithms.setdefault(outcome.algorithm)
        if outcome.valid:
            verify(replay(problem, Levels(problem), outcome.trail), operations, self.model)
        else:
            self.failing[key] = outcome

    def _evidence(self) -> tuple[str, ...]:
        if not self.failing:
            return ()
        from checkers.explain import explain  # noqa: PLC0415  (a valid history needs no networkx)

        key, outcome = next(iter(self.failing.items()))
        name = key if by_key(self.model) else None
        try:
            if outcome is not None:
                return tuple(explain(self._operations(key), self.model, name, outcome))
            return tuple(self._clash(key, name))
        except Exception as error:  # noqa: BLE001  (the verdict stands, even if it cannot be explained)
            return (f"the counterexample could not be made: {type(error).__name__}: {error}",)

    def _clash(self, key: Hashable, name: Hashable) -> list[str]:
        """Of a long history only the operations that clash are made."""
        from checkers.explain import explain_clash, explain_part  # noqa: PLC0415

        if key in self.groups:
            return explain_clash(self.groups[key], self.model, name)
        parts = self._key_parts()
        part = parts.clash(self.clashes[key])
        operations = _groups(part, self.model).get(key, []) if part is not None else []
        return explain_part(operations, self.model, name, parts.size(key))

    def _cause(self) -> str:
        key, outcome = next(iter(self.undecided.items()))
        problem = compile_problem(self._operations(key), self.model)
        return _how_far(problem, outcome, key if by_key(self.model) else None, self.budget)


def _how_far(problem: Problem, outcome: Outcome, key: Hashable, budget: Budget) -> str:
    """Says what ran out, what is proved, where it is hard and what to lower."""
    levels = Levels(problem)
    level = min(outcome.level, len(levels.rets) - 1)
    returning = problem.operations[levels.rets[level]]
    pending = len(levels.pending[level])
    infos = sum(
        1
        for place, bit in enumerate(levels.bit)
        if not bit and problem.call[place] < problem.ret[levels.rets[level]]
    )
    amount = {
        "configurations": f"{budget.configurations} configurations",
        "bytes": f"{budget.bytes_max >> 20} MiB of configurations",
        "seconds": f"{budget.seconds:g} s",
    }[outcome.cause or "configurations"]
    where = "" if key is None else f" on key {show(key, 40)}"
    reached = f"linearizable up to completion {outcome.level} of {len(levels.rets)}"
    there = f"where {pending} operations are open and {infos} earlier ones never returned"
    return (
        f"ran out of its budget of {amount}{where}; {reached} (index {returning.complete_index}), {there}: "
        "raise the budget, or run fewer clients or fewer operations per key"
    )
