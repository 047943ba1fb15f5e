"""The RPCs of Figure 2 as one-way messages.

A reply is a message of its own, because the network loses, repeats and reorders: nothing here may rest on a
reply belonging to the request sent last. So every reply carries what is needed to judge it alone: the term it
was given in, the index it speaks of, and the read round it confirms.

Every message is a frozen tagged array, ready to be framed as msgpack.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from raft.core.types import Config, Entry, Index, NodeId, Term


class RequestVote(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A candidate asks for a vote (section 5.2); its last entry is for the check of section 5.4.1."""

    src: NodeId
    dst: NodeId
    term: Term
    last_index: Index
    last_term: Term
    pre: bool = False  # only asks whether it would be granted; nobody's term changes (thesis 9.6)
    transfer: bool = False  # the leader asked for this election (thesis 3.10)
    priority: int = 0  # the candidate's; voters with as good a log and a higher one refuse


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A vote granted or refused in `term`."""

    src: NodeId
    dst: NodeId
    term: Term
    granted: bool
    pre: bool = False


class AppendEntries(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Replication and heartbeat (section 5.3).

    `read_seq` is the newest round of leadership confirmation (thesis 6.4); the reply echoes it.
    """

    src: NodeId
    dst: NodeId
    term: Term
    prev_index: Index
    prev_term: Term
    commit_index: Index
    read_seq: int
    entries: tuple[Entry, ...]


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The answer to AppendEntries.

    When `ok`, the follower's log is durable and equal to the leader's up to `index`. Otherwise `index` is the
    `prev_index` that did not match, and the hint is the last entry of the follower that still may: the
    largest index not above `index` whose term is not above the leader's `prev_term` (section 5.3, fast
    back-tracking).
    """

    src: NodeId
    dst: NodeId
    term: Term
    ok: bool
    index: Index
    hint_index: Index
    hint_term: Term
    read_seq: int


class InstallSnapshot(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """One chunk of a snapshot, at `offset` of its `size` bytes (Figure 13)."""

    src: NodeId
    dst: NodeId
    term: Term
    index: Index  # of the last entry the snapshot covers, and its term
    index_term: Term
    config: Config
    size: int
    offset: int
    data: bytes
    read_seq: int


class SnapshotReply(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """How many bytes of the snapshot at `index` have arrived; a whole one is answered with AppendReply."""

    src: NodeId
    dst: NodeId
    term: Term
    index: Index
    received: int
    read_seq: int


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """The leader hands over: start an election at once (thesis 3.10)."""

    src: NodeId
    dst: NodeId
    term: Term


class ReadIndex(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """A follower asks the leader from which index on it may answer a read (thesis 6.4)."""

    src: NodeId
    dst: NodeId
    term: Term
    read_id: int


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The answer: the read may be answered once `index` is applied."""

    src: NodeId
    dst: NodeId
    term: Term
    read_id: int
    index: Index


Message: TypeAlias = (
    RequestVote
    | VoteReply
    | AppendEntries
    | AppendReply
    | InstallSnapshot
    | SnapshotReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)
