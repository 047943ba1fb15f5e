"""Cycles of a dependency graph in words: who they are of, and why each must come before the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from checkers.calls import seconds
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
    suffix: str = "",
) -> None:
    """Note cycles with a line for each step; `reason(edge, first, second)` tells a dependency.

    With a `suffix`, every name gets it: what the edges rest on is then part of the anomaly.
    """
    for cycle in cycles:
        name = cycle.name + ("" if cycle.name.endswith(suffix) else suffix)
        names = {node: f"T{number}" for number, node in enumerate(cycle.nodes, 1)}
        lines = [" -> ".join(_arrow(edge, names) for edge in cycle.edges) + f" -> {names[cycle.nodes[0]]}"]
        lines += [f"{names[node]} = {shown(nodes[node])}" for node in cycle.nodes]
        for edge in cycle.edges:
            why = _why(edge, nodes, reason)
            lines.append(f"{names[edge.first]} before {names[edge.second]}: {why}")
        at = max(nodes[node].call.complete.index for node in cycle.nodes)
        findings.add(name, at, *lines)
    for name in certain:
        at = max(one.call.complete.index for one in nodes)
        findings.add(name, at, "there is a cycle; the search for the plainest one was ended at its bound")


def _arrow(edge: Edge, names: dict[int, str]) -> str:
    return f"{names[edge.first]} -{edge.name}"


def _why(edge: Edge, nodes: Sequence[Transaction], reason: Reason) -> str:
    first, second = nodes[edge.first], nodes[edge.second]
    if edge.kind == REALTIME:
        return f"it ended at {seconds(first.call.complete)}, and that began at {seconds(second.call.invoke)}"
    if edge.kind in (WW, WR, RW):
        return reason(edge, first, second)
    return f"process {first.call.process} did them in this order"
