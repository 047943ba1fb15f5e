"""The simulated cluster at full depth: each node's real program in a simulated world, fixed by the plan's seed.

Nothing of the system is replaced: its command line, event loop code, framing, HTTP server and log run as they do in
production, on simulated streams, files and clocks (`harness.sim.world`). Clients speak HTTP over simulated connections,
with the transport that real clusters use. It costs more than `harness.clusters.sim`, which carries messages and records
as values, and finds what lies between a node and its machine.

Clients' links are of the same network as the others, healthy whatever happens between nodes. A kill is a loss of power:
what the program had not synced is kept, lost or torn, write by write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from harness.clusters.http import Connection, HttpTransport
from harness.errors import SetupError
from harness.plan import Plan
from harness.sim.trouble import DiskError
from harness.sim.world import TEST, World
from harness.systems.base import System, WholeProgram
from nemesis.target import ClockRule, CrashPoint, Damage, DiskRule, Ruleset

T = TypeVar("T")

READY_TIMEOUT_S = 5.0
READY_POLL_S = 0.01
LIMIT_FACTOR, LIMIT_S = 20.0, 600.0  # how much longer than planned a run may take before it counts as stuck
LOG_LINES_MAX = 20_000
UNCAUGHT_SHOWN = 3


class WholeCluster:
    """See the module; one instance serves one run."""

    kind = "sim"

    def __init__(self, plan: Plan, system: System, run_dir: Path | None = None) -> None:
        self._plan = plan
        self._system = system
        self._run_dir = run_dir
        self.world = World(plan.seed, plan.network)
        self._programs: dict[str, WholeProgram] = {}
        self._disk_deaths = 0
        self._watch = system.watch(lambda: self.world.loop.now_us)
        self._transports: dict[HttpTransport, None] = {}
        self._opened_us = 0
        self._logs = _NodeLogs(self.world)
        for node in plan.nodes:
            self.world.host(node, lambda node=node: self._live(node))  # type: ignore[misc]
        self._addresses = {node: self.world.hosts[node].address for node in plan.nodes}

    async def _live(self, node: str) -> None:
        """One life of a node."""
        host = self.world.hosts[node]
        bug = self._plan.config.bug
        program = self._system.whole_program(node, self._addresses, bug, host.files, self._watch)
        self._programs[node] = program
        try:
            await program.run()
        except DiskError:
            self._disk_deaths += 1
            raise

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes."""
        return self._plan.nodes

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end on virtual time."""
        limit_s = self._plan.config.time_limit_s * LIMIT_FACTOR + LIMIT_S
        with self._logs.taken(self._system.name):
            return self.world.run(main, limit_s=limit_s)

    def interrupt(self) -> None:
        """End the run before the next callback."""
        self.world.loop.interrupt()

    async def open(self) -> None:
        """Wait until a node leads, but no longer than `READY_TIMEOUT_S` (a bug may prevent it)."""
        for _ in range(int(READY_TIMEOUT_S / READY_POLL_S)):
            if await self.leader() is not None:
                break
            await asyncio.sleep(READY_POLL_S)
        self._opened_us = self.world.loop.now_us

    async def close(self) -> None:
        """Kill all nodes, and store what they logged."""
        for transport in list(self._transports):
            transport.drop()
        for node in self.nodes:
            self.world.hosts[node].kill()
        if self._run_dir is not None:
            self._logs.store(self._run_dir / "nodes")

    def now_ns(self) -> int:
        """Virtual nanoseconds since the cluster was opened."""
        return (self.world.loop.now_us - self._opened_us) * 1000

    def transport(self) -> HttpTransport:
        """Connections for one client process."""
        transport = HttpTransport(self._dial, self._system.service, self._forget)
        self._transports[transport] = None
        return transport

    def _forget(self, transport: HttpTransport) -> None:
        self._transports.pop(transport, None)

    async def _dial(self, node: str) -> Connection:
        return Connection(*await asyncio.open_connection(node, self._system.service.client_port))

    def deaths(self) -> list[str]:
        """Nodes whose program ended although nobody ended it, and what its tasks died of."""
        ended = [
            f"{node} {how}"
            for node in self.nodes
            for how in self.world.hosts[node].exits
            if how != "killed" and not how.startswith(("crashed", "raised DiskError"))
        ]
        uncaught = [f"{node}: {message}" for node, message in self.world.uncaught if node != TEST]
        return ended + uncaught[:UNCAUGHT_SHOWN]

    def violations(self) -> list[str]:
        """Invariants of the system that its nodes broke."""
        return self._watch.violations

    def facts(self) -> dict[str, Any]:
        """Counts of segments, files and events."""
        hosts = [self.world.hosts[node] for node in self.nodes]
        return {
            "depth": "whole",
            "segments_sent": self.world.network.sent,
            "segments_sent_again": self.world.network.lost,
            "bytes_written": sum(host.files.bytes_written for host in hosts),
            "syncs": sum(host.files.syncs for host in hosts),
            "nodes_stopped_by_their_disk": self._disk_deaths,
            "crash_points_reached": sum(how.startswith("crashed") for host in hosts for how in host.exits),
            "sim_events": self.world.loop.events_run,
            "trace_sha256": self.world.loop.trace_sha256,
        }

    # -- the nemesis' side ------------------------------------------------------------------------------------

    async def leader(self) -> str | None:
        """The node that leads in the highest term, of those that think they lead."""
        terms = [
            (term, node)
            for node, program in self._programs.items()
            if self.world.hosts[node].process is not None and (term := program.leader_term()) is not None
        ]
        return max(terms)[1] if terms else None

    async def set_network(self, rules: Ruleset) -> None:
        """Replace all rules."""
        await self.world.set_network(rules)

    async def kill(self, node: str) -> None:
        """SIGKILL and power loss in one."""
        await self.world.kill(node)

    async def start(self, node: str) -> None:
        """Start the node's program on its files."""
        await self.world.start(node)

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        await self.world.pause(node)

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        await self.world.resume(node)

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Make the node's clocks exactly this."""
        await self.world.set_clock(node, rule)

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""
        await self.world.set_disk(node, rule)

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage the files of a node that is down."""
        return await self.world.damage_disk(node, damage)

    async def set_slowness(self, node: str, factor: float) -> None:
        """Let the node take so many times as long for each callback."""
        await self.world.set_slowness(node, factor)

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """Let the node die when it next gets there, once."""
        await self.world.set_crash_point(node, point)


class _NodeLogs(logging.Handler):
    """What the programs log, by node, on their own clocks; nothing of it reaches the terminal."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._lines: dict[str, list[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, up to `LOG_LINES_MAX` of each node."""
        lines = self._lines.setdefault(self._world.current().host.name, [])
        if len(lines) < LOG_LINES_MAX:
            fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
            lines.append(f"{self._world.loop.now_us / 1e6:.6f} {record.getMessage()} {fields}\n")

    @contextmanager
    def taken(self, name: str) -> Iterator[None]:
        """While this is in force, the logger of that name logs here and nowhere else."""
        logger = logging.getLogger(name)
        before = (logger.level, logger.propagate, logger.handlers)
        logger.level, logger.propagate, logger.handlers = logging.INFO, False, [self]
        try:
            yield
        finally:
            logger.level, logger.propagate, logger.handlers = before

    def store(self, directory: Path) -> None:
        """Write a file for each node."""
        try:
            directory.mkdir(exist_ok=True)
            for node, lines in self._lines.items():
                (directory / f"{node}.log").write_text("".join(lines), encoding="utf-8")
        except OSError as error:
            raise SetupError(f"logs of nodes {directory}: {error.strerror}") from None
