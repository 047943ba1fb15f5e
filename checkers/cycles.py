"""Cycles of a dependency graph, each with the name of the anomaly that it is.

Theory of operation
    Adya's names say which kinds of edges are on a cycle:

    G0              write dependencies only
    G1c             write and read dependencies, at least one of the latter
    G-single        exactly one anti-dependency (a read skew, a stale read)
    G-nonadjacent   several, no two of them in a row (a long fork)
    G2-item         several (a write skew)

    With the suffix "-process" or "-realtime" the cycle needs an edge of the order of a process, or of real time.
    One cycle may have several names; it gets the one that the most models rule out.

    In each strongly connected component the shortest cycle of each name is looked for, breadth first, from each edge
    that such a cycle must have. A component may be large, and the search is bounded: once the bound is reached, what
    is left to say is that there is *some* cycle of ww, of ww and wr, ... edges, which is certain as soon as such a
    component exists: the anomalies "PL-1-cycle-exists" and so on.

Rules of this module
    1. What is reported is a simple cycle of transactions, joints replaced by the edge they stand for.
    2. The bound is a count of steps, never of seconds: the same history gives the same answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from checkers.dependency import (
    ALL,
    DATA,
    JOINT,
    KIND_NAMES,
    PROCESS,
    REALTIME,
    RW,
    WR,
    WW,
    Graph,
    components,
)

STEPS_MAX = 3_000_000
EXAMPLES_MAX = 4  # per name
STARTS_MAX = 2_000  # edges from which a cycle is looked for, per name and component
_EXTRA = (("", 0), ("-process", PROCESS), ("-realtime", PROCESS | REALTIME))


@dataclass(frozen=True, slots=True)
class Edge:
    """One step of a cycle: transaction `first` before `second`, for a kind of reason, about `why`."""

    first: int
    second: int
    kind: int
    why: Any = None

    @property
    def name(self) -> str:
        """What Adya calls it."""
        return KIND_NAMES[self.kind]


@dataclass(frozen=True, slots=True)
class Cycle:
    """A cycle and the anomaly that it is."""

    name: str
    edges: tuple[Edge, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Its transactions, in order."""
        return tuple(edge.first for edge in self.edges)


class _StepsSpent(Exception):
    """The search has reached its bound."""


