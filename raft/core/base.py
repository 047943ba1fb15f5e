"""State that all parts of the core share: Figure 2's "State" box, and the outbox of the turn.

Rules of this module
    1. `term` and `voted_for` change through `_set_term` and `_record_vote` only, so that neither can change
       without being written down before the next answer.
    2. The log changes through `_append` and `_truncate_from` only, for the same reason; the membership in
       force follows the log, in both directions (section 6).
    3. Messages leave through `_send`, which asks `_hold_until_durable`: an answer is a promise, and a promise
       is made only once it would survive a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from raft.core.log import Log
from raft.core.messages import AppendEntries, InstallSnapshot, Message
from raft.core.options import Options
from raft.core.progress import Progress
from raft.core.quorum import majority, reached
from raft.core.records import Record, Saved, SaveEntries, SaveHardState, SaveSnapshot, TruncateFrom
from raft.core.roles import Follower, Leader, Role
from raft.core.types import Config, Entry, EntryKind, Index, NodeId, Snapshot, Term

_decode_config = msgspec.json.Decoder(Config).decode


class ProtocolViolation(AssertionError):
    """Something happened that the protocol rules out: the node must stop rather than make it worse."""


class Base:
    """One server's state and the few ways to change it."""

    __slots__ = (
        "_committed_out",
        "_configs",
        "_held",
        "_installed",
        "_messages",
        "_read_id",
        "_reads",
        "_records",
        "_unsaved",
        "_unsaved_hard_state",
        "commit_index",
        "config",
        "election_us",
        "heard_us",
        "heartbeat_us",
        "leader",
        "log",
        "name",
        "now_us",
        "options",
        "peers",
        "random",
        "role",
        "snapshot",
        "term",
        "voted_for",
        "voters",
    )

    def __init__(
        self,
        name: NodeId,
        members: Sequence[NodeId],
        saved: Saved | None,
        *,
        random: Callable[[], float],
        now_us: int,
        options: Options,
    ) -> None:
        saved = saved or Saved()
        self.name = name
        self.options = options
        self.random = random
        self.now_us = now_us

        self.snapshot: Snapshot | None = saved.snapshot
        covered, covered_term = (saved.snapshot.index, saved.snapshot.term) if saved.snapshot else (0, 0)
        self.log = Log(saved.entries, covered, covered_term)
        self.term: Term = self._restored_term(saved)
        self.voted_for = saved.hard_state.voted_for if self.term == saved.hard_state.term else None
        # Volatile: relearned from the leader, or by committing an entry as leader.
        self.commit_index: Index = covered
        self.role: Role = Follower()
        self.leader: NodeId | None = None

        first = saved.snapshot.config if saved.snapshot else Config(tuple(sorted(members)))
        self._configs: list[tuple[Index, Config]] = [(covered, first)]
        self._note_configs(saved.entries)
        self._adopt_config()

        self.election_us = 0
        self.heartbeat_us = 0
        # When a leader was last heard of. Before a restart the node may have promised a lease.
        self.heard_us = now_us if options.lease_reads else now_us - options.election_timeout_us_max
        self._messages: list[Message] = []
        self._held: list[Message] = []
        self._records: list[Record] = []
        self._unsaved: list[Entry] = []
        self._unsaved_hard_state = False
        self._committed_out: Index = covered
        self._reads: list[tuple[Any, Index]] = []
        self._installed: Snapshot | None = None
        # Not from 0: an answer to the node's former self must not pass for one to a new question.
        self._read_id = int(random() * (1 << 48)) if options.follower_reads else 0
        self._reset_election_timer()

    # -- persistent state --------------------------------------------------------------------------

    def _set_term(self, term: Term) -> None:
        """Enters a newer term, in which no vote has been given yet."""
        self.term = term
        self.voted_for = None
        self._unsaved_hard_state = True

    def _restored_term(self, saved: Saved) -> Term:
        """The term a restarted node is in; no entry is ever saved ahead of its term."""
        return saved.hard_state.term

    def _record_vote(self, candidate: NodeId) -> None:
        """Gives the only vote of this term (Election Safety, section 5.2)."""
        self.voted_for = candidate
        self._unsaved_hard_state = True

    def _hard_state(self) -> SaveHardState | None:
        """What is written of `term` and `voted_for`; None writes nothing."""
        return SaveHardState(self.term, self.voted_for)

    def _append(self, entries: Sequence[Entry]) -> None:
        """Adds entries to the log and to what is to be written."""
        self.log.append(entries)
        self._unsaved.extend(entries)
        if self._note_configs(entries):
            self._adopt_config()

    def _truncate_from(self, index: Index) -> None:
        """Removes entries that conflict with the leader's (5.3), and their effect on the membership."""
        if index <= self.commit_index:
            self._impossible("an entry that was committed conflicts with the leader's")
            self.commit_index = index - 1
        self._flush_entries()
        self._records.append(TruncateFrom(index))
        self.log.truncate_from(index)
        if self._forget_configs(index):
            self._adopt_config()

    def _flush_entries(self) -> None:
        if self._unsaved:
            self._records.append(SaveEntries(tuple(self._unsaved)))
            self._unsaved = []

    def _save_snapshot(self, snapshot: Snapshot) -> None:
        self._flush_entries()
        self._records.append(SaveSnapshot(snapshot))
        self.snapshot = snapshot

    # -- membership in force -----------------------------------------------------------------------

    def _note_configs(self, entries: Sequence[Entry]) -> bool:
        """A server uses the latest configuration in its log, committed or not (section 6)."""
        found = False
        for entry in entries:
            if entry.kind is EntryKind.CONFIG:
                self._configs.append((entry.index, _decode_config(entry.data)))
                found = True
        return found

    def _forget_configs(self, index: Index) -> bool:
        """A configuration whose entry is removed is in force no longer."""
        found = False
        while self._configs[-1][0] >= index and len(self._configs) > 1:
            self._configs.pop()
            found = True
        return found

    def _config_at(self, index: Index) -> Config:
        """The configuration in force after the entry at `index`."""
        return next(config for at, config in reversed(self._configs) if at <= index)

    def _adopt_config(self) -> None:
        self.config = self._configs[-1][1]
        self.voters: tuple[NodeId, ...] = self.config.voters
        self.peers: tuple[NodeId, ...] = tuple(name for name in self.config.members if name != self.name)
        self._config_changed()

    @property
    def config_index(self) -> Index:
        """The entry that put the membership in force, or the snapshot's; 0 for the first one."""
        return self._configs[-1][0]

    def _config_changed(self) -> None:
        """A hook for the leader, who keeps track of every member."""

    def _may_campaign(self) -> bool:
        """Whether this node is a voter."""
        return self.name in self.voters or self.name in self.config.outgoing

    def _reached(self, role: Leader, value_of: Callable[[Progress], int]) -> int:
        """The largest number a majority has reached; in a joint configuration, both (section 6)."""
        progress_of = role.progress.__getitem__
        found = reached(map(value_of, map(progress_of, self.voters)))
        if self.config.outgoing:
            found = min(found, reached(map(value_of, map(progress_of, self.config.outgoing))))
        return found

    def _new_seq(self, role: Leader, seq: int) -> None:
        """Begins a round of confirmation; the leader confirms it to itself at once."""
        role.read_seq = seq
        role.progress[self.name].read_seq = seq
        role.rounds_moved = True

    def _is_majority(self, names: Sequence[NodeId]) -> bool:
        """Whether these are a majority; in a joint configuration, of both (section 6)."""
        outgoing = self.config.outgoing
        return sum(name in self.voters for name in names) >= majority(len(self.voters)) and (
            not outgoing or sum(name in outgoing for name in names) >= majority(len(outgoing))
        )

    # -- messages and timers -----------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        (self._held if self._hold_until_durable(message) else self._messages).append(message)

    def _hold_until_durable(self, message: Message) -> bool:
        """Whether a message has to wait for the disk.

        Replies are promises, and a candidate's request rests on its log and on its own vote. Only what a
        leader replicates may overtake its own disk: it counts its own log separately, once that is durable
        (thesis 10.2.1).
        """
        return not isinstance(message, (AppendEntries, InstallSnapshot))

    def _reset_election_timer(self) -> None:
        """Draws a new election timeout, afresh each time, so that split votes do not repeat (section 5.2)."""
        low, high = self.options.election_timeout_us_min, self.options.election_timeout_us_max
        self.election_us = self.now_us + low + int(self.random() * (high - low))

    # -- roles -------------------------------------------------------------------------------------

    def _become_follower(self, term: Term, leader: NodeId | None) -> None:
        """Steps down, or stays down, in `term`. A vote already given in this term stays given."""
        if term > self.term:
            self._set_term(term)
        if not isinstance(self.role, Follower):
            if isinstance(self.role, Leader):
                self._reset_election_timer()
            self.role = Follower()
        elif self.leader != leader:
            self.role.asked_reads.clear()  # the next leader knows nothing of them
        self.leader = leader

    @property
    def deadline_us(self) -> int:
        """When `tick` must be called next, if nothing happens before."""
        role = self.role
        if role.__class__ is Follower:
            return self.election_us
        if isinstance(role, Leader):
            return self.heartbeat_us
        return min(self.election_us, self.heartbeat_us)

    # -- seams: what one part of the core asks of another ------------------------------------------

    def _become_leader(self) -> None:
        raise NotImplementedError

    def _send_snapshot(self, peer: NodeId, progress: Progress) -> None:
        raise NotImplementedError

    def _finish_config_change(self) -> None:
        raise NotImplementedError

    def _finish_transfer(self, role: Leader) -> None:
        raise NotImplementedError

    def _impossible(self, what: str) -> None:
        """Something that the protocol rules out has happened."""
        raise ProtocolViolation(
            f"{self.name}, {self.role.name} of term {self.term}: {what}; this is a bug, the node stops here"
        )
