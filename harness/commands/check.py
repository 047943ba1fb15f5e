"""`splitbrain check`: check stored histories."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from checkers import (
    ALGORITHMS,
    MODELS,
    Budget,
    History,
    HistoryError,
    Model,
    Verdict,
    check_linearizable,
    default_model,
    drawing,
    fast,
    model_by_name,
    read_history,
)
from checkers.history import CheckerCall, CheckerCallError, NoHistoryError
from checkers.online import check_stream
from checkers.verdict import merge, worst
from harness.errors import EXIT_BAD_INPUT, EXIT_CODES, ConfigError
from harness.own_model import is_place, model_at

NAME = "check"
HELP = "check stored histories, of this harness or of Jepsen, Knossos or Porcupine"

FORMATS = ("auto", "jsonl", "edn", "jepsen-log")
#: Where a run keeps its history (`harness.store`, which is not imported for that).
_RUN_HISTORY = "history.jsonl"
_RUN_LOG = "log.jsonl"
_SUFFIXES = (".jsonl", ".json", ".edn", ".log", ".txt")
_DRAWINGS = {".svg": drawing.svg, ".dot": drawing.dot}
_EXPECTED = {"linearizable": "valid", "nonlinearizable": "invalid", "valid": "valid", "invalid": "invalid"}


@dataclass(frozen=True, slots=True)
class _Task:
    """A file to check, with what a list of expectations says about it."""

    path: Path
    model: str | None = None
    initial: str | None = None
    expected: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add(
        "file",
        type=Path,
        metavar="PATH",
        help="a history, the directory of a stored run, or a directory with histories in it",
    )
    add(
        "--model",
        metavar="NAME",
        help=f"what the history must fit (default: what its header says, else a guess by its operations): "
        f"{', '.join(sorted(MODELS))}; see docs/models.md; or a model of your own, FILE.py:CLASS",
    )
    add(
        "--checker",
        action="append",
        metavar="NAME[:OPTION=VALUE,...]",
        help="another checker instead of a model, repeatable, e.g. list-append:model=serializable (docs/workloads.md)",
    )
    add(
        "--format",
        choices=FORMATS,
        default="auto",
        help="of the file, see docs/history-format.md (default auto: look at it)",
    )
    add(
        "--initial",
        metavar="VALUE",
        help="what each object holds before the history, as JSON (default: what its header says, else the model's own)",
    )
    add(
        "--algorithm",
        choices=ALGORITHMS,
        default="auto",
        help="what may decide, see docs/models.md (default auto: whatever fits best)",
    )
    budget = Budget()
    add(
        "--seconds",
        type=float,
        default=budget.seconds,
        help=f"time for one history before the answer is unknown (default {budget.seconds:g})",
    )
    add(
        "--configurations",
        type=int,
        default=budget.configurations,
        help=f"the same in steps of the search (default {budget.configurations})",
    )
    add(
        "--mib",
        type=int,
        default=budget.bytes_max >> 20,
        help=f"the same in MiB of what it remembers (default {budget.bytes_max >> 20})",
    )
    add(
        "--expect",
        type=Path,
        metavar="FILE",
        help="for a directory: a table (tab-separated, columns path, model, verdict) of what is expected of which file",
    )
    add(
        "--drawing",
        type=Path,
        metavar="FILE",
        help="where to draw the counterexample of a history that is not valid: a picture (.svg) or a graph (.dot)",
    )
    add(
        "--online",
        action="store_true",
        help="line by line, in bounded memory, for registers whose values are written once; PATH - is standard input",
    )
    add(
        "--with-log",
        action="store_true",
        help="beside the verdict, a narrower one that trusts the committed log which a run has stored (log.jsonl)",
    )
    add("--json", action="store_true", help="one JSON object as the last line of standard output")


def main(args: argparse.Namespace) -> int:
    """Read, check, explain."""
    fast.announce = _announce
    path: Path = args.file
    if args.online:
        return _check_online(args, path)
    if path.is_dir() and (path / _RUN_HISTORY).is_file():
        path /= _RUN_HISTORY
    if path.is_dir():
        if args.drawing is not None:
            raise ConfigError(
                f"--drawing is for one history, and {path} is a directory; leave it out, or give a file"
            )
        return _check_directory(args, path)
    if args.drawing is not None and args.drawing.suffix not in _DRAWINGS:
        raise ConfigError(
            f"--drawing {args.drawing} is neither .svg nor .dot; give a file with one of these names"
        )
    if args.expect is not None:
        raise ConfigError(
            f"--expect is for a directory, and {path} is none; leave it out, or give the directory"
        )
    checked = _check(args, _Task(path))
    _show(checked, to_stderr=args.json)
    if args.drawing is not None:
        _draw(args.drawing, checked)
    if args.json:
        sys.stdout.write(json.dumps(checked.to_json()) + "\n")
    return checked.exit_code


def _announce(sentence: str) -> None:
    sys.stderr.write(f"splitbrain: {sentence}\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class _Checked:
    """A history's verdict. One that was cut short is bad input: the intact part may be wrong, but not valid."""

    path: Path
    history: History
    verdict: Verdict
    why: str
    wall_s: float

    @property
    def cut_short(self) -> bool:
        return self.history.truncated and self.verdict.valid != "invalid"

    @property
    def exit_code(self) -> int:
        return EXIT_BAD_INPUT if self.cut_short else EXIT_CODES[self.verdict.valid]

    def to_json(self) -> dict[str, Any]:
        return self.verdict.to_json() | {"file": str(self.path), "wall_seconds": round(self.wall_s, 3)}


