"""Dependency graphs: every anomaly that Adya names is found in a history that has it, and in no other.

Histories are written as text, one transaction a line: its process, when it began and ended, and what it did. A line
that ends with ``?`` has an unknown outcome, one that ends with ``!`` failed.
"""

from __future__ import annotations

import random
import re

import pytest

from checkers import History, HistoryError, Op
from checkers.catalogue import CheckerCall, run_checker
from checkers.cycles import find_cycles
from checkers.dependency import ALL, RW, WW, Graph, components
from checkers.isolation import MODELS, forbids, violated
from checkers.list_append import check_list_append
from checkers.rw_register import check_rw_register
from checkers.transactions import transactions_of


def history(text, write="append"):
    """``0 [10 20] r x 1,2; a y 3``: process 0 from 10 to 20 read x as [1, 2] and appended 3 to y."""
    events = []
    for line in filter(None, map(str.strip, text.splitlines())):
        process, begin, end, ops, mark = re.fullmatch(r"(\d+) \[(\d+) (\d+)\] (.*?)\s*([?!]?)", line).groups()
        asked, done = [], []
        for op in ops.split(";"):
            f, key, *value = op.split()
            if f == "r":
                asked.append(["r", key, None])
                done.append(["r", key, _read(value, write)])
            else:
                asked.append([write, key, int(value[0])])
                done.append([write, key, int(value[0])])
        kind = {"": "ok", "?": "info", "!": "fail"}[mark]
        events.append((int(begin), int(process), "invoke", asked))
        events.append((int(end), int(process), kind, done if kind == "ok" else asked))
    events.sort(key=lambda event: event[0])
    return History.of(
        Op(n, time, process, kind, "txn", value=value)
        for n, (time, process, kind, value) in enumerate(events)
    )


def _read(value, write):
    if write == "append":
        return [int(one) for one in value[0].split(",")] if value else []
    return int(value[0]) if value else None


