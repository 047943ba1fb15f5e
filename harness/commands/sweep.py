"""`splitbrain sweep`: one configuration under many seeds, on all cores."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.live import Live

from harness.commands import run
from harness.errors import EXIT_CODES, JSON_VALID, ConfigError, SetupError
from harness.guided.guide import Guide
from harness.seeds import MAX_SEED
from harness.sweep import pool, remote, results
from harness.sweep.board import Board
from harness.sweep.one import Result, Task
from harness.sweep.results import Header, ResultsFile

NAME = "sweep"
HELP = "run many seeds on all cores; keep and group what fails"

SEEDS_DEFAULT = "0:100"
SEEDS_UNTIL = f"0:{10**9}"
PLAIN_INTERVAL_S = 5.0
KEPT_MAX = 100  # run directories of one sweep; later failures are listed with their seeds
replace = msgspec.structs.replace
UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a run, and those of a sweep."""
    run.add_arguments(parser)
    add = parser.add_argument
    add(
        "--seeds",
        metavar="A:B",
        help=f"seeds from A to B - 1, or a number of seeds (default {SEEDS_DEFAULT})",
    )
    add("--until", metavar="TIME", help="stop after so long, as in 90s, 10m, 2h; what was found counts")
    add("--jobs", type=int, metavar="N", help="worker processes (default: one for each core)")
    add("--swarm", action="store_true", help="each seed draws its own mix of faults and rates")
    add(
        "--guided",
        action="store_true",
        help="keep plans that reach new states, and run changed ones of them beside fresh seeds",
    )
    add(
        "--resume",
        type=Path,
        metavar="FILE",
        help="go on with a sweep from its results file, with its options",
    )
    add(
        "--dask",
        metavar="ADDRESS",
        help="run on the Dask cluster with this scheduler instead of local processes",
    )


def main(args: argparse.Namespace) -> int:
    """Sweep until the seeds or the time are used up."""
    until_s = _seconds(args.until) if args.until is not None else None
    jobs = args.jobs if args.jobs is not None else os.cpu_count() or 1
    if not 1 <= jobs <= 10_000:
        raise ConfigError(f"jobs is {jobs}; give a number of worker processes from 1 to 10000")
    console = Console(stderr=args.json)
    with contextlib.ExitStack() as stack:
        workers = _workers(stack, args, jobs)
        started_s = time.monotonic()
        file = stack.enter_context(_open(args))
        board = _sweep(file, workers, until_s, console)
        elapsed_s = time.monotonic() - started_s
        for line in (*board.group_lines(), board.line(elapsed_s), f"results in {file.path}"):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        if args.json:
            sys.stdout.write(json.dumps(_summary(board, file, elapsed_s)) + "\n")
    return EXIT_CODES[board.worst]


def _open(args: argparse.Namespace) -> ResultsFile:
    if args.resume is not None:
        if args.seeds is not None or args.swarm or args.guided:
            raise ConfigError(
                "--resume takes seeds and options from the results file; leave out --seeds, --swarm and --guided"
            )
        return results.resume(args.resume)
    if args.seed is not None:
        raise ConfigError(f"--seed {args.seed} is for one run; a sweep takes --seeds A:B")
    config = run.config_of(args)
    if config.cluster != "sim":
        raise ConfigError(
            f"cluster is {config.cluster!r}; a sweep runs on sim, where a seed fixes everything"
        )
    first, last = seed_range(args.seeds or (SEEDS_DEFAULT if args.until is None else SEEDS_UNTIL))
    return results.create(
        Path(config.store), Header(config, first, last, swarm=args.swarm, guided=args.guided)
    )


def seed_range(text: str) -> tuple[int, int]:
    """The seeds that a text such as 0:1000 or 20 names."""
    match = re.fullmatch(r"(?:(\d+):)?(\d+)", text)
    first, last = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if not first < last <= MAX_SEED:
        raise ConfigError(f"seeds are {text!r}; give A:B for the seeds from A to B - 1, or a number of seeds")
    return first, last


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if not seconds > 0:
        raise ConfigError(f"--until is {text!r}; give a time as in 90s, 10m or 2h")
    return seconds


