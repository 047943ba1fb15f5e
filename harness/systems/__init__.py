"""Systems under test, by name."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import ConfigError
from harness.systems.base import System
from harness.systems.raft import RaftSystem

SYSTEMS: Mapping[str, System] = {"raft": RaftSystem()}


def by_name(name: str) -> System:
    """The system of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return SYSTEMS[name]
    except KeyError:
        raise ConfigError(f"unknown system {name!r}; known: {', '.join(SYSTEMS)}") from None