def _of_a_part(verdict: Verdict) -> Verdict:
    """What stands before a cut may be wrong, and then the whole is; that it is right says nothing of the whole."""
    if verdict.valid != "valid":
        return verdict
    return replace(
        verdict, valid="unknown", cause="what stands before the cut is valid, and the rest is not there"
    )


def _check(args: argparse.Namespace, task: _Task) -> _Checked:
    started_s = time.monotonic()
    try:
        budget = Budget(configurations=args.configurations, bytes_max=args.mib << 20, seconds=args.seconds)
    except ValueError as error:
        raise ConfigError(str(error).replace("bytes_max", "mib").replace("budget ", "--", 1)) from None
    history = read_history(task.path, args.format)
    if args.checker is not None and args.initial is not None:
        history.initial = _json_value(args.initial)
    verdicts = _with_checkers(args, task, history)
    why = ""
    if not verdicts or (args.checker is None and history.model is not None):
        model, why = _model(args, task, history)
        verdicts.insert(0, check_linearizable(history, model, budget=budget, algorithm=args.algorithm))
    if args.with_log:
        verdicts.append(_with_log(args, task, history, budget))
    verdict = merge(map(_of_a_part, verdicts) if history.truncated else verdicts)
    return _Checked(task.path, history, verdict, why, time.monotonic() - started_s)


def _with_log(args: argparse.Namespace, task: _Task, history: History, budget: Budget) -> Verdict:
    """The narrower verdict."""
    from checkers.committed import check_with_log, read_log  # noqa: PLC0415 - most histories have no log

    if args.checker is not None or (args.model is None and history.model is None):
        raise ConfigError("--with-log bounds what a model allows; name one with --model, without --checker")
    log = read_log(task.path.with_name(_RUN_LOG))
    return check_with_log(history, _model(args, task, history)[0], log, budget=budget)


def _with_checkers(args: argparse.Namespace, task: _Task, history: History) -> list[Verdict]:
    """What the checkers say that the user names, else those that the header names; none of them with a model."""
    named = args.model is not None or task.model is not None
    if args.checker is not None and named:
        raise ConfigError("--checker and --model cannot both be given; give one of them")
    calls = [_call(text) for text in args.checker or ()] or ([] if named else list(history.checkers))
    if not calls:
        return []
    from checkers.catalogue import run_checker  # noqa: PLC0415 - most histories need none of these

    verdicts: list[Verdict] = []
    for call in calls:
        try:
            verdicts.append(run_checker(call, history))
        except HistoryError:
            raise
        except CheckerCallError as error:
            raise ConfigError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - a checker that crashes is never a pass
            verdicts.append(_crashed(call, error))
    return verdicts


def _crashed(call: CheckerCall, error: Exception) -> Verdict:
    cause = (
        f"the checker {call.name} failed with {type(error).__name__}: {error}; does the history hold the operations "
        "that it reads (docs/workloads.md)? Else this is a fault of splitbrain"
    )
    return Verdict(valid="unknown", checker=call.name, cause=cause)


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


def _show(checked: _Checked, *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    lines = checked.verdict.lines()
    told = "\n".join(lines)
    for note in (*checked.history.notes, checked.why):
        if note and note not in told:
            stream.write(f"note: {note}\n")
    stream.writelines(f"{line}\n" for line in lines)


def _check_online(args: argparse.Namespace, path: Path) -> int:
    """Line by line, as they come; ends with the first violation."""
    other = {
        "--checker": args.checker is not None,
        "--with-log": args.with_log,
        "--expect": args.expect is not None,
        "--drawing": args.drawing is not None,
        "--algorithm": args.algorithm != "auto",
        "--format": args.format not in {"auto", "jsonl"},
    }
    given = ", ".join(option for option, there in other.items() if there)
    if given:
        raise ConfigError(
            f"--online goes with --model, --initial and --json only, not with {given}; leave one of them out"
        )
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            verdict = check_stream(file, str(path), args.model, _json_value(args.initial))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); give the path of a history") from None
    except HistoryError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None
    stream = sys.stderr if args.json else sys.stdout
    stream.writelines(f"{line}\n" for line in verdict.lines())
    if args.json:
        sys.stdout.write(json.dumps(verdict.to_json() | {"file": str(path)}) + "\n")
    return EXIT_CODES[verdict.valid]


