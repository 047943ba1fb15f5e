"""State that all parts of the core share: Figure 2's "State" box, and the outbox of the turn.

Rules of this module
    1. `term` and `voted_for` change through `_set_term` and `_record_vote` only, so that neither can change
       without being written down before the next answer.
    2. The log changes through `_append` and `_truncate_from` only, for the same reason.
    3. Messages leave through `_send`, which asks `_hold_until_durable`: an answer is a promise, and a promise
       is made only once it would survive a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from raft.core.log import Log
from raft.core.messages import AppendEntries, Message
from raft.core.options import Options
from raft.core.records import Record, Saved, SaveEntries, SaveHardState, TruncateFrom
from raft.core.roles import Candidate, Follower, Leader, Role
from raft.core.types import Entry, Index, NodeId, Term


class ProtocolViolation(AssertionError):
    """Something happened that the protocol rules out: the node must stop rather than make it worse."""


class Base:
    """One server's state and the few ways to change it."""

    __slots__ = (
        "_committed_out",
        "_held",
        "_messages",
        "_reads",
        "_records",
        "_unsaved",
        "_unsaved_hard_state",
        "commit_index",
        "election_us",
        "heartbeat_us",
        "leader",
        "log",
        "name",
        "now_us",
        "options",
        "peers",
        "random",
        "role",
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
        self.voters: tuple[NodeId, ...] = tuple(sorted({*members, name}))
        self.peers: tuple[NodeId, ...] = tuple(voter for voter in self.voters if voter != name)
        self.options = options
        self.random = random
        self.now_us = now_us

        self.log = Log(saved.entries)
        self.term: Term = self._restored_term(saved)
        self.voted_for = saved.hard_state.voted_for if self.term == saved.hard_state.term else None
        self.commit_index: Index = (
            0  # volatile: relearned from the leader, or by committing an entry as leader
        )
        self.role: Role = Follower()
        self.leader: NodeId | None = None

        self.election_us = 0
        self.heartbeat_us = 0
        self._messages: list[Message] = []
        self._held: list[Message] = []
        self._records: list[Record] = []
        self._unsaved: list[Entry] = []
        self._unsaved_hard_state = False
        self._committed_out: Index = 0
        self._reads: list[tuple[Any, Index]] = []
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

    def _truncate_from(self, index: Index) -> None:
        """Removes entries that conflict with the leader's (section 5.3)."""
        if index <= self.commit_index:
            self._impossible("an entry that was committed conflicts with the leader's")
            self.commit_index = index - 1
        self._flush_entries()
        self._records.append(TruncateFrom(index))
        self.log.truncate_from(index)

    def _flush_entries(self) -> None:
        if self._unsaved:
            self._records.append(SaveEntries(tuple(self._unsaved)))
            self._unsaved = []

    # -- messages and timers -----------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        (self._held if self._hold_until_durable(message) else self._messages).append(message)

    def _hold_until_durable(self, message: Message) -> bool:
        """Whether a message has to wait for the disk.

        Replies are promises, and a candidate's request rests on its log and on its own vote. Only a leader's
        AppendEntries may overtake its own disk: it counts its own log separately, once that is durable
        (thesis 10.2.1).
        """
        return not isinstance(message, AppendEntries)

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
        self.leader = leader

    @property
    def deadline_us(self) -> int:
        """When `tick` must be called next, if nothing happens before."""
        role = self.role
        if isinstance(role, Leader):
            return self.heartbeat_us
        if isinstance(role, Candidate):
            return min(self.election_us, self.heartbeat_us)
        return self.election_us

    def _impossible(self, what: str) -> None:
        """Something that the protocol rules out has happened."""
        raise ProtocolViolation(
            f"{self.name}, {self.role.name} of term {self.term}: {what}; this is a bug, the node stops here"
        )
