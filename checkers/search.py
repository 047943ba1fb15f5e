"""The general search: just-in-time linearization with reductions, depth first and level by level.

Rules of this module
    1. A search is exact: its yes and its no are proofs. It is bounded by a `Meter`; when that runs out it
       says how far it got.
    2. Every reduction below has its argument beside it. A new one needs an argument and the oracle's word.

Theory of operation
    Returns are taken in order; the j-th is *level* j. A configuration at level j stands for all ways to
    order operations such that everything that returned before is in: the state, which pending operations
    are in (``used``), and how many ``info`` operations of each kind are in (``infos``). Pending operations
    are held in *slots*, the lowest free one each, so a configuration is as large as the concurrency,
    not as the history. To pass level j the returning operation must be in; only what must be put before
    it is put (Lowe: just in time). The history is linearizable iff a configuration passes the last level:
    what is pending then never returned and may be left out.

    Reductions:

    R1  A pure operation that is possible now goes in at once: it changes nothing for the others.
    R2  Of pending operations of one kind the one that returns first goes first (swap the two); of ``info``
        operations of one kind the one called first, so that a count says which are in.
    R3  When an overwrite goes in, every other pending overwrite could have gone in just before it,
        unseen. It becomes *optional* (``opt``): it may return as if it were in, or still go in later.
    R4  A pending operation without effect in the current state could go in here: it becomes optional.
        (An overwrite without effect may still be worth putting in, for what it absorbs by R3.)
    R5  An overwrite goes in only if it is the returning operation or if something pending that is no
        overwrite is possible right after it; and then such a thing must come next. Otherwise R3 would
        have it unseen anyway. The same holds for any ``info`` operation, which nobody waits for.
    R6  Of configurations equal but for ``infos`` only the minimal ones are kept; more generally one is
        dropped if another one in the same state can do all that it can.

    Objects that only grow (`Problem.grows`) have two more, in `Ahead`, and R3 holds for what is blind as for
    overwrites:

    R7  A configuration is dropped if something pure that is still to come cannot be reached from its state: not
        by growing, nor by growing after an overwrite that may come before it returns. It could have passed
        some levels yet, so that the level of a no may be too low (`checkers.explain` finds the right one).
    R8  What is blind, or an overwrite, goes in before it returns only if something pure that is still to come
        is reached from the state after it. Else nobody sees it before the next overwrite, and it could have
        gone in just before that, or when it returns, whatever is first.

    R2 and R3 interact: of two pending operations of one kind, one optional and one not, neither choice
    dominates unless the kind is an overwrite (where the second becomes optional again by R4), so both
    are tried.

    Neither order of search is safe alone: depth first is quick to a yes and slow to a no, level by level
    the other way round. `search` alternates between them with growing budgets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from checkers.ahead import Ahead
from checkers.levels import Levels
from checkers.meter import Exhausted, Meter
from checkers.problem import OVERWRITE, PURE, Problem

_FIRST_SHARE = 2_000
_DOMINANCE_GROUP_MAX = 48
_FRONTIER_MAX = 64
_RECENT_LEVELS = 256


class Trail(NamedTuple):
    """The operations put in by choice, last first: what `checkers.witness` replays."""

    before: Trail | None
    level: int
    operation: int


class Config(NamedTuple):
    """See the theory of operation; ``trail`` is no part of its identity."""

    state: int
    used: int
    opt: int
    infos: tuple[int, ...]
    trail: Trail | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found.

    Attributes:
        valid: True, False, or None where the meter ran out.
        level: how many returns were passed by some configuration.
        configurations: how many were expanded.
        trail: for a yes, the choices that led there.
        frontier: some configurations at the deepest level.
        recent: for a no, the states in which the last levels could be reached, by level.
        cause: for None, what ran out.
        algorithm: ``wgl-dfs`` or ``jit-bfs``, whichever decided.
    """

    valid: bool | None
    level: int
    configurations: int
    algorithm: str
    trail: Trail | None = None
    frontier: tuple[Config, ...] = ()
    recent: dict[int, tuple[Hashable, ...]] = field(default_factory=dict)
    cause: str | None = None


