"""Known bugs of real Raft systems, as values that a test run can switch on.

Theory of operation
    The core, the node and the state machine keep every decision in a small method of its own. A bug is a
    subclass that overrides one of them (and, where real systems with the bug lacked the rule that would hide
    it, that rule too). `assemble(names)` makes a node class with any set of them. The code under test has no
    `if bug`.

    A core with a bug in it does not stop at what the protocol rules out (`_impossible`): the systems that had
    these bugs did not notice either, and it is the checkers that are to notice.

`breaks` uses: LW lost write, SR stale read, SB two leaders of one term, DV diverging replicas, DU a write
applied twice or one that was reported failed, LV liveness.
`needs` uses: P partition, C crash, R restart of all, D delay, reordering, duplicates or loss, Z pause, E an
even number of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from raft.api import NotLeader, Request, Response
from raft.core import AppendEntries, Candidate, Core, Entry, Leader, Message, RequestVote, VoteReply
from raft.core.quorum import majority
from raft.core.records import Saved, SaveHardState
from raft.core.roles import Follower
from raft.core.types import Index, NodeId, Term
from raft.kv import KeyValue
from raft.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One seeded bug: what is wrong, what it breaks and needs, who had it, and the classes that have it."""

    name: str
    summary: str
    breaks: tuple[str, ...]
    needs: tuple[str, ...]
    reference: str
    core: type[Core] | None = None
    machine: type[KeyValue] | None = None
    node: type[Node] | None = None


def assemble(names: Iterable[str]) -> type[Node]:
    """A node class with these bugs; `Node` itself for none.

    >>> assemble([]) is Node
    True
    >>> assemble(["stale-read"]).core_class.__mro__[1].__name__
    '_StaleRead'
    """
    bugs = [_find(name) for name in sorted(set(names))]
    if not bugs:
        return Node
    cores = [bug.core for bug in bugs if bug.core]
    machines = [bug.machine for bug in bugs if bug.machine]
    nodes = [bug.node for bug in bugs if bug.node]
    slots: dict[str, Any] = {"__slots__": ()}
    return type(
        "BuggyNode",
        (*nodes, Node),
        {
            "core_class": type("BuggyCore", (*cores, _Unguarded), slots),
            "machine_class": type("BuggyKeyValue", (*machines, KeyValue), slots),
        },
    )


def _find(name: str) -> Bug:
    if name not in BUGS:
        raise ValueError(f"no seeded bug is called {name!r}; there are: {', '.join(BUGS)}")
    return BUGS[name]


class _Unguarded(Core):
    __slots__ = ()

    def _impossible(self, what: str) -> None:
        """Goes on."""


class _AsInThePaper(Core):
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


class _StaleRead(_AsInThePaper):
    __slots__ = ()

    def _confirmed_seq(self, role: Leader) -> int:
        return role.read_seq


class _ReadBeforeOwnCommit(Core):
    __slots__ = ()

    def _can_read(self) -> bool:
        return True


class _ReadRoundReused(_AsInThePaper):
    __slots__ = ()

    def _next_seq(self, role: Leader) -> int:
        del role
        return 1


class _ReadQuorumShort(_AsInThePaper):
    __slots__ = ()

    def _confirmed_seq(self, role: Leader) -> int:
        acks = sorted((role.progress[peer].read_seq for peer in self.peers), reverse=True)
        return [role.read_seq, *acks][max(0, majority(len(self.voters)) - 2)]


# -- elections and persistent state ----------------------------------------------------------------


class _VoteNotPersisted(Core):
    """A grant writes nothing; what is written later has the term without the vote."""

    __slots__ = ()

    def _hard_state(self) -> SaveHardState | None:
        waits_for_leader = self.leader is None and self.voted_for is not None
        return None if waits_for_leader else SaveHardState(self.term, None)


class _TermNotPersisted(Core):
    __slots__ = ()

    def _hard_state(self) -> SaveHardState | None:
        return None

    def _restored_term(self, saved: Saved) -> Term:
        del saved
        return 0


class _DuplicateVoteCounted(_AsInThePaper):
    __slots__ = ()

    def _count_vote(self, role: Candidate, voter: NodeId) -> None:
        role.granted.append(voter)


class _StaleVoteReplyCounted(_AsInThePaper):
    __slots__ = ()

    def _on_older_term(self, message: Message) -> None:
        if isinstance(message, VoteReply):
            self._on_vote_reply(message)
        else:
            super()._on_older_term(message)


class _UptodateWrongOrder(_AsInThePaper):
    __slots__ = ()

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        return (last_index, last_term) >= (self.log.last_index, self.log.last_term)


class _UptodateSkipped(_AsInThePaper):
    __slots__ = ()

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        del last_index, last_term
        return True


class _VoteClearedSameTerm(_AsInThePaper):
    __slots__ = ()

    def _become_follower(self, term: Term, leader: NodeId | None) -> None:
        if term == self.term and not isinstance(self.role, Follower):
            self.voted_for = None
        super()._become_follower(term, leader)


