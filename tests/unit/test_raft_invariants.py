"""Each invariant is violated by a made-up state, and named."""

import pytest

from raft.core import Candidate, Core, Entry, EntryKind, HardState, Leader, Options, Saved
from raft.invariants import Invariants, InvariantViolated


def core_of(*terms, name="a", term=None, data=b""):
    entries = tuple(Entry(index, t, EntryKind.COMMAND, data) for index, t in enumerate(terms, 1))
    saved = Saved(HardState(term if term is not None else (terms[-1] if terms else 0)), entries)
    return Core(name, ("a", "b", "c"), saved, random=lambda: 0.5, now_us=0, options=Options())


def leading(core):
    core.role = Leader({})
    return core


@pytest.fixture
def invariants():
    return Invariants()


def test_a_healthy_history_passes(invariants):
    one, two = core_of(1, 1, term=2), core_of(1, 1, term=2, name="b")
    one.commit_index = 2
    for core in (one, two, leading(one), two):
        invariants.check(core)
    two.commit_index = 1
    invariants.check(two)


def test_election_safety(invariants):
    invariants.check(leading(core_of(term=3)))
    with pytest.raises(InvariantViolated, match="Election Safety: a and b both lead term 3"):
        invariants.check(leading(core_of(term=3, name="b")))


def test_leader_completeness(invariants):
    core = core_of(1, 1)
    core.commit_index = 2
    invariants.check(core)
    with pytest.raises(InvariantViolated, match="Leader Completeness: b leads term 2 without entry 2"):
        invariants.check(leading(core_of(1, term=2, name="b")))


def test_log_matching_of_contents(invariants):
    invariants.check(core_of(1, 1))
    with pytest.raises(InvariantViolated, match="Log Matching: entry 1 of term 1 at b"):
        invariants.check(core_of(1, 1, name="b", data=b"other"))


def test_log_matching_of_predecessors(invariants):
    invariants.check(core_of(1, 2))
    with pytest.raises(InvariantViolated, match="Log Matching: entry 2 of term 2 at b"):
        invariants.check(core_of(2, 2, name="b"))


def test_leader_append_only(invariants):
    core = leading(core_of(1, 1, term=2))
    invariants.check(core)
    core.log.truncate_from(2)
    with pytest.raises(InvariantViolated, match="Leader Append-Only: a changed entry 2"):
        invariants.check(core)


def test_a_follower_may_truncate(invariants):
    core = core_of(1, 1, term=2)
    invariants.check(core)
    core.log.truncate_from(2)
    invariants.check(core)


def test_state_machine_safety(invariants):
    one, two = core_of(1), core_of(2, name="b")
    one.commit_index = two.commit_index = 1
    invariants.check(one)
    with pytest.raises(InvariantViolated, match="State Machine Safety: b committed another entry 1"):
        invariants.check(two)


def test_the_commit_index_never_falls_and_stays_within_the_log(invariants):
    core = core_of(1, 1)
    core.commit_index = 2
    invariants.check(core)
    core.commit_index = 1
    with pytest.raises(InvariantViolated, match="commit index of a fell from 2 to 1"):
        invariants.check(core)
    core.commit_index = 3
    with pytest.raises(InvariantViolated, match="beyond the end of its log"):
        invariants.check(core)


def test_the_term_never_falls(invariants):
    core = core_of(term=3)
    invariants.check(core)
    core.term = 2
    with pytest.raises(InvariantViolated, match="term of a fell from 3 to 2"):
        invariants.check(core)


def test_a_vote_stays_given(invariants):
    core = core_of(term=3)
    core.role = Candidate()
    core.voted_for = "a"
    invariants.check(core)
    core.voted_for = "b"
    with pytest.raises(InvariantViolated, match="changed its vote of term 3 from a to b"):
        invariants.check(core)


def test_a_vote_stays_given_across_a_restart(invariants):
    core = core_of(term=3)
    core.voted_for = "a"
    invariants.check(core)
    invariants.restarted("a")
    again = core_of(1)
    invariants.check(again)  # what was not synced may be gone


def test_compacted_entries_still_count(invariants):
    core = core_of(1, 1, 1)
    core.commit_index = 3
    invariants.check(core)
    core.log.compact(2)
    invariants.check(core)
    other = core_of(2, 2, 2, name="b")
    other.commit_index = 2
    with pytest.raises(InvariantViolated, match="State Machine Safety"):
        invariants.check(other)
