"""Transactions that read and write registers: dependencies from unique values (the idea of Elle).

Theory of operation
    Every value is written once to a key, so who read it depends on who wrote it (wr). The order of the versions of a
    key is not in the reads, as it is with lists; it is inferred, in two steps:

    1. From what holds in every model above read-committed: nothing comes before the initial value; a transaction
       that read one version and wrote another put it behind (else it would depend on what depends on it). Where this
       contradicts itself, versions are cyclic.
    2. Only if nothing is wrong so far by the models, and one was asked for that has real time and rules out stale reads
       (G-single-realtime): in such a model each key's versions follow real time too. What T had of a key at its end is
       no later than what U had at its beginning, if T ended before U began. A cycle with such edges cannot be in a
       history of the model; it is called G-single-realtime or after what weaker models allow, since without the order
       of time, or with stale reads, nothing would be wrong with it.

    Single reads can be wrong as in `checkers.list_append`.

Rules of this module
    1. Sound, provided that values are unique in a key and never the initial one (null, or what the history says);
       otherwise ``unknown``.
    2. Less complete than lists are: where the order of two versions cannot be inferred, nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from checkers.calls import hashable
from checkers.cycle_report import report_cycles
from checkers.cycles import Edge, find_cycles
from checkers.dependency import RW, WR, WW, Graph, add_time, components
from checkers.history import History
from checkers.isolation import forbids
from checkers.transactions import Findings, Transaction, check_transactions, show_value, shown
from checkers.verdict import Verdict

NAME = "rw-register"


@dataclass(slots=True)
class _Key:
    """What is known of one register.

    Attributes:
        writer: value -> node that wrote it last of all values it wrote.
        readers: value -> nodes that read it before any write of their own; None is the initial value.
        touched: nodes that read or wrote it, in order of invocation: (node, version at its beginning, at its end).
        then: version -> versions that are certainly later, with two nodes by whose times they are, or None.
    """

    writer: dict[Any, int] = field(default_factory=dict)
    readers: dict[Any, list[int]] = field(default_factory=dict)
    touched: list[tuple[int, Any, Any]] = field(default_factory=list)
    then: dict[Any, dict[Any, tuple[int, int] | None]] = field(default_factory=dict)


def check_rw_register(history: History, *, model: str = "strict-serializable") -> Verdict:
    """Whether the history fits a consistency model; see `checkers.transactions.check_transactions`."""
    return check_transactions(history, model, NAME, partial(_look, initial=history.initial))


def _look(everyone: Sequence[Transaction], models: Sequence[str], initial: Any) -> tuple[Findings, int] | str:
    analysis = _Analysis(everyone, initial)
    cause = analysis.collect_writes()
    if cause:
        return cause
    analysis.go_through()
    analysis.find()
    ruled_out = frozenset().union(*map(forbids, models))
    if "G-single-realtime" in ruled_out and not ruled_out & analysis.findings.counts.keys():
        analysis.follow_time()
        analysis.find(in_time=True)
    return analysis.findings, len(analysis.keys)


class _Analysis:
    def __init__(self, everyone: Sequence[Transaction], initial: Any) -> None:
        self.everyone = everyone
        self.initial = initial
        self.nodes = [one for one in everyone if one.call.status != "fail"]
        self.findings = Findings()
        self.keys: dict[Any, _Key] = {}
        self._by: dict[
            tuple[Any, Any], tuple[Transaction, bool]
        ] = {}  # who wrote it, and whether as its last

    def collect_writes(self) -> str | None:
        """Who wrote what; a sentence where that cannot be told."""
        for one in self.everyone:
            last = {key: value for f, key, value in one.ops if f == "w"}
            for f, key, value in one.ops:
                if f == "append":
                    return f"{shown(one)} appends; --checker list-append is for that"
                if f == "w":
                    if self._version(value) is None:
                        return f"{show_value(value)}, the initial value, is written to {key}: values must be unique"
                    if (key, hashable(value)) in self._by:
                        return f"{show_value(value)} is written twice to {key}: values must be unique"
                    self._by[key, hashable(value)] = (one, value is last[key])
        return None

    def go_through(self) -> None:
        """Look at every transaction, and note which versions it had of each key."""
        for node, one in enumerate(self.nodes):
            first: dict[Any, Any] = {}
            wrote: dict[Any, Any] = {}
            for f, key, value in one.ops:
                if f == "w":
                    wrote[key] = hashable(value)
                elif one.committed:
                    self._read(one, key, self._version(value), first, wrote)
            for key in dict.fromkeys([*first, *wrote]):
                self._touch(node, key, first, wrote)

    def _version(self, value: Any) -> Any:
        """The value as what names a version: None for the initial one."""
        known = hashable(value)
        return None if known == hashable(self.initial) else known

    def _read(
        self, one: Transaction, key: Any, value: Any, first: dict[Any, Any], wrote: dict[Any, Any]
    ) -> None:
        if key in wrote or key in first:
            expected = wrote[key] if key in wrote else first[key]
            if value != expected:
                was, due = (show_value(self.initial if v is None else v) for v in (value, expected))
                sentence = f"{key} was read as {was}, by its own operations it is {due}"
                self.findings.add("internal", one.call.complete.index, sentence, shown(one))
            return
        first[key] = value
        if value is None:
            return
        writer, final = self._by.get((key, value), (None, True))
        at = one.call.complete.index
        if writer is None:
            self.findings.add(
                "unexpected-element", at, f"nobody wrote {show_value(value)} to {key}", shown(one)
            )
        elif writer is one:
            self.findings.add(
                "future-read", at, f"{show_value(value)} was read before it was written", shown(one)
            )
        elif writer.call.status == "fail":
            sentence = f"{show_value(value)} of {key} was read, but its write failed"
            self.findings.add("G1a", at, sentence, shown(one), shown(writer))
        elif not final:
            sentence = f"{show_value(value)} of {key} was read, but its writer wrote another value after it"
            self.findings.add("G1b", at, sentence, shown(one), shown(writer))

    def _touch(self, node: int, key: Any, first: dict[Any, Any], wrote: dict[Any, Any]) -> None:
        entry = self.keys.setdefault(key, _Key())
        if key in wrote:
            entry.writer[wrote[key]] = node
        if key in first:
            entry.readers.setdefault(first[key], []).append(node)
        at_end = wrote[key] if key in wrote else first[key]
        entry.touched.append((node, first.get(key, at_end), at_end))
        if key in wrote and key in first and first[key] is not None:
            entry.then.setdefault(first[key], {})[wrote[key]] = None

    # -- orders of versions -----------------------------------------------------------------------------------

    def find(self, *, in_time: bool = False) -> None:
        """Build the graph of what is known of versions, and look for cycles."""
        graph = Graph(len(self.nodes))
        happened = {node for node, one in enumerate(self.nodes) if one.committed}
        for entry in self.keys.values():  # as a whole, if anything of it was read
            happened.update(entry.writer[version] for version in entry.readers if version in entry.writer)
        for key, entry in self.keys.items():
            if in_time or not self._cyclic(key, entry):
                self._edges_of(graph, key, entry, happened)
            if not in_time:
                self._lost_updates(key, entry)
        add_time(graph, [one.call for one in self.nodes])
        cycles, certain = find_cycles(graph)
        report_cycles(self.findings, cycles, certain, self.nodes, self._reason, in_time=in_time)

    def _cyclic(self, key: Any, entry: _Key) -> bool:
        """Whether the versions of a key are in no order; then the anomaly is noted."""
        number = {version: n for n, version in enumerate(dict.fromkeys(_versions(entry.then)))}
        graph = Graph(len(number))
        for version, later in entry.then.items():
            for other in later:
                graph.add(number[version], number[other], WW)
        found = components(graph)
        if found:
            names = list(number)
            cyclic = [names[n] for n in found[0]]
            writers = [self.nodes[entry.writer[version]] for version in cyclic if version in entry.writer]
            at = max(one.call.complete.index for one in writers)
            sentence = f"each of these versions of {key} was written over another: {', '.join(map(show_value, cyclic))}"
            self.findings.add("cyclic-versions", at, sentence, *map(shown, writers[:4]))
        return bool(found)

    def _lost_updates(self, key: Any, entry: _Key) -> None:
        wrote = set(entry.writer.values())
        for version, readers in entry.readers.items():
            both = [self.nodes[node] for node in readers if node in wrote]
            if len(both) > 1:
                at = max(one.call.complete.index for one in both[:2])
                read = show_value(self.initial if version is None else version)
                sentence = f"both read {key} as {read} and wrote it"
                self.findings.add("lost-update", at, sentence, *map(shown, both[:2]))

    def _edges_of(self, graph: Graph, key: Any, entry: _Key, happened: Container[int]) -> None:
        for version, readers in entry.readers.items():
            writer = entry.writer.get(version)
            if writer is not None:
                for reader in readers:
                    graph.add(writer, reader, WR, key)
        written = [node for node in entry.writer.values() if node in happened]
        if None in entry.readers and written:
            graph.add_all(entry.readers[None], written, RW, key)
        for version, later in entry.then.items():
            writers = [entry.writer[other] for other in later if other in entry.writer]
            if not writers:
                continue
            if version in entry.writer:
                graph.add_all([entry.writer[version]], writers, WW, key)
            graph.add_all(entry.readers.get(version, []), writers, RW, key)

    def follow_time(self) -> None:
        """Let the versions of each key follow real time."""
        for entry in self.keys.values():
            for version, later, by in _in_time(entry, self.nodes):
                entry.then.setdefault(version, {}).setdefault(later, by)

    def _reason(self, edge: Edge, first: Transaction, second: Transaction) -> str:
        key = edge.why
        wrote = [value for f, of, value in first.ops if f == "w" and of == key]
        writes = [value for f, of, value in second.ops if f == "w" and of == key]
        read = next((value for f, of, value in first.ops if f == "r" and of == key), None)
        if edge.kind == WW:
            told = (
                f"it wrote {show_value(wrote[-1])} to {key}, and that wrote {show_value(writes[-1])} over it"
            )
            return told + self._by_time(key, wrote[-1], writes[-1])
        if edge.kind == WR:
            return f"it wrote {show_value(wrote[-1])} to {key}, which that has read"
        told = f"it read {key} as {show_value(read)}, which is earlier than {show_value(writes[-1])}, which that wrote"
        return told + self._by_time(key, read, writes[-1])

    def _by_time(self, key: Any, version: Any, later: Any) -> str:
        """Why one version is later than the other, where only time tells."""
        by = self.keys[key].then.get(hashable(version), {}).get(hashable(later))
        if by is None:
            return ""
        first, second = (self.nodes[node].call.span for node in by)
        return (
            f" ({first}, with {show_value(version)}, ended before {second} began, with {show_value(later)})"
        )


def _versions(then: dict[Any, dict[Any, Any]]) -> Iterator[Any]:
    for version, later in then.items():
        yield version
        yield from later


def _in_time(entry: _Key, nodes: Sequence[Transaction]) -> Iterator[tuple[Any, Any, tuple[int, int] | None]]:
    """Pairs of versions of which the first is earlier by real time, and who shows it; what others imply is left out."""
    events = []
    for place, (node, _, _) in enumerate(entry.touched):
        call = nodes[node].call
        events.append((call.call, place))
        if call.ret is not None:
            events.append((call.ret, place))
    front: dict[int, None] = {}  # those that have ended, and that nobody began after who has ended too
    before: dict[int, list[int]] = {}
    for _, place in sorted(events):
        _, at_begin, at_end = entry.touched[place]
        if place not in before:
            before[place] = list(front)
            for one in front:
                version = entry.touched[one][2]
                if version is not None and at_begin is not None and version != at_begin:
                    yield version, at_begin, (entry.touched[one][0], entry.touched[place][0])
            continue
        for one in before[place]:
            front.pop(one, None)
        front[place] = None
        if at_begin != at_end and at_begin is not None:
            yield at_begin, at_end, None
