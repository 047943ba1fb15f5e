"""What a run has reached, as a set of numbers: the same state gives the same number in every run and process.

Theory of operation
    Random runs repeat themselves: most elect a leader, lose it, and elect another. What tells a run apart is in which
    states the nodes were together, and what followed on what. Mallory (Meng and others 2023) feeds that back into the
    choice of faults, and so do we. Three kinds of features, all free of node names, times and counts:

    roles      after each change of a role: for every node its role, by how many terms it is behind the newest, and
               how far its committed entries are behind the longest (none, a few, many), as a sorted bag
    gaps       the widest gap of committed entries between two nodes, by powers of two, with the roles of both
    adjacency  which events of nodes and faults followed on each other; a fault by its name and aim

Rules of this module
    1. An observer only looks: what it sees is what happens without it. Who does not ask for features pays nothing.
    2. At most `EVENTS_MAX` events of a run are looked at, and what happens all the time (requests, replies, commits
       that change no gap) costs a comparison.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from checkers import Op
from harness.clusters.base import Cluster
from harness.clusters.sim import SimCluster
from harness.plan import Plan
from harness.shrink.attempt import Attempt, attempt

EVENTS_MAX = 20_000
IN_A_ROW = 2
TERMS_SHOWN = 3
ROLES = {"follower": "f", "pre-candidate": "p", "candidate": "c", "leader": "l", "started": "f"}
GONE = {"killed": "x", "crashed": "x", "stopped": "x"}
ADJACENT = frozenset(
    (
        "candidate", "leader", "truncated", "started", "snapshot", "receiving", "restored", "crashed", "stopped",
        "configured",
    )
)  # fmt: skip


def run_with_features(plan: Plan) -> tuple[Attempt, tuple[int, ...]]:
    """Run the plan in memory; what became of it, and what it has reached."""
    observer = Observer()
    run = attempt(plan, prepare=observer.attach)
    return run, observer.features(run.ops)


class _Node:
    """What an observer knows of a node."""

    __slots__ = ("commit", "role", "term")

    def __init__(self) -> None:
        self.role = "f"
        self.term = 0
        self.commit = 0


class Observer:
    """Looks at a simulated cluster while it runs."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._found: set[int] = set()
        self._events: list[tuple[int, str]] = []
        self._cluster: SimCluster | None = None
        self._gap = 0

    def attach(self, cluster: Cluster) -> None:
        """Before the run: look at all nodes of the cluster."""
        if isinstance(cluster, SimCluster):
            self._cluster = cluster
            for name, host in cluster.hosts.items():
                self._nodes[name] = _Node()
                host.observer = _Eye(self, name)

    def features(self, ops: Sequence[Op]) -> tuple[int, ...]:
        """After the run, with its history: everything that it has reached, in order."""
        faults = [
            (op.time_ns, _fault_label(op))
            for op in ops
            if op.process == "nemesis" and "event" in (op.value or ())
        ]
        last: deque[str] = deque(maxlen=IN_A_ROW)
        for _, what in sorted((*self._events, *faults), key=lambda event: event[0]):
            last.append(what)
            self._found.add(_number("adjacent", *last))
        return tuple(sorted(self._found))

    def see(self, name: str, event: str, fields: dict[str, Any]) -> None:
        """Something happened at a node."""
        node = self._nodes[name]
        if event == "committed":
            node.commit = fields["last"]
            self._look_at_gap()
            return
        role = ROLES.get(event) or GONE.get(event)
        if role is not None:
            node.role = role
            node.term = fields.get("term", node.term)
            self._found.add(_number("roles", *self._bag()))
        if event in ADJACENT and len(self._events) < EVENTS_MAX:
            assert self._cluster is not None, "events come from a cluster"
            self._events.append((self._cluster.now_ns(), event))

    def _bag(self) -> list[str]:
        newest = max(node.term for node in self._nodes.values())
        longest = max(node.commit for node in self._nodes.values())
        return sorted(
            f"{node.role}{min(TERMS_SHOWN, newest - node.term)}{_few(longest - node.commit)}"
            for node in self._nodes.values()
        )

    def _look_at_gap(self) -> None:
        nodes = self._nodes.values()
        ahead, behind = max(nodes, key=_commit), min(nodes, key=_commit)
        gap = (ahead.commit - behind.commit).bit_length()
        if gap != self._gap:
            self._gap = gap
            self._found.add(_number("gap", str(gap), ahead.role, behind.role))


class _Eye:
    """Looks at one node."""

    __slots__ = ("_name", "_observer")

    def __init__(self, observer: Observer, name: str) -> None:
        self._observer = observer
        self._name = name

    def __call__(self, event: str, **fields: Any) -> None:
        if event not in ("request", "reply"):
            self._observer.see(self._name, event, fields)


def _commit(node: _Node) -> int:
    return node.commit


def _few(count: int) -> str:
    return "=" if count == 0 else "<" if count < 4 else "-"


def _fault_label(op: Op) -> str:
    """The name of a fault and what the first word of its description says about its aim, begun or healed."""
    words = str(op.value.get("description", "")).split(":")[0].split()
    return f"{op.f} {' '.join(words[:3])}"


def _number(*words: str) -> int:
    return zlib.crc32("/".join(words).encode())
