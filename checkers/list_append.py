"""Transactions that append to lists and read them: dependencies are read off the lists (the idea of Elle).

Theory of operation
    Every element is appended once, so a list that was read tells the order of all the versions before it: the
    longest list read of each key is the key's version order (Kingsbury and Alvaro, "Elle", VLDB 2020). From it:

    ww   who appended an element    before  who appended the next one
    wr   who appended the last one of a list  before  who read that list
    rw   who read a list            before  who appended the element that comes next

    An element that was appended for certain and is in no list that was read comes after the longest list, so who read
    the longest list (and who appended its last element) comes before who appended that one. Elle leaves this out; it
    finds acknowledged writes that are gone. A transaction of unknown outcome has happened, as a whole, if anything of
    it was read.

    Beside cycles, single reads can be wrong: of elements of failed transactions (G1a), of lists between two appends
    of one transaction (G1b), of lists that no order explains (incompatible-order; also one with two elements of one
    transaction the other way round), with an element twice (duplicate-elements) or of nobody (unexpected-element),
    against what the transaction itself did before (internal) or only does later (future-read). A committed append
    behind an aborted one is a dirty-update. Two transactions that read the same version of a key and both append to it
    lose an update.

Rules of this module
    1. Sound: what is reported cannot have happened in a system of the model, provided that elements are unique in a
       key. Where the history itself appends an element twice, the answer is ``unknown``.
    2. Linear in the size of what was read, but for the search for cycles in parts that are wrong (`checkers.cycles`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checkers.calls import hashable
from checkers.cycle_report import report_cycles
from checkers.cycles import Edge, find_cycles
from checkers.dependency import RW, WR, WW, Graph, add_time
from checkers.history import History
from checkers.transactions import Findings, Transaction, check_transactions, show_value, shown
from checkers.verdict import Verdict

NAME = "list-append"
_PLAIN = frozenset({int, str})


@dataclass(slots=True)
class _Key:
    """What is known of one list.

    Attributes:
        order: the longest list read.
        sound: whether every element of it is of somebody who did not fail, and in it once.
        reads: who read what, before any append of its own.
        apart: elements of lists that do not fit the longest.
    """

    order: Sequence[Any] = ()
    longest: int = -1
    sound: bool = True
    reads: list[tuple[int, Sequence[Any]]] = field(default_factory=list)
    apart: set[Any] = field(default_factory=set)


@dataclass(slots=True)
class _Writes:
    """Who appended what.

    Attributes:
        writer: (key, element) -> place in the list of all transactions.
        last: for (key, place), the last element that it appended to the key.
    """

    writer: dict[tuple[Any, Any], int] = field(default_factory=dict)
    last: dict[tuple[Any, int], Any] = field(default_factory=dict)


def check_list_append(history: History, *, model: str = "strict-serializable") -> Verdict:
    """Whether the history fits a consistency model; see `checkers.transactions.check_transactions`."""
    return check_transactions(history, model, NAME, _look)


def _look(everyone: Sequence[Transaction], _models: Sequence[str]) -> tuple[Findings, int] | str:
    writes = _Writes()
    cause = _collect_writes(everyone, writes)
    if cause:
        return cause
    findings = Findings()
    keys: dict[Any, _Key] = {}
    nodes = [place for place, one in enumerate(everyone) if one.call.status != "fail"]
    node_of = {place: node for node, place in enumerate(nodes)}
    analysis = _Analysis(everyone, writes, findings, keys, nodes, node_of)
    for place in nodes:
        if everyone[place].committed:
            analysis.read(place)
    analysis.orders()
    graph = Graph(len(nodes))
    analysis.edges(graph)
    add_time(graph, [everyone[place].call for place in nodes])
    cycles, certain = find_cycles(graph)
    report_cycles(findings, cycles, certain, [everyone[place] for place in nodes], analysis.reason)
    return findings, len({key for one in everyone for _, key, _ in one.ops})


def _collect_writes(everyone: Sequence[Transaction], writes: _Writes) -> str | None:
    """Who appended what; a sentence where that cannot be told."""
    for place, one in enumerate(everyone):
        for f, key, value in one.ops:
            if f == "append":
                element = hashable(value)
                if (key, element) in writes.writer:
                    return f"{show_value(value)} is appended twice to {key}: elements must be unique"
                writes.writer[key, element] = place
                writes.last[key, place] = element
            elif f == "w":
                return f"{shown(one)} writes; --checker rw-register is for that"
    return None


@dataclass(slots=True)
class _Analysis:
    everyone: Sequence[Transaction]
    writes: _Writes
    findings: Findings
    keys: dict[Any, _Key]
    places: Sequence[int]  # of the nodes
    node_of: dict[int, int]

    # -- single reads -----------------------------------------------------------------------------------------

    def read(self, place: int) -> None:
        """Go through what a committed transaction read."""
        one = self.everyone[place]
        known: dict[Any, list[Any]] = {}  # the whole list, once it has been read
        mine: dict[Any, list[Any]] = {}  # what was appended before anything was read
        for f, key, value in one.ops:
            if f == "append":
                (known if key in known else mine).setdefault(key, []).append(value)
                continue
            if not isinstance(value, list | tuple | None):
                self._note(
                    "unexpected-element", one, f"{key} was read as {show_value(value)}, which is no list"
                )
                continue
            there = list(value or ())
            if key in known:
                if there != known[key]:
                    self._internal(place, key, there, known[key], "")
                continue
            own = mine.get(key, [])
            if own and there[-len(own) :] != own:
                self._internal(place, key, there, own, "ends in ")
                continue
            known[key] = there
            self._external(place, key, there[: len(there) - len(own)])

    def _internal(self, place: int, key: Any, there: list[Any], expected: list[Any], how: str) -> None:
        one = self.everyone[place]
        self.findings.add(
            "internal",
            one.call.complete.index,
            f"{key} was read as {show_value(there)}, but by its own operations before it {how}{show_value(expected)}",
            shown(one),
        )

    def _external(self, place: int, key: Any, there: list[Any]) -> None:
        elements = there if _PLAIN.issuperset(map(type, there)) else [hashable(value) for value in there]
        entry = self.keys.get(key)
        if entry is None:
            entry = self.keys[key] = _Key()
        entry.reads.append((place, elements))
        length = len(elements)
        # What agrees with a list that was looked at before need not be looked at again.
        known = max(0, min(entry.longest, length))
        if not entry.sound or elements[:known] != entry.order[:known]:
            known = 0
        sound = self._elements(place, key, elements, known)
        if length > entry.longest:
            entry.longest, entry.order, entry.sound = length, elements, sound
        if elements:
            self._intermediate(place, key, elements[-1])

    def _elements(self, place: int, key: Any, elements: Sequence[Any], known: int) -> bool:
        """Look at the elements of a list from the place `known` on; whether they are as they must be."""
        one = self.everyone[place]
        sound = True
        if known < len(elements) and len(set(elements)) != len(elements):
            again = next(e for n, e in enumerate(elements) if e in elements[:n])
            self._note("duplicate-elements", one, f"{show_value(again)} is in {key} twice")
            sound = False
        if (key, place) in self.writes.last:
            mine = {hashable(value) for f, of, value in one.ops if f == "append" and of == key}
            for element in elements:
                if element in mine:
                    self._note("future-read", one, f"{show_value(element)} was read before it was appended")
        for element in elements[known:]:
            by = self.writes.writer.get((key, element))
            if by is None:
                self._note("unexpected-element", one, f"nobody appended {show_value(element)} to {key}")
                sound = False
            elif self.everyone[by].call.status == "fail":
                sentence = f"{show_value(element)} of {key} was read, but its append failed"
                self._note("G1a", one, sentence, self.everyone[by])
                sound = False
        return sound

    def _intermediate(self, place: int, key: Any, element: Any) -> None:
        by = self.writes.writer.get((key, element))
        if by is None or by == place:
            return
        final = self.writes.last[key, by]
        if final != element:
            self._note(
                "G1b",
                self.everyone[place],
                f"{key} was read up to {show_value(element)}, but {show_value(final)} was appended with it",
                self.everyone[by],
            )

    def _note(self, name: str, one: Transaction, sentence: str, other: Transaction | None = None) -> None:
        lines = [sentence, shown(one), *([shown(other)] if other is not None else [])]
        self.findings.add(name, one.call.complete.index, *lines)

    # -- orders of versions -----------------------------------------------------------------------------------

    def orders(self) -> None:
        """Compare all reads of a key with its longest."""
        for key, entry in self.keys.items():
            order = entry.order
            longest = next(place for place, elements in entry.reads if elements is order)
            for place, elements in entry.reads:
                if elements != order[: len(elements)]:
                    self._incompatible(key, place, longest)
                    entry.apart.update(elements)
            self._dirty_updates(key, order, longest)
            self._lost_updates(key, entry)

    def _incompatible(self, key: Any, place: int, longest: int) -> None:
        one, other = self.everyone[place], self.everyone[longest]
        at = max(one.call.complete.index, other.call.complete.index)
        sentence = f"no order of the appends to {key} explains both reads"
        self.findings.add("incompatible-order", at, sentence, shown(one), shown(other))

    def _dirty_updates(self, key: Any, order: Sequence[Any], longest: int) -> None:
        aborted: Any = None
        for element in order:
            by = self.writes.writer.get((key, element))
            if by is None:
                continue
            one = self.everyone[by]
            if one.call.status == "fail":
                aborted = element
            elif aborted is not None:
                reader = self.everyone[longest]
                sentence = (
                    f"{show_value(element)} of {key} stands behind {show_value(aborted)}, whose append failed"
                )
                self.findings.add(
                    "dirty-update", reader.call.complete.index, sentence, shown(one), shown(reader)
                )
                return

    def _lost_updates(self, key: Any, entry: _Key) -> None:
        updaters: dict[tuple[int, Any], list[int]] = {}
        for place, elements in entry.reads:
            if (key, place) in self.writes.last and self._reads_first(place, key):
                version = (len(elements), elements[-1] if elements else None)
                updaters.setdefault(version, []).append(place)
        for (length, last), places in updaters.items():
            if len(places) > 1:
                what = f"{key} up to {show_value(last)}" if length else f"{key} when it was empty"
                both = [self.everyone[place] for place in places[:2]]
                at = max(one.call.complete.index for one in both)
                self.findings.add(
                    "lost-update", at, f"both read {what} and appended to it", *map(shown, both)
                )

    def _reads_first(self, place: int, key: Any) -> bool:
        return next(f for f, of, _ in self.everyone[place].ops if of == key) == "r"

    # -- edges ------------------------------------------------------------------------------------------------

    def edges(self, graph: Graph) -> None:
        """Put the dependencies of all keys into the graph."""
        unread = self._unread()
        for key in dict.fromkeys([*self.keys, *unread]):
            self._edges_of(graph, key, self.keys.get(key, _Key()), unread.get(key, []))

    def _unread(self) -> dict[Any, list[int]]:
        """For each key who appended for certain what nobody has read."""
        there = {key: entry.apart.union(entry.order) for key, entry in self.keys.items()}
        seen = {self.writes.writer.get((key, element)) for key, read in there.items() for element in read}
        nothing: set[Any] = set()
        found: dict[Any, list[int]] = {}
        for (key, element), place in self.writes.writer.items():
            happened = self.everyone[place].committed or (place in seen and place in self.node_of)
            if happened and element not in there.get(key, nothing):
                nodes = found.setdefault(key, [])
                node = self.node_of[place]
                if not nodes or nodes[-1] != node:
                    nodes.append(node)
        return found

    def _edges_of(self, graph: Graph, key: Any, entry: _Key, unread: Sequence[int]) -> None:
        order = entry.order
        writers = [self._node(key, element) for element in order]
        for at, (first, second) in enumerate(itertools.pairwise(writers)):
            if first >= 0 and second >= 0:
                graph.add(first, second, WW, key)
                if first == second:
                    self._own_order(key, entry, first, order[at : at + 2])
        last_readers = [
            self.node_of[place]
            for place, elements in entry.reads
            if self._read_edges(graph, key, writers, place, elements)
        ]
        if unread:
            graph.add_all(list(dict.fromkeys(last_readers)), unread, RW, key)
            # That what was read was not undone holds in all models but the weakest; the edges above say as much.
            certain = [node for node in unread if self.everyone[self.places[node]].committed]
            if certain and writers and writers[-1] >= 0:
                graph.add_all([writers[-1]], certain, WW, key)

    def _own_order(self, key: Any, entry: _Key, node: int, two: Sequence[Any]) -> None:
        """Whether a transaction appended two elements as they stand in the longest list."""
        one = self.everyone[self.places[node]]
        mine = [hashable(value) for f, of, value in one.ops if f == "append" and of == key]
        if mine.index(two[0]) > mine.index(two[1]):
            reader = next(self.everyone[place] for place, elements in entry.reads if elements is entry.order)
            sentence = (
                f"{show_value(two[0])} stands before {show_value(two[1])} in {key}, and was appended after it"
            )
            self.findings.add(
                "incompatible-order", reader.call.complete.index, sentence, shown(one), shown(reader)
            )

    def _read_edges(
        self, graph: Graph, key: Any, writers: Sequence[int], place: int, elements: Sequence[Any]
    ) -> bool:
        """The edges of one read; whether nothing that was read comes after it."""
        length = len(elements)
        if elements != self.keys[key].order[:length]:
            return False  # it is in no order, and says nothing about this one
        reader = self.node_of[place]
        if length and writers[length - 1] >= 0:
            graph.add(writers[length - 1], reader, WR, key)
        while length < len(writers) and writers[length] == reader:
            length += 1
        if length < len(writers) and writers[length] >= 0:
            graph.add(reader, writers[length], RW, key)
        return length >= len(writers)

    def _node(self, key: Any, element: Any) -> int:
        """Who appended it, -1 for nobody and for who failed."""
        place = self.writes.writer.get((key, element))
        return -1 if place is None else self.node_of.get(place, -1)

    # -- words ------------------------------------------------------------------------------------------------

    def reason(self, edge: Edge, first: Transaction, second: Transaction) -> str:
        """Why the one comes before the other, by elements of which it is true."""
        key = edge.why
        wrote, writes = _appended(first, key), _appended(second, key)
        if edge.kind == WW:
            one, other = self._neighbours(key, wrote, writes)
            return f"it appended {show_value(one)} to {key}, and that appended {show_value(other)} after it"
        if edge.kind == WR:
            seen = set().union(*_reads(second, key))
            last = next(value for element, value in reversed(wrote.items()) if element in seen)
            return f"it appended {show_value(last)} to {key}, which that has read"
        read, missing = next(
            (read, value)
            for read in _reads(first, key)
            for element, value in writes.items()
            if element not in read
        )
        return f"it read {key} as {show_value(read)}, without {show_value(missing)}, which that appended"

    def _neighbours(self, key: Any, wrote: Mapping[Any, Any], writes: Mapping[Any, Any]) -> tuple[Any, Any]:
        """Two elements of which the second stands right behind the first, or behind the longest list."""
        order = self.keys[key].order
        for one, other in itertools.pairwise(order):
            if one in wrote and other in writes:
                return wrote[one], writes[other]
        there = set(order)
        return wrote[order[-1]], next(value for element, value in writes.items() if element not in there)


def _appended(one: Transaction, key: Any) -> dict[Any, Any]:
    """What it appended to a key, by the form in which elements are compared."""
    return {hashable(value): value for f, of, value in one.ops if f == "append" and of == key}


def _reads(one: Transaction, key: Any) -> list[list[Any]]:
    """What it read of a key."""
    return [[hashable(value) for value in seen or ()] for f, of, seen in one.ops if f == "r" and of == key]
