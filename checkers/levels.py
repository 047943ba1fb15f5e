"""The returns of a problem in order, and what is pending at each: the theory is in `checkers.search`."""

from __future__ import annotations

from checkers.problem import NEVER, Problem


class Levels:
    """The problem's returns in order, with what is pending at each.

    Attributes:
        rets: place of the returning operation, by level.
        pending: places of the operations that have a slot at that level, in the order of their calls.
        bit: mask of each operation's slot; 0 for info operations.
        info_kinds: the kinds that info operations have, in the order of first calls.
        info_places: for each of them the places of its operations, in the order of calls.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        ret, call, kind = problem.ret, problem.call, problem.kind
        places = range(len(problem.operations))
        self.rets = sorted((place for place in places if ret[place] != NEVER), key=lambda place: ret[place])
        self.bit = [0] * len(problem.operations)
        self.pending: list[tuple[int, ...]] = []
        self._assign_slots()
        by_kind: dict[int, list[int]] = {}
        for place in places:
            if ret[place] == NEVER:
                by_kind.setdefault(kind[place], []).append(place)
        self.info_kinds = list(by_kind)
        self.info_places = list(by_kind.values())
        self.info_calls = [[call[place] for place in group] for group in self.info_places]

    def _assign_slots(self) -> None:
        ret, call = self.problem.ret, self.problem.call
        free: list[int] = []
        slots = 0
        window: list[int] = []
        upcoming = 0
        for returning in self.rets:
            horizon = ret[returning]
            while upcoming < len(call) and call[upcoming] < horizon:
                if ret[upcoming] != NEVER:
                    if free:
                        self.bit[upcoming] = 1 << free.pop()
                    else:
                        self.bit[upcoming] = 1 << slots
                        slots += 1
                    window.append(upcoming)
                upcoming += 1
            self.pending.append(tuple(window))
            window.remove(returning)
            free.append(self.bit[returning].bit_length() - 1)
