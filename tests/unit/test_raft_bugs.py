"""The seeded bugs: each is what it says, is reached by random faults, and the code without them is clean."""

import pytest

from raft.bugs import BUGS, assemble
from raft.core import Core
from raft.kv import KeyValue
from raft.node import Node
from raft.testing import storm

QUICK = {  # bugs that a short storm shows, and a seed that does
    "stale-read": 1,
    "read-round-reused": 0,
    "read-quorum-short": 0,
    "term-not-persisted": 0,
    "duplicate-vote-counted": 0,
    "vote-twice": 0,
    "uptodate-wrong-order": 0,
    "uptodate-skipped": 0,
    "ack-before-majority": 0,
    "quorum-one-short": 0,
    "quorum-even-off-by-one": 0,
    "truncate-without-conflict": 0,
    "follower-commits-unchecked": 0,
    "stale-suffix-retained": 0,
    "never-syncs": 0,
    "retry-not-deduped": 0,
    "definite-error-for-maybe": 0,
}


def test_no_bug_is_the_node_itself():
    assert assemble([]) is Node


def test_an_unknown_bug_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="no seeded bug is called 'stale-reads'; there are: stale-read, "):
        assemble(["stale-reads"])


@pytest.mark.parametrize("bug", BUGS.values(), ids=list(BUGS))
def test_a_bug_overrides_few_methods_and_each_exists_in_what_it_breaks(bug):
    """A bug that overrides a method that was renamed since would silently be none."""
    parts = [(bug.core, Core), (bug.machine, KeyValue), (bug.node, Node)]
    assert any(part is not None for part, _ in parts)
    for part, base in parts:
        if part is not None:
            own = [name for name, value in vars(part).items() if callable(value)]
            assert 1 <= len(own) <= 3
            assert all(hasattr(base, name) for name in own)


def test_bugs_combine():
    node = assemble(["stale-read", "retry-not-deduped", "never-syncs"])
    assert issubclass(node, Node)
    assert node.core_class is not Core
    assert node.machine_class is not KeyValue


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_storm_finds_nothing_in_the_code_as_it_is(seed):
    """Random faults for a minute, invariants after every event, and clients that know what they must read."""
    result = storm(Node, seed, seconds=60)
    assert (result.client, result.internal) == ([], [])
    assert result.ops > 1000
    members = result.world.nodes[result.world.leader()].core.config.members
    assert len({result.world.nodes[name].machine.digest() for name in members}) == 1
    assert len({result.world.nodes[name].applied_index for name in members}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_storm_finds_the_bug(name):
    result = storm(assemble([name]), QUICK[name], seconds=60, size=4 if "E" in BUGS[name].needs else 5)
    assert result.client or result.internal


def test_a_storm_is_the_same_each_time():
    first, again = storm(Node, 7, seconds=5), storm(Node, 7, seconds=5)
    assert first.world.trace == again.world.trace
    assert first.world.events == again.world.events
    assert first.ops == again.ops
