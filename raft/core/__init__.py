"""The Raft protocol without input or output: `raft.core.core` says how it works and where its rules are."""

from raft.core.base import ProtocolViolation
from raft.core.core import Core
from raft.core.messages import AppendEntries, AppendReply, Message, RequestVote, VoteReply
from raft.core.options import Options
from raft.core.ready import Ready
from raft.core.records import Record, Saved, SaveEntries, SaveHardState, TruncateFrom, replay
from raft.core.roles import Candidate, Follower, Leader
from raft.core.types import Entry, EntryKind, HardState

__all__ = [
    "AppendEntries",
    "AppendReply",
    "Candidate",
    "Core",
    "Entry",
    "EntryKind",
    "Follower",
    "HardState",
    "Leader",
    "Message",
    "Options",
    "ProtocolViolation",
    "Ready",
    "Record",
    "RequestVote",
    "SaveEntries",
    "SaveHardState",
    "Saved",
    "TruncateFrom",
    "VoteReply",
    "replay",
]
