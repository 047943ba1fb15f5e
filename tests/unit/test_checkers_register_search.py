"""The compiled search on columns, for registers whose values repeat: against brute force, with its own verification."""

import random
import time

import pytest

from checkers import History, Op, check_linearizable, fast, linear, model_by_name
from checkers.history import Operation
from checkers.oracle import is_linearizable
from checkers.search import Meter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fast.installed(), reason="numpy and numba are not installed (extra 'fast')"),
]


def random_lines(rng, count, clients, values):
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


def columns_search(history, model, orders):
    from checkers.columns import places_by_key, register_columns  # noqa: PLC0415
    from checkers.register_search import RegisterSearch  # noqa: PLC0415

    columns = register_columns(history, model)
    places = places_by_key(columns)[None]
    searched = RegisterSearch(columns, places, int(columns.initial_value[0]))
    return searched.run(Meter(10**6, 1 << 28, time.monotonic() + 1000), orders).valid


def test_it_agrees_with_brute_force():
    """Both orders and the race of them; every yes was verified on the way."""
    verdicts = set()
    for seed in range(1_500):
        rng = random.Random(f"register columns {seed}")
        model = model_by_name(rng.choice(("cas-register", "etcd-register")), 0)
        history = History.of(random_lines(rng, rng.randint(1, 11), rng.randint(1, 5), rng.randint(1, 4)))
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
