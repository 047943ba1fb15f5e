"""The compiled searches against the oracle and against the plain ones."""

import random
import time

import pytest

from checkers import Budget, History, Op, check_linearizable, fast, linear, model_by_name
from checkers.oracle import is_linearizable
from checkers.problem import compile_problem
from checkers.search import Levels, Meter, Searcher
from checkers.witness import replay, verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fast.installed(), reason="numpy and numba are not installed (extra 'fast')"),
]


def random_operations(rng, count, clients, info, values, *, broken):
    """Lines of one correct register with few values; perhaps one answer is exchanged."""
    state, lines, open_, process, made = 0, [], {}, 0, 0
    while made < count or open_:
        if made < count and len(open_) < clients and (not open_ or rng.random() < 0.6):
            f = rng.choice(("read", "write", "cas"))
            value = {
                "read": None,
                "write": rng.randrange(values),
                "cas": [rng.randrange(values) for _ in "ab"],
            }[f]
            open_[process] = [f, value, None]
            lines.append(Op(len(lines), 0, process, "invoke", f, None, value))
            process, made = process + 1, made + 1
            continue
        at = rng.choice(list(open_))
        f, value, answer = open_[at]
        lost = rng.random() < info
        if answer is None and (not lost or rng.random() < 0.5):
            if f == "read":
                answer = ("ok", state)
            elif f == "write":
                state, answer = value, ("ok", value)
            elif state == value[0]:
                state, answer = value[1], ("ok", value)
            else:
                answer = ("fail", value)
            open_[at][2] = answer
            if rng.random() < 0.5:
                continue
        if lost:
            lines.append(Op(len(lines), 0, at, "info", f, None, None))
        elif answer is None:
            continue
        else:
            error = "mismatch" if answer[0] == "fail" else None
            lines.append(Op(len(lines), 0, at, answer[0], f, None, answer[1], error))
        del open_[at]
    reads = [n for n, op in enumerate(lines) if op.type == "ok" and op.f == "read"]
    if broken and reads:
        n = rng.choice(reads)
        lines[n] = Op(n, 0, lines[n].process, "ok", "read", None, rng.randrange(values))
    return lines


def meter(configurations=10**5):
    return Meter(configurations, 10**9, time.monotonic() + 1000)


def test_compiled_searches_agree():
    """Both orders, small histories against the oracle and larger ones against the plain searches."""
    from checkers.compiled_search import CompiledSearcher  # noqa: PLC0415  (imports numba)

    verdicts = []
    for seed in range(3_000):
        rng = random.Random(f"compiled {seed}")
        model = model_by_name(rng.choice(("cas-register", "etcd-register")), 0)
        small = seed % 50 > 0
        lines = random_operations(
            rng,
            rng.randint(1, 11) if small else rng.randint(40, 160),
            rng.randint(1, 6) if small else rng.choice((4, 9, 70)),
            rng.choice((0, 0.1, 0.4)) if small else rng.choice((0, 0.02)),
            rng.randint(2, 4),
            broken=rng.random() < 0.6,
        )
        history = linear.groups_of(History.of(lines), model).get(None, [])
        problem = compile_problem(history, model)
        if small:
            expected = is_linearizable(history, model)
        else:
            outcomes = [getattr(Searcher(problem, meter(3_000)), order)() for order in ("dfs", "bfs")]
            assert outcomes[0].valid == outcomes[1].valid or None in (outcomes[0].valid, outcomes[1].valid)
            expected = outcomes[0].valid if outcomes[0].valid is not None else outcomes[1].valid
        verdicts.append(expected)
        searcher = CompiledSearcher(problem)
        for order in ("dfs", "bfs"):
            outcome = searcher.run(order, meter(), 10**5)
            assert None in {outcome.valid, expected} or outcome.valid is expected, f"{order}, seed {seed}"
            assert outcome.valid is not None or not small
            if outcome.valid:
                verify(replay(problem, Levels(problem), outcome.trail), history, model)
    assert 500 < sum(map(bool, verdicts)) < 2_900


def test_a_hard_history_end_to_end(monkeypatch):
    """What the first pass cannot decide goes to the compiled search; a no is explained, a yes verified."""
    for name in ("_PLAIN_COLD", "_PLAIN_WARM", "_PLAIN_LOADED"):
        monkeypatch.setattr(linear, name, 50)
    monkeypatch.setattr(fast, "warm", lambda _part="deep": True)
    rng = random.Random(7)
    lines = random_operations(rng, 1_500, 12, 0.01, 5, broken=False)
    verdict = check_linearizable(lines, model_by_name("cas-register", 0))
    assert (verdict.valid, verdict.algorithm) == ("valid", "wgl-dfs-numba")
    last = len(lines)
    lines += [Op(last, 0, 10**6, "invoke", "read"), Op(last + 1, 0, 10**6, "ok", "read", None, 99)]
    verdict = check_linearizable(lines, model_by_name("cas-register", 0), algorithm="search")
    assert verdict.valid == "invalid"
    assert verdict.algorithm.endswith("numba")
    assert any("read -> 99" in line for line in verdict.evidence)
    assert len(verdict.evidence) <= 20


def test_budgets_of_the_compiled_search(monkeypatch):
    """Running out is unknown here too, and names what ran out."""
    for name in ("_PLAIN_COLD", "_PLAIN_WARM", "_PLAIN_LOADED"):
        monkeypatch.setattr(linear, name, 50)
    monkeypatch.setattr(fast, "warm", lambda _part="deep": True)
    lines = random_operations(random.Random(7), 1_500, 12, 0.01, 5, broken=False)
    verdict = check_linearizable(lines, model_by_name("cas-register", 0), budget=Budget(configurations=500))
    assert verdict.valid == "unknown"
    assert "ran out of its budget of 500 configurations; linearizable up to completion" in verdict.cause


def test_a_slow_model_is_not_explored_for_ever():
    """An object of endless states is given up by size or by time, and left to the search that asks as it goes."""
    from checkers.compiled_search import CompiledSearcher, TooLarge, explore  # noqa: PLC0415  (imports numba)

    lines = [
        Op(n, 0, n // 2, kind, "append", None, value)
        for n, (kind, value) in enumerate((kind, value) for value in "ab" for kind in ("invoke", "ok"))
    ]
    problem = compile_problem(History.of(lines).operations, model_by_name("append-list"))
    assert explore(problem, cells_max=50) is None
    assert explore(problem, until_s=0) is None
    with pytest.raises(TooLarge):
        CompiledSearcher(problem, until_s=0)


def test_the_search_keeps_to_its_seconds():
    """The longer it goes on the closer it looks at the clock: what is left decides how long a turn is."""
    from checkers import compiled_search  # noqa: PLC0415  (imports numba)

    used = Meter(10**7, 10**9, time.monotonic() + 1000)
    pace = compiled_search._Pace(used)
    assert pace.left() == compiled_search._FIRST_SHARE * compiled_search._LEVELWISE_SHARE
    used.used += 1
    used.deadline_s = 0
    assert pace.left() == compiled_search._LAST_SHARE
