"""What must hold in every state a cluster can reach: Figure 3 of the paper, and what follows from it.

Theory of operation
    `Invariants.check(core)` is called for a node after each of its events, and looks only at what has changed
    since the last call: new entries, a new term, a new role, a higher commit index. So a check costs next to
    nothing when nothing happened, and a run can be checked after every single event.

    The memory of all nodes together is kept here: who led which term, what every (index, term) holds, the one
    sequence of committed entries, and the last things that happened, which a violation tells.

    Election Safety, Leader Append-Only, Log Matching, Leader Completeness and State Machine Safety are those of
    Figure 3. Monotonic Term, Monotonic Vote and Monotonic Commit are what Figure 2 says of one server: a term never
    falls, a vote stays given in its term, and what is committed stays so. Membership is of section 6: a server uses
    the latest configuration in its log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from raft.core import Core, Entry, EntryKind, Leader

_EVENTS_KEPT = 12
CONFIG = EntryKind.CONFIG


class InvariantViolated(AssertionError):
    """An invariant of the protocol does not hold.

    Attributes:
        property_name: which one.
        nodes: the nodes whose states contradict it.
        index: the entry that shows it, or 0 if it is not about one.
        before: what happened before it, in words, oldest first.
    """

    def __init__(
        self, property_name: str, sentence: str, nodes: Sequence[str], index: int, before: Sequence[str]
    ) -> None:
        super().__init__(f"{property_name}: {sentence}")
        self.property_name = property_name
        self.nodes = tuple(nodes)
        self.index = index
        self.before = tuple(before)


class _Seen:
    """What one node looked like the last time."""

    __slots__ = ("commit_index", "entries", "led_term", "offset", "role", "term", "voted_for")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.commit_index = 0
        self.offset = 0
        self.role = "follower"
        self.term = 0
        self.voted_for: str | None = None
        self.led_term = 0


class Invariants:
    """Checks the nodes of one cluster, event by event. `now_us`, if given, dates what is told."""

    def __init__(self, now_us: Callable[[], int] | None = None) -> None:
        self.leader_of_term: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self._last_committed = 0
        self._committed_by: dict[int, tuple[int, str]] = {}  # the first term in which it was, and who did
        self._content: dict[tuple[int, int], tuple[Entry, int, str]] = {}
        self._seen: dict[str, _Seen] = {}
        self._now_us = now_us
        self._events: deque[tuple[int, str, str, int]] = deque(maxlen=_EVENTS_KEPT)

    def restarted(self, name: str) -> None:
        """A node lost its memory: what it held may have shrunk to what was durable."""
        self._seen.pop(name, None)
        self._note(name, "started", 0)

    def check(self, core: Core) -> None:
        """Raises InvariantViolated if the node's new state contradicts its own past or another node's."""
        seen = self._seen.get(core.name)
        if seen is None:
            seen = self._seen[core.name] = _Seen()
        if core.term != seen.term or core.voted_for != seen.voted_for or core.role.name != seen.role:
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

    def _note(self, name: str, what: str, number: int) -> None:
        self._events.append((self._now_us() if self._now_us else 0, name, what, number))

    def _violated(self, property_name: str, sentence: str, *nodes: str, index: int = 0) -> InvariantViolated:
        before = [
            (f"{at_us / 1e6:.3f} s: " if self._now_us else "")
            + f"{name} {what}"
            + (f" {number}" * bool(number))
            for at_us, name, what, number in self._events
        ]
        return InvariantViolated(property_name, sentence, nodes, index, before)

    def _check_term_and_vote(self, core: Core, seen: _Seen) -> None:
        """Terms never fall, and a vote once given in a term stays given."""
        name = core.name
        if core.term < seen.term:
            raise self._violated(
                "Monotonic Term", f"that of {name} fell from {seen.term} to {core.term}", name
            )
        if core.term == seen.term and seen.voted_for not in (None, core.voted_for):
            raise self._violated(
                "Monotonic Vote",
                f"{name} changed its vote of term {core.term} from {seen.voted_for} to {core.voted_for}",
                name,
            )
        if core.term != seen.term or core.role.name != seen.role:
            self._note(name, f"is {core.role.name} of term", core.term)
        if core.voted_for != seen.voted_for and core.voted_for not in (None, name):
            self._note(name, f"votes for {core.voted_for} in term", core.term)
        seen.term, seen.voted_for, seen.role = core.term, core.voted_for, core.role.name

    def _check_log(self, core: Core, seen: _Seen) -> None:
        """Leader Append-Only, and Log Matching: an (index, term) has one content and one predecessor."""
        name, entries, offset = core.name, core.log.entries, core.log.offset
        if offset != seen.offset:
            del seen.entries[: offset - seen.offset]  # compacted: what is left still counts
            seen.offset = offset
            self._note(name, "forgets its log up to", offset)
        same = min(len(entries), len(seen.entries))
        while same and entries[same - 1] is not seen.entries[same - 1]:
            same -= 1
        removed = same < len(seen.entries)
        if removed:
            index = offset + same + 1
            if seen.led_term == core.term:
                sentence = f"{name} changed entry {index} of its own log, as leader of term {core.term}"
                raise self._violated("Leader Append-Only", sentence, name, index=index)
            self._note(name, "removes entries from", index)
        new = entries[same:]
        prev_term = entries[same - 1].term if same else core.log.offset_term
        content = self._content
        configures = removed
        for entry in new:
            known = content.setdefault((entry.index, entry.term), (entry, prev_term, name))
            if (known[0] is not entry and known[0] != entry) or known[1] != prev_term:
                raise self._unmatched(entry, prev_term, name, known)
            prev_term = entry.term
            configures = configures or entry.kind is CONFIG
        if configures:
            self._check_membership(core)
        seen.entries[same:] = new

    def _unmatched(
        self, entry: Entry, prev_term: int, name: str, known: tuple[Entry, int, str]
    ) -> InvariantViolated:
        return self._violated(
            "Log Matching",
            f"entry {entry.index} of term {entry.term} at {name} is not what {known[2]} has there"
            + (f", or follows on term {prev_term}, not {known[1]}" if known[1] != prev_term else ""),
            known[2],
            name,
            index=entry.index,
        )

    def _check_membership(self, core: Core) -> None:
        changes = [entry.index for entry in core.log.entries if entry.kind is EntryKind.CONFIG]
        latest = core.config_index
        if (changes and latest != changes[-1]) or latest > core.log.last_index:
            raise self._violated(
                "Membership",
                f"{core.name} uses the configuration of entry {latest}, and the latest in its log is "
                f"{changes[-1] if changes else 'an earlier one'}",
                core.name,
                index=latest,
            )

    def _check_commit(self, core: Core, seen: _Seen) -> None:
        """State Machine Safety: an index is committed with one content, everywhere and for ever."""
        name = core.name
        if core.commit_index < seen.commit_index:
            raise self._violated(
                "Monotonic Commit",
                f"the index of {name} fell from {seen.commit_index} to {core.commit_index}",
                name,
                index=core.commit_index + 1,
            )
        if core.commit_index > core.log.last_index:
            raise self._violated(
                "Monotonic Commit",
                f"{name} committed {core.commit_index}, beyond the end of its log at {core.log.last_index}",
                name,
                index=core.commit_index,
            )
        self._note(name, "committed up to", core.commit_index)
        # What a node has compacted already it had from others, or was checked when it committed it.
        for entry in core.log.slice(max(seen.commit_index, core.log.offset) + 1, core.commit_index):
            index = entry.index
            if self.committed.get(index) is not entry or core.term < self._committed_by[index][0]:
                self._check_committed(core, entry)
        seen.commit_index = core.commit_index
        self._last_committed = max(self._last_committed, core.commit_index)

    def _check_committed(self, core: Core, entry: Entry) -> None:
        index, name = entry.index, core.name
        known = self.committed.setdefault(index, entry)
        term, by = self._committed_by.setdefault(index, (core.term, name))
        if core.term < term:
            self._committed_by[index] = (core.term, name)
        if known is not entry and known != entry:
            raise self._violated(
                "State Machine Safety",
                f"{name} committed entry {index} of term {entry.term}, where {by} had committed one of term "
                f"{known.term}",
                by,
                name,
                index=index,
            )

    def _check_leader(self, core: Core) -> None:
        """Election Safety: one leader a term. Leader Completeness: it has all that was ever committed."""
        name, term = core.name, core.term
        other = self.leader_of_term.setdefault(term, name)
        if other != name:
            raise self._violated("Election Safety", f"{other} and {name} both lead term {term}", other, name)
        for index in range(core.log.offset + 1, self._last_committed + 1):
            entry = self.committed.get(index)
            if entry is None:
                continue  # nobody had it any more when it was looked for
            committed_in, by = self._committed_by[index]
            # A leader may lack what a leader of a later term has committed by now.
            if committed_in < term and core.log.term(index) != entry.term:
                raise self._violated(
                    "Leader Completeness",
                    f"{name} leads term {term} without entry {index}, which {by} committed in term {committed_in}",
                    by,
                    name,
                    index=index,
                )
