"""`splitbrain run`: run a workload against a cluster under faults, and judge what was recorded."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from harness import clusters, plot, report, store, systems, workloads
from harness import config as configs
from harness import plan as plans
from harness.errors import EXIT_CODES, ConfigError
from harness.execute import Execution, execute, unknown_bug
from harness.plan import Plan
from harness.progress import LiveProgress, PlainProgress
from nemesis.kinds import FAULTS

NAME = "run"
HELP = "run a workload against a cluster under faults, and judge what was recorded"

STYLES = {"valid": "bold green", "invalid": "bold red", "unknown": "bold yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; a default of None means: from the config file, else the built-in default."""
    d = configs.Config()
    add = parser.add_argument
    add("--config", type=Path, metavar="FILE", help="TOML file with the same settings; options override it")
    add("--cluster", help=f"where nodes run: {', '.join(clusters.CLUSTERS)} (default {d.cluster})")
    add(
        "--depth", metavar="DEPTH",
        help="of the simulator: fast, or whole, which runs the system's real program, framing, HTTP and files "
        f"(default {d.depth})",
    )  # fmt: skip
    add("--system", help=f"the system under test (default {d.system})")
    add("--workload", help=f"what clients ask, see `splitbrain workloads` (default {d.workload})")
    add(
        "--option", action="append", metavar="NAME=VALUE", dest="workload_options",
        help="an option of the workload, repeatable; see `splitbrain workloads`",
    )  # fmt: skip
    add("--nodes", type=int, metavar="N", help=f"number of nodes (default {d.nodes})")
    add("--concurrency", type=int, metavar="N", help=f"client processes at a time (default {d.concurrency})")
    add(
        "--rate",
        type=float,
        metavar="HZ",
        dest="rate_hz",
        help=f"operations a second (default {d.rate_hz:g})",
    )
    add(
        "--time-limit", type=float, metavar="S", dest="time_limit_s",
        help=f"seconds of load and faults (default {d.time_limit_s:g})",
    )  # fmt: skip
    add(
        "--fault", action="append", metavar="NAME", dest="faults",
        help="a kind of fault, repeatable, or any(...), mix(...), phases(...) of kinds: none, "
        f"{', '.join(FAULTS)} (default {', '.join(d.faults)}); see docs/nemesis.md",
    )  # fmt: skip
    add(
        "--fault-interval", type=float, metavar="S", dest="fault_interval_s",
        help=f"mean time from one fault of a kind to its next (default {d.fault_interval_s:g})",
    )  # fmt: skip
    add(
        "--fault-intensity", type=float, metavar="X", dest="fault_intensity",
        help="2 makes faults twice as frequent (default 1)",
    )  # fmt: skip
    add(
        "--fault-plan", type=Path, metavar="FILE",
        help="the faults of a file that was written by hand, in the place of drawn ones; see docs/nemesis.md",
    )  # fmt: skip
    add(
        "--require-effect", action="store_true", default=None,
        help="a run in which some kind of fault was not proved, or overlapped no operation, is unknown",
    )  # fmt: skip
    add("--seed", type=int, metavar="N", help="root of every random choice (default: a fresh one, printed)")
    add("--bug", metavar="NAME", help="run the system with a seeded bug, see `splitbrain bugs`")
    add("--store", metavar="DIR", help=f"where run directories are made (default {d.store})")
    add("--keys", type=int, metavar="N", help=f"keys in use at a time (default {d.keys})")
    add(
        "--ops-per-key",
        type=int,
        metavar="N",
        help=f"operations before a key is retired (default {d.ops_per_key})",
    )
    add("--unique-values", action="store_true", default=None, help="write each value only once")
    add(
        "--op-timeout", type=int, metavar="MS", dest="op_timeout_ms",
        help=f"an operation without an answer by then is info (default {d.op_timeout_ms})",
    )  # fmt: skip
    add(
        "--session-ttl", type=int, metavar="MS", dest="session_ttl_ms",
        help="clients write in sessions that end after so long without a write (default: in sessions without an end)",
    )  # fmt: skip
    add(
        "--liveness", action="store_true", default=None,
        help="after the load a majority is healed and must make progress in time; other nodes stay broken",
    )  # fmt: skip
    add(
        "--liveness-bound", type=float, metavar="S", dest="liveness_bound_s",
        help=f"how long it may take (default {d.liveness_bound_s:g})",
    )  # fmt: skip
    add(
        "--online", action="store_true", default=None,
        help="check a register while it is recorded, and end the run with the first violation; needs --unique-values "
        "and, of the workload register, --option cas=false; the whole history is checked at the end as ever",
    )  # fmt: skip
    add(
        "--stop-when-broken", action="store_true", default=None,
        help="end the run at the moment at which nodes break an invariant of their protocol (default: go on, and see "
        "what clients see of it); on sim",
    )  # fmt: skip
    add(
        "--with-log", action="store_true", default=None,
        help="store the system's committed log, and tell a second, narrower verdict that trusts it",
    )  # fmt: skip
    add("--node-cpus", type=float, metavar="N", help="CPUs each node may use, on local and docker")
    add(
        "--node-memory", type=int, metavar="MB", dest="node_memory_mb",
        help="megabytes each node may use, on local and docker",
    )  # fmt: skip
    add("--via", help=f"how clients find the leader: {', '.join(configs.VIA)} (default {d.via})")
    add(
        "--node", action="append", metavar="[USER@]HOST[:PORT][=ADDRESS]", dest="hosts",
        help="for --cluster ssh: a host, once for each node",
    )  # fmt: skip
    add(
        "--ssh-key",
        metavar="FILE",
        help="the private key for --node (default: the agent's and the usual ones)",
    )
    add("--ssh-known-hosts", metavar="FILE", help="host keys, beside those of ~/.ssh/known_hosts")
    add("--json", action="store_true", help="one JSON object as the last line of standard output")


