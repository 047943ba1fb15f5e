"""`splitbrain warmup`: compile the fast checkers ahead."""

from __future__ import annotations

import argparse
import sys

import checkers
from checkers import fast

NAME = "warmup"
HELP = "compile the fast checkers now instead of at the first long history"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options."""
    del parser


def main(args: argparse.Namespace) -> int:
    """Compile part by part, and say so."""
    del args
    fast.announce = lambda sentence: print(sentence, flush=True)  # noqa: T201
    if not checkers.warm_up():
        sys.stdout.write("numpy and numba are not installed: pip install 'splitbrain[fast]', then again\n")
        return 0
    sys.stdout.write("the fast checkers are compiled\n")
    return 0