LISTS = {
    # Adya: two transactions overwrite each other, in opposite orders.
    "G0": """
        0 [10 20] a x 1; a y 1
        1 [11 21] a x 2; a y 2
        2 [30 40] r x 1,2; r y 2,1
    """,
    "G1a": """
        0 [10 20] a x 1 !
        1 [30 40] r x 1
    """,
    "G1b": """
        0 [10 20] a x 1; a x 2
        1 [11 21] r x 1
        2 [30 40] r x 1,2
    """,
    "G1c": """
        0 [10 20] a x 1; r y 2
        1 [11 21] a y 2; r x 1
    """,
    "G-single": """
        0 [10 20] a x 1; a y 1
        1 [11 21] r x 1; r y
        2 [30 40] r y 1
    """,
    "G-nonadjacent": """
        0 [10 20] a x 1
        1 [11 21] a y 2
        2 [12 22] r x 1; r y
        3 [13 23] r x; r y 2
        4 [30 40] r x 1; r y 2
    """,
    "G2-item": """
        0 [10 20] r x; r y; a x 1
        1 [11 21] r x; r y; a y 2
        2 [30 40] r x 1; r y 2
    """,
    "G-single-process": """
        0 [10 20] a x 1
        0 [30 40] r x
        1 [11 50] r x 1
    """,
    "G-single-realtime": """
        0 [10 20] a x 1
        1 [30 40] r x
        2 [50 60] r x 1
    """,
    "G0-realtime": """
        0 [10 20] a x 1
        1 [30 40] a x 2
        2 [11 60] r x 2,1
    """,
    "G1c-realtime": """
        1 [10 20] r x 1
        0 [30 40] a x 1
    """,
    "internal": """
        0 [10 20] a x 1; r x
    """,
    "future-read": """
        0 [10 20] r x 1; a x 1
    """,
    "incompatible-order": """
        0 [10 20] a x 1
        1 [11 21] a x 2
        2 [12 22] r x 1
        3 [13 23] r x 2,1
    """,
    "duplicate-elements": """
        0 [10 20] a x 1
        1 [30 40] r x 1,1
    """,
    "unexpected-element": """
        0 [10 20] a x 1
        1 [30 40] r x 1,9
    """,
    "dirty-update": """
        0 [10 20] a x 1 !
        1 [11 21] a x 2
        2 [30 40] r x 1,2
    """,
    "lost-update": """
        0 [10 20] r x; a x 1
        1 [11 21] r x; a x 2
        2 [30 40] r x 1,2
    """,
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_every_anomaly_is_found_and_named(name):
    verdict = check_list_append(history(LISTS[name]))
    assert name in verdict.anomalies, verdict.anomalies
    assert verdict.valid == "invalid"
    assert verdict.at
    assert any(line.startswith(f"{name}:") for line in verdict.evidence), verdict.evidence


@pytest.mark.parametrize(
    ("name", "weaker"),
    [
        ("G-single", "read-committed"),
        ("G-nonadjacent", "parallel-snapshot-isolation"),
        ("G2-item", "snapshot-isolation"),
        ("G-single-realtime", "strong-session-serializable"),
        ("G-single-process", "serializable"),
        ("G0-realtime", "serializable"),
    ],
)
def test_lists_what_a_weaker_model_allows_is_valid_under_it(name, weaker):
    """And the verdict says that it is there."""
    verdict = check_list_append(history(LISTS[name]), model=weaker)
    assert verdict.valid == "valid", verdict.lines()
    assert name in verdict.notes[0]


def test_an_acknowledged_append_that_nobody_ever_reads_is_a_cycle():
    """Elle leaves out who appended what is in no list; a read after it that lacks it tells."""
    verdict = check_list_append(history("0 [10 20] a x 1\n1 [30 40] r x\n2 [50 60] r x"))
    assert "G-single-realtime" in verdict.anomalies


def test_a_lost_append_that_was_read_happened():
    assert check_list_append(history("0 [10 20] a x 1 ?\n1 [30 40] r x 1\n2 [50 60] r x 1")).valid == "valid"
    assert check_list_append(history("0 [10 20] a x 1 ?\n1 [30 40] r x\n2 [50 60] r x 1")).valid == "valid"
    assert check_list_append(history("0 [10 20] a x 1 ?\n1 [30 40] r x 1\n2 [50 60] r x")).valid == "invalid"


def test_a_lost_transaction_of_which_something_was_read_happened_as_a_whole():
    half = "0 [10 20] a x 1; a y 2 ?\n1 [30 40] r x 1; r y"
    assert "G-single" in check_list_append(history(half)).anomalies
    half = "0 [10 20] a x 1; a x 2 ?\n1 [30 40] r x 2"
    assert "G-single" in check_list_append(history(half)).anomalies
    half = "0 [10 20] w x 1; w y 2 ?\n1 [30 40] r x 1; r y"
    assert "G-single" in check_rw_register(history(half, "w")).anomalies


def test_elements_of_one_transaction_stand_as_it_appended_them():
    """In other words than those of cycles, which have more than one transaction."""
    verdict = check_list_append(history("0 [10 20] a x 1; a x 2\n1 [30 40] r x 2,1"), model="read-committed")
    assert (verdict.valid, list(verdict.anomalies)) == ("invalid", ["G1b", "incompatible-order"])
    assert "incompatible-order: 2 stands before 1 in x, and was appended after it" in "\n".join(
        verdict.evidence
    )


def test_each_sentence_of_a_cycle_is_true():
    """Of transactions that append several elements it names those of which it is true; and of times as many digits."""

    def told(rows):
        return [line.strip() for line in check_list_append(history(rows)).evidence]

    lines = told("0 [10 20] a x 1; a x 2\n1 [11 21] r x 1\n2 [30 40] r x 1,2")
    assert "T1 before T2: it read x as [1], without 2, which that appended" in lines
    assert "T2 before T1: it appended 1 to x, which that has read" in lines
    lines = told("0 [10 20] a x 1; a x 3\n1 [11 21] a x 2\n2 [30 40] r x 1,2,3")
    assert "T1 before T2: it appended 1 to x, and that appended 2 after it" in lines
    assert "T2 before T1: it appended 2 to x, and that appended 3 after it" in lines
    lines = told("0 [10 20] a x 1\n1 [30 40] r x\n2 [50 60] r x 1")
    assert "T2 before T1: it ended at 0.000000020 s, and that began at 0.000000030 s" in lines


def test_what_was_read_in_a_list_that_does_not_fit_is_not_unread():
    """It stands in no order, so nothing comes before it for certain: no cycle of writes, though reads are wrong."""
    rows = "0 [10 20] a x 3\n1 [30 40] a x 1\n2 [50 60] a x 2\n3 [70 80] r x 1,2\n4 [11 19] r x 3"
    verdict = check_list_append(history(rows))
    assert list(verdict.anomalies) == ["incompatible-order"]


def test_equal_times_are_concurrent():
    assert check_list_append(history("0 [10 20] a x 1\n1 [20 40] r x\n2 [50 60] r x 1")).valid == "valid"


def test_a_history_that_cannot_be_judged_is_unknown():
    assert check_list_append(history("0 [10 20] a x 1\n1 [11 21] a x 1")).valid == "unknown"
    assert check_list_append(history("0 [10 20] a x 1 ?")).valid == "unknown"
    assert check_rw_register(history("0 [10 20] w x 1", "append")).valid == "unknown"


def test_what_is_no_transaction_is_one_sentence():
    lines = [Op(0, 1, 0, "invoke", "txn", value=[["x"]]), Op(1, 2, 0, "ok", "txn", value=[["x"]])]
    with pytest.raises(HistoryError, match=r'index 0: txn of \["x"\] is no transaction: give a list of'):
        check_list_append(History.of(lines))


REGISTERS = {
    "G1a": "0 [10 20] w x 1 !\n1 [30 40] r x 1",
    "G1b": "0 [10 20] w x 1; w x 2\n1 [11 21] r x 1",
    "G1c": "0 [10 20] w x 1; r y 2\n1 [11 21] w y 2; r x 1",
    "G-single": "0 [10 20] w x 1; w y 1\n1 [11 21] r x 1; r y",
    "G2-item": "0 [10 20] r x; r y; w x 1\n1 [11 21] r x; r y; w y 2",
    "G-single-realtime": "0 [10 20] w x 1\n1 [30 40] w x 2\n2 [50 60] r x 1",
    "internal": "0 [10 20] w x 1; r x",
    "future-read": "0 [10 20] r x 1; w x 1",
    "lost-update": "0 [10 20] r x; w x 1\n1 [11 21] r x; w x 2",
    "unexpected-element": "0 [10 20] r x 7",
    "cyclic-versions": "0 [10 20] r x 1; w x 2\n1 [11 21] r x 2; w x 1",
}


@pytest.mark.parametrize("name", REGISTERS)
def test_registers_every_anomaly_is_found_and_named(name):
    verdict = check_rw_register(history(REGISTERS[name], "w"))
    assert name in verdict.anomalies, (verdict.anomalies, verdict.lines())
    assert verdict.valid == "invalid"


def test_registers_what_rests_on_real_time_is_not_held_against_weaker_models():
    verdict = check_rw_register(history(REGISTERS["G-single-realtime"], "w"), model="serializable")
    assert verdict.valid == "valid"


DISORDER = """
    0 [10 20] w x 1
    1 [11 21] w x 2
    2 [30 40] r x 2
    3 [50 60] r x 1
    4 [70 80] r x 2
"""


def test_registers_stale_reads_are_no_order_of_versions_for_models_that_allow_them():
    """Reads that go back and forth contradict each other only where reads cannot be stale."""
    for weaker in ("strong-read-uncommitted", "strong-read-committed", "strong-cursor-stability"):
        assert check_rw_register(history(DISORDER, "w"), model=weaker).valid == "valid"
    verdict = check_rw_register(history(DISORDER, "w"))
    assert (verdict.valid, verdict.violated) == ("invalid", ("strong-consistent-view",))
    assert verdict.anomalies.keys() == {"G-single-realtime"}
    told = "that wrote 1 over it ([4..5], with 2, ended before [6..7] began, with 1)"
    assert any(line.endswith(told) for line in verdict.evidence)


def test_registers_the_order_of_a_process_is_one_of_time():
    """What rests on the order of time, and needs that of a process too, is not strictly serializable."""
    rows = """
        1 [10 70] w x 1
        2 [11 71] w x 2; w y 5
        3 [20 30] r x 1
        4 [40 61] r x 2
        0 [41 50] r y 5
        0 [51 60] r x 1
    """
    assert check_rw_register(history(rows, "w")).violated == ("strong-consistent-view",)
    assert check_rw_register(history(rows, "w"), model="strong-session-serializable").valid == "valid"


def test_registers_what_a_model_allows_keeps_nothing_else_from_being_found():
    rows = REGISTERS["G2-item"] + "\n2 [30 40] w z 1\n3 [50 60] w z 2\n4 [70 80] r z 1"
    assert check_rw_register(history(rows, "w"), model="snapshot-isolation").valid == "valid"
    assert check_rw_register(history(rows, "w"), model="strong-snapshot-isolation").valid == "invalid"


def random_history(rng, *, write, transactions=12, processes=4, broken=False):
    """Transactions performed one at a time at a moment within their interval: strictly serializable."""
    state, events, counter = {}, [], 0
    free = dict.fromkeys(range(processes), 0)
    for _ in range(transactions):
        process = rng.choice(list(free))
        begin = free[process] + rng.randrange(1, 8)
        end = begin + rng.randrange(2, 20)
        free[process] = end
        ops = []
        for _ in range(rng.randrange(1, 4)):
            key = rng.choice("xyz")
            if rng.random() < 0.5:
                ops.append(["r", key, None])
            else:
                counter += 1
                ops.append([write, key, counter])
        events.append((rng.randrange(begin, end + 1), begin, end, process, ops))
    lines = []
    for _, begin, end, process, ops in sorted(events, key=lambda event: event[0]):
        done = []
        for f, key, value in ops:
            if f == "r":
                held = state.get(key, [] if write == "append" else None)
                done.append([f, key, list(held) if write == "append" else held])
            else:
                state[key] = [*state.get(key, []), value] if write == "append" else value
                done.append([f, key, value])
        lines.append((begin, process, "invoke", ops))
        lines.append((end, process, "ok", done))
    lines.sort(key=lambda line: line[0])
    if broken:
        reads = [op for _, _, kind, ops in lines if kind == "ok" for op in ops if op[0] == "r" and op[2]]
        if not reads:
            return None
        op = rng.choice(reads)
        op[2] = op[2][:-1] if write == "append" else None
    return History.of(Op(n, t, p, k, "txn", value=v) for n, (t, p, k, v) in enumerate(lines))


@pytest.mark.parametrize(("write", "check"), [("append", check_list_append), ("w", check_rw_register)])
def test_strictly_serializable_histories_are_valid(write, check):
    rng = random.Random(5)
    for _ in range(150):
        verdict = check(random_history(rng, write=write))
        assert verdict.valid in ("valid", "unknown"), verdict.lines()


def test_reads_that_miss_the_last_element_are_mostly_found():
    """Not all of them can be: a read may have been concurrent with the append that it misses."""
    rng = random.Random(6)
    histories = [h for _ in range(150) if (h := random_history(rng, write="append", broken=True))]
    found = sum(check_list_append(h).valid == "invalid" for h in histories)
    assert found > len(histories) // 2


def brute_force(h):
    """Whether some order of the transactions explains a history of lists, by trying all that real time allows."""
    ones = transactions_of(h)

    def search(done, state):
        if len(done) == len(ones):
            return True
        for n, one in enumerate(ones):
            if n in done:
                continue
            if any(m not in done and m != n and ones[m].call.ret < one.call.call for m in range(len(ones))):
                continue
            after, good = {k: list(v) for k, v in state.items()}, True
            for f, key, value in one.ops:
                if f == "r":
                    good = good and after.get(key, []) == value
                else:
                    after.setdefault(key, []).append(value)
            if good and search(done | {n}, after):
                return True
        return False

    return search(frozenset(), {})


def test_the_graph_agrees_with_trying_all_orders():
    """Sound: invalid only where no order explains the history. On these small ones, complete as well."""
    rng = random.Random(7)
    seen = {"valid": 0, "invalid": 0}
    for _ in range(250):
        h = random_history(rng, write="append", transactions=6, processes=3, broken=rng.random() < 0.7)
        if h is None:
            continue
        verdict = check_list_append(h)
        if verdict.valid == "unknown":
            continue
        seen[verdict.valid] += 1
        assert (verdict.valid == "valid") == brute_force(h), [
            (op.process, op.type, op.value) for op in h.lines
        ]
    assert min(seen.values()) > 20


def test_many_before_many_is_exact_and_linear():
    graph = Graph(60)
    graph.add_all(range(50), range(10, 60), RW)
    assert sum(map(len, graph.out)) < 500
    found = components(graph, ALL)
    assert (
        len([n for n in found[0] if n < graph.size]) == 40
    )  # those that are on both sides precede each other
    assert 5 not in found[0]
    lonely = Graph(30)
    lonely.add_all([7], range(30), WW)
    assert components(lonely) == []


def test_a_search_that_is_cut_short_says_what_is_certain():
    graph = Graph(4)
    for first, second in ((0, 1), (1, 2), (2, 3), (3, 0)):
        graph.add(first, second, WW)
    cycles, certain = find_cycles(graph, steps=3)
    assert not cycles
    assert certain == ["PL-1-cycle-exists", "PL-2-cycle-exists", "PL-3-cycle-exists", "PL-SS-cycle-exists"]


def test_models_are_ordered_as_the_literature_has_them():
    for stronger, weaker in (
        ("strict-serializable", "strong-session-serializable"),
        ("strong-session-serializable", "serializable"),
        ("serializable", "snapshot-isolation"),
        ("serializable", "repeatable-read"),
        ("snapshot-isolation", "parallel-snapshot-isolation"),
        ("parallel-snapshot-isolation", "read-atomic"),
        ("repeatable-read", "cursor-stability"),
        ("cursor-stability", "read-committed"),
        ("read-committed", "read-uncommitted"),
    ):
        assert forbids(stronger) > forbids(weaker)
    assert not forbids("snapshot-isolation") >= forbids("repeatable-read")
    assert violated(["G0"])[0] == ("read-uncommitted",)
    assert set(violated(["G2-item"])[0]) == {"repeatable-read"}
    assert len(MODELS) == 27


def test_a_checker_is_asked_for_by_name():
    verdict = run_checker(
        CheckerCall("list-append", {"model": "snapshot-isolation"}), history(LISTS["G2-item"])
    )
    assert verdict.valid == "valid"
    with pytest.raises(ValueError, match="did you mean 'list-append'"):
        run_checker(CheckerCall("list-apend"), history(LISTS["G0"]))
    with pytest.raises(ValueError, match="has no option 'modle'"):
        run_checker(CheckerCall("list-append", {"modle": 1}), history(LISTS["G0"]))
    with pytest.raises(ValueError, match="unknown consistency model"):
        run_checker(CheckerCall("list-append", {"model": "perfect"}), history(LISTS["G0"]))
