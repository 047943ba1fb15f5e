"""Counters, sets, queues, stacks, locks and lists: against the oracle, and each with its broken history."""

import random
import time

import msgspec
import pytest

from checkers import (
    MODELS,
    History,
    HistoryError,
    Inconsistent,
    Op,
    Operation,
    check_linearizable,
    default_model,
    model_by_name,
)
from checkers.oracle import is_linearizable
from checkers.problem import compile_problem
from checkers.search import Levels, Meter, Searcher
from checkers.witness import replay, verify

ASK = {
    "append-list": lambda rng: ("append", rng.randrange(3)) if rng.random() < 0.5 else ("read", None),
    "counter": lambda rng: rng.choice(
        [("add", 1), ("add", 2), ("subtract", 1), ("read", None), ("read", None)]
    ),
    "fifo-queue": lambda rng: ("enqueue", rng.randrange(4)) if rng.random() < 0.5 else ("dequeue", None),
    "lease": lambda rng: (rng.choice(["acquire", "renew", "release"]), rng.randrange(1, 4)),
    "mutex": lambda rng: (rng.choice(["acquire", "release"]), None),
    "priority-queue": lambda rng: ("enqueue", rng.randrange(4)) if rng.random() < 0.5 else ("dequeue", None),
    "semaphore": lambda rng: (rng.choice(["acquire", "release"]), rng.choice([None, 2])),
    "set": lambda rng: rng.choice([("add", rng.randrange(3)), ("remove", rng.randrange(3)), ("read", None)]),
    "stack": lambda rng: ("push", rng.randrange(4)) if rng.random() < 0.5 else ("pop", None),
    "unordered-queue": lambda rng: ("enqueue", rng.randrange(4)) if rng.random() < 0.5 else ("dequeue", None),
}


def answer(rng, model, state, f):
    """What a correct object answers: (ok, result)."""
    if f == "read":
        return tuple(sorted(state)) if isinstance(state, frozenset) else state
    if model.name == "lease" and f == "acquire":
        return state[0] + 1
    if f in {"dequeue", "pop"}:
        held = next(iter(state)) if isinstance(state, frozenset) else state
        if not held:
            return None
        place = {"fifo-queue": 0, "stack": -1}.get(model.name)
        if place is not None:
            return held[place]
        return min(held) if model.name == "priority-queue" else rng.choice(held)
    return None


def random_history(rng, model, *, broken):
    """A correct object's history, all results known to it; then perhaps with one answer exchanged."""
    state, open_, done, now, made = model.initial(), [], [], 0, 0
    count, clients, info = rng.randint(1, 10), rng.randint(1, 5), rng.choice((0, 0.1, 0.4))
    while made < count or open_:
        now += 1
        if made < count and len(open_) < clients and (not open_ or rng.random() < 0.6):
            f, argument = ASK[model.name](rng)
            open_.append(Operation(made, f, None, argument, None, "info", now, None, now))
            made += 1
            continue
        at = rng.randrange(len(open_))
        one, lost = open_[at], rng.random() < info
        if one.status == "info" and (not lost or rng.random() < 0.5):
            tried = msgspec.structs.replace(one, status="ok", result=answer(rng, model, state, one.f))
            after = model.step(state, tried)
            if isinstance(after, Inconsistent):
                open_.pop(at)  # refused, as a lock is: it fails and says nothing
                continue
            state, one = after, tried
            open_[at] = one
            if rng.random() < 0.5:
                continue
        if lost:
            one = msgspec.structs.replace(one, status="info", result=None)
        elif one.status == "info":
            continue
        else:
            one = msgspec.structs.replace(one, ret=now, complete_index=now)
        open_.pop(at)
        done.append(one)
    places = [n for n, one in enumerate(done) if one.status == "ok" and one.f in {"read", "dequeue", "pop"}]
    if broken and places:
        n = rng.choice(places)
        done[n] = msgspec.structs.replace(done[n], result=other_answer(rng, model, done[n]))
    elif broken and model.name == "lease" and done:
        n = rng.randrange(len(done))
        done[n] = msgspec.structs.replace(done[n], argument=rng.randrange(1, 4), result=rng.randrange(1, 4))
    elif broken and model.name in {"mutex", "semaphore"} and done:
        n = rng.randrange(len(done))
        done[n] = msgspec.structs.replace(done[n], f=rng.choice(["acquire", "release"]))
    return sorted(done, key=lambda one: one.call)


