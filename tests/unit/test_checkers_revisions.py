"""Histories with revisions: the order they say against brute force, and the two models that look at them."""

import contextlib
import random
from pathlib import Path

import pytest

from checkers import History, HistoryError, Op, Operation, check_linearizable, model_by_name, revisions
from checkers.effects import Inconsistent
from checkers.oracle import is_linearizable
from checkers.problem import NEVER, compile_problem
from checkers.revision_models import RevisionRegister
from checkers.search import Meter, search
from checkers.values import freeze
from checkers.witness import WitnessError, verify
from harness.module_files import module_from_file
from raft import api
from raft.kv import KeyValue, encode_command
from tests.mutants import mutant

HISTORIES = 2_500


def random_operations(rng):
    """Operations at one register that tells revisions, some lost, some untold; perhaps an answer is changed."""
    count, width = rng.randint(2, 8), rng.choice((1, 2, 4))
    spans = [
        (start, start + rng.random() * width) for start in sorted(rng.random() * count for _ in range(count))
    ]
    events = sorted([(a, n) for n, (a, _) in enumerate(spans)] + [(b, n) for n, (_, b) in enumerate(spans)])
    number = {(moment, n): place for place, (moment, n) in enumerate(events)}
    model, value, revision = RevisionRegister(rng.choice((None, None, 7))), None, 0
    value = model.start
    revision = 0 if value is None else rng.randint(0, 3)
    made = []
    for n in sorted(range(count), key=lambda n: rng.uniform(*spans[n])):
        f = rng.choice(("read", "read", "write", "write", "cas", "delete"))
        status, result, told, argument = "ok", None, revision, None
        if f == "read":
            result = value
        elif f == "write":
            argument = rng.randint(1, 4)
        elif f == "cas":
            argument = (value if rng.random() < 0.6 else rng.randint(1, 4), rng.randint(1, 4))
            status = "ok" if argument[0] == value else "mismatch"
        changes = f == "write" or (f == "cas" and status == "ok") or (f == "delete" and value is not None)
        lost = rng.random() < (0.25 if f in ("write", "cas") else 0.1)
        if changes and not (lost and rng.random() < 0.4):
            revision += rng.choice((1, 1, 3))
            value, told = (argument[1] if f == "cas" else argument), revision
        if (value is None and not changes) or rng.random() < 0.03:
            told = None
        call, ret = number[spans[n][0], n], number[spans[n][1], n]
        if lost:
            made.append(Operation(n, f, None, argument, None, "info", call, None, call))
        else:
            made.append(Operation(n, f, None, argument, result, status, call, ret, call, ret, revision=told))
    if rng.random() < 0.7:
        spoil(rng, made)
    return model, sorted(made, key=lambda operation: operation.call)


def spoil(rng, made):
    """Changes a result or a revision, or makes two operations change places."""
    told = [n for n, operation in enumerate(made) if operation.revision is not None]
    if not told:
        return
    n, other = rng.choice(told), rng.choice(told)
    kind = rng.random()
    if kind < 0.3:
        made[n], made[other] = (
            with_(made[n], revision=made[other].revision),
            with_(made[other], revision=made[n].revision),
        )
    elif kind < 0.6:
        made[n] = with_(made[n], revision=max(1, made[n].revision + rng.choice((-2, -1, 1, 2))))
    elif made[n].f == "read":
        made[n] = with_(made[n], result=rng.choice((None, 1, 2, 3, 4, 7)))
    elif kind < 0.8:
        made.pop(n)


def with_(operation, **changes):
    fields = {name: getattr(operation, name) for name in Operation.__struct_fields__}
    return Operation(**{**fields, **changes})


def disagreement(module, histories=HISTORIES):
    """The first seed on which the module and brute force differ; and how often each answer was right."""
    counts = {True: 0, False: 0, None: 0}
    for seed in range(histories):
        model, operations = random_operations(random.Random(f"revisions {seed}"))
        found = module.decide(operations, model)
        counts[found.valid if found is not None else None] += 1
        if found is None:
            continue
        if found.valid != is_linearizable(operations, model):
            return (seed, found), counts
        if found.valid:
            verify(found.order, operations, model)
            verify(found.order, operations, model_by_name("kv", model.start))
    return None, counts


def test_they_agree_with_brute_force():
    """And are seldom undecided."""
    different, counts = disagreement(revisions)
    assert different is None
    assert counts[True] > HISTORIES // 3
    assert counts[False] > HISTORIES // 8
    assert counts[None] < HISTORIES // 3


def test_the_search_agrees_with_brute_force():
    """Where the order of revisions does not decide; a refused cas may settle which revision a lost write made."""
    for seed in range(1_200):
        model, operations = random_operations(random.Random(f"revisions {seed}"))
        meter = Meter(10**6, 1 << 28, NEVER)
        found = search(compile_problem(operations, model), meter)
        assert found.valid is is_linearizable(operations, model), seed


