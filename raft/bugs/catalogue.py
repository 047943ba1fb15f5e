"""The table of seeded bugs, and how a node gets them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from raft.bugs import coordination, defects, transactions
from raft.core import Core
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
    options: Mapping[str, Any] = field(default_factory=dict)  # without which the bug is never met


def assemble(names: Iterable[str]) -> type[Node]:
    """A node class with these bugs; `Node` itself for none.

    >>> assemble([]) is Node
    True
    >>> assemble(["stale-read"]).core_class.__mro__[1].__name__
    'StaleRead'
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
            "core_class": type("BuggyCore", (*cores, defects.Unguarded), slots),
            "forced_options": {name: value for bug in bugs for name, value in bug.options.items()},
            "machine_class": type("BuggyKeyValue", (*machines, KeyValue), slots),
        },
    )


def _find(name: str) -> Bug:
    if name not in BUGS:
        raise ValueError(f"no seeded bug is called {name!r}; there are: {', '.join(BUGS)}")
    return BUGS[name]


_ALL = (
    Bug(
        name="stale-read",
        summary="the leader answers reads from its memory without confirming that it still leads",
        breaks=("SR",),
        needs=("P",),
        reference="etcd-io/etcd#741; hashicorp/consul#54; thesis 6.4",
        core=defects.StaleRead,
    ),
    Bug(
        name="read-before-own-commit",
        summary="a new leader serves reads before an entry of its own term is committed",
        breaks=("SR",),
        needs=("P", "C"),
        reference="etcd-io/etcd#7331; tikv/tikv#6340; thesis 6.4",
        core=defects.ReadBeforeOwnCommit,
    ),
    Bug(
        name="read-round-reused",
        summary="all reads of a term share one round: an answer to an earlier message confirms a later read",
        breaks=("SR",),
        needs=("P", "Z"),
        reference="etcd-io/raft#397; etcd-io/etcd#20418",
        core=defects.ReadRoundReused,
    ),
    Bug(
        name="read-quorum-short",
        summary="one answer less than a majority confirms a read",
        breaks=("SR",),
        needs=("P",),
        reference="openraft d60f1e85",
        core=defects.ReadQuorumShort,
    ),
    Bug(
        name="vote-not-persisted",
        summary="a vote is granted without writing it down",
        breaks=("SB", "LW"),
        needs=("C",),
        reference="bakwc/PySyncObj#84; vesoft-inc/nebula#3415; Figure 2",
        core=defects.VoteNotPersisted,
    ),
    Bug(
        name="term-not-persisted",
        summary="the term is not written down: a restarted node begins again at 0",
        breaks=("SB", "LW"),
        needs=("R", "P"),
        reference="bakwc/PySyncObj#201; wenweihu86/raft-java#57",
        core=defects.TermNotPersisted,
    ),
    Bug(
        name="duplicate-vote-counted",
        summary="votes are a count, not a set: a repeated reply is a second vote",
        breaks=("SB",),
        needs=("D",),
        reference="xnnyygn/xraft#27; jgroups-extras/jgroups-raft#24",
        core=defects.DuplicateVoteCounted,
    ),
    Bug(
        name="stale-vote-reply-counted",
        summary="a vote of an earlier term counts in this one",
        breaks=("SB",),
        needs=("D",),
        reference="andreev-io/little-raft#44",
        core=defects.StaleVoteReplyCounted,
    ),
    Bug(
        name="vote-twice",
        summary="a follower grants its vote to everyone who asks, in the same term too",
        breaks=("SB", "LW"),
        needs=("P",),
        reference="Figure 2, RequestVote rule 2",
        core=defects.VoteTwice,
    ),
    Bug(
        name="vote-cleared-same-term",
        summary="a candidate that steps down within its term forgets that it has voted",
        breaks=("SB",),
        needs=("D",),
        reference="microsoft/CCF#8094; ktoso/akka-raft#56",
        core=defects.VoteClearedSameTerm,
    ),
    Bug(
        name="uptodate-wrong-order",
        summary="logs are compared by length first and last term second",
        breaks=("LW",),
        needs=("P", "C"),
        reference="openraft a48a3282; section 5.4.1",
        core=defects.UptodateWrongOrder,
    ),
    Bug(
        name="uptodate-skipped",
        summary="any candidate of a new term gets the vote, whatever its log lacks",
        breaks=("LW",),
        needs=("P",),
        reference="section 5.4.1",
        core=defects.UptodateSkipped,
    ),
    Bug(
        name="commit-prior-term",
        summary="an entry of an earlier term is committed by counting its replicas",
        breaks=("LW", "DV"),
        needs=("P", "C"),
        reference="logcabin/logcabin#44; bakwc/PySyncObj#169; canonical/raft#220; Figure 8",
        core=defects.CommitPriorTerm,
        node=defects.WaitsOn,
    ),
    Bug(
        name="ack-before-majority",
        summary="a write is acknowledged, and applied, once it is on the disk of the leader",
        breaks=("LW",),
        needs=("P", "C"),
        reference="RedisLabs/redisraft#14; section 5.3",
        core=defects.AckBeforeMajority,
    ),
    Bug(
        name="quorum-one-short",
        summary="one replica less than a majority commits an entry",
        breaks=("LW",),
        needs=("P", "C"),
        reference="hashicorp/raft 163a55f; section 5.3",
        core=defects.QuorumOneShort,
    ),
    Bug(
        name="quorum-even-off-by-one",
        summary="half of an even number of nodes elects and commits",
        breaks=("SB", "LW"),
        needs=("P", "E"),
        reference="hashicorp/raft 163a55f",
        core=defects.QuorumEvenOffByOne,
    ),
    Bug(
        name="truncate-without-conflict",
        summary="a follower removes everything after prev_index before it appends, conflict or not",
        breaks=("LW",),
        needs=("D", "C"),
        reference="hashicorp/raft 0f31a01; openraft 9540c904; section 5.3",
        core=defects.TruncateWithoutConflict,
    ),
    Bug(
        name="follower-commits-unchecked",
        summary="a follower takes over the commit index before it knows that the logs agree",
        breaks=("DV",),
        needs=("P",),
        reference="Figure 2, AppendEntries rule 5",
        core=defects.FollowerCommitsUnchecked,
    ),
    Bug(
        name="stale-suffix-retained",
        summary="a follower keeps the entries it has, whatever their term, and appends the rest",
        breaks=("DV", "LW"),
        needs=("P",),
        reference="microsoft/CCF#2803; section 5.3",
        core=defects.StaleSuffixRetained,
    ),
    Bug(
        name="ack-before-fsync",
        summary="votes and acknowledgements do not wait for the disk, which is synced five times a second",
        breaks=("LW", "SB"),
        needs=("C",),
        reference="tikv/tikv#994; bakwc/PySyncObj#84; nats-io/nats-server#7564",
        core=defects.AckBeforeFsync,
        node=defects.SyncsNowAndThen,
    ),
    Bug(
        name="never-syncs",
        summary="writes are never synced: a crash loses the log",
        breaks=("LW", "SB"),
        needs=("C",),
        reference="bakwc/PySyncObj#84; goraft/raft#150",
        node=defects.NeverSyncs,
    ),
    Bug(
        name="retry-not-deduped",
        summary="a retried write is applied again",
        breaks=("DU",),
        needs=("P", "C", "D"),
        reference="etcd-io/jetcd#1444; etcd-io/etcd#14890; thesis 6.3",
        machine=defects.RetryNotDeduped,
    ),
    Bug(
        name="definite-error-for-maybe",
        summary="a deposed leader reports writes that may yet be committed as certainly failed",
        breaks=("DU",),
        needs=("P",),
        reference="RedisLabs/redisraft#23; hashicorp/raft#561",
        node=defects.DefiniteErrorForMaybe,
    ),
    Bug(
        name="prevote-counted-as-vote",
        summary="a candidate takes the answer to a pre-vote for a vote",
        breaks=("SB", "LW"),
        needs=("D", "P"),
        reference="canonical/raft#196",
        core=defects.PreVoteCountedAsVote,
    ),
    Bug(
        name="lease-too-long",
        summary="the lease of a leader outlives the promise of its voters",
        breaks=("SR",),
        needs=("P", "D", "Z"),
        reference="tikv/tikv#964; sofastack/sofa-jraft#34; thesis 6.4.1",
        core=defects.LeaseTooLong,
        options={"lease_reads": True},
    ),
    Bug(
        name="session-not-in-snapshot",
        summary="a snapshot has the values but not the client sessions",
        breaks=("DU", "DV"),
        needs=("C", "P"),
        reference="logcabin 445f383; thesis 6.3",
        machine=defects.SessionNotInSnapshot,
        options={"snapshot_entries": 8, "snapshot_trailing": 0},
    ),
    Bug(
        name="config-not-rolled-back",
        summary="a membership whose entry was removed from the log stays in force",
        breaks=("SB", "LV"),
        needs=("M", "P"),
        reference="camunda/camunda#57393; canonical/raft#250; section 6",
        core=defects.ConfigNotRolledBack,
    ),
    Bug(
        name="joint-one-majority",
        summary="while the membership is joint, a majority of the new voters decides alone",
        breaks=("SB", "LW"),
        needs=("M", "P"),
        reference="section 6; etcd-io/raft e515a67",
        core=defects.JointOneMajority,
    ),
    Bug(
        name="lease-expired-locally",
        summary="each node ends leases by its own timer, without an entry in the log",
        breaks=("LE", "DV"),
        needs=("P",),
        reference="etcd-io/etcd#12528; etcd-io/etcd#15247",
        node=coordination.LeaseExpiredLocally,
    ),
    Bug(
        name="keep-alive-not-replicated",
        summary="the leader renews a lease in its memory only: the next leader takes it for one nobody renewed",
        breaks=("LE",),
        needs=("P", "C"),
        reference="etcd-io/etcd#2660; etcd-io/etcd#15247",
        node=coordination.KeepAliveNotReplicated,
    ),
    Bug(
        name="session-expiry-not-replicated",
        summary="each node forgets client sessions by its own timer, without an entry in the log",
        breaks=("DU", "DV"),
        needs=("P",),
        reference="thesis 6.3",
        node=coordination.SessionExpiryNotReplicated,
    ),
    Bug(
        name="watch-gap",
        summary="a node restored from a snapshot forgets the changes before it, and does not tell those who watch",
        breaks=("WG",),
        needs=("C", "P"),
        reference="etcd-io/etcd#18089; etcd-io/etcd#19179",
        machine=coordination.WatchGap,
        options={"snapshot_entries": 8, "snapshot_trailing": 0},
    ),
    Bug(
        name="guards-unchecked",
        summary="a transaction is applied whether its guards hold or not",
        breaks=("TX",),
        needs=(),
        reference="Berenson et al. 1995, P4 (lost update)",
        machine=transactions.GuardsUnchecked,
    ),
    Bug(
        name="txn-in-two-parts",
        summary="all writes of a transaction but the first are done only after the next entry of the log",
        breaks=("TX",),
        needs=(),
        reference="Bailis et al. 2014 (fractured reads)",
        machine=transactions.TxnInTwoParts,
    ),
)

BUGS: Mapping[str, Bug] = MappingProxyType({bug.name: bug for bug in _ALL})
"""Every seeded bug by its name."""