class _VoteTwice(_AsInThePaper):
    __slots__ = ()

    def _may_grant(self, request: RequestVote) -> bool:
        return isinstance(self.role, Follower) and self._up_to_date(request.last_index, request.last_term)


# -- replication and commitment --------------------------------------------------------------------


class _CommitPriorTerm(_AsInThePaper):
    """Counts replicas of old entries.

    What would hide that is gone too, as it was in the systems that had the bug: a new leader appends no entry
    of its own term until a client asks for one, reads wait only for what it was elected with, and writers
    (`_WaitsForApply`) wait for their entry across a change of leader, as etcd's do.
    """

    __slots__ = ()

    def _may_commit(self, index: Index) -> bool:
        del index
        return True

    def _open_term(self) -> None:
        pass

    def _can_read(self) -> bool:
        inherited, _ = self.log.last_not_above(self.log.last_index, self.term - 1)
        return self.commit_index >= inherited


class _WaitsForApply(Node):
    def _give_up_requests(self) -> None:
        waiting, self._proposals = self._proposals, {}
        super()._give_up_requests()
        self._proposals = waiting


class _AckBeforeMajority(Core):
    __slots__ = ()

    def _quorum_index(self, role: Leader) -> Index:
        return role.progress[self.name].match_index

    def _may_commit(self, index: Index) -> bool:
        return index <= self.log.last_index


