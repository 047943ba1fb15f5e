"""What a workload is: a plan of operations, and the model that its histories must fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from harness.config import Config
from harness.seeds import Streams

OpTuple = tuple[int, int, str, Any, Any]  # at_us, worker, f, key, value


class Workload(Protocol):
    """A workload; see the module.

    Attributes:
        name: what `--workload` takes.
        summary: what it asks and what it finds, in a sentence.
        model: name of the model that its histories are checked against.
    """

    name: str
    summary: str
    model: str

    def plan(self, config: Config, streams: Streams) -> tuple[Sequence[OpTuple], Sequence[OpTuple]]:
        """Operations in order of time, and final operations."""
