"""`splitbrain bugs`: list the seeded bugs of a system."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from harness import systems

NAME = "bugs"
HELP = "list the seeded bugs of a system, for `splitbrain run --bug NAME`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("--system", default="raft", help="the system (default raft)")
    parser.add_argument("--json", action="store_true", help="a JSON list of objects")


# What a bug breaks, by the letters of the catalogue in `raft.bugs`.
BREAKS = {
    "LW": "lost writes",
    "SR": "stale reads",
    "SB": "two leaders",
    "DV": "diverging nodes",
    "DU": "duplicate or aborted writes",
    "LV": "liveness",
}


def _breaks(bug: Any) -> str:
    return ", ".join(BREAKS.get(letters, letters) for letters in bug.breaks)


def main(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    bugs = systems.by_name(args.system).bugs
    if args.json:
        rows = [
            {"name": bug.name, "summary": bug.summary, "breaks": _breaks(bug), "reference": bug.reference}
            for bug in bugs.values()
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    table = Table(box=None, pad_edge=False, show_edge=False)
    for column in ("bug", "what is wrong", "breaks", "seen in"):
        table.add_column(column, overflow="fold", no_wrap=column == "bug")
    for bug in bugs.values():
        table.add_row(bug.name, bug.summary, _breaks(bug), bug.reference)
    Console().print(table)
    return 0
