"""Sessions, causes, forks, logs, watches, leases: what is wrong is found and named, what is right is not."""

from __future__ import annotations

import random

import pytest

from checkers import History, Op
from checkers.catalogue import CheckerCall, run_checker


def check(name, *rows, **options):
    """Rows ``process, begin, end, f, key, argument, kind, result``, the last two optional: ok, and the argument."""
    events = []
    for process, begin, end, f, key, argument, *rest in rows:
        kind = rest[0] if rest else "ok"
        result = rest[1] if len(rest) > 1 else argument
        events.append((begin, process, "invoke", f, key, argument))
        events.append((end, process, kind, f, key, result))
    events.sort(key=lambda event: event[0])
    history = History.of(
        Op(n, time * 1_000_000, process, kind, f, key=key, value=value)
        for n, (time, process, kind, f, key, value) in enumerate(events)
    )
    return run_checker(CheckerCall(name, options), history)


def found(verdict):
    assert (verdict.valid == "invalid") == bool(verdict.anomalies), verdict.lines()
    return list(verdict.anomalies)


def reads(process, begin, key, *values):
    return (process, begin, begin + 5, "read", key, None, "ok", list(values))


def appends(process, begin, key, value, kind="ok"):
    return (process, begin, begin + 5, "append", key, value, kind)


SESSIONS = {
    "read-your-writes": [appends(0, 10, "x", 1), reads(0, 20, "x")],
    "monotonic-reads": [appends(1, 10, "x", 1), reads(0, 20, "x", 1), reads(0, 30, "x")],
    "monotonic-writes": [appends(0, 10, "x", 1), appends(0, 20, "x", 2), reads(1, 30, "x", 2, 1)],
    "writes-follow-reads": [
        appends(1, 10, "x", 1),
        reads(0, 20, "x", 1),
        appends(0, 30, "x", 2),
        reads(2, 40, "x", 2),
    ],
}


@pytest.mark.parametrize("name", SESSIONS)
def test_each_session_guarantee_is_checked_by_itself(name):
    verdict = check("session", *SESSIONS[name])
    assert found(verdict) == [name]
    others = "+".join(other for other in SESSIONS if other != name)
    assert check("session", *SESSIONS[name], guarantees=others).valid == "valid"


@pytest.mark.parametrize("later", [[2, 3], [2, 3, 1], [2, 1, 3], [9, 2, 3]])
def test_writes_follow_all_that_was_read(later):
    """Not only the last one of it."""
    rows = [appends(1, 1, "x", 1), appends(1, 10, "x", 2), reads(0, 20, "x", 1, 2), appends(0, 30, "x", 3)]
    verdict = check("session", *rows, reads(2, 40, "x", *later), guarantees="writes-follow-reads")
    assert found(verdict) == ([] if later == [2, 1, 3] else ["writes-follow-reads"])
    assert all("without 1 before it" in line for line in verdict.evidence)


def test_other_sessions_may_see_old_states():
    assert check("session", appends(0, 10, "x", 1), reads(0, 20, "x", 1), reads(1, 30, "x")).valid == "valid"


def test_an_unknown_guarantee_is_named():
    with pytest.raises(ValueError, match="unknown session guarantee 'read-my-writes'"):
        check("session", reads(0, 10, "x"), guarantees="read-my-writes")


def write(process, begin, key, value, kind="ok"):
    return (process, begin, begin + 5, "write", key, value, kind)


def read(process, begin, key, value):
    return (process, begin, begin + 5, "read", key, None, "ok", value)


