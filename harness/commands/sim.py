"""`splitbrain sim run`: a user's own asyncio program in the simulator, under faults, one seed after the other."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from checkers import encode_header, encode_op
from harness.commands.sweep import seed_range
from harness.errors import EXIT_CODES, JSON_VALID, ConfigError
from harness.module_files import module_from_file
from harness.sim import entropy
from harness.sim import scenario as scenarios
from harness.sim.scenario import Ran, Scenario
from harness.store import unwritable

NAME = "sim"
TIME_LIMIT_S_MAX = 1e6
HELP = "run your own asyncio program in the simulator: splitbrain sim run MODULE:FACTORY"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    commands = parser.add_subparsers(dest="sim_command", metavar="COMMAND", required=True)
    add = commands.add_parser("run", help="run a scenario under faults until a seed fails").add_argument
    add("scenario", metavar="MODULE:FACTORY", help="where the scenario is; FILE.py:FACTORY works too")
    add("--seeds", default="0:20", metavar="A:B", help="seeds from A to B - 1, or a number (default 0:20)")
    add("--seed", type=int, metavar="N", help="this seed only")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="a kind of fault, repeatable (default none)",
    )
    add("--time-limit", type=float, default=20.0, metavar="S", help="virtual seconds of faults (default 20)")
    add("--arg", metavar="TEXT", help="handed to the scenario as sim.arg")
    add(
        "--store",
        default="store",
        metavar="DIR",
        help="where the history of a failure is stored (default store)",
    )
    add("--json", action="store_true", help="one JSON object as the last line of standard output")


def main(args: argparse.Namespace) -> int:
    """Run seeds until one fails."""
    if not 0 < args.time_limit <= TIME_LIMIT_S_MAX:
        raise ConfigError(
            f"time limit is {args.time_limit:g}; give a number of seconds above 0, and at most {TIME_LIMIT_S_MAX:g}"
        )
    if args.seed is not None and args.seed < 0:
        raise ConfigError(f"seed is {args.seed}; give a number from 0 on")
    first, last = (args.seed, args.seed + 1) if args.seed is not None else seed_range(args.seeds)
    scenario = _load(args.scenario)
    kinds = tuple(kind for kind in args.fault if kind != "none")
    console = Console(stderr=args.json)
    started_s = time.monotonic()
    total: dict[str, float] = {"seeds": 0, "ops": 0, "faults": 0, "sim_seconds": 0.0}
    for seed in range(first, last):
        ran = scenarios.run(scenario, seed, kinds=kinds, limit_s=args.time_limit, arg=args.arg)
        total["seeds"] += 1
        total["ops"] += sum(1 for op in ran.ops if op.type == "invoke")
        total["faults"] += ran.faults
        total["sim_seconds"] += ran.sim_seconds
        if ran.valid != "valid" or seed == first:
            again = scenarios.run(scenario, seed, kinds=kinds, limit_s=args.time_limit, arg=args.arg)
            parted = scenarios.difference(ran, again)
            if parted is not None:
                raise ConfigError(
                    f"{parted}; the program takes something that no seed fixes: the order of a set, a file, or state "
                    "that outlives a run"
                )
            if ran.trace != again.trace:
                note = f"note: two runs of seed {seed} recorded the same and took other steps: it does not fix all"
                console.print(note, highlight=False)
        if ran.valid != "valid":
            break
    with contextlib.ExitStack() as afterwards:
        history = _store(Path(args.store), args.scenario, ran, afterwards)
        _say(ran, total, history, args, console)
    if args.json:
        summary: dict[str, Any] = {"valid": JSON_VALID[ran.valid], "seed": ran.seed, **total}
        summary |= {"wall_seconds": round(time.monotonic() - started_s, 3), "explanation": list(ran.lines)}
        summary |= {"history": str(history) if history is not None else None}
        sys.stdout.write(json.dumps(summary) + "\n")
    return EXIT_CODES[ran.valid]


def _load(name: str) -> Scenario:
    module_name, colon, factory_name = name.rpartition(":")
    if not colon or not module_name or not factory_name:
        raise ConfigError(f"scenario {name!r}: give MODULE:FACTORY or FILE.py:FACTORY")
    sys.path.insert(0, str(Path.cwd()))
    try:
        with entropy.importing():
            module = (
                _from_file(Path(module_name))
                if module_name.endswith(".py")
                else importlib.import_module(module_name)
            )
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"scenario {name!r}: {error}; give a module that can be imported from here"
        ) from None
    except (Exception, SystemExit) as error:  # a script that runs when it is imported may well end so
        raise ConfigError(f"scenario {name!r} cannot be imported: {scenarios.raised(error)}") from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise ConfigError(f"scenario {name!r}: {module_name} has no function {factory_name}")
    return factory  # type: ignore[no-any-return]


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"scenario file {path}: no such file")
    return module_from_file(path)


def _store(store: Path, name: str, ran: Ran, afterwards: contextlib.ExitStack) -> Path | None:
    """Where the history of a failure is; what came in the way is raised once the verdict is told."""
    if ran.valid == "valid" or not ran.ops:
        return None
    factory = name.rpartition(":")[2]
    path = store / f"sim-{factory}-seed{ran.seed}.jsonl"
    try:
        store.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_header() + b"".join(encode_op(op) for op in ran.ops))
    except OSError as error:
        afterwards.callback(_raise, unwritable(store, error))
        return None
    return path


def _raise(error: Exception) -> NoReturn:
    raise error


def _say(
    ran: Ran, total: dict[str, float], history: Path | None, args: argparse.Namespace, console: Console
) -> None:
    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    for line in (*ran.lines, *(f"note: {note}" for note in ran.notes)):
        say(line)
    say(
        f"{ran.valid.upper()}  {total['seeds']:g} seeds, {total['ops']:g} operations, {total['faults']:g} faults, "
        f"{total['sim_seconds']:.1f} virtual seconds"
    )
    if ran.valid != "valid":
        faults = "".join(f" --fault {shlex.quote(kind)}" for kind in args.fault)
        arg = f" --arg={shlex.quote(args.arg)}" if args.arg is not None else ""
        limit = f"--time-limit {args.time_limit:g}"
        say(f"again: splitbrain sim run {shlex.quote(args.scenario)} --seed {ran.seed}{faults} {limit}{arg}")
    if history is not None:
        say(f"history in {history}")
    say(f"seed {ran.seed}")
