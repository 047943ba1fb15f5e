"""The Raft protocol as a function of events: no clock, no dice, no socket, no file.

Theory of operation
    Events come in through a few verbs: `step` (a message), `tick` (time has reached `deadline_us`), `propose`
    (a command for the log), `read` (a linearizable read) and, after each of them, `ready`, which hands out
    everything to be done: messages, records for the disk, messages that must wait for the disk, committed
    entries, reads. See `Ready` for the one legal order of doing it. Time enters as `now_us` and chance as a
    function; both belong to the driver, so the same inputs give the same outputs, byte for byte.

Where the paper is
    Figure 2, state and persistence     base
    5.1         terms                   here, `step`
    5.2, 5.4.1  leader election         elections (and PreVote, stickiness, transfer of leadership)
    5.3, 5.4.2  log replication         replication
    6           membership              membership, and `base` for what every server does
    7           compaction              snapshots
    8           reads (thesis 6.4)      reads

Every rule that can be got wrong is one small method with one decision in it (`_may_grant`, `_up_to_date`,
`_may_commit`, ...). Code that reads well is the reason; being able to seed a known bug by overriding exactly
one of them is the reward (`raft.bugs`).

A single node elects itself and commits alone:

>>> from raft.core import Core, Entry, Options
>>> core = Core("a", ["a"], None, random=lambda: 0.0, now_us=0, options=Options(pre_vote=False))
>>> core.deadline_us
150000
>>> core.tick(150_000)
>>> ready = core.ready()
>>> ready.records
[SaveHardState(term=1, voted_for='a')]
>>> ready.held
[VoteReply(src='a', dst='a', term=1, granted=True, pre=False)]
>>> core.step(ready.held[0], 151_000)  # the vote is durable
>>> core.role.name, core.propose(b"x", 151_000)
('leader', 2)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from raft.core.elections import Elections
from raft.core.membership import Membership
from raft.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    SnapshotReply,
    TimeoutNow,
    VoteReply,
)
from raft.core.reads import Reads
from raft.core.ready import Ready
from raft.core.records import Record
from raft.core.roles import Candidate, Follower, Leader
from raft.core.types import Entry, EntryKind, Index, NodeId


class Core(Membership, Elections, Reads):
    """One server of a Raft cluster.

    Args of the constructor: the node's name, the names of the first voters (none for a node that joins a
    running cluster), what the disk holds (None for a new node), and, by keyword, `random` (numbers in [0,
    1)), `now_us` and `options`.
    """

    __slots__ = ()

    _handlers: ClassVar[dict[type, str]] = {
        AppendEntries: "_on_append_entries",
        AppendReply: "_on_append_reply",
        InstallSnapshot: "_on_install_snapshot",
        ReadIndex: "_on_read_index",
        ReadIndexReply: "_on_read_index_reply",
        RequestVote: "_on_request_vote",
        SnapshotReply: "_on_snapshot_reply",
        TimeoutNow: "_on_timeout_now",
        VoteReply: "_on_vote_reply",
    }

    # -- events ------------------------------------------------------------------------------------

    def step(self, message: Message, now_us: int) -> None:
        """Takes a message from another node, or a held one from this node once it is durable."""
        self.now_us = now_us
        if message.term == self.term or self._settle_term(message):
            getattr(self, self._handlers[message.__class__])(message)

    def _settle_term(self, message: Message) -> bool:
        """What a message of another term means (section 5.1); says whether it is still to be handled."""
        if message.term < self.term:
            self._on_older_term(message)
            return False
        if isinstance(message, RequestVote):
            if self._withholds_vote(message):
                return False
            if message.pre:
                return True  # asks about a term that nobody is in yet
        elif isinstance(message, VoteReply) and message.pre and message.granted:
            return True
        self._become_follower(message.term, None)  # a newer term wins at once
        return True

    def _on_older_term(self, message: Message) -> None:
        """A request from the past is refused, so that its sender learns the term; a reply means nothing."""
        if isinstance(message, AppendEntries):
            self._reply(message, ok=False, index=message.prev_index)
        elif isinstance(message, RequestVote):
            self._send(VoteReply(self.name, message.src, self.term, granted=False, pre=message.pre))
        elif isinstance(message, InstallSnapshot):
            self._send(
                AppendReply(
                    self.name,
                    message.src,
                    self.term,
                    ok=False,
                    index=0,
                    hint_index=0,
                    hint_term=0,
                    read_seq=0,
                )
            )

    def tick(self, now_us: int) -> None:
        """Takes the passing of time; does something once `deadline_us` is reached."""
        self.now_us = now_us
        role = self.role
        if isinstance(role, Leader):
            if now_us >= self.heartbeat_us:
                self._on_heartbeat_timeout(role)
        elif now_us >= self.election_us:
            self._on_election_timeout()
        elif isinstance(role, Candidate) and now_us >= self.heartbeat_us:
            self._request_votes()

    def _on_heartbeat_timeout(self, role: Leader) -> None:
        if self._lost_contact(role):
            self._become_follower(self.term, None)
            return
        if role.transfer_to is not None and self.now_us >= role.transfer_until_us:
            role.transfer_to = None  # the target did not make it: go on
        if role.waiting_reads and self._can_read():
            self._start_round(role)
        if self.options.promotes_learners and self.config.learners:
            self._promote_learners(role)
        self._send_heartbeats()

    def propose(self, data: bytes, now_us: int) -> Index | None:
        """Appends a command, and returns its index; None where this node is not the leader, or hands over.

        The entry is this command's for certain only together with the current term.
        """
        self.now_us = now_us
        role = self.role
        if not isinstance(role, Leader) or role.transfer_to is not None:
            return None
        return self._append_own(EntryKind.COMMAND, data)

    def read(self, context: Any, now_us: int) -> bool:
        """Asks for a linearizable read, answered through `Ready.reads`; False if none is possible here."""
        self.now_us = now_us
        if isinstance(self.role, Leader):
            self._accept_read(self.role, context)
            return True
        if isinstance(self.role, Follower) and self.options.follower_reads:
            return self._ask_leader(self.role, context)
        return False

    def transfer(self, target: NodeId, now_us: int) -> bool:
        """Hands leadership over to a voter; False where that is impossible, given up after a while."""
        self.now_us = now_us
        return isinstance(self.role, Leader) and self._start_transfer(self.role, target)

    @property
    def is_changing_config(self) -> bool:
        """Whether a change of membership is under way, as far as this server knows."""
        return bool(self.config.outgoing) or self._configs[-1][0] > self.commit_index

    @property
    def uncommitted(self) -> int:
        """How many entries of the log are not known to be committed."""
        return self.log.last_index - self.commit_index

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be committed that no more should be proposed."""
        if self.uncommitted >= self.options.uncommitted_entries_max:
            return True
        return (
            isinstance(self.role, Leader)
            and self.role.uncommitted_bytes >= self.options.uncommitted_bytes_max
        )

    # -- outcome -----------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """Takes what this turn has produced; None when there is nothing to do."""
        role = self.role
        leader = role if isinstance(role, Leader) else None
        if leader is not None and (self._unsaved or leader.waiting_reads or leader.sent_us):
            self._finish_turn_as_leader(leader)
        records: Sequence[Record] = ()
        if self._unsaved or self._records or self._unsaved_hard_state:
            records = self._take_records()
        committed = self._take_committed() if self.commit_index > self._committed_out else ()
        if leader is not None:
            if leader.read_rounds and (leader.rounds_moved or committed):
                self._finish_rounds(leader)
        elif isinstance(role, Follower) and role.answered_reads:
            self._finish_asked(role)
        if not (self._messages or records or self._held or committed or self._reads):
            return None
        ready = Ready(self._messages, records, self._held, committed, self._reads, self._installed)
        self._messages, self._held, self._reads, self._installed = [], [], [], None
        return ready

    def _finish_turn_as_leader(self, role: Leader) -> None:
        """Sends what the turn has appended; counts the own log once it is durable."""
        if role.sent_us:
            self._extend_lease(role)
        if self._can_start_round(role):
            if self._lease_holds(role):
                self._read_by_lease(role)
            else:
                self._start_round(role)
                self._send_heartbeats()
        if self._unsaved:
            for peer in self.peers:
                self._replicate(peer, role.progress[peer])
            self._send(
                AppendReply(
                    self.name, self.name, self.term, ok=True, index=self.log.last_index,
                    hint_index=0, hint_term=0, read_seq=0,
                )
            )  # fmt: skip

    def _take_records(self) -> Sequence[Record]:
        self._flush_entries()
        records = self._records
        if self._unsaved_hard_state:
            self._unsaved_hard_state = False
            hard_state = self._hard_state()
            if hard_state is not None:
                records.insert(0, hard_state)  # first, so that no entry is ever saved ahead of its term
        if records:
            self._records = []
        return records

    def _take_committed(self) -> Sequence[Entry]:
        first = self._committed_out + 1
        last = min(self.commit_index, self._committed_out + self.options.committed_per_turn_max)
        self._committed_out = last
        return self.log.slice(first, last)
