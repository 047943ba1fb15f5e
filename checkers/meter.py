"""What a search may use, counted while it goes on."""

from __future__ import annotations

import time

#: Estimated bytes that a remembered configuration takes in this implementation.
CONFIG_BYTES = 320
_CLOCK_EVERY = 64


class Exhausted(Exception):
    """A meter ran out; ``args[0]`` is what: ``configurations``, ``bytes`` or ``seconds``."""


class Meter:
    """Counts what a search uses up.

    Args:
        configurations: how many configurations may be expanded.
        bytes_max: how many bytes remembered configurations may take, by estimate.
        deadline_s: `time.monotonic` at which to stop.
    """

    def __init__(self, configurations: int, bytes_max: int, deadline_s: float) -> None:
        self.left = configurations
        self.used = 0
        self.bytes_max = bytes_max
        self.held_max = max(1, bytes_max // CONFIG_BYTES)
        self.deadline_s = deadline_s

    def spend(self, held: int) -> None:
        """Takes one configuration, while ``held`` are remembered."""
        if self.left <= 0:
            raise Exhausted("configurations")
        self.left -= 1
        self.used += 1
        if held > self.held_max:
            raise Exhausted("bytes")
        if self.used % _CLOCK_EVERY == 0 and time.monotonic() > self.deadline_s:
            raise Exhausted("seconds")
