"""Run directories: everything needed to look at a run again.

STORE/20260102T030405-raft-register-seed7/
    plan.json       what was to happen            (written before the run)
    history.jsonl   what happened                 (written while it happens)
    log.jsonl       the system's committed log    (with --with-log, after the run)
    results.json    the verdict and all figures   (written after the check)
    report.txt      the same, for people
    plot.svg        latencies, rates and faults over time
STORE/latest        a link to the newest run
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from checkers.committed import LoggedRequest, encode_log
from harness import plan as plans
from harness.errors import SetupError
from harness.plan import Plan

PLAN = "plan.json"
HISTORY = "history.jsonl"
LOG = "log.jsonl"
RESULTS = "results.json"
REPORT = "report.txt"
PLOT = "plot.svg"
SAME_SECOND_MAX = 1000


def require(store: Path) -> None:
    """Make the directory of runs, before hours are spent on what could not be kept.

    Raises:
        SetupError: it cannot be made.
    """
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(store, error) from None


def unwritable(store: Path, error: OSError) -> SetupError:
    """What to say of a directory of runs that refused to be written to."""
    return SetupError(f"store {store}: cannot be written ({error.strerror}); choose another with --store DIR")


def create(store: Path, plan: Plan) -> Path:
    """Make the run's directory and save the plan in it.

    Raises:
        SetupError: the store cannot be written.
    """
    config = plan.config
    now = dt.datetime.now(tz=dt.UTC)
    name = f"{now:%Y%m%dT%H%M%S}-{config.system}-{config.workload}-seed{plan.seed}"
    try:
        store.mkdir(parents=True, exist_ok=True)
        run_dir = _mkdir_unused(store, name)
        (run_dir / PLAN).write_bytes(plans.encode(plan))
        _link_latest(store, run_dir)
    except OSError as error:
        raise unwritable(store, error) from None
    return run_dir


def _mkdir_unused(store: Path, name: str) -> Path:
    for attempt in range(SAME_SECOND_MAX):
        run_dir = store / (name if attempt == 0 else f"{name}-{attempt + 1}")
        with contextlib.suppress(FileExistsError):
            run_dir.mkdir()
            return run_dir
    raise SetupError(f"store {store}: {SAME_SECOND_MAX} runs named {name}; choose another with --store DIR")


def _link_latest(store: Path, run_dir: Path) -> None:
    """Point STORE/latest at the run; a file system without links goes without."""
    link = store / "latest"
    beside = store / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):
        beside.unlink(missing_ok=True)
        beside.symlink_to(run_dir.name)
        beside.replace(link)


def save_log(run_dir: Path, requests: Iterable[LoggedRequest]) -> None:
    """Save the committed log.

    Raises:
        SetupError: the directory cannot be written any more; the history in it is kept.
    """
    try:
        (run_dir / LOG).write_bytes(encode_log(requests))
    except OSError as error:
        raise SetupError(f"run {run_dir}: {error.strerror}; the history recorded so far is kept") from None


def seal(run_dir: Path, results: dict[str, Any], report: str) -> None:
    """Save the results and the report.

    Raises:
        SetupError: the directory cannot be written any more; the history in it is kept.
    """
    try:
        (run_dir / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
        (run_dir / REPORT).write_text(report + "\n", encoding="utf-8")
    except OSError as error:
        raise SetupError(f"run {run_dir}: {error.strerror}; the history recorded so far is kept") from None
