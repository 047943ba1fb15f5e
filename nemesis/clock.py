"""The wall clock of a process, shifted while it runs, without touching the machine's.

Rules of this module
    1. The clock of the machine is never set: it is everybody's. The library `clock.c` adds an offset to what
       one process reads.
    2. Only CLOCK_REALTIME moves; see `clock.c` for why, and for what the library cannot reach. So a rule that lets
       time-outs drift is not for here.

Theory of operation
    Start the process with `shim.preload([shim.build("clock", directory)])` and `environment(file)`, where
    the file exists. `write_rule` moves the clock of all processes so started, from their next reading on. A drift
    counts from the true time of the writing, so that a process that is started later has gained as much.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> write_rule(directory / "clock", ClockRule(offset_ms=-1500.25, strobe_ms=5, strobe_period_ms=10))
>>> read_rule(directory / "clock")
ClockRule(offset_ms=-1500.25, drift_ppm=0.0, strobe_ms=5.0, strobe_period_ms=10.0, timer_drift_ppm=0.0)
"""

from __future__ import annotations

import itertools
import struct
import time
from pathlib import Path

from nemesis.shim import write_in_place
from nemesis.target import ClockRule

FILE_VARIABLE = "SPLITBRAIN_CLOCK_FILE"
NS_PER_MS = 1_000_000
PPB_PER_PPM = 1000
# struct rule of clock.c
_RULE = struct.Struct("=qqqqqq")
_VERSION = struct.Struct("=q")
_versions = itertools.count(2, 2)


def environment(file: Path) -> dict[str, str]:
    """Tells the library which file to follow."""
    return {FILE_VARIABLE: str(file)}


def write_rule(file: Path, rule: ClockRule) -> None:
    """Makes the clock exactly this, from now on."""
    version = next(_versions)
    fields = (
        round(rule.offset_ms * NS_PER_MS),
        time.time_ns(),
        round(rule.drift_ppm * PPB_PER_PPM),
        round(rule.strobe_ms * NS_PER_MS),
        round(rule.strobe_period_ms * NS_PER_MS),
    )
    write_in_place(file, _VERSION.pack(version - 1))
    write_in_place(file, _RULE.pack(version - 1, *fields))
    write_in_place(file, _VERSION.pack(version))


def write_offset(file: Path, offset_ms: float) -> None:
    """Sets how far the clock is ahead (or, below zero, behind)."""
    write_rule(file, ClockRule(offset_ms=offset_ms))


def read_rule(file: Path) -> ClockRule:
    """What the clock is like; right where there is no file."""
    try:
        _, offset_ns, _, drift_ppb, strobe_ns, period_ns = _RULE.unpack(file.read_bytes()[: _RULE.size])
    except FileNotFoundError:
        return ClockRule()
    return ClockRule(
        offset_ms=offset_ns / NS_PER_MS,
        drift_ppm=drift_ppb / PPB_PER_PPM,
        strobe_ms=strobe_ns / NS_PER_MS,
        strobe_period_ms=period_ns / NS_PER_MS,
    )
