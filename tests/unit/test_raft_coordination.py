"""Locks by leases, and watches, under random faults: what holds, and which seeded bug breaks it."""

import pytest

from raft.bugs import assemble
from raft.node import Node
from raft.testing.coordination import coordinate

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(2))
def test_no_two_hold_a_lock_watchers_miss_nothing_and_sessions_write_once(seed):
    result = coordinate(Node, seed, seconds=25)
    assert result.wrong == []
    assert result.held > 20
    assert result.changes > 500
    assert result.appended > 50
    world = result.world
    members = world.nodes[world.leader()].core.config.members
    assert len({world.nodes[name].machine.digest() for name in members}) == 1


@pytest.mark.parametrize(
    "bug",
    ["lease-expired-locally", "keep-alive-not-replicated", "session-expiry-not-replicated", "watch-gap"],
)
def test_the_bug_is_found(bug):
    assert any(coordinate(assemble([bug]), seed, seconds=15).wrong for seed in range(4))
