"""The clocks of one simulated machine: a wall clock that may be wrong in every way, a monotonic one that never jumps.

Theory of operation
    What is wrong is desired state (`nemesis.target.ClockRule`). The monotonic clock runs at `rate` times true time,
    without a jump where the rate changes; the wall clock is true time plus what the rule says at that moment (offset,
    drift, strobe) and what a test adds by hand (`skew_us`), so that it is right again when the rule is. All of it is a
    function of true time: a clock costs nothing while nobody looks at it, and needs no task of its own.

>>> class True_:
...     now_us = 0
>>> clock = SimClock(True_)
>>> clock.set_rule(ClockRule(timer_drift_ppm=500_000))
>>> True_.now_us = 1_000_000
>>> clock.mono_us(), clock.true_delay_us(1500)
(1500000, 1000)
>>> clock.set_rule(ClockRule(offset_ms=-7))
>>> True_.now_us = 3_000_000
>>> clock.mono_us(), clock.wall_us()
(3500000, 2993000)
"""

from __future__ import annotations

import math

from harness.seeds import HasTime
from nemesis.target import RIGHT_CLOCK, ClockRule

RATE_MIN, RATE_MAX = 0.01, 100.0


class SimClock:
    """See the module. All times in microseconds.

    Attributes:
        rate: of the monotonic clock.
        skew_us: added to the wall clock.
    """

    __slots__ = ("_base_mono_us", "_base_true_us", "_rule", "_set_us", "_true", "rate", "skew_us")

    def __init__(self, true: HasTime) -> None:
        self._true = true
        self.rate = 1.0
        self.skew_us = 0
        self._base_true_us = 0
        self._base_mono_us = 0
        self._rule = RIGHT_CLOCK
        self._set_us = 0

    def mono_us(self) -> int:
        """What the monotonic clock says."""
        passed_us = self._true.now_us - self._base_true_us
        return self._base_mono_us + (passed_us if self.rate == 1.0 else int(passed_us * self.rate))

    def wall_us(self) -> int:
        """What the wall clock says."""
        ahead_us = self.skew_us
        if self._rule != RIGHT_CLOCK:
            ahead_us += round(1000 * self._rule.offset_at_ms((self._true.now_us - self._set_us) / 1000))
        return self._true.now_us + ahead_us

    def true_delay_us(self, delay_us: int) -> int:
        """How long it takes in truth until this much has passed on the node's own clock."""
        # Rounded up: who waits for a time and looks at the clock then must not find that it is still to come.
        return delay_us if self.rate == 1.0 else max(0, math.ceil(delay_us / self.rate))

    def true_us(self, mono_us: int) -> int:
        """The true time at which the monotonic clock says this, at its present rate."""
        return self._base_true_us + self.true_delay_us(mono_us - self._base_mono_us)

    def set_rule(self, rule: ClockRule) -> None:
        """Make the clocks exactly this from now on; pending timers keep the true time that they were set for.

        Raises:
            ValueError: the rate of the monotonic clock would be out of bounds.
        """
        rate = 1.0 + rule.timer_drift_ppm / 1e6
        if not RATE_MIN <= rate <= RATE_MAX:
            raise ValueError(
                f"timer_drift_ppm is {rule.timer_drift_ppm:g}, which makes time run {rate:g} times as fast; "
                f"take a number that keeps it between {RATE_MIN:g} and {RATE_MAX:g}"
            )
        self._base_mono_us = self.mono_us()
        self._base_true_us = self._set_us = self._true.now_us
        self.rate = rate
        self._rule = rule