MUTANTS = {
    "two changes may have one revision": ("if other is not operation:", "if False:"),
    "reads see anything": (
        'if len(code) == 1 or (code[1] == slot.value) is (code[0] == "read"):',
        "if True:",
    ),
    "refused cas see anything": ('(code[0] == "read"):', '(code[0] == "read") or code[0] == "differs":'),
    "cas find anything": ("and code[1] != self.slots[at - 1].value:", "and False:"),
    "revisions do not follow time": ("if latest is not None and _ret(operation) < latest.call:", "if False:"),
    "reads do not wait": ("latest = read if latest is None else max(latest, read, key=_call)", "pass"),
    "lost writes in any order": (
        "sorted(self.infos.get(value, []), key=lambda operation: operation.call)",
        "sorted(self.infos.get(value, []), key=lambda operation: -operation.call)",
    ),
    "lost writes are used twice": ("infos.remove(slot.writer)", "pass"),
    "unseen writes explain nothing": ("if self.spare[code[1]]:", "if False:"),
    "unseen writes explain no read": ("if self.spare.total():", "if False:"),
    "loose reads ignore each other": ("floor = max(floor, heappop(returning)[2])", "heappop(returning)"),
    "loose reads may be late": (" or latest_calls[at] > _ret(operation)", ""),
    "loose reads may be early": ("start = max(floor, bisect_left(returns, operation.call))", "start = floor"),
    "a guess is a proof": ("return clash.found if check.sure else None", "return clash.found"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name):
    """Each rule that is broken on purpose is noticed, by a wrong answer, a wrong order or a crash."""
    broken = mutant(revisions, *MUTANTS[name])
    with contextlib.suppress(WitnessError, LookupError):
        assert disagreement(broken, 12_000)[0] is not None


def in_a_row(*rows):
    """A history of operations one after another: (f, argument, result, revision), cas with a result of None refused."""
    lines = []
    for n, (f, argument, result, revision) in enumerate(rows):
        lines.append(Op(2 * n, 0, n, "invoke", f, "x", argument))
        lines.append(Op(2 * n + 1, 0, n, "ok", f, "x", result, revision=revision))
    return History.of(lines)


WRITES = (("write", 1, 1, 3), ("write", 2, 2, 5))
#: The value sequences are right in all of them; what is said of the revisions is not.
WRONG = {
    "swapped revisions": (("write", 1, 1, 5), ("write", 2, 2, 3)),
    "one revision twice": (("write", 1, 1, 3), ("write", 2, 2, 3)),
    "stale revision": (*WRITES, ("read", None, 2, 3)),
    "stale read": (*WRITES, ("read", None, 1, 3)),
    "lost write": (*WRITES, ("write", 3, 3, 7), ("read", None, 2, 5)),
    "seen from nowhere": (*WRITES, ("read", None, 2, 9)),
    "seen before it was made": (("read", None, None, None), ("read", None, 1, 3), *WRITES),
    "read nothing after a write": (*WRITES, ("read", None, None, None)),
    "cas of what was overwritten": (*WRITES, ("cas", [1, 3], [1, 3], 7)),
}


@pytest.mark.parametrize("case", WRONG)
def test_contradictions_are_told(case):
    """By the revisions, naming the operations."""
    history = in_a_row(*WRONG[case])
    verdict = check_linearizable(history, "revision-register")
    assert (verdict.valid, verdict.algorithm) == ("invalid", "revisions")
    assert not is_linearizable(history.operations, model_by_name("revision-register"))
    assert check_linearizable(history, "revision-register", algorithm="search").valid == "invalid"
    assert 3 <= len(verdict.evidence) <= 4
    assert "of process" in verdict.evidence[-1]
    assert str(WRONG[case][-1][0]) in verdict.evidence[-1]


def test_the_sentence_names_both():
    """Who, where, and which revision."""
    verdict = check_linearizable(in_a_row(*WRONG["swapped revisions"]), "revision-register")
    assert verdict.evidence[-1] == (
        "write 1 [0..1] of process 0 had returned, with revision 5, before write 2 [2..3] of process 1 was called, "
        "which has revision 3"
    )


def test_a_model_that_does_not_look_says_so():
    """Values that are right stay valid, with a note; a right order is a proof for such models too."""
    history = in_a_row(("write", 1, 1, 5), ("write", 2, 2, 3), ("write", 1, 1, 7))
    verdict = check_linearizable(history, "etcd-register")
    assert verdict.valid == "valid"
    assert any("revision-register" in note for note in verdict.notes)
    right = in_a_row(("write", 1, 1, 3), ("write", 2, 2, 5), ("write", 1, 1, 7))
    verdict = check_linearizable(right, "etcd-register")
    assert (verdict.valid, verdict.algorithm, verdict.notes) == ("valid", "revisions", ())


def test_what_tells_no_revisions_goes_to_the_search():
    """Also with the model that looks at them; asked for by name it is unknown."""
    history = in_a_row(*((f, argument, result, None) for f, argument, result, _ in WRITES))
    assert check_linearizable(history, "revision-register").algorithm == "wgl-dfs"
    assert check_linearizable(history, "etcd-register", algorithm="revisions").valid == "unknown"


def test_many_equal_values_at_once():
    """What is exponential without revisions: five thousand operations, thirty open at a time, two values."""
    rng, lines, value, revision = random.Random(0), [], 0, 0
    waiting = []
    for n in range(5_000):
        f, wanted = rng.choice(("read", "write")), rng.randint(0, 1)
        lines.append(Op(len(lines), 0, n, "invoke", f, None, wanted if f == "write" else None))
        if f == "write":
            value, revision = wanted, revision + 1
        waiting.append((n, f, value if revision else None, revision or None))
        if len(waiting) > 30:
            who, f, saw, told = waiting.pop(rng.randrange(30))
            lines.append(Op(len(lines), 0, who, "ok", f, None, saw, revision=told))
    for model in ("etcd-register", "revision-register"):
        verdict = check_linearizable(History.of(lines), model)
        assert (verdict.valid, verdict.algorithm) == ("valid", "revisions")


# -- the whole store --------------------------------------------------------------------------------


def load_fuzz():
    return module_from_file(Path(__file__).parents[2] / "benchmarks" / "linearizability_fuzz.py")


def test_the_store_agrees_with_brute_force():
    """Random clients of a whole store, with transactions."""
    fuzz, seen = load_fuzz(), dict.fromkeys(("valid", "invalid"), 0)
    for seed in range(400):
        history, model = fuzz.random_history(random.Random(f"store {seed}"), "revision-kv")
        verdict = check_linearizable(history, model, explain=seed % 10 == 0)
        assert (verdict.valid == "valid") is is_linearizable(history.operations, model), seed
        seen[verdict.valid] += 1
    assert min(seen.values()) > 60


SWAP = {
    "compare": [["x", "value", "=", 1]],
    "then": [["put", "x", 2], ["put", "y", 2]],
    "else": [["get", "x"]],
}


def store_run(*rows):
    """Operations one after another: (f, key, argument, result, revision)."""
    lines = []
    for n, (f, key, argument, result, revision) in enumerate(rows):
        lines.append(Op(2 * n, 0, n, "invoke", f, key, argument))
        lines.append(Op(2 * n + 1, 0, n, "ok", f, key, result, revision=revision))
    return check_linearizable(History.of(lines), "revision-kv")


def test_a_transaction_is_one_revision():
    """Both keys change at once; what a part of it would show is impossible."""
    put = ("put", "x", 1, 1, 1)
    done = ("txn", None, SWAP, {"succeeded": True, "results": [None, None]}, 2)
    refused = ("txn", None, SWAP, {"succeeded": False, "results": [2]}, 2)
    assert store_run(put, done, refused, ("get", "y", None, 2, 2)).valid == "valid"
    assert store_run(put, done, ("get", "y", None, None, None)).valid == "invalid"
    assert store_run(put, done, ("get", "y", None, 2, 3)).valid == "invalid"
    assert store_run(put, refused).valid == "invalid"
    assert store_run(put, ("delete", "x", None, None, 2), ("put", "x", 1, 1, 3)).valid == "valid"


def test_it_is_the_reference_store():
    """What the project's own store answers to random commands is what the model says."""
    rng, store, txn = random.Random(3), KeyValue(), load_fuzz().txn
    model = model_by_name("revision-kv")
    state = model.initial()
    for seq in range(1, 400):
        f, key = rng.choice(("put", "delete", "cas", "txn", "get")), rng.choice("xy")
        argument = {"put": rng.randint(1, 3), "cas": [rng.randint(1, 3), 3], "txn": txn(rng)}.get(f)
        command = {
            "put": api.Put,
            "delete": lambda k, _: api.Delete(k),
            "cas": lambda k, a: api.Cas(k, *a),
            "txn": lambda _, a: as_if(a),
            "get": lambda k, _: api.Get(k),
        }[f](key, argument)
        answer = store.apply(encode_command(api.Request("c", seq, command)))
        status = "ok" if isinstance(answer, api.Done) else "mismatch"
        told = answer.revision if f == "txn" else answer.mod_revision
        result = freeze(answer.value) if f in ("get", "txn") else None
        after = model.step(
            state,
            Operation(0, f, key, freeze(argument), result, status, 0, 1, 0, revision=told),
        )
        assert not isinstance(after, Inconsistent), (command, answer, after)
        state = after


def as_if(body):
    """A transaction as the store has it."""
    commands = {
        "get": api.Get,
        "put": api.Put,
        "delete": api.Delete,
        "txn": as_if,
    }
    then, otherwise = ([commands[what](*rest) for what, *rest in body[part]] for part in ("then", "else"))
    compare = tuple(api.Compare(*one) for one in body["compare"])
    return api.If(compare, tuple(then), tuple(otherwise))


def test_what_is_no_transaction():
    """Said in a sentence."""
    for body in ({"then": [["put", "x"]]}, {"compare": [["x", "size", "=", 1]]}, [1], {"when": []}):
        with pytest.raises(HistoryError, match=r"txn needs|a condition is|a command is"):
            store_run(("txn", None, body, None, 1))
    with pytest.raises(ValueError, match="no object"):
        model_by_name("revision-kv", 3)
