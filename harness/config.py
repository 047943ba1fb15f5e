"""What the user asked for: options, over a TOML file, over defaults.

>>> load(None, {"rate_hz": 50.0}).rate_hz
50.0
>>> load(None, {"rate_hz": -1.0})
Traceback (most recent call last):
harness.errors.ConfigError: rate is -1.0; give a number above 0, in operations a second
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import ConfigError
from harness.seeds import MAX_SEED

DEFAULT_FAULTS = ("partition", "latency", "kill", "pause")
OPERATIONS_MAX = 5_000_000
VIA = ("nodes", "leader", "lb")


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration of a run; what is not here is not configurable.

    Attributes:
        cluster, system, workload: names, see `splitbrain run --help`.
        depth: of the simulator: `fast` carries messages, requests and records as values; `whole` runs the system's
            real program on simulated streams, files and clocks.
        workload_options: see `splitbrain workloads`.
        nodes: how many nodes.
        concurrency: how many client processes at a time.
        rate_hz: operations a second, over all clients.
        time_limit_s: seconds in which operations are started and faults injected.
        faults: kinds of fault, or compositions of them (`nemesis.composition`); empty for none.
        fault_interval_s: mean time from one fault of a kind to its next.
        fault_intensity: 2 makes faults twice as frequent.
        require_effect: a run in which some kind of fault had no effect is unknown, see `harness.effect`.
        seed: the root of every random choice; None until the plan is drawn.
        bug: a seeded bug of the system, or None.
        store: the directory in which run directories are made.
        keys: how many keys are in use at a time.
        ops_per_key: after so many operations a key is retired and a new one taken.
        unique_values: each written value is written once in the whole run.
        op_timeout_ms, attempt_timeout_ms, session_ttl_ms: see `harness.systems.base.ClientOptions`.
        recovery_s: pause between healing everything and the final reads.
        liveness: whether a healed majority must show progress after the load, see `harness.liveness`.
        liveness_bound_s: within what time it must.
        online: a register's history is checked while it is recorded, and the run ends with the first violation.
        stop_when_broken: the run ends at the very moment at which nodes break an invariant of their protocol; without,
            it goes on, to show what clients see of it.
        with_log: the committed log is stored, and a second verdict trusts it (`checkers.committed`).
        via: how clients find the leader: `nodes` (each is bound to a node, and goes where that one sends it), `leader`
            (each keeps to whoever answered last) or `lb` (all ask the load balancer).
        node_cpus, node_memory_mb: limits of each node, on `local` and `docker`; None for none.
        hosts: for the cluster `ssh`: one `[user@]host[:port][=address]` for each node.
        ssh_key: a file with the private key to show them; None for the agent's and the usual ones.
        ssh_known_hosts: a file with their host keys, beside the user's own.
    """

    cluster: str = "sim"
    depth: Literal["fast", "whole"] = "fast"
    system: str = "raft"
    workload: str = "register"
    workload_options: dict[str, Any] = {}
    nodes: int = 5
    concurrency: int = 10
    rate_hz: float = 100.0
    time_limit_s: float = 60.0
    faults: tuple[str, ...] = DEFAULT_FAULTS
    fault_interval_s: float = 9.0
    fault_intensity: float = 1.0
    require_effect: bool = False
    seed: int | None = None
    bug: str | None = None
    store: str = "store"
    keys: int = 5
    ops_per_key: int = 120
    unique_values: bool = False
    op_timeout_ms: int = 1000
    attempt_timeout_ms: int = 350
    session_ttl_ms: int = 0
    recovery_s: float = 3.0
    liveness: bool = False
    liveness_bound_s: float = 10.0
    online: bool = False
    stop_when_broken: bool = False
    with_log: bool = False
    via: str = "nodes"
    node_cpus: float | None = None
    node_memory_mb: int | None = None
    hosts: tuple[str, ...] = ()
    ssh_key: str | None = None
    ssh_known_hosts: str | None = None


