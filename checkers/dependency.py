"""Graphs of what must have come before what, and the parts of them in which that is impossible.

Theory of operation
    Nodes are transactions; an edge says that one comes before another, and why:

    WW   the second installed the next version after that of the first       (Adya's write dependency)
    WR   the second read the version that the first installed                (read dependency)
    RW   the first read a version, the second installed the next one         (anti-dependency)
    PROCESS, REALTIME   the second came later in the same process, or began after the first had ended

    A history is strictly serializable only if the graph has no cycle. Which weaker models it breaks depends on the
    kinds of edges on the cycle (`checkers.cycles`).

    *Joints.* "Everybody of these before everybody of those" would be quadratically many edges. A joint is a node
    that stands for no transaction: the edges into it have the kind, those out of it have `JOINT` and cost nothing.
    Real time is a chain of joints, one for each time at which somebody begins after somebody has ended, which is
    exact and linear. A walk through joints is one edge of the kind with which it entered.

    *Finding cycles.* Nodes without predecessors are peeled off, again and again, then those without successors. In
    a correct history nothing is left, which costs one look at each edge. Of what is left, Tarjan's algorithm finds
    the strongly connected components.

Rules of this module
    1. Edges are integers, ``node * 64 + kinds``: a hundred thousand transactions have a million of them.
    2. What is found does not depend on `hash()`: nodes are numbers, in the order of the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from checkers.calls import Call

WW, WR, RW, PROCESS, REALTIME, JOINT = 1, 2, 4, 8, 16, 32
DATA = WW | WR | RW
ALL = DATA | PROCESS | REALTIME
KIND_NAMES = {WW: "ww", WR: "wr", RW: "rw", PROCESS: "process", REALTIME: "realtime"}
_SHIFT = 6
_KINDS = (1 << _SHIFT) - 1


class Graph:
    """A dependency graph.

    Attributes:
        size: how many nodes are transactions; the others are joints.
        out: for each node its edges, as in rule 1.
        why: parallel to `out`, what the edge is about (a key), None for orders of time.
    """

    __slots__ = ("out", "size", "why")

    def __init__(self, size: int) -> None:
        self.size = size
        self.out: list[list[int]] = [[] for _ in range(size)]
        self.why: list[list[Any]] = [[] for _ in range(size)]

    def add(self, first: int, second: int, kind: int, why: Any = None) -> None:
        """`first` comes before `second`; an edge of a node to itself says nothing and is left out."""
        if first != second:
            self.out[first].append(second << _SHIFT | kind)
            self.why[first].append(why)

    def joint(self) -> int:
        """A new joint."""
        self.out.append([])
        self.why.append([])
        return len(self.out) - 1

    def add_all(self, firsts: Sequence[int], seconds: Sequence[int], kind: int, why: Any = None) -> None:
        """Each of `firsts` comes before each of `seconds`, but for itself; linear in both."""
        if len(firsts) * len(seconds) <= 2 * (len(firsts) + len(seconds)):
            for first in firsts:
                for second in seconds:
                    self.add(first, second, kind, why)
            return
        place = {second: number for number, second in enumerate(seconds)}
        after = self._chain(seconds[::-1])[::-1]  # after[i] leads to seconds[i:]
        before = self._chain(seconds) if any(first in place for first in firsts) else []  # to seconds[:i + 1]
        for first in firsts:
            number = place.get(first)
            if number is None:
                self.add(first, after[0], kind, why)
                continue
            if number:
                self.add(first, before[number - 1], kind, why)
            if number + 1 < len(seconds):
                self.add(first, after[number + 1], kind, why)

    def _chain(self, seconds: Sequence[int]) -> list[int]:
        """Joints, of which each leads to one of `seconds` and to all before it."""
        joints: list[int] = []
        for second in seconds:
            joint = self.joint()
            self.add(joint, second, JOINT)
            if joints:
                self.add(joint, joints[-1], JOINT)
            joints.append(joint)
        return joints

    def edges(self, node: int) -> Iterable[tuple[int, int, Any]]:
        """Second node, kinds, and reason, of each edge from the node."""
        for edge, why in zip(self.out[node], self.why[node], strict=True):
            yield edge >> _SHIFT, edge & _KINDS, why


def add_time(graph: Graph, calls: Sequence[Call]) -> None:
    """PROCESS and REALTIME edges between the calls, which are the graph's transactions in order of invocation."""
    last_of: dict[int, int] = {}
    for node, call in enumerate(calls):
        before = last_of.get(call.process)
        if before is not None:
            graph.add(before, node, PROCESS)
        # An operation of unknown outcome may happen after all that its process does later.
        if call.ret is not None:
            last_of[call.process] = node
    ends = sorted(
        (call.ret, node) for node, call in enumerate(calls) if call.ret is not None and call.status == "ok"
    )
    ended, joint = 0, -1
    for node, call in enumerate(calls):
        done = ended
        while done < len(ends) and ends[done][0] < call.call:
            done += 1
        if done > ended:
            joint = _next_joint(graph, joint, [first for _, first in ends[ended:done]])
            ended = done
        if joint >= 0:
            graph.add(joint, node, JOINT)


def _next_joint(graph: Graph, before: int, firsts: Sequence[int]) -> int:
    joint = graph.joint()
    if before >= 0:
        graph.add(before, joint, JOINT)
    for first in firsts:
        graph.add(first, joint, REALTIME)
    return joint


def components(graph: Graph, allowed: int = ALL, within: Sequence[int] | None = None) -> list[list[int]]:
    """Strongly connected components of more than one node, by edges of the allowed kinds, in order of their nodes.

    Args:
        graph: the graph.
        allowed: kinds of edges; joints are always passed.
        within: only these nodes; None for all.
    """
    nodes = range(len(graph.out)) if within is None else within
    inside = None if within is None else set(within)
    mask = allowed | JOINT
    following: dict[int, list[int]] = {}
    for node in nodes:
        following[node] = [
            edge >> _SHIFT
            for edge in graph.out[node]
            if edge & mask & _KINDS and (inside is None or edge >> _SHIFT in inside)
        ]
    left = _core(following)
    if not left:
        return []
    kept = {
        node: [second for second in following[node] if second in left] for node in following if node in left
    }
    found = [sorted(component) for component in _tarjan(kept) if len(component) > 1]
    return sorted(found)


def _core(following: dict[int, list[int]]) -> set[int]:
    """The nodes that are left when those without predecessors are peeled off."""
    degree = dict.fromkeys(following, 0)
    for seconds in following.values():
        for second in seconds:
            degree[second] += 1
    free = [node for node, count in degree.items() if not count]
    for node in free:  # grows while it is gone through
        for second in following[node]:
            degree[second] -= 1
            if not degree[second]:
                free.append(second)
    if len(free) == len(degree):
        return set()
    return {node for node, count in degree.items() if count}


def _tarjan(following: dict[int, list[int]]) -> Iterable[list[int]]:
    """Tarjan's algorithm with a stack of its own, since histories are longer than Python's."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root, seconds in following.items():
        if root in number:
            continue
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        work = [(root, iter(seconds))]
        while work:
            node, rest = work[-1]
            for second in rest:
                if second not in number:
                    number[second] = low[second] = len(number)
                    stack.append(second)
                    on_stack.add(second)
                    work.append((second, iter(following[second])))
                    break
                if second in on_stack:
                    low[node] = min(low[node], number[second])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    yield _popped(stack, on_stack, node)


def _popped(stack: list[int], on_stack: set[int], root: int) -> list[int]:
    component = []
    while True:
        node = stack.pop()
        on_stack.discard(node)
        component.append(node)
        if node == root:
            return component
