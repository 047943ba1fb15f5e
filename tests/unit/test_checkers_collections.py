"""Sets, banks, counters, identifiers, queues: what is wrong is found, what is right is not."""

from __future__ import annotations

import pytest

from checkers import History, Op
from checkers.catalogue import CHECKERS, CheckerCall, run_checker


def history(*rows):
    """Rows ``process, begin, end, f, argument, kind, result``, the last two optional: ok, and the argument."""
    events = []
    for process, begin, end, f, argument, *rest in rows:
        kind = rest[0] if rest else "ok"
        result = rest[1] if len(rest) > 1 else argument
        events.append((begin, process, "invoke", f, argument))
        events.append((end, process, kind, f, result))
    events.sort(key=lambda event: event[0])
    return History.of(
        Op(n, time * 1_000_000, process, kind, f, value=value)
        for n, (time, process, kind, f, value) in enumerate(events)
    )


def check(name, *rows, **options):
    return run_checker(CheckerCall(name, options), history(*rows))


ADDED = [(0, 10, 20, "add", 1), (0, 21, 30, "add", 2, "info"), (1, 10, 20, "add", 3, "fail")]


@pytest.mark.parametrize(
    ("read", "valid", "anomaly"),
    [
        ([1], "valid", None),
        ([1, 2], "valid", None),
        ([2], "invalid", "lost"),
        ([1, 3], "invalid", "unexpected"),
        ([1, 9], "invalid", "unexpected"),
        ([1, 1], "invalid", "duplicated"),
    ],
)
def test_set_looks_at_the_last_read(read, valid, anomaly):
    verdict = check("set", *ADDED, (2, 5, 6, "read", None, "ok", []), (2, 40, 50, "read", None, "ok", read))
    assert verdict.valid == valid
    assert list(verdict.anomalies) == ([anomaly] if anomaly else [])


def test_a_set_that_was_never_read_is_unknown():
    assert check("set", *ADDED).valid == "unknown"
    assert check("set-full", *ADDED).valid == "unknown"
    assert check("set-full", (2, 40, 50, "read", None, "ok", [])).valid == "unknown"


def test_set_full_says_when_an_element_was_stale_and_for_how_long():
    rows = [
        (0, 10, 20, "add", 1),
        (1, 30, 40, "read", None, "ok", []),
        (1, 50, 60, "read", None, "ok", [1]),
    ]
    verdict = check("set-full", *rows)
    assert verdict.valid == "invalid"
    assert list(verdict.anomalies) == ["stale"]
    assert "begun 10.0 ms later" in verdict.evidence[0]
    assert any("stable latency" in note for note in verdict.notes)
    loose = check("set-full", *rows, linearizable=False)
    assert loose.valid == "valid"


def test_set_full_an_element_that_goes_away_is_lost_in_any_set():
    verdict = check(
        "set-full",
        (0, 10, 20, "add", 1),
        (1, 30, 40, "read", None, "ok", [1]),
        (1, 50, 60, "read", None, "ok", []),
        linearizable=False,
    )
    assert verdict.valid == "invalid"
    assert list(verdict.anomalies) == ["lost"]
    assert verdict.at == (5,)


def test_set_full_an_add_of_unknown_outcome_must_stay_once_it_was_seen():
    seen = [(0, 10, 20, "add", 1, "info"), (1, 30, 40, "read", None, "ok", [1])]
    gone = (1, 50, 60, "read", None, "ok", [])
    assert check("set-full", *seen, (1, 50, 60, "read", None, "ok", [1])).valid == "valid"
    assert check("set-full", *seen, gone).valid == "invalid"
    assert (
        check("set-full", seen[0], gone, (0, 61, 70, "add", 2), (1, 80, 90, "read", None, "ok", [2])).valid
        == "valid"
    )


def test_set_full_a_read_that_is_concurrent_with_the_add_may_miss_it():
    rows = [(0, 10, 20, "add", 1), (1, 15, 40, "read", None, "ok", []), (1, 50, 60, "read", None, "ok", [1])]
    assert check("set-full", *rows).valid == "valid"


def test_set_full_finds_duplicates_in_one_read():
    """Jepsen's own check for this is dead code."""
    verdict = check("set-full", (0, 10, 20, "add", 1), (1, 30, 40, "read", None, "ok", [1, 1]))
    assert verdict.valid == "invalid"
    assert "duplicated" in verdict.anomalies


@pytest.mark.parametrize(
    ("balances", "anomaly"),
    [
        ({"0": 6, "1": 4}, None),
        ([[0, 6], [1, 4]], None),
        ({"0": 6, "1": 5}, "wrong-total"),
        ({"0": 11, "1": -1}, "negative-value"),
        ({"0": 6, "2": 4}, "unexpected-key"),
        ({"0": 10, "1": None}, "null-balance"),
    ],
)
def test_bank(balances, anomaly):
    verdict = check("bank", (0, 10, 20, "read", None, "ok", balances), total=10, accounts=2)
    assert verdict.valid == ("invalid" if anomaly else "valid")
    assert list(verdict.anomalies) == ([anomaly] if anomaly else [])


def test_bank_allows_debts_if_asked_to_and_is_unknown_without_a_read():
    assert (
        check("bank", (0, 10, 20, "read", None, "ok", {"0": 11, "1": -1}), total=10, negative=True).valid
        == "valid"
    )
    assert check("bank", (0, 10, 20, "transfer", {"from": 0, "to": 1, "amount": 1})).valid == "unknown"


