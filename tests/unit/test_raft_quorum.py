"""Majorities against slow and obvious versions."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from raft.core.quorum import majority, reached


@given(st.integers(1, 9))
def test_any_two_majorities_share_a_member(size):
    """Election Safety rests on it."""
    members = range(size)
    for one in combinations(members, majority(size)):
        for other in combinations(members, majority(size)):
            assert set(one) & set(other)


@given(st.integers(1, 50))
def test_majority_is_the_smallest_that_does(size):
    """One member fewer, and two groups fit side by side."""
    assert 2 * majority(size) > size >= 2 * (majority(size) - 1)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9))
def test_reached_is_the_largest_number_a_majority_has(values):
    """Compared with counting for every candidate."""
    slow = max(v for v in range(21) if sum(x >= v for x in values) >= majority(len(values)))
    assert reached(values) == slow


@given(st.lists(st.integers(0, 20), min_size=1, max_size=9), st.data())
def test_reached_never_falls_when_a_member_advances(values, data):
    """The commit index is monotonic because match indexes are."""
    member = data.draw(st.integers(0, len(values) - 1))
    advanced = list(values)
    advanced[member] += data.draw(st.integers(0, 5))
    assert reached(advanced) >= reached(values)
