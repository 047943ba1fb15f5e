"""What a machine can do to the network of its nodes, and which means a run uses.

Rules of this module
    1. Nothing is assumed: a script tries each means on an interface of its own, where the node is, and says
       what happened. It leaves nothing behind.
    2. The choice is a value, and goes into the record of the run.
    3. A fault for which there is no means is refused before the run starts, with the reason the kernel gave.
       A fault that would quietly do nothing is worse than none.

Theory of operation
        what                                               first choice         else
        blocked                                            tc: htb, blackhole   iptables DROP (nfqueue)
        rate                                               tc: htb
        delay, jitter, loss, duplicate, reorder, corrupt   tc: netem            nfqueue
        reset, delays that are correlated                  nfqueue
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import msgspec

from nemesis import abilities
from nemesis.effects import resolve
from nemesis.faults import Fault, FaultError, name_of
from nemesis.target import Link, LinkRule, Ruleset

Means = Literal["tc", "netem", "nfqueue", "iptables"]
NETWORK_FIELDS = abilities.NETWORK
PROBES = ("htb", "u32", "blackhole", "netem", "iptables", "nfqueue", "daemon")

_PROBE_SCRIPT = """
PATH=$PATH:/usr/sbin:/sbin
try() {{
  name=$1; shift
  if said=$("$@" 2>&1); then echo "$name yes"
  else echo "$name no $(printf %s "$said" | tr '\\n' ' ' | cut -c 1-200)"; fi
}}
clean() {{
  ip link del sb-probe
  iptables -w -t mangle -F SB-PROBE
  iptables -w -t mangle -X SB-PROBE
}}
quietly() {{ "$@" >/dev/null 2>&1; }}
quietly clean  # an earlier probe may have been killed in the middle
quietly ip link add sb-probe type veth peer name sb-probe-2 || quietly ip link add sb-probe type dummy
try htb tc qdisc add dev sb-probe root handle 5b: htb
quietly tc class add dev sb-probe parent 5b: classid 5b:10 htb rate 1gbit
try u32 tc filter add dev sb-probe parent 5b: protocol ip prio 1 u32 match ip dst 192.0.2.1/32 flowid 5b:10
try blackhole tc qdisc replace dev sb-probe parent 5b:10 blackhole
try netem tc qdisc replace dev sb-probe parent 5b:10 netem delay 1ms
try iptables iptables -w -t mangle -N SB-PROBE
try nfqueue iptables -w -t mangle -A SB-PROBE -j NFQUEUE --queue-num 23295 --queue-bypass
try daemon {python} -m nemesis.nfqueue --check
quietly clean
exit 0
"""


class Abilities(msgspec.Struct, frozen=True):
    """What was tried: None where it works, else the reason why not."""

    refusals: Mapping[str, str | None]

    def can(self, *names: str) -> bool:
        """Whether all of these work."""
        return all(self.refusals.get(name, "not tried") is None for name in names)

    def why_not(self, *names: str) -> str:
        """The reasons of those that do not."""
        return "; ".join(
            f"{name}: {self.refusals.get(name, 'not tried')}" for name in names if not self.can(name)
        )


class Backend(msgspec.Struct, frozen=True):
    """The means of a run, by what they do; None where there is none, and then why.

    Attributes:
        blocked: what blocks links.
        rate: what limits rates.
        shapes: what does delay, jitter, loss, duplicates, reordering and corruption.
        resets: what breaks connections, and correlates delays: netem has a word for that, and does not do it, for it
            takes a correlated number modulo the size of its table.
        reasons: for what is None: why.
    """

    blocked: Means | None
    rate: Means | None
    shapes: Means | None
    reasons: Mapping[str, str]
    resets: Means | None = None

    def means(self, name: str) -> Means | None:
        """What does this field of a `LinkRule`."""
        others = {
            "blocked": self.blocked,
            "rate_kbit": self.rate,
            "reset": self.resets,
            "delay_correlation": self.resets,
        }
        return others.get(name, self.shapes)

    def reason(self, name: str) -> str:
        """Why nothing does it."""
        others = {"blocked": "blocked", "rate_kbit": "rate", "reset": "resets", "delay_correlation": "resets"}
        return self.reasons.get(others.get(name, "shapes"), "")


def probe_script(python: str = "python3") -> str:
    """The shell script to run on a node, in its namespace, with the right to change its network."""
    return _PROBE_SCRIPT.format(python=python)


def parse(said: str) -> Abilities:
    r"""What the probe script printed.

    >>> parse("htb yes\nnetem no Error: Specified qdisc kind is unknown.").refusals["netem"]
    'Error: Specified qdisc kind is unknown.'
    """
    refusals: dict[str, str | None] = dict.fromkeys(PROBES, "not tried")
    for line in said.splitlines():
        name, answer, *reason = [*line.split(" ", 2), ""]
        if name in refusals:
            refusals[name] = None if answer == "yes" else reason[0].strip() or "refused"
    return Abilities(refusals)


def choose(abilities: Abilities) -> Backend:
    r"""The best means for each thing.

    >>> choose(parse("htb yes\nu32 yes\nblackhole yes\nnetem yes")).shapes
    'netem'
    """
    has_tree, has_queue = abilities.can("htb", "u32"), abilities.can("iptables", "nfqueue", "daemon")
    blocked: Means | None = None
    if has_tree and abilities.can("blackhole"):
        blocked = "tc"
    elif has_queue:
        blocked = "iptables"
    shapes: Means | None = None
    if has_tree and abilities.can("netem"):
        shapes = "netem"
    elif has_queue:
        shapes = "nfqueue"
    resets: Means | None = "nfqueue" if has_queue else None
    reasons = {
        "blocked": "" if blocked else abilities.why_not("htb", "u32", "blackhole", "iptables", "daemon"),
        "rate": "" if has_tree else abilities.why_not("htb", "u32"),
        "resets": "" if has_queue else abilities.why_not("iptables", "nfqueue", "daemon"),
        "shapes": "" if shapes else abilities.why_not("netem", "htb", "u32", "iptables", "nfqueue", "daemon"),
    }
    return Backend(
        blocked, "tc" if has_tree else None, shapes, {k: v for k, v in reasons.items() if v}, resets
    )


def needs(fault: Fault, nodes: Sequence[str]) -> tuple[str, ...]:
    """What a cluster must do for this fault: names of `nemesis.abilities`.

    >>> from nemesis.faults import Latency
    >>> needs(Latency(aim="one", nodes=("n1",), delay_ms=5), ("n1", "n2"))
    ('delay_ms',)
    """
    effect = resolve(fault, nodes)
    wanted = abilities.of_links(effect.rules.links.values())
    kills = effect.killed or effect.dies_at_end or effect.wiped
    changes = effect.removed or effect.transfer_to
    wanted += ("kill",) * bool(kills) + ("pause",) * bool(effect.paused) + ("slow",) * bool(effect.slowed)
    wanted += tuple(dict.fromkeys(f"crash-{point}" for point in effect.crash_points.values()))
    wanted += abilities.of_clocks(effect.clocks.values()) + abilities.of_disks(effect.disks.values())
    wanted += abilities.of_damages(effect.damages.values())
    return wanted + ("membership",) * bool(changes) + ("wipe",) * bool(effect.wiped)


def check_supported(
    faults: Iterable[Fault], nodes: Sequence[str], supported: Container[str], reasons: Mapping[str, str]
) -> None:
    """Refuses faults that a cluster cannot do, before the run; `reasons` may say why not."""
    for fault in faults:
        for name in needs(fault, nodes):
            if name not in supported:
                reason = f" ({reasons[name]})" if reasons.get(name) else ""
                raise FaultError(
                    f"fault {name_of(fault)!r} needs {name!r}, which this cluster cannot do{reason}; "
                    "leave the fault out or take another cluster"
                )


def check_faults(
    faults: Iterable[Fault],
    nodes: Sequence[str],
    backend: Backend,
    others: Collection[str],
    reasons: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuses faults that neither the backend has means for nor the cluster, which can do the `others`."""
    supported = [name for name in NETWORK_FIELDS if backend.means(name)]
    why = {name: backend.reason(name) for name in NETWORK_FIELDS} | dict(reasons)
    check_supported(faults, nodes, (*supported, *others), why)


def only(rules: Ruleset, names_of: Callable[[Link], Iterable[str]]) -> Ruleset:
    """The ruleset reduced to some fields of each link; links that become healthy are left out."""
    kept = {
        link: LinkRule(**{name: getattr(rule, name) for name in names_of(link)})
        for link, rule in rules.links.items()
    }
    return Ruleset({link: rule for link, rule in kept.items() if rule != LinkRule()})
