"""Which operation of a register must come before which, and the shortest cycle of such steps in words.

Rules of this module
    1. Every edge is forced, with its reason, by the operations given; so a cycle is a proof.
    2. Values that more than one operation writes give no edge: nobody knows whose value was read.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx

from checkers.drawing import START, Arrow
from checkers.history import Operation
from checkers.models import Model, RegisterCode, register_code
from checkers.values import show

#: The node of the initial value; operations are named by `Operation.invoke_index`.
INITIAL = START
_INITIAL_NAME = "<initial>"
_NODES_MAX = 40
_LINES_MAX = 9


@dataclass(slots=True)
class _Facts:
    """Who writes what and who saw whose value, of operations that certainly took effect."""

    graph: nx.DiGraph = field(default_factory=nx.DiGraph)
    #: (reader, writer whose value it saw)
    saw: list[tuple[int, int]] = field(default_factory=list)
    writers: list[int] = field(default_factory=list)

    def edge(
        self, before: int, after: int, kind: str, text: str, because: tuple[tuple[int, int], ...] = ()
    ) -> bool:
        if before == after or self.graph.has_edge(before, after):
            return False
        self.graph.add_edge(before, after, kind=kind, text=text, because=because)
        return True


@dataclass(frozen=True, slots=True)
class Told:
    """A contradiction, as lines and as arrows; neither where there is none."""

    lines: tuple[str, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def contradiction(
    core: Sequence[Operation],
    shown: Sequence[Operation],
    model: Model,
    initial_name: str = "the initial value",
) -> Told:
    """The shortest cycle that the operations force, in words and arrows.

    Args:
        core: operations that together are impossible; those without ``ret`` may never have happened.
        shown: the firm ones of them and those whose values they saw.
        model: only registers (`checkers.models.register_code`) have such a graph.
        initial_name: what to call the value that the model starts with.
    """
    known = {operation.invoke_index for operation in shown}
    nodes = [operation for operation in core if operation.invoke_index in known]
    codes = {operation.invoke_index: register_code(model, operation) for operation in core}
    if len(nodes) > _NODES_MAX or any(code is None for code in codes.values()):
        return Told()
    plain: dict[int, RegisterCode] = {index: code for index, code in codes.items() if code is not None}
    unwritten = _unwritten(nodes, plain, model, initial_name)
    if unwritten:
        return Told(tuple(unwritten))
    facts = _facts(nodes, plain, model)
    for _ in range(_NODES_MAX * _NODES_MAX):
        cycle = _shortest_cycle(facts.graph)
        if cycle:
            return _told(facts.graph, cycle, initial_name)
        if not _saturate(facts):
            break
    return Told()


def _new_value(code: RegisterCode) -> list[Hashable]:
    """The value that it writes, as a list of one or none."""
    return [code[-1]] if code[0] in {"write", "cas"} else []


def _seen_value(code: RegisterCode) -> list[Hashable]:
    return [code[1]] if code[0] in {"read", "cas"} and len(code) > 1 else []


def _unwritten(
    nodes: Sequence[Operation], codes: dict[int, RegisterCode], model: Model, initial_name: str
) -> list[str]:
    """A firm operation that saw a value which nobody ever wrote."""
    written = {value for code in codes.values() for value in _new_value(code)} | {model.initial()}
    for operation in nodes:
        for value in _seen_value(codes[operation.invoke_index]):
            if operation.ret is not None and value not in written:
                text = (
                    f"{initial_name} is {show(model.initial(), 40)}, and nothing that can happen between it "
                )
                return [text + f"and the return of [{operation.invoke_index}] writes {show(value, 40)}"]
    return []


def _facts(nodes: Sequence[Operation], codes: dict[int, RegisterCode], model: Model) -> _Facts:
    facts = _Facts()
    writer_of: dict[Hashable, list[int]] = {model.initial(): [INITIAL]}
    for index, code in codes.items():
        for value in _new_value(code):
            writer_of.setdefault(value, []).append(index)
    firm = [operation for operation in nodes if operation.ret is not None]
    certain = {operation.invoke_index for operation in firm}
    for operation in firm:
        index = operation.invoke_index
        for value in _seen_value(codes[index]):
            writers = writer_of.get(value, [])
            if len(writers) == 1 and writers[0] != index:
                facts.saw.append((index, writers[0]))
                certain.add(writers[0])
    _real_time(facts, firm, [operation for operation in nodes if operation.invoke_index in certain])
    facts.writers = [index for index in sorted(certain - {INITIAL}) if _new_value(codes[index])]
    for index in facts.writers:
        facts.edge(INITIAL, index, "start", f"{_INITIAL_NAME} comes before [{index}]")
    for reader, writer in facts.saw:
        facts.edge(writer, reader, "saw", f"{_name(writer)} comes before [{reader}], which saw its value")
    return facts


def _real_time(facts: _Facts, firm: Sequence[Operation], certain: Sequence[Operation]) -> None:
    for before in firm:
        a = before.invoke_index
        assert before.ret is not None, "firm operations returned"
        for after in certain:
            b = after.invoke_index
            if before.ret < after.call:
                facts.edge(
                    a, b, "real time", f"[{a}] comes before [{b}]: it returned before [{b}] was called"
                )


def _saturate(facts: _Facts) -> bool:
    """One round of the two rules of forced order, the easier one first; whether it found an edge."""
    reach = {node: nx.descendants(facts.graph, node) for node in facts.graph}
    pairs = [
        (reader, writer, other)
        for reader, writer in facts.saw
        for other in facts.writers
        if other not in (reader, writer)
    ]
    found = False
    for reader, writer, other in pairs:
        if other in reach.get(writer, ()):
            text = (
                f"[{reader}] comes before [{other}]: it saw {_value_of(writer)}, "
                f"and [{other}], which comes after {_name(writer)}, replaces that"
            )
            found |= facts.edge(reader, other, "forced", text, _path(facts.graph, writer, other))
    for reader, writer, other in [] if found else pairs:
        if reader in reach.get(other, ()):
            text = (
                f"[{other}] comes before {_name(writer)}: [{reader}] saw {_value_of(writer)}, "
                f"which [{other}], coming before [{reader}], would have replaced"
            )
            found |= facts.edge(other, writer, "forced", text, _path(facts.graph, other, reader))
    return found


def _path(graph: nx.DiGraph, source: int, target: int) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(nx.shortest_path(graph, source, target)))


def _shortest_cycle(graph: nx.DiGraph) -> list[tuple[int, int]]:
    best: list[tuple[int, int]] = []
    for before, after in sorted(graph.edges):
        if nx.has_path(graph, after, before):
            cycle = [(before, after), *_path(graph, after, before)]
            if not best or len(cycle) < len(best):
                best = cycle
    return best


def _told(graph: nx.DiGraph, cycle: Sequence[tuple[int, int]], initial_name: str) -> Told:
    """The steps of the cycle, each after those that it rests on."""
    told: dict[tuple[int, int], None] = {}
    for edge in cycle:
        for step in _with_reasons(graph, edge, set()):
            told.setdefault(step)
    text = {edge: graph.edges[edge]["text"].replace(_INITIAL_NAME, initial_name) for edge in told}
    arrows = tuple(
        Arrow(*edge, graph.edges[edge]["kind"], text[edge], in_circle=edge in cycle) for edge in told
    )
    lines = [f"  {text[edge]}" for edge in told]
    ring = " before ".join(_name(before) for before, _ in cycle)
    tail = f"which is a circle: {ring} before {_name(cycle[0][0])}".replace(_INITIAL_NAME, initial_name)
    if len(lines) > _LINES_MAX:
        lines = [*lines[: _LINES_MAX - 1], f"  and {len(lines) - _LINES_MAX + 1} steps more"]
    return Told(("because", *lines, tail), arrows)


def _with_reasons(
    graph: nx.DiGraph, edge: tuple[int, int], done: set[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    if edge in done:
        return
    done.add(edge)
    for reason in graph.edges[edge]["because"]:
        yield from _with_reasons(graph, reason, done)
    yield edge


def _name(node: int) -> str:
    return _INITIAL_NAME if node == INITIAL else f"[{node}]"


def _value_of(node: int) -> str:
    return _INITIAL_NAME if node == INITIAL else f"the value of [{node}]"
