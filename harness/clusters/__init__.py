"""Clusters: where the system under test runs. `make_cluster` makes one from a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.clusters import abilities, docker, local, ssh
from harness.clusters.base import Cluster
from harness.clusters.docker import DockerCluster
from harness.clusters.local import LocalCluster
from harness.clusters.sim import SimCluster
from harness.clusters.ssh import SshCluster
from harness.clusters.whole import WholeCluster
from harness.errors import ConfigError, InternalError
from harness.plan import Plan
from harness.systems.base import Service, System
from nemesis.abilities import NETWORK
from nemesis.backend import needs
from nemesis.schedule import kind_of

CLUSTERS = ("sim", "local", "docker", "ssh")


def require(kind: str) -> None:
    """Refuse a kind of cluster that there is not.

    Raises:
        ConfigError: names the kinds that there are.
    """
    if kind not in CLUSTERS:
        raise ConfigError(f"unknown cluster {kind!r}; known: {', '.join(CLUSTERS)}")


def check(plan: Plan) -> None:
    """Refuse a plan that cannot be performed here, before anything of the run exists.

    Raises:
        ConfigError: no such cluster, or a fault that it cannot do.
        SetupError: the machine lacks something.
    """
    require(plan.config.cluster)
    _check_kind(plan)
    if plan.config.cluster == "sim":
        _refuse_balancer(plan)
    elif plan.config.cluster == "local":
        local.check(plan)
    elif plan.config.cluster == "docker":
        docker.check(plan)
    elif plan.config.cluster == "ssh":
        ssh.check(plan)


def _check_kind(plan: Plan) -> None:
    """What no cluster of this kind can do is refused before anything is built or connected to."""
    kind, is_whole = plan.config.cluster, plan.config.depth == "whole"
    can = abilities.WHOLE if is_whole else abilities.OF_CLUSTER[kind]
    for event in plan.faults:
        for need in needs(event.fault, plan.nodes):
            if need not in can and (need not in NETWORK or kind == "sim"):
                where = f"cluster {kind!r}" + (" at depth 'whole'" if is_whole else "")
                raise ConfigError(
                    f"fault {kind_of(event)!r} needs {need!r}, which {where} cannot do; leave the fault out or take "
                    "another cluster"
                )


def _refuse_balancer(plan: Plan) -> None:
    if plan.config.via == "lb":
        raise ConfigError("cluster 'sim' has no load balancer; give --via nodes or --via leader")


def make_cluster(plan: Plan, system: System, run_dir: Path | None = None) -> Cluster:
    """A cluster for the plan, not opened yet.

    What real nodes leave behind goes to the run's directory; only the simulator does without one.
    """
    require(plan.config.cluster)
    if plan.config.cluster == "sim":
        _refuse_balancer(plan)
        whole = plan.config.depth == "whole"
        return WholeCluster(plan, system, run_dir) if whole else SimCluster(plan, system)
    if run_dir is None:
        raise InternalError(f"a {plan.config.cluster} cluster without a directory")
    real: Mapping[str, Callable[[Plan, Service, Path], Cluster]] = {
        "local": LocalCluster, "docker": DockerCluster, "ssh": SshCluster,
    }  # fmt: skip
    return real[plan.config.cluster](plan, system.service, run_dir)
