"""The check as a whole: verdicts, budgets, keys, crashes, counterexamples."""

import os
import subprocess
import sys

import pytest

from checkers import (
    Budget,
    History,
    HistoryError,
    Inconsistent,
    Op,
    Verdict,
    check_linearizable,
    check_stats,
    merge,
    model_by_name,
)


def history(*rows, key=None):
    """From (process, type, f, value[, error]), 1 ms apart."""
    return [
        Op(n, n * 1_000_000 + 1, process, kind, f, key, value, *rest)
        for n, (process, kind, f, value, *rest) in enumerate(rows)
    ]


STALE = history(
    (0, "invoke", "write", 1),
    (0, "ok", "write", 1),
    (0, "invoke", "write", 2),
    (0, "ok", "write", 2),
    (1, "invoke", "read", None),
    (1, "ok", "read", 1),
)
FINE = [*STALE[:-1], Op(5, 5_000_001, 1, "ok", "read", None, 2)]


def test_a_valid_history():
    """Says so, with the model and the algorithm."""
    verdict = check_linearizable(FINE, "register")
    assert verdict.to_json() == {
        "valid": True,
        "checker": "linearizable",
        "model": "register",
        "algorithm": "zones",
        "operations": 3,
        "keys": 1,
    }


def test_a_stale_read_is_told_in_a_circle():
    """The counterexample names the operations, their times, and what no order of them allows."""
    verdict = check_linearizable(STALE, "register")
    assert verdict.valid == "invalid"
    text = "\n".join(verdict.lines())
    assert "[4..5]  process 1  read -> 1" in text
    assert "0.004000 s .. 0.005000 s" in text
    assert "[0] comes before [2]: it returned before [2] was called" in text
    assert (
        "[4] comes before [2]: it saw the value of [0], and [2], which comes after [0], replaces that" in text
    )
    assert len(verdict.evidence) <= 20