@dataclass(slots=True)
class _Meter:
    left: int

    def step(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise _StepsSpent


def find_cycles(graph: Graph, steps: int = STEPS_MAX) -> tuple[list[Cycle], list[str]]:
    """The shortest cycle of each name in each component, at most `EXAMPLES_MAX` of a name, and bare anomalies."""
    found: dict[str, list[Cycle]] = {}
    meter = _Meter(steps)
    certain: list[str] = []
    for component in components(graph):
        try:
            for cycle in _of_component(graph, component, meter):
                examples = found.setdefault(cycle.name, [])
                if len(examples) < EXAMPLES_MAX:
                    examples.append(cycle)
        except _StepsSpent:
            certain += _certain(graph, component)
    return [cycle for examples in found.values() for cycle in examples], list(dict.fromkeys(certain))


def _certain(graph: Graph, component: Sequence[int]) -> list[str]:
    levels = (("PL-1", WW), ("PL-2", WW | WR), ("PL-3", DATA), ("PL-SS", ALL))
    return [f"{name}-cycle-exists" for name, allowed in levels if components(graph, allowed, component)]


def _of_component(graph: Graph, component: Sequence[int], meter: _Meter) -> Iterator[Cycle]:
    near = _Near(graph, component, meter)
    seen: set[str] = set()
    for suffix, extra in _EXTRA:
        for name, look in (("G0", _g0), ("G1c", _g1c), ("G-single", _g_single), ("G-nonadjacent", _g_spread)):
            if name in seen:
                continue
            edges = look(near, extra)
            if edges:
                seen.add(name)
                yield Cycle(name + suffix, edges)
        if not seen & {"G-single", "G-nonadjacent", "G2-item"}:
            edges = near.shortest(RW, DATA | extra)
            if edges:
                seen.add("G2-item")
                yield Cycle(f"G2-item{suffix}", edges)


def _g0(near: _Near, extra: int) -> tuple[Edge, ...]:
    return near.shortest(WW, WW | extra)


def _g1c(near: _Near, extra: int) -> tuple[Edge, ...]:
    return near.shortest(WR, WW | WR | extra)


def _g_single(near: _Near, extra: int) -> tuple[Edge, ...]:
    return near.shortest(RW, WW | WR | extra)


def _g_spread(near: _Near, extra: int) -> tuple[Edge, ...]:
    edges = near.shortest(RW, DATA | extra, spread=True)
    return edges if sum(edge.kind == RW for edge in edges) > 1 else ()


class _Near:
    """A component, its edges by node, and walks through it."""

    def __init__(self, graph: Graph, component: Sequence[int], meter: _Meter) -> None:
        inside = set(component)
        self._size = graph.size
        self._meter = meter
        self._out = {node: [edge for edge in graph.edges(node) if edge[0] in inside] for node in component}
        meter.step(sum(map(len, self._out.values())))

    def shortest(self, first: int, allowed: int, *, spread: bool = False) -> tuple[Edge, ...]:
        """The shortest cycle that begins with an edge of kind `first` and goes on by those allowed.

        With `spread`, two anti-dependencies never follow each other, around the end neither.
        """
        best: tuple[Edge, ...] = ()
        reachable = self._components(first | allowed)
        starts = 0
        for node, edges in self._out.items():
            for second, kind, why in edges:
                if kind != first or reachable.get(node) is None or reachable[node] != reachable.get(second):
                    continue
                starts += 1
                if starts > STARTS_MAX and best:
                    return best
                walk = self._way(second, node, allowed, spread=spread, longest=len(best) - 1 if best else 0)
                edges_found = self._simple(node, second, kind, why, walk) if walk else ()
                if edges_found and (not best or len(edges_found) < len(best)):
                    best = edges_found
        return best

    def _components(self, allowed: int) -> dict[int, int]:
        """For each node on a cycle of allowed edges, which component of these it is in."""
        mask = allowed | JOINT
        small: nx.DiGraph[int] = nx.DiGraph()
        small.add_edges_from(
            (node, second) for node, edges in self._out.items() for second, kind, _ in edges if kind & mask
        )
        number: dict[int, int] = {}
        for place, part in enumerate(nx.strongly_connected_components(small)):
            if len(part) > 1:
                number.update(dict.fromkeys(part, place))
        return number

    def _way(self, start: int, goal: int, allowed: int, *, spread: bool, longest: int) -> list[Any]:
        """Steps (node, kind, why, next) of a shortest walk; a joint costs nothing. Empty where there is none."""
        mask = allowed | JOINT
        origin = (start, True)  # the edge before was an anti-dependency, with which the cycle begins
        came: dict[tuple[int, bool], Any] = {origin: None}
        queue = deque([(origin, 0)])
        while queue:
            state, length = queue.popleft()
            node, after_rw = state
            if node == goal and not (spread and after_rw):
                return _unwound(came, state)
            if longest and length >= longest and node < self._size:
                continue
            edges = self._out[node]
            self._meter.step(1 + len(edges))
            for second, kind, why in edges:
                if not kind & mask or (spread and kind == RW and after_rw):
                    continue
                after = after_rw if kind == JOINT else kind == RW
                reached = (second, after and spread)
                if reached in came:
                    continue
                came[reached] = (state, kind, why)
                if node < self._size:
                    queue.append((reached, length + 1))
                else:
                    queue.appendleft((reached, length))
        return []

    def _simple(self, node: int, second: int, kind: int, why: Any, walk: list[Any]) -> tuple[Edge, ...]:
        """The cycle of transactions; empty where one of them occurs twice."""
        steps = [(node, kind, why, second), *walk]
        edges: list[Edge] = []
        for at, step_kind, step_why, then in steps:
            if step_kind == JOINT:
                last = edges[-1]
                edges[-1] = Edge(last.first, then, last.kind, last.why)
            else:
                edges.append(Edge(at, then, step_kind, step_why))
        return _simplest(edges)


def _simplest(edges: list[Edge]) -> tuple[Edge, ...]:
    """The edges of a closed walk without the detours in it that are cycles of their own and tell as much.

    A walk on which anti-dependencies never meet may pass a transaction twice. One of the two cycles that it is made
    of is then such a cycle too, unless it has no anti-dependency at all, in which case it is G1c.
    """
    seen: dict[int, int] = {}
    for place, edge in enumerate(edges):
        if edge.first in seen:
            start = seen[edge.first]
            inner, outer = edges[start:place], edges[:start] + edges[place:]
            good = [part for part in (inner, outer) if _apart(part)]
            return _simplest(min(good, key=len)) if good else ()
        seen[edge.first] = place
    return tuple(edges)


def _apart(edges: list[Edge]) -> bool:
    kinds = [edge.kind for edge in edges]
    return RW in kinds and not any(
        one == RW and after == RW for one, after in zip(kinds, kinds[1:] + kinds[:1], strict=True)
    )


def _unwound(came: dict[tuple[int, bool], Any], state: tuple[int, bool]) -> list[Any]:
    steps = []
    while came[state] is not None:
        before, kind, why = came[state]
        steps.append((before[0], kind, why, state[0]))
        state = before
    return steps[::-1]
