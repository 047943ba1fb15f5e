"""Linearizable reads without the log: ReadIndex (thesis 6.4).

A read may be answered from a state machine once three things are known, in this order:

    1. The leader has committed an entry of its own term: before that, its commit index may lie behind what an
       earlier leader has already acknowledged.
    2. The leader's commit index at some time after the read arrived: the read's index.
    3. The node was still the leader after that time: a majority answered a message sent after it.

Reads that arrive together share a round. A round has a number of its own in the term, carried by
AppendEntries and echoed by the replies, so that an answer to an earlier message never confirms a later read.
While a round is out, new reads wait for the next one; every heartbeat starts one if any wait, since the
answers to the last may be lost.

A follower may answer reads too: it asks the leader for the index, and waits until it has applied that far.

With `lease_reads` step 3 is saved (thesis 6.4.1): a majority that answered a heartbeat elects nobody else
within the shortest election timeout after it was sent, as measured by clocks that differ by `lease_drift_max`
at most. A leader that has asked another node to campaign (thesis 3.10) has no lease for the rest of its term: voters do
not wait for such a candidate, and the message that asks for it may come at any time.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from raft.core.base import Base
from raft.core.messages import ReadIndex, ReadIndexReply
from raft.core.roles import Follower, Leader, ReadRound, RemoteRead

_read_seq = attrgetter("read_seq")


class Reads(Base):
    """Both sides of a read."""

    __slots__ = ()

    # -- leader ------------------------------------------------------------------------------------

    def _accept_read(self, role: Leader, context: Any) -> None:
        role.waiting_reads.append(context)

    def _can_start_round(self, role: Leader) -> bool:
        return bool(role.waiting_reads) and not role.read_rounds and self._can_read()

    def _can_read(self) -> bool:
        """Whether an entry of the current term is committed."""
        return self.log.term(self.commit_index) == self.term

    def _start_round(self, role: Leader) -> None:
        """Gives the waiting reads their index, and a round that confirms them."""
        self._new_seq(role, self._next_seq(role))
        role.read_rounds.append(ReadRound(role.read_seq, self.commit_index, tuple(role.waiting_reads)))
        role.waiting_reads = []

    def _next_seq(self, role: Leader) -> int:
        """A number no earlier round of this term had."""
        return role.read_seq + 1

    def _confirmed_seq(self, role: Leader) -> int:
        """The newest round that a majority has answered; the leader answers itself."""
        return self._reached(role, _read_seq)

    def _finish_rounds(self, role: Leader) -> None:
        """Hands out the reads whose round a majority has confirmed and whose index is handed out already."""
        role.rounds_moved = False
        confirmed = self._confirmed_seq(role)
        rounds = role.read_rounds
        while rounds and rounds[0].seq <= confirmed and rounds[0].read_index <= self._committed_out:
            done = rounds.popleft()
            for context in done.contexts:
                self._finish_read(context, done.read_index)

    def _finish_read(self, context: Any, read_index: int) -> None:
        if isinstance(context, RemoteRead):
            self._send(ReadIndexReply(self.name, context.follower, self.term, context.read_id, read_index))
        else:
            self._reads.append((context, read_index))

    # -- lease -------------------------------------------------------------------------------------

    def _extend_lease(self, role: Leader) -> None:
        """Counts the lease from when a confirmed heartbeat was sent, not from when it was answered."""
        confirmed = self._confirmed_seq(role)
        sent_us = role.sent_us
        lease_us = int(self.options.election_timeout_us_min * (1 - self.options.lease_drift_max))
        while sent_us and sent_us[0][0] <= confirmed:
            _, at_us = sent_us.popleft()
            role.lease_us = max(role.lease_us, at_us + lease_us)

    def _lease_holds(self, role: Leader) -> bool:
        """Whether nobody else can be the leader now."""
        return self.options.lease_reads and not role.has_asked and self.now_us < role.lease_us

    def _read_by_lease(self, role: Leader) -> None:
        waiting, role.waiting_reads = role.waiting_reads, []
        role.rounds_moved = True
        role.read_rounds.append(ReadRound(0, self.commit_index, tuple(waiting)))

    # -- follower ----------------------------------------------------------------------------------

    def _ask_leader(self, role: Follower, context: Any) -> bool:
        """Forwards a read; its answer, or the loss of it, leaves nothing behind once the leader changes."""
        if self.leader is None:
            return False
        if len(role.asked_reads) >= self.options.pending_reads_max:
            del role.asked_reads[next(iter(role.asked_reads))]  # its answer is lost, or as good as
        self._read_id += 1
        role.asked_reads[self._read_id] = context
        self._send(ReadIndex(self.name, self.leader, self.term, self._read_id))
        return True

    def _on_read_index(self, request: ReadIndex) -> None:
        role = self.role
        if not isinstance(role, Leader):
            return
        waiting = len(role.waiting_reads) + sum(len(one.contexts) for one in role.read_rounds)
        if waiting < self.options.pending_reads_max:
            self._accept_read(role, RemoteRead(request.src, request.read_id))

    def _on_read_index_reply(self, reply: ReadIndexReply) -> None:
        role = self.role
        if isinstance(role, Follower) and reply.read_id in role.asked_reads:
            role.answered_reads.append((role.asked_reads.pop(reply.read_id), reply.index))

    def _finish_asked(self, role: Follower) -> None:
        """Hands out the reads whose index is handed out already."""
        ready = [read for read in role.answered_reads if read[1] <= self._committed_out]
        if ready:
            role.answered_reads = [read for read in role.answered_reads if read[1] > self._committed_out]
            self._reads.extend(ready)
