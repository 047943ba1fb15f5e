"""Changes of membership by joint consensus: section 6, thesis 4.3.

A change of the voters takes two entries. The first puts the joint configuration in force: from the moment a
server has it in its log, elections and commitment need both majorities. Once it is committed the leader
appends the second, the new configuration alone. A leader that is not part of it goes on until that is
committed, without counting itself, and then steps down. A change of learners only takes one entry.

A change begins only when the one before it is committed, and not before the leader has committed an entry of
its own term (the flaw that was found in single-server changes in 2015; it costs nothing to rule out here
too).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raft.core.progress import Progress
from raft.core.roles import Leader
from raft.core.snapshots import Snapshots
from raft.core.types import Config, EntryKind, Index, NodeId


class Membership(Snapshots):
    """The leader's side of a change; what every server does with a configuration entry is in `base`."""

    __slots__ = ()

    def change_config(
        self,
        voters: Iterable[NodeId],
        learners: Iterable[NodeId] = (),
        addresses: Iterable[tuple[NodeId, str]] = (),
        *,
        now_us: int,
    ) -> Index | str:
        """Begins a change; returns the index of its first entry, or a sentence that says why not.

        The addresses are added to those that are known.
        """
        self.now_us = now_us
        known = tuple(sorted({**dict(self.config.addresses), **dict(addresses)}.items()))
        new = Config(tuple(sorted(set(voters))), (), tuple(sorted(set(learners))), known)
        refusal = self._refuses_config(new)
        if refusal is not None:
            return refusal
        if new.voters != self.voters:
            new = Config(new.voters, self.voters, new.learners, known)
        return self._append_config(new)

    def _refuses_config(self, new: Config) -> str | None:
        """Why this change may not begin now, if it may not."""
        role = self.role
        if not isinstance(role, Leader):
            return "this node is not the leader"
        if not new.voters or set(new.voters) & set(new.learners):
            return "a cluster needs voters, and nobody is voter and learner at once"
        if self.config.outgoing or self._configs[-1][0] > self.commit_index:
            return "another change of membership is under way"
        if self.log.term(self.commit_index) != self.term:
            return "the leader has not committed an entry of its own term yet"
        for name in new.voters:
            if name in self.config.learners and self._lags(role.progress[name]):
                return f"{name} has not caught up yet and would hold up every commit"
        return None

    def _promote_learners(self, role: Leader) -> None:
        """Makes voters of the learners that have caught up, when no other change is under way (thesis 4.2.1)."""
        ready = {name for name in self.config.learners if not self._lags(role.progress[name])}
        if ready:
            rest = [name for name in self.config.learners if name not in ready]
            self.change_config((*self.voters, *ready), rest, now_us=self.now_us)

    def _lags(self, progress: Progress) -> bool:
        """Whether a learner is behind, or away: of one that was never heard of nothing is known to be near."""
        if not progress.match_index or self.now_us - progress.heard_us > self.options.election_timeout_us_max:
            return True
        return self.commit_index - progress.match_index > self.options.entries_per_append_max

    def _append_config(self, config: Config) -> Index:
        """Appends a membership, without the addresses of those who have left."""
        if config.addresses:
            members = config.members
            kept = tuple(one for one in config.addresses if one[0] in members)
            config = Config(config.voters, config.outgoing, config.learners, kept)
        return self._append_own(EntryKind.CONFIG, msgspec.json.encode(config))

    def _config_changed(self) -> None:
        """Keeps one Progress for each member, and none for anybody else."""
        role = self.role
        if not isinstance(role, Leader):
            return
        role.rounds_moved = True
        kept = role.progress
        members = (self.name, *self.peers)
        fresh = self.log.last_index  # probes from there; the first answer says where the logs agree
        role.progress = {name: kept.get(name) or Progress(fresh, self.now_us) for name in members}
        if role.transfer_to not in role.progress:
            role.transfer_to = None

    def _finish_config_change(self) -> None:
        """Takes the next step once a configuration is committed."""
        if self._configs[-1][0] > self.commit_index:
            return
        if self.config.outgoing:
            self._append_config(Config(self.voters, (), self.config.learners, self.config.addresses))
        elif self.name not in self.voters:
            self._send_heartbeats()  # the last word: everybody learns that it is committed
            self._become_follower(self.term, None)
