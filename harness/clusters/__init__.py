"""Clusters: where the system under test runs. `make_cluster` makes one from a plan."""

from __future__ import annotations

from harness.clusters.base import Cluster
from harness.clusters.sim import SimCluster
from harness.errors import ConfigError
from harness.plan import Plan
from harness.systems.base import System

CLUSTERS = ("sim",)


def require(kind: str) -> None:
    """Refuse a kind of cluster that there is not.

    Raises:
        ConfigError: names the kinds that there are.
    """
    if kind not in CLUSTERS:
        raise ConfigError(f"unknown cluster {kind!r}; known: {', '.join(CLUSTERS)}")


def make_cluster(plan: Plan, system: System) -> Cluster:
    """A cluster for the plan, not opened yet."""
    require(plan.config.cluster)
    return SimCluster(plan, system)
