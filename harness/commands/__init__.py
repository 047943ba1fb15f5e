"""One module a command, each with NAME, HELP, `add_arguments(parser)` and `main(args) -> exit code`.

A command is imported when it is asked for: `splitbrain check` of a small file would otherwise spend most of its time on
importing the simulator. The name of a command is the name of its module.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Protocol, cast

NAMES = (
    "run", "sweep", "check", "replay", "plot", "shrink", "sim", "bugs", "workloads", "warmup", "doctor", "images",
)  # fmt: skip


class Command(Protocol):
    """What a module of this package offers."""

    NAME: str
    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """The command's options."""

    def main(self, args: argparse.Namespace) -> int:
        """Does it; returns the exit code."""


def load(name: str) -> Command:
    """The command of that name, one of `NAMES`."""
    return cast("Command", importlib.import_module(f"harness.commands.{name}"))
