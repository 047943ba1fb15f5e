"""Leader election: section 5.2, with the restriction of section 5.4.1."""

from __future__ import annotations

from raft.core.base import Base
from raft.core.messages import RequestVote, VoteReply
from raft.core.quorum import majority
from raft.core.roles import Candidate
from raft.core.types import Index, NodeId, Term


class Elections(Base):
    """How a node becomes a candidate, gives votes, and counts them."""

    __slots__ = ()

    def _start_election(self) -> None:
        """A new term, a vote for oneself, and a request to everybody else."""
        self._set_term(self.term + 1)
        self._record_vote(self.name)
        self.role = Candidate()
        self.leader = None
        self._reset_election_timer()
        self._request_votes()
        # The own vote takes the same way as others': it counts once it is durable.
        self._send(VoteReply(self.name, self.name, self.term, granted=True))

    def _request_votes(self) -> None:
        """Asks all who have not answered yet, again and again: requests get lost (section 5.1)."""
        assert isinstance(self.role, Candidate)
        self.heartbeat_us = self.now_us + self.options.heartbeat_us
        log = self.log
        for peer in self.peers:
            if peer not in self.role.granted and peer not in self.role.refused:
                self._send(RequestVote(self.name, peer, self.term, log.last_index, log.last_term))

    def _on_request_vote(self, request: RequestVote) -> None:
        granted = self._may_grant(request)
        if granted:
            self._record_vote(request.src)
            self._reset_election_timer()
        self._send(VoteReply(self.name, request.src, self.term, granted))

    def _may_grant(self, request: RequestVote) -> bool:
        """One vote in a term, first come first served, and only to a log that has all that is committed."""
        return self.voted_for in (None, request.src) and self._up_to_date(
            request.last_index, request.last_term
        )

    def _up_to_date(self, last_index: Index, last_term: Term) -> bool:
        """Whether the candidate's log is at least as up to date as ours: later last term, then longer."""
        return (last_term, last_index) >= (self.log.last_term, self.log.last_index)

    def _on_vote_reply(self, reply: VoteReply) -> None:
        if not isinstance(self.role, Candidate):
            return
        if reply.granted:
            self._count_vote(self.role, reply.src)
            if self._election_won(self.role):
                self._become_leader()
        elif reply.src not in self.role.refused:
            self.role.refused.append(reply.src)

    def _count_vote(self, role: Candidate, voter: NodeId) -> None:
        """Counts each voter once, however often the network delivers its vote."""
        if voter not in role.granted:
            role.granted.append(voter)

    def _election_won(self, role: Candidate) -> bool:
        """Whether a majority of the voters has granted its vote."""
        return sum(voter in self.voters for voter in role.granted) >= majority(len(self.voters))

    def _become_leader(self) -> None:
        raise NotImplementedError
