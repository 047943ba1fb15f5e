"""Random small histories of every model against brute force and the networkx oracle: a slice of the whole.

The whole is ``python benchmarks/linearizability_fuzz.py --histories 1000000``, or this file with
``SPLITBRAIN_FUZZ_HISTORIES=1000000``.
"""

import importlib.util
import os
from pathlib import Path

import pytest

from checkers import graph_oracle, oracle

HISTORIES = int(os.environ.get("SPLITBRAIN_FUZZ_HISTORIES", "1200"))


def load_fuzz():
    path = Path(__file__).parents[2] / "benchmarks" / "linearizability_fuzz.py"
    spec = importlib.util.spec_from_file_location("linearizability_fuzz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    assert load_fuzz().disagreement(434, with_compiled=False)[2] is None


def test_the_two_oracles_agree():
    """Written apart from each other."""
    fuzz = load_fuzz()
    for seed in range(40):
        history, model = (
            fuzz.random_history(fuzz.random.Random(seed), "cas-register"),
            fuzz.model_by_name("cas-register"),
        )
        assert oracle.is_linearizable(history.operations, model) is graph_oracle.is_linearizable(
            history.operations, model
        )
