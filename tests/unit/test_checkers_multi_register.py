"""multi-register without an initial value: the first read of a key settles it, and binds."""

from __future__ import annotations

import pytest

from checkers import History, Op, check_linearizable, model_by_name
from checkers.groups import check_multi_register


def history(*results):
    """Reads of x by processes one after the other."""
    lines = []
    for i, value in enumerate(results):
        for type_, seen in (("invoke", None), ("ok", value)):
            lines.append(
                Op(len(lines), (len(lines) + 1) * 1000, i, type_, "txn", value=[["read", "x", seen]])
            )
    return lines


@pytest.mark.parametrize(
    ("results", "initial", "valid"),
    [
        ((5, 5), None, "valid"),
        ((5, 6), None, "invalid"),
        ((None, 5, None, 5), None, "valid"),
        ((5, 5), {"x": 5}, "valid"),
        ((5, 5), {"x": 4}, "invalid"),
    ],
)
def test_first_reads(results, initial, valid):
    """What nobody said may be anything, but only one thing."""
    verdict = check_linearizable(history(*results), model_by_name("multi-register", initial))
    assert verdict.valid == valid


def test_groups_whose_completions_leave_out_their_key():
    """They belong to what was invoked."""
    lines = []
    for key, type_, seen in (("g", "ok", 5), ("h", "fail", 0), ("g", "ok", 6)):
        steps = [["write", "x", seen]] if seen else []
        for kind in ("invoke", type_):
            lines.append(
                Op(len(lines), len(lines) + 1, 0, kind, "txn", key if kind == "invoke" else None, steps)
            )
    verdict = check_multi_register(History.of(lines))
    assert (verdict.valid, verdict.keys, verdict.operations) == ("valid", 2, 2)
    assert check_multi_register(History.of(lines[2:4])).valid == "valid"


def test_groups_are_apart_for_the_model_too():
    """The same name in two groups is two registers."""
    rows = [("g", ["write", "x", 1], None), ("h", ["write", "x", 2], None), ("g", ["read", "x", None], 1)]

    def verdict(seen):
        lines = []
        for key, (f, name, value), saw in [*rows, ("h", ["read", "x", None], seen)]:
            for kind in ("invoke", "ok"):
                step = [f, name, saw if kind == "ok" and f == "read" else value]
                lines.append(Op(len(lines), len(lines) + 1, 0, kind, "txn", key, [step]))
        return check_linearizable(lines, "multi-register")

    assert (verdict(2).valid, verdict(2).keys) == ("valid", 2)
    assert (verdict(1).valid, verdict(1).failing_keys) == ("invalid", ('"h"',))