# name of the field, what the user calls it, lowest, highest, what it is
_LIMITS: tuple[tuple[str, str, float, float, str], ...] = (
    ("nodes", "nodes", 1, 99, "a whole number from 1 to 99"),
    ("concurrency", "concurrency", 1, 10_000, "a whole number from 1 to 10000"),
    ("rate_hz", "rate", 1e-6, 1e6, "a number above 0, in operations a second"),
    ("time_limit_s", "time limit", 1e-3, 86_400, "a number of seconds above 0, at most a day"),
    ("fault_interval_s", "fault interval", 1e-3, 86_400, "a number of seconds above 0, at most a day"),
    ("fault_intensity", "fault intensity", 1e-3, 1_000, "a number from 0.001 to 1000"),
    ("keys", "keys", 1, 100_000, "a whole number from 1 to 100000"),
    ("ops_per_key", "ops per key", 1, 1_000_000, "a whole number from 1 to 1000000"),
    ("op_timeout_ms", "operation timeout", 1, 3_600_000, "milliseconds from 1 to 3600000"),
    ("attempt_timeout_ms", "attempt timeout", 1, 3_600_000, "milliseconds from 1 to 3600000"),
    ("session_ttl_ms", "session ttl", 0, 3_600_000, "milliseconds from 1 to 3600000, or 0 for none"),
    ("node_cpus", "node cpus", 0.01, 1024, "a number of CPUs from 0.01 to 1024"),
    ("node_memory_mb", "node memory", 16, 1 << 20, "megabytes from 16 to 1048576"),
    ("recovery_s", "recovery", 0, 3_600, "seconds from 0 to 3600"),
    ("liveness_bound_s", "liveness bound", 1e-3, 3_600, "a number of seconds above 0, at most an hour"),
)


def load(file: Path | None, options: Mapping[str, Any]) -> Config:
    """Defaults, overlaid by the file, overlaid by the options that are not None.

    Raises:
        ConfigError: an unreadable file, an unknown name, or a value out of range.
    """
    values: dict[str, Any] = _read_toml(file) if file is not None else {}
    values.update({name: value for name, value in options.items() if value is not None})
    try:
        config = msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        where = f"{file}: " if file is not None else ""
        raise ConfigError(f"{where}{error}; known settings: {', '.join(Config.__struct_fields__)}") from None
    if config.hosts:
        config = msgspec.structs.replace(config, nodes=len(config.hosts))
    return validate(config)


def validate(config: Config) -> Config:
    """The same configuration, if every number is in its range.

    Raises:
        ConfigError: names the first value that is not, and the range.
    """
    for field, name, low, high, what in _LIMITS:
        value = getattr(config, field)
        if value is not None and (not (low <= value <= high) or math.isnan(value)):
            raise ConfigError(f"{name} is {value}; give {what}")
    if config.via not in VIA:
        raise ConfigError(f"via is {config.via!r}; give one of {', '.join(VIA)}")
    if config.hosts and config.cluster != "ssh":
        raise ConfigError(
            f"node {config.hosts[0]!r} names a host, but cluster is {config.cluster!r}; add --cluster ssh"
        )
    limits = [name for name in ("node_cpus", "node_memory_mb") if getattr(config, name) is not None]
    if limits and config.cluster not in ("local", "docker"):
        raise ConfigError(
            f"{limits[0]} is set, but cluster {config.cluster!r} has no limits for nodes; leave it out"
        )
    if config.seed is not None and not 0 <= config.seed <= MAX_SEED:
        raise ConfigError(f"seed is {config.seed}; give a whole number from 0 to {MAX_SEED}")
    if config.depth != "fast" and config.cluster != "sim":
        raise ConfigError(
            f"depth is {config.depth!r}, but cluster {config.cluster!r} always runs the whole system; leave it out"
        )
    _validate_checks(config)
    if config.rate_hz * config.time_limit_s > OPERATIONS_MAX:
        raise ConfigError(
            f"rate {config.rate_hz:g} over {config.time_limit_s:g} s makes more than {OPERATIONS_MAX} operations; "
            "lower one of them"
        )
    return config


def _validate_checks(config: Config) -> None:
    """What is to be checked must be there."""
    if config.online and not config.unique_values:
        raise ConfigError("online needs values that are written once; add --unique-values")
    if config.stop_when_broken and config.cluster != "sim":
        raise ConfigError(
            f"stop when broken needs nodes that can be looked into, and cluster {config.cluster!r} has none; "
            "leave it out"
        )


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {file}: {error.strerror}; give a file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {file}: not TOML: {error}; mend the file") from None