def other_answer(rng, model, one):
    if one.f != "read":
        return rng.choice([None, 0, 1, 2, 3])
    if model.name == "counter":
        return rng.randrange(5)
    return tuple(rng.sample(range(3), rng.randint(0, 3)))


def agree(seed, name):
    rng = random.Random(f"{name} {seed}")
    model = model_by_name(name)
    history = random_history(rng, model, broken=rng.random() < 0.6)
    expected = is_linearizable(history, model)
    problem = compile_problem(history, model)
    for order in ("dfs", "bfs"):
        outcome = getattr(Searcher(problem, Meter(10**6, 10**9, time.monotonic() + 100)), order)()
        assert outcome.valid is expected, f"{order} says {outcome.valid} for {name} seed {seed}"
        if outcome.valid:
            verify(replay(problem, Levels(problem), outcome.trail), history, model)
    return expected


@pytest.mark.parametrize("name", sorted(ASK))
def test_objects_agree_with_the_oracle(name):
    """Both orders of search give the oracle's verdict, and both verdicts occur."""
    verdicts = [agree(seed, name) for seed in range(600)]
    assert 60 < sum(verdicts) < 590


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ASK))
def test_objects_agree_with_the_oracle_at_length(name):
    """The same, an order of magnitude more often."""
    for seed in range(1_000, 7_000):
        agree(seed, name)


GOOD_AND_BAD = {
    "append-list": (
        [("append", 1), ("append", 2), ("read", [1, 2])],
        [("append", 1), ("append", 2), ("read", [2, 1])],
    ),
    "counter": ([("add", 2), ("subtract", 1), ("read", 1)], [("add", 2), ("read", 1)]),
    "fifo-queue": (
        [("enqueue", 1), ("enqueue", 2), ("dequeue", 1), ("dequeue", 2), ("dequeue", None)],
        [("enqueue", 1), ("enqueue", 2), ("dequeue", 2)],
    ),
    "lease": (
        [("acquire", 1), ("renew", 1), ("acquire", 2), ("release", 2)],
        [("acquire", 1), ("acquire", 2), ("renew", 1)],
    ),
    "mutex": (
        [("acquire", None), ("release", None), ("acquire", None)],
        [("acquire", None), ("acquire", None)],
    ),
    "priority-queue": (
        [("enqueue", 2), ("enqueue", 1), ("dequeue", 1)],
        [("enqueue", 2), ("enqueue", 1), ("dequeue", 2)],
    ),
    "semaphore": ([("acquire", None), ("release", None)], [("acquire", None), ("acquire", None)]),
    "set": ([("add", 1), ("add", 2), ("remove", 1), ("read", [2])], [("add", 1), ("add", 2), ("read", [2])]),
    "stack": ([("push", 1), ("push", 2), ("pop", 2), ("pop", 1)], [("push", 1), ("push", 2), ("pop", 1)]),
    "unordered-queue": (
        [("enqueue", 1), ("enqueue", 2), ("dequeue", 2), ("dequeue", 1)],
        [("enqueue", 1), ("dequeue", 1), ("dequeue", 1)],
    ),
}


def in_a_row(rows):
    asks = {"read", "dequeue", "pop"}
    lines = []
    for n, (f, value) in enumerate(rows):
        lines.append(Op(2 * n, 0, 0, "invoke", f, None, None if f in asks else value))
        lines.append(Op(2 * n + 1, 0, 0, "ok", f, None, value))
    return lines


@pytest.mark.parametrize("name", sorted(GOOD_AND_BAD))
def test_each_object_has_a_history_that_it_catches(name):
    """And its neighbour that is fine; the counterexample says what was there."""
    good, bad = GOOD_AND_BAD[name]
    assert check_linearizable(in_a_row(good), name).valid == "valid"
    verdict = check_linearizable(in_a_row(bad), name)
    assert verdict.valid == "invalid"
    assert any("is stuck" in line for line in verdict.evidence)
    assert len(verdict.evidence) <= 20