class _QuorumOneShort(Core):
    __slots__ = ()

    def _quorum_index(self, role: Leader) -> Index:
        matches = sorted((role.progress[voter].match_index for voter in self.voters), reverse=True)
        return matches[max(0, len(matches) // 2 - 1)]


class _QuorumEvenOffByOne(Core):
    __slots__ = ()

    def _election_won(self, role: Candidate) -> bool:
        return 2 * len(role.granted) >= len(self.voters)

    def _quorum_index(self, role: Leader) -> Index:
        matches = sorted((role.progress[voter].match_index for voter in self.voters), reverse=True)
        return matches[(len(matches) + 1) // 2 - 1]


class _TruncateWithoutConflict(Core):
    __slots__ = ()

    def _first_new(self, prev_index: Index, entries: Sequence[Entry]) -> Index | None:
        return prev_index + 1 if entries else None


class _FollowerCommitsUnchecked(Core):
    __slots__ = ()

    def _on_append_entries(self, append: AppendEntries) -> None:
        self.commit_index = max(self.commit_index, min(append.commit_index, self.log.last_index))
        super()._on_append_entries(append)


class _StaleSuffixRetained(Core):
    """Takes equal indexes for equal entries: an entry that is there already is kept, whatever its term."""

    __slots__ = ()

    def _first_new(self, prev_index: Index, entries: Sequence[Entry]) -> Index | None:
        first = max(prev_index, self.log.last_index) + 1
        return first if first <= prev_index + len(entries) else None


class _AckBeforeFsync(Core):
    __slots__ = ()

    def _hold_until_durable(self, message: Message) -> bool:
        del message
        return False


# -- clients ---------------------------------------------------------------------------------------


class _RetryNotDeduped(KeyValue):
    __slots__ = ()

    def _answered(self, request: Request) -> Response | None:
        del request
        return None


class _DefiniteErrorForMaybe(Node):
    def _answer_abandoned(self) -> Response:
        return NotLeader(self.core.leader)


class _NeverSyncs(Node):
    def _sync(self) -> bool:
        if self._durable == self._written:
            return False
        self._on_synced(self._written)
        return True


_ALL = (
    Bug(
        name="stale-read",
        summary="the leader answers reads from its memory without confirming that it still leads",
        breaks=("SR",),
        needs=("P",),
        reference="etcd-io/etcd#741; hashicorp/consul#54; thesis 6.4",
        core=_StaleRead,
    ),
    Bug(
        name="read-before-own-commit",
        summary="a new leader serves reads before an entry of its own term is committed",
        breaks=("SR",),
        needs=("P", "C"),
        reference="etcd-io/etcd#7331; tikv/tikv#6340; thesis 6.4",
        core=_ReadBeforeOwnCommit,
    ),
    Bug(
        name="read-round-reused",
        summary="all reads of a term share one round: an answer to an earlier message confirms a later read",
        breaks=("SR",),
        needs=("P", "Z"),
        reference="etcd-io/raft#397; etcd-io/etcd#20418",
        core=_ReadRoundReused,
    ),
    Bug(
        name="read-quorum-short",
        summary="one answer less than a majority confirms a read",
        breaks=("SR",),
        needs=("P",),
        reference="openraft d60f1e85",
        core=_ReadQuorumShort,
    ),
    Bug(
        name="vote-not-persisted",
        summary="a vote is granted without writing it down",
        breaks=("SB", "LW"),
        needs=("C",),
        reference="bakwc/PySyncObj#84; vesoft-inc/nebula#3415; Figure 2",
        core=_VoteNotPersisted,
    ),
    Bug(
        name="term-not-persisted",
        summary="the term is not written down: a restarted node begins again at 0",
        breaks=("SB", "LW"),
        needs=("R", "P"),
        reference="bakwc/PySyncObj#201; wenweihu86/raft-java#57",
        core=_TermNotPersisted,
    ),
    Bug(
        name="duplicate-vote-counted",
        summary="votes are a count, not a set: a repeated reply is a second vote",
        breaks=("SB",),
        needs=("D",),
        reference="xnnyygn/xraft#27; jgroups-extras/jgroups-raft#24",
        core=_DuplicateVoteCounted,
    ),
    Bug(
        name="stale-vote-reply-counted",
        summary="a vote of an earlier term counts in this one",
        breaks=("SB",),
        needs=("D",),
        reference="andreev-io/little-raft#44",
        core=_StaleVoteReplyCounted,
    ),
    Bug(
        name="vote-twice",
        summary="a follower grants its vote to everyone who asks, in the same term too",
        breaks=("SB", "LW"),
        needs=("P",),
        reference="Figure 2, RequestVote rule 2",
        core=_VoteTwice,
    ),
    Bug(
        name="vote-cleared-same-term",
        summary="a candidate that steps down within its term forgets that it has voted",
        breaks=("SB",),
        needs=("D",),
        reference="microsoft/CCF#8094; ktoso/akka-raft#56",
        core=_VoteClearedSameTerm,
    ),
    Bug(
        name="uptodate-wrong-order",
        summary="logs are compared by length first and last term second",
        breaks=("LW",),
        needs=("P", "C"),
        reference="openraft a48a3282; section 5.4.1",
        core=_UptodateWrongOrder,
    ),
    Bug(
        name="uptodate-skipped",
        summary="any candidate of a new term gets the vote, whatever its log lacks",
        breaks=("LW",),
        needs=("P",),
        reference="section 5.4.1",
        core=_UptodateSkipped,
    ),
    Bug(
        name="commit-prior-term",
        summary="an entry of an earlier term is committed by counting its replicas",
        breaks=("LW", "DV"),
        needs=("P", "C"),
        reference="logcabin/logcabin#44; bakwc/PySyncObj#169; canonical/raft#220; Figure 8",
        core=_CommitPriorTerm,
        node=_WaitsForApply,
    ),
    Bug(
        name="ack-before-majority",
        summary="a write is acknowledged, and applied, once it is on the disk of the leader",
        breaks=("LW",),
        needs=("P", "C"),
        reference="RedisLabs/redisraft#14; section 5.3",
        core=_AckBeforeMajority,
    ),
    Bug(
        name="quorum-one-short",
        summary="one replica less than a majority commits an entry",
        breaks=("LW",),
        needs=("P", "C"),
        reference="hashicorp/raft 163a55f; section 5.3",
        core=_QuorumOneShort,
    ),
    Bug(
        name="quorum-even-off-by-one",
        summary="half of an even number of nodes elects and commits",
        breaks=("SB", "LW"),
        needs=("P", "E"),
        reference="hashicorp/raft 163a55f",
        core=_QuorumEvenOffByOne,
    ),
    Bug(
        name="truncate-without-conflict",
        summary="a follower removes everything after prev_index before it appends, conflict or not",
        breaks=("LW",),
        needs=("D", "C"),
        reference="hashicorp/raft 0f31a01; openraft 9540c904; section 5.3",
        core=_TruncateWithoutConflict,
    ),
    Bug(
        name="follower-commits-unchecked",
        summary="a follower takes over the commit index before it knows that the logs agree",
        breaks=("DV",),
        needs=("P",),
        reference="Figure 2, AppendEntries rule 5",
        core=_FollowerCommitsUnchecked,
    ),
    Bug(
        name="stale-suffix-retained",
        summary="a follower keeps the entries it has, whatever their term, and appends the rest",
        breaks=("DV", "LW"),
        needs=("P",),
        reference="microsoft/CCF#2803; section 5.3",
        core=_StaleSuffixRetained,
    ),
    Bug(
        name="ack-before-fsync",
        summary="votes and acknowledgements leave before the disk has what they promise",
        breaks=("LW", "SB"),
        needs=("C",),
        reference="tikv/tikv#994; bakwc/PySyncObj#84; nats-io/nats-server#7564",
        core=_AckBeforeFsync,
    ),
    Bug(
        name="never-syncs",
        summary="writes are never synced: a crash loses the log",
        breaks=("LW", "SB"),
        needs=("C",),
        reference="bakwc/PySyncObj#84; goraft/raft#150",
        node=_NeverSyncs,
    ),
    Bug(
        name="retry-not-deduped",
        summary="a retried write is applied again",
        breaks=("DU",),
        needs=("P", "C", "D"),
        reference="etcd-io/jetcd#1444; etcd-io/etcd#14890; thesis 6.3",
        machine=_RetryNotDeduped,
    ),
    Bug(
        name="definite-error-for-maybe",
        summary="a deposed leader reports writes that may yet be committed as certainly failed",
        breaks=("DU",),
        needs=("P",),
        reference="RedisLabs/redisraft#23; hashicorp/raft#561",
        node=_DefiniteErrorForMaybe,
    ),
)

BUGS: Mapping[str, Bug] = MappingProxyType({bug.name: bug for bug in _ALL})
"""Every seeded bug by its name."""
