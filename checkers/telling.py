"""What a check tells of what is not valid: the counterexample, or what ran out and where.

Rules of this module
    1. The verdict stands before this is called, even if it cannot be explained.
    2. `checkers.linear` imports it when there is something to tell: a valid history needs no networkx.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from checkers import containers
from checkers.explain import (
    Explanation,
    explain,
    explain_clash,
    explain_part,
    explain_told,
    failed_search,
    stale_words,
)
from checkers.levels import Levels
from checkers.linear import NOT_THIS, Budget, groups_of
from checkers.meter import Meter
from checkers.models import by_key
from checkers.problem import NEVER, Problem, compile_problem
from checkers.search import Outcome
from checkers.values import show

if TYPE_CHECKING:
    from checkers.linear import Check


#: So many operations are searched even where it is known already which of them clash: the search tells more.
SHORT = 60


class Telling:
    """What to say of one check that is over."""

    def __init__(self, check: Check) -> None:
        self.check = check

    def explanation(self) -> Explanation:
        """Of the first key that is wrong."""
        key, outcome = next(iter(self.check.failing.items()))
        name = key if by_key(self.check.model) else None
        try:
            if key in self.check.misordered:
                return self._misordered(key, name)
            if key in self.check.stale:
                return self._stale(key, name)
            if key in self.check.found:
                return self._wrong_values(key, name)
            if outcome is None:
                return self._clash(key, name)
            if not outcome.recent:
                # The search on columns says that there is an end, not yet which states it was reached in.
                problem = compile_problem(self.check.operations(key), self.check.model)
                outcome = self.check.compiled(
                    problem, Meter(2 * self.check.budget.configurations, self.check.budget.bytes_max, NEVER)
                )
            return explain(self.check.operations(key), self.check.model, name, outcome)
        except Exception as error:  # noqa: BLE001  (the verdict stands, even if it cannot be explained)
            return Explanation((f"the counterexample could not be made: {type(error).__name__}: {error}",))

    def _clash(self, key: Hashable, name: Hashable) -> Explanation:
        """Of a long history only the operations that clash are made."""
        if key in self.check.groups:
            return explain_clash(self.check.groups[key], self.check.model, name)
        parts = self.check.key_parts()
        part = parts.clash(self.check.clashes[key])
        operations = groups_of(part, self.check.model).get(key, []) if part is not None else []
        return explain_part(operations, self.check.model, name, parts.size(key))

    def _stale(self, key: Hashable, name: Hashable) -> Explanation:
        """A short history is searched, which tells more."""
        stale, columns = self.check.stale[key], self.check.columns
        assert columns is not None, "found in columns"
        if len(columns.f) <= SHORT:
            operations = self.check.operations(key)
            outcome = failed_search(operations, self.check.model)
            if outcome is not None:
                return explain(operations, self.check.model, name, outcome)
        places = sorted(place for place in stale if place >= 0)
        if self.check.parts is None:
            every = [operation for group in self.check.groups.values() for operation in group]
            part = [every[columns.origin[place]] for place in places]
            count = len(self.check.groups[key])
        else:
            part = groups_of(self.check.parts.chosen(places), self.check.model)[key]
            count = self.check.parts.size(key)
        seen, writer, shown = (part[places.index(place)] if place >= 0 else None for place in stale)
        assert seen is not None, "it is what was found"
        return explain_told(part, self.check.model, name, count, stale_words(seen, writer, shown))

    def _wrong_values(self, key: Hashable, name: Hashable) -> Explanation:
        operations = self.check.operations(key)
        part, values = containers.smallest(operations, self.check.model, self.check.found[key])
        # What an open take may have got is part of the proof; of very many of them a search may not get through.
        wider = containers.with_open_takes(operations, part)
        if len(wider) > len(part) and failed_search(wider, self.check.model) is not None:
            part = wider
        told = values if any(operation.f == "read" for operation in part) else ()
        return explain_part(part, self.check.model, name, len(operations), values=told)

    def _misordered(self, key: Hashable, name: Hashable) -> Explanation:
        found = self.check.misordered[key]
        return explain_told(found.clash, self.check.model, name, len(self.check.operations(key)), [found.why])

    def cause(self) -> str:
        """Why the first undecided key is unknown."""
        key, outcome = next(iter(self.check.undecided.items()))
        if outcome.cause == NOT_THIS:
            return f"the algorithm {self.check.algorithm} cannot decide this history: use --algorithm auto"
        problem = compile_problem(self.check.operations(key), self.check.model)
        return _how_far(problem, outcome, key if by_key(self.check.model) else None, self.check.budget)


def _how_far(problem: Problem, outcome: Outcome, key: Hashable, budget: Budget) -> str:
    """Says what ran out, what is proved, where it is hard and what to lower."""
    levels = Levels(problem)
    if not levels.rets:  # then the search has not even begun: what never returned may never have happened
        return f"ran out of its budget of {budget.seconds:g} s before the search: raise the budget"
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
