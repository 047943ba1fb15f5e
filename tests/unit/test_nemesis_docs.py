"""docs/nemesis.md says what the code does: every kind, on every cluster, by which means."""

import itertools
import re
from pathlib import Path
from random import Random
from typing import get_args

from harness.clusters.abilities import OF_CLUSTER
from nemesis import abilities
from nemesis.backend import needs
from nemesis.fault_base import Aim
from nemesis.faults import GROUP_TOPOLOGIES, Topology
from nemesis.kinds import FAULTS
from nemesis.target import EventKind

PAGE = Path(__file__).parents[2] / "docs" / "nemesis.md"
NODES = ("n1", "n2", "n3", "n4", "n5")
MEANS = {
    "blocked": "tc or iptables",
    "rate_kbit": "tc",
    "reset": "queue",
    "delay_correlation": "queue",
} | dict.fromkeys(set(abilities.SHAPES) - {"delay_correlation"}, "netem or queue")


def row(name):
    """Name, whether the reference system must survive it, and the means on each cluster."""
    one = FAULTS[name]
    drawn = itertools.islice(one.draw(NODES, Random(1)), 24)
    needed = sorted({need for fault in drawn for need in needs(fault, NODES)})
    cells = []
    for cluster, can in OF_CLUSTER.items():
        means = [can.get(need) if cluster == "sim" else can.get(need) or MEANS.get(need) for need in needed]
        cells.append("-" if None in means else ", ".join(dict.fromkeys(means)))
    return f"| `{name}` | {one.category} | {'yes' if one.survivable else 'no'} | {' | '.join(cells)} |"


def test_the_table_is_that_of_the_code():
    page = PAGE.read_text()
    wanted = [row(name) for name in FAULTS]
    missing = [line for line in wanted if line not in page]
    assert missing == [], "\n" + "\n".join(wanted)


def test_every_kind_is_told_and_nothing_else():
    """The first table, that of what happens, in the order of `--help`."""
    told = PAGE.read_text().partition("## Choosing")[2].partition("Kinds overlap")[0]
    assert re.findall(r"^\| `([a-z-]+)` \| [^|]+ \|$", told, re.MULTILINE) == list(FAULTS)


def test_what_a_plan_by_hand_may_say_is_told():
    """Topologies, those with a direction, aims, and what sets a reactive fault off."""
    page = PAGE.read_text()
    topologies = page.partition("| topology |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([a-z-]+)`", topologies)) == sorted(get_args(Topology))
    one_way = page.partition("## Partitions")[2].partition("may pass one")[0].rpartition("\n\n")[2]
    assert re.findall(r"`([a-z-]+)`", one_way) == list(GROUP_TOPOLOGIES)
    aims = page.partition("says how they were drawn:")[2].partition("Only who leads")[0]
    assert re.findall(r"`([a-z-]+)`", aims) == list(get_args(Aim))
    moments = page.partition("`on` is one of")[2].partition("In the simulator")[0]
    assert re.findall(r"`([a-z-]+)`", moments) == list(get_args(EventKind))