@pytest.mark.parametrize(
    ("value", "valid"), [(0, False), (1, True), (3, True), (6, True), (7, False), (4, True)]
)
def test_counter_reads_are_within_bounds(value, valid):
    """1 is acknowledged, 2 is in progress, 3 is of unknown outcome, 4 failed, 5 came later."""
    verdict = check(
        "counter",
        (0, 10, 20, "add", 1),
        (1, 10, 20, "add", 3, "info"),
        (2, 10, 20, "add", 4, "fail"),
        (0, 25, 60, "add", 2),
        (3, 30, 40, "read", None, "ok", value),
        (4, 70, 80, "add", 5),
    )
    assert (verdict.valid == "valid") is valid


@pytest.mark.parametrize(("value", "valid"), [(-3, False), (-2, True), (1, True), (2, False)])
def test_counter_counts_down_too(value, valid):
    verdict = check(
        "counter",
        (0, 10, 20, "add", 1),
        (1, 25, 60, "add", -3),
        (3, 30, 40, "read", None, "ok", value),
    )
    assert (verdict.valid == "valid") is valid


def test_unique_ids():
    assert (
        check(
            "unique-ids", (0, 10, 20, "generate", None, "ok", 1), (1, 10, 20, "generate", None, "ok", 2)
        ).valid
        == "valid"
    )
    verdict = check(
        "unique-ids", (0, 10, 20, "generate", None, "ok", 1), (1, 30, 40, "generate", None, "ok", 1)
    )
    assert verdict.valid == "invalid"
    assert "[0..1] of process 0 and to [2..3] of process 1" in verdict.evidence[0]
    assert check("unique-ids", (0, 10, 20, "generate", None, "info")).valid == "unknown"


PUT = [(0, 10, 20, "enqueue", "a"), (0, 30, 40, "enqueue", "b")]


def taking(*elements, start=50):
    return [
        (1, start + 20 * n, start + 20 * n + 10, "dequeue", None, "ok", e) for n, e in enumerate(elements)
    ]


@pytest.mark.parametrize(
    ("taken", "anomaly"),
    [
        (["a", "b", None], None),
        (["a", "a"], "not-in-queue"),
        (["c"], "not-in-queue"),
        (["b", "a"], "order"),
        (["b"], "order"),
        ([None, "a", "b"], "not-empty"),
    ],
)
def test_a_fifo_queue(taken, anomaly):
    verdict = check("queue", *PUT, *taking(*taken), fifo=True)
    assert list(verdict.anomalies) == ([anomaly] if anomaly else [])
    if anomaly in ("order", "not-empty"):
        assert check("queue", *PUT, *taking(*taken)).valid == "valid"


def test_a_queue_in_which_a_lost_dequeue_may_have_taken_the_first_is_in_order():
    lost = (2, 45, 46, "dequeue", None, "info")
    named = (2, 45, 46, "dequeue", None, "info", "a")
    assert check("queue", *PUT, lost, *taking("b"), fifo=True).valid == "valid"
    assert check("queue", *PUT, named, *taking("b"), fifo=True).valid == "valid"


def test_concurrent_enqueues_may_come_out_in_any_order():
    both = [(0, 10, 20, "enqueue", "a"), (2, 15, 25, "enqueue", "b")]
    assert check("queue", *both, *taking("b", "a"), fifo=True).valid == "valid"


def drain(*elements):
    return (3, 200, 210, "drain", None, "ok", list(elements))


@pytest.mark.parametrize(
    ("rows", "valid", "anomaly"),
    [
        ([*taking("a"), drain("b")], "valid", None),
        ([*taking("a"), drain()], "invalid", "lost"),
        ([*taking("a"), drain("a", "b")], "invalid", "duplicated"),
        ([drain("a", "b", "z")], "invalid", "unexpected"),
        ([*taking("a")], "unknown", None),
        ([*taking("a", None)], "invalid", "lost"),
        ([(2, 45, 46, "dequeue", None, "info"), drain("b")], "unknown", None),
        ([(2, 45, 46, "dequeue", None, "info", "a"), drain("b")], "valid", None),
        ([(2, 45, 46, "dequeue", None, "info", "a"), drain("a")], "invalid", "lost"),
    ],
)
def test_total_queue(rows, valid, anomaly):
    verdict = check("total-queue", *PUT, *rows)
    assert verdict.valid == valid, verdict.lines()
    assert list(verdict.anomalies) == ([anomaly] if anomaly else [])


def test_an_enqueue_of_unknown_outcome_may_come_out_or_not():
    rows = [*PUT, (2, 10, 20, "enqueue", "c", "info")]
    assert check("total-queue", *rows, drain("a", "b")).valid == "valid"
    assert check("total-queue", *rows, drain("a", "b", "c")).notes == ("recovered 1",)
    assert (
        check("total-queue", *PUT, (2, 10, 20, "enqueue", "c", "fail"), drain("a", "b", "c")).valid
        == "invalid"
    )


@pytest.mark.parametrize("name", CHECKERS)
def test_nothing_is_never_a_pass(name):
    assert run_checker(CheckerCall(name), History.of([])).valid == "unknown"
