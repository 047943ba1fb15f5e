"""Plans: every random choice of a run, as a value that is saved before anything starts.

Theory of operation
    `draw` turns a configuration and a seed into operations with times and workers, faults with times and targets,
    and the conditions of network and disk. What is left to the run (the delay of one message, the length of one
    sync) comes from streams that are named after what they belong to, so an edited plan changes only what was
    edited. `replay` and `shrink` start from a stored plan.

    A plan is stored as JSON with one operation and one fault a line, to be read and edited by hand.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from harness import liveness, systems, workloads
from harness.config import Config, validate
from harness.errors import ConfigError
from harness.planned import LivenessPlan, PlannedOp
from harness.seeds import Streams, fresh_seed
from harness.sim.disk import DiskParams
from harness.sim.network import NetworkParams
from nemesis.composition import parse
from nemesis.faults import FaultError
from nemesis.schedule import FaultEvent, check_plan, decode, hint
from nemesis.schedule import draw as draw_faults

PLAN_VERSION = 1
SLOW_START_MS = 200.0  # of real connections, behind which real time-outs have grown
LIVENESS_OVERLAP_MS = 5_000.0
BEYOND_S_MAX = 60.0  # a run waits for what is planned, so long after its time limit at most


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Everything that a run needs; see the module.

    Attributes:
        ops: in order of time.
        final: reads after everything was healed, in order, retried until they succeed.
        liveness: what is to be shown of liveness before that; None where nothing is.
    """

    version: int
    seed: int
    config: Config
    nodes: tuple[str, ...]
    network: NetworkParams
    disk: DiskParams
    faults: tuple[FaultEvent, ...]
    ops: tuple[PlannedOp, ...]
    final: tuple[PlannedOp, ...]
    liveness: LivenessPlan | None = None


def draw(config: Config, seed: int | None = None) -> Plan:
    """Make every choice for a run of this configuration.

    Raises:
        ConfigError: an unknown workload or kind of fault.
    """
    chosen = seed if seed is not None else config.seed
    root = chosen if chosen is not None else fresh_seed()
    # Through JSON's types and back, so that a whole number in a field of floats is stored as it is read again.
    config = msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(config, seed=root)), Config)
    streams = Streams(root)
    nodes = tuple(f"n{i + 1}" for i in range(config.nodes))
    workload = workloads.by_name(config.workload)
    ops, final = workload.plan(config, workloads.settings_of(config), streams)
    try:
        faults = _draw_faults(config, workload.faults, nodes, streams)
    except FaultError as error:
        raise ConfigError(str(error)) from None
    return Plan(
        version=PLAN_VERSION,
        seed=root,
        config=config,
        nodes=nodes,
        network=NetworkParams(slow_start_ms=SLOW_START_MS if config.depth == "whole" else 0.0),
        disk=DiskParams(),
        faults=faults,
        ops=tuple(PlannedOp(*op) for op in ops),
        final=tuple(PlannedOp(*op) for op in final),
        liveness=liveness.draw(config, workload, nodes, streams) if config.liveness else None,
    )


def _draw_faults(
    config: Config, brought: Sequence[str], nodes: tuple[str, ...], streams: Streams
) -> tuple[FaultEvent, ...]:
    kinds = tuple(dict.fromkeys((*config.faults, *brought)))
    limit_ms = config.time_limit_s * 1000
    rhythm = {"interval_ms": config.fault_interval_s * 1000, "intensity": config.fault_intensity}
    if not config.liveness:
        return draw_faults(kinds, nodes, limit_ms, streams.stream, **rhythm)
    # No quiet time before the end: the healing of the core is to find the cluster in the middle of its troubles.
    longer_ms = limit_ms + LIVENESS_OVERLAP_MS
    faults = draw_faults(kinds, nodes, longer_ms, streams.stream, quiet_ms=0.0, **rhythm)
    return liveness.up_to_the_end(faults, config)


