"""`splitbrain workloads`: list what clients can be made to ask."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from harness.workloads import WORKLOADS
from harness.workloads.base import Workload

NAME = "workloads"
HELP = "list the workloads and their options, for `splitbrain run --workload NAME --option NAME=VALUE`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")


def main(args: argparse.Namespace) -> int:
    """Print the list."""
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