def test_the_text_does_not_depend_on_the_hash_seed():
    """Byte for byte the same under any PYTHONHASHSEED."""
    program = (
        "from checkers import *\n"
        "rows=[(0,'invoke','write','a'),(1,'invoke','write','b'),(2,'invoke','cas',['a','c']),(0,'ok','write','a'),"
        "(1,'ok','write','b'),(2,'ok','cas',['a','c']),(3,'invoke','read',None),(3,'ok','read','a'),"
        "(4,'invoke','read',None),(4,'ok','read','b')]\n"
        "ops=[Op(n,n,p,t,f,k,v) for k in 'xy' for n,(p,t,f,v) in enumerate(rows)]\n"
        "ops=[Op(n,n+1,(o.process+10*(o.key=='y')),o.type,o.f,o.key,o.value) for n,o in enumerate(ops)]\n"
        "print(*check_linearizable(ops,'cas-register').lines(),sep='\\n')\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }
    assert len(texts) == 1
    assert b'failing keys (2): "x", "y"' in texts.pop()


def test_true_is_no_answer_for_one():
    """A register that was given true and answers 1 is broken."""
    rows = [
        (0, "invoke", "write", True),
        (0, "ok", "write", True),
        (1, "invoke", "read", None),
        (1, "ok", "read", 1),
    ]
    assert check_linearizable(history(*rows), "register").valid == "invalid"
    rows[-1] = (1, "ok", "read", True)
    assert check_linearizable(history(*rows), "register").valid == "valid"


def test_an_info_write_may_happen_late_or_never():
    """A timed-out write is seen long after, or never."""
    write = [(0, "invoke", "write", 1), (0, "info", "write", 1, "timeout")]
    reads = [
        (1, "invoke", "read", None),
        (1, "ok", "read", 0),
        (1, "invoke", "read", None),
        (1, "ok", "read", 1),
    ]
    model = model_by_name("register", 0)
    assert check_linearizable(history(*write, *reads), model).valid == "valid"
    assert check_linearizable(history(*write, *reads[:2]), model).valid == "valid"
    assert check_linearizable(history(*write, *reads[2:], *reads[:2]), model).valid == "invalid"


def test_a_refused_cas_constrains_where_the_model_says_so():
    """Nothing but 1 was ever there, so a cas from 1 cannot have been refused for a mismatch."""
    rows = [(0, "invoke", "write", 1), (0, "ok", "write", 1), (1, "invoke", "cas", [1, 2])]
    refused = history(*rows, (1, "fail", "cas", [1, 2], "mismatch"))
    assert check_linearizable(refused, "etcd-register").valid == "invalid"
    assert check_linearizable(refused, "cas-register").valid == "valid"
    assert (
        check_linearizable(history(*rows, (1, "fail", "cas", [1, 2], "refused")), "etcd-register").valid
        == "valid"
    )


def test_nil_reads():
    """Nothing to Knossos' register, absence to etcd's."""
    rows = [
        (0, "invoke", "write", 1),
        (0, "ok", "write", 1),
        (1, "invoke", "read", None),
        (1, "ok", "read", None),
    ]
    assert check_linearizable(history(*rows), "cas-register").valid == "valid"
    assert check_linearizable(history(*rows), "etcd-register").valid == "invalid"


def test_keys_are_objects_of_their_own():
    """One broken key is named; the others are not."""
    ops = [
        Op(n * 6 + op.index, n * 10_000_000 + op.time_ns, op.process, op.type, op.f, key, op.value)
        for n, (key, part) in enumerate((("x", FINE), ("y", STALE), ("z", FINE)))
        for op in part
    ]
    verdict = check_linearizable(ops, "etcd-register")
    assert (verdict.valid, verdict.keys, verdict.failing_keys) == ("invalid", 3, ('"y"',))
    assert verdict.evidence[0].startswith('key "y": ')


def test_a_budget_that_runs_out_is_unknown_and_says_how_far():
    """Never a pass."""
    twice = [
        *FINE,
        *(Op(n + 6, n + 10_000_000, op.process, op.type, op.f, None, 1) for n, op in enumerate(FINE)),
    ]
    verdict = check_linearizable(twice, "register", budget=Budget(configurations=1))
    assert verdict.valid == "unknown"
    assert verdict.to_json()["valid"] == "unknown"
    assert (
        "ran out of its budget of 1 configurations; linearizable up to completion 1 of 6 (index 3)"
        in verdict.cause
    )
    with pytest.raises(ValueError, match="budget seconds is 0"):
        Budget(seconds=0)


def test_a_crash_of_the_model_is_unknown():
    """With the error."""

    class Broken:
        name = "broken"

        def initial(self):
            return 0

        def step(self, state, operation):
            raise KeyError("oops")

    verdict = check_linearizable(FINE, Broken())
    assert verdict.valid == "unknown"
    assert "KeyError: 'oops'" in verdict.cause


def test_an_operation_that_the_model_does_not_know_is_the_users_matter():
    """Not an invalid history."""
    with pytest.raises(HistoryError, match="index 0: the model register knows read, write only, not 'fly'"):
        check_linearizable(history((0, "invoke", "fly", 1)), "register")
    with pytest.raises(HistoryError, match=r"cas needs the pair \[old, new\], not 3"):
        check_linearizable(history((0, "invoke", "cas", 3)), "cas-register")
    with pytest.raises(HistoryError, match="put needs a string, not 3"):
        check_linearizable(history((0, "invoke", "put", 3)), "string-kv")
    with pytest.raises(HistoryError, match="txn needs"):
        check_linearizable(history((0, "invoke", "txn", [["fly", "x", 1]])), "multi-register")
    answered = history((0, "invoke", "txn", [["w", "x", 1]]), (0, "ok", "txn", "boom"))
    with pytest.raises(HistoryError, match=r'txn needs .* not "boom"'):
        check_linearizable(answered, "multi-register")
    for txn in ({"compare": [5]}, {"then": 7}, {"then": [["txn", {"else": 7}]]}):
        with pytest.raises(HistoryError, match="of txn is a list of lists, not"):
            check_linearizable(history((0, "invoke", "txn", txn)), "revision-kv")
    with pytest.raises(ValueError, match="did you mean 'register'"):
        check_linearizable(FINE, "registr")


def test_a_model_of_ten_lines():
    """Name, initial, step: nothing more is needed."""

    class Counter:
        name = "my-counter"

        def initial(self):
            return 0

        def step(self, state, operation):
            if operation.f == "add":
                return state + operation.argument
            return state if operation.result == state else Inconsistent(f"the count is {state}")

    rows = [(0, "invoke", "add", 2), (1, "invoke", "add", 3), (1, "ok", "add", 3), (0, "info", "add", 2)]
    read = [
        (2, "invoke", "read", None),
        (2, "ok", "read", 3),
        (2, "invoke", "read", None),
        (2, "ok", "read", 5),
    ]
    assert check_linearizable(history(*rows, *read), Counter()).valid == "valid"
    wrong = check_linearizable(history(*rows, *read[:3], (2, "ok", "read", 4)), Counter())
    assert wrong.valid == "invalid"
    assert any("it the count is" in line for line in wrong.evidence)


def test_merging():
    """Invalid over unknown over valid; nothing to merge is no pass."""
    valid, unknown, invalid = (Verdict(valid=word) for word in ("valid", "unknown", "invalid"))
    assert merge([valid, unknown]).valid == "unknown"
    assert merge([unknown, invalid, valid]).valid == "invalid"
    assert merge([valid, valid]).valid == "valid"
    assert merge([valid]) is valid
    assert len(merge([valid, invalid]).to_json()["parts"]) == 2
    with pytest.raises(ValueError, match="no verdicts"):
        merge([])


def test_notes_of_the_reader_reach_the_verdict():
    """A history that was cut off says so in its verdict."""
    verdict = check_linearizable(History(FINE, timed=True, notes=("cut off",)), "register")
    assert verdict.lines()[-1] == "  note: cut off"


def test_a_history_without_clients_is_no_pass():
    """A check of nothing did not happen."""
    for lines in ([], [Op(0, 1, "nemesis", "info", "start")]):
        verdict = check_linearizable(lines, "register")
        assert (verdict.valid, verdict.operations, verdict.keys) == ("unknown", 0, 0)
        assert verdict.cause == "no client did anything in this history: there is nothing to check"
    refused = history((0, "invoke", "cas", [1, 2]), (0, "fail", "cas", [1, 2], "mismatch"))
    assert check_linearizable(refused, "etcd-register").valid == "valid", "it says what was not there"
    verdict = check_linearizable(refused, "cas-register")
    assert verdict.valid == "valid", "as Knossos has it"
    assert verdict.notes == ("every operation failed, so that nothing was there to contradict the model",)


def test_a_kind_that_never_succeeded_is_no_pass():
    """However linearizable the rest is; notes of the nemesis do not count."""
    nothing = [Op(0, 1, "nemesis", "info", "start")]
    for lines, expected in (
        (FINE, "valid"),
        (FINE[:4], "valid"),
        ([*FINE[:4], FINE[4]], "unknown"),
        (nothing, "unknown"),
    ):
        assert check_stats(History.of(lines)).valid == expected
    stats = check_stats(History.of(FINE[:5]))
    assert stats.cause == "no read ever succeeded (0 ok, 0 fail, 1 info): look at the errors, or run longer"
    assert merge([stats, check_linearizable(FINE[:5], "register")]).valid == "unknown"
    with pytest.raises(HistoryError, match="more completions than invocations"):
        check_stats(History.of(FINE[1:]))


def test_running_out_of_time_is_said_to_be_that():
    """The deadline passes before the second attempt."""
    twice = [Op(n, 0, n // 2, ("invoke", "ok")[n % 2], "write", None, 1) for n in range(40)]
    verdict = check_linearizable(History(twice), "register", budget=Budget(configurations=2, seconds=1e-9))
    assert verdict.valid == "unknown"
    assert "ran out of its budget of 1e-09 s" in verdict.cause
    lost = [Op(0, 0, 0, "invoke", "cas", None, [1, 2]), Op(1, 0, 1, "invoke", "cas", None, [2, 1])]
    verdict = check_linearizable(lost, "cas-register", algorithm="search", budget=Budget(seconds=1e-9))
    assert verdict.valid == "unknown"
    assert "ran out of its budget of 1e-09 s before the search" in verdict.cause
