"""The searches against the oracle, on random histories of every model, as they are and broken."""

import random
import time
from pathlib import Path

import msgspec
import pytest

from checkers import Operation, check_linearizable, model_by_name, read_history
from checkers.models import uses_mismatch
from checkers.oracle import is_linearizable
from checkers.problem import compile_problem
from checkers.search import Levels, Meter, Outcome, Searcher, search
from checkers.values import Map
from checkers.witness import WitnessError, replay, verify


def ask_register(rng):
    kind = rng.random()
    if kind < 0.4:
        return "read", None
    return ("write", rng.randrange(3)) if kind < 0.7 else ("cas", (rng.randrange(3), rng.randrange(3)))


def ask_read_write(rng):
    return ("read", None) if rng.random() < 0.5 else ("write", rng.randrange(4))


def ask_kv(rng):
    return ("delete", None) if rng.random() < 0.1 else ask_register(rng)


def ask_string(rng):
    kind = rng.random()
    return ("get", None) if kind < 0.4 else ("put" if kind < 0.6 else "append", rng.choice("abc"))


def ask_txn(rng):
    steps = (("read", rng.choice("xy"), None), ("write", rng.choice("xy"), rng.randrange(3)))
    return "txn", tuple(rng.choice(steps) for _ in range(rng.randint(1, 2)))


def answer(model, state, f, argument):
    """What a correct object does: (new state, result), or None for a refused cas."""
    if f in {"read", "get"}:
        return state, state
    if f in {"write", "put"}:
        return argument, argument
    if f == "delete":
        return None, None
    if f == "append":
        return state + argument, argument
    if f == "cas":
        return (argument[1], argument) if state == argument[0] else None
    values, seen = dict(state), []
    for what, key, value in argument:
        if what == "write":
            values[key] = value
        seen.append((what, key, values.get(key, model.default)))
    return Map(sorted(values.items())), tuple(seen)


CASES = {
    "register": (model_by_name("register", 0), ask_read_write),
    "cas-register": (model_by_name("cas-register", 0), ask_register),
    "etcd-register": (model_by_name("etcd-register"), ask_register),
    "kv": (model_by_name("kv"), ask_kv),
    "string-kv": (model_by_name("string-kv"), ask_string),
    "multi-register": (model_by_name("multi-register", 0), ask_txn),
}


def history_of(rng, model, ask, *, count, clients, info):
    """Operations of one correct object, in the order of their calls; neighbouring times may tie."""
    state, open_, done, now, made = model.initial(), [], [], 0, 0
    while made < count or open_:
        now += 1
        if made < count and len(open_) < clients and (not open_ or rng.random() < 0.6):
            f, argument = ask(rng)
            open_.append(Operation(made, f, None, argument, None, "info", now, None, now))
            made += 1
            continue
        at = rng.randrange(len(open_))
        operation = open_[at]
        lost = rng.random() < info
        if operation.status == "info" and (not lost or rng.random() < 0.5):
            after = answer(model, state, operation.f, operation.argument)
            if after is None:
                operation = msgspec.structs.replace(operation, status="mismatch")
            else:
                state = after[0]
                operation = msgspec.structs.replace(operation, status="ok", result=after[1])
            open_[at] = operation
            if rng.random() < 0.5:
                continue
        if lost:
            operation = msgspec.structs.replace(operation, status="info", result=None)
        elif operation.status == "info":
            continue
        else:
            operation = msgspec.structs.replace(operation, ret=now, complete_index=now)
        open_.pop(at)
        if operation.status != "mismatch" or uses_mismatch(model):
            done.append(operation)
    done = _tied(rng, done) if rng.random() < 0.3 else done
    return sorted(done, key=lambda operation: operation.call)


def _tied(rng, done):
    """Some returns move behind the call that follows them: what equal times amount to."""
    calls = {operation.call for operation in done}
    tied = []
    for operation in done:
        ret = operation.ret
        if ret is not None and ret + 1 in calls and rng.random() < 0.5:
            tied.append(msgspec.structs.replace(operation, ret=ret + 1.5))
        else:
            tied.append(operation)
    return tied


def broken(rng, history):
    """One answer exchanged for another value."""
    places = [at for at, o in enumerate(history) if o.status == "ok" and o.f in {"read", "get", "txn"}]
    if not places:
        return history
    at = rng.choice(places)
    old = history[at].result
    if history[at].f == "read":
        new = rng.randrange(4)
    elif history[at].f == "get":
        new = "".join(rng.choice("abc") for _ in range(rng.randint(0, 3)))
    else:
        new = tuple((what, key, rng.randrange(3) if what == "read" else value) for what, key, value in old)
    return [*history[:at], msgspec.structs.replace(history[at], result=new), *history[at + 1 :]]


def meter():
    return Meter(10**6, 10**9, time.monotonic() + 100)


def random_case(seed, name):
    rng = random.Random(f"{name} {seed}")
    model, ask = CASES[name]
    history = history_of(
        rng, model, ask, count=rng.randint(1, 11), clients=rng.randint(1, 6), info=rng.choice((0, 0.1, 0.4))
    )
    return (broken(rng, history) if rng.random() < 0.6 else history), model


