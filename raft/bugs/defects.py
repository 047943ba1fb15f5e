"""The defects themselves: each class overrides what it gets wrong, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raft.api import NotLeader, Request, Response
from raft.core import (
    AppendEntries,
    Candidate,
    Core,
    Entry,
    Leader,
    Message,
    RequestVote,
    VoteReply,
)
from raft.core.progress import Progress
from raft.core.quorum import majority, reached
from raft.core.records import Saved, SaveHardState
from raft.core.roles import Follower
from raft.core.types import Index, NodeId, Term
from raft.kv import KeyValue
from raft.node import Node
from raft.sessions import Sessions


class Unguarded(Core):
    """Does not notice what the protocol rules out."""

    __slots__ = ()

    def _impossible(self, what: str) -> None:
        """Goes on."""


class AsInThePaper(Core):
    """Without PreVote, CheckQuorum and stickiness, as most of the systems were that had these bugs.

    With them such a bug is still there, and harder to reach.
    """

    __slots__ = ()

    def _lost_contact(self, role: Leader) -> bool:
        del role
        return False

    def _asks_first(self) -> bool:
        return False

    def _withholds_vote(self, request: RequestVote) -> bool:
        del request
        return False


# -- reads -----------------------------------------------------------------------------------------


class StaleRead(AsInThePaper):
    """The leader answers reads from its memory without confirming that it still leads."""

    __slots__ = ()

    def _confirmed_seq(self, role: Leader) -> int:
        return role.read_seq


class ReadBeforeOwnCommit(Core):
    """A new leader serves reads before an entry of its own term is committed."""

    __slots__ = ()

    def _can_read(self) -> bool:
        return True


class ReadRoundReused(AsInThePaper):
    """All reads of a term share one round: an answer to an earlier message confirms a later read."""

    __slots__ = ()

    def _next_seq(self, role: Leader) -> int:
        del role
        return 1


class ReadQuorumShort(AsInThePaper):
    """One answer less than a majority confirms a read."""

    __slots__ = ()

    def _confirmed_seq(self, role: Leader) -> int:
        acks = sorted((role.progress[peer].read_seq for peer in self.peers), reverse=True)
        return [role.read_seq, *acks][max(0, majority(len(self.voters)) - 2)]


# -- elections and persistent state ----------------------------------------------------------------


class VoteNotPersisted(Core):
    """A grant writes nothing; what is written later has the term without the vote."""

    __slots__ = ()

    def _hard_state(self) -> SaveHardState | None:
        waits_for_leader = self.leader is None and self.voted_for is not None
        return None if waits_for_leader else SaveHardState(self.term, None)


class TermNotPersisted(Core):
    """The term is not written down: a restarted node begins again at 0."""

    __slots__ = ()

    def _hard_state(self) -> SaveHardState | None:
        return None

    def _restored_term(self, saved: Saved) -> Term:
        del saved
        return 0


class DuplicateVoteCounted(AsInThePaper):
    """Votes are a count, not a set: a repeated reply is a second vote."""

    __slots__ = ()

    def _count_vote(self, role: Candidate, voter: NodeId) -> None:
        role.granted.append(voter)


class StaleVoteReplyCounted(AsInThePaper):
    """A vote of an earlier term counts in this one."""

    __slots__ = ()

    def _on_older_term(self, message: Message) -> None:
        if isinstance(message, VoteReply):
            self._on_vote_reply(message)
        else:
            super()._on_older_term(message)


class UptodateWrongOrder(AsInThePaper):
    """Logs are compared by length first and last term second."""

    __slots__ = ()

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        return (last_index, last_term) >= (self.log.last_index, self.log.last_term)


class UptodateSkipped(AsInThePaper):
    """Any candidate of a new term gets the vote, whatever its log lacks."""

    __slots__ = ()

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        del last_index, last_term
        return True


class VoteClearedSameTerm(AsInThePaper):
    """A candidate that steps down within its term forgets that it has voted."""

    __slots__ = ()

    def _become_follower(self, term: Term, leader: NodeId | None) -> None:
        if term == self.term and not isinstance(self.role, Follower):
            self.voted_for = None
        super()._become_follower(term, leader)


class VoteTwice(AsInThePaper):
    """A follower grants its vote to everyone who asks, in the same term too."""

    __slots__ = ()

    def _may_grant(self, request: RequestVote) -> bool:
        return isinstance(self.role, Follower) and self._up_to_date(request.last_index, request.last_term)


# -- replication and commitment --------------------------------------------------------------------


class CommitPriorTerm(AsInThePaper):
    """Counts replicas of old entries.

    What would hide that is gone too, as it was in systems that had the bug: a new leader appends no entry of its
    own term until a client asks for one, and reads wait only for what it was elected with.
    """

    __slots__ = ()

    def _may_commit(self, index: Index) -> bool:
        del index
        return True

    def _open_term(self) -> None:
        assert isinstance(self.role, Leader)
        self.role.progress[self.name].match_index = self.log.last_index

    def _can_read(self) -> bool:
        inherited, _ = self.log.last_not_above(self.log.last_index, self.term - 1)
        return self.commit_index >= inherited


class WaitsOn(Node):
    """A leader that was deposed lets its writers wait, and answers if their entries get committed."""

    def _give_up_requests(self) -> None:
        waiting, self._proposals = self._proposals, {}
        super()._give_up_requests()
        self._proposals = waiting


class AckBeforeMajority(Core):
    """A write is acknowledged, and applied, once it is on the disk of the leader."""

    __slots__ = ()

    def _quorum_index(self, role: Leader) -> Index:
        return role.progress[self.name].match_index

    def _may_commit(self, index: Index) -> bool:
        return index <= self.log.last_index


class QuorumOneShort(Core):
    """One replica less than a majority commits an entry."""

    __slots__ = ()

    def _quorum_index(self, role: Leader) -> Index:
        matches = sorted((role.progress[voter].match_index for voter in self.voters), reverse=True)
        return matches[max(0, len(matches) // 2 - 1)]


class QuorumEvenOffByOne(Core):
    """Half of an even number of nodes elects and commits."""

    __slots__ = ()

    def _election_won(self, role: Candidate) -> bool:
        return 2 * len(role.granted) >= len(self.voters)

    def _quorum_index(self, role: Leader) -> Index:
        matches = sorted((role.progress[voter].match_index for voter in self.voters), reverse=True)
        return matches[(len(matches) + 1) // 2 - 1]


class TruncateWithoutConflict(Core):
    """A follower removes everything after prev_index before it appends, conflict or not."""

    __slots__ = ()

    def _first_new(self, prev_index: Index, entries: Sequence[Entry]) -> Index | None:
        return prev_index + 1 if entries else None


class FollowerCommitsUnchecked(Core):
    """A follower takes over the commit index before it knows that the logs agree."""

    __slots__ = ()

    def _on_append_entries(self, append: AppendEntries) -> None:
        self.commit_index = max(self.commit_index, min(append.commit_index, self.log.last_index))
        super()._on_append_entries(append)


class StaleSuffixRetained(Core):
    """Takes equal indexes for equal entries: an entry that is there already is kept, whatever its term."""

    __slots__ = ()

    def _first_new(self, prev_index: Index, entries: Sequence[Entry]) -> Index | None:
        first = max(prev_index, self.log.last_index) + 1
        return first if first <= prev_index + len(entries) else None


class AckBeforeFsync(Core):
    """Votes and acknowledgements do not wait for the disk."""

    __slots__ = ()

    def _hold_until_durable(self, message: Message) -> bool:
        del message
        return False


class SyncsNowAndThen(Node):
    """The disk is synced five times a second, as servers do that call this a setting for speed."""

    _synced_us = 0

    def _sync(self) -> bool:
        now_us = self.host.now_us()
        if now_us - self._synced_us < 200_000:
            return False
        self._synced_us = now_us
        return super()._sync()


# -- clients ---------------------------------------------------------------------------------------


class RetryNotDeduped(KeyValue):
    """A retried write is applied again."""

    __slots__ = ()

    def _answered(self, request: Request) -> Response | None:
        del request
        return None


class DefiniteErrorForMaybe(Node):
    """A deposed leader reports writes that may yet be committed as certainly failed."""

    def _answer_abandoned(self) -> Response:
        return NotLeader(self.core.leader)


class NeverSyncs(Node):
    """Writes are never synced: a crash loses the log."""

    def _sync(self) -> bool:
        self._on_synced(self._written)
        return True


# -- leases, snapshots, membership ----------------------------------------------------------------------------


class PreVoteCountedAsVote(Core):
    """A candidate takes the answer to a pre-vote for a vote."""

    __slots__ = ()

    def _answers(self, role: Candidate, reply: VoteReply) -> bool:
        return role.pre <= reply.pre


class LeaseTooLong(Core):
    """The lease of a leader runs from the answer to a heartbeat, and for longer than voters keep their promise."""

    __slots__ = ()

    def _extend_lease(self, role: Leader) -> None:
        if role.sent_us and role.sent_us[0][0] <= self._confirmed_seq(role):
            role.sent_us.clear()
            role.lease_us = self.now_us + 4 * self.options.election_timeout_us_max

    def _lost_contact(self, role: Leader) -> bool:
        del role
        return False


class SessionNotInSnapshot(KeyValue):
    """A snapshot has the values but not the client sessions."""

    __slots__ = ()

    def snapshot(self) -> bytes:
        """Leaves the sessions out."""
        sessions, self.sessions = self.sessions, Sessions(1)
        data = super().snapshot()
        self.sessions = sessions
        return data


class ConfigNotRolledBack(Core):
    """A membership whose entry was removed from the log stays in force."""

    __slots__ = ()

    def _forget_configs(self, index: Index) -> bool:
        del index
        return False


class JointOneMajority(AsInThePaper):
    """While the membership is joint, a majority of the new voters decides alone."""

    __slots__ = ()

    def _reached(self, role: Leader, value_of: Callable[[Progress], int]) -> int:
        return reached([value_of(role.progress[voter]) for voter in self.voters])

    def _is_majority(self, names: Sequence[NodeId]) -> bool:
        return sum(name in self.voters for name in names) >= majority(len(self.voters))
