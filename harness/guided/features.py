"""What a run has reached, as a set of numbers: the same state gives the same number in every run and process.

Theory of operation
    Random runs repeat themselves: most elect a leader, lose it, and elect another. What tells a run apart is in which
    states the nodes were together, and what followed on what. Mallory (Meng and others 2023) feeds that back into the
    choice of faults, and so do we. Features are coarse: were they fine, nearly every run would reach a new one, and
    what is reached would say nothing about where to look. Four kinds, all free of node names, times and terms:

    roles      after each change of a role: how many leaders, how many candidates, how many nodes gone (none, one,
               more), whether somebody leads in an old term, how far the leader of the newest term is behind
    gaps       the widest gap of committed entries between two nodes, by powers of two, with the roles of both
    adjacency  which events of nodes and faults followed on each other; a fault by its name, begun or healed
    counts     how often an event happened in the run, by powers of two

Rules of this module
    1. An observer only looks: what it sees is what happens without it. Who does not ask for features pays nothing.
    2. At most `EVENTS_MAX` events of a run are looked at, and what happens all the time (requests, replies, commits
       that change no gap) costs a comparison.
"""

from __future__ import annotations

import zlib
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from checkers import Op
from harness.clusters.base import Cluster
from harness.clusters.sim import SimCluster
from harness.plan import Plan
from harness.shrink.attempt import Attempt, attempt

EVENTS_MAX = 20_000
IN_A_ROW = 2
MANY = 2
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
        often = Counter(event for _, event in self._events)
        self._found.update(_number("count", event, str(count.bit_length())) for event, count in often.items())
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
            self._found.add(_number("roles", *self._pattern()))
        if event in ADJACENT and len(self._events) < EVENTS_MAX:
            assert self._cluster is not None, "events come from a cluster"
            self._events.append((self._cluster.now_ns(), event))

    def _pattern(self) -> tuple[str, ...]:
        """What matters of the roles, terms and committed entries of all nodes together."""
        nodes = self._nodes.values()
        often = Counter(node.role for node in nodes)
        newest = max(node.term for node in nodes)
        longest = max(node.commit for node in nodes)
        leaders = [node for node in nodes if node.role == "l"]
        old = any(node.term < newest for node in leaders)
        behind = max((longest - node.commit for node in leaders if node.term == newest), default=0)
        numbers = (min(MANY, often[role]) for role in "lcpx")
        return (*map(str, numbers), "old" if old else "", _few(behind))

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
        self._observer.see(self._name, event, fields)


def _commit(node: _Node) -> int:
    return node.commit


def _few(count: int) -> str:
    return "=" if count == 0 else "<" if count < 4 else "-"


def _fault_label(op: Op) -> str:
    """The name of a fault, begun or healed."""
    return op.f


def _number(*words: str) -> int:
    return zlib.crc32("/".join(words).encode())