class Searcher:
    """Both searches over one problem."""

    def __init__(self, problem: Problem, meter: Meter) -> None:
        self.problem = problem
        self.levels = Levels(problem)
        self.meter = meter
        self.held = 0
        self.ahead = Ahead(problem, self.levels) if problem.grows is not None else None
        self.start = Config(problem.initial, 0, 0, (0,) * len(self.levels.info_kinds), None)

    # -- one level ---------------------------------------------------------------------------------------

    def expand(self, configs: Sequence[Config], level: int) -> list[Config]:
        """The configurations at the next level that those at this one lead to."""
        bit = self.levels.bit[self.levels.rets[level]]
        passed = _Antichain()
        self._explore(configs, level, bit, passed)
        return passed.configs()

    def reachable(self, configs: Sequence[Config], level: int) -> list[Config]:
        """One for each state that can be reached at a level before its return, in the order they are found."""
        bit = self.levels.bit[self.levels.rets[level]]
        found: dict[int, Config] = {}
        for config in self._explore(configs, level, bit, _Antichain()):
            found.setdefault(config.state, config)
        return list(found.values())

    def _explore(self, configs: Sequence[Config], level: int, bit: int, passed: _Antichain) -> list[Config]:
        returning = self.levels.rets[level]
        seen = _Antichain()
        work: list[tuple[Config, bool, bool]] = []
        for config in configs:
            if config.used & bit:
                passed.add(_without(config, bit))
            else:
                settled, _ = self._settle(config, level)
                if seen.add(settled):
                    work.append((settled, True, False))
        at = 0
        while at < len(work):
            config, is_root, unseen = work[at]
            at += 1
            if config.used & bit:
                passed.add(_without(config, bit))
                continue
            if is_root and config.opt & bit:
                passed.add(_without(config, bit))
            self.meter.spend(self.held + len(work))
            for place, after in self._moves(config, level, unseen):
                if place == returning:
                    passed.add(_without(after, bit))
                    continue
                settled, observed = self._settle(after, level)
                if seen.add(settled):
                    wrote = self.problem.effect[self.problem.kind[place]] == OVERWRITE
                    work.append((settled, False, wrote and not observed))
        return [config for config, _, _ in work]

    def _settle(self, config: Config, level: int) -> tuple[Config, bool]:
        """R1 and R4; also whether a pure operation went in."""
        problem, bits = self.problem, self.levels.bit
        state, used, opt = config.state, config.used, config.opt
        observed = False
        for place in self.levels.pending[level]:
            bit = bits[place]
            if used & bit:
                continue
            kind = problem.kind[place]
            if problem.next(kind, state) != state:
                continue
            if problem.effect[kind] == PURE:
                used |= bit
                observed = True
            else:
                opt |= bit
        if used == config.used and opt == config.opt:
            return config, observed
        return Config(state, used, opt & ~used, config.infos, config.trail), observed

    def _moves(self, config: Config, level: int, unseen: bool) -> list[tuple[int, Config]]:  # noqa: FBT001
        """The operations that may go in next (R2, R5), each with the configuration after it."""
        problem, levels = self.problem, self.levels
        returning = levels.rets[level]
        moves: list[tuple[int, Config]] = []
        candidates, kinds = self._candidates(config, level)
        infos = self._available_infos(config, problem.ret[returning])
        watchers = [problem.kind[p] for p in levels.pending[level] if not config.used & levels.bit[p]]
        watchers = [k for k in watchers if problem.effect[k] != OVERWRITE]
        watchers += [levels.info_kinds[n] for n in infos if problem.effect[levels.info_kinds[n]] != OVERWRITE]
        for place in candidates:
            kind = problem.kind[place]
            wrote = problem.effect[kind] == OVERWRITE
            if wrote and unseen:
                continue
            state = problem.next(kind, config.state)
            if state < 0:
                continue
            bit = levels.bit[place]
            opt = self._absorbed(config, level) if wrote else config.opt
            if wrote and place != returning:
                idle = state == config.state and opt & ~bit == config.opt & ~bit
                if idle or not self._wanted(state, watchers):
                    continue
            trail = Trail(config.trail, level, place)
            moves.append((place, Config(state, config.used | bit, opt & ~bit, config.infos, trail)))
        for number in infos:
            kind = levels.info_kinds[number]
            wrote = problem.effect[kind] == OVERWRITE
            if kind in kinds or (wrote and unseen):
                continue
            state = problem.next(kind, config.state)
            opt = self._absorbed(config, level) if wrote else config.opt
            idle = state == config.state and opt == config.opt
            if state < 0 or idle or not self._wanted(state, watchers):
                continue
            counts = config.infos
            place = levels.info_places[number][counts[number]]
            counts = (*counts[:number], counts[number] + 1, *counts[number + 1 :])
            moves.append((place, Config(state, config.used, opt, counts, Trail(config.trail, level, place))))
        return moves if self.ahead is None else self._worthwhile(self.ahead, moves, level)

    def _candidates(self, config: Config, level: int) -> tuple[list[int], set[int]]:
        """Pending operations by R2, in the order of their calls, and their kinds."""
        problem, levels = self.problem, self.levels
        best: dict[tuple[int, bool], int] = {}
        for place in levels.pending[level]:
            if config.used & levels.bit[place]:
                continue
            kind = problem.kind[place]
            if problem.effect[kind] == PURE:
                continue
            optional = problem.effect[kind] != OVERWRITE and bool(config.opt & levels.bit[place])
            other = best.get((kind, optional))
            if other is None or problem.ret[place] < problem.ret[other]:
                best[kind, optional] = place
        chosen = [
            place
            for (kind, optional), place in best.items()
            # An optional one only if it returns before the best one that is not.
            if not optional or problem.ret[place] <= problem.ret[best.get((kind, False), place)]
        ]
        return chosen, {kind for kind, _ in best}

    def _available_infos(self, config: Config, horizon: int) -> list[int]:
        return [
            number
            for number, calls in enumerate(self.levels.info_calls)
            if config.infos[number] < len(calls) and calls[config.infos[number]] < horizon
        ]

    def _wanted(self, state: int, watchers: Sequence[int]) -> bool:
        return any(self.problem.next(kind, state) >= 0 for kind in watchers)

    def _worthwhile(
        self, ahead: Ahead, moves: Sequence[tuple[int, Config]], level: int
    ) -> list[tuple[int, Config]]:
        """Those that R7 and R8 leave."""
        returning = self.levels.rets[level]
        return [
            (place, after)
            for place, after in moves
            if (place == returning or ahead.seen(after.state, after.used, level))
            and not ahead.hopeless(after.state, after.used, level)
        ]

    def _absorbed(self, config: Config, level: int) -> int:
        """R3: the optional ones once an overwrite goes in."""
        problem, bits = self.problem, self.levels.bit
        unseen, opt = problem.unseen, config.opt
        for place in self.levels.pending[level]:
            if problem.effect[problem.kind[place]] in unseen and not config.used & bits[place]:
                opt |= bits[place]
        return opt

    # -- the two orders ----------------------------------------------------------------------------------

    def bfs(self) -> Outcome:
        """Level by level; holds one level."""
        configs = [self.start]
        level = 0
        recent: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=_RECENT_LEVELS)
        try:
            for level in range(len(self.levels.rets)):
                recent.append((level, _states(configs)))
                after = _undominated(self.expand(configs, level))
                if not after:
                    return self._outcome(level, configs, "jit-bfs", valid=False, recent=dict(recent))
                configs = after
                self.held = len(configs)
        except Exhausted as exhausted:
            return self._outcome(level, configs, "jit-bfs", cause=str(exhausted), valid=None)
        return self._outcome(len(self.levels.rets), configs, "jit-bfs", valid=True)

    def dfs(self) -> Outcome:
        """Depth first, most promising first; remembers every configuration that it has been in."""
        levels = len(self.levels.rets)
        stack: list[list[Config]] = [[self.start]]
        visited: list[_Antichain] = [_Antichain() for _ in range(levels + 1)]
        wanted = self._next_observers()
        deepest, frontier = 0, [self.start]
        self.held = 0
        try:
            while stack:
                level = len(stack) - 1
                if not stack[-1]:
                    stack.pop()
                    continue
                config = stack[-1].pop()
                if level == levels:
                    return self._outcome(levels, [config], "wgl-dfs", valid=True)
                if not visited[level].add(config):
                    continue
                self.held += 1
                after = self.expand([config], level)
                if not after:
                    continue
                after.reverse()
                kind = wanted[level + 1]
                if kind >= 0:
                    after.sort(key=lambda c: self.problem.next(kind, c.state) >= 0)
                stack.append(after)
                if level + 1 >= deepest:
                    frontier = [*(frontier if level + 1 == deepest else []), *after][:_FRONTIER_MAX]
                    deepest = level + 1
        except Exhausted as exhausted:
            return self._outcome(deepest, frontier, "wgl-dfs", cause=str(exhausted), valid=None)
        levels_kept = range(max(0, deepest - _RECENT_LEVELS), deepest + 1)
        recent = {level: _states(visited[level].configs()) for level in levels_kept}
        return self._outcome(deepest, frontier, "wgl-dfs", valid=False, recent=recent)

    def _next_observers(self) -> list[int]:
        """By level, the kind of the next returning operation that is no overwrite; -1 for none."""
        wanted = [-1] * (len(self.levels.rets) + 1)
        for level in range(len(self.levels.rets) - 1, -1, -1):
            kind = self.problem.kind[self.levels.rets[level]]
            wanted[level] = kind if self.problem.effect[kind] != OVERWRITE else wanted[level + 1]
        return wanted

    def _outcome(
        self,
        level: int,
        configs: Sequence[Config],
        algorithm: str,
        *,
        valid: bool | None,
        recent: dict[int, tuple[int, ...]] | None = None,
        cause: str | None = None,
    ) -> Outcome:
        return Outcome(
            valid=valid,
            level=level,
            configurations=self.meter.used,
            algorithm=algorithm,
            trail=configs[0].trail if valid else None,
            frontier=tuple(configs[:_FRONTIER_MAX]),
            recent={n: tuple(self.problem.states[s] for s in found) for n, found in (recent or {}).items()},
            cause=cause,
        )


