"""`--cluster local`: nodes are processes of this machine, each in a network namespace of its own.

Rules of this module
    1. What the machine can do is tried before the run (`probe`), in a network made for that; a fault that it
       cannot do is refused (`check`) before anything of the run exists.
    2. Nodes hear nothing of the terminal (a session of their own), and end with this process however it ends
       (the kernel kills them: PR_SET_PDEATHSIG).
    3. The libraries that shift clocks and break disks are put in front of a node only where the plan has such a
       fault.

Theory of operation
    `nemesis.netns` makes the network, `nemesis.network` breaks it by tc or by a queue of packets, signals do the
    rest. Clients talk to nodes from the bridge's side: no rule ever names it, so they reach a node that is cut off
    from its peers. The data directories of nodes stay in the run's directory, for whoever wants to look.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from harness.clusters.http import Connection
from harness.clusters.real import RealCluster
from harness.errors import ConfigError, SetupError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis import backend as backends
from nemesis import clock, disk, shim
from nemesis.backend import Abilities, Backend
from nemesis.faults import FaultError
from nemesis.netns import Netns, NetnsError
from nemesis.network import CommandReach, Network
from nemesis.target import HEALTHY_DISK, ClockRule, DiskRule, Link, Ruleset

DIRECTORY_PREFIX = "sb-local-"
KILL_TIMEOUT_S = 10.0
SHIMS = ("clock", "disk")


@functools.cache
def probe() -> Abilities:
    """What can be done to a network of namespaces on this machine; takes about half a second, once.

    Raises:
        SetupError: there are no namespaces to be had.
    """
    try:
        with Netns(("probe",)) as net:
            return backends.parse(net.run("probe", ["sh"], backends.probe_script(sys.executable)))
    except (NetnsError, OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"cluster 'local': {error}") from None


def shims_of(plan: Plan) -> tuple[str, ...]:
    """The libraries that the plan's faults need."""
    needed = {name for event in plan.faults for name in backends.needs(event.fault, plan.nodes)}
    return tuple(shim for shim in SHIMS if any(name.startswith(shim) for name in needed))


def check(plan: Plan) -> None:
    """Refuse a plan that this machine cannot perform.

    Raises:
        ConfigError: a fault has no means here.
        SetupError: a tool is missing.
    """
    if shutil.which("setpriv") is None:
        raise SetupError("cluster 'local': setpriv not found; on Debian: apt-get install util-linux")
    try:
        backends.check_faults((event.fault for event in plan.faults), plan.nodes, backends.choose(probe()))
    except FaultError as error:
        raise ConfigError(str(error)) from None
    with tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX) as directory:
        _build(shims_of(plan), Path(directory))


def _build(names: tuple[str, ...], directory: Path) -> list[Path]:
    try:
        return [shim.build(name, directory) for name in names]
    except shim.ShimError as error:
        raise SetupError(f"cluster 'local': {error}") from None


@dataclass(slots=True)
class _Node:
    """A process and what is known about it."""

    process: subprocess.Popen[bytes]
    was_killed: bool = False
    had_sick_disk: bool = False

    @property
    def runs(self) -> bool:
        return self.process.poll() is None


