"""The exhaustive search finds nothing in the core, and the shortest way to what each of its bugs breaks."""

from collections import deque
from dataclasses import replace

import pytest

from raft.bugs import BUGS
from raft.core import AppendEntries, Core
from raft.explore import BUG_BOUNDS, DEFAULT, Bounds, explore
from raft.explore.__main__ import main
from raft.explore.bounds import LEASE
from raft.explore.search import Search
from raft.explore.symmetry import Renaming


def test_within_one_term_nothing_is_wrong():
    report = explore(Bounds(term_max=1, writes=1, crashes=1))
    assert (report.complete, report.violation) == (True, None)
    assert report.states > 1000
    for sight in ("a leader", "a committed entry", "a crash"):
        assert report.sights[sight] > 100


def test_messages_that_overtake_each_other_break_nothing():
    report = explore(Bounds(nodes=2, writes=2, crashes=0, kept_per_link=2))
    assert (report.complete, report.violation) == (True, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(writes=0, crashes=1),
        Bounds(writes=1, crashes=0),
        Bounds(writes=0, crashes=0, heartbeats=1),
        Bounds(writes=0, crashes=0, reads=1),
        Bounds(nodes=2, writes=2, crashes=1, reads=1, heartbeats=1),
    ],
)
def test_within_two_terms_nothing_is_wrong(bounds):
    report = explore(bounds)
    assert (report.complete, report.violation) == (True, None)
    assert report.sights["a second leader"] > 10
    assert bounds.nodes == 2 or report.sights["logs that differ at an index"] > 10


QUICK = {
    "vote-not-persisted": ("Election Safety", 7),
    "term-not-persisted": ("Election Safety", 7),
    "duplicate-vote-counted": ("Election Safety", 8),
    "stale-vote-reply-counted": ("Election Safety", 7),
    "vote-twice": ("Monotonic vote", 4),
    "vote-cleared-same-term": ("Monotonic vote", 5),
    "uptodate-wrong-order": ("Leader Completeness", 9),
    "uptodate-skipped": ("Leader Completeness", 8),
    "ack-before-majority": ("State Machine Safety", 6),
    "quorum-one-short": ("State Machine Safety", 6),
    "quorum-even-off-by-one": ("Election Safety", 6),
    "truncate-without-conflict": ("Monotonic commit", 8),
    "follower-commits-unchecked": ("State Machine Safety", 7),
    "stale-suffix-retained": ("Log Matching", 8),
    "ack-before-fsync": ("Election Safety", 6),
    "prevote-counted-as-vote": ("Election Safety", 8),
    "config-not-rolled-back": ("Membership", 10),
    "joint-one-majority": ("Leader Completeness", 9),
}
SLOW = {
    "commit-prior-term": ("Leader Completeness", 10),
    "stale-read": ("Linearizable reads", 12),
    "read-before-own-commit": ("Linearizable reads", 11),
    "read-quorum-short": ("Linearizable reads", 12),
    "read-round-reused": ("Linearizable reads", 14),
    "lease-too-long": ("Linearizable reads", 14),
}


@pytest.mark.parametrize(
    ("bug", "what", "steps"),
    [
        *((bug, *found) for bug, found in QUICK.items()),
        *(pytest.param(bug, *found, marks=pytest.mark.slow) for bug, found in SLOW.items()),
    ],
)
def test_the_shortest_way_to_what_a_bug_breaks(bug, what, steps):
    sentence, path = explore(BUG_BOUNDS[bug], bug=bug).violation
    assert sentence.startswith(what)
    assert len(path) == steps


def test_every_bug_of_the_core_is_found():
    assert set(BUG_BOUNDS) == {name for name, bug in BUGS.items() if bug.core}
    assert {*QUICK, *SLOW} == set(BUG_BOUNDS)


@pytest.mark.slow
def test_leases_hold_while_clocks_differ_as_stated():
    report = explore(LEASE)
    assert (report.complete, report.violation) == (True, None)
    assert report.sights["two leaders of different terms"] > 10_000


@pytest.mark.slow
def test_leases_do_not_hold_where_a_clock_stands_still():
    sentence, path = explore(replace(LEASE, slow_ticks=0)).violation
    assert sentence.startswith("Linearizable reads")
    assert path[-1] == "a takes a read (2)"
    assert "time passes, 0 ticks for a and 2 for the others" in path


class CountsFromTheAnswer(Core):
    """As short a lease as it should be, that begins when its heartbeat is confirmed."""

    __slots__ = ()

    def _extend_lease(self, role):
        role.sent_us = deque((seq, self.now_us) for seq, _ in role.sent_us)
        super()._extend_lease(role)


@pytest.mark.slow
def test_time_passes_in_steps_that_are_small_enough():
    search = Search(LEASE)
    search.automaton.core_class = CountsFromTheAnswer
    assert search.run().violation[0].startswith("Linearizable reads")


def test_clocks_move_ages_only_and_as_far_as_they_matter():
    search = Search(LEASE)
    clocks = search.clocks
    node = clocks.initial(0, ())
    assert clocks.may_campaign(clocks.nodes.values[node])
    assert clocks.later(0, node, 2) == node
    follower = clocks.react(0, node, clocks.number(AppendEntries("b", "a", 1, 0, 0, 0, 1, ()))).node
    ages = []
    for _ in range(4):
        ages.append(clocks.nodes.values[follower].clock.heard)
        follower = clocks.later(0, follower, 2)
    assert ages == [0, 2, 4, 4]


def test_renaming_there_and_back_changes_nothing():
    search = Search(Bounds(term_max=1, writes=1, crashes=0))
    search.run()
    nodes, worlds, automaton = search.automaton.nodes, search.worlds, search.automaton
    there = Renaming(automaton, worlds, (1, 2, 0), 1)
    back = Renaming(automaton, worlds, (2, 0, 1), 1)
    for number in range(0, len(nodes.values) - 3, 7):
        three = (number, number + 1, number + 2)
        assert tuple(back.nodes(tuple(there.nodes(three)))) == three
    for number in range(len(worlds.values)):
        assert back.world(there.world(number)) == number


def test_bounds_end_a_search_that_would_go_on():
    report = explore(replace(DEFAULT, states_max=50))
    assert not report.complete
    assert report.violation is None


def test_what_the_command_tells(capsys):
    assert main(["--term-max", "1", "--writes", "0", "--crashes", "0"]) == 0
    assert "; all there are\n" in capsys.readouterr().out
    assert main(["vote-twice"]) == 1
    out = capsys.readouterr().out
    assert "Monotonic vote: it changed in its term, after 4 steps:\n" in out
    assert "RequestVote" in out
    assert main(["--seconds-max", "0"]) == 2
    assert "; not all there are\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("no-such-bug", "'no-such-bug': there is none; these are: stale-read, "),
        ("retry-not-deduped", "none of the core's"),
    ],
)
def test_what_it_cannot_search_is_named(capsys, argument, why):
    assert main([argument]) == 254
    assert why in capsys.readouterr().err


def test_bad_arguments_are_named(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--nodes", "-1"])
    assert exit_.value.code == 254
    assert "-1 is negative" in capsys.readouterr().err
