"""Workloads: what clients ask of the system, and what must hold of the answers."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import ConfigError
from harness.workloads.base import Workload
from harness.workloads.register import RegisterWorkload

WORKLOADS: Mapping[str, Workload] = {"register": RegisterWorkload()}


def by_name(name: str) -> Workload:
    """The workload of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return WORKLOADS[name]
    except KeyError:
        raise ConfigError(f"unknown workload {name!r}; known: {', '.join(WORKLOADS)}") from None
