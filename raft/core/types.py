"""The nouns of the paper: entries, hard state, membership.

Rules of this module
    1. Every value is frozen and holds no reference back to anything that runs.
    2. Indexes start at 1 and terms at 1; 0 means "before the first" for both (Figure 2).
    3. An entry's `data` is opaque bytes: the core never looks into it.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

NodeId: TypeAlias = str
Term: TypeAlias = int
Index: TypeAlias = int


class EntryKind(enum.IntEnum):
    """What an entry is for."""

    COMMAND = 0  # for the state machine
    NOOP = 1  # a new leader's first entry (section 8; thesis 6.4)
    CONFIG = 2  # a change of membership (section 6)


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the log; `(index, term)` names its content for ever (Log Matching, section 5.3)."""

    index: Index
    term: Term
    kind: EntryKind
    data: bytes = b""


class Config(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who belongs to the cluster (section 6).

    While `outgoing` is not empty the configuration is joint: elections and commitment need a majority of
    `voters` and one of `outgoing`. Learners get the log and count for nothing. `addresses` says of members where
    they are, in words that mean nothing here.
    """

    voters: tuple[NodeId, ...] = ()
    outgoing: tuple[NodeId, ...] = ()
    learners: tuple[NodeId, ...] = ()
    addresses: tuple[tuple[NodeId, str], ...] = ()

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody, in a fixed order."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))


class Snapshot(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state machine as it was after the entry at `index`, and the membership then (section 7)."""

    index: Index
    term: Term
    config: Config
    data: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`currentTerm` and `votedFor` of Figure 2: on disk before any answer that rests on them."""

    term: Term = 0
    voted_for: NodeId | None = None
