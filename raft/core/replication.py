"""Log replication: section 5.3, with the commitment rule of section 5.4.2."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from raft.core.base import Base
from raft.core.messages import AppendEntries, AppendReply, InstallSnapshot
from raft.core.progress import Progress
from raft.core.roles import Follower, Leader
from raft.core.types import Entry, EntryKind, Index, NodeId

_match_index = attrgetter("match_index")
_heard_us = attrgetter("heard_us")


class Replication(Base):
    """What a leader sends, what a follower keeps, and when it is committed."""

    __slots__ = ()

    # -- leader ------------------------------------------------------------------------------------

    def _become_leader(self) -> None:
        """Reinitialises `next_index` and `match_index`, and opens the term with an entry of its own."""
        next_index = self.log.last_index + 1
        members = (self.name, *self.peers)
        self.role = Leader({member: Progress(next_index, self.now_us) for member in members})
        self.leader = self.name
        self._open_term()
        self._send_heartbeats()

    def _open_term(self) -> None:
        """Appends a no-op: older entries, and reads, wait for one of this term (sections 5.4.2 and 8)."""
        self._append_own(EntryKind.NOOP, b"")

    def _append_own(self, kind: EntryKind, data: bytes) -> Index:
        index = self.log.last_index + 1
        assert isinstance(self.role, Leader), "nobody else appends of its own accord"
        self.role.uncommitted_bytes += len(data)
        self._append((Entry(index, self.term, kind, data),))
        return index

    def _send_heartbeats(self) -> None:
        """Sends AppendEntries to everybody, with entries where the window allows."""
        role = self.role
        assert isinstance(role, Leader)
        self.heartbeat_us = self.now_us + self.options.heartbeat_us
        if self.options.lease_reads:
            self._new_seq(role, role.read_seq + 1)
            role.sent_us.append((role.read_seq, self.now_us))
        for peer in self.peers:
            progress = role.progress[peer]
            progress.probe_sent = False  # its answer may be lost
            if not self._replicate(peer, progress):
                self._send_append(peer, progress, 0)

    def _replicate(self, peer: NodeId, progress: Progress) -> bool:
        """Sends the entries that `peer` lacks, as many as the window allows; says whether it sent any."""
        sent = False
        options = self.options
        while progress.next_index <= self.log.last_index and progress.may_send(
            options.inflight_appends_max, options.inflight_bytes_max
        ):
            self._send_append(peer, progress, options.entries_per_append_max)
            sent = True
        return sent

    def _send_append(self, peer: NodeId, progress: Progress, count_max: int) -> None:
        role = self.role
        assert isinstance(role, Leader)
        prev_index = progress.next_index - 1
        prev_term = self.log.term(prev_index)
        if prev_term is None:
            self._send_snapshot(peer, progress)
            return
        entries: tuple[Entry, ...] = ()
        size = 0
        if count_max and prev_index < self.log.last_index:
            entries, size = self.log.batch(prev_index + 1, count_max, self.options.bytes_per_append_max)
        self._send(
            AppendEntries(
                self.name, peer, self.term, prev_index, prev_term, self.commit_index, role.read_seq, entries
            )
        )
        progress.sent(prev_index + len(entries), size)

    def _on_append_reply(self, reply: AppendReply) -> None:
        role = self.role
        if not isinstance(role, Leader) or reply.src not in role.progress:
            return
        progress = role.progress[reply.src]
        progress.heard_us = self.now_us
        self._hear_read_seq(role, progress, reply.read_seq)
        if reply.ok:
            if progress.accepted(reply.index):
                if reply.index > self.commit_index:
                    self._advance_commit(role)
                self._finish_transfer(role)
        elif progress.snapshot is None:
            try_index, _ = self.log.last_not_above(reply.hint_index, reply.hint_term)
            progress.rejected(reply.index, try_index)
        if progress.next_index <= self.log.last_index and reply.src != self.name and self.role is role:
            self._replicate(reply.src, progress)

    def _hear_read_seq(self, role: Leader, progress: Progress, read_seq: int) -> None:
        if read_seq > progress.read_seq:
            progress.read_seq = read_seq
            role.rounds_moved = True

    def _advance_commit(self, role: Leader) -> None:
        """Commits what a majority has, as Figure 2's last rule for leaders says."""
        index = self._quorum_index(role)
        if index > self.commit_index and self._may_commit(index):
            for entry in self.log.slice(max(self.commit_index, self.log.offset) + 1, index):
                if entry.term == self.term:
                    role.uncommitted_bytes -= len(entry.data)
            self.commit_index = index
            self._finish_config_change()

    def _quorum_index(self, role: Leader) -> Index:
        """The last entry that a majority holds durably."""
        return self._reached(role, _match_index)

    def _may_commit(self, index: Index) -> bool:
        """Only an entry of the current term is committed by counting; earlier ones with it (Figure 8)."""
        return self.log.term(index) == self.term

    def _lost_contact(self, role: Leader) -> bool:
        """Whether no majority has answered for a whole election timeout (CheckQuorum, thesis 6.2)."""
        if not self.options.check_quorum:
            return False
        role.progress[self.name].heard_us = self.now_us
        return self.now_us - self._reached(role, _heard_us) > self.options.election_timeout_us_max

    # -- follower ----------------------------------------------------------------------------------

    def _on_append_entries(self, append: AppendEntries) -> None:
        self._hear_leader(append)
        if append.prev_index < self.log.offset:
            # What is compacted is committed, and what is committed is the same everywhere.
            self._reply(append, ok=True, index=self.commit_index)
        elif self._log_matches(append):
            if append.entries:
                self._accept(append.prev_index, append.entries)
            self._follow_commit(append)
            self._reply(append, ok=True, index=self._acked_index(append))
        else:
            self._reply(append, ok=False, index=append.prev_index)

    def _hear_leader(self, message: AppendEntries | InstallSnapshot) -> None:
        """There is a leader of this term: follow it, and do not campaign for a while."""
        if isinstance(self.role, Leader):
            self._impossible("another leader of the same term")
        if self.role.__class__ is not Follower or self.leader != message.src:
            self._become_follower(message.term, message.src)
        self.heard_us = self.now_us
        self._reset_election_timer()

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
        index = append.commit_index
        if index > self.commit_index:
            self.commit_index = max(self.commit_index, min(index, append.prev_index + len(append.entries)))

    def _acked_index(self, append: AppendEntries) -> Index:
        """How far this message proves the logs equal: never further, whatever else the log holds."""
        return append.prev_index + len(append.entries)

    def _reply(self, append: AppendEntries, *, ok: bool, index: Index) -> None:
        hint_index, hint_term = (0, 0) if ok else self.log.last_not_above(index, append.prev_term)
        self._send(
            AppendReply(self.name, append.src, self.term, ok, index, hint_index, hint_term, append.read_seq)
        )
