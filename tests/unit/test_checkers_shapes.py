"""The workloads' checkers on histories in shapes that ours do not have, but those of other harnesses may."""

from __future__ import annotations

import json

import pytest

from checkers import HistoryError, encode_header, parse_history
from checkers.catalogue import CHECKERS, CheckerCall, run_checker
from checkers.history import CheckerCallError


def check(name, *rows, initial=None, **options):
    """Rows ``process, type, f, key, value``; without times, so that the order of the rows counts."""
    lines = [encode_header(initial=initial).decode().strip()]
    lines += [
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


def test_an_element_may_be_added_again():
    """By whoever was told that it had failed, or does not know; the add that tells most counts."""
    added, failed = done((0, "add", "s", 1, 1)), [(0, "invoke", "add", "s", 1), (0, "fail", "add", "s", 1)]
    lost = [(2, "invoke", "add", "s", 1), (2, "info", "add", "s", 1)]
    has, has_not = done((1, "read", "s", None, [1])), done((1, "read", "s", None, []))
    for adds in ([*added, *failed], [*failed, *added], [*added, *lost], [*lost, *added]):
        for name in ("set", "set-full"):
            assert check(name, *adds, *has).valid == "valid"
            assert check(name, *adds, *has_not).anomalies == {"lost": 1}
    assert check("set-full", *added, *has_not, *added, *has).anomalies == {"stale": 1}


def test_set_an_add_that_was_acknowledged_after_the_last_read_began_may_be_missing():
    before, read = done((0, "add", "s", 1, 1)), done((1, "read", "s", None, [1]))
    assert check("set", *before, *read, *done((0, "add", "s", 2, 2))).valid == "valid"
    concurrent = [(0, "invoke", "add", "s", 2), read[0], (0, "ok", "add", "s", 2), read[1]]
    assert check("set", *before, *concurrent).valid == "valid"


def test_total_queue_what_went_in_after_the_queue_was_empty_may_be_inside():
    empty, put = done((1, "dequeue", "q", None, None)), done((0, "enqueue", "q", 1, 1))
    drained = done((1, "drain", "q", None, []))
    assert check("total-queue", *empty, *put).valid == "unknown"
    assert check("total-queue", *drained, *put).valid == "unknown"
    assert check("total-queue", *put, *empty).anomalies == {"lost": 1}
    assert check("total-queue", *put, *drained, *done((0, "enqueue", "q", 2, 2))).anomalies == {"lost": 1}


def test_queue_an_element_that_was_put_in_again_is_in_no_order():
    put, take = (0, "enqueue", "q"), (1, "dequeue", "q", None)
    rows = done((*put, 1, 1), (*take, 1), (*put, 2, 2), (*put, 1, 1), (*take, 2), (*take, 1))
    assert check("queue", *rows, fifo=True).valid == "valid"
    assert check("queue", *rows, *done((*take, 1)), fifo=True).anomalies == {"not-in-queue": 1}


def test_log_keys_are_text_where_polls_tell_them():
    rows = done((0, "send", 1, 5, [0, 5]), (0, "txn", None, [["send", 1, 6]], [["send", 1, [1, 6]]]))
    assert check("log", *rows, *done((1, "poll", None, None, {"1": [[0, 5], [1, 6]]}))).valid == "valid"
    assert check("log", *rows, *done((1, "poll", None, None, {"1": [[1, 6]]}))).anomalies == {"lost-write": 1}


def test_log_after_a_poll_of_unknown_outcome_its_process_may_be_anywhere():
    sent = done(*((0, "send", "k", 5 + n, [n, 5 + n]) for n in range(3)))
    everybody = done((2, "poll", None, None, {"k": [[0, 5], [1, 6], [2, 7]]}))
    first, third = (done((1, "poll", None, None, {"k": [[n, 5 + n]]})) for n in (0, 2))
    unknown = [(1, "invoke", "poll", None, None), (1, "info", "poll", None, None)]
    assert check("log", *sent, *everybody, *first, *unknown, *third).valid == "valid"
    assert check("log", *sent, *everybody, *first, *third).anomalies == {"poll-skip": 1}


def test_long_fork_reads_of_jepsen_have_micro_operations():
    def rows(*reads):
        asked = [["r", 1, None], ["r", 2, None]]
        return done(*((0, "read", None, asked, [["r", 1, one], ["r", 2, two]]) for one, two in reads))

    assert check("long-fork", *rows((None, None), (1, None), (1, 1))).valid == "valid"
    assert check("long-fork", *rows((None, 1), (1, None))).anomalies == {"long-fork": 1}


def test_g2_inserts_of_jepsen_have_their_key_in_the_value():
    one, other, same = (
        (n, "insert", None, v, v) for n, v in enumerate(([1, [1, None]], [2, [None, 2]], [1, [None, 3]]))
    )
    assert check("g2", *done(one, other)).valid == "valid"
    assert check("g2", *done(one, other, same)).anomalies == {"G2": 1}


def test_watch_a_write_may_answer_a_list_that_it_has_written():
    write, told = done((0, "write", "k", [7, 9], [7, 9])), done((0, "write", "k", [7, 9], [[7, 9], 3]))
    seen, not_seen = (
        done((1, "watch", None, 0, {"from": 0, "to": to, "events": [[3, "k", [7, 9]]][:n]}))
        for n, to in ((1, 9), (0, 9))
    )
    assert check("watch", *write, *seen).valid == "valid"
    assert check("watch", *told, *seen).valid == "valid"
    assert check("watch", *told, *not_seen).anomalies == {"gap": 1}


@pytest.mark.parametrize(
    ("value", "valid"), [(1, True), (1.0, True), (True, False), ("1", False), ([], False)]
)
def test_a_counter_is_a_number(value, valid):
    rows = done((0, "add", "c", 1, 1), (1, "read", "c", None, value))
    assert check("counter", *rows).valid == ("valid" if valid else "invalid")


@pytest.mark.parametrize(("value", "anomaly"), [(40.0, None), (40.5, "wrong-total"), (True, "null-balance")])
def test_balances_are_numbers(value, anomaly):
    verdict = check("bank", *done((0, "read", None, None, {"0": value, "1": 60})))
    assert list(verdict.anomalies) == ([anomaly] if anomaly else [])


def test_what_is_seen_before_anybody_began_to_put_it_in_is_unexpected():
    adds, reads = done((0, "add", "s", 1, 1)), done((1, "read", "s", None, [1]))
    assert check("set", *reads, *adds).anomalies == {"unexpected": 1}
    assert check("set-full", *reads, *adds, *reads).anomalies == {"unexpected": 1}
    assert check("set-full", adds[0], *reads, adds[1]).valid != "invalid"
    put, take, empty = (
        done((0, *row))
        for row in (("enqueue", "q", 1, 1), ("dequeue", "q", None, 1), ("drain", "q", None, []))
    )
    assert check("total-queue", *take, *put, *empty).anomalies == {"unexpected": 1}
    assert check("total-queue", put[0], *((1, *row[1:]) for row in take), put[1], *empty).valid == "valid"


def test_queue_a_dequeue_of_unknown_outcome_may_have_taken_what_another_one_names():
    """Of a dequeue that says what it took, or would have taken, it is not known either whether it did."""
    put, empty = done((0, "enqueue", "q", 1, 1)), done((2, "dequeue", "q", None, None))
    lost = [(1, "invoke", "dequeue", "q", None), (1, "info", "dequeue", "q", None)]
    named = [(1, "invoke", "dequeue", "q", None), (1, "info", "dequeue", "q", 1)]
    assert check("queue", *put, *lost, *empty, *named, fifo=True).valid != "invalid"
    assert check("queue", *put, *empty, *named, fifo=True).anomalies == {"not-empty": 1}


def test_multi_register_what_was_written_does_not_read_as_null():
    """Which the model of that name, as Knossos', takes for a read that says nothing."""
    write, read = (0, "txn", "g", [["w", "x", 1]], [["w", "x", 1]]), (1, "txn", "g", [["r", "x", None]])
    assert (
        check("multi-register", *done((*read, [["r", "x", None]]), write, (*read, [["r", "x", 1]]))).valid
        == "valid"
    )
    assert check("multi-register", *done(write, (*read, [["r", "x", None]]))).valid == "invalid"
    lost = [(1, "invoke", *read[1:]), (1, "info", *read[1:])]
    assert check("multi-register", *done(write), *lost).valid == "valid"


def test_multi_register_times_of_several_clocks_are_no_order():
    """Those of EDN; the order of the lines is that of the events."""
    lines = [
        "{:process 0, :type :invoke, :f :txn, :time 50, :value [[:w :x 1]]}",
        "{:process 0, :type :ok, :f :txn, :time 40, :value [[:w :x 1]]}",
        "{:process 1, :type :invoke, :f :txn, :time 30, :value [[:r :x nil]]}",
        "{:process 1, :type :ok, :f :txn, :time 20, :value [[:r :x 1]]}",
    ]
    history = parse_history("\n".join(lines).encode())
    assert run_checker(CheckerCall("multi-register"), history).valid == "valid"


def test_watch_after_one_of_unknown_outcome_its_process_may_be_anywhere():
    write = done((0, "write", "k", 5, [5, 1]), (0, "write", "k", 6, [6, 2]))
    first, second = (
        done((1, "watch", None, None, {"from": n, "to": n + 1, "events": [[n + 1, "k", 5 + n]]}))
        for n in (0, 1)
    )
    third = done((1, "watch", None, None, {"from": 2, "to": 3, "events": []}))
    lost = [(1, "invoke", "watch", None, None), (1, "info", "watch", None, None)]
    assert check("watch", *write, *first, *second, *third).valid == "valid"
    assert check("watch", *write, *first, *third).anomalies == {"not-resumed": 1}
    assert check("watch", *write, *first, *lost, *third).valid == "valid"


@pytest.mark.parametrize("name", CHECKERS)
def test_a_completion_is_of_what_was_invoked(name):
    asked, steps = (0, "invoke", "txn", "x", [["r", "a", None]]), [["r", "a", None]]
    with pytest.raises(
        HistoryError, match="index 1: process 0 completes 'read' but had invoked 'txn' at index 0"
    ):
        check(name, asked, (0, "ok", "read", "x", steps))
    with pytest.raises(
        HistoryError, match=r'index 1: .* of key "y" but had invoked it of key "x" at index 0'
    ):
        check(name, asked, (0, "ok", "txn", "y", steps))


def test_why_transactions_cannot_be_judged_is_one_sentence():
    rows = done((0, "append", "x", 1, 1), (0, "append", "x", 1, 1))
    assert check("list-append", *rows).cause == "1 is appended twice to x: elements must be unique"
    cause = check("list-append", *done((0, "write", "x", 1, 1))).cause
    assert cause == "[0..1] process 0: w x 1 writes; --checker rw-register is for that"


def test_transactions_of_any_values_are_told():
    """EDN has maps with keys that are no words, and sets."""
    lines = [
        "{:process 0, :type :invoke, :f :txn, :value [[:w :x {[1 2] #{3 true}}]]}",
        "{:process 0, :type :ok, :f :txn, :value [[:w :x {[1 2] #{3 true}}]]}",
        "{:process 0, :type :invoke, :f :txn, :value [[:r :x nil]]}",
        "{:process 0, :type :ok, :f :txn, :value [[:r :x {[1 2] #{3 false}}]]}",
    ]
    verdict = run_checker(CheckerCall("rw-register"), parse_history("\n".join(lines).encode()))
    assert 'unexpected-element: nobody wrote {"[1,2]":[3,false]} to :x' in verdict.evidence
    many = [*range(7), "a", True, {"b": None}]
    rows = done(*((0, "append", "x", one, one) for one in many), (1, "read", "x", None, many[:-1]))
    told = "\n".join(check("list-append", *rows).evidence)
    assert "r x [... 3, 4, 5, 6, a, true]" in told
    assert 'append x {"b":null}' in told


def test_a_set_without_reads_is_told_by_its_name():
    for key, cause in ((None, "no read succeeded"), ("s", "the set s was never read")):
        assert check("set", *done((0, "add", key, 1, 1))).cause == f"{cause}: there is nothing to check"
    assert (
        check("set", *done((0, "txn", None, [], []))).cause == "no read succeeded: there is nothing to check"
    )


@pytest.mark.parametrize(("name", "options", "kind"), [
    ("set-full", {"linearizable": "False"}, "true or false"),
    ("set-full", {"linearizable": 0}, "true or false"),
    ("queue", {"fifo": "no"}, "true or false"),
    ("bank", {"total": "abc"}, "an integer"),
    ("lease", {"ttl_ms": True}, "an integer"),
    ("list-append", {"model": 5}, "a word"),
])  # fmt: skip
def test_an_option_is_of_its_kind(name, options, kind):
    """A word such as False would count as true, and the answer would be to another question."""
    option, value = next(iter(options.items()))
    with pytest.raises(
        CheckerCallError, match=f"the option {option} of the checker {name} is {value!r}: give {kind}"
    ):
        check(name, **options)


def test_set_full_is_told_by_lines_where_there_are_no_times():
    rows = done((0, "add", None, 1, 1), (1, "read", None, None, []))
    told = "1 was known with [1]; the read [2..3] of process 1, begun after that, has it not"
    assert check("set-full", *rows).evidence == (f"lost (1): {told}, nor have later ones",)
    assert check("set-full", *rows, *done((1, "read", None, None, [1]))).evidence == (f"stale (1): {told}",)


@pytest.mark.parametrize("name", ["causal", "rw-register"])
def test_registers_begin_with_what_the_history_says(name):
    first, write = (0, "read", "x", None, 7), (0, "write", "x", 1, 1)
    assert check(name, *done(first, write, (0, "read", "x", None, 1)), initial=7).valid == "valid"
    assert check(name, *done(write, first), initial=7).valid == "invalid"
    assert check(name, *done(first, write)).valid == "invalid"
    assert (
        "7, the initial value, is written to x"
        in check(name, *done((0, "write", "x", 7, 7), first), initial=7).cause
    )


def test_counters_and_groups_begin_with_what_the_history_says():
    rows = done((0, "read", "c", None, 7), (0, "add", "c", 2, 2), (0, "read", "c", None, 9))
    assert check("counter", *rows, initial=7).valid == "valid"
    assert check("counter", *rows).valid == "invalid"
    rows = done((0, "txn", "g", [["r", "x", None]], [["r", "x", 7]]))
    assert check("multi-register", *rows, initial={"x": 7}).valid == "valid"
    assert check("multi-register", *rows, initial=7).valid == "valid"
    assert check("multi-register", *rows, initial={"x": 8}).valid == "invalid"


def test_what_begins_empty_cannot_be_judged_where_the_history_says_otherwise():
    rows = done((0, "add", "s", 1, 1), (0, "read", "s", None, [7, 1]))
    verdict = check("set", *rows, initial=[7])
    assert (verdict.valid, "begins with [7]" in verdict.cause) == ("unknown", True)
    assert check("set", *rows, initial=[]).anomalies == {"unexpected": 1}


def test_operations_that_a_checker_does_not_know_are_no_fault_of_the_system():
    swapped = done((0, "write", "x", 1, 1), (0, "cas", "x", [1, 2], [1, 2]), (0, "read", "x", None, 2))
    assert check("causal", *swapped).cause.startswith("the history has cas too")
    refused = done((0, "write", "x", 1, 1), (0, "read", "x", None, 1))
    refused[2:2] = [(1, "invoke", "cas", "x", [5, 6]), (1, "fail", "cas", "x", [5, 6])]
    assert check("causal", *refused).valid == "valid"
    removed = done((0, "add", "s", 1, 1), (0, "remove", "s", 1, 1), (0, "read", "s", None, []))
    for name in ("set", "set-full"):
        assert "removes elements" in check(name, *removed).cause
    counted = done((0, "add", "c", 5, 5), (0, "subtract", "c", 2, 2), (0, "read", "c", None, 3))
    assert check("counter", *counted).valid == "valid"
    assert check("counter", *counted, *done((0, "read", "c", None, 5))).valid == "invalid"


@pytest.mark.parametrize("answer", [5, True, "abc", 1.5, {"a": 1}])
@pytest.mark.parametrize(("name", "f", "good"), [
    ("set", "add", [1]),
    ("set-full", "add", [1]),
    ("session", "append", [1]),
    ("causal-reverse", "write", [1]),
    ("long-fork", "write", [1]),
    ("list-append", "append", [1]),
])  # fmt: skip
def test_an_answer_that_is_no_list_is_wrong(name, f, good, answer):
    """And no word is taken for its letters."""
    rows = done((0, f, "x", 1, 1), (1, "read", "x", None, good), (1, "read", "x", None, good))
    assert check(name, *rows).valid == "valid"
    verdict = check(name, *rows, *done((1, "read", "x", None, answer)))
    assert list(verdict.anomalies) == ["unexpected-element" if name == "list-append" else "malformed"]


@pytest.mark.parametrize("answer", [5, "abc", [1], [["a", 1, 2]]])
def test_an_answer_that_is_no_balances_is_wrong(answer):
    assert check("bank", *done((1, "read", None, None, answer))).anomalies == {"malformed": 1}


def test_a_drain_that_answers_no_list_took_out_what_nobody_put_in():
    rows = done((0, "enqueue", "q", 1, 1), (1, "drain", "q", None, "abc"))
    assert check("total-queue", *rows).anomalies == {"lost": 1, "unexpected": 1}


def test_long_values_are_cut():
    """A payload of a megabyte is no line to read."""
    long = "x" * 100_000
    rows = done(
        (0, "append", "k", long, long), (1, "read", "k", None, []), (1, "read", "k", None, [long, long + "y"])
    )
    rows += done((1, "read", "k", None, [{"deep": [long]}]))
    assert max(map(len, check("list-append", *rows).evidence)) < 1_000
    rows = done((0, "add", "k", long, long), (1, "read", "k", None, [{"deep": long}, long + "y"]))
    assert max(map(len, check("set", *rows).evidence)) < 1_000


def test_keys_of_transactions_are_those_of_their_group():
    """Of the workload multi-register each group has the same names."""
    rows = done(*((0, "txn", group, [["w", "x", 1]], [["w", "x", 1]]) for group in ("g", "h")))
    rows += done((1, "txn", "k", [["r", "x", None]], [["r", "x", None]]))
    assert check("rw-register", *rows).valid == "valid"
    verdict = check("rw-register", *rows, *done((1, "txn", "h", [["r", "x", None]], [["r", "x", None]])))
    assert any('it read ["h","x"] as null, which is earlier than 1' in line for line in verdict.evidence)
