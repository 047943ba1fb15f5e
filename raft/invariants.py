"""What must hold in every state a cluster can reach: Figure 3 of the paper, and what follows from it.

Theory of operation
    `Invariants.check(core)` is called for a node after each of its events, and looks only at what has changed
    since the last call: new entries, a new term, a new role, a higher commit index. So a check costs next to
    nothing when nothing happened, and a run can be checked after every single event.

    The memory of all nodes together is kept here: who led which term, what every (index, term) holds, and the
    one sequence of committed entries.
"""

from __future__ import annotations

from raft.core import Core, Entry, Leader


class InvariantViolated(AssertionError):
    """An invariant of the protocol does not hold; the message names it, the node and the evidence."""


class _Seen:
    """What one node looked like the last time."""

    __slots__ = ("commit_index", "entries", "led_term", "offset", "term", "voted_for")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.commit_index = 0
        self.offset = 0
        self.term = 0
        self.voted_for: str | None = None
        self.led_term = 0


class Invariants:
    """Checks the nodes of one cluster, event by event."""

    def __init__(self) -> None:
        self.leader_of_term: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self._committed_in: dict[int, int] = {}  # the first term in which anybody took it for committed
        self._content: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._seen: dict[str, _Seen] = {}

    def restarted(self, name: str) -> None:
        """A node lost its memory: what it held may have shrunk to what was durable."""
        self._seen.pop(name, None)

    def check(self, core: Core) -> None:
        """Raises InvariantViolated if the node's new state contradicts its own past or another node's."""
        seen = self._seen.get(core.name)
        if seen is None:
            seen = self._seen[core.name] = _Seen()
        if core.term != seen.term or core.voted_for != seen.voted_for:
            self._check_term_and_vote(core, seen)
        entries = core.log.entries
        if (
            len(entries) != len(seen.entries)
            or core.log.offset != seen.offset
            or (entries and entries[-1] is not seen.entries[-1])
        ):
            self._check_log(core, seen)
        if core.commit_index != seen.commit_index:
            self._check_commit(core, seen)
        if isinstance(core.role, Leader) and seen.led_term != core.term:
            self._check_leader(core)
            seen.led_term = core.term

    def _check_term_and_vote(self, core: Core, seen: _Seen) -> None:
        """Terms never fall, and a vote once given in a term stays given."""
        if core.term < seen.term:
            raise InvariantViolated(f"term of {core.name} fell from {seen.term} to {core.term}")
        if core.term == seen.term and seen.voted_for is not None:
            raise InvariantViolated(
                f"{core.name} changed its vote of term {core.term} from {seen.voted_for} to {core.voted_for}"
            )
        seen.term, seen.voted_for = core.term, core.voted_for

    def _check_log(self, core: Core, seen: _Seen) -> None:
        """Leader Append-Only, and Log Matching: an (index, term) has one content and one predecessor."""
        entries = core.log.entries
        if core.log.offset != seen.offset:
            del seen.entries[: core.log.offset - seen.offset]  # compacted: what is left still counts
            seen.offset = core.log.offset
        same = min(len(entries), len(seen.entries))
        while same and entries[same - 1] is not seen.entries[same - 1]:
            same -= 1
        if same < len(seen.entries) and seen.led_term == core.term:
            raise InvariantViolated(
                f"Leader Append-Only: {core.name} changed entry {same + 1} of its own log"
            )
        for at, entry in enumerate(entries[same:], same):
            prev_term = entries[at - 1].term if at else core.log.offset_term
            known = self._content.setdefault((entry.index, entry.term), (entry, prev_term))
            if known[0] != entry or known[1] != prev_term:
                raise InvariantViolated(
                    f"Log Matching: entry {entry.index} of term {entry.term} at {core.name} differs"
                )
        seen.entries[same:] = entries[same:]

    def _check_commit(self, core: Core, seen: _Seen) -> None:
        """State Machine Safety: an index is committed with one content, everywhere and for ever."""
        if core.commit_index < seen.commit_index:
            raise InvariantViolated(
                f"commit index of {core.name} fell from {seen.commit_index} to {core.commit_index}"
            )
        if core.commit_index > core.log.last_index:
            raise InvariantViolated(f"{core.name} committed {core.commit_index}, beyond the end of its log")
        # What a node has compacted already it had from others, or was checked when it committed it.
        for entry in core.log.slice(max(seen.commit_index, core.log.offset) + 1, core.commit_index):
            self._committed_in[entry.index] = min(core.term, self._committed_in.get(entry.index, core.term))
            if self.committed.setdefault(entry.index, entry) != entry:
                raise InvariantViolated(
                    f"State Machine Safety: {core.name} committed another entry {entry.index} than others did"
                )
        seen.commit_index = core.commit_index

    def _check_leader(self, core: Core) -> None:
        """Election Safety: one leader a term. Leader Completeness: it has all that was ever committed."""
        other = self.leader_of_term.setdefault(core.term, core.name)
        if other != core.name:
            raise InvariantViolated(f"Election Safety: {other} and {core.name} both lead term {core.term}")
        for index, entry in self.committed.items():
            if index <= core.log.offset or self._committed_in[index] >= core.term:
                continue  # a leader of an earlier term may lack what a later one has committed
            if core.log.term(index) != entry.term:
                raise InvariantViolated(
                    f"Leader Completeness: {core.name} leads term {core.term} without entry {index}"
                )
