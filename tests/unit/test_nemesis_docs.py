"""docs/nemesis.md says what the code does: every kind, on every cluster, by which means."""

import itertools
from pathlib import Path
from random import Random

from harness.clusters.abilities import OF_CLUSTER
from nemesis import abilities
from nemesis.backend import needs
from nemesis.kinds import FAULTS

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