class LocalCluster(RealCluster):
    """See the module."""

    kind = "local"

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        super().__init__(plan, service, directory)
        self._backend: Backend = backends.choose(probe())
        self._processes: dict[str, _Node] = {}
        self._stopped_by_disk = 0
        self._starts = 0
        self._sick_disks: set[str] = set()
        self._met: dict[Link, int] = {}
        self._net: Netns | None = None
        self._network: Network | None = None
        self._scratch: Path | None = None
        self._libraries: list[Path] = []

    # -- opening and closing ------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-"))
        self._libraries = _build(shims_of(self._plan), self._scratch)
        try:
            self._net = Netns(self._nodes)
        except NetnsError as error:
            raise SetupError(f"cluster 'local': {error}") from None
        self._network = Network(CommandReach(self._net.command), self._net.addresses, self._backend)
        await self._network.open()
        for node in self._nodes:
            clock.write_offset(self._scratch / f"{node}.clock", 0)
            disk.write_rule(self._scratch / f"{node}.disk", HEALTHY_DISK)
            await self.start(node)

    async def _finish(self) -> None:
        self._deaths += self._dead()
        if self._network is not None:
            await self._network.heal()

    def _end(self) -> None:
        for node in self._processes.values():
            node.process.kill()
        for node in self._processes.values():
            node.process.wait(KILL_TIMEOUT_S)
        if self._net is not None:
            self._net.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _dial(self, node: str) -> Connection:
        assert self._net is not None, "the cluster is open"
        end = self._net.socket()
        try:
            end.setblocking(False)
            address = (self._net.addresses[node], self._service.client_port)
            await asyncio.get_running_loop().sock_connect(end, address)
            return Connection(*await asyncio.open_connection(sock=end))
        except BaseException:
            end.close()
            raise

    # -- what became of it --------------------------------------------------------------------------------------

    def _dead(self) -> list[str]:
        return [
            f"{name} ended with {_status(node.process.returncode)}, its last words: {self.last_words(name)}"
            for name, node in self._processes.items()
            if not node.runs and not node.was_killed and not node.had_sick_disk
        ]

    def facts(self) -> dict[str, Any]:
        """The means that were used, and whether they bit."""
        return {
            "network_backend": msgspec.to_builtins(self._backend),
            "packets_met_by_faults": sum(self._met.values()),
            "packets_met_by_link": {f"{src}->{dst}": n for (src, dst), n in sorted(self._met.items())},
            "processes_started": self._starts,
            "nodes_stopped_by_their_disk": self._stopped_by_disk,
        }

    # -- the nemesis' side ----------------------------------------------------------------------------------------

    async def set_network(self, rules: Ruleset) -> None:
        """Count what the rules so far met, then replace them."""
        if self._network is None:
            return
        for link, count in (await self._network.evidence()).items():
            self._met[link] = self._met.get(link, 0) + count
        await self._network.apply(rules)

    async def kill(self, node: str) -> None:
        """SIGKILL; what was written and not synced survives in the kernel, unlike in the simulator."""
        there = self._processes.get(node)
        if there is None or not self._is_up(node):
            return
        there.was_killed = True
        there.process.kill()
        await asyncio.to_thread(there.process.wait, KILL_TIMEOUT_S)

    async def start(self, node: str) -> None:
        """Start the node's process, unless it runs."""
        if self._net is None or self._scratch is None or self._is_up(node):
            return
        data = self._directory / "nodes" / node
        argv = self._service.argv(
            sys.executable, node, self._net.addresses, data.resolve(), self._plan.config.bug
        )
        command = self._net.command(node, ["setpriv", "--pdeathsig", "KILL", *argv])
        with self.log_file(node).open("ab") as log:
            self._processes[node] = _Node(self._spawn(command, log, self._environment(node, data)))
        self._processes[node].had_sick_disk = node in self._sick_disks
        self._starts += 1

    def _spawn(
        self, command: list[str], log: BinaryIO, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - the system's own command line, without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def _environment(self, node: str, data: Path) -> dict[str, str]:
        environment = dict(os.environ)
        if self._libraries and self._scratch is not None:
            environment |= shim.preload(self._libraries)
            environment |= clock.environment(self._scratch / f"{node}.clock")
            environment |= disk.environment(self._scratch / f"{node}.disk", data)
        return environment

    def _is_up(self, node: str) -> bool:
        """Whether its process runs; one that has ended is taken note of, once."""
        there = self._processes.get(node)
        if there is None or there.runs:
            return there is not None
        if there.had_sick_disk and not there.was_killed:
            self._stopped_by_disk += 1
        else:
            self._deaths += [words for words in self._dead() if words.startswith(f"{node} ")]
        del self._processes[node]
        return False

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        if self._is_up(node):
            self._processes[node].process.send_signal(signal.SIGSTOP)

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        if self._is_up(node):
            self._processes[node].process.send_signal(signal.SIGCONT)

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Shift what the node's process reads as the wall clock."""
        if self._scratch is not None:
            clock.write_offset(self._scratch / f"{node}.clock", rule.offset_ms)

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""
        if self._scratch is None:
            return
        is_sick = bool(rule.sync_error or rule.write_error)
        if is_sick:
            self._sick_disks.add(node)
            if node in self._processes:
                self._processes[node].had_sick_disk = True
        else:
            self._sick_disks.discard(node)
        disk.write_rule(self._scratch / f"{node}.disk", rule)


def _status(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def leftovers() -> list[Path]:
    """Scratch directories whose maker is gone."""
    found = sorted(Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}[0-9]*-*"))
    return [path for path in found if not Path("/proc", path.name.split("-")[2]).exists()]
