"""What a nemesis may do to a cluster: the one protocol between faults and the ways to cause them.

Rules of this module
    1. The network is desired state. `Target.set_network` replaces all rules by the given `Ruleset`; an empty
       one heals everything. Writing the same state twice is the same as writing it once.
    2. `kill`, `start`, `pause` and `resume` are idempotent: killing a dead node does nothing, and neither
       does pausing or resuming one. A paused node can be killed, and what `start` starts is running.
    3. All verbs are coroutines, so that one runner serves the simulator and real clusters alike.
    4. A rule names a direction: `(src, dst)` is traffic from src to dst. Clients are never named by a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

Link = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LinkRule:
    """What is wrong with one direction of one link; the defaults are a healthy link.

    Attributes:
        blocked: nothing passes.
        delay_ms: added to each message, one way.
        jitter_ms: uniform extra delay in [0, jitter_ms]; reorders messages where the transport allows it.
        loss: probability in [0, 1] that a message is lost.
        duplicate: probability in [0, 1] that a message arrives twice.
        reorder: probability in [0, 1] that a message skips the delay and so overtakes those before it.
        corrupt: probability in [0, 1] that a message arrives with a bit flipped; with TCP or UDP their
            checksum turns that into a loss.
        rate_kbit: no more than this passes per second, in kilobits; 0 is no limit.
    """

    blocked: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate_kbit: float = 0.0


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The whole desired state of the network between nodes; a link that is not named is healthy."""

    links: Mapping[Link, LinkRule] = field(default_factory=lambda: MappingProxyType({}))


HEALTHY = Ruleset()


@dataclass(frozen=True, slots=True)
class DiskRule:
    """What is wrong with the disk of a node; the defaults are a healthy one.

    Attributes:
        sync_delay_ms: each fsync takes this much longer.
        sync_error: probability in [0, 1] that an fsync fails (EIO); what it should have synced is not.
        write_error: probability in [0, 1] that a write fails because the disk is full (ENOSPC).
    """

    sync_delay_ms: float = 0.0
    sync_error: float = 0.0
    write_error: float = 0.0


HEALTHY_DISK = DiskRule()


class Target(Protocol):
    """A cluster as the nemesis sees it."""

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes, in a fixed order."""

    async def leader(self) -> str | None:
        """The node that most recently became leader and still thinks it is, where the system can tell."""

    async def set_network(self, rules: Ruleset) -> None:
        """Make the network between the nodes exactly this."""

    async def kill(self, node: str) -> None:
        """Stop the node's process at once (SIGKILL); what it had not synced may be lost."""

    async def start(self, node: str) -> None:
        """Start the node's process again on its disk as the kill left it."""

    async def pause(self, node: str) -> None:
        """Stop the process without telling anyone (SIGSTOP)."""

    async def resume(self, node: str) -> None:
        """Let it run on (SIGCONT)."""


@runtime_checkable
class ClockTarget(Protocol):
    """A cluster that can also shift the wall clocks of its nodes."""

    async def set_clock(self, node: str, offset_ms: float) -> None:
        """Make the node's wall clock this far ahead of the true time, or behind it below zero."""


@runtime_checkable
class DiskTarget(Protocol):
    """A cluster that can also make the disks of its nodes slow, failing or full."""

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""
