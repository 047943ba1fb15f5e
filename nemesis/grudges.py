"""Who does not hear whom: partitions as pure functions of node names.

Rules of this module
    1. A grudge maps a node to the nodes it does NOT hear from: the receiver's side, as in Jepsen. It has a
       direction; `{"n1": ("n2",)}` loses what n2 sends to n1 and nothing else.
    2. No dice: who stands where was drawn before (the order of the names given). Equal arguments give equal
       grudges, and names inside a grudge come in the order of the nodes given, never in hash order.
    3. A node that hears everybody is not in the grudge.

Theory of operation
    Every shape is built from "these hear those" and turned around by `invert`, or from groups between which
    nothing passes. `to_ruleset` turns a grudge into blocked links `(src, dst)`, the words of a `Target`.

>>> complete(bisect(("n1", "n2", "n3")))
{'n1': ('n2', 'n3'), 'n2': ('n1',), 'n3': ('n1',)}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from nemesis.draws import pick
from nemesis.target import Link, LinkRule, Ruleset

Grudge = dict[str, tuple[str, ...]]

RING_ATTEMPTS_MAX = 100
BLOCKED = LinkRule(blocked=True)


def majority(count: int) -> int:
    """The size of the smallest majority of `count` nodes."""
    return count // 2 + 1


def minority_third(count: int) -> int:
    """The largest number strictly below a third of `count`, but at least one."""
    return max(1, -(-count // 3) - 1)


def bisect(nodes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nodes cut in the middle; of an odd number the second part gets one more."""
    half = len(nodes) // 2
    return tuple(nodes[:half]), tuple(nodes[half:])


def complete(groups: Sequence[Sequence[str]]) -> Grudge:
    """No group hears any other."""
    grudge: Grudge = {}
    for here, group in enumerate(groups):
        others = tuple(node for there, other in enumerate(groups) if there != here for node in other)
        grudge.update({node: others for node in group if others})
    return grudge


def isolate(node: str, nodes: Sequence[str]) -> Grudge:
    """One node alone; the others hear each other.

    >>> isolate("n2", ("n1", "n2", "n3"))
    {'n2': ('n1', 'n3'), 'n1': ('n2',), 'n3': ('n2',)}
    """
    return complete(((node,), tuple(other for other in nodes if other != node)))


def one_way(deaf: Sequence[str], mute: Sequence[str]) -> Grudge:
    """The deaf do not hear the mute; every other direction works.

    >>> one_way(("n1",), ("n2", "n3"))
    {'n1': ('n2', 'n3')}
    """
    lost = {node: tuple(other for other in mute if other != node) for node in deaf}
    return {node: others for node, others in lost.items() if others}


def bridge(middle: str, left: Sequence[str], right: Sequence[str]) -> Grudge:
    """Two sides that do not hear each other, and one node in the middle that hears and is heard by all."""
    assert middle not in left, f"the bridge {middle} cannot stand on a side as well"
    assert middle not in right, f"the bridge {middle} cannot stand on a side as well"
    return complete((left, right))


def majorities_ring(nodes: Sequence[str]) -> Grudge:
    """Every node hears a majority, and no two nodes the same one.

    Up to five nodes the ring is perfect: each node hears exactly the smallest majority, made of its
    neighbours in the order given. With three nodes that leaves one direction: each hears the one before it.
    With more than five the connections are drawn, with the order of the names as the seed.
    """
    if len(nodes) <= 5:
        return _perfect_ring(nodes)
    return _stochastic_ring(nodes, Random(" ".join(nodes)))


def invert(hears: Mapping[str, Iterable[str]], nodes: Sequence[str]) -> Grudge:
    """From who hears whom to who does not; a node always hears itself.

    >>> invert({"n1": ["n2"], "n2": ["n1", "n3"], "n3": ["n2"]}, ("n1", "n2", "n3"))
    {'n1': ('n3',), 'n3': ('n1',)}
    """
    heard = {node: frozenset(hears.get(node, ())) | {node} for node in nodes}
    grudge = {node: tuple(other for other in nodes if other not in heard[node]) for node in nodes}
    return {node: others for node, others in grudge.items() if others}


def to_ruleset(grudge: Mapping[str, Sequence[str]]) -> Ruleset:
    """The blocked links of a grudge: what a node does not hear is blocked from there to the node."""
    links: dict[Link, LinkRule] = {(src, dst): BLOCKED for dst, lost in grudge.items() for src in lost}
    return Ruleset(links)


def _perfect_ring(nodes: Sequence[str]) -> Grudge:
    size, count = majority(len(nodes)), len(nodes)
    hears = {
        nodes[(start + size // 2) % count]: [nodes[(start + step) % count] for step in range(size)]
        for start in range(count)
    }
    return invert(hears, nodes)


def _stochastic_ring(nodes: Sequence[str], random: Random) -> Grudge:
    for _ in range(RING_ATTEMPTS_MAX):
        hears = _connect_least_connected(nodes, random)
        if len({frozenset(heard) for heard in hears.values()}) == len(nodes):
            return invert(hears, nodes)
    return invert(_neighbours(nodes, reach=majority(len(nodes)) // 2), nodes)


def _connect_least_connected(nodes: Sequence[str], random: Random) -> dict[str, tuple[str, ...]]:
    """Joins, both ways, a least connected node with a least connected stranger until all have a majority."""
    hears: dict[str, tuple[str, ...]] = {node: (node,) for node in nodes}
    while min(map(len, hears.values())) < majority(len(nodes)):
        one = pick(random, _least_connected(hears, nodes))
        strangers = [node for node in nodes if node not in hears[one]]
        other = pick(random, _least_connected(hears, strangers))
        hears[one] += (other,)
        hears[other] += (one,)
    return hears


def _least_connected(hears: Mapping[str, Sequence[str]], nodes: Sequence[str]) -> list[str]:
    fewest = min(len(hears[node]) for node in nodes)
    return [node for node in nodes if len(hears[node]) == fewest]


def _neighbours(nodes: Sequence[str], reach: int) -> dict[str, tuple[str, ...]]:
    """Each node hears `reach` neighbours on both sides of a circle: never minimal, always distinct."""
    count = len(nodes)
    return {
        node: tuple(nodes[(place + step) % count] for step in range(-reach, reach + 1))
        for place, node in enumerate(nodes)
    }