def _json_value(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise ConfigError(
            f"--initial {text!r} is not JSON; give a number, null, or a quoted string"
        ) from None


def _draw(path: Path, checked: _Checked) -> None:
    draw = _DRAWINGS[path.suffix]
    if checked.verdict.figure is None:
        sys.stderr.write(f"note: there is no counterexample to draw, so {path} is not written\n")
        return
    try:
        path.write_text(draw(checked.verdict.figure))
    except OSError as error:
        raise ConfigError(
            f"--drawing {path} cannot be written ({error.strerror}); give another place"
        ) from None


def _check_directory(args: argparse.Namespace, path: Path) -> int:
    """One line for each history below the directory, the details of those that are not valid, and a total."""
    stream = sys.stderr if args.json else sys.stdout
    done: list[_Checked] = []
    skipped: list[str] = []
    faulty: list[str] = []
    surprises: list[str] = []
    for task in list(_tasks(args, path)):  # a fault of the table is told before anything is checked
        name = task.path.relative_to(path)
        try:
            checked = _check(args, task)
        except HistoryError as error:
            if task.expected is not None:
                raise
            told = f"{name} ({str(error).removeprefix(f'{task.path}: ')})"
            (skipped if isinstance(error, NoHistoryError) else faulty).append(told)
            continue
        done.append(checked)
        stream.write(f"{checked.verdict.valid:8} {checked.wall_s:7.3f} s  {name}\n")
        if task.expected not in {None, checked.verdict.valid}:
            surprises.append(f"{name}: expected {task.expected}, found {checked.verdict.valid}")
        elif task.expected is None and checked.verdict.valid != "valid":
            stream.writelines(f"    {line}\n" for line in checked.verdict.lines())
    if not done and not faulty:
        raise ConfigError(
            f"{path} holds no history that could be read; give a file, or a directory with {', '.join(_SUFFIXES)} files"
        )
    total = {valid: sum(checked.verdict.valid == valid for checked in done) for valid in EXIT_CODES}
    counts = ", ".join(f"{count} {valid}" for valid, count in total.items())
    stream.write(f"{len(done)} histories in {sum(checked.wall_s for checked in done):.1f} s: {counts}\n")
    stream.writelines(f"skipped, since it is no history: {line}\n" for line in skipped)
    stream.writelines(f"could not be checked: {line}\n" for line in faulty)
    stream.writelines(f"surprise: {line}\n" for line in surprises)
    if args.json:
        summary = {
            "files": [c.to_json() for c in done],
            "skipped": skipped,
            "faulty": faulty,
            "surprises": surprises,
        }
        sys.stdout.write(json.dumps({**summary, **total}) + "\n")
    return _code_of(done, expected=args.expect is not None, faulty=bool(faulty), surprised=bool(surprises))


def _code_of(done: Sequence[_Checked], *, expected: bool, faulty: bool, surprised: bool) -> int:
    """A violation counts most, then what could not be read."""
    if any(checked.cut_short for checked in done) and (
        expected or not any(c.verdict.valid == "invalid" for c in done)
    ):
        return EXIT_BAD_INPUT
    if expected:
        return EXIT_CODES["invalid" if surprised else "valid"]
    code = EXIT_CODES[worst(checked.verdict.valid for checked in done)]
    return EXIT_BAD_INPUT if faulty and code != EXIT_CODES["invalid"] else code


def _tasks(args: argparse.Namespace, path: Path) -> Iterator[_Task]:
    if args.expect is None:
        for file in sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file()):
            yield _Task(file)
        return
    try:
        rows = args.expect.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--expect {args.expect} cannot be read ({error}); give a table of text") from None
    header = rows[0].split("\t") if rows else []
    if not {"path", "model", "verdict"} <= set(header):
        raise ConfigError(
            f"--expect {args.expect} has the columns {', '.join(header)}; it needs path, model, verdict, tab-separated"
        )
    if not any(map(str.strip, rows[1:])):
        raise ConfigError(
            f"--expect {args.expect} has no row; give one for each history, with path, model and verdict"
        )
    for row in filter(str.strip, rows[1:]):
        cells = dict(zip(header, row.split("\t"), strict=False))
        words = cells.get("model", "").replace(",", " ").split()
        initial = next((word.removeprefix("initial=") for word in words if word.startswith("initial=")), None)
        expected = _EXPECTED.get(cells.get("verdict", ""))
        if expected is None or not words or not cells.get("path"):
            raise ConfigError(
                f"--expect {args.expect}: {row[:60]!r} is no row; give path, model and one of {', '.join(_EXPECTED)}"
            )
        yield _Task(path / cells["path"], words[0], initial, expected)


def _model(args: argparse.Namespace, task: _Task, history: History) -> tuple[Model, str]:
    """The model, and a sentence about where it comes from if the user did not name it."""
    named = args.model if args.model is not None else task.model
    name, why = (named, "") if named is not None else default_model(history)
    initial = history.initial
    given = args.initial if args.initial is not None else task.initial
    if is_place(name):
        if given is not None:
            raise ConfigError(f"--initial is for models of splitbrain; {name} has an initial() of its own")
        return model_at(name), why
    if given is not None:
        initial = _json_value(given)
    try:
        return model_by_name(name, initial), why
    except ValueError as error:
        raise ConfigError(str(error)) from None
