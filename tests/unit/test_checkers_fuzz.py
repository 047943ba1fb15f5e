"""Random small histories of every model against brute force and the networkx oracle: a slice of the whole.

The whole is ``python benchmarks/linearizability_fuzz.py --histories 1000000``, or this file with
``SPLITBRAIN_FUZZ_HISTORIES=1000000``.
"""

import os
from pathlib import Path

import pytest

from checkers import (
    History,
    Op,
    check_linearizable,
    graph_oracle,
    linear,
    model_by_name,
    models,
    oracle,
    problem,
)
from checkers.effects import Effect
from harness.module_files import module_from_file

HISTORIES = int(os.environ.get("SPLITBRAIN_FUZZ_HISTORIES", "1200"))


def load_fuzz():
    return module_from_file(Path(__file__).parents[2] / "benchmarks" / "linearizability_fuzz.py")


@pytest.mark.slow
@pytest.mark.timeout(0 if HISTORIES > 5_000 else 300)
def test_no_disagreement():
    """The checker, brute force, and now and then the networkx oracle."""
    fuzz = load_fuzz()
    seen = set()
    for seed in range(HISTORIES):
        name, verdict, wrong = fuzz.disagreement(seed, with_compiled=False)
        assert wrong is None, f"seed {seed}, model {name}: {wrong}"
        seen.add((name, verdict.valid))
    assert len({name for name, _ in seen}) == len(fuzz.OPERATIONS)
    assert len(seen) > 1.5 * len(fuzz.OPERATIONS)


def test_values_put_in_and_taken_out_twice():
    """A history that this found: a value may come out twice where it was put in twice, whatever the order of lines."""
    rows = (
        (3, 0, "invoke", "push", 17), (4, 1, "invoke", "push", 25), (4, 0, "ok", "push", 17),
        (4, 1, "ok", "push", 25), (4, 2, "invoke", "pop", None), (5, 3, "invoke", "push", 49),
        (7, 4, "invoke", "push", 43), (8, 5, "invoke", "pop", None), (8, 3, "ok", "push", 49),
        (8, 6, "invoke", "push", 14), (9, 2, "ok", "pop", 25), (11, 6, "ok", "push", 14),
        (13, 7, "invoke", "pop", None), (15, 8, "invoke", "push", 25), (17, 4, "info", "push", None),
        (21, 8, "ok", "push", 25), (21, 7, "ok", "pop", 25), (21, 5, "ok", "pop", 43),
    )  # fmt: skip
    lines = [
        Op(n, time, process, kind, f, None, value) for n, (time, process, kind, f, value) in enumerate(rows)
    ]
    verdict = check_linearizable(lines, "stack")
    assert (verdict.valid == "valid") is oracle.is_linearizable(
        History.of(lines).operations, model_by_name("stack")
    )


def test_correct_clients_are_valid():
    """Without a changed answer there is nothing to find: the clients talk to an object that is right."""
    fuzz = load_fuzz()
    for seed in range(400):
        rng = fuzz.random.Random(seed)
        clients = fuzz.Clients(rng, rng.choice(sorted(fuzz.OPERATIONS)))
        assert check_linearizable(clients.lines(), clients.model).valid == "valid", clients.name


def test_a_tally_goes_on(tmp_path, monkeypatch, capsys):
    """The second run takes up the seeds after the first one's, and counts both."""
    fuzz = load_fuzz()
    for name in ("first", "second"):
        monkeypatch.setattr(fuzz.sys, "argv", [name, "--histories", "20", "--tally", str(tmp_path / "tally")])
        monkeypatch.setattr(fuzz.fast, "installed", lambda: False)
        assert fuzz.main() == 0
    assert "40 histories, no disagreement" in capsys.readouterr().out
    monkeypatch.setattr(fuzz, "code", lambda: "other")
    assert fuzz.main() == 0
    assert "20 histories, no disagreement" in capsys.readouterr().out


def test_the_two_oracles_agree():
    """Written apart from each other."""
    fuzz = load_fuzz()
    for seed in range(40):
        history, model = fuzz.random_history(fuzz.random.Random(seed), "cas-register")
        assert oracle.is_linearizable(history.operations, model) is graph_oracle.is_linearizable(
            history.operations, model
        )


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("revision-kv", lambda patch: patch.setattr(problem, "uses_revisions", lambda _model: False)),
        ("multi-register", lambda patch: patch.setattr(models.MultiRegister, "effect", lambda *_: Effect.PURE)),
        ("etcd-register", lambda patch: patch.setattr(linear, "uses_mismatch", lambda _model: False)),
    ],
)  # fmt: skip
def test_a_broken_checker_is_noticed(monkeypatch, name, broken):
    """Of the model whose part was broken some history shows it."""
    fuzz = load_fuzz()
    monkeypatch.setattr(fuzz, "OPERATIONS", {name: fuzz.OPERATIONS[name]})
    broken(monkeypatch)
    assert any(fuzz.disagreement(seed, with_compiled=False)[2] for seed in range(1, 3_000))
