"""Delta debugging finds what matters, keeps its order, and never takes what the test refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.shrink.ddmin import ddmin


@settings(deadline=None)
@given(st.integers(0, 60), st.sets(st.integers(0, 59), max_size=6))
def test_it_finds_exactly_what_is_needed(count, needed):
    needed = {item for item in needed if item < count}
    assert ddmin(range(count), lambda kept: needed <= set(kept)) == sorted(needed)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 2**32))
def test_what_it_returns_was_accepted_also_where_the_test_is_not_monotone(items, salt):
    whole = list(enumerate(items))
    accepted = [whole]

    def test(kept):
        good = hash((salt, tuple(kept))) % 3 == 0
        if good:
            accepted.append(list(kept))
        return good

    assert ddmin(whole, test) in accepted


def test_no_single_item_can_be_left_out_of_the_result():
    def test(kept):
        return sum(kept) >= 50 and 7 in kept

    result = ddmin(range(20), test)
    assert test(result)
    assert not any(test([x for x in result if x != item]) for item in result)


def test_an_exception_of_the_test_ends_the_search():
    calls = []

    def test(kept):
        calls.append(kept)
        if len(calls) == 5:
            raise RuntimeError("enough")
        return False

    with pytest.raises(RuntimeError, match="enough"):
        ddmin(range(10), test)
    assert len(calls) == 5


def test_it_asks_far_less_often_than_there_are_sublists():
    calls = []

    def test(kept):
        calls.append(kept)
        return {100, 101, 900} <= set(kept)

    assert ddmin(range(1000), test) == [100, 101, 900]
    assert len(calls) < 300
