"""Log replication: section 5.3, with the commitment rule of section 5.4.2."""

from __future__ import annotations

from collections.abc import Sequence

from raft.core.base import Base
from raft.core.messages import AppendEntries, AppendReply
from raft.core.progress import Progress
from raft.core.quorum import reached
from raft.core.roles import Follower, Leader
from raft.core.types import Entry, EntryKind, Index, NodeId


class Replication(Base):
    """What a leader sends, what a follower keeps, and when it is committed."""

    __slots__ = ()

    # -- leader ------------------------------------------------------------------------------------

    def _become_leader(self) -> None:
        """Reinitialises `next_index` and `match_index`, and opens the term with an entry of its own."""
        next_index = self.log.last_index + 1
        self.role = Leader({voter: Progress(next_index) for voter in self.voters})
        self.leader = self.name
        self._open_term()
        self._send_heartbeats()

    def _open_term(self) -> None:
        """Appends a no-op: older entries, and reads, wait for one of this term (sections 5.4.2 and 8)."""
        self._append_own(EntryKind.NOOP, b"")

    def _append_own(self, kind: EntryKind, data: bytes) -> Index:
        index = self.log.last_index + 1
        self._append((Entry(index, self.term, kind, data),))
        return index

    def _send_heartbeats(self) -> None:
        """Sends AppendEntries to everybody, with entries where the window allows."""
        assert isinstance(self.role, Leader)
        self.heartbeat_us = self.now_us + self.options.heartbeat_us
        for peer in self.peers:
            progress = self.role.progress[peer]
            progress.probe_sent = False  # its answer may be lost
            if not self._replicate(peer, progress):
                self._send_append(peer, progress, 0)

    def _replicate(self, peer: NodeId, progress: Progress) -> bool:
        """Sends the entries that `peer` lacks, as many as the window allows; says whether it sent any."""
        sent = False
        while progress.next_index <= self.log.last_index and progress.may_send(
            self.options.inflight_entries_max
        ):
            self._send_append(peer, progress, self.options.entries_per_append_max)
            sent = True
        return sent

    def _send_append(self, peer: NodeId, progress: Progress, count_max: int) -> None:
        assert isinstance(self.role, Leader)
        prev_index = progress.next_index - 1
        prev_term = self.log.term(prev_index)
        assert prev_term is not None, "a leader's next_index is never beyond the end of its log"
        last_index = min(prev_index + count_max, self.log.last_index)
        entries = self.log.slice(prev_index + 1, last_index) if last_index > prev_index else ()
        self._send(
            AppendEntries(
                self.name,
                peer,
                self.term,
                prev_index,
                prev_term,
                self.commit_index,
                self.role.read_seq,
                entries,
            )
        )
        progress.sent(last_index)

    def _on_append_reply(self, reply: AppendReply) -> None:
        role = self.role
        if not isinstance(role, Leader) or reply.src not in role.progress:
            return
        progress = role.progress[reply.src]
        progress.read_seq = max(progress.read_seq, reply.read_seq)
        if reply.ok:
            if progress.accepted(reply.index):
                self._advance_commit(role)
        else:
            try_index, _ = self.log.last_not_above(reply.hint_index, reply.hint_term)
            progress.rejected(reply.index, try_index)
        if reply.src != self.name:
            self._replicate(reply.src, progress)

    def _advance_commit(self, role: Leader) -> None:
        """Commits what a majority has, as Figure 2's last rule for leaders says."""
        index = self._quorum_index(role)
        if index > self.commit_index and self._may_commit(index):
            self.commit_index = index

    def _quorum_index(self, role: Leader) -> Index:
        """The last entry that a majority holds durably."""
        return reached([role.progress[voter].match_index for voter in self.voters])

    def _may_commit(self, index: Index) -> bool:
        """Only an entry of the current term is committed by counting; earlier ones with it (Figure 8)."""
        return self.log.term(index) == self.term

    # -- follower ----------------------------------------------------------------------------------

    def _on_append_entries(self, append: AppendEntries) -> None:
        if isinstance(self.role, Leader):
            self._impossible("another leader of the same term")
        if self.role.__class__ is not Follower or self.leader != append.src:
            self._become_follower(append.term, append.src)
        self._reset_election_timer()
        if self._log_matches(append):
            self._accept(append.prev_index, append.entries)
            self._follow_commit(append)
            self._reply(append, ok=True, index=self._acked_index(append))
        else:
            self._reply(append, ok=False, index=append.prev_index)

    def _log_matches(self, append: AppendEntries) -> bool:
        """The consistency check: the log has the entry before the new ones, in the same term."""
        return self.log.term(append.prev_index) == append.prev_term

    def _accept(self, prev_index: Index, entries: Sequence[Entry]) -> None:
        """Appends what is new; only a real conflict removes anything, for messages come late and twice."""
        conflict = self._first_new(prev_index, entries)
        if conflict is None:
            return
        if conflict <= self.log.last_index:
            self._truncate_from(conflict)
        self._append(entries[conflict - prev_index - 1 :])

    def _first_new(self, prev_index: Index, entries: Sequence[Entry]) -> Index | None:
        """The index of the first entry that the log lacks or has in another term."""
        del prev_index
        for entry in entries:
            if self.log.term(entry.index) != entry.term:
                return entry.index
        return None

    def _follow_commit(self, append: AppendEntries) -> None:
        """Commits what the leader has, but only as far as this message proves the logs equal."""
        index = min(append.commit_index, append.prev_index + len(append.entries))
        self.commit_index = max(self.commit_index, index)

    def _acked_index(self, append: AppendEntries) -> Index:
        """How far this message proves the logs equal: never further, whatever else the log holds."""
        return append.prev_index + len(append.entries)

    def _reply(self, append: AppendEntries, *, ok: bool, index: Index) -> None:
        hint_index, hint_term = (0, 0) if ok else self.log.last_not_above(index, append.prev_term)
        self._send(
            AppendReply(self.name, append.src, self.term, ok, index, hint_index, hint_term, append.read_seq)
        )
