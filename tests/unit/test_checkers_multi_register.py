"""multi-register without an initial value: the first read of a key settles it, and binds."""

from __future__ import annotations

import pytest

from checkers import Op, check_linearizable, model_by_name


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
