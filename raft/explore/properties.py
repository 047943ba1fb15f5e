"""What must hold in every state of a search: Figure 3, and that no read misses what was acknowledged.

Most of it is a property of two values (a node and the world, two nodes), and each pair is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from raft.core import Entry
from raft.explore.model import NodeState, Table


class Committed(NamedTuple):
    """An entry, and the first term in which a node took it for committed."""

    entry: Entry
    term: int


class World(NamedTuple):
    """What is not a node's: what the bounds count, and what the properties remember."""

    writes: int = 0
    crashes: int = 0
    reads: int = 0
    changes: int = 0
    heartbeats: int = 0
    committed: tuple[Committed, ...] = ()  # everything that was ever committed anywhere, in order
    led: tuple[tuple[int, str], ...] = ()  # who has led which term
    passes: int = 0


class Properties:
    """Judges states."""

    def __init__(self, nodes: Table, worlds: Table) -> None:
        self._nodes = nodes.values
        self._worlds = worlds.values
        self._alone: dict[int, str | None] = {}
        self._within: dict[tuple[int, int], str | None] = {}
        self._pairs: dict[tuple[int, int], str | None] = {}

    def violation(self, nodes: tuple[int, ...], world: int) -> str | None:
        """What does not hold, if anything."""
        if world not in self._alone:
            self._alone[world] = _wrong_world(self._worlds[world])
        wrong = self._alone[world]
        for node in nodes:
            key = (node, world)
            if key not in self._within:
                self._within[key] = _wrong_leader(self._nodes[node], self._worlds[world])
            wrong = wrong or self._within[key]
        for pair in combinations(nodes, 2):
            if pair not in self._pairs:
                self._pairs[pair] = _wrong_logs(*(self._nodes[node] for node in pair))
            wrong = wrong or self._pairs[pair]
        return wrong


def with_committed(
    known: tuple[Committed, ...], entries: Iterable[Entry], term: int
) -> tuple[Committed, ...]:
    """What is committed once these are too, in the order of the log."""
    terms = {one.entry: one.term for one in known}
    for entry in entries:
        terms[entry] = min(term, terms.get(entry, term))
    return tuple(sorted((Committed(*one) for one in terms.items()), key=_place))


def _place(one: Committed) -> tuple[int, int]:
    return one.entry.index, one.entry.term


def _wrong_world(world: World) -> str | None:
    """Election Safety (5.2), State Machine Safety (5.4.3)."""
    for (term, one), (also, other) in zip(world.led, world.led[1:], strict=False):
        if term == also:
            return f"Election Safety: {one} and {other} both lead term {term}"
    for before, after in zip(world.committed, world.committed[1:], strict=False):
        if before.entry.index == after.entry.index:
            return f"State Machine Safety: two different entries were committed at index {before.entry.index}"
    return None


def _wrong_leader(node: NodeState, world: World) -> str | None:
    """Leader Completeness (5.4): of the term in which an entry was committed, which may be later than its own."""
    if node.role == "leader":
        for entry, term in world.committed:
            if term < node.term and entry not in node.entries:
                return f"Leader Completeness: the leader of term {node.term} lacks entry {entry.index}"
    return None


def _wrong_logs(one: NodeState, other: NodeState) -> str | None:
    """Log Matching (5.3): an entry of the same index and term has the same content and the same past."""
    agree = True
    for a, b in zip(one.entries, other.entries, strict=False):
        if a.term == b.term and (a != b or not agree):
            return (
                f"Log Matching: two logs differ at or before entry {a.index}, which has term {a.term} in both"
            )
        agree = agree and a == b
    return None


def sights(nodes: Sequence[NodeState], world: World) -> Iterator[str]:
    """What a search should have come by, or its silence would mean nothing."""
    roles = [node.role for node in nodes]
    if "leader" in roles:
        yield "a leader"
    if roles.count("leader") > 1:
        yield "two leaders of different terms"
    if world.committed:
        yield "a committed entry"
    if len(world.led) > 1:
        yield "a second leader"
    if world.crashes:
        yield "a crash"
    logs = [node.entries for node in nodes]
    if any(a != b for one, other in combinations(logs, 2) for a, b in zip(one, other, strict=False)):
        yield "logs that differ at an index"
