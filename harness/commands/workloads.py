"""`splitbrain workloads`: list what clients can be made to ask."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness import clusters, systems, workloads
from harness import plan as plans
from harness.config import Config, load
from harness.errors import ConfigError
from harness.execute import unknown_bug
from harness.measure import BUGS, table
from harness.workloads import WORKLOADS
from harness.workloads.base import Workload

NAME = "workloads"
_SETTINGS = (
    "cluster", "time_limit_s", "rate_hz", "faults", "fault_interval_s", "hosts", "ssh_key", "ssh_known_hosts",
)  # fmt: skip
HELP = "list the workloads and their options, for `splitbrain run --workload NAME --option NAME=VALUE`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    d = Config()
    add = parser.add_argument
    add("--json", action="store_true", help="a JSON list of objects")
    add(
        "--measure", action="store_true",
        help="run each workload with seeded bugs, and print which finds which as a table in Markdown",
    )  # fmt: skip
    add("--workload", action="append", metavar="NAME", help="measure only this one, repeatable")
    add(
        "--bug",
        action="append",
        metavar="NAME",
        help=f"measure with this one, repeatable (default {', '.join(BUGS)})",
    )
    add("--seeds", type=int, default=3, metavar="N", help="seeds to try for each pair (default 3)")
    add("--jobs", type=int, default=1, metavar="N", help="runs at the same time (default 1)")
    add("--cluster", default=d.cluster, help=f"measure there (default {d.cluster})")
    add(
        "--time-limit", type=float, default=20.0, metavar="S", dest="time_limit_s",
        help="seconds of each run (default 20)",
    )  # fmt: skip
    add(
        "--rate", type=float, metavar="HZ", dest="rate_hz", help=f"operations a second (default {d.rate_hz:g})"
    )  # fmt: skip
    add(
        "--fault", action="append", metavar="NAME", dest="faults",
        help=f"a kind of fault, repeatable (default {', '.join(d.faults)})",
    )  # fmt: skip
    add("--fault-interval", type=float, metavar="S", dest="fault_interval_s", help="as of `splitbrain run`")
    add("--node", action="append", metavar="HOST", dest="hosts", help="as of `splitbrain run`, for ssh")
    add("--ssh-key", metavar="FILE", help="as of `splitbrain run`")
    add("--ssh-known-hosts", metavar="FILE", help="as of `splitbrain run`")


def main(args: argparse.Namespace) -> int:
    """Print the list, or measure."""
    if args.measure:
        return _measure(args)
    if args.json:
        sys.stdout.write(json.dumps([_described(workload) for workload in WORKLOADS.values()]) + "\n")
        return 0
    console = Console()
    for workload in WORKLOADS.values():
        console.print(Text(workload.name, style="bold"))
        console.print(Padding(Text(workload.summary), (0, 0, 0, 4)))
        for name, option in workload.options.items():
            said = f"--option {name}={json.dumps(option.default)}  {option.help}"
            console.print(Padding(Text(said), (0, 0, 0, 8)))
        console.print(Padding(Text(f"checked by {_checker(workload)}"), (0, 0, 1, 4)))
    return 0


def _measure(args: argparse.Namespace) -> int:
    names = [workloads.by_name(name).name for name in args.workload or WORKLOADS]
    bugs = args.bug or [*BUGS]
    known = systems.by_name("raft").bugs
    for bug in bugs:
        if bug not in known:
            raise ConfigError(unknown_bug(bug, known))
    if args.seeds < 1 or args.jobs < 1:
        raise ConfigError("--seeds and --jobs must be 1 or more")
    clusters.require(args.cluster)
    base = load(None, {name: getattr(args, name) for name in _SETTINGS})
    clusters.check(plans.draw(base, 0))
    _say(
        f"{len(names)} workloads, each with no bug and with {len(bugs)}: up to {args.seeds} runs of "
        f"{base.time_limit_s:g} s for each pair"
    )
    sys.stdout.write(table(base, names, bugs, args.seeds, args.jobs, _say))
    return 0


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _described(workload: Workload) -> dict[str, Any]:
    return {
        "name": workload.name,
        "summary": workload.summary,
        "options": [
            {"name": name, "default": option.default, "help": option.help}
            for name, option in workload.options.items()
        ],
        "checker": _checker(workload),
    }


def _checker(workload: Workload) -> str:
    """The model and the checkers, in words."""
    calls = workload.checkers({name: option.default for name, option in workload.options.items()})
    names = [f"linearizable ({workload.model})"] if workload.model else []
    return ", ".join([*names, *(call.name for call in calls)])
