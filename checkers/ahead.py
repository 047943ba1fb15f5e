"""What is still to come, for objects that only grow: strings and lists at whose end things are put.

Rules of this module
    1. Only for problems that say so (`Problem.grows`): their operations are pure, overwrites, or blind.
    2. R7 and R8 of `checkers.search` are decided here; the arguments stand there.

Theory of operation
    A read of such an object tells all that went in since the last overwrite, in order. So most orders of what is
    pending are hopeless as soon as a read that is still to come is looked at, and a search that does not look runs
    through all of them first.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections.abc import Iterator
from itertools import accumulate, chain

from checkers.levels import Levels
from checkers.problem import NEVER, OVERWRITE, PURE, Problem


class Ahead:
    """What is still to come at a level, for objects that only grow: R7 and R8."""

    def __init__(self, problem: Problem, levels: Levels) -> None:
        self.problem, self.levels = problem, levels
        effects = [problem.effect[kind] for kind in problem.kind]
        #: The pure operations in the order of their returns, and by level how many of them returned before.
        self.pure = [place for place in levels.rets if effects[place] == PURE]
        self.gone = list(accumulate((effects[place] == PURE for place in levels.rets), initial=0))
        #: The pure ones, and the overwrites, in the order of their calls, with these.
        self.pure_called = sorted(self.pure)
        self.pure_calls = [problem.call[place] for place in self.pure_called]
        self.overwrites = [place for place, effect in enumerate(effects) if effect == OVERWRITE]
        self.overwrite_calls = [problem.call[place] for place in self.overwrites]
        self.lost = [place for place in self.overwrites if problem.ret[place] == NEVER]

    def hopeless(self, state: int, used: int, level: int) -> bool:
        """R7: whether something that must still come never fits."""
        return any(
            not self._reached(state, place) and not self._overwritten(state, used, level, place)
            for place in (*self._open(used, level), *self._next(level))
        )

    def seen(self, state: int, used: int, level: int) -> bool:
        """R8: whether something that must still come may see the state, or what grows from it.

        What is called after the next one has returned comes after that. If that is not reached, there is an
        overwrite before it.
        """
        if any(self._reached(state, place) for place in self._open(used, level)):
            return True
        for place in self._next(level):
            horizon = self.problem.ret[self.levels.rets[level]]
            start, end = (
                bisect_left(self.pure_calls, horizon),
                bisect(self.pure_calls, self.problem.ret[place]),
            )
            return any(self._reached(state, other) for other in self.pure_called[start:end])
        return False

    def _reached(self, state: int, pure: int) -> bool:
        return self.problem.reaches(self.problem.kind[pure], state)

    def _open(self, used: int, level: int) -> Iterator[int]:
        """Pure ones that are pending and not in."""
        problem, bits = self.problem, self.levels.bit
        for place in self.levels.pending[level]:
            if problem.effect[problem.kind[place]] == PURE and not used & bits[place]:
                yield place

    def _next(self, level: int) -> Iterator[int]:
        """Of the pure ones not yet called the one that returns first; nothing if there is none."""
        horizon = self.problem.ret[self.levels.rets[level]]
        for at in range(self.gone[level], len(self.pure)):
            if self.problem.call[self.pure[at]] >= horizon:
                yield self.pure[at]
                return

    def _overwritten(self, state: int, used: int, level: int, pure: int) -> bool:
        """Whether an overwrite that may still come, before the pure operation returns, leads to it."""
        problem, bits = self.problem, self.levels.bit
        horizon = problem.ret[self.levels.rets[level]]
        start, end = (
            bisect_left(self.overwrite_calls, horizon),
            bisect(self.overwrite_calls, problem.ret[pure]),
        )
        to_come = chain(
            (place for place in self.levels.pending[level] if not used & bits[place]),
            self.overwrites[start:end],
            self.lost,
        )
        return any(
            problem.effect[problem.kind[place]] == OVERWRITE
            and problem.reaches(problem.kind[pure], problem.next(problem.kind[place], state))
            for place in to_come
        )
