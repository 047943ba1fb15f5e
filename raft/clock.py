"""The cluster's clock: time as part of the log, so that what ends by time ends on every node at the same entry.

Theory of operation
    A leader stamps entries that need the time. The state machine's clock is the largest stamp it has seen. A
    leader's stamp is where the clock of the log stood when its term began, plus what its own monotonic clock
    says has passed since (LogCabin does the same). So no two machines' clocks are ever compared, wall clocks
    play no part, and the clock stands still while nobody leads: whoever could not renew a lease because of
    that has not lost it.
"""

from __future__ import annotations


class ClusterClock:
    """One node's idea of the cluster's time, in microseconds.

    >>> clock = ClusterClock(now_us=999_000)
    >>> clock.lead(3, clock_us=500, now_us=1_000_000)
    >>> clock.read(1_000_020)
    520
    """

    __slots__ = ("_at_us", "_base_us", "_term")

    def __init__(self, now_us: int) -> None:
        self._term = -1
        self._base_us = 0
        self._at_us = now_us

    def lead(self, term: int, clock_us: int, now_us: int) -> None:
        """This node leads in a term; the first time that it says so, its time begins where the log's stands."""
        if term != self._term:
            self._term, self._base_us, self._at_us = term, clock_us, now_us

    def applied(self, clock_us: int, now_us: int) -> None:
        """The clock of the log has come this far."""
        if clock_us > self.read(now_us):
            self._base_us, self._at_us = clock_us, now_us

    def read(self, now_us: int) -> int:
        """What time it is: of use for stamps on the leader only, elsewhere an estimate."""
        return self._base_us + max(0, now_us - self._at_us)
