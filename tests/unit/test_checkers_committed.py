"""The narrower verdict that trusts the system's log, and what it finds in logs that contradict the clients."""

from __future__ import annotations

import pytest

from checkers import History, HistoryError, Op, check_linearizable, model_by_name
from checkers.committed import LoggedRequest, check_with_log, encode_log, narrowed, read_log

REGISTER = model_by_name("etcd-register")


def history(*steps):
    """Steps are (process, type, f, value); each at ten times its index."""
    return History.of([Op(i, 10 * (i + 1), p, t, f, value=v) for i, (p, t, f, v) in enumerate(steps)])


LATE_READ = history(
    (0, "invoke", "write", 1), (0, "info", "write", 1),
    (1, "invoke", "read", None), (1, "ok", "read", 1),
)  # fmt: skip
STALE_READ = history(
    (0, "invoke", "write", 1), (0, "info", "write", 1),
    (1, "invoke", "read", None), (1, "ok", "read", None),
)  # fmt: skip
LOGGED = LoggedRequest(0, "c0", 1, index=5, time_ns=15)
NOT_LOGGED = LoggedRequest(0, "c0", 1)


def both(lines, *requests, model=REGISTER):
    return check_linearizable(lines, model).valid, check_with_log(lines, model, requests).valid


def test_an_effect_that_a_client_saw_of_what_is_not_in_the_log():
    assert both(LATE_READ, LOGGED) == ("valid", "valid")
    assert both(LATE_READ, NOT_LOGGED) == ("valid", "invalid")


def test_a_read_that_misses_a_write_of_unknown_outcome_that_was_committed_before():
    assert both(STALE_READ, LOGGED) == ("valid", "invalid")
    assert both(STALE_READ, NOT_LOGGED) == ("valid", "valid")
    # known to be committed only after the read was called, at the same time, and at an unknown time: concurrent
    for time_ns in (30, 35, 99, None):
        assert both(STALE_READ, LoggedRequest(0, "c0", 1, 5, time_ns)) == ("valid", "valid")


def test_an_invocation_without_a_completion_is_bounded_too():
    open_write = history((0, "invoke", "write", 1), (1, "invoke", "read", None), (1, "ok", "read", None))
    assert both(open_write, LOGGED) == ("valid", "invalid")
    assert both(open_write, NOT_LOGGED) == ("valid", "valid")


def test_a_cas_in_the_log_may_have_found_another_value():
    lines = history(
        (0, "invoke", "cas", [7, 1]), (0, "info", "cas", [7, 1]),
        (1, "invoke", "read", None), (1, "ok", "read", None),
    )  # fmt: skip
    assert both(lines, LOGGED) == ("valid", "valid")


def test_an_operation_of_several_requests_is_left_out_only_if_none_is_in_the_log():
    second = LoggedRequest(0, "c0", 2)
    assert both(LATE_READ, NOT_LOGGED, second) == ("valid", "invalid")
    assert both(LATE_READ, LOGGED, second) == ("valid", "valid")
    assert both(STALE_READ, LOGGED, second) == ("valid", "valid")  # the one that writes may be the other


def test_answers_that_the_log_contradicts():
    done = history((0, "invoke", "write", 1), (0, "ok", "write", 1))
    refused = history((0, "invoke", "write", 1), (0, "fail", "write", 1))
    assert both(done, LOGGED) == ("valid", "valid")
    assert both(done, NOT_LOGGED) == ("valid", "invalid")
    assert both(refused, NOT_LOGGED) == ("valid", "valid")
    assert both(refused, LOGGED) == ("valid", "invalid")
    said = check_with_log(done, REGISTER, [NOT_LOGGED]).lines()
    assert said[1].strip() == (
        "operations that were answered ok and are not in the committed log: 1, invoked at index 0"
    )


def test_other_models_have_no_blind_writes():
    queue = model_by_name("fifo-queue")
    lines = history(
        (0, "invoke", "enqueue", 1), (0, "info", "enqueue", 1),
        (1, "invoke", "dequeue", None), (1, "ok", "dequeue", 1),
    )  # fmt: skip
    assert both(lines, NOT_LOGGED, model=queue) == ("valid", "invalid")
    assert both(lines, LOGGED, model=queue) == ("valid", "valid")


def test_without_times_nothing_is_bounded():
    lines = History.of(
        [Op(op.index, 0, op.process, op.type, op.f, value=op.value) for op in STALE_READ.lines]
    )
    assert narrowed(lines, [LOGGED]).bounded == 0


def test_what_is_invalid_without_the_log_stays_so():
    wrong = history((1, "invoke", "read", None), (1, "ok", "read", 3))
    assert both(wrong) == ("invalid", "invalid")


def test_a_log_of_another_run_is_refused():
    with pytest.raises(HistoryError, match="invoked at index 3, and the history has no invocation there"):
        check_with_log(LATE_READ, REGISTER, [LoggedRequest(3, "c0", 1)])


def test_files(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(encode_log([LOGGED, NOT_LOGGED]))
    assert read_log(path) == (LOGGED, NOT_LOGGED)
    path.write_text('{"op":0}\n')
    with pytest.raises(HistoryError, match="line 1 is no request"):
        read_log(path)
    with pytest.raises(HistoryError, match="run --with-log"):
        read_log(tmp_path / "none")
