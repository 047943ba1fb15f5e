"""Linearizability as reachability in a graph, with networkx: a second reference, written from the definition.

Rules of this module
    1. Slow and obvious, for tests: it draws the whole graph of what could have happened, and only then looks for a
       path. It shares nothing with the fast checkers, nor with `checkers.oracle`, but the model.

Theory of operation
    *Real time* is a graph of operations: an edge from one to each that was called after it had returned. A *moment* is
    a pair of the operations that took effect so far and the state that they left. From a moment one gets to the next
    by an operation that is not in it, whose predecessors in real time are all in it, and that the model allows. The
    history is linearizable iff from the moment before everything a moment can be reached that holds every operation
    that returned. (Herlihy and Wing 1990.)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import networkx as nx

from checkers.effects import Inconsistent
from checkers.history import Operation
from checkers.models import Model, by_key, uses_mismatch

Moment = tuple[frozenset[int], Hashable]


def is_linearizable(operations: Sequence[Operation], model: Model) -> bool:
    """Whether the operations are linearizable, object by object."""
    groups: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        if operation.status != "mismatch" or uses_mismatch(model):
            groups.setdefault(operation.key if by_key(model) else None, []).append(operation)
    return all(_has_path(group, model) for group in groups.values())


def real_time(operations: Sequence[Operation]) -> nx.DiGraph:
    """Which operation returned before which other one was called; nodes are their places."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(operations)))
    for a, before in enumerate(operations):
        for b, after in enumerate(operations):
            if before.ret is not None and before.ret < after.call:
                graph.add_edge(a, b)
    return graph


def moments(operations: Sequence[Operation], model: Model) -> tuple[nx.DiGraph, Moment]:
    """The graph of all moments, and the first one."""
    order = real_time(operations)
    start: Moment = (frozenset(), model.initial())
    graph = nx.DiGraph()
    graph.add_node(start)
    todo = [start]
    while todo:
        moment = todo.pop()
        for place, after in _steps(operations, model, order, moment):
            if after not in graph:
                todo.append(after)
            graph.add_edge(moment, after, operation=place)
    return graph, start


def _steps(
    operations: Sequence[Operation], model: Model, order: nx.DiGraph, moment: Moment
) -> Iterator[tuple[int, Moment]]:
    done, state = moment
    for place, operation in enumerate(operations):
        if place not in done and done.issuperset(order.predecessors(place)):
            after = model.step(state, operation)
            if not isinstance(after, Inconsistent):
                yield place, (done | {place}, after)


def _has_path(operations: Sequence[Operation], model: Model) -> bool:
    required = {place for place, operation in enumerate(operations) if operation.ret is not None}
    graph, start = moments(operations, model)
    reached = nx.descendants(graph, start) | {start}
    return any(required <= done for done, _ in reached)
