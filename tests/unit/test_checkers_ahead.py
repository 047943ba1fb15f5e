"""Strings and lists that only grow: the search that looks at the reads to come, against brute force."""

import random
import time

import pytest

from checkers import Budget, Effect, History, Inconsistent, Op, check_linearizable, model_by_name
from checkers.ahead import Ahead
from checkers.levels import Levels
from checkers.meter import Meter
from checkers.oracle import is_linearizable
from checkers.parts import first_impossible
from checkers.problem import compile_exact, compile_problem
from checkers.search import Searcher

pytestmark = pytest.mark.slow

_F = {"string-kv": ("get", "append", "put"), "append-list": ("read", "append")}


def apply(name, state, f, value):
    if f == "put":
        return value
    return (*state, value) if name == "append-list" else state + value


def lines_of(rng, name, count, clients, *, puts=0.3, lost=0.2, open_part=0.6, texts=None):
    """Lines of a correct object; ``texts`` to choose from, or a new one each time."""
    state, lines, open_, made = () if name == "append-list" else "", [], {}, 0
    while made < count or open_:
        if made < count and len(open_) < clients and (not open_ or rng.random() < open_part):
            f = rng.choice(_F[name][:2]) if rng.random() >= puts else _F[name][-1]
            text = None if f in {"get", "read"} else rng.choice(texts) if texts else f"{f[0]}{made}."
            open_[made] = [f, text, None]
            lines.append(Op(len(lines), len(lines) // 2 + 1, made, "invoke", f, None, text))
            made += 1
            continue
        who = rng.choice(sorted(open_))
        f, text, result = open_[who]
        gone = f not in {"get", "read"} and rng.random() < lost
        if result is None and not (gone and rng.random() < 0.5):
            state = state if text is None else apply(name, state, f, text)
            result = open_[who][2] = (
                (list(state) if name == "append-list" else state) if text is None else text
            )
            if not gone and rng.random() < 0.5:
                continue
        del open_[who]
        kind, error = ("info", "timeout") if gone else ("ok", None)
        lines.append(Op(len(lines), len(lines) // 2 + 1, who, kind, f, None, None if gone else result, error))
    return lines


def small(seed):
    """A short history, mostly with an answer of another read in the place of one."""
    rng = random.Random(f"ahead {seed}")
    name = rng.choice(("string-kv", "string-kv", "append-list"))
    texts = ("a", "b", "ab", "") if name == "string-kv" else ("a", "b")
    lines = lines_of(rng, name, rng.randint(2, 9), rng.randint(1, 5), texts=texts)
    reads = [n for n, op in enumerate(lines) if op.type == "ok" and op.f in {"get", "read"}]
    if reads and rng.random() < 0.7:
        n, other = rng.choice(reads), lines[rng.choice(reads)]
        value = other.value if rng.random() < 0.6 else other.value[::-1]
        lines[n] = Op(n, lines[n].time_ns, lines[n].process, "ok", lines[n].f, None, value)
    return History.of(lines), model_by_name(name)


def wrong_answers(seeds):
    """Seeds whose history gets another verdict than by brute force."""
    for seed in seeds:
        history, model = small(seed)
        wanted = "valid" if is_linearizable(history.operations, model) else "invalid"
        for algorithm in ("wgl-dfs", "jit-bfs"):
            verdict = check_linearizable(history, model, algorithm=algorithm, explain=False)
            if verdict.valid != wanted:
                yield seed, algorithm, verdict.valid, verdict.cause


def test_it_agrees_with_brute_force():
    assert list(wrong_answers(range(3_000))) == []


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("_overwritten", lambda *_: False),
        ("seen", lambda *_: False),
        ("hopeless", lambda self, state, used, level: any(not self._reached(state, p) for p in self.pure)),
        ("_open", lambda *_: iter(())),
    ],
)
def test_each_rule_is_needed_as_it_is(monkeypatch, rule, broken):
    """A mutant of it is caught by the same histories."""
    monkeypatch.setattr(Ahead, rule, broken)
    assert next(wrong_answers(range(3_000)), None) is not None


def test_the_first_impossible_completion_is_found():
    """Looking ahead gives up early; what is told is the completion at which the search that does not look fails."""
    compared = earlier = 0
    for seed in range(1_500):
        history, model = small(seed)
        exact = compile_exact(history.operations, model)
        meter = Meter(10**6, 1 << 28, time.monotonic() + 1000)
        wanted = Searcher(exact, meter).bfs()
        if wanted.valid:
            continue
        problem = compile_problem(history.operations, model)
        found = Searcher(problem, meter).dfs()
        told = first_impossible(problem, Levels(problem), found, model)
        assert (found.valid, told.level) == (False, wanted.level), seed
        compared += 1
        earlier += found.level < told.level
    assert compared > 150
    assert earlier > 30


@pytest.mark.parametrize("name", ["string-kv", "append-list"])
@pytest.mark.parametrize("clients", [5, 20])
def test_long_histories_take_some_steps_for_each_operation(name, clients):
    rng = random.Random(f"long {name} {clients}")
    lines = lines_of(rng, name, 300, clients, puts=0.1, lost=0.02, open_part=0.7)
    budget = Budget(configurations=10 * 300)
    assert check_linearizable(History.of(lines), model_by_name(name), budget=budget).valid == "valid"
    # Two neighbours change places in what a late read saw.
    reads = [n for n, op in enumerate(lines) if op.type == "ok" and op.f in {"get", "read"} and op.value]
    for n in reads[-60:]:
        parts = lines[n].value if name == "append-list" else lines[n].value.split(".")[:-1]
        if len(parts) < 4:
            continue
        swapped = [*parts[:-3], parts[-2], parts[-3], parts[-1]]
        value = swapped if name == "append-list" else "".join(f"{part}." for part in swapped)
        if value != lines[n].value and any(lines[n].value != lines[m].value for m in reads if m < n):
            break
    broken = [
        *lines[:n],
        Op(n, lines[n].time_ns, lines[n].process, "ok", lines[n].f, None, value),
        *lines[n + 1 :],
    ]
    verdict = check_linearizable(History.of(broken), model_by_name(name), budget=budget)
    assert verdict.valid == "invalid"
    assert 0 < len(verdict.evidence) <= 20
    assert "impossible with it" in verdict.evidence[0]
    # Long values are shown where they part.
    assert max(map(len, verdict.evidence)) < 250


class Log:
    """A user's list that can be cut: it does not only grow, whatever it says."""

    name = "log"

    def initial(self):
        return ()

    def effect(self, operation):
        return {"read": Effect.PURE, "append": Effect.BLIND}.get(operation.f, Effect.GENERAL)

    def reaches(self, state, operation):
        return operation.result[: len(state)] == state

    def step(self, state, operation):
        if operation.f == "append":
            return (*state, operation.argument)
        if operation.f == "cut":
            return state[:-1]
        return state if operation.result == state else Inconsistent(f"it holds {state}")


def test_a_model_with_anything_else_in_it_is_searched_without_looking_ahead():
    lines = []
    for process, (f, asked, answer) in enumerate(
        (("append", 1, None), ("append", 2, None), ("cut", None, None), ("read", None, [1]))
    ):
        lines.append(Op(len(lines), len(lines), process, "invoke", f, None, asked))
        lines.append(Op(len(lines), len(lines), process, "ok", f, None, answer))
    history = History.of(lines)
    assert check_linearizable(history, Log()).valid == "valid"
    assert compile_problem(history.operations, Log()).grows is None
