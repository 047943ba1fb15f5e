"""The three states of Figure 4, each with the state it needs: a follower has no `next_index` to get wrong."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeAlias

from raft.core.progress import Progress
from raft.core.types import Index, NodeId


class ReadRound(NamedTuple):
    """Reads that wait for one confirmation of leadership, and the index they must see applied."""

    seq: int
    read_index: Index
    contexts: tuple[Any, ...]


@dataclass(slots=True)
class Follower:
    """Passive; answers candidates and the leader."""

    name: ClassVar[str] = "follower"


@dataclass(slots=True)
class Candidate:
    """Asks for votes in its term; `granted` holds the voters in the order in which they answered."""

    name: ClassVar[str] = "candidate"
    granted: list[NodeId] = field(default_factory=list)
    refused: list[NodeId] = field(default_factory=list)


@dataclass(slots=True)
class Leader:
    """Replicates; `progress` has one value for each member, itself included."""

    name: ClassVar[str] = "leader"
    progress: Mapping[NodeId, Progress]
    read_seq: int = 0
    waiting_reads: list[Any] = field(default_factory=list)
    read_rounds: deque[ReadRound] = field(default_factory=deque)


Role: TypeAlias = Follower | Candidate | Leader
