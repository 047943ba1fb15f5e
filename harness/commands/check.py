"""`splitbrain check`: check a stored history."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from checkers import Budget, History, Model, check_linearizable, default_model, model_by_name, read_history
from harness import store
from harness.errors import EXIT_BAD_INPUT, ConfigError
from harness.judge import EXIT_CODES, JSON_VALID

NAME = "check"
HELP = "check a stored history, of this harness or of Jepsen, Knossos or Porcupine"

FORMATS = ("auto", "jsonl", "edn", "jepsen-log")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="a history, or the directory of a stored run")
    add(
        "--model",
        metavar="NAME",
        help="what the history must fit (default: what its header says, else a guess)",
    )
    add("--format", choices=FORMATS, default="auto", help="default auto")
    add("--initial", metavar="VALUE", help="the first value of a register, as JSON (default: none)")
    add("--json", action="store_true", help="one JSON object as the last line of standard output")


def main(args: argparse.Namespace) -> int:
    """Read, check, explain."""
    started_s = time.monotonic()
    path: Path = args.file
    if path.is_dir():
        path = path / store.HISTORY
    history = read_history(path, args.format)
    model, why = _model(args, history)
    verdict = check_linearizable(history, model, budget=Budget())
    wall_s = time.monotonic() - started_s
    console = Console(stderr=args.json)
    for note in (*history.notes, *([why] if why else [])):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for line in verdict.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    result: dict[str, Any] = verdict.to_json() | {"file": str(path), "wall_seconds": round(wall_s, 3)}
    # A history that was cut short is bad input: the intact part may be wrong, but it cannot be called valid.
    cut_short = history.truncated and verdict.valid != "invalid"
    if cut_short:
        result["valid"] = JSON_VALID["unknown"]
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    return EXIT_BAD_INPUT if cut_short else EXIT_CODES[verdict.valid]


def _model(args: argparse.Namespace, history: History) -> tuple[Model, str]:
    """The model, and a sentence about where it comes from if the user did not name it."""
    name, why = (args.model, "") if args.model is not None else default_model(history)
    initial = history.initial
    if args.initial is not None:
        try:
            initial = json.loads(args.initial)
        except json.JSONDecodeError:
            raise ConfigError(
                f"--initial {args.initial!r} is not JSON; give a number, null, or a quoted string"
            ) from None
    try:
        return model_by_name(name, initial), why
    except ValueError as error:
        raise ConfigError(str(error)) from None
