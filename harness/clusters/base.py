"""What every kind of cluster offers to the runner: the nemesis' `Target`, a way to talk to nodes, and a clock.

Rules of this module
    1. `now_ns` is one monotonic clock for the whole run; it is 0 when the cluster is opened.
    2. `close` ends everything that the cluster started, on every way out.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from harness.systems.base import CommittedRequests
from harness.transport import Transport
from nemesis.target import Target

T = TypeVar("T")

LOAD_BALANCER = "lb"  # what clients call what stands in front of the nodes, where there is one


class Cluster(Target, Protocol):
    """A running cluster of the system under test."""

    kind: str

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run the harness' coroutine on this cluster's event loop, from opening to closing."""

    async def open(self) -> None:
        """Start all nodes and wait until they are ready."""

    async def close(self) -> None:
        """End everything that was started."""

    def transport(self) -> Transport:
        """A way to reach the nodes."""

    def now_ns(self) -> int:
        """Nanoseconds since the cluster was opened."""

    def interrupt(self) -> None:
        """Make `run` end with `Interrupted` soon; safe in a signal handler."""

    def deaths(self) -> list[str]:
        """Nodes that died although nobody killed them, each with its last words."""

    def violations(self) -> Sequence[str] | None:
        """Invariants of the system that its nodes were seen to break; None where nobody can look at them."""

    def facts(self) -> dict[str, Any]:
        """What is worth storing with the results: counts of messages, the backend that was used."""


@runtime_checkable
class Insight(Protocol):
    """A cluster that sees its nodes break an invariant at the very moment."""

    def violated_ns(self) -> int | None:
        """When the first one was broken, on the run's clock; None where none was."""

    def end_when_violated(self) -> None:
        """From now on that ends the run at once."""


@runtime_checkable
class LogExporter(Protocol):
    """A cluster that can tell what is in the system's committed log."""

    async def committed(self, leader: str | None) -> CommittedRequests | str:
        """All requests that are, where `leader` leads; or a sentence why that is not known for certain."""
