"""`python -m raft.explore`: every order of events of three nodes, or the shortest way to what a bug breaks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import NoReturn

from raft.bugs import BUGS
from raft.explore.bounds import BUG_BOUNDS, DEFAULT, Bounds
from raft.explore.search import Report, explore

_COUNTS = (
    "nodes",
    "term_max",
    "writes",
    "crashes",
    "reads",
    "heartbeats",
    "passes",
    "kept_per_link",
    "states_max",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(254, f"{self.prog}: {message}\n")


def main(argv: Sequence[str]) -> int:
    """0: all there is was searched, and all of it is well; 1: a property is broken; 2: not all was searched."""
    args = _parser().parse_args(argv)
    if args.bug is not None and args.bug not in BUG_BOUNDS:
        known = "it is none of the core's" if args.bug in BUGS else "there is none"
        sys.stderr.write(f"raft.explore: bug {args.bug!r}: {known}; these are: {', '.join(BUG_BOUNDS)}\n")
        return 254
    bounds = BUG_BOUNDS[args.bug] if args.bug else DEFAULT
    given = {name: getattr(args, name) for name in _COUNTS if getattr(args, name) is not None}
    bounds = replace(bounds, **given, seconds_max=args.seconds_max)
    sys.stdout.write(f"{_told(bounds)}\n")
    report = explore(bounds, bug=args.bug, progress=_progress if sys.stderr.isatty() else None)
    _tell(report)
    if report.violation is not None:
        return 1
    return 0 if report.complete else 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m raft.explore", description=__doc__)
    parser.add_argument(
        "bug", nargs="?", help="a seeded bug of the core; its own small bounds are the default"
    )
    for name in _COUNTS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=_count, help=f"default {getattr(DEFAULT, name)}"
        )
    parser.add_argument("--seconds-max", type=float, default=DEFAULT.seconds_max)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _told(bounds: Bounds) -> str:
    """The bounds in a line."""
    shown = [
        f"{field.name} {getattr(bounds, field.name)}" for field in fields(bounds) if field.name in _COUNTS
    ]
    shown += [f"{name} {getattr(bounds, name)}" for name in ("changes", "logs") if getattr(bounds, name)]
    return ", ".join(shown)


def _progress(depth: int, states: int, seconds: float) -> None:
    sys.stderr.write(f"\rdepth {depth}, {states:,} states, {states / max(seconds, 1e-9):,.0f} a second   ")


def _tell(report: Report) -> None:
    say = sys.stdout.write
    say(
        f"{report.states:,} states, {report.steps:,} steps, depth {report.depth}, {report.seconds:.1f} s, "
        f"{report.states / max(report.seconds, 1e-9):,.0f} states a second; "
    )
    say("all there are\n" if report.complete else "not all there are\n")
    for sight, count in sorted(report.sights.items()):
        say(f"  {count:,} with {sight}\n")
    if report.violation is not None:
        wrong, steps = report.violation
        say(f"{wrong}, after {len(steps)} steps:\n" + "".join(f"  {step}\n" for step in steps))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
