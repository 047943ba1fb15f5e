"""A ruleset as input for `tc`, for the node that sends.

Rules of this module
    1. Pure: text out of values. Who runs it, and where, is the business of `nemesis.network`.
    2. Only traffic to the addresses of peers is touched. All else, clients and whoever controls the node,
       takes the direct path of the root queue and is never shaped.
    3. The state of a device is written whole. The tree of classes is the same for every ruleset of a
       cluster; only the leaves and rates differ, and they are replaced in place. So a change of one link does
       not open another one, not even for a moment, and writing a state twice is the same as once.
    4. Only our own root queue is ever removed: it carries the handle `5b:`.

Theory of operation
    The root is an htb queue without a default class. Each peer has a class, `5b:10` and up in the order of
    the peers, a u32 filter on its address, and below the class a leaf that says what is wrong:

        healthy              pfifo
        blocked              blackhole: drops, and the sender is not told
        anything else        netem, where the kernel has it

    A limited rate is the rate of the class, so it needs no netem. The jitter of a `LinkRule` is a uniform
    extra in [0, jitter]; netem takes a mean and a deviation to both sides, hence the halves.

>>> rules = Ruleset({("n1", "n2"): LinkRule(blocked=True), ("n1", "n3"): LinkRule(delay_ms=50)})
>>> print(leaves(rules, "n1", {"n2": "10.0.0.2", "n3": "10.0.0.3"}, "eth0"), end="")
class replace dev eth0 parent 5b: classid 5b:10 htb rate 10gbit quantum 60000
qdisc replace dev eth0 parent 5b:10 blackhole
class replace dev eth0 parent 5b: classid 5b:11 htb rate 10gbit quantum 60000
qdisc replace dev eth0 parent 5b:11 netem limit 100000 delay 50ms 0ms
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from nemesis.jitter import netem_loss, plain
from nemesis.target import LinkRule, Ruleset

HANDLE = "5b:"
SICK_LEAVES = ("blackhole", "netem")
SHAPES_THAT_BITE = ("delay_ms", "jitter_ms", "loss", "duplicate", "reorder", "corrupt")
FIRST_CLASS = 0x10
RATE_UNLIMITED = "10gbit"
RATE_UNLIMITED_KBIT = 10_000_000
RATE_BIT_MIN = 8  # htb counts bytes; a rate below one is refused
# netem drops what it cannot hold; at 300 ms and 300 MB/s of full frames this many are under way.
NETEM_LIMIT_PACKETS = 100_000

Peers = Mapping[str, str]
"""Address of each node that the rules may name; the node itself may be among them."""


def needs_netem(rule: LinkRule) -> bool:
    """Whether the rule asks for more than blocking and a rate."""
    return not rule.blocked and any(getattr(rule, name) for name in SHAPES_THAT_BITE)


def skeleton(node: str, peers: Peers, device: str) -> str:
    """The batch that sets up root, classes and filters on a device without our root queue; all is healthy."""
    lines = [f"qdisc add dev {device} root handle {HANDLE} htb default 0"]
    for classid, _, address in _classes(node, peers):
        lines += [
            f"class add dev {device} parent {HANDLE} classid {classid} {_class_options(LinkRule())}",
            f"filter add dev {device} parent {HANDLE} {_match(address)} flowid {classid}",
        ]
    return "".join(f"{line}\n" for line in lines)


def leaves(rules: Ruleset, node: str, peers: Peers, device: str) -> str:
    """The batch that brings a device with the skeleton to exactly these rules."""
    lines: list[str] = []
    for classid, peer, _ in _classes(node, peers):
        rule = rules.links.get((node, peer), LinkRule())
        lines += [
            f"class replace dev {device} parent {HANDLE} classid {classid} {_class_options(rule)}",
            f"qdisc replace dev {device} parent {classid} {_leaf_options(rule)}",
        ]
    return "".join(f"{line}\n" for line in lines)


def script(rules: Ruleset, node: str, peers: Peers, device: str) -> str:
    """A shell script that brings a device in any state to exactly these rules, or fails with what tc said."""
    return (
        "set -e\n"
        f"tc qdisc show dev {device} root | grep -q 'qdisc htb {HANDLE} root' || tc -batch - <<'END'\n"
        f"{skeleton(node, peers, device)}END\n"
        f"tc -batch - <<'END'\n{leaves(rules, node, peers, device)}END\n"
    )


def change_script(rules: Ruleset, node: str, peers: Peers, device: str) -> str:
    """The same for a device that has the skeleton, which costs a third; if it has lost it, it gets it again."""
    return (
        f"tc -batch - 2>/dev/null <<'END' && exit\n{leaves(rules, node, peers, device)}END\n"
        f"{script(rules, node, peers, device)}"
    )


def is_sick(rules: Ruleset, node: str) -> bool:
    """Whether something is wrong with what this node sends."""
    return any(
        src == node and (rule.blocked or needs_netem(rule) or rule.rate_kbit > 0)
        for (src, _), rule in rules.links.items()
    )


def rated(rules: Ruleset, node: str) -> frozenset[str]:
    """The peers to whom nothing but a rate is wrong: their leaves are those of healthy ones, and go on counting."""
    return frozenset(
        dst
        for (src, dst), rule in rules.links.items()
        if src == node and rule.rate_kbit and not (rule.blocked or needs_netem(rule))
    )


def heal_script(device: str) -> str:
    """A shell script that removes our root queue where it is, and does nothing where it is not."""
    return (
        f"if tc qdisc show dev {device} root | grep -q 'qdisc htb {HANDLE} root'; then\n"
        f"  tc qdisc del dev {device} root\n"
        "fi\n"
    )


class Leaf(NamedTuple):
    """How many packets a leaf has met since it is; another handle is another leaf, which began at nothing."""

    handle: str
    packets: int


def met(said: str, node: str, peers: Peers, rated_peers: frozenset[str]) -> dict[str, Leaf]:
    """What each leaf that is sick, or has a rate, has met of what goes to a peer, from `tc -s -j qdisc show`.

    >>> said = '[{"kind": "blackhole", "handle": "8:", "parent": "5b:10", "packets": 0, "drops": 7}]'
    >>> met(said, "a", {"a": "", "b": ""}, frozenset())
    {'b': Leaf(handle='8:', packets=7)}
    """
    peer_of = {classid: peer for classid, peer, _ in _classes(node, peers)}
    counts: dict[str, Leaf] = {}
    for qdisc in msgspec.json.decode(said, type=list[_Counted]):
        peer = peer_of.get(qdisc.parent)
        if peer is not None and (qdisc.kind in SICK_LEAVES or peer in rated_peers):
            counts[peer] = Leaf(qdisc.handle, qdisc.packets + qdisc.drops)
    return counts


class _Counted(msgspec.Struct):
    """What `tc -s -j` says of one qdisc, as far as it matters here."""

    kind: str
    handle: str = ""
    parent: str = ""
    packets: int = 0
    drops: int = 0


def _classes(node: str, peers: Peers) -> Iterator[tuple[str, str, str]]:
    """Class, name and address of every peer but the node itself. tc reads class numbers as hexadecimal."""
    others = [(peer, address) for peer, address in peers.items() if peer != node]
    for number, (peer, address) in enumerate(others, FIRST_CLASS):
        yield f"{HANDLE}{number:x}", peer, address


def _match(address: str) -> str:
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        return f"protocol ipv6 prio 2 u32 match ip6 dst {ip}/128"
    return f"protocol ip prio 1 u32 match ip dst {ip}/32"


def _class_options(rule: LinkRule) -> str:
    is_limit = 0 < rule.rate_kbit < RATE_UNLIMITED_KBIT
    rate = f"{max(RATE_BIT_MIN, round(rule.rate_kbit * 1000))}bit" if is_limit else RATE_UNLIMITED
    return f"htb rate {rate} quantum 60000"


def _leaf_options(rule: LinkRule) -> str:
    if rule.blocked:
        return "blackhole"
    if not needs_netem(rule):
        return "pfifo limit 10000"
    words = [f"netem limit {NETEM_LIMIT_PACKETS} delay {_delay_options(rule)}"]
    if rule.loss:
        words.append(f"loss {netem_loss(rule)}")
    chances = ((name, getattr(rule, name)) for name in ("duplicate", "reorder", "corrupt"))
    words += [f"{name} {plain(chance * 100)}%" for name, chance in chances if chance]
    return " ".join(words)


def _delay_options(rule: LinkRule) -> str:
    is_uniform = rule.distribution == "uniform"
    mean_ms, deviation_ms = rule.delay_ms + rule.jitter_ms / 2, rule.jitter_ms / (2 if is_uniform else 4)
    shape = f" distribution {rule.distribution}" if not is_uniform and rule.jitter_ms else ""
    return f"{plain(mean_ms)}ms {plain(deviation_ms)}ms{shape}"