def search(problem: Problem, meter: Meter, orders: Sequence[str] = ("dfs", "bfs")) -> Outcome:
    """Depth first and level by level in turns, each turn with four times the budget of the last.

    Where nothing is sure in the end, the outcome is that of the turn which got farthest, with what ran out in the last
    one: what the others ran out of were their shares.
    """
    # Who looks ahead goes straight on, and need not start over.
    share = _FIRST_SHARE if problem.grows is None else max(_FIRST_SHARE, 4 * len(problem.operations))
    searcher = Searcher(problem, meter)
    total = meter.left
    spent = 0
    best: Outcome | None = None
    while True:
        for order in orders:
            meter.left = min(share, total - spent) if len(orders) > 1 else total
            before = meter.used
            searcher.held = 0
            outcome = searcher.dfs() if order == "dfs" else searcher.bfs()
            spent += meter.used - before
            if outcome.valid is not None:
                return outcome
            if best is None or outcome.level >= best.level:
                best = outcome
            if spent >= total or outcome.cause == "seconds" or len(orders) == 1:
                return replace(best, cause=outcome.cause)
        if share >= total:
            return replace(best, cause=outcome.cause)  # type: ignore[return-value,type-var]  # set by the first turn
        share *= 4


class _Antichain:
    """Configurations without those that another one dominates by R6 with equal masks."""

    def __init__(self) -> None:
        self._by_core: dict[tuple[int, int, int], list[Config]] = {}

    def add(self, config: Config) -> bool:
        """Whether it is new; what it dominates is thrown out."""
        core = config[:3]
        others = self._by_core.get(core)
        if others is None:
            self._by_core[core] = [config]
            return True
        infos = config.infos
        if not infos or any(_at_most(other.infos, infos) for other in others):
            return False
        others[:] = [other for other in others if not _at_most(infos, other.infos)]
        others.append(config)
        return True

    def configs(self) -> list[Config]:
        return [config for group in self._by_core.values() for config in group]


def _states(configs: Sequence[Config]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(config.state for config in configs))


def _at_most(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def _without(config: Config, bit: int) -> Config:
    return Config(config.state, config.used & ~bit, config.opt & ~bit, config.infos, config.trail)


def _undominated(configs: list[Config]) -> list[Config]:
    """R6 across masks: where masks differ only in what the other one holds as optional, the other wins."""
    groups: dict[int, list[Config]] = {}
    for config in configs:
        groups.setdefault(config.state, []).append(config)
    kept: list[Config] = []
    for group in groups.values():
        if len(group) == 1 or len(group) > _DOMINANCE_GROUP_MAX:
            kept.extend(group)
            continue
        alive: list[Config] = []
        for config in group:
            if any(_dominates(other, config) for other in alive):
                continue
            alive = [other for other in alive if not _dominates(config, other)]
            alive.append(config)
        kept.extend(alive)
    return kept


def _dominates(one: Config, other: Config) -> bool:
    different = (one.used ^ other.used) | (one.opt ^ other.opt)
    return not different & ~one.opt and _at_most(one.infos, other.infos)
