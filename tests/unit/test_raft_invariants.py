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
    with pytest.raises(
        InvariantViolated,
        match="Leader Completeness: b leads term 2 without entry 2, which a committed in term 1",
    ):
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
    with pytest.raises(
        InvariantViolated,
        match="State Machine Safety: b committed entry 1 of term 2, where a had committed one of term 1",
    ):
        invariants.check(two)


def test_the_commit_index_never_falls_and_stays_within_the_log(invariants):
    core = core_of(1, 1)
    core.commit_index = 2
    invariants.check(core)
    core.commit_index = 1
    with pytest.raises(InvariantViolated, match="Monotonic Commit: the index of a fell from 2 to 1"):
        invariants.check(core)
    core.commit_index = 3
    with pytest.raises(InvariantViolated, match="beyond the end of its log"):
        invariants.check(core)


def test_the_term_never_falls(invariants):
    core = core_of(term=3)
    invariants.check(core)
    core.term = 2
    with pytest.raises(InvariantViolated, match="Monotonic Term: that of a fell from 3 to 2"):
        invariants.check(core)


def test_a_vote_stays_given(invariants):
    core = core_of(term=3)
    core.role = Candidate()
    core.voted_for = "a"
    invariants.check(core)
    core.voted_for = "b"
    with pytest.raises(InvariantViolated, match="Monotonic Vote: a changed its vote of term 3 from a to b"):
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


def test_a_leader_may_lack_what_a_later_one_has_committed(invariants):
    """Its votes were on their way for long: it is deposed already, and does not know."""
    later = core_of(1, term=4)
    later.commit_index = 1
    invariants.check(later)
    invariants.check(leading(core_of(term=3, name="b")))


def test_the_membership_in_force_is_the_latest_in_the_log(invariants):
    core = core_of(1, 1)
    invariants.check(core)
    core._configs.append((2, core.config))
    core.log.append((Entry(3, 1, EntryKind.CONFIG, b'[["a"],[],[]]'),))
    with pytest.raises(
        InvariantViolated, match=r"Membership: a uses the configuration of entry 2, and .* is 3"
    ):
        invariants.check(core)


def test_the_membership_of_an_entry_that_was_removed_is_in_force_no_longer(invariants):
    core = core_of(1, 1, term=2)
    invariants.check(core)
    core._configs.append((2, core.config))
    core.log.truncate_from(2)
    with pytest.raises(InvariantViolated, match=r"Membership: a uses .* entry 2, .* is an earlier one"):
        invariants.check(core)


def test_a_violation_tells_what_happened_before():
    now_us = iter(range(0, 10_000_000, 500_000))
    invariants = Invariants(lambda: next(now_us))
    one = leading(core_of(1, term=3))
    one.commit_index = 1
    invariants.check(one)
    voter = core_of(1, name="c", term=3)
    voter.voted_for = "b"
    invariants.check(voter)
    invariants.restarted("b")
    with pytest.raises(InvariantViolated) as caught:
        invariants.check(leading(core_of(1, 3, term=3, name="b")))
    violated = caught.value
    assert (violated.property_name, violated.nodes, violated.index) == ("Election Safety", ("a", "b"), 0)
    assert violated.before == (
        "0.000 s: a is leader of term 3",
        "0.500 s: a committed up to 1",
        "1.000 s: c is follower of term 3",
        "1.500 s: c votes for b in term 3",
        "2.000 s: b started",
        "2.500 s: b is leader of term 3",
    )
