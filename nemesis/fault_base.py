"""What all faults share: frozen, tagged values that refuse what makes no sense.

Rules of this module
    1. A fault checks itself when it is made, so that one that is read from a plan edited by hand is refused with a
       sentence that names the thing, the value and the remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

Aim = Literal[
    "named", "one", "minority-third", "minority", "majority", "all", "leader", "primaries", "trigger"
]


DAY_MS = 86_400_000
CENTURY_MS = 36_525 * DAY_MS


class FaultError(ValueError):
    """A fault that makes no sense, or not on this cluster; the message names thing, value and remedy."""


class AnyFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all faults share: frozen, tagged, strict about fields nobody knows."""


class Aimed(AnyFault, frozen=True, kw_only=True):
    """A fault that hits nodes.

    Attributes:
        aim: how the nodes were drawn. `leader` puts the leader of the moment in the place of the first,
            `trigger` the node that set the fault off, and `primaries` takes all nodes that think they lead.
        nodes: the names of all that are hit.
    """

    aim: Aim
    nodes: tuple[str, ...]

    def __post_init__(self) -> None:
        require_nodes(name_of(self), self.nodes)


def name_of(fault: Any) -> str:
    """The name of a fault as it stands in its JSON."""
    return str(fault.__struct_config__.tag)


def check_names(what: str, names: Iterable[str], cluster: Sequence[str]) -> None:
    """Refuses names of nodes the cluster does not have."""
    for name in names:
        if name not in cluster:
            raise FaultError(
                f"{what} names node {name!r}, which the cluster does not have; "
                f"its nodes are {', '.join(cluster)}"
            )


def require_nodes(what: str, nodes: Sequence[str]) -> None:
    """Refuses no node at all, and the same one twice."""
    if not nodes:
        raise FaultError(f"{what} names no node; list at least one in 'nodes'")
    if len(frozenset(nodes)) != len(nodes):
        raise FaultError(f"{what} names a node twice: {', '.join(nodes)}; list each once")


def require_not_negative(what: str, name: str, value: float) -> None:
    """Refuses what is no length of time, or longer than any run."""
    if not 0 <= value <= DAY_MS:
        raise FaultError(
            f"{what}: {name} is {value:g}; it must be a number of milliseconds, from 0 to {DAY_MS}, a day"
        )


def require_above_zero(what: str, name: str, value: float) -> None:
    """Refuses zero, what is below it, and what is no number."""
    if not 0 < value < float("inf"):
        raise FaultError(f"{what}: {name} is {value:g}; it must be a number above 0")


def require_probability(what: str, value: float, name: str = "probability") -> None:
    """Refuses what is no probability."""
    if not 0 <= value <= 1:
        raise FaultError(f"{what}: {name} is {value:g}; it must lie between 0 and 1")


def require_number(what: str, name: str, value: float) -> None:
    """Refuses what is no number, or more than a clock can be off by: nanoseconds are 64 bits."""
    if not abs(value) <= CENTURY_MS:
        raise FaultError(
            f"{what}: {name} is {value:g}; it must be a number of milliseconds, either way at most {CENTURY_MS}, "
            "a century"
        )
