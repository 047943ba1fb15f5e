"""The log in memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.core import Entry, EntryKind
from raft.core.log import Log


def log_of(*terms):
    return Log([Entry(index, term, EntryKind.COMMAND) for index, term in enumerate(terms, 1)])


sorted_terms = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def test_an_empty_log_ends_before_the_first_entry():
    log = log_of()
    assert (log.last_index, log.last_term) == (0, 0)
    assert log.term(0) == 0
    assert log.term(1) is None


def test_term_of_what_is_not_there_is_none():
    log = log_of(1, 1, 2)
    assert [log.term(index) for index in (-1, 0, 1, 2, 3, 4)] == [None, 0, 1, 1, 2, None]


def test_append_keeps_the_log_without_gaps():
    log = log_of(1)
    log.append([Entry(2, 3, EntryKind.NOOP)])
    assert (log.last_index, log.last_term) == (2, 3)
    with pytest.raises(AssertionError):
        log.append([Entry(4, 3, EntryKind.NOOP)])


def test_truncate_removes_the_entry_and_all_after_it():
    log = log_of(1, 1, 2)
    log.truncate_from(2)
    assert (log.last_index, log.last_term) == (1, 1)
    log.truncate_from(1)
    assert (log.last_index, log.last_term) == (0, 0)


def test_slice_has_both_ends():
    assert [entry.index for entry in log_of(1, 1, 2, 2).slice(2, 3)] == [2, 3]


@given(sorted_terms, st.integers(0, 15), st.integers(0, 6))
def test_last_not_above_is_what_a_scan_finds(terms, index, term):
    """The bisection against walking back one by one."""
    log = log_of(*terms)
    at = min(index, log.last_index)
    while at and log.term(at) > term:
        at -= 1
    assert log.last_not_above(index, term) == (at, log.term(at))


@given(sorted_terms, sorted_terms, st.integers(0, 12))
def test_one_hint_never_skips_a_place_where_two_logs_agree(leader_terms, follower_terms, prev_index):
    """Going back by the hint ends at or above the last place of agreement, and below where it began."""
    leader, follower = log_of(*leader_terms), log_of(*follower_terms)
    prev_index = min(prev_index, leader.last_index)
    agree = 0
    while leader.term(agree + 1) is not None and leader.term(agree + 1) == follower.term(agree + 1):
        agree += 1
    if follower.term(prev_index) == leader.term(prev_index):
        return
    hint = follower.last_not_above(prev_index, leader.term(prev_index))
    try_index, _ = leader.last_not_above(*hint)
    assert min(agree, prev_index) <= try_index < prev_index
