"""Witnesses: the order that proves a history linearizable, and a second look at it.

Rules of this module
    1. `verify` shares nothing with the searches but the model: it is what makes a yes trustworthy.
    2. `replay` turns the choices of a search into an order. What the search put in without a choice (R1,
       R3 and R4 of `checkers.search`) is put in here by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from checkers.effects import Inconsistent
from checkers.history import Operation
from checkers.levels import Levels
from checkers.models import Model
from checkers.problem import ILLEGAL, OVERWRITE, PURE, Problem
from checkers.search import Trail


class WitnessError(Exception):
    """A yes whose order does not hold: a fault of the checker, never of the history."""


def replay(problem: Problem, levels: Levels, trail: Trail | None) -> list[Operation]:
    """The linearization that the choices of a successful search amount to."""
    return _Replay(problem, levels).run(trail)


class _Replay:
    def __init__(self, problem: Problem, levels: Levels) -> None:
        self.problem = problem
        self.levels = levels
        self.state = problem.initial
        self.order: list[int] = []
        self.placed: set[int] = set()
        #: Where an optional operation may stand: just before this position of ``order``.
        self.optional: dict[int, int] = {}
        self.inserted: list[int] = []

    def run(self, trail: Trail | None) -> list[Operation]:
        choices: dict[int, list[int]] = {}
        while trail is not None:
            choices.setdefault(trail.level, []).append(trail.operation)
            trail = trail.before
        for level, returning in enumerate(self.levels.rets):
            self._settle(level)
            for place in reversed(choices.get(level, [])):
                self._put(level, place)
                self._settle(level)
            if returning not in self.placed:
                if returning not in self.optional:
                    raise WitnessError(
                        f"{self.problem.operations[returning]} returned without being in the order"
                    )
                self.placed.add(returning)
                self.inserted.append(returning)
        return self._merged()

    def _settle(self, level: int) -> None:
        for place in self.levels.pending[level]:
            kind = self.problem.kind[place]
            if place in self.placed or self.problem.next(kind, self.state) != self.state:
                continue
            if self.problem.effect[kind] == PURE:
                self.placed.add(place)
                self.order.append(place)
            else:
                self.optional.setdefault(place, len(self.order))

    def _put(self, level: int, place: int) -> None:
        kind, unseen = self.problem.kind[place], self.problem.unseen
        if self.problem.effect[kind] == OVERWRITE:
            for other in self.levels.pending[level]:
                if other not in self.placed and self.problem.effect[self.problem.kind[other]] in unseen:
                    self.optional.setdefault(other, len(self.order))
        self.state = self.problem.next(kind, self.state)
        if self.state == ILLEGAL:
            raise WitnessError(f"{self.problem.operations[place]} was put where it is impossible")
        self.placed.add(place)
        self.order.append(place)

    def _merged(self) -> list[Operation]:
        """Optional ones before their position, in the order in which they became optional."""
        became = {place: number for number, place in enumerate(self.optional)}
        spots = [(position, 1, 0, place) for position, place in enumerate(self.order)]
        spots += [(self.optional[place], 0, became[place], place) for place in self.inserted]
        return [self.problem.operations[spot[-1]] for spot in sorted(spots)]


def verify(order: Sequence[Operation], operations: Sequence[Operation], model: Model) -> None:
    """Checks, in one pass, that the order is a linearization of the operations of one object.

    Args:
        order: the claimed linearization.
        operations: all operations of the object that count for the model.
        model: applied from its initial state.

    Raises:
        WitnessError: where an operation is missing, doubled, out of real-time order or impossible.
    """
    included = {operation.invoke_index for operation in order}
    if len(included) != len(order):
        raise WitnessError("an operation stands twice in the order")
    for operation in operations:
        if operation.ret is not None and operation.invoke_index not in included:
            raise WitnessError(f"{operation} is not in the order")
    state = model.initial()
    latest_call = -1
    for operation in order:
        if operation.ret is not None and operation.ret < latest_call:
            raise WitnessError(f"{operation} stands after one that was called after it had returned")
        latest_call = max(latest_call, operation.call)
        after = model.step(state, operation)
        if isinstance(after, Inconsistent):
            raise WitnessError(f"{operation} is impossible there: {after.reason}")
        state = after
