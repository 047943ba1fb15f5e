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
from checkers.catalogue import CHECKERS, CheckerCall, run_checker
from checkers.verdict import Verdict, merge
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
    add(
        "--checker",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help=f"instead of a model, repeatable: {', '.join(CHECKERS)}",
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
    verdict, why = _verdict(args, history)
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


def _verdict(args: argparse.Namespace, history: History) -> tuple[Verdict, str]:
    """What the checkers say that the user names, else those of the header, else a model."""
    if args.checker is not None and args.model is not None:
        raise ConfigError("--checker and --model cannot both be given; give one of them")
    named = args.model is not None
    calls = [_call(text) for text in args.checker or ()] or ([] if named else list(history.checkers))
    try:
        verdicts = [run_checker(call, history) for call in calls]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    why = ""
    if not verdicts or (args.checker is None and history.model is not None):
        model, why = _model(args, history)
        verdicts.insert(0, check_linearizable(history, model, budget=Budget()))
    return merge(verdicts), why


def _call(text: str) -> CheckerCall:
    """NAME or NAME:OPTION=VALUE,OPTION=VALUE, values as JSON where they are that, else as words."""
    name, _, given = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, given.split(",")):
        option, sign, value = part.partition("=")
        if not sign:
            raise ConfigError(f"--checker {text!r}: {part!r} is not OPTION=VALUE")
        try:
            options[option] = json.loads(value)
        except json.JSONDecodeError:
            options[option] = value
    return CheckerCall(name, options)


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
