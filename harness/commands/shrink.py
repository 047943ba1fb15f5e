"""`splitbrain shrink`: the smallest plan that still violates its model in the same way, and its story."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from checkers import read_history
from harness import plan as plans
from harness import report, store
from harness.errors import EXIT_CODES, ConfigError, InternalError, SetupError
from harness.execute import Execution, execute
from harness.plan import Plan
from harness.progress import QuietProgress
from harness.shrink import edits, story
from harness.shrink.attempt import violations_of
from harness.shrink.shrinker import Budget, Shrunk, shrink

NAME = "shrink"
HELP = "reduce a run that violates its model to the smallest that still does, and tell its story"

STORY = "story.txt"
CONFIGURATIONS_MAX = 2_000_000  # for the stored history, which is looked at once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("run_dir", type=Path, metavar="RUN_DIR", help="directory of a stored run whose verdict is invalid")
    add("--budget-s", type=float, default=60.0, metavar="S", help="seconds to search (default 60)")
    add("--store", metavar="DIR", help="where the shrunk run is stored (default: beside the old one)")
    add("--json", action="store_true", help="one JSON object as the last line of standard output")


def main(args: argparse.Namespace) -> int:
    """Search, run the result once more into a directory of its own, tell its story."""
    run_dir: Path = args.run_dir
    if not args.budget_s > 0:
        raise ConfigError(f"budget is {args.budget_s:g}; give a number of seconds above 0")
    plan = _read_plan(run_dir)
    directory = Path(args.store) if args.store else run_dir.resolve().parent
    store.require(directory)
    console = Console(stderr=args.json)
    console.print(f"[bold]seed {plan.seed}[/]: shrinking {run_dir}", highlight=False)
    shrunk = _search(plan, run_dir, Budget(seconds=args.budget_s), console)
    execution = _store(shrunk.plan, directory)
    text = story.tell(shrunk.plan)
    _write_story(execution.run_dir, text)
    console.print(f"\n{text}", highlight=False, markup=False, soft_wrap=True)
    _say_how_it_went(plan, shrunk, execution, console)
    if args.json:
        sys.stdout.write(json.dumps(_summary(shrunk, execution)) + "\n")
    return EXIT_CODES[report.exit_verdict(execution.result)]


def _read_plan(run_dir: Path) -> Plan:
    if not run_dir.is_dir():
        raise ConfigError(f"run {run_dir}: no such directory; give the directory of a stored run")
    plan = plans.read(run_dir / store.PLAN)
    if plan.config.cluster != "sim":
        raise ConfigError(
            f"run {run_dir}: it ran on {plan.config.cluster!r}, and only runs of the simulator repeat themselves; "
            "give a run with --cluster sim"
        )
    return plan


def _search(plan: Plan, run_dir: Path, budget: Budget, console: Console) -> Shrunk:
    history = read_history(run_dir / store.HISTORY)
    violations = violations_of(history.lines, plan.config, configurations=CONFIGURATIONS_MAX)
    shown: list[tuple[int, int]] = []

    def on_success(pass_name: str, smaller: Plan, attempts: int) -> None:
        size = (len(smaller.ops) + len(smaller.final), len(smaller.faults))
        if shown[-1:] != [size]:
            shown.append(size)
            console.print(
                f"  {size[0]:>6} operations {size[1]:>4} faults {smaller.config.time_limit_s:>9g} s   "
                f"attempt {attempts}, {pass_name}",
                highlight=False,
            )

    # What the stored history has after the violation need not be run even once. What no client saw is not in it.
    first = edits.cut_off_end(plan, history.lines, violations[0]) if violations else plan
    wanted = violations[0].what if violations else ""
    shrunk = shrink(first, budget, on_success, origin=plan, wanted=wanted) or (
        shrink(plan, budget, on_success) if violations else None
    )
    if shrunk is None and not violations:
        raise ConfigError(
            f"run {run_dir}: its history does not violate the model, no invariant is broken, and there is progress, so "
            "there is nothing to shrink; give a run whose verdict is invalid"
        )
    if shrunk is None:
        raise ConfigError(
            f"run {run_dir}: its plan runs without a violation here; `splitbrain replay` shows where it parts "
            "from what was recorded"
        )
    return shrunk


def _store(plan: Plan, directory: Path) -> Execution:
    run_dir = store.create(directory, plan)
    execution = execute(plan, run_dir, QuietProgress())
    if execution.result["valid"] is not False:
        raise InternalError(f"run {run_dir}: the shrunk plan did not violate its model when it was stored")
    return execution


def _write_story(run_dir: Path, text: str) -> None:
    try:
        (run_dir / STORY).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"run {run_dir}: {error.strerror}; the shrunk plan in it is kept") from None


def _say_how_it_went(plan: Plan, shrunk: Shrunk, execution: Execution, console: Console) -> None:
    how = "nothing more can be left out" if shrunk.complete else "the budget is spent; --budget-s allows more"
    if shrunk.interrupted:
        how = "interrupted; what it had come to is kept, and can be shrunk further"
    console.print(
        f"[bold]{len(plan.ops) + len(plan.final)} operations and {len(plan.faults)} faults became "
        f"{execution.result['ops']} and {len(shrunk.plan.faults)}[/] in {shrunk.attempts} attempts, "
        f"{shrunk.seconds:.1f} s: {how}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"stored in {execution.run_dir}", highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"replay: splitbrain replay {execution.run_dir}", highlight=False, markup=False, soft_wrap=True
    )
    console.print(f"[bold]seed {plan.seed}[/]", highlight=False)


def _summary(shrunk: Shrunk, execution: Execution) -> dict[str, Any]:
    return {
        "valid": execution.result["valid"],
        "seed": shrunk.plan.seed,
        "operations": execution.result["ops"],
        "faults": len(shrunk.plan.faults),
        "seconds": round(shrunk.seconds, 3),
        "attempts": shrunk.attempts,
        "complete": shrunk.complete,
        "interrupted": shrunk.interrupted,
        "sim_seconds": execution.result["sim_seconds"],
        "run_dir": str(execution.run_dir),
    }
