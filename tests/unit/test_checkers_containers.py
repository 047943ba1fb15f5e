"""Queues, stacks, priority queues and sets with values put in once: the polynomial algorithms against brute force."""

import random

import pytest

from checkers import History, Op, Operation, check_linearizable, containers, model_by_name
from checkers.containers import decide, smallest
from checkers.oracle import is_linearizable
from tests.mutants import mutant

MODELS = ("unordered-queue", "fifo-queue", "stack", "priority-queue", "set")
HISTORIES = 700


def random_operations(rng, model):
    """Some intervals, values mostly taken in an order that fits, info operations, empty takes, nonsense."""
    put = {"stack": "push", "set": "add"}.get(model, "enqueue")
    take = {"stack": "pop", "set": "read"}.get(model, "dequeue")
    count, width = rng.randint(1, 8), rng.choice((2, 4, 8))
    spans = sorted(
        (start, start + rng.random() * width) for start in (rng.random() * count for _ in range(count))
    )
    moments = sorted(
        [(a, 0, n) for n, (a, _) in enumerate(spans)] + [(b, 1, n) for n, (_, b) in enumerate(spans)]
    )
    number = {(end, n): place for place, (_, end, n) in enumerate(moments)}
    fresh, there, taken, operations = rng.sample(range(1, 20), 19), [], set(), []
    for n in range(count):
        lost = rng.random() < 0.15
        call, ret = number[0, n], None if lost else number[1, n]
        status = "info" if lost else "ok"
        if rng.random() < 0.5:
            there.append(fresh.pop())
            operations.append(Operation(n, put, None, there[-1], None, status, call, ret, call, ret))
            continue
        result = answer(rng, model, there, taken, fresh[-1])
        taken.add(result)
        operations.append(
            Operation(n, take, None, None, None if lost else result, status, call, ret, call, ret)
        )
    return sorted(operations, key=lambda operation: operation.call)


def answer(rng, model, there, taken, upcoming):
    """What a read or a take returns: mostly what would fit."""
    if model == "set":
        some = there[: rng.randint(0, len(there))]
        return tuple(some if rng.random() < 0.5 else rng.sample(there, len(some)))
    left = [value for value in there if value not in taken]
    if rng.random() < 0.1:
        return rng.choice((99, upcoming))
    if left and rng.random() < 0.7:
        first = {"fifo-queue": left[0], "stack": left[-1], "priority-queue": min(left)}
        return first.get(model, rng.choice(left))
    return None if rng.random() < 0.5 or not there else rng.choice(there)


def disagreement(module, histories=HISTORIES):
    """The first history on which the module and brute force differ, None where there is none; and what was seen."""
    seen = set()
    for name in MODELS:
        model = model_by_name(name)
        for seed in range(histories):
            operations = random_operations(random.Random(f"{name} {seed}"), name)
            found = module.decide(operations, model)
            if found is None:
                continue
            wanted = is_linearizable(operations, model)
            seen.add((name, wanted))
            if found.valid != wanted:
                return (name, seed), seen
    return None, seen


def test_they_agree_with_brute_force():
    """On every model, on valid and invalid histories."""
    different, seen = disagreement(containers)
    assert different is None
    assert len(seen) == 2 * len(MODELS)


MUTANTS = {
    "a gap may be covered at its ends": ("if at >= 0 and end < self.ends[at]:", "if False:"),
    "the first put may be taken last": ("if latest is not None and y.take[1] < latest.take[0]:", "if False:"),
    "larger values do not wait": (
        "            if covering is not None:\n                inside",
        "            if False:\n                inside",
    ),
    "any bottom will do": ("if value.put[0] < first_ret and value.take[1] >= last_call:", "if True:"),
    "a bottom may be taken early": (" and value.take[1] >= last_call", ""),
    "components are one": ("if value.gap[0] >= end:", "if not components:"),
    "taken before it was put in": ("value not in puts or _ret(take) < puts[value].call", "value not in puts"),
    "taken twice": ("if twice:", "if False:"),
    "lost takes are no excuse": ("if wrong and read.open_takes:", "if False:"),
    "reads in any order": ("if not there > before or not new <= adds.keys():", "if not new <= adds.keys():"),
    "reads at any time": ("if any(_ret(operation) < latest for operation in group):", "if False:"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name):
    """Each rule that is broken on purpose is noticed."""
    assert disagreement(mutant(containers, *MUTANTS[name]))[0] is not None


def test_few_operations_tell_why():
    """Of a long history only what is impossible by itself is shown, and it is impossible."""
    lines = []

    def both(process, f, value, result):
        for kind, shown in (("invoke", value), ("ok", result)):
            lines.append(Op(len(lines), len(lines) + 1, process, kind, f, None, shown))

    for n in range(200):
        both(0, "enqueue", n, n)
        if n != 100:
            both(1, "dequeue", None, n)
    both(1, "dequeue", None, None)
    history = History.of(lines)
    verdict = check_linearizable(history, "fifo-queue")
    assert (verdict.valid, verdict.algorithm) == ("invalid", "containers")
    assert 0 < len(verdict.evidence) <= 20
    assert any("enqueue 100" in line for line in verdict.evidence)
    model = model_by_name("fifo-queue")
    part, _ = smallest(history.operations, model, decide(history.operations, model))
    assert len(part) <= 4
    assert not is_linearizable(part, model)


def test_what_does_not_fit_goes_to_the_search():
    """Values put in twice, and an object that is not empty at first."""
    twice = [Op(n, n + 1, 0, kind, "push", None, 1) for n, kind in enumerate(("invoke", "ok") * 2)]
    assert check_linearizable(History.of(twice), "stack").algorithm == "wgl-dfs"
    # Also where it is taken twice before it is put in for the second time.
    taken = [Op(n + 9, n + 9, n, "invoke", "pop") for n in (1, 2)]
    taken += [Op(n + 19, n + 19, n, "ok", "pop", None, 1) for n in (1, 2)]
    late = [Op(30, 30, 3, "invoke", "push", None, 1), Op(31, 31, 3, "ok", "push", None, 1)]
    invoked = [*twice[:2], *taken[:2], late[0], *taken[2:], late[1]]
    lines = [Op(n, n + 1, op.process, op.type, op.f, None, op.value) for n, op in enumerate(invoked)]
    assert check_linearizable(History.of(lines), "stack").valid == "valid"
    assert check_linearizable(History.of(twice[:2]), model_by_name("stack", [7])).algorithm == "wgl-dfs"
    assert check_linearizable(History.of(twice), "stack", algorithm="containers").valid == "unknown"


def test_who_took_a_value_is_shown_where_somebody_else_may_have():
    """An open take may have got it, so that without the one which did there would be no contradiction."""
    rows = [
        (0, "invoke", "push", 7), (0, "ok", "push", 7), (1, "invoke", "pop", None),
        (2, "invoke", "pop", None), (2, "ok", "pop", None), (2, "invoke", "pop", None), (2, "ok", "pop", 7),
    ]  # fmt: skip
    lines = [
        Op(n, n, process, kind, f, value=value) for n, (process, kind, f, value) in enumerate(rows, start=1)
    ]
    verdict = check_linearizable(lines, "stack")
    assert (verdict.valid, verdict.algorithm) == ("invalid", "containers")
    told = "\n".join(verdict.evidence)
    assert all(index in told for index in ("[1..2]", "[4..5]", "[6..7]")), told
