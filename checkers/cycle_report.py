"""Cycles of a dependency graph in words: who they are of, and why each must come before the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from checkers.calls import Call, seconds
from checkers.cycles import Cycle, Edge
from checkers.dependency import REALTIME, RW, WR, WW
from checkers.transactions import Findings, Transaction, shown

Reason = Callable[[Edge, Transaction, Transaction], str]


def report_cycles(
    findings: Findings,
    cycles: Sequence[Cycle],
    certain: Sequence[str],
    nodes: Sequence[Transaction],
    reason: Reason,
    *,
    in_time: bool = False,
) -> None:
    """Note cycles with a line for each step; `reason(edge, first, second)` tells a dependency.

    With `in_time`, the order of versions rests on real time, as in a model without stale reads: see `_name_in_time`.
    """
    for cycle in cycles:
        name = _name_in_time(cycle.name) if in_time else cycle.name
        names = {node: f"T{number}" for number, node in enumerate(cycle.nodes, 1)}
        lines = [" -> ".join(_arrow(edge, names) for edge in cycle.edges) + f" -> {names[cycle.nodes[0]]}"]
        lines += [f"{names[node]} = {shown(nodes[node])}" for node in cycle.nodes]
        for edge in cycle.edges:
            why = _why(edge, nodes, reason)
            lines.append(f"{names[edge.first]} before {names[edge.second]}: {why}")
        at = max(nodes[node].call.complete.index for node in cycle.nodes)
        findings.add(name, at, *lines)
    for name in ["PL-SS-cycle-exists"] if in_time and certain else certain:
        at = max(one.call.complete.index for one in nodes)
        findings.add(name, at, "there is a cycle; the search for the plainest one was ended at its bound")


def _name_in_time(name: str) -> str:
    """What a cycle is called whose order of versions no model promises that allows to read what is stale."""
    plain = name.removesuffix("-process").removesuffix("-realtime")
    return f"{'G-single' if plain in ('G0', 'G1c') else plain}-realtime"


def _arrow(edge: Edge, names: dict[int, str]) -> str:
    return f"{names[edge.first]} -{edge.name}"


def _why(edge: Edge, nodes: Sequence[Transaction], reason: Reason) -> str:
    first, second = nodes[edge.first], nodes[edge.second]
    if edge.kind == REALTIME:
        return _in_time(first.call, second.call)
    if edge.kind in (WW, WR, RW):
        return reason(edge, first, second)
    return f"process {first.call.process} did them in this order"


def _in_time(first: Call, second: Call) -> str:
    """That one ended before the other began, by times if these tell: a history may have none, or of several clocks."""
    ended, began = first.complete, second.invoke
    if ended.time_ns < began.time_ns:
        digits = 3 if began.time_ns // 1_000_000 > ended.time_ns // 1_000_000 else 9
        return f"it ended at {seconds(ended, digits)}, and that began at {seconds(began, digits)}"
    return f"it ended with [{ended.index}], and that began with [{began.index}] after it"
