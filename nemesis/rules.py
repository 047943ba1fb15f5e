"""How several network faults in force at once become one ruleset.

Rules of this module
    1. A link blocked by any fault is blocked.
    2. Delays, jitters, offsets and drifts add; probabilities combine as independent chances; the lowest rate wins,
       and so does the stronger correlation. Of two distributions of the jitter the one not uniform is taken.
    3. A link left healthy is not named, so that equal states are equal values; links come in sorted order.
"""

from __future__ import annotations

from collections.abc import Iterable

from nemesis.target import ClockRule, DiskRule, Link, LinkRule, Ruleset

HEALTHY_LINK = LinkRule()


def combine(one: LinkRule, other: LinkRule) -> LinkRule:
    """Both rules on one link.

    >>> combine(LinkRule(delay_ms=20, loss=0.5), LinkRule(delay_ms=5, loss=0.5))
    LinkRule(blocked=False, delay_ms=25, jitter_ms=0.0, loss=0.75, ...)
    """
    return LinkRule(
        blocked=one.blocked or other.blocked,
        delay_ms=one.delay_ms + other.delay_ms,
        jitter_ms=one.jitter_ms + other.jitter_ms,
        loss=either(one.loss, other.loss),
        duplicate=either(one.duplicate, other.duplicate),
        reorder=either(one.reorder, other.reorder),
        corrupt=either(one.corrupt, other.corrupt),
        rate_kbit=min(filter(None, (one.rate_kbit, other.rate_kbit)), default=0.0),
        distribution=other.distribution if one.distribution == "uniform" else one.distribution,
        delay_correlation=max(one.delay_correlation, other.delay_correlation),
        loss_correlation=max(one.loss_correlation, other.loss_correlation),
        reset=either(one.reset, other.reset),
    )


def combine_disks(one: DiskRule, other: DiskRule) -> DiskRule:
    """Both rules on one disk."""
    return DiskRule(
        sync_delay_ms=one.sync_delay_ms + other.sync_delay_ms,
        sync_error=either(one.sync_error, other.sync_error),
        write_error=either(one.write_error, other.write_error),
        stalled=one.stalled or other.stalled,
        misdirect=either(one.misdirect, other.misdirect),
        lying_sync=either(one.lying_sync, other.lying_sync),
        lose_unsynced=one.lose_unsynced or other.lose_unsynced,
        torn_write=either(one.torn_write, other.torn_write),
    )


def combine_clocks(one: ClockRule, other: ClockRule) -> ClockRule:
    """Both rules on one node's clocks; of two strobes the faster one sets the pace."""
    periods_ms = filter(None, (one.strobe_period_ms, other.strobe_period_ms))
    return ClockRule(
        offset_ms=one.offset_ms + other.offset_ms,
        drift_ppm=one.drift_ppm + other.drift_ppm,
        strobe_ms=one.strobe_ms + other.strobe_ms,
        strobe_period_ms=min(periods_ms, default=0.0),
        timer_drift_ppm=one.timer_drift_ppm + other.timer_drift_ppm,
    )


def either(one: float, other: float) -> float:
    """The probability that at least one of two independent chances comes true."""
    return 1 - (1 - one) * (1 - other)


def compose(rulesets: Iterable[Ruleset]) -> Ruleset:
    """One ruleset that does what all the given ones do together."""
    links: dict[Link, LinkRule] = {}
    for rules in rulesets:
        for link, rule in rules.links.items():
            before = links.get(link)
            links[link] = rule if before is None else combine(before, rule)
    return Ruleset({link: links[link] for link in sorted(links) if links[link] != HEALTHY_LINK})
