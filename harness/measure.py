"""What each workload finds: a table of real runs, workload by seeded bug.

Theory of operation
    For each pair of a workload and a bug, runs with the seeds 0, 1, ... until the workload's own checks say that a
    history is invalid. What else a run may find (a broken invariant of the protocol, a node that died) does not
    count: the table is to say what a user sees who has only the history. The row of no bug is the control: every
    seed must be valid.

Rules of this module
    1. A cell is what was measured: the first seed that found the bug, or how many found nothing; never an estimate.
    2. Each run is told of when it is over: one on real nodes takes as long as its time limit, a cell several of these.
    3. Runs end with whoever asked for them.
    4. Real nodes that did not get ready, as on a machine that is busy for a moment, are tried once more: a table takes
       too long to be lost for that. The second time it is an error.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

import msgspec

from checkers.catalogue import CheckerCall
from harness import plan as plans
from harness import workloads
from harness.config import Config
from harness.errors import Interrupted, SetupError
from harness.execute import Execution, execute
from harness.progress import QuietProgress
from harness.sweep import pool

Say = Callable[[str], object]

NONE = "none"
CELLS_EACH = 8  # that a worker process measures before a fresh one takes its place
#: Bugs of the reference system, one or two of each kind; of those that clients can see.
BUGS = (
    "stale-read",
    "ack-before-majority",
    "retry-not-deduped",
    "definite-error-for-maybe",
    "guards-unchecked",
    "txn-in-two-parts",
    "lease-expired-locally",
    "keep-alive-not-replicated",
    "watch-gap",
)


class Cell(msgspec.Struct, frozen=True):
    """What became of one pair.

    Attributes:
        found_by: the seed whose history was found invalid; None for none of them.
        seeds: how many were tried.
        not_valid: of these, how many were neither valid nor found invalid by the workload.
    """

    workload: str
    bug: str
    found_by: int | None
    seeds: int
    not_valid: int = 0

    @property
    def text(self) -> str:
        """As it stands in the table."""
        if self.bug == NONE:
            bad = self.not_valid + (self.found_by is not None)
            return f"{self.seeds - bad}/{self.seeds} valid"
        return "·" if self.found_by is None else f"**{self.found_by}**"


def measure(base: Config, workload: str, bug: str, seeds: int, say: Say = lambda _: None) -> Cell:
    """Run one pair until the bug is found; `say` is told of each run.

    Raises:
        Interrupted: somebody wants it to end.
    """
    config = msgspec.structs.replace(base, workload=workload, bug=None if bug == NONE else bug)
    names = {"linearizable", *(call.name for call in _calls(config))}
    not_valid = 0
    for seed in range(seeds):
        execution = _run(config, seed, say)
        result = execution.result
        if result["interrupted"]:
            raise Interrupted("interrupted")
        say(
            f"  {workload} {bug} seed {seed}: {result['ok']} of {result['ops']} operations ok, "
            f"{result['wall_seconds']:.0f} s"
        )
        own = [check.valid for check in execution.checks if check.name in names]
        if "invalid" in own:
            return Cell(workload, bug, seed, seed + 1, not_valid)
        not_valid += result["valid"] is not True
    return Cell(workload, bug, None, seeds, not_valid)


def _run(config: Config, seed: int, say: Say) -> Execution:
    for is_last in (False, True):
        try:
            with tempfile.TemporaryDirectory() as directory:
                return execute(plans.draw(config, seed), Path(directory), QuietProgress())
        except SetupError as error:
            if is_last:
                raise
            say(f"  {config.workload} {config.bug or NONE} seed {seed}: {error}; once more")
    raise AssertionError("the last attempt returns or raises")


def _calls(config: Config) -> Iterable[CheckerCall]:
    return workloads.by_name(config.workload).checkers(workloads.settings_of(config))


def table(
    base: Config,
    names: Sequence[str],
    bugs: Sequence[str],
    seeds: int,
    jobs: int,
    say: Say = lambda _: None,
) -> str:
    """The table in Markdown, with a sentence on how it was made; `say` is called here and in the workers."""
    columns = (NONE, *bugs)
    pairs = [(name, bug) for name in names for bug in columns]
    cells: dict[tuple[str, str], Cell] = {}
    for start in range(0, len(pairs), CELLS_EACH * jobs):
        for cell in _cells(base, pairs[start : start + CELLS_EACH * jobs], seeds, jobs, say):
            cells[cell.workload, cell.bug] = cell
            say(f"{cell.workload} {cell.bug}: {cell.text}")
    how = (
        f"Measured on `{base.cluster}` with {base.nodes} nodes, {base.concurrency} clients, {base.rate_hz:g} "
        f"operations a second for {base.time_limit_s:g} s, faults {', '.join(base.faults)}, seeds 0 to {seeds - 1}. "
        "In bold the first seed whose history the workload's own checkers found invalid; · where none of them was."
    )
    heads = " | ".join(f"`{bug}`" if bug != NONE else "no bug" for bug in columns)
    lines = [how, "", f"| workload | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        row = " | ".join(cells[name, bug].text for bug in columns)
        lines.append(f"| `{name}` | {row} |")
    return "\n".join(lines) + "\n"


def _cells(
    base: Config, pairs: Sequence[tuple[str, str]], seeds: int, jobs: int, say: Say
) -> Generator[Cell, None, None]:
    """As they come, from fresh processes: long ones get large. None waits for a worker, where none could recall it."""
    executor = pool.local(jobs)()
    waiting = list(pairs)
    under_way: set[Future[Cell]] = set()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < jobs:
                under_way.add(executor.submit(measure, base, *waiting.pop(0), seeds, say))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        executor.shutdown()