def agree(seed, name):
    history, model = random_case(seed, name)
    expected = is_linearizable(history, model)
    problem = compile_problem(history, model)
    for order in ("dfs", "bfs"):
        outcome = getattr(Searcher(problem, meter()), order)()
        assert outcome.valid is expected, f"{order} says {outcome.valid} for {name} seed {seed}"
        if outcome.valid:
            verify(replay(problem, Levels(problem), outcome.trail), history, model)
    return expected


@pytest.mark.parametrize("name", sorted(CASES))
def test_both_orders_agree_with_the_oracle(name):
    """Depth first and level by level give the oracle's verdict, and every yes has a witness that holds."""
    verdicts = [agree(seed, name) for seed in range(1_000)]
    assert 100 < sum(verdicts) < 990, "both verdicts must be well represented"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_both_orders_agree_with_the_oracle_at_length(name):
    """The same, an order of magnitude more often."""
    for seed in range(1_000, 13_000):
        agree(seed, name)


def o(f, argument, result, call, ret, status="ok", process=0):
    return Operation(process, f, None, argument, result, status, call, ret, call, ret)


def test_an_overwrite_without_effect_still_absorbs():
    """Put a in state "a" changes nothing, but put c may hide before it."""
    history = [
        o("append", "a", None, 1, 5),
        o("put", "c", None, 7, 14),
        o("put", "a", None, 9, 16),
        o("append", "b", None, 10, 12),
        o("get", None, "ab", 11, 18),
        o("get", None, "ab", 15, 17),
    ]
    assert search(compile_problem(history, CASES["string-kv"][0]), meter()).valid is True


def test_twenty_crashed_writes_are_no_burden():
    """Twenty writes that never returned, of asked-for values, and a read that nobody can explain."""
    history = [o("write", n % 5, None, n, None, "info") for n in range(20)]
    history += [o("read", None, n % 5, 100 + 2 * n, 101 + 2 * n) for n in range(20)]
    began_s = time.process_time()
    model = model_by_name("cas-register", 0)
    assert search(compile_problem(history, model), meter()).valid is True
    history.append(o("read", None, 7, 300, 301))
    assert search(compile_problem(history, model), meter()).valid is False
    assert time.process_time() - began_s < 10


def test_the_meter_stops_both_orders():
    """A budget of three configurations is not enough, and the outcome says what ran out and where."""
    history = [o("write", n, n, 2 * n, 2 * n + 1) for n in range(10)]
    outcome = search(compile_problem(history, CASES["register"][0]), Meter(3, 10**9, time.monotonic() + 100))
    assert (outcome.valid, outcome.cause) == (None, "configurations")
    assert 0 < outcome.level < 10


@pytest.mark.parametrize("ran_out", ["seconds", "bytes"])
def test_what_ran_out_is_what_ended_the_search(monkeypatch, ran_out):
    """The turn that got farthest only ran out of its share."""
    farthest = Outcome(None, 9, 0, "wgl-dfs", cause="configurations")
    monkeypatch.setattr(Searcher, "dfs", lambda _: farthest)
    monkeypatch.setattr(Searcher, "bfs", lambda _: Outcome(None, 3, 0, "jit-bfs", cause=ran_out))
    problem = compile_problem([o("write", 1, 1, 0, 1)], CASES["register"][0])
    outcome = search(problem, Meter(3, 10**9, time.monotonic() + 100))
    assert (outcome.level, outcome.cause) == (9, ran_out)


def test_a_witness_that_does_not_hold_is_refused():
    """The second look catches a wrong order, a missing operation and an impossible answer."""
    model = CASES["register"][0]
    first, second = o("write", 1, 1, 0, 1), o("read", None, 1, 2, 3)
    verify([first, second], [first, second], model)
    for order in ([second, first], [first], [first, first, second]):
        with pytest.raises(WitnessError):
            verify(order, [first, second], model)
    with pytest.raises(WitnessError):
        verify([first, o("read", None, 2, 2, 3)], [first], model)


CORPUS = Path(__file__).parents[3] / "shared" / "histories"
INITIAL = {"cas-register": 0, "multi-register": {"x": 0, "y": 0}}


@pytest.mark.skipif(
    not CORPUS.exists(), reason="the corpus of third-party histories is not beside this checkout"
)
def test_the_corpus_has_its_known_verdicts():
    """Histories of Knossos and Porcupine get the verdicts that those tools give them."""
    rows = [line.split("\t") for line in (CORPUS / "VERDICTS.tsv").read_text().splitlines()[1:]]
    assert len(rows) > 100
    for path, _, model, verdict, *_ in rows:
        name = model.split()[0]
        found = check_linearizable(read_history(CORPUS / path), model_by_name(name, INITIAL.get(name)))
        expected = "valid" if verdict == "linearizable" else "invalid"
        assert (path, found.valid) == (path, expected)
        assert len(found.evidence) <= 20
