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
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from harness.clusters.http import Connection, HttpTransport
from harness.clusters.sim_nemesis import SimNemesisSide
from harness.errors import SetupError
from harness.plan import Plan
from harness.sim.host import Observer
from harness.sim.world import TEST, World
from harness.sim.world_host import Host
from harness.systems.base import CommittedRequests, System, WholeProgram
from nemesis.target import ClockRule, CrashPoint, Damage, DiskRule, Listener, Ruleset

T = TypeVar("T")

READY_TIMEOUT_S = 5.0
READY_POLL_S = 0.01
LIMIT_FACTOR, LIMIT_S = 20.0, 600.0  # how much longer than planned a run may take before it counts as stuck
LOG_LINES_MAX = 20_000
UNCAUGHT_SHOWN = 3


class WholeMachine:
    """A machine of the world, and what runs on it, as the nemesis' side looks at it."""

    def __init__(self, host: Host) -> None:
        self.name = host.name
        self.host = host
        self.files = self.disk = host.files
        self.observer: Observer | None = None
        self.program: WholeProgram | None = None
        self.joins = False
        self.panics: list[str] = []
        self.disk_deaths = 0
        self.crashes = 0
        self.reached = host.reached
        host.on_end = self._ended

    @property
    def process(self) -> WholeProgram | None:
        """What runs."""
        return self.program if self.host.process is not None else None

    @property
    def alive(self) -> bool:
        """Whether anything runs, paused or not."""
        return self.host.process is not None

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return self.host.paused

    @property
    def held(self) -> bool:
        """Whether it is paused, slow, or waits for its disk."""
        return self.host.held

    @property
    def waited(self) -> int:
        """How often something waited for a slow program."""
        return self.host.waited

    def wall_us(self) -> int:
        """The wall clock."""
        return self.host.clock.wall_us()

    def wipe(self) -> None:
        """Forget the disk, while nothing runs; what is started next joins as a new member."""
        self.files.wipe()
        self.joins = True

    def observe(self, event: str, **fields: Any) -> None:
        """Is told what the program does."""
        if self.observer is not None:
            self.observer(event, **fields)

    def _ended(self, how: str) -> None:
        """Is told how a life ended; what nobody asked for is a panic."""
        self.program = None
        if how == "killed":
            self.observe("killed")
        elif how.startswith("crashed"):
            self.crashes += 1
            self.observe("crashed")
        elif how.startswith("raised DiskError"):
            self.disk_deaths += 1
            self.observe("killed")
        else:
            self.panics.append(f"{self.name} {how}")
            self.observe("killed")


class WholeCluster(SimNemesisSide[WholeMachine]):
    """See the module; one instance serves one run."""

    kind = "sim"

    def __init__(self, plan: Plan, system: System, run_dir: Path | None = None) -> None:
        self._plan = plan
        self._system = system
        self._run_dir = run_dir
        self.world = World(plan.seed, plan.network)
        self.loop = self.world.loop
        self.network = self.world.network
        self._watch = system.watch(lambda: self.world.loop.now_us)
        self._transports: dict[HttpTransport, None] = {}
        self._opened_us = 0
        self._logs = _NodeLogs(self.world)
        self.hosts = {
            node: WholeMachine(self.world.host(node, functools.partial(self._live, node)))
            for node in plan.nodes
        }
        self._addresses = {node: machine.host.address for node, machine in self.hosts.items()}

    async def _live(self, node: str) -> None:
        """One life of a node."""
        machine = self.hosts[node]
        bug = self._plan.config.bug
        machine.program = self._system.whole_program(machine, self._addresses, bug, self._watch)
        await machine.program.run()

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
            self.hosts[node].host.kill()
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
        ended = [panic for machine in self.hosts.values() for panic in machine.panics]
        uncaught = [f"{node}: {message}" for node, message in self.world.uncaught if node != TEST]
        return ended + uncaught[:UNCAUGHT_SHOWN]

    def violations(self) -> list[str]:
        """Invariants of the system that its nodes broke."""
        return self._watch.violations

    def violated_ns(self) -> int | None:
        """When the first of them was seen, on the run's clock; None where there is none."""
        seen_us = self._watch.violated_us
        return None if seen_us is None else (seen_us - self._opened_us) * 1000

    def end_when_violated(self) -> None:
        """End the run at the very moment at which an invariant is broken, as if it had been interrupted."""
        self._watch.on_violated = self.world.loop.interrupt

    async def committed(self, leader: str | None) -> CommittedRequests | str:
        """What is in the committed log, with times of the run."""
        log = self._watch.committed(self.hosts[leader].process if leader is not None else None)
        if isinstance(log, str):
            return log
        return {request: (index, (at_us - self._opened_us) * 1000) for request, (index, at_us) in log.items()}

    def facts(self) -> dict[str, Any]:
        """Counts of segments, files and events."""
        machines = list(self.hosts.values())
        return {
            "depth": "whole",
            "segments_sent": self.network.sent,
            "segments_sent_again": self.network.lost,
            "bytes_written": sum(machine.files.bytes_written for machine in machines),
            "syncs": sum(machine.files.syncs for machine in machines),
            "nodes_stopped_by_their_disk": sum(machine.disk_deaths for machine in machines),
            "crash_points_reached": sum(machine.crashes for machine in machines),
            "sim_events": self.loop.events_run,
            "trace_sha256": self.loop.trace_sha256,
        }

    # -- the nemesis' side ------------------------------------------------------------------------------------

    def subscribe(self, listener: Listener) -> None:
        """Tell the listener what nodes do: as itself, and not as a part of the program that does it."""
        context = contextvars.copy_context()
        super().subscribe(lambda event: _discard(self.loop.call_soon(listener, event, context=context)))

    async def leader(self) -> str | None:
        """The node that leads in the highest term, of those that think they lead."""
        terms = [
            (term, node)
            for node, machine in self.hosts.items()
            if machine.process is not None and (term := machine.process.leader_term()) is not None
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


def _discard(_handle: object) -> None:
    """A listener returns nothing."""


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
