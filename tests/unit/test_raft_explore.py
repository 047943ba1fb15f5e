"""The exhaustive search finds nothing in the core, and the shortest way to what a bug breaks."""

import pytest

from raft.explore import Bounds, explore, main


def test_within_one_term_nothing_is_wrong():
    outcome = explore(Bounds(nodes=3, term_max=1, writes=0, crashes=0, under_way_max=3))
    assert (outcome.complete, outcome.violation) == (True, None)
    assert outcome.states > 1000
    assert outcome.sights["a leader"] > 100
    assert outcome.sights["a committed entry"] > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(nodes=3, term_max=2, writes=0, crashes=0, under_way_max=2),
        Bounds(nodes=3, term_max=2, writes=0, crashes=1, under_way_max=2),
        Bounds(nodes=2, term_max=2, writes=1, crashes=0, under_way_max=3),
    ],
)
def test_within_two_terms_nothing_is_wrong(bounds):
    outcome = explore(bounds)
    assert (outcome.complete, outcome.violation) == (True, None)
    assert bounds.nodes == 2 or outcome.sights["two leaders of different terms"] > 10


@pytest.mark.parametrize(
    ("bug", "what", "steps"),
    [
        ("vote-twice", "Election Safety", 6),
        ("vote-not-persisted", "Election Safety", 7),
        ("ack-before-majority", "Leader Completeness", 6),
        ("quorum-one-short", "Leader Completeness", 6),
        ("uptodate-skipped", "Leader Completeness", 8),
    ],
)
def test_the_shortest_way_to_what_a_bug_breaks(bug, what, steps):
    outcome = explore(Bounds(nodes=3, term_max=2, writes=1, crashes=1, under_way_max=3), bug=bug)
    sentence, path = outcome.violation
    assert sentence.startswith(what)
    assert len(path) == steps
    assert path[0] == "a campaigns"


def test_a_search_that_is_cut_short_says_so():
    outcome = explore(Bounds(nodes=3, term_max=2, states_max=50))
    assert (outcome.complete, outcome.violation) == (False, None)


def test_the_command_prints_the_counter_example(capsys):
    assert main(["vote-twice"]) == 1
    out = capsys.readouterr().out
    assert "Election Safety: a and c both lead term 1\n  a campaigns\n" in out
