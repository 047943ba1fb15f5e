"""Counterexamples of all models: short, with a reason, and a proof by themselves."""

import json
import random
import re
from pathlib import Path

import msgspec
import pytest

from checkers import History, Op, check_linearizable, explain, model_by_name, oracle
from checkers.effects import Effect
from checkers.explain import LINES_MAX
from checkers.linear import groups_of
from checkers.models import effect_of
from checkers.parts import weaken
from harness.module_files import module_from_file

_ROW = re.compile(r"^  \[(\d+)(?:\.\.\d+)?\] +process")


def load_fuzz():
    return module_from_file(Path(__file__).parents[2] / "benchmarks" / "linearizability_fuzz.py")


def rows_of(evidence):
    """The operations that are shown, by the index of their invocation."""
    return [int(match.group(1)) for match in map(_ROW.match, evidence) if match]


def told_part(operations, evidence, model):
    """What the evidence says is impossible: the shown ones, firm; all others optional, or left out."""
    rows = rows_of(evidence)
    shown = [operation for operation in operations if operation.invoke_index in rows]
    if "alone are impossible" not in evidence[0]:
        others = [
            weaken(operation, model)
            for operation in operations
            if operation.invoke_index not in rows and effect_of(model, operation) is not Effect.PURE
        ]
        return shown + others
    only = re.search(r"other than (.*)$", evidence[0])
    values = json.loads(f"[{only.group(1)}]") if only else None
    if values is None:
        return shown
    return [
        msgspec.structs.replace(o, result=tuple(v for v in o.result if v in values))
        if isinstance(o.result, tuple)
        else o
        for o in shown
    ]


@pytest.mark.slow
def test_what_is_told_is_a_proof():
    """Of whatever model: at most twenty lines, a reason, and brute force finds no order of what is shown either."""
    fuzz, told = load_fuzz(), dict.fromkeys(load_fuzz().OPERATIONS, 0)
    for seed in range(6_000):
        rng = random.Random(f"explain {seed}")
        name = rng.choice(sorted(fuzz.OPERATIONS))
        history, model = fuzz.random_history(rng, name)
        verdict = check_linearizable(history, model)
        if verdict.valid != "invalid":
            continue
        text = "\n".join(verdict.evidence)
        assert len(verdict.evidence) <= LINES_MAX, seed
        if "contradict each other" in text:
            continue
        assert re.search(
            r"is stuck:\n  (it|after) |which is a circle: |nothing that can happen between", text
        ), (
            seed,
            text,
        )
        rows = rows_of(verdict.evidence)
        group = next(g for g in groups_of(history, model).values() if any(o.invoke_index in rows for o in g))
        part = sorted(told_part(group, verdict.evidence, model), key=lambda operation: operation.call)
        assert not oracle.is_linearizable(part, model), (seed, text)
        told[name] += 1
    assert min(told.values()) >= 10, told


def test_what_leads_to_a_dead_end_is_told(monkeypatch):
    """Each state in which the last operation was tried, with the last operations before it."""
    rows = [
        (0, "invoke", "push", 0),
        (1, "invoke", "push", 1),
        (2, "invoke", "pop", None),
        (2, "ok", "pop", 8),
    ]
    lines = [Op(n, n + 1, process, kind, f, None, value) for n, (process, kind, f, value) in enumerate(rows)]
    evidence = check_linearizable(lines, "stack", algorithm="search").evidence
    assert evidence[-3:] == (
        "  it got 8 while there was null",
        "  after [0] push 0: it got 8 while there was 0",
        "  after [1] push 1: it got 8 while there was 1",
    )
    monkeypatch.setattr(explain, "_STEPS_SHOWN", 1)
    rows[3:3] = [(0, "ok", "push", 0), (3, "invoke", "push", 0), (1, "ok", "push", 1), (3, "ok", "push", 0)]
    monkeypatch.setattr(explain, "_minimal", lambda window, *_: window.operations)
    lines = [Op(n, n + 1, process, kind, f, None, value) for n, (process, kind, f, value) in enumerate(rows)]
    evidence = check_linearizable(lines, "stack", algorithm="search").evidence
    assert "  after ..., [1] push 1: it got 8 while there was 1" in evidence
    monkeypatch.setattr(explain, "_LINE_CHARS", 40)
    evidence = check_linearizable(lines, "stack", algorithm="search").evidence
    assert "  it got 8 while there was 1" in evidence, "where there is no room for the path"


def test_a_set_is_told_by_the_values_that_matter():
    """Not as if nothing had been added: 3 was, and 4 never."""
    rows = [("invoke", "add", 3), ("ok", "add", 3), ("invoke", "read", None), ("ok", "read", [3, 4])]
    verdict = check_linearizable(
        [Op(n, n + 1, 0, kind, f, None, value) for n, (kind, f, value) in enumerate(rows)], "set"
    )
    text = "\n".join(verdict.evidence)
    assert "with no regard to values other than 4" in text
    assert "it got [4] while there was []" in text


def test_what_was_answered_later_is_not_forgotten():
    """A pop that returned after the failure took 9, and so cannot explain why 7 is gone."""
    rows = [
        (0, "invoke", "push", 7), (0, "ok", "push", 7), (1, "invoke", "push", 9), (2, "invoke", "pop", None),
        (3, "invoke", "pop", None), (3, "ok", "pop", None), (1, "ok", "push", 9), (2, "ok", "pop", 9),
        (4, "invoke", "push", 7), (4, "ok", "push", 7),
    ]  # fmt: skip
    lines = [Op(n, n + 1, process, kind, f, None, value) for n, (process, kind, f, value) in enumerate(rows)]
    verdict = check_linearizable(History.of(lines), model_by_name("stack"))
    assert verdict.valid == "invalid"
    text = "\n".join(verdict.evidence)
    assert "push 7" in text
    assert "it got null while there was 7" in text


def test_rows_give_way_to_reasons(monkeypatch):
    """The last line is the point of a counterexample; of many rows those in the middle are left out."""
    rows = [(kind, f, n) for n in range(5) for f in ("write", "read") for kind in ("invoke", "ok")]
    rows += [("invoke", "read", None), ("ok", "read", 0)]
    ops = [
        Op(n, n + 1, 0, kind, f, None, None if (kind, f) == ("invoke", "read") else value)
        for n, (kind, f, value) in enumerate(rows)
    ]
    monkeypatch.setattr(explain, "_reasons", lambda *_: ([f"reason {n}" for n in range(11)], (), ()))
    monkeypatch.setattr(explain, "_minimal", lambda window, *_: window.operations)
    evidence = check_linearizable(ops, "register").evidence
    assert (len(evidence), evidence[-1]) == (LINES_MAX, "reason 10")
    assert len(rows_of(evidence)) == 6
