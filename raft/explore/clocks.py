"""Nodes with clocks: time passes in steps, at a different rate for one of them, and leases are in use.

Theory of operation
    Of a clock nothing matters but differences, so a node's state has ages instead of times, and now is always the
    same moment. Ages beyond an election timeout are one. When time passes, all clocks move on: by `FAST` ticks, and
    one of them, which may be another one each time, by fewer. With half as many ticks the clocks differ by just as much
    as `lease_drift_max` allows here; a leader whose clock is the slow one keeps its lease for the longest time, and
    voters with fast ones forget their promise the soonest, so no other distribution of rates is worse.

    A node may campaign as soon as it has not heard of a leader for the shortest election timeout, and a leader that
    nobody answers does not step down: both are more than the core does, so what holds here holds there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from raft.core import Core, Entry, EntryKind, HardState, Leader, Options
from raft.explore.model import Ages, Automaton, NodeState

ELECTION_TICKS = 4  # a tick is a microsecond to the core
FAST_TICKS = 2
_NOW_US = 1_000
OPTIONS = Options(
    election_timeout_us_min=ELECTION_TICKS,
    election_timeout_us_max=ELECTION_TICKS,
    heartbeat_us=1,
    pre_vote=False,
    lease_reads=True,
    lease_drift_max=0.5,
    snapshot_entries=1 << 30,
)


class ClockedAutomaton(Automaton):
    """The core with its clock, asked."""

    now_us = _NOW_US

    def initial(self, at: int, terms: Sequence[int]) -> int:
        """A node that has heard of nobody for so long that it may vote for anybody."""
        entries = tuple(Entry(index, term, EntryKind.COMMAND) for index, term in enumerate(terms, 1))
        durable = (HardState(terms[-1] if terms else 0), entries)
        core = self._core(self.names[at], durable)
        core.heard_us -= ELECTION_TICKS
        return self._freeze(core, durable)

    def may_campaign(self, state: NodeState) -> bool:
        """Whether a node's election timeout may have passed."""
        assert state.clock is not None
        return state.role != "leader" and state.clock.heard >= ELECTION_TICKS

    def later(self, at: int, node: int, ticks: int) -> int:
        """The node once its clock has moved on by so many ticks."""
        outcome = self.react(at, node, ("pass", ticks))
        assert not outcome.sent, "by itself, time changes ages only"
        return outcome.node

    def _happen(self, core: Core, event: object) -> None:
        match event:
            case ("pass", int(ticks)):
                core.heard_us -= ticks
                role = core.role
                if isinstance(role, Leader):
                    role.lease_us -= ticks
                    role.sent_us = deque((seq, at_us - ticks) for seq, at_us in role.sent_us)
            case _:
                super()._happen(core, event)

    def _revive(self, state: NodeState, name: str) -> Core:
        core, ages = super()._revive(state, name), state.clock
        assert ages is not None
        core.heard_us = _NOW_US - ages.heard
        if isinstance(core.role, Leader):
            core.role.lease_us = _NOW_US + ages.lease
            core.role.sent_us = deque((seq, _NOW_US - age) for seq, age in ages.sent)
        return core

    def _ages(self, core: Core) -> Ages:
        role = core.role
        heard = min(_NOW_US - core.heard_us, ELECTION_TICKS)
        if not isinstance(role, Leader):
            return Ages(heard, 0, ())
        sent = tuple((seq, min(_NOW_US - at_us, ELECTION_TICKS)) for seq, at_us in role.sent_us)
        return Ages(heard, max(0, role.lease_us - _NOW_US), sent)
