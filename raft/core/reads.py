"""Linearizable reads without the log: ReadIndex (thesis 6.4).

A read may be answered from the leader's state machine once three things are known, in this order:

    1. The leader has committed an entry of its own term: before that, its commit index may lie behind what an
       earlier leader has already acknowledged.
    2. The leader's commit index at some time after the read arrived: the read's index.
    3. The node was still the leader after that time: a majority answered a message sent after it.

Reads that arrive together share a round. A round has a number of its own in the term, carried by
AppendEntries and echoed by the replies, so that an answer to an earlier message never confirms a later read.
While a round is out, new reads wait for the next one; every heartbeat starts one if any wait, since the
answers to the last may be lost.
"""

from __future__ import annotations

from typing import Any

from raft.core.base import Base
from raft.core.quorum import reached
from raft.core.roles import Leader, ReadRound


class Reads(Base):
    """The leader's side of a read."""

    __slots__ = ()

    def _accept_read(self, role: Leader, context: Any) -> None:
        role.waiting_reads.append(context)

    def _can_start_round(self, role: Leader) -> bool:
        return bool(role.waiting_reads) and not role.read_rounds and self._can_read()

    def _can_read(self) -> bool:
        """Whether an entry of the current term is committed."""
        return self.log.term(self.commit_index) == self.term

    def _start_round(self, role: Leader) -> None:
        """Gives the waiting reads their index, and a round that confirms them."""
        role.read_seq = self._next_seq(role)
        role.read_rounds.append(ReadRound(role.read_seq, self.commit_index, tuple(role.waiting_reads)))
        role.waiting_reads = []

    def _next_seq(self, role: Leader) -> int:
        """A number no earlier round of this term had."""
        return role.read_seq + 1

    def _finish_rounds(self, role: Leader) -> None:
        """Hands out the reads whose round a majority has confirmed and whose index is handed out already."""
        confirmed = self._confirmed_seq(role)
        rounds = role.read_rounds
        while rounds and rounds[0].seq <= confirmed and rounds[0].read_index <= self._committed_out:
            done = rounds.popleft()
            self._reads.extend((context, done.read_index) for context in done.contexts)

    def _confirmed_seq(self, role: Leader) -> int:
        """The newest round that a majority has answered; the leader answers itself."""
        return reached(
            [role.read_seq if voter == self.name else role.progress[voter].read_seq for voter in self.voters]
        )
