"""The states of Figure 4, each with the state it needs: a follower has no `next_index` to get wrong."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

from raft.core.progress import Progress
from raft.core.types import Index, NodeId


class ReadRound(NamedTuple):
    """Reads that wait for one confirmation of leadership, and the index they must see applied."""

    seq: int
    read_index: Index
    contexts: tuple[Any, ...]


class RemoteRead(NamedTuple):
    """A read that a follower asked about: its context at the leader."""

    follower: NodeId
    read_id: int


@dataclass(slots=True)
class Follower:
    """Passive; answers candidates and the leader. `partial` is what has arrived of a snapshot."""

    name: ClassVar[str] = "follower"
    asked_reads: dict[int, Any] = field(default_factory=dict)
    answered_reads: list[tuple[Any, Index]] = field(default_factory=list)
    partial_index: Index = 0
    partial_term: int = 0
    partial: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Candidate:
    """Asks for votes in its term; `granted` holds the voters in the order in which they answered."""

    name: ClassVar[str] = "candidate"
    pre: ClassVar[bool] = False
    granted: list[NodeId] = field(default_factory=list)
    refused: list[NodeId] = field(default_factory=list)
    transfer: bool = False


@dataclass(slots=True)
class PreCandidate(Candidate):
    """Asks whether it would get votes in the next term (thesis 9.6)."""

    name: ClassVar[str] = "pre-candidate"
    pre: ClassVar[bool] = True


@dataclass(slots=True)
class Leader:
    """Replicates; `progress` has one value for each member, itself included."""

    name: ClassVar[str] = "leader"
    progress: dict[NodeId, Progress]
    read_seq: int = 0
    waiting_reads: list[Any] = field(default_factory=list)
    read_rounds: deque[ReadRound] = field(default_factory=deque)
    rounds_moved: bool = True  # one may be confirmed that was not when they were looked at last
    sent_us: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=64)
    )  # of rounds not confirmed
    lease_us: int = 0  # until when no other leader can be elected
    has_asked: bool = False  # another node to campaign, which may do so at any time from now on
    transfer_to: NodeId | None = None
    transfer_until_us: int = 0
    uncommitted_bytes: int = 0  # of the entries of this term


Role: TypeAlias = Follower | Candidate | Leader