def main(args: argparse.Namespace) -> int:
    """Load, plan, run, check, report."""
    config = config_of(args)
    plan = plans.draw(config)
    if args.fault_plan is not None:
        plan = plans.with_faults(plan, args.fault_plan)
    clusters.check(plan)
    run_dir = store.create(Path(config.store), plan)
    console = Console(stderr=args.json)
    console.print(_headline(plan), highlight=False, soft_wrap=True)
    execution = run_with_progress(plan, run_dir, console)
    print_summary(execution, console)
    if args.json:
        summary = {name: execution.result[name] for name in report.SUMMARY_FIELDS}
        summary["explanation"] = [line for check in execution.checks for line in check.lines]
        sys.stdout.write(json.dumps(summary) + "\n")
    return EXIT_CODES[report.exit_verdict(execution.result)]


def config_of(args: argparse.Namespace) -> configs.Config:
    """The configuration that the options ask for.

    Raises:
        ConfigError: an option is wrong, or names something that there is not.
    """
    options: dict[str, Any] = {
        name: getattr(args, name) for name in configs.Config.__struct_fields__ if hasattr(args, name)
    }
    if options["faults"] is not None:
        options["faults"] = [name for name in options["faults"] if name != "none"]
    options["workload_options"] = _workload_options(options["workload_options"])
    config = configs.load(args.config, options)
    workloads.settings_of(config)
    if config.with_log and not workloads.by_name(config.workload).model:
        raise ConfigError(
            f"with log bounds what a model allows, and the workload {config.workload} has none; leave it out"
        )
    clusters.require(config.cluster)
    system = systems.by_name(config.system)
    if config.bug is not None and config.bug not in system.bugs:
        raise ConfigError(unknown_bug(config.bug, system.bugs))
    return config


def _workload_options(given: list[str] | None) -> dict[str, Any] | None:
    """NAME=VALUE, the value as JSON where it is that, else as a word."""
    if given is None:
        return None
    options: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ConfigError(f"--option {text!r} is not NAME=VALUE; see `splitbrain workloads`")
        try:
            options[name] = json.loads(value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def _headline(plan: Plan) -> str:
    config = plan.config
    bug = f", seeded bug {config.bug}" if config.bug else ""
    by_hand = "by hand" if plan.faults else "none"
    depth = " (whole)" if config.depth == "whole" else ""
    return (
        f"[bold]seed {plan.seed}[/]: {config.system} on {config.cluster}{depth}, {config.nodes} nodes, workload "
        f"{config.workload}, {config.concurrency} clients, {config.rate_hz:g} ops/s for {config.time_limit_s:g} s, "
        f"{len(plan.faults)} faults planned ({escape(', '.join(config.faults)) or by_hand}){bug}"
    )


def run_with_progress(plan: Plan, run_dir: Path, console: Console) -> Execution:
    """Execute with a live display on a terminal, with plain lines elsewhere, and draw what came of it."""
    with contextlib.ExitStack() as stack:
        progress = (
            stack.enter_context(LiveProgress(console, plan))
            if console.is_terminal
            else PlainProgress(console, plan)
        )
        execution = execute(plan, run_dir, progress)
    plot.save(run_dir, execution.result, run_dir / store.PLOT)
    return execution


def print_summary(execution: Execution, console: Console) -> None:
    """The verdict and its evidence, where the run is stored, and the seed last."""
    result = execution.result
    verdict = report.exit_verdict(result)
    console.print()
    for check in execution.checks:
        for line in check.lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(
        f"[{STYLES[verdict]}]{verdict.upper()}[/]  {result['ops']} ops: {result['ok']} ok, {result['fail']} fail, "
        f"{result['info']} info; {result['faults']} faults; {result['sim_seconds']:.1f} s "
        f"{'simulated' if result['cluster'] == 'sim' else 'run, checked'} in {result['wall_seconds']:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"stored in {result['run_dir']}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"[bold]seed {result['seed']}[/]", highlight=False)
