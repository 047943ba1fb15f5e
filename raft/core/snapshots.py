"""Log compaction: section 7.

The state machine is the driver's, so the driver decides when to compact and hands in the bytes
(`Core.compact`). A snapshot travels in chunks, one at a time, each named by the snapshot's index and its
place; a chunk that does not continue what has arrived is answered with how much has. Half a snapshot is kept
in memory only: after a crash the leader starts again.
"""

from __future__ import annotations

from raft.core.messages import AppendReply, InstallSnapshot, SnapshotReply
from raft.core.progress import Progress
from raft.core.replication import Replication
from raft.core.roles import Follower, Leader
from raft.core.types import Index, NodeId, Snapshot


class Snapshots(Replication):
    """How the log is cut, and how a follower that needs what was cut is served."""

    __slots__ = ()

    def compact(self, index: Index, data: bytes) -> None:
        """Takes the state machine's state after the entry at `index`, and drops the log before it.

        Entries a little older stay in memory, so that followers only slightly behind need no snapshot.
        """
        assert index <= self._committed_out, "a snapshot covers what was handed out as committed, and no more"
        term = self.log.term(index)
        if term is None or (self.snapshot is not None and index <= self.snapshot.index):
            return  # a snapshot from the leader was there first
        self._save_snapshot(Snapshot(index, term, self._config_at(index), data))
        self.log.compact(self._first_kept(index) - 1)
        self._drop_old_configs(index)

    def _first_kept(self, index: Index) -> Index:
        """The first entry that stays in memory: a few entries behind a snapshot, and of large ones fewer."""
        log, options = self.log, self.options
        first, size = index + 1, 0
        while first > max(log.offset, index - options.snapshot_trailing) + 1:
            size += len(log.entries[first - 2 - log.offset].data)
            if size > options.snapshot_trailing_bytes:
                break
            first -= 1
        return first

    def _drop_old_configs(self, index: Index) -> None:
        while len(self._configs) > 1 and self._configs[1][0] <= index:
            del self._configs[0]

    # -- leader ------------------------------------------------------------------------------------

    def _send_snapshot(self, peer: NodeId, progress: Progress) -> None:
        """Sends the chunk that is due; a snapshot once begun is sent to its end."""
        if progress.snapshot is None:
            progress.snapshot = self.snapshot
            progress.snapshot_offset = 0
        snapshot = progress.snapshot
        assert snapshot is not None, "what is not in the log is in a snapshot"
        assert isinstance(self.role, Leader)
        start = progress.snapshot_offset
        self._send(
            InstallSnapshot(
                self.name,
                peer,
                self.term,
                snapshot.index,
                snapshot.term,
                snapshot.config,
                len(snapshot.data),
                start,
                snapshot.data[start : start + self.options.snapshot_chunk_bytes],
                self.role.read_seq,
            )
        )
        progress.probing = True
        progress.probe_sent = True

    def _on_snapshot_reply(self, reply: SnapshotReply) -> None:
        role = self.role
        if not isinstance(role, Leader) or reply.src not in role.progress:
            return
        progress = role.progress[reply.src]
        progress.heard_us = self.now_us
        self._hear_read_seq(role, progress, reply.read_seq)
        if progress.snapshot is None or progress.snapshot.index != reply.index:
            return
        if reply.received != progress.snapshot_offset or not progress.probe_sent:
            progress.snapshot_offset = min(reply.received, len(progress.snapshot.data))
            self._send_snapshot(reply.src, progress)

    # -- follower ----------------------------------------------------------------------------------

    def _on_install_snapshot(self, chunk: InstallSnapshot) -> None:
        self._hear_leader(chunk)
        role = self.role
        assert isinstance(role, Follower)
        if chunk.index <= self.commit_index:
            self._have_snapshot(chunk, self.commit_index)  # the log has it all, and it is the same everywhere
            return
        self._take_chunk(role, chunk)
        if len(role.partial) < chunk.size:
            received = len(role.partial)
            self._send(SnapshotReply(self.name, chunk.src, self.term, chunk.index, received, chunk.read_seq))
            return
        self._install(Snapshot(chunk.index, chunk.index_term, chunk.config, bytes(role.partial)))
        role.partial = bytearray()
        role.partial_index = 0
        self._have_snapshot(chunk, chunk.index)

    def _take_chunk(self, role: Follower, chunk: InstallSnapshot) -> None:
        """Adds a chunk if it continues what has arrived of the very same snapshot, from the same leader."""
        if (role.partial_index, role.partial_term) != (chunk.index, chunk.term):
            role.partial = bytearray()
            role.partial_index, role.partial_term = chunk.index, chunk.term
        if chunk.offset == len(role.partial):
            role.partial += chunk.data

    def _install(self, snapshot: Snapshot) -> None:
        """Figure 13, steps 6 to 8: keeps what follows the snapshot, or drops the whole log."""
        if self._keeps_suffix(snapshot):
            self.log.compact(max(self.log.offset, snapshot.index))
            self._drop_old_configs(snapshot.index)
        else:
            self._unsaved = []
            self.log.restart_at(snapshot.index, snapshot.term)
            self._configs = [(snapshot.index, snapshot.config)]
        self._save_snapshot(snapshot)
        self._adopt_config()
        self.commit_index = snapshot.index
        self._committed_out = snapshot.index
        self._installed = snapshot

    def _keeps_suffix(self, snapshot: Snapshot) -> bool:
        """Whether the log has the snapshot's last entry, so that what follows it is of the same history."""
        return self.log.term(snapshot.index) == snapshot.term

    def _have_snapshot(self, chunk: InstallSnapshot, index: Index) -> None:
        self._send(
            AppendReply(
                self.name, chunk.src, self.term, ok=True, index=index,
                hint_index=0, hint_term=0, read_seq=chunk.read_seq,
            )
        )  # fmt: skip
