"""The examples run as a reader would run them, and show what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_example(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout


def test_a_model_of_ones_own():
    """One history fits it, the other does not, and the model's own words say why."""
    out = run_example("own_model.py")
    assert out.startswith("valid: linearizable with model max-register")
    assert "read 3 while the largest value was 5" in out


def test_the_straight_line_from_python():
    """The stale read is found and explained."""
    out = run_example("run_from_python.py")
    assert "verdict: INVALID" in out
    assert "read" in out