class _Workers(NamedTuple):
    jobs: int
    make: pool.MakeExecutor


def _workers(stack: contextlib.ExitStack, args: argparse.Namespace, jobs: int) -> _Workers:
    if not args.dask:
        return _Workers(jobs, pool.local(jobs))
    executor, threads = stack.enter_context(remote.dask(args.dask))
    executors = iter([executor])

    def make() -> Executor:
        for executor in executors:
            return executor
        raise SetupError(
            "the Dask scheduler is gone; `splitbrain sweep --resume FILE` goes on where it ended"
        )

    return _Workers(threads, make)


class _Coverage:
    """What all runs have reached, with a guide where the search is guided."""

    def __init__(self, file: ResultsFile) -> None:
        header = file.header
        self.guide = (
            Guide(header.config, header.first, file.path, swarm=header.swarm) if header.guided else None
        )
        self._reached = {feature for result in file.done for feature in result.features}

    def count(self, result: Result) -> Result:
        """The result with its features that are new, or where the corpus keeps them how many these are."""
        if self.guide is not None:
            return replace(result, features=(), new_features=self.guide.learn(result.seed, result.features))
        new = tuple(dict.fromkeys(feature for feature in result.features if feature not in self._reached))
        self._reached.update(new)
        return replace(result, features=new, new_features=len(new))


def _tasks(file: ResultsFile, board: Board, guide: Guide | None, until_s: float | None) -> Iterator[Task]:
    done = {result.seed for result in file.done}
    started_s = time.monotonic()
    header = file.header
    for seed in range(header.first, header.last):
        if until_s is not None and time.monotonic() - started_s >= until_s:
            return
        if seed not in done:
            keep = board.by_verdict["invalid"] < KEPT_MAX
            plan = guide.plan(seed) if guide is not None else None
            yield Task(header.config, seed, swarm=header.swarm, keep=keep, plan=plan)


def _sweep(file: ResultsFile, workers: _Workers, until_s: float | None, console: Console) -> Board:
    header = file.header
    board = Board(header.last - header.first if until_s is None else None)
    for result in file.done:
        board.add(result)
    board.resumed = board.count
    started_s = time.monotonic()
    with contextlib.ExitStack() as stack:
        show = _display(stack, board, started_s, console)
        coverage = _Coverage(file)
        tasks = _tasks(file, board, coverage.guide, until_s)
        stream = stack.enter_context(contextlib.closing(pool.results(tasks, *workers, idle=show)))
        try:
            for found in stream:
                result = coverage.count(found)
                file.append(result)
                board.add(result)
                _announce(result, console)
                show()
        except KeyboardInterrupt:
            board.interrupted = True
            console.print(f"interrupted; go on with: splitbrain sweep --resume {file.path}", soft_wrap=True)
    return board


def _announce(result: Result, console: Console) -> None:
    if result.valid == "invalid" and not console.is_terminal:
        where = f"  {result.run_dir}" if result.run_dir else ""
        console.print(
            f"seed {result.seed}: invalid, {result.signature}{where}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip


def _display(
    stack: contextlib.ExitStack, board: Board, started_s: float, console: Console
) -> Callable[[], None]:
    """A function that shows where the sweep is: a live table on a terminal, else a line now and then."""
    if console.is_terminal:
        live = stack.enter_context(Live(console=console, refresh_per_second=4, transient=True))
        return lambda: live.update(board.picture(time.monotonic() - started_s))
    last_s = [started_s]

    def show() -> None:
        now_s = time.monotonic()
        if now_s - last_s[0] >= PLAIN_INTERVAL_S:
            last_s[0] = now_s
            console.print(board.line(now_s - started_s), highlight=False, soft_wrap=True)

    return show


def _summary(board: Board, file: ResultsFile, elapsed_s: float) -> dict[str, Any]:
    return {
        "valid": JSON_VALID[board.worst],
        **board.to_json(),
        "resumed": board.resumed,
        "interrupted": board.interrupted,
        "seeds_per_minute": round(board.per_minute(elapsed_s), 1),
        "wall_seconds": round(elapsed_s, 3),
        "results_file": str(file.path),
    }
