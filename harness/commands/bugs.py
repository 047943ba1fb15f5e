"""`splitbrain bugs`: list the seeded bugs of a system."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

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
    "LE": "leases that end early",
    "WG": "changes that a watch does not see",
    "TX": "transactions that are not atomic",
}


# What it takes to see it, likewise.
NEEDS = {
    "P": "partitions",
    "C": "crashes",
    "R": "a restart of all nodes",
    "D": "delayed, repeated or lost messages",
    "Z": "pauses",
    "E": "an even number of nodes (--nodes 4)",
    "M": "membership changes (--fault membership)",
}


def _needs(bug: Any) -> str:
    return ", ".join(NEEDS.get(letter, letter) for letter in bug.needs) or "nothing but load"


def _breaks(bug: Any) -> str:
    return ", ".join(BREAKS.get(letters, letters) for letters in bug.breaks)


def main(args: argparse.Namespace) -> int:
    """Print the catalogue."""
    bugs = systems.by_name(args.system).bugs
    if args.json:
        rows = [
            {
                "name": bug.name,
                "summary": bug.summary,
                "breaks": _breaks(bug),
                "needs": _needs(bug),
                "reference": bug.reference,
            }
            for bug in bugs.values()
        ]
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    console = Console()
    for bug in bugs.values():
        console.print(f"[bold]{bug.name}[/]", highlight=False)
        console.print(Padding(bug.summary, (0, 0, 0, 4)), highlight=False, markup=False)
        seen = f"breaks: {_breaks(bug)}; needs: {_needs(bug)}; seen in {bug.reference}"
        console.print(Padding(Text(seen, style="dim"), (0, 0, 0, 4)), highlight=False)
    return 0
