"""What sets a reactive fault off: something that the cluster does, while the fault is armed."""

from __future__ import annotations

import msgspec

from nemesis.fault_base import FaultError, require_above_zero, require_not_negative
from nemesis.target import EventKind


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When to inject, and for how long.

    Attributes:
        on: what the cluster does. For `leader`, who leads when the fault is armed counts as well.
        hold_ms: how long the fault stays in force each time.
        delay_ms: how long after the event it is injected.
        times: at most so often while it is armed.
    """

    on: EventKind
    hold_ms: float
    delay_ms: float = 0.0
    times: int = 1

    def __post_init__(self) -> None:
        require_above_zero("trigger", "hold_ms", self.hold_ms)
        require_not_negative("trigger", "delay_ms", self.delay_ms)
        if self.times < 1:
            raise FaultError(f"trigger: times is {self.times}; it must be 1 or more")
