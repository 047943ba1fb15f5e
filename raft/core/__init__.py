"""The Raft protocol without input or output: `raft.core.core` says how it works and where its rules are."""

from raft.core.base import ProtocolViolation
from raft.core.core import Core
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
from raft.core.options import Options
from raft.core.ready import Ready
from raft.core.records import Record, Saved, SaveEntries, SaveHardState, SaveSnapshot, TruncateFrom, replay
from raft.core.roles import Candidate, Follower, Leader, PreCandidate
from raft.core.types import Config, Entry, EntryKind, HardState, Snapshot

__all__ = [
    "AppendEntries",
    "AppendReply",
    "Candidate",
    "Config",
    "Core",
    "Entry",
    "EntryKind",
    "Follower",
    "HardState",
    "InstallSnapshot",
    "Leader",
    "Message",
    "Options",
    "PreCandidate",
    "ProtocolViolation",
    "ReadIndex",
    "ReadIndexReply",
    "Ready",
    "Record",
    "RequestVote",
    "SaveEntries",
    "SaveHardState",
    "SaveSnapshot",
    "Saved",
    "Snapshot",
    "SnapshotReply",
    "TimeoutNow",
    "TruncateFrom",
    "VoteReply",
    "replay",
]
