"""What each kind of cluster can do beyond the network, and by what means; the network is a matter of the machine.

Rules of this module
    1. Names are those of `nemesis.abilities`. What is not here is refused before the run.
"""

from __future__ import annotations

from collections.abc import Mapping

from nemesis import abilities

SIGNALS = ("kill", "pause", "slow")
BY_CLOCK_LIBRARY = ("clock", "clock-drift", "clock-strobe")
BY_DISK_LIBRARY = ("disk", "disk-stalled", "crash-before-sync", "crash-after-sync", "crash-snapshot")
BY_LIBRARY_AND_FILES = ("disk-lying-sync", "disk-lose-unsynced", "disk-torn-write")

SIM: Mapping[str, str] = dict.fromkeys(abilities.ALL, "simulation")
# The program at full depth has no way in for an operator yet.
WHOLE: Mapping[str, str] = {name: how for name, how in SIM.items() if name not in abilities.MEMBERSHIP}

_REAL: dict[str, str] = (
    dict.fromkeys(SIGNALS, "signals")
    | dict.fromkeys(BY_CLOCK_LIBRARY, "library")
    | dict.fromkeys(BY_DISK_LIBRARY, "library")
    | {"membership": "requests", "crash-membership": "log and signal", "wipe": "files"}
    | dict.fromkeys(abilities.DAMAGE, "files")
    | dict.fromkeys(BY_LIBRARY_AND_FILES, "library and files")
)
DOCKER: Mapping[str, str] = _REAL
SSH: Mapping[str, str] = _REAL
LOCAL: Mapping[str, str] = _REAL

OF_CLUSTER: Mapping[str, Mapping[str, str]] = {"sim": SIM, "local": LOCAL, "docker": DOCKER, "ssh": SSH}


def library_of(ability: str) -> str | None:
    """The library in front of a node's C library that does it, if one does."""
    if ability in BY_CLOCK_LIBRARY:
        return "clock"
    return "disk" if ability in (*BY_DISK_LIBRARY, *BY_LIBRARY_AND_FILES) else None
