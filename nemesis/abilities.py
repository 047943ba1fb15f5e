"""What a cluster may be able to do to itself, by name: what faults need, and clusters offer.

Rules of this module
    1. One name for each thing that some cluster can do and another cannot. Those of the network are the fields of
       a `LinkRule`, those of the process the verbs of a `Target`.
    2. A fault that needs what its cluster does not offer is an error before the run, never a quiet run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import get_args

from nemesis.target import ClockRule, CrashPoint, Damage, DamageKind, DiskRule, LinkRule

SHAPES = (
    "delay_ms", "jitter_ms", "loss", "duplicate", "reorder", "corrupt",
    "distribution", "delay_correlation", "loss_correlation",
)  # fmt: skip
NETWORK = ("blocked", "rate_kbit", *SHAPES, "reset")
CRASH_POINTS: tuple[CrashPoint, ...] = get_args(CrashPoint)
PROCESS = ("kill", "pause", "slow", *(f"crash-{point}" for point in CRASH_POINTS))
CLOCK = ("clock", "clock-drift", "clock-strobe", "clock-timers")
DISK_SIMPLE = ("sync_delay_ms", "sync_error", "write_error")
DISK = ("disk", "disk-stalled", "disk-misdirect", "disk-lying-sync", "disk-lose-unsynced", "disk-torn-write")
DAMAGE = tuple(f"damage-{kind}" for kind in get_args(DamageKind))
MEMBERSHIP = ("membership", "wipe")
ALL = (*NETWORK, *PROCESS, *CLOCK, *DISK, *DAMAGE, *MEMBERSHIP)


def of_links(rules: Iterable[LinkRule]) -> tuple[str, ...]:
    """What these rules need of a network.

    >>> of_links([LinkRule(delay_ms=5, distribution="normal")])
    ('delay_ms', 'distribution')
    """
    healthy, sick = LinkRule(), list(rules)
    return tuple(
        name for name in NETWORK if any(getattr(rule, name) != getattr(healthy, name) for rule in sick)
    )


def of_clocks(rules: Iterable[ClockRule]) -> tuple[str, ...]:
    """What these rules need of a cluster's clocks.

    >>> of_clocks([ClockRule(offset_ms=5, drift_ppm=100)])
    ('clock', 'clock-drift')
    """
    wrong = list(rules)
    asked: Mapping[str, bool] = {
        "clock": any(rule.offset_ms for rule in wrong),
        "clock-drift": any(rule.drift_ppm for rule in wrong),
        "clock-strobe": any(rule.strobe_period_ms for rule in wrong),
        "clock-timers": any(rule.timer_drift_ppm for rule in wrong),
    }
    return tuple(name for name in CLOCK if asked[name])


def of_disks(rules: Iterable[DiskRule]) -> tuple[str, ...]:
    """What these rules need of a cluster's disks: `disk` for slow, failing and full, a name for each other field.

    >>> of_disks([DiskRule(sync_error=1, lying_sync=0.5)])
    ('disk', 'disk-lying-sync')
    """
    sick = list(rules)
    named = [one.name for one in fields(DiskRule) if any(getattr(rule, one.name) for rule in sick)]
    names = {"disk" if name in DISK_SIMPLE else f"disk-{name.replace('_', '-')}" for name in named}
    return tuple(name for name in DISK if name in names)


def of_damages(damages: Iterable[Damage]) -> tuple[str, ...]:
    """What these need of what lies on the disks."""
    kinds = {damage.kind for damage in damages}
    return tuple(f"damage-{kind}" for kind in get_args(DamageKind) if kind in kinds)
