"""Causal consistency of registers, by the patterns that no causally consistent history has.

Theory of operation
    Every value is written once to a key. An operation causes another if it came before it in the same process, or
    wrote what the other read, or by a chain of those. Bouajjani, Enea, Guerraoui and Hamza ("On verifying causal
    consistency", POPL 2017) show that a history is causally consistent unless it has one of:

    cyclic-co            an operation that causes itself
    thin-air-read        a read of a value that nobody wrote (aborted-read: whose write failed)
    write-co-init-read   a read of the initial value by whom a write of that key has caused
    write-co-read        a read of a value of which a write that is caused by it, and causes the read, is an overwrite

    and that it is so with conflicts resolved alike everywhere (``convergence``, the default) unless also

    cyclic-cf            writes of one key of which each, by what somebody read, came after the other

    What has caused an operation is kept as a vector clock: how far into each process.

Rules of this module
    1. Where a value is written twice to a key, or is the initial one (null, or what the history says), or a history
       has more processes and operations than `WORK_MAX` allows for, the answer is ``unknown``. So it is where there
       are other operations (cas), which may have written what was read.
    2. A write of unknown outcome is caused by what its process did before it, and causes nothing that its process did
       after it: it may have happened later.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.dependency import PROCESS, WR, WW, Graph, components
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

NAME = "causal"
WORK_MAX = 50_000_000


def check_causal(history: History, *, convergence: bool = True) -> Verdict:
    """Whether reads and writes of keys are causally consistent; see the module.

    Raises:
        HistoryError: the history is malformed.
    """
    everything = calls_of(history)
    others = dict.fromkeys(c.f for c in everything if c.f not in ("read", "write") and c.status != "fail")
    if others:
        cause = (
            f"the history has {', '.join(others)} too: causal consistency is judged of reads and writes alone"
        )
        return Verdict(valid="unknown", checker=NAME, operations=len(everything), cause=cause)
    calls = [call for call in everything if call.f in ("read", "write")]
    findings = Findings()
    keys = len({hashable(call.key) for call in calls})
    order = _Causes(calls, findings, history.initial)
    cause = order.prepare()
    if not cause and not findings.wrong and order.sort():
        order.check_reads()
        if convergence and not findings.wrong:
            order.check_conflicts()
    return findings.verdict(NAME, len(calls), keys, cause)


class _Causes:
    def __init__(self, calls: Sequence[Call], findings: Findings, initial: Any) -> None:
        self._findings = findings
        self._all = calls
        self._initial = hashable(initial)
        # Reads of unknown outcome say nothing; writes of unknown outcome matter only if somebody read them.
        read = {(hashable(c.key), hashable(c.result)) for c in calls if c.f == "read" and c.status == "ok"}
        self.calls = [
            call
            for call in calls
            if call.status == "ok"
            or (
                call.f == "write"
                and call.status == "info"
                and (hashable(call.key), hashable(call.argument)) in read
            )
        ]
        self._writer: dict[tuple[Any, Any], int] = {}
        self._place: list[tuple[int, int]] = []  # process (numbered), position in it
        self._writes: dict[tuple[int, Any], list[tuple[int, int]]] = {}  # (process, key) -> (position, node)
        self._clock: list[dict[int, int]] = []
        self._graph = Graph(len(self.calls))

    def prepare(self) -> str:
        """Number everything, and draw who causes whom directly; a sentence where that cannot be judged."""
        aborted = {
            (hashable(c.key), hashable(c.argument))
            for c in self._all
            if c.f == "write" and c.status == "fail"
        }
        numbers: dict[Any, int] = {}
        last: dict[int, int] = {}
        lengths: dict[int, int] = {}
        ends = {call.process: node for node, call in enumerate(self.calls)}
        for node, call in enumerate(self.calls):
            apart = call.ret is None and ends[call.process] != node  # a process of its own, by rule 2
            process = numbers.setdefault((call.process, node if apart else None), len(numbers))
            position = lengths.get(process, 0)
            lengths[process] = position + 1
            self._place.append((process, position))
            if call.process in last:
                self._graph.add(last[call.process], node, PROCESS)
            if not apart:
                last[call.process] = node
            if call.f == "write":
                name = (hashable(call.key), hashable(call.argument))
                if self._is_initial(call.argument):
                    return f"{some(name[1:])}, the initial value, is written to {some(name[:1])}: values must be unique"
                if name in self._writer:
                    return f"{some([name[1]])} is written twice to {some([name[0]])}: values must be unique"
                self._writer[name] = node
                self._writes.setdefault((process, name[0]), []).append((position, node))
        if len(numbers) * len(self.calls) > WORK_MAX:
            return f"{len(self.calls)} operations of {len(numbers)} processes are too many to judge"
        reads = [node for node, call in enumerate(self.calls) if call.f == "read"]
        for node in reads:
            self._draw_read(node, aborted)
        return "" if reads else "no read succeeded: there is nothing to check"

    def _draw_read(self, node: int, aborted: set[tuple[Any, Any]]) -> None:
        call = self.calls[node]
        name = (hashable(call.key), hashable(call.result))
        if self._is_initial(call.result):
            return
        writer = self._writer.get(name)
        if writer is not None:
            self._graph.add(writer, node, WR)
            return
        what = "aborted-read" if name in aborted else "thin-air-read"
        whose = "whose write failed" if name in aborted else "which nobody wrote"
        sentence = f"{self._named(node)} read {some([name[1]])} of {some([name[0]])}, {whose}"
        self._findings.add(what, call.complete.index, sentence)

    def sort(self) -> bool:
        """Vector clocks, in an order of causes before effects; False where something causes itself."""
        cyclic = components(self._graph)
        if cyclic:
            shown = "; ".join(self._named(node) for node in cyclic[0][:4])
            at = max(self.calls[node].complete.index for node in cyclic[0])
            self._findings.add("cyclic-co", at, f"each of these causes the others: {shown}")
            return False
        degree = [0] * len(self.calls)
        for node in range(len(self.calls)):
            for second, _, _ in self._graph.edges(node):
                degree[second] += 1
        free = [node for node, count in enumerate(degree) if not count]
        self._clock = [{} for _ in self.calls]
        for node in free:  # grows while it is gone through
            process, position = self._place[node]
            mine = self._clock[node]
            mine[process] = position
            for second, _, _ in self._graph.edges(node):
                theirs = self._clock[second]
                for other, upto in mine.items():
                    if theirs.get(other, -1) < upto:
                        theirs[other] = upto
                degree[second] -= 1
                if not degree[second]:
                    free.append(second)
        return True

    def _last_writes(self, node: int, key: Any) -> list[int]:
        """The last write to the key of each process that causes the node."""
        found = []
        for process, upto in self._clock[node].items():
            writes = self._writes.get((process, key))
            if writes is None:
                continue
            place = bisect_right(writes, (upto, len(self.calls)))
            if place and writes[place - 1][1] != node:
                found.append(writes[place - 1][1])
            elif place > 1:
                found.append(writes[place - 2][1])
        return found

    def _causes(self, first: int, second: int) -> bool:
        process, position = self._place[first]
        return first != second and self._clock[second].get(process, -1) >= position

    def check_reads(self) -> None:
        """Reads of what was overwritten by one of their causes."""
        for node, call in enumerate(self.calls):
            if call.f != "read":
                continue
            key, value = hashable(call.key), hashable(call.result)
            causes = self._last_writes(node, key)
            if self._is_initial(value) and causes:
                by = self._named(causes[0])
                what = f"read the initial value of {some([key])}, although it was caused by {by}"
                sentence = f"{self._named(node)} {what}"
                self._findings.add("write-co-init-read", call.complete.index, sentence)
                continue
            writer = self._writer.get((key, value), -1)
            over = next(
                (one for one in causes if one != writer and writer >= 0 and self._causes(writer, one)), None
            )
            if over is not None:
                sentence = (
                    f"{self._named(node)} read {some([value])} of {some([key])}, although it was caused by "
                    f"{self._named(over)}, and that by the write of {some([value])}"
                )
                self._findings.add("write-co-read", call.complete.index, sentence)

    def check_conflicts(self) -> None:
        """Writes of one key that readers have put into opposite orders."""
        for node, call in enumerate(self.calls):
            if call.f == "read" and not self._is_initial(call.result):
                key = hashable(call.key)
                writer = self._writer[key, hashable(call.result)]
                for other in self._last_writes(node, key):
                    if other != writer:
                        self._graph.add(other, writer, WW)
        cyclic = components(self._graph)
        if cyclic:
            writes = [node for node in cyclic[0] if self.calls[node].f == "write"]
            at = max(self.calls[node].complete.index for node in cyclic[0])
            shown = "; ".join(self._named(node) for node in writes[:4])
            self._findings.add(
                "cyclic-cf", at, f"readers have put these writes into opposite orders: {shown}"
            )

    def _is_initial(self, value: Any) -> bool:
        return value is None or hashable(value) == self._initial

    def _named(self, node: int) -> str:
        call = self.calls[node]
        done = f"write {some([hashable(call.argument)])}" if call.f == "write" else "read"
        return f"{call.span} ({done}, process {call.process})"
