"""The workloads' checkers on histories in shapes that ours do not have, but those of other harnesses may."""

from __future__ import annotations

import json

import pytest

from checkers import parse_history
from checkers.catalogue import CheckerCall, run_checker


def check(name, *rows, **options):
    """Rows ``process, type, f, key, value``; without times, so that the order of the rows counts."""
    lines = [
        json.dumps({"process": process, "type": kind, "f": f, "key": key, "value": value})
        for process, kind, f, key, value in rows
    ]
    return run_checker(CheckerCall(name, options), parse_history("\n".join(lines).encode() + b"\n"))


def done(*asked):
    """Rows of operations one after another: process, f, key, argument, answer."""
    return [
        row
        for process, f, key, argument, answer in asked
        for row in ((process, "invoke", f, key, argument), (process, "ok", f, key, answer))
    ]


@pytest.mark.parametrize(("one", "other", "same"), [
    (1, 1.0, True),
    ([1, 2], [1, 2.0], True),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
    (None, None, True),
    (True, 1, False),
    ("true", True, False),
    ("[1]", [1], False),
    ("1", 1, False),
])  # fmt: skip
def test_keys_of_transactions_are_compared_as_values(one, other, same):
    """In transactions, and as the keys of single operations."""
    appended, read = [["append", one, 5]], [["r", other, [5] if same else []]]
    rows = done((0, "txn", None, appended, appended), (1, "txn", None, [["r", other, None]], read))
    assert check("list-append", *rows).valid == "valid"
    rows = done((0, "append", one, 5, 5), (1, "read", other, None, [5] if same else []))
    assert check("list-append", *rows).valid == "valid"
    rows = done((0, "write", one, 5, 5), (1, "read", other, None, 5 if same else None))
    assert check("rw-register", *rows).valid == "valid"


def test_an_answer_need_not_repeat_what_was_written():
    assert (
        check("list-append", *done((0, "append", "x", 3, None), (1, "read", "x", None, [3]))).valid == "valid"
    )
    assert (
        check("list-append", *done((0, "append", "x", 3, None), (1, "read", "x", None, []))).valid
        == "invalid"
    )
    assert check("rw-register", *done((0, "write", "x", 3, None), (1, "read", "x", None, 3))).valid == "valid"


@pytest.mark.parametrize(("checker", "f", "before", "after"), [
    ("list-append", "append", [], [1]),
    ("rw-register", "write", None, 1),
    ("causal", "write", None, 1),
])  # fmt: skip
def test_what_is_of_unknown_outcome_may_happen_after_what_its_process_does_later(checker, f, before, after):
    """A process whose operation timed out goes on under its number; the write takes effect after its read."""
    rows = [
        (0, "invoke", f, "x", 1),
        (0, "info", f, "x", 1),
        *done((0, "read", "x", None, before), (1, "read", "x", None, after)),
    ]
    assert check(checker, *rows).valid == "valid"
    rows += done((1, "read", "x", None, before))
    assert check(checker, *rows).valid == "invalid"


def test_the_order_of_time_is_told_by_lines_where_there_are_no_times():
    verdict = check("list-append", *done((0, "append", "x", 1, 1), (1, "read", "x", None, [])))
    assert "    T2 before T1: it ended with [1], and that began with [2] after it" in verdict.lines()


def test_causal_a_write_of_null_cannot_be_told_from_the_initial_value():
    rows = done((0, "write", "x", 1, 1), (0, "write", "x", None, None), (0, "read", "x", None, None))
    assert check("causal", *rows).valid == "unknown"
