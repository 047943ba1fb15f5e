"""The compiled search on columns, for registers whose values repeat: against brute force, with its own verification."""

import random
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from checkers import Budget, History, Op, check_linearizable, fast, linear, model_by_name
from checkers.history import Operation
from checkers.oracle import is_linearizable
from checkers.search import Meter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fast.installed(), reason="numpy and numba are not installed (extra 'fast')"),
]


_TWICE = ("invoke", "invoke", "ok", "ok")


def random_lines(rng, count, clients, values, silent=0.0):
    """Lines of a register that repeats its values, with lost and refused operations; perhaps one answer is changed."""
    state, lines, open_, process = 0, [], {}, 0
    while count or open_:
        if count and len(open_) < clients and (not open_ or rng.random() < 0.6):
            f = rng.choice(("read", "write", "cas"))
            two = [rng.randrange(values), rng.randrange(values)]
            open_[process] = (f, {"read": None, "write": two[0], "cas": two}[f])
            lines.append(Op(len(lines), len(lines) // 2 + 1, process, "invoke", f, None, open_[process][1]))
            process, count = process + 1, count - 1
            continue
        who = rng.choice(sorted(open_))
        f, value = open_.pop(who)
        kind, result = "ok", value
        if f == "read":
            result = state if rng.random() < 0.95 else rng.randrange(values)
            result = None if silent and rng.random() < silent else result
        elif rng.random() < 0.2:
            kind = "info"
        if f == "write" and (kind == "ok" or rng.random() < 0.5):
            state = value
        elif f == "cas" and state == value[0]:
            state = value[1] if kind == "ok" or rng.random() < 0.5 else state
        elif f == "cas" and kind == "ok":
            kind = "fail"
        error = {"info": "timeout", "fail": "mismatch"}.get(kind)
        lines.append(Op(len(lines), len(lines) // 2 + 1, who, kind, f, None, result, error))
    return lines


def column_search(history, model):
    from checkers.columns import places_by_key, register_columns  # noqa: PLC0415
    from checkers.register_search import RegisterSearch  # noqa: PLC0415

    columns = register_columns(history, model)
    places = places_by_key(columns)[None]
    return RegisterSearch(columns, places, int(columns.initial_value[0]))


def columns_search(history, model, orders):
    searched = column_search(history, model)
    return searched.run(Meter(10**6, 1 << 28, time.monotonic() + 1000), orders).valid


def test_what_fails_from_all_states_fails(monkeypatch):
    """A window that no state can pass: then no order exists; through columns and through a table."""
    from checkers import compiled_search  # noqa: PLC0415  (imports numba)
    from checkers.problem import compile_exact  # noqa: PLC0415

    monkeypatch.setattr(compiled_search, "_WINDOW_LEVELS", (1, 2, 4))
    failed, passed = 0, 0
    for seed in range(1_500):
        rng = random.Random(f"window {seed}")
        model = model_by_name(rng.choice(("cas-register", "etcd-register")), 0)
        history = History.of(random_lines(rng, rng.randint(6, 11), rng.randint(2, 5), rng.randint(2, 4)))
        linearizable = is_linearizable(history.operations, model)
        kept = [operation for operation in history.operations if operation.status != "mismatch"]
        operations = history.operations if model.name == "etcd-register" else kept
        table = compiled_search.CompiledSearcher(compile_exact(operations, model)).race
        for race in (column_search(history, model).race, table):
            meter = Meter(10**6, 1 << 28, time.monotonic() + 1000)
            fails = any(race.window_fails(level, meter) for level in range(race.returns))
            assert not (fails and linearizable), seed
            failed += fails
            passed += not fails and not linearizable
    assert failed > passed


def test_a_window_decides_a_long_history_and_is_told(monkeypatch):
    """Two values are seen in two orders at the end; deep first is stopped where it got stuck."""
    from checkers import compiled_search  # noqa: PLC0415  (imports numba)

    lines = []
    for n in range(300):
        lines += [
            Op(4 * n + at, 4 * n + at, at % 2, kind, "write", None, n % 5) for at, kind in enumerate(_TWICE)
        ]
    rows = [(0, "invoke", "write", 8), (1, "invoke", "write", 9)]
    for first, second in ((8, 9), (9, 8)):
        rows += [(2, "invoke", "read", None), (3, "invoke", "read", None)]
        rows += [(2, "ok", "read", first), (3, "ok", "read", second)]
    rows += [(0, "ok", "write", 8), (1, "ok", "write", 9)]
    for who, kind, f, value in rows:
        lines.append(Op(len(lines), len(lines), who, kind, f, None, value))
    history, model = History.of(lines), model_by_name("cas-register", 0)
    turn = compiled_search.Race.turn
    monkeypatch.setattr(
        compiled_search.Race,
        "turn",
        lambda *arguments: replace(turn(*arguments), valid=None, cause="configurations"),
    )
    for name in ("_COLUMNS_LINES_COLD", "_COLUMNS_LINES_WARM", "_COLUMNS_LINES_LOADED"):
        monkeypatch.setattr(linear, name, 10)
    verdict = check_linearizable(history, model)
    assert (verdict.valid, verdict.algorithm) == ("invalid", "window-numba")
    assert sum("read -> " in line and ".." in line for line in verdict.evidence) == 4, verdict.evidence
    assert not any("write 3" in line for line in verdict.evidence)


class AtOnce:
    """A timer whose moment has come."""

    def __init__(self, _after_s, act, arguments):
        self.start = lambda: act(*arguments)

    def cancel(self):
        pass


@pytest.mark.parametrize("order", ["dfs", "bfs"])
def test_what_was_stopped_answers_nothing(order):
    """A level that takes too long is given up in the middle; whatever is left of it refutes nothing."""
    for seed in range(200):
        rng = random.Random(f"stopped {seed}")
        model = model_by_name("cas-register", 0)
        history = History.of(random_lines(rng, rng.randint(4, 11), rng.randint(2, 5), 3))
        race = column_search(history, model).race
        meter = Meter(10**6, 1 << 28, time.monotonic() + 1000)
        if race.turn(order, meter, rng.randint(0, 5)).valid is None:
            race.task.stop[0] = 1
            for _ in range(50):  # as many turns as there may be rows left
                stopped = race.turn(order, meter, 1000)
                assert (stopped.valid, stopped.cause) == (None, "configurations"), seed


def test_a_race_is_stopped_at_its_last_moment(monkeypatch):
    from checkers import compiled_search  # noqa: PLC0415

    monkeypatch.setattr(compiled_search, "_STOPPED_FROM", 0)
    monkeypatch.setattr(compiled_search, "threading", SimpleNamespace(Timer=AtOnce, TIMEOUT_MAX=1.0))
    history = History.of(random_lines(random.Random(1), 11, 5, 3))
    searched = column_search(history, model_by_name("cas-register", 0))
    outcome = searched.run(Meter(10**6, 1 << 28, time.monotonic() - 1))
    assert (outcome.valid, outcome.cause) == (None, "seconds")


def test_it_agrees_with_brute_force():
    """Both orders and the race of them; every yes was verified on the way."""
    verdicts = set()
    for seed in range(1_500):
        rng = random.Random(f"register columns {seed}")
        model = model_by_name(rng.choice(("cas-register", "etcd-register")), 0)
        silent = 0.2 if model.name == "cas-register" else 0.0
        history = History.of(
            random_lines(rng, rng.randint(1, 11), rng.randint(1, 5), rng.randint(1, 4), silent)
        )
        orders = rng.choice((("dfs",), ("bfs",), ("dfs", "bfs")))
        wanted = is_linearizable(history.operations, model)
        assert columns_search(history, model, orders) is wanted, (seed, orders)
        verdicts.add((model.name, orders, wanted))
    assert len(verdicts) == 12


def test_many_slots_take_several_words():
    """More than 64 operations at once, in both orders, still agree with each other."""
    for seed in range(3):
        history = History.of(random_lines(random.Random(seed), 150, 90, 3))
        model = model_by_name("cas-register", 0)
        assert columns_search(history, model, ("dfs",)) is columns_search(history, model, ("bfs",))


def test_where_all_is_loaded_short_histories_go_this_way(monkeypatch):
    """After the first long history the short ones are checked on columns too, with the same verdicts."""
    for part in ("zones", "expand", "deep", "levelwise", "replay"):
        fast.prepare(part)
    for name in ("_COLUMNS_LINES_USED", "_COLUMNS_OPERATIONS_USED"):
        monkeypatch.setattr(linear, name, 1)
    seen = set()
    for seed in range(400):
        rng = random.Random(f"all is loaded {seed}")
        model = model_by_name(rng.choice(("cas-register", "etcd-register")), 0)
        history = History.of(random_lines(rng, rng.randint(1, 11), rng.randint(1, 5), rng.randint(1, 4)))
        verdict = check_linearizable(history, model)
        assert (verdict.valid == "valid") is is_linearizable(history.operations, model), seed
        seen.add((verdict.algorithm, verdict.valid))
    assert {("wgl-dfs-numba", "valid"), ("intervals", "invalid"), ("zones", "valid")} <= seen


def test_long_keys_are_searched_at_once_with_the_same_verdicts(monkeypatch):
    """Several keys with a thread each, and one after the other, find the same."""
    from checkers import register_search  # noqa: PLC0415

    for part in ("zones", "expand", "deep", "levelwise", "replay"):
        fast.prepare(part)
    for name in ("_COLUMNS_LINES_USED", "_COLUMNS_OPERATIONS_USED"):
        monkeypatch.setattr(linear, name, 1)
    monkeypatch.setattr(register_search, "LONG", 20)
    threads, plain = [], register_search.ThreadPoolExecutor
    monkeypatch.setattr(
        register_search,
        "ThreadPoolExecutor",
        lambda count, name: (threads.append(count), plain(count, name))[1],
    )
    seen = set()
    for seed in range(30):
        rng, lines = random.Random(f"at once {seed}"), []
        for key in range(5):
            offset = 100 * key
            lines += [replace_key(op, key, offset) for op in random_lines(rng, rng.randint(10, 40), 4, 3)]
        lines = [Op(n, n, *tail) for n, tail in enumerate(lines)]
        found = []
        for processors in (1, 3):
            monkeypatch.setattr(register_search, "_processors", lambda count=processors: count)
            verdict = check_linearizable(
                History.of(lines), model_by_name("cas-register", 0), algorithm="search"
            )
            found.append((verdict.valid, verdict.failing_keys, verdict.configurations, verdict.evidence))
        assert found[0] == found[1]
        seen.add(found[0][0])
    assert seen == {"valid", "invalid"}
    assert set(threads) == {2, 3}


def test_keys_that_are_searched_at_once_share_the_budget(monkeypatch):
    from checkers import register_search  # noqa: PLC0415

    for part in ("zones", "expand", "deep", "levelwise", "replay"):
        fast.prepare(part)
    for name in ("_COLUMNS_LINES_USED", "_COLUMNS_OPERATIONS_USED"):
        monkeypatch.setattr(linear, name, 1)
    monkeypatch.setattr(register_search, "LONG", 1)
    monkeypatch.setattr(register_search, "_processors", lambda: 3)
    shares, plain = [], register_search.search_keys

    def recorded(columns, tasks, orders):
        shares.append([(meter.left, meter.bytes_max) for _, meter in tasks])
        return plain(columns, tasks, orders)

    monkeypatch.setattr(register_search, "search_keys", recorded)
    rows = []
    for key in range(3):
        rows += [replace_key(op, key, 100 * key) for op in random_lines(random.Random(key), 20, 4, 3)]
    budget = Budget(configurations=9_000, bytes_max=9_000_000)
    lines = [Op(n, n, *row) for n, row in enumerate(rows)]
    check_linearizable(lines, model_by_name("cas-register", 0), algorithm="search", budget=budget)
    assert shares == [[(3_000, 3_000_000)] * 3]


def replace_key(op, key, offset):
    return op.process + offset, op.type, op.f, key, op.value, op.error


def test_short_keys_are_searched_alone(monkeypatch):
    from checkers import register_search  # noqa: PLC0415

    long = register_search.LONG
    monkeypatch.setattr(register_search, "_processors", lambda: 2)
    assert list(register_search.batches("abc", [long - 1] * 3)) == [["a"], ["b"], ["c"]]
    assert list(register_search.batches("abcde", [long, 1, long, long, long])) == [
        ["b"],
        ["a", "c"],
        ["d", "e"],
    ]


def test_end_to_end(monkeypatch):
    """A long enough history goes this way by itself; a no is explained."""
    for name in (
        "_COLUMNS_LINES_COLD",
        "_COLUMNS_LINES_WARM",
        "_COLUMNS_LINES_LOADED",
        "_COLUMNS_OPERATIONS",
    ):
        monkeypatch.setattr(linear, name, 10)
    seen = set()
    for seed in range(60):
        lines = random_lines(random.Random(seed), 60, 4, 3)
        verdict = check_linearizable(History.of(lines), model_by_name("cas-register", 0), algorithm="search")
        assert verdict.algorithm.endswith("numba"), verdict
        assert verdict.valid != "invalid" or 0 < len(verdict.evidence) <= 20
        assert not any("could not" in line for line in verdict.evidence)
        seen.add(verdict.valid)
    assert seen == {"valid", "invalid"}


def test_an_order_that_does_not_hold_is_noticed(monkeypatch):
    """The verification does not trust the search: a replay that answers nonsense is a fault, not a yes."""
    from checkers import register_search  # noqa: PLC0415

    history = History.of(random_lines(random.Random(5), 30, 1, 3))
    model = model_by_name("cas-register", 0)
    original = register_search.RegisterSearch._order
    monkeypatch.setattr(
        register_search.RegisterSearch, "_order", lambda self, order: original(self, order)[::-1].copy()
    )
    with pytest.raises(register_search.OrderError):
        columns_search(history, model, ("bfs",))
    assert isinstance(history.operations[0], Operation)
