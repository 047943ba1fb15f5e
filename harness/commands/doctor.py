"""`splitbrain doctor`: what this machine can do for each kind of cluster, and what helps where it cannot.

Nothing is assumed: each means is tried, in namespaces of our own that are gone afterwards. `--heal` removes what a
splitbrain that was killed has left: processes that carry its label and whose owner is gone, and its directories.

The exit code answers a question: with `--cluster`, whether that kind can be had here, and with `--fault`, whether that
fault can be had on it (on each of those named, or on all). Without a question it is 0.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec
from rich.console import Console
from rich.table import Table

from harness import clusters, machine
from harness.clusters import CLUSTERS, abilities, cgroups, docker, docker_box, local, scratch, shims, ssh
from harness.errors import EXIT_INTERNAL, EXIT_VALID, ConfigError, SetupError
from nemesis import backend as backends
from nemesis import netns, shim
from nemesis.backend import NETWORK_FIELDS, Abilities
from nemesis.kinds import FAULTS

NAME = "doctor"
HELP = "say what this machine can do for each kind of cluster; remove what a killed run has left"

NODES = ("n1", "n2", "n3", "n4", "n5")
FAULTS_DRAWN = 24  # enough for every variant of a kind to come up

REMEDIES = (
    ("not found", "apt-get install iproute2 iptables (Debian, Ubuntu)"),
    ("qdisc kind is unknown", "load the module or take a kernel that has it: modprobe sch_netem sch_htb"),
    ("ermission", "run as root, or where user namespaces are allowed"),
    ("permitted", "run as root, or where user namespaces are allowed"),
)


class FaultReport(msgspec.Struct, frozen=True):
    """Whether a kind of fault can be had, by what means, and if not why."""

    can: bool
    by: str
    reason: str = ""
    remedy: str = ""


class ClusterReport(msgspec.Struct, frozen=True):
    """Whether a kind of cluster can be had, and its faults."""

    can: bool
    reason: str
    faults: dict[str, FaultReport]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add = parser.add_argument
    add("--json", action="store_true", help="one JSON object on standard output")
    add("--heal", action="store_true", help="remove what a killed splitbrain has left, and only that")
    add(
        "--cluster", action="append", metavar="KIND", dest="clusters",
        help=f"leave with {EXIT_INTERNAL} unless this kind can be had, repeatable: {', '.join(CLUSTERS)}",
    )  # fmt: skip
    add(
        "--fault", action="append", metavar="NAME", dest="faults",
        help=f"leave with {EXIT_INTERNAL} unless this kind of fault can be had there, repeatable",
    )  # fmt: skip
    add(
        "--node",
        action="append",
        metavar="[USER@]HOST[:PORT]",
        dest="hosts",
        help=f"look at this host too, by ssh, and leave with {EXIT_INTERNAL} unless it can be used, repeatable",
    )
    add(
        "--ssh-key",
        metavar="FILE",
        help="the private key for --node (default: the agent's and the usual ones)",
    )
    add("--ssh-known-hosts", metavar="FILE", help="host keys, beside those of ~/.ssh/known_hosts")


def main(args: argparse.Namespace) -> int:
    """Examine, heal if asked to, tell, answer."""
    wanted = _wanted(args)
    healed = heal() if args.heal else None
    reports = examine(args)
    facts = machine.facts()
    if args.json:
        value = {"machine": msgspec.to_builtins(facts), "clusters": msgspec.to_builtins(reports)}
        sys.stdout.write(json.dumps(value | ({} if healed is None else {"healed": healed})) + "\n")
    else:
        tell(Console(), facts, reports, healed)
    needed = reports if args.clusters or args.faults else ["ssh"] if args.hosts else []
    return EXIT_VALID if all(_answers(reports[name], wanted) for name in needed) else EXIT_INTERNAL


def _wanted(args: argparse.Namespace) -> list[str]:
    for name in args.clusters or ():
        clusters.require(name)
        if name == "ssh" and not args.hosts:
            raise ConfigError("cluster 'ssh' is a matter of its hosts; give each with --node user@host")
    for name in args.faults or ():
        if name not in FAULTS:
            raise ConfigError(f"unknown kind of fault {name!r}; known: {', '.join(FAULTS)}")
    return list(args.faults or ())


def _answers(report: ClusterReport, faults: Sequence[str]) -> bool:
    return report.can and all(report.faults[name].can for name in faults)


def tell(
    console: Console,
    facts: Mapping[str, machine.Fact],
    reports: Mapping[str, ClusterReport],
    healed: Sequence[str] | None,
) -> None:
    """Everything for people: the table first, then what is missing, each with what helps."""

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    for name, fact in facts.items():
        say(f"{name:<16}  {fact.value}" + (f"; {fact.remedy}" if fact.remedy else ""))
    say("")
    console.print(table(reports))
    for name, report in reports.items():
        if not report.can:
            say(f"{name}: {report.reason}")
            continue
        # One line for all kinds of fault that lack the same.
        lacking: dict[str, list[str]] = {}
        for fault, found in report.faults.items():
            if not found.can:
                lacking.setdefault(found.reason + (f"; {found.remedy}" if found.remedy else ""), []).append(
                    fault
                )
        for reason, kinds in lacking.items():
            say(f"{name}: {', '.join(kinds)}: {reason}")
    if healed is not None:
        for line in healed or ["nothing was left behind by earlier runs"]:
            say(line)


def heal() -> list[str]:
    """Remove leftovers; returns what was found, as sentences."""
    return netns.sweep() + scratch.sweep() + cgroups.sweep() + docker_box.sweep()


def examine(args: argparse.Namespace) -> dict[str, ClusterReport]:
    """Every kind of cluster; hosts only where some are named."""
    asked = [*(args.clusters or CLUSTERS), *(["ssh"] if args.hosts else [])]
    looks: dict[str, Callable[[], ClusterReport]] = {
        "sim": lambda: ClusterReport(True, "", {name: FaultReport(True, "simulation") for name in FAULTS}),
        "local": examine_local,
        "docker": examine_docker,
    }
    if args.hosts:
        looks["ssh"] = lambda: examine_hosts(tuple(args.hosts), args.ssh_key, args.ssh_known_hosts)
    return {name: look() for name, look in looks.items() if name in asked}


def examine_local() -> ClusterReport:
    """Namespaces, the means in them, and the compiler."""
    try:
        found = local.probe()
    except SetupError as error:
        return ClusterReport(False, str(error), {})
    refusals = by_ability(_shim_refusals())
    reports = {name: fault_report(name, found, abilities.LOCAL, refusals) for name in FAULTS}
    return ClusterReport(True, "", reports)


def examine_docker() -> ClusterReport:
    """The engine, the image, and the means in a container."""
    try:
        found = docker.probe()
    except SetupError as error:
        return ClusterReport(False, str(error), {})
    there = docker.libraries()
    refusals = by_ability({kind: docker.NO_SHIM for kind in shims.KINDS if kind not in there})
    reports = {name: fault_report(name, found, abilities.DOCKER, refusals) for name in FAULTS}
    return ClusterReport(True, "", reports)


def examine_hosts(hosts: tuple[str, ...], key: str | None, known_hosts: str | None) -> ClusterReport:
    """Whether all hosts can be reached and used, and the means that all of them have."""
    try:
        found = ssh.probe(hosts, key, known_hosts)
    except SetupError as error:
        return ClusterReport(False, str(error), {})
    refusals = by_ability(_shim_refusals())
    reports = {name: fault_report(name, found, abilities.SSH, refusals) for name in FAULTS}
    return ClusterReport(True, "", reports)


def by_ability(refusals: Mapping[str, str]) -> dict[str, str]:
    """Why what needs a library cannot be done, from why the libraries are not there."""
    kinds = {name: abilities.library_of(name) for name in abilities.LOCAL}
    return {name: refusals[kind] for name, kind in kinds.items() if kind is not None and kind in refusals}


def _shim_refusals() -> dict[str, str]:
    """Why the libraries for clock and disk cannot be built, if they cannot."""
    refusals: dict[str, str] = {}
    with scratch.passing("shims") as directory:
        for name in shims.KINDS:
            try:
                shim.build(name, Path(directory))
            except shim.ShimError as error:
                refusals[name] = str(error)
    return refusals


def fault_report(
    name: str, found: Abilities, others: Mapping[str, str], refusals: Mapping[str, str]
) -> FaultReport:
    """What becomes of a kind of fault, given what the machine can do.

    Args:
        name: the kind.
        found: means for the network.
        others: means for what is not the network.
        refusals: why some of those do not work.
    """
    backend = backends.choose(found)
    drawn = itertools.islice(FAULTS[name].draw(NODES, Random(1)), FAULTS_DRAWN)
    needs = sorted({need for fault in drawn for need in backends.needs(fault, NODES)})
    by: list[str] = []
    for need in needs:
        means = backend.means(need) if need in NETWORK_FIELDS else others.get(need)
        reason = backend.reason(need) if need in NETWORK_FIELDS else refusals.get(need, "")
        if means is None or need in refusals:
            return FaultReport(False, "", reason or "this cluster cannot do it", remedy(reason))
        by.append(means)
    return FaultReport(True, ", ".join(dict.fromkeys(by)))


def remedy(reason: str) -> str:
    """What helps against a refusal, where we know.

    >>> remedy("iptables: sh: 1: iptables: not found")
    'apt-get install iproute2 iptables (Debian, Ubuntu)'
    """
    return next((what for sign, what in REMEDIES if sign in reason), "")


def table(reports: Mapping[str, ClusterReport]) -> Table:
    """One row a fault, one column a kind of cluster."""
    shown = Table("fault", *reports, box=None, pad_edge=False, header_style="bold")
    shown.add_row("(cluster)", *("yes" if report.can else "no" for report in reports.values()))
    for name in FAULTS:
        cells = []
        for report in reports.values():
            found = report.faults.get(name)
            cells.append(found.by if found and found.can else "no")
        shown.add_row(name, *cells)
    return shown
