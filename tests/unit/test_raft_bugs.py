"""The seeded bugs: each is what it says, is reached by random faults, and the code without them is clean."""

from pathlib import Path

import pytest

from raft.bugs import BUGS, assemble
from raft.core import Core
from raft.kv import KeyValue
from raft.node import Node
from raft.testing import storm

QUICK = (  # bugs that a few short storms show
    "stale-read",
    "read-round-reused",
    "read-quorum-short",
    "term-not-persisted",
    "duplicate-vote-counted",
    "vote-twice",
    "uptodate-wrong-order",
    "uptodate-skipped",
    "ack-before-majority",
    "quorum-one-short",
    "quorum-even-off-by-one",
    "truncate-without-conflict",
    "follower-commits-unchecked",
    "stale-suffix-retained",
    "never-syncs",
    "retry-not-deduped",
    "definite-error-for-maybe",
    "vote-cleared-same-term",
    "vote-not-persisted",
)


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
    size = 4 if "E" in BUGS[name].needs else 5
    storms = (storm(assemble([name]), seed, seconds=60, size=size) for seed in range(8))
    assert any(result.client or result.internal for result in storms)


def test_a_storm_is_the_same_each_time():
    first, again = storm(Node, 7, seconds=5), storm(Node, 7, seconds=5)
    assert first.world.trace == again.world.trace
    assert first.world.events == again.world.events
    assert first.ops == again.ops


def test_the_guide_has_every_bug():
    guide = (Path(__file__).parents[2] / "docs" / "raft.md").read_text()
    assert all(f"| `{name}` | {bug.summary} |" in guide for name, bug in BUGS.items())
