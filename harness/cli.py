"""The command line: `splitbrain COMMAND ...`.

Exit codes: 0 valid, 1 invalid, 2 unknown, 254 bad arguments, config or input file, 255 internal or set-up error.
Whatever the user can get wrong ends in one sentence on standard error, never in a traceback.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from checkers import HistoryError
from harness import commands
from harness.errors import EXIT_BAD_INPUT, EXIT_INTERNAL, EXIT_UNKNOWN, SplitbrainError
from harness.interrupts import terminated_as_interrupted

DESCRIPTION = """\
Find consistency bugs in distributed systems: drive clients against a cluster, break it on purpose, record every
operation, and decide whether a correct system could have produced the history. Every run is fixed by its seed.
"""
EXIT_CODES_HELP = (
    "exit codes: 0 valid, 1 invalid, 2 unknown, 254 bad arguments or input, 255 internal or set-up error"
)

#: Commands that make run directories.
_RECORDING = frozenset({"run", "sweep", "replay", "shrink", "sim"})


class _Parser(argparse.ArgumentParser):
    """argparse leaves with 2 on bad usage, which is our `unknown`."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        sys.exit(EXIT_BAD_INPUT)


def parser(names: Sequence[str] = commands.NAMES) -> argparse.ArgumentParser:
    """The command line, or the part of it that these commands are."""
    top = _Parser(prog="splitbrain", description=DESCRIPTION, epilog=EXIT_CODES_HELP)
    top.add_argument("--version", action="version", version=f"splitbrain {_version()}")
    subs = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for command in map(commands.load, names):
        sub = subs.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, epilog=EXIT_CODES_HELP
        )
        command.add_arguments(sub)
        sub.set_defaults(main=command.main)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    try:
        with terminated_as_interrupted():
            names = given[:1] if given[:1] and given[0] in commands.NAMES else commands.NAMES
            args = parser(names).parse_args(given)
            code: int = args.main(args)
    except SplitbrainError as error:
        return _say(str(error), error.exit_code)
    except HistoryError as error:
        return _say(str(error), EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        kept = (
            "; what was recorded is kept in the run directory" if _RECORDING.intersection(given[:1]) else ""
        )
        return _say(f"interrupted{kept}", EXIT_UNKNOWN)
    except BrokenPipeError:
        # The reader of our output has gone (`splitbrain bugs | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERNAL
    except Exception as error:  # noqa: BLE001 - our own bug: say so, with what is needed to mend it
        traceback.print_exc()
        return _say(
            f"internal error: {error!r}; this is a bug of splitbrain, please report it", EXIT_INTERNAL
        )
    return code


def _say(sentence: str, code: int) -> int:
    sys.stderr.write(f"splitbrain: {sentence}\n")
    return code


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - costs 20 ms, needed rarely

    try:
        return version("splitbrain")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
