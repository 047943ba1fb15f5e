"""What a workload is: a plan of operations, how clients perform them, and what must hold of the answers.

Theory of operation
    A workload is a bundle of four:

    plan        which operations are asked for, when and by whom, and which are asked for at the very end, after
                everything was healed (`Workload.plan`)
    contract    what each operation means to the system under test. A system has one contract for each workload that
                it can serve, by the workload's name (`harness.systems.base.System.contracts`)
    model       what histories must be linearizable to, or
    checkers    what else must hold of them: names of `checkers.catalogue` with their options
    options     what a user may set with `--option NAME=VALUE` or `[workload_options]`

    The history's header names the model or the checkers, so that `splitbrain check` decides about a stored history
    as the run did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from checkers.catalogue import CheckerCall
from harness.config import Config
from harness.seeds import Streams

OpTuple = tuple[int, int, str, Any, Any]  # at_us, worker, f, key, value
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Option:
    """What a user may set of a workload; its type is that of the default.

    Attributes:
        default: the value where the user sets none.
        help: what it is, with its unit.
        low, high: the range of a number.
    """

    default: bool | int | float | str
    help: str
    low: float = 0
    high: float = 1_000_000


class Workload(Protocol):
    """A workload; see the module.

    Attributes:
        name: what `--workload` takes.
        summary: what it asks and what it finds, in a sentence.
        model: name of the model that its histories are linearizable to; "" where `checkers` decide alone.
        options: what a user may set, by name.
        faults: kinds of fault that it brings, whatever others are asked for.
    """

    name: str
    summary: str
    model: str
    options: Mapping[str, Option]
    faults: tuple[str, ...]

    def plan(
        self, config: Config, settings: Settings, streams: Streams
    ) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Operations in order of time, and final operations; `settings` has a value for every option."""

    def checkers(self, settings: Settings) -> tuple[CheckerCall, ...]:
        """What decides, beside the model."""