def with_faults(plan: Plan, file: Path) -> Plan:
    """The same plan with the faults of a file, which was written by hand, in the place of the drawn ones.

    Raises:
        ConfigError: the file cannot be read, or has no faults for this plan.
    """
    try:
        faults = decode(file.read_bytes())
        config = msgspec.structs.replace(plan.config, faults=())
        plan = msgspec.structs.replace(plan, config=config, faults=faults)
        check_plan(plan.faults, plan.nodes)
    except OSError as error:
        raise ConfigError(f"fault plan {file}: {error.strerror}; give a file that can be read") from None
    except (FaultError, UnicodeDecodeError) as error:
        said = str(error).removeprefix("the fault plan ")
        raise ConfigError(f"fault plan {file}: {said}; mend the file, see docs/nemesis.md") from None
    _check_times(plan, f"fault plan {file}")
    return plan


def encode(plan: Plan) -> bytes:
    """The plan as JSON text, one operation and one fault a line."""
    fields = msgspec.to_builtins(plan)
    parts = []
    for name, value in fields.items():
        if name in ("faults", "ops", "final"):
            lines = ",\n".join("    " + json.dumps(item, ensure_ascii=False) for item in value)
            parts.append(f'  "{name}": [\n{lines}\n  ]' if value else f'  "{name}": []')
        else:
            parts.append(f'  "{name}": {json.dumps(value, ensure_ascii=False)}')
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def read(path: Path) -> Plan:
    """A stored plan.

    Raises:
        ConfigError: the file cannot be read, or is not a plan of this version.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plan {path}: {error.strerror}; give the directory of a stored run") from None
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"plan {path}: {error}{hint(str(error))}; mend the file or run again") from None
    if plan.version != PLAN_VERSION:
        raise ConfigError(
            f"plan {path}: version {plan.version}; this splitbrain reads version {PLAN_VERSION}"
        )
    validate(plan.config)
    _check(plan, path)
    return plan


def _check(plan: Plan, path: Path) -> None:
    contract = systems.by_name(plan.config.system).contracts.get(plan.config.workload, {})
    for op in (*plan.ops, *plan.final, *(plan.liveness.ops if plan.liveness is not None else ())):
        if contract and op.f not in contract:
            raise ConfigError(
                f"plan {path}: an operation {op.f!r}, but the workload {plan.config.workload} has "
                f"{', '.join(contract)}; mend the operation"
            )
        if not 0 <= op.worker < plan.config.concurrency:
            raise ConfigError(
                f"plan {path}: an operation of worker {op.worker}, but the plan has workers 0 to "
                f"{plan.config.concurrency - 1}; mend the operation or raise concurrency"
            )
    if not plan.nodes or len(set(plan.nodes)) != len(plan.nodes):
        raise ConfigError(f"plan {path}: nodes are {list(plan.nodes)}; give at least one, each name once")
    strangers = [link for link in plan.network.links if not set(link.split("->", 1)) <= {*plan.nodes}]
    if strangers:
        raise ConfigError(
            f"plan {path}: network.links has {strangers[0]!r}; name two nodes, as {plan.nodes[0]}->{plan.nodes[-1]}"
        )
    try:
        for kinds in plan.config.faults:
            parse(kinds)
        check_plan(plan.faults, plan.nodes)
        if plan.liveness is not None:
            check_plan(plan.liveness.outside, plan.nodes)
    except FaultError as error:
        raise ConfigError(f"plan {path}: {error}") from None
    _check_times(plan, f"plan {path}")


def _check_times(plan: Plan, where: str) -> None:
    """Refuse what a run would wait for long after its load."""
    limit_s = plan.config.time_limit_s
    last = max(plan.faults, key=lambda event: event.stop_ms, default=None)
    if last is not None and last.stop_ms / 1000 > limit_s + BEYOND_S_MAX:
        raise ConfigError(
            f"{where}: the fault {last.id} lasts until {last.stop_ms / 1000:g} s, but the time limit is {limit_s:g} s; "
            "heal it by then, or raise the time limit"
        )
    at_us = max((op.at_us for op in plan.ops), default=0)
    if at_us / 1e6 > limit_s + BEYOND_S_MAX:
        raise ConfigError(
            f"{where}: an operation at {at_us / 1e6:g} s, but the time limit is {limit_s:g} s; mend the operation, or "
            "raise the time limit"
        )