def test_every_model_is_in_some_test():
    """A new model needs its random histories and its broken one."""
    registers = {"cas-register", "etcd-register", "kv", "multi-register", "register", "string-kv"}
    told = {"revision-kv", "revision-register"}  # test_checkers_revisions.py
    assert set(ASK) == set(GOOD_AND_BAD) == set(MODELS) - registers - told


def test_a_lost_dequeue_may_have_taken_something():
    """Which of two elements an unordered queue lost is open, but not that it lost at most one."""
    lost = [*in_a_row([("enqueue", 1), ("enqueue", 2)]), Op(4, 0, 1, "invoke", "dequeue")]
    for answers, valid in (
        ([1, None], "valid"),
        ([2, None], "valid"),
        ([1, 2], "valid"),
        ([None], "invalid"),
    ):
        rows = in_a_row([("dequeue", value) for value in answers])
        lines = lost + [msgspec.structs.replace(op, index=op.index + 5) for op in rows]
        assert check_linearizable(lines, "unordered-queue").valid == valid, answers


def test_default_models_of_objects():
    """By their operations; a set is known from a counter by what reads return."""
    for name, (good, _) in GOOD_AND_BAD.items():
        expected = {"priority-queue": "fifo-queue", "unordered-queue": "fifo-queue", "semaphore": "mutex"}
        assert default_model(History(in_a_row(good)))[0] == expected.get(name, name)


def test_initial_values_are_checked():
    """With the name of the model and what it needs."""
    assert model_by_name("semaphore", 3).initial() == 3
    assert model_by_name("fifo-queue", [1, 2]).initial() == (1, 2)
    with pytest.raises(ValueError, match='initial value "x" of counter is not a number'):
        model_by_name("counter", "x")
    with pytest.raises(ValueError, match="initial value 3 of set is not a list"):
        model_by_name("set", 3)
    with pytest.raises(ValueError, match="initial value 3 of string-kv is not a string"):
        model_by_name("string-kv", 3)
    with pytest.raises(ValueError, match=r'initial value \["a",1\] of priority-queue has "a": give numbers'):
        model_by_name("priority-queue", ["a", 1])


@pytest.mark.parametrize(
    ("name", "f"), [("priority-queue", "enqueue"), ("lease", "renew"), ("lease", "release")]
)
def test_a_number_that_is_missing_is_said(name, f):
    """It is the history that does not fit, neither a crash of the checker nor a fault of the system."""
    rows = [("enqueue", 2)] if name == "priority-queue" else [("acquire", 1)]
    with pytest.raises(HistoryError, match=f"{f} needs a number, not null: choose another model"):
        check_linearizable(in_a_row([*rows, (f, None)]), name)


@pytest.mark.parametrize("name", ["counter", "semaphore"])
def test_a_number_that_is_missing_is_one(name):
    """Of those that count."""
    rows = {"counter": [("add", None), ("read", 1)], "semaphore": [("acquire", None), ("release", None)]}
    assert check_linearizable(in_a_row(rows[name]), name).valid == "valid"


@pytest.mark.parametrize(
    ("rows", "valid"),
    [
        ((("acquire", None, 1), ("renew", 1, None), ("release", 1, None), ("acquire", None, 2)), "valid"),
        ((("acquire", None, 1), ("acquire", None, 2), ("renew", 2, None)), "valid"),
        ((("acquire", None, 1), ("acquire", None, 2), ("renew", 1, None)), "invalid"),
        ((("acquire", None, 2), ("acquire", None, 2)), "invalid"),
        ((("acquire", None, 1), ("release", 1, None), ("renew", 1, None)), "invalid"),
        ((("acquire", None, "lost"), ("renew", 3, None), ("renew", 2, None)), "invalid"),
        ((("acquire", None, "lost"), ("renew", 3, None), ("acquire", None, 4)), "valid"),
    ],
)
def test_leases(rows, valid):
    """Tokens grow, and only the last one is accepted; a grant whose answer was lost has a token that nobody knows."""
    lines = []
    for process, (f, argument, result) in enumerate(rows):
        lines.append(Op(len(lines), len(lines) + 1, process, "invoke", f, None, argument))
        kind = "info" if result == "lost" else "ok"
        lines.append(
            Op(len(lines), len(lines) + 1, process, kind, f, None, None if kind == "info" else result)
        )
    assert check_linearizable(History.of(lines), "lease").valid == valid
