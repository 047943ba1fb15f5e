"""Limits of CPU and memory for nodes that are processes of this machine: one control group a node.

Rules of this module
    1. Only groups of our own are made, named after this process, and removed at the end; `sweep` removes those whose
       maker is gone.
    2. Where the machine does not let us, that is said before the run; limits are never left out quietly.

Theory of operation
    Version 2 has one tree, in which the controllers have to be handed down once. Version 1 has a tree for each
    controller. A process enters by writing its number before it becomes the node.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.errors import SetupError
from harness.plan import Plan

ROOT = Path("/sys/fs/cgroup")
PREFIX = "splitbrain-"
PERIOD_US = 100_000
REMOVE_TIMEOUT_S = 5.0


class Limits(NamedTuple):
    """What a node may use at most; None for all that there is.

    Attributes:
        cpus: how many CPUs, such as 0.5.
        memory_mb: how many megabytes; beyond that the kernel kills it.
    """

    cpus: float | None = None
    memory_mb: int | None = None

    def told(self) -> str:
        """The end of a sentence about nodes that did not do what they should: it may be for want of these.

        >>> Limits(memory_mb=16).told()
        '; each node has no more than --node-memory 16 megabytes'
        >>> Limits().told()
        ''
        """
        cpus = "" if self.cpus is None else f"--node-cpus {self.cpus:g}"
        memory = "" if self.memory_mb is None else f"--node-memory {self.memory_mb} megabytes"
        said = " and ".join(filter(None, (cpus, memory)))
        return f"; each node has no more than {said}" if said else ""


def limits_of(plan: Plan) -> Limits:
    """What the nodes of a plan may use."""
    return Limits(plan.config.node_cpus, plan.config.node_memory_mb)


class Groups:
    """The control groups of some nodes.

    Args:
        nodes: whose.
        limits: of each.

    Raises:
        SetupError: the machine does not allow it.
    """

    def __init__(self, nodes: Sequence[str], limits: Limits) -> None:
        self._paths: dict[str, list[Path]] = {}
        wanted = {"cpu": limits.cpus is not None, "memory": limits.memory_mb is not None}
        controllers = [name for name, is_wanted in wanted.items() if is_wanted]
        if not controllers:
            return
        try:
            for node in nodes:
                self._paths[node] = [
                    _make(tree, f"{PREFIX}{os.getpid()}-{node}") for tree in _trees(controllers)
                ]
                for path in self._paths[node]:
                    _limit(path, limits)
        except OSError as error:
            self.remove()
            raise SetupError(
                f"limits for nodes: {error.filename}: {error.strerror}; run as root where control groups can be "
                "written, or leave --node-cpus and --node-memory out"
            ) from None

    def command(self, node: str, argv: Sequence[str]) -> list[str]:
        """The command line that enters the group of a node, and then becomes another one."""
        if not self._paths:
            return list(argv)
        entries = "; ".join(f"echo $$ >{path}/cgroup.procs" for path in self._paths[node])
        return ["sh", "-ec", f'{entries}; exec "$@"', "sb-cgroup", *argv]

    def remove(self) -> None:
        """Remove the groups; their processes have ended."""
        for paths in self._paths.values():
            for path in paths:
                _remove(path)
        self._paths.clear()


def _trees(controllers: Sequence[str]) -> list[Path]:
    if not (ROOT / "cgroup.controllers").exists():
        return [ROOT / name for name in controllers]
    handed_down = (ROOT / "cgroup.subtree_control").read_text(encoding="ascii").split()
    for name in controllers:
        if name not in handed_down:
            (ROOT / "cgroup.subtree_control").write_text(f"+{name}", encoding="ascii")
    return [ROOT]


def _make(tree: Path, name: str) -> Path:
    path = tree / name
    path.mkdir()
    return path


def _limit(path: Path, limits: Limits) -> None:
    """Write the limits that this group knows, in the way of its version."""
    values: dict[str, str] = {}
    if limits.cpus is not None:
        quota_us = max(1_000, round(limits.cpus * PERIOD_US))
        values |= {"cpu.max": f"{quota_us} {PERIOD_US}", "cpu.cfs_quota_us": str(quota_us)}
    if limits.memory_mb is not None:
        limit = str(limits.memory_mb << 20)
        values |= {"memory.max": limit, "memory.limit_in_bytes": limit, "memory.swap.max": "0"}
    for name, value in values.items():
        if (path / name).exists():
            (path / name).write_text(value, encoding="ascii")


def _remove(path: Path) -> None:
    """The kernel takes a moment to let go of processes that have ended."""
    deadline = time.monotonic() + REMOVE_TIMEOUT_S
    while path.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            path.rmdir()
            return
        time.sleep(0.01)


def sweep() -> list[str]:
    """Remove groups whose maker is gone and in which nothing runs; says what was removed."""
    found = []
    for path in sorted({*ROOT.glob(f"{PREFIX}[0-9]*-*"), *ROOT.glob(f"*/{PREFIX}[0-9]*-*")}):
        maker = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", maker).exists():
            with contextlib.suppress(OSError):
                path.rmdir()
                found.append(f"removed control group {path}")
    return found
