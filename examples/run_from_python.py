"""The straight line from Python: draw a plan, run it in the simulator, check what was recorded.

Run it with `python examples/run_from_python.py`: it finds the stale read of a leader that does not confirm that it
still leads, and prints the part of the history that no order of operations explains.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import plan as plans
from harness.config import Config
from harness.execute import execute
from harness.progress import QuietProgress

SEED = 0


def main() -> None:
    """Find the bug."""
    plan = plans.draw(Config(bug="stale-read", faults=("partition-leader",), time_limit_s=30), seed=SEED)
    with tempfile.TemporaryDirectory() as directory:
        execution = execute(plan, Path(directory), QuietProgress())
    print(execution.report)


if __name__ == "__main__":
    main()
