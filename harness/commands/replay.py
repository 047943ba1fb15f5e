"""`splitbrain replay`: run a stored plan again, and say whether the history came out byte for byte the same.

Of a plan alone, which was edited or written by hand, there is no history to compare with.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from harness import clusters, report, store
from harness import plan as plans
from harness.commands.run import print_summary, run_with_progress
from harness.errors import EXIT_CODES, EXIT_INTERNAL, ConfigError

NAME = "replay"
HELP = "run a stored plan again, and say whether the history came out byte for byte the same"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "run_dir",
        type=Path,
        metavar="RUN_DIR",
        help="directory of a stored run, or a plan, which is only run",
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="where the new run is stored (default: beside the old one; of a plan, as it says)",
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object as the last line of standard output"
    )


def main(args: argparse.Namespace) -> int:
    """Replay and compare; the exit code is the verdict's, or 255 where the simulator did not repeat itself."""
    run_dir: Path = args.run_dir
    if not run_dir.exists():
        raise ConfigError(f"run {run_dir}: no such directory; give the directory of a stored run, or a plan")
    is_run = run_dir.is_dir()
    plan = plans.read(run_dir / store.PLAN if is_run else run_dir)
    clusters.check(plan)
    recorded = _read(run_dir / store.HISTORY) if is_run else None
    beside = run_dir.resolve().parent if is_run else Path(plan.config.store)
    new_dir = store.create(Path(args.store) if args.store else beside, plan)
    console = Console(stderr=args.json)
    console.print(f"[bold]seed {plan.seed}[/]: replaying {run_dir}", highlight=False, soft_wrap=True)
    execution = run_with_progress(plan, new_dir, console)
    print_summary(execution, console)
    identical: bool | None = None
    if recorded is not None:
        replayed = _read(new_dir / store.HISTORY)
        identical = recorded == replayed
        sentence = "the history is byte for byte the same" if identical else difference(recorded, replayed)
        console.print(f"replay: {sentence}", highlight=False, markup=False, soft_wrap=True)
    if args.json:
        summary = {name: execution.result[name] for name in report.SUMMARY_FIELDS}
        sys.stdout.write(json.dumps(summary | {"identical": identical}) + "\n")
    if (
        identical is False and plan.config.cluster == "sim"
    ):  # a real cluster repeats the plan, not the history
        return EXIT_INTERNAL
    return EXIT_CODES[report.exit_verdict(execution.result)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"history {path}: {error.strerror}; give the directory of a stored run") from None


def difference(recorded: bytes, replayed: bytes) -> str:
    """Where two histories part, in a sentence that quotes both lines."""
    old, new = recorded.splitlines(), replayed.splitlines()
    for number, (a, b) in enumerate(zip(old, new, strict=False), start=1):
        if a != b:
            return f"the histories differ from line {number}: recorded {_quote(a)}, now {_quote(b)}"
    if len(old) > len(new):
        return f"the replay has only the first {len(new)} of {len(old)} lines"
    if len(old) < len(new):
        return (
            f"the recorded history has only the first {len(old)} of {len(new)} lines: that run was cut short; "
            "what it has is the same"
        )
    return "the histories differ in their last bytes"


def _quote(line: bytes) -> str:
    return line[:200].decode(errors="replace")
