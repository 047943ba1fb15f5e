"""Leader election: section 5.2, with the restriction of section 5.4.1.

And what keeps elections rare: PreVote (thesis 9.6), voters that stick to a leader they hear (thesis 4.2.3),
and the orderly way to change the leader (thesis 3.10).
"""

from __future__ import annotations

from raft.core.base import Base
from raft.core.messages import RequestVote, TimeoutNow, VoteReply
from raft.core.roles import Candidate, Follower, Leader, PreCandidate
from raft.core.types import Index, NodeId, Term


class Elections(Base):
    """How a node becomes a candidate, gives votes, and counts them."""

    __slots__ = ()

    # -- candidate ---------------------------------------------------------------------------------

    def _on_election_timeout(self) -> None:
        if not self._may_campaign():
            self.leader = None
            self._reset_election_timer()
        elif self._asks_first():
            self._start_pre_vote()
        else:
            self._start_election(transfer=False)

    def _asks_first(self) -> bool:
        """Whether to find out who would vote before disturbing anybody with a new term (thesis 9.6)."""
        return self.options.pre_vote

    def _start_pre_vote(self) -> None:
        """Asks everybody about the next term, and enters it only if a majority would vote."""
        self.role = PreCandidate()
        self.leader = None
        self._reset_election_timer()
        self._request_votes()
        self._send(VoteReply(self.name, self.name, self.term + 1, granted=True, pre=True))

    def _start_election(self, *, transfer: bool) -> None:
        """A new term, a vote for oneself, and a request to everybody else."""
        self._set_term(self.term + 1)
        self._record_vote(self.name)
        self.role = Candidate(transfer=transfer)
        self.leader = None
        self._reset_election_timer()
        self._request_votes()
        # The own vote takes the same way as others': it counts once it is durable.
        self._send(VoteReply(self.name, self.name, self.term, granted=True))

    def _request_votes(self) -> None:
        """Asks all who have not answered yet, again and again: requests get lost (section 5.1)."""
        role = self.role
        assert isinstance(role, Candidate)
        self.heartbeat_us = self.now_us + self.options.heartbeat_us
        term = self.term + 1 if role.pre else self.term
        last_index, last_term = self.log.last_index, self.log.last_term
        priority = self.options.priority
        for peer in self.peers:
            if peer not in role.granted and peer not in role.refused:
                self._send(
                    RequestVote(
                        self.name, peer, term, last_index, last_term, role.pre, role.transfer, priority
                    )
                )

    def _on_vote_reply(self, reply: VoteReply) -> None:
        role = self.role
        if not isinstance(role, Candidate) or not self._answers(role, reply):
            return
        if reply.granted:
            self._count_vote(role, reply.src)
            if self._election_won(role):
                if role.pre:
                    self._start_election(transfer=False)
                else:
                    self._become_leader()
        elif reply.src not in role.refused:
            role.refused.append(reply.src)

    def _answers(self, role: Candidate, reply: VoteReply) -> bool:
        """Whether a reply is to the question this candidate asks: a pre-vote is not a vote."""
        return role.pre == reply.pre and (not role.pre or not reply.granted or reply.term == self.term + 1)

    def _count_vote(self, role: Candidate, voter: NodeId) -> None:
        """Counts each voter once, however often the network delivers its vote."""
        if voter not in role.granted:
            role.granted.append(voter)

    def _election_won(self, role: Candidate) -> bool:
        """Whether a majority of the voters has granted its vote."""
        return self._is_majority(role.granted)

    # -- voter -------------------------------------------------------------------------------------

    def _on_request_vote(self, request: RequestVote) -> None:
        if request.pre:
            granted = (
                request.term > self.term
                and self._up_to_date(request.last_index, request.last_term)
                and not self._is_preferable(request)
            )
            # A grant bears the term it would be for; a refusal bears our own, which the asker may lack.
            term = request.term if granted else self.term
            self._send(VoteReply(self.name, request.src, term, granted, pre=True))
            return
        granted = self._may_grant(request)
        if granted:
            self._record_vote(request.src)
            self._reset_election_timer()
        self._send(VoteReply(self.name, request.src, self.term, granted))

    def _may_grant(self, request: RequestVote) -> bool:
        """One vote in a term, first come first served, and only to a log that has all that is committed."""
        return (
            self.voted_for in (None, request.src)
            and self._up_to_date(request.last_index, request.last_term)
            and (self.voted_for is not None or not self._is_preferable(request))
        )

    def _is_preferable(self, request: RequestVote) -> bool:
        """Whether this voter has as good a log as the candidate, and is wanted more as the leader.

        It will campaign itself, soon enough. Where it may not be elected, or its log is the lesser one, its priority
        means nothing, so that priorities cost time at most, and never the leader.
        """
        return (
            self.options.priority > request.priority
            and not request.transfer
            and self._may_campaign()
            and (request.last_term, request.last_index) == (self.log.last_term, self.log.last_index)
        )

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether the candidate's log is at least as up to date as ours: later last term, then longer."""
        return (last_term, last_index) >= (self.log.last_term, self.log.last_index)

    def _withholds_vote(self, request: RequestVote) -> bool:
        """Whether to ignore a candidate because there is a leader (thesis 4.2.3).

        This keeps a node that was cut off, or removed, from deposing a leader that serves everybody else; and
        it is what a lease rests on. A leader that hands over has asked for the election itself.
        """
        if request.transfer or not self.options.check_quorum:
            return False
        if isinstance(self.role, Leader):
            return True
        return self.now_us - self.heard_us < self.options.election_timeout_us_min

    # -- transfer of leadership --------------------------------------------------------------------

    def _start_transfer(self, role: Leader, target: NodeId) -> bool:
        """Begins to hand over: no more proposals, and an election at `target` once it has the whole log."""
        if target == self.name or target not in self.voters:
            return False
        role.transfer_to = target
        role.transfer_until_us = self.now_us + self.options.election_timeout_us_max
        self._finish_transfer(role)
        return True

    def _finish_transfer(self, role: Leader) -> None:
        target = role.transfer_to
        if target is not None and role.progress[target].match_index == self.log.last_index:
            # The message may take longer than this leader waits for its effect, so a lease is worth nothing any more.
            role.has_asked = True
            self._send(TimeoutNow(self.name, target, self.term))

    def _on_timeout_now(self, message: TimeoutNow) -> None:
        """Campaigns at once, past PreVote and stickiness: the leader of this very term says so."""
        if isinstance(self.role, Follower) and self.leader == message.src and self._may_campaign():
            self._start_election(transfer=True)
