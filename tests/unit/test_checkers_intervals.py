"""What intervals refute is impossible by brute force, and the three operations named say why."""

import random
import re
from pathlib import Path

import msgspec
import pytest

from checkers import History, check_linearizable, fast, intervals, linear, model_by_name
from checkers.oracle import is_linearizable
from checkers.registers import PLAIN, columns_of
from checkers.zones import NOT_UNIQUE
from harness.module_files import module_from_file
from tests.mutants import mutant

MODELS = ("cas-register", "etcd-register")


@pytest.fixture(scope="module")
def random_lines():
    """The generator of the compiled search's tests."""
    return module_from_file(Path(__file__).with_name("test_checkers_register_search.py")).random_lines


def broken_lines(random_lines, rng):
    """Lines of a small history, of which one answer was exchanged."""
    lines = random_lines(rng, rng.randint(2, 9), rng.randint(1, 4), 3)
    reads = [n for n, op in enumerate(lines) if op.f == "read" and op.type == "ok"]
    if reads:
        n = rng.choice(reads)
        lines[n] = msgspec.structs.replace(lines[n], value=rng.randrange(4))
    return lines


def small_history(random_lines, seed):
    rng = random.Random(f"intervals {seed}")
    model = model_by_name(MODELS[seed % 2], 0)
    lines = broken_lines(random_lines, rng)
    return linear.groups_of(History.of(lines), model).get(None, []), model


def refuted_by(module, operations, model, backend=PLAIN):
    """The three operations; None where the module does not refute them."""
    columns = columns_of({None: operations}, model)
    if backend is not PLAIN:
        for name in ("f", "a", "b", "call", "ret", "key", "value_key", "initial_value"):
            setattr(columns, name, backend.copy(getattr(columns, name)))
    # Where zones would know the answer it is asked all the same: that gives more cases.
    return module.refute(columns, backend.full(1, NOT_UNIQUE), backend).get(0)


def test_what_is_refuted_is_impossible(random_lines):
    """Nearly all of what is impossible in such histories is refuted, and nothing else."""
    refuted = impossible = 0
    for seed in range(4_000):
        operations, model = small_history(random_lines, seed)
        stale = refuted_by(intervals, operations, model)
        wanted = is_linearizable(operations, model)
        impossible += not wanted
        refuted += stale is not None
        assert stale is None or not wanted, f"seed {seed}"
        if stale is not None and stale.shown >= 0:
            seen, shown = operations[stale.seen], operations[stale.shown]
            assert shown.ret < seen.call
            assert stale.writer < 0 or operations[stale.writer].ret < shown.call
    assert impossible > 400
    assert 0.6 * impossible < refuted < impossible


@pytest.mark.slow
@pytest.mark.skipif(not fast.installed(), reason="numpy and numba are not installed (extra 'fast')")
def test_compiled_says_the_same(random_lines):
    """Operation for operation."""
    backend = fast.Compiled()
    for seed in range(400):
        case = small_history(random_lines, seed)
        if case[0]:
            assert refuted_by(intervals, *case) == refuted_by(intervals, *case, backend), f"seed {seed}"


MUTANTS = {
    "an operation shows its value before it returned": (
        "ret[by_ret[at]] < call[i]",
        "call[by_ret[at]] < call[i]",
    ),
    "a refused cas shows what it expected": ("if f[j] == DIFFERS or a[j] < 0:", "if a[j] < 0:"),
    "a writer counts only when it returned": ("call[at] < ret[i]", "ret[at] < ret[i]"),
    "the same value counts as another": ("(1 if values[2 * key[i]] == a[i] else 0)", "0"),
    "cas write nothing": ("if f[at] == WRITE or f[at] == CAS:", "if f[at] == WRITE:"),
    "the initial value is nobody's": ("latest[value] = -1", "latest[value] = NOBODY"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(random_lines, name):
    """Each refutes what is possible."""
    broken = mutant(intervals, *MUTANTS[name])
    cases = (small_history(random_lines, seed) for seed in range(4_000))
    assert any(refuted_by(broken, *case) is not None and is_linearizable(*case) for case in cases)


def test_the_words(random_lines, monkeypatch):
    """Of a history too long to search the three operations are told."""
    from checkers import telling  # noqa: PLC0415

    monkeypatch.setattr(telling, "SHORT", 0)
    sentences = set()
    for seed in range(300):
        rng = random.Random(f"intervals {seed}")
        lines = broken_lines(random_lines, rng)
        verdict = check_linearizable(History.of(lines), model_by_name("cas-register", 0))
        if verdict.algorithm == "intervals":
            assert verdict.valid == "invalid"
            assert 4 <= len(verdict.evidence) <= 7
            assert any("cannot have seen" in line for line in verdict.evidence)
            sentences.add(re.sub(r"\d+", "n", verdict.evidence[-2]))
    assert len(sentences) >= 2