CAUSES = {
    "thin-air-read": [read(0, 10, "x", 9)],
    "aborted-read": [write(0, 10, "x", 1, "fail"), read(1, 20, "x", 1)],
    "write-co-init-read": [
        write(0, 10, "x", 1),
        write(0, 20, "y", 2),
        read(1, 30, "y", 2),
        read(1, 40, "x", None),
    ],
    "write-co-read": [
        write(0, 10, "x", 1),
        write(0, 20, "x", 2),
        write(0, 30, "y", 3),
        read(1, 40, "y", 3),
        read(1, 50, "x", 1),
    ],
    "cyclic-co": [read(0, 10, "x", 2), write(0, 20, "y", 1), read(1, 10, "y", 1), write(1, 20, "x", 2)],
    "cyclic-cf": [
        write(0, 10, "x", 1),
        write(1, 10, "x", 2),
        read(2, 20, "x", 1),
        read(2, 30, "x", 2),
        read(3, 20, "x", 2),
        read(3, 30, "x", 1),
    ],
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_pattern_that_is_not_causal_is_found(name):
    assert found(check("causal", *CAUSES[name])) == [name]


def test_without_convergence_readers_may_disagree_about_conflicting_writes():
    assert check("causal", *CAUSES["cyclic-cf"], convergence=False).valid == "valid"


def test_stale_reads_of_others_are_causal():
    rows = [write(0, 10, "x", 1), write(0, 20, "x", 2), read(1, 30, "x", 1), read(1, 40, "x", 2)]
    assert check("causal", *rows).valid == "valid"


def test_a_lost_write_that_somebody_read_counts():
    rows = [write(0, 10, "x", 1, "info"), read(1, 20, "x", 1), read(1, 30, "x", None)]
    assert found(check("causal", *rows)) == ["write-co-init-read"]


def test_values_that_are_written_twice_cannot_be_judged():
    assert check("causal", write(0, 10, "x", 1), write(1, 10, "x", 1), read(2, 20, "x", 1)).valid == "unknown"


def test_linearizable_histories_are_causal():
    rng = random.Random(3)
    for _ in range(60):
        rows, state, time = [], {}, 0
        for n in range(30):
            time += 10
            key = rng.choice("xy")
            if rng.random() < 0.4:
                state[key] = n
                rows.append(write(rng.randrange(4), time, key, n))
            else:
                rows.append(read(rng.randrange(4), time, key, state.get(key)))
        assert check("causal", *rows).valid == "valid"


def test_causal_reverse():
    rows = [write(0, 10, "g", 1), write(1, 20, "g", 2)]
    assert check("causal-reverse", *rows, reads(2, 30, "g", 1, 2)).valid == "valid"
    assert check("causal-reverse", *rows, reads(2, 30, "g", 1)).valid == "valid"
    assert found(check("causal-reverse", *rows, reads(2, 30, "g", 2))) == ["missing-cause"]
    both = [write(0, 10, "g", 1), write(1, 12, "g", 2)]
    assert check("causal-reverse", *both, reads(2, 30, "g", 2)).valid == "valid"
    assert check("causal-reverse", *rows, reads(2, 30, "g")).valid == "unknown"


def test_long_fork():
    fork = [reads(0, 10, "g", "a"), reads(1, 10, "g", "b")]
    assert found(check("long-fork", *fork)) == ["long-fork"]
    assert (
        check("long-fork", reads(0, 10, "g", "a"), reads(1, 10, "g", "a", "b"), reads(2, 10, "g")).valid
        == "valid"
    )
    assert check("long-fork", reads(0, 10, "g", "a"), reads(1, 10, "h", "b")).valid == "unknown"


def test_long_fork_in_transactions():
    """As Jepsen's histories have it."""
    rows = [
        (0, 10, 15, "txn", None, [], "ok", [["r", "a", 1], ["r", "b", None]]),
        (1, 10, 15, "txn", None, [], "ok", [["r", "a", None], ["r", "b", 1]]),
    ]
    assert found(check("long-fork", *rows)) == ["long-fork"]


def test_g2():
    def insert(process, row, kind):
        return (process, 10, 20, "insert", "k", row, kind)

    assert check("g2", insert(0, "a", "ok"), insert(1, "b", "fail")).valid == "valid"
    assert check("g2", insert(0, "a", "ok"), insert(1, "b", "info")).valid == "valid"
    assert found(check("g2", insert(0, "a", "ok"), insert(1, "b", "ok"))) == ["G2"]


def txn(process, begin, key, *ops):
    asked = [[f, name, None if f == "r" else value] for f, name, value in ops]
    return (process, begin, begin + 5, "txn", key, asked, "ok", [list(op) for op in ops])


def test_multi_register_groups_are_apart():
    rows = [txn(0, 10, "g", ("w", "a", 1), ("w", "b", 1)), txn(0, 20, "h", ("w", "a", 2))]
    assert check("multi-register", *rows, txn(1, 30, "g", ("r", "a", 1), ("r", "b", 1))).valid == "valid"
    torn = check(
        "multi-register",
        *rows,
        txn(1, 30, "g", ("w", "a", 3), ("w", "b", 3)),
        txn(2, 40, "g", ("r", "a", 3), ("r", "b", 1)),
        txn(2, 50, "h", ("r", "a", 2)),
    )
    assert torn.valid == "invalid"
    assert torn.failing_keys == ('"g"',)
    assert torn.at


def send(process, begin, value, offset, kind="ok", key="k"):
    return (process, begin, begin + 5, "send", key, value, kind, [offset, value] if kind == "ok" else value)


def poll(process, begin, *messages, key="k"):
    return (process, begin, begin + 5, "poll", None, None, "ok", {key: [list(one) for one in messages]})


SENT = [send(0, 10, "a", 0), send(0, 20, "b", 1), send(0, 30, "c", 2)]
ALL = [(0, "a"), (1, "b"), (2, "c")]
LOGS = {
    None: [*SENT, poll(1, 40, *ALL)],
    "lost-write": [*SENT, poll(1, 40, (0, "a"), (2, "c"))],
    "inconsistent-offsets": [*SENT, poll(1, 40, (0, "a"), (1, "x"), (2, "c")), send(2, 5, "x", 1)],
    "duplicate": [*SENT, poll(1, 40, *ALL, (3, "a"))],
    "aborted-read": [*SENT, send(2, 5, "x", 0, "fail"), poll(1, 40, *ALL, (3, "x"))],
    "unexpected": [*SENT, poll(1, 40, *ALL, (3, "z"))],
    "poll-skip": [*SENT, poll(2, 40, *ALL), poll(1, 40, (0, "a")), poll(1, 50, (2, "c"))],
    "nonmonotonic-poll": [*SENT, poll(1, 40, *ALL), poll(1, 50, (1, "b"))],
    "int-poll-skip": [*SENT, poll(2, 40, *ALL), poll(1, 40, (0, "a"), (2, "c"))],
    "int-nonmonotonic-poll": [*SENT, poll(2, 40, *ALL), poll(1, 40, (0, "a"), (1, "b"), (0, "a"))],
    "nonmonotonic-send": [send(0, 10, "a", 1), send(0, 20, "b", 0), poll(1, 40, (0, "b"), (1, "a"))],
}


@pytest.mark.parametrize("name", LOGS)
def test_logs(name):
    names = found(check("log", *LOGS[name]))
    assert (name in names) if name else not names, names


def test_a_new_assignment_begins_anew_and_messages_at_the_end_may_be_unseen():
    assigned = (1, 45, 46, "assign", None, ["k"])
    verdict = check("log", *SENT, poll(1, 40, (0, "a"), (1, "b")), assigned, poll(1, 50, (0, "a"), (1, "b")))
    assert verdict.valid == "valid"
    assert verdict.notes == ("unseen 1",)


def test_log_transactions_that_read_each_other_are_a_cycle():
    first = (0, 10, 20, "txn", None, [], "ok", [["send", "k", [0, "a"]], ["poll", {"l": [[0, "b"]]}]])
    second = (1, 10, 20, "txn", None, [], "ok", [["send", "l", [0, "b"]], ["poll", {"k": [[0, "a"]]}]])
    assert found(check("log", first, second)) == ["G1c"]


def watched(process, begin, first, last, *events, value=None):
    result = {"from": first, "to": last, "events": [list(event) for event in events]}
    return (process, begin, begin + 5, "watch", None, value, "ok", result)


def changed(process, begin, value, revision, kind="ok"):
    return (
        process,
        begin,
        begin + 5,
        "write",
        "x",
        value,
        kind,
        [value, revision] if kind == "ok" else value,
    )


CHANGES = [changed(0, 10, 1, 1), changed(0, 20, 2, 2), changed(0, 30, 3, 3)]
X1, X2, X3 = (1, "x", 1), (2, "x", 2), (3, "x", 3)
WATCHES = {
    None: [*CHANGES, watched(1, 40, 0, 2, X1, X2), watched(1, 50, 2, 3, X3), watched(2, 50, 1, 1)],
    "gap": [*CHANGES, watched(1, 40, 0, 3, X1, X3)],
    "order": [*CHANGES, watched(1, 40, 0, 3, X1, X3, X2)],
    "out-of-range": [*CHANGES, watched(1, 40, 1, 3, X1, X2, X3)],
    "diverged": [*CHANGES, watched(1, 40, 0, 3, X1, (2, "x", 3), X3)],
    "unexpected": [*CHANGES, watched(1, 40, 0, 4, X1, X2, X3, (4, "x", 9))],
    "not-resumed": [*CHANGES, watched(1, 40, 0, 1, X1), watched(1, 50, 2, 3, X3)],
}


@pytest.mark.parametrize("name", WATCHES)
def test_watches(name):
    names = found(check("watch", *WATCHES[name]))
    assert (name in names) if name else not names, names


def test_a_late_watch_is_no_gap_and_a_lost_write_may_show_or_not():
    rows = [changed(0, 10, 1, 1), changed(2, 20, 2, None, "info")]
    assert check("watch", *rows, watched(1, 40, 0, 1, X1)).valid == "valid"
    assert check("watch", *rows, watched(1, 40, 0, 2, X1, X2)).valid == "valid"


def lease(process, begin, f, name=None, kind="ok"):
    return (process, begin, begin + 5, f, "k", None, kind, name)


@pytest.mark.parametrize(
    ("rows", "anomaly"),
    [
        ([lease(0, 10, "hold", "l1"), lease(1, 50, "look", "l1")], None),
        ([lease(0, 10, "hold", "l1"), lease(1, 50, "look", None)], "expired-early"),
        ([lease(0, 10, "hold", "l1"), lease(1, 50, "look", "l1"), lease(1, 120, "look", None)], None),
        ([lease(0, 10, "hold", "l1"), lease(0, 60, "renew", "l1"), lease(1, 120, "look", None)], "expired-early"),
        ([lease(0, 10, "hold", "l1"), lease(0, 60, "renew", "l1", "info"), lease(1, 50, "look", "l1"),
          lease(1, 120, "look", None)], None),
        ([lease(0, 10, "hold", "l1"), lease(1, 20, "look", "l1"), lease(0, 30, "drop", "l1"),
          lease(1, 50, "look", None)], None),
        ([lease(0, 10, "hold", "l1"), lease(1, 20, "look", "l1"), lease(0, 30, "drop", "l1"),
          lease(1, 50, "look", "l1")], "alive-after-drop"),
        ([lease(0, 10, "hold", "l1"), lease(1, 20, "look", "l1"), lease(0, 30, "drop", "l1", "info"),
          lease(1, 50, "look", None)], None),
        ([lease(0, 10, "hold", "l1"), lease(1, 20, "look", "l1"), lease(0, 40, "hold", "l2", "info"),
          lease(1, 50, "look", None)], None),
        ([lease(2, 10, "hold", "l0", "info"), lease(0, 20, "hold", "l1"), lease(1, 30, "look", "l1"),
          lease(1, 50, "look", None)], None),
        ([lease(2, 10, "hold", "l0", "info"), lease(0, 300, "hold", "l1"), lease(1, 350, "look", None)],
         "expired-early"),
        ([lease(2, 10, "hold", "l0"), lease(0, 12, "hold", "l1"), lease(1, 30, "look", "l0"),
          lease(1, 50, "look", None)], None),
    ],
)  # fmt: skip
def test_leases_are_promised_from_when_they_were_asked_for(rows, anomaly):
    assert found(check("lease", *rows, ttl_ms=100)) == ([anomaly] if anomaly else [])


def test_a_lease_that_nobody_looked_at_in_time_is_unknown():
    assert (
        check("lease", lease(0, 10, "hold", "l1"), lease(1, 500, "look", None), ttl_ms=100).valid == "unknown"
    )
