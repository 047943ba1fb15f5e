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
import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from harness.clusters import abilities, balancer, scratch, shims
from harness.clusters.base import LOAD_BALANCER
from harness.clusters.cgroups import Groups, limits_of
from harness.clusters.http import Connection
from harness.clusters.real import RealCluster
from harness.clusters.real_nemesis import state_of
from harness.clusters.shims import ShimFiles
from harness.errors import ConfigError, SetupError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis import backend as backends
from nemesis import power, shim
from nemesis.backend import Abilities
from nemesis.damage import inflict
from nemesis.faults import FaultError
from nemesis.netns import Netns, NetnsError
from nemesis.network import CommandReach, Network
from nemesis.target import Damage, ProcessState

KILL_TIMEOUT_S = 10.0
CLOCK_TIMEOUT_S = 5.0


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


def check(plan: Plan) -> None:
    """Refuse a plan that this machine cannot perform.

    Raises:
        ConfigError: a fault has no means here.
        SetupError: a tool is missing.
    """
    if shutil.which("setpriv") is None:
        raise SetupError("cluster 'local': setpriv not found; on Debian: apt-get install util-linux")
    try:
        faults = (event.fault for event in plan.faults)
        backends.check_faults(faults, plan.nodes, backends.choose(probe()), abilities.LOCAL)
    except FaultError as error:
        raise ConfigError(str(error)) from None
    if plan.config.via == "lb":
        balancer.require()
    Groups(("probe",), limits_of(plan)).remove()
    with scratch.passing("shims") as directory:
        _build(shims.needed(plan), Path(directory))


def _build(kinds: Sequence[str], directory: Path) -> dict[str, PurePosixPath]:
    try:
        return {kind: PurePosixPath(shim.build(kind, directory)) for kind in kinds}
    except shim.ShimError as error:
        raise SetupError(f"cluster 'local': {error}") from None


class LocalCluster(RealCluster):
    """See the module."""

    kind = "local"
    log_is_live = True

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        super().__init__(plan, service, directory, backends.choose(probe()))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._net: Netns | None = None
        self._scratch: Path | None = None
        self._groups: Groups | None = None
        self._libraries: Mapping[str, PurePosixPath] = {}

    # -- opening and closing ------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._scratch = scratch.make(self.kind)
        self._libraries = _build(self._kinds, self._scratch)
        self._shims = ShimFiles(self._scratch, self._nodes)
        self._groups = Groups(self._nodes, self._limits)
        try:
            self._net = Netns(self._nodes)
        except NetnsError as error:
            raise SetupError(f"cluster 'local': {error}") from None
        self._network = Network(CommandReach(self._net.command), self._net.addresses, self._backend)
        await self._network.open()
        for node in self._nodes:
            await self._launch(node)
        if self._plan.config.via == "lb":
            self._processes[LOAD_BALANCER] = balancer.spawn(
                self._net.command(None, []), self._service, self._net.addresses,
                f"{self._net.client_address}:{balancer.PORT}", self._scratch, self.log_file(LOAD_BALANCER),
            )  # fmt: skip

    def _end(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(KILL_TIMEOUT_S)
        if self._groups is not None:
            self._groups.remove()
        if self._net is not None:
            self._net.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _dial(self, node: str) -> Connection:
        assert self._net is not None, "the cluster is open"
        end = self._net.socket()
        try:
            end.setblocking(False)
            address = (self._net.client_address, balancer.PORT)
            if node != LOAD_BALANCER:
                address = (self._net.addresses[node], self._service.client_port)
            await asyncio.get_running_loop().sock_connect(end, address)
            return Connection(*await asyncio.open_connection(sock=end))
        except BaseException:
            end.close()
            raise

    # -- processes ----------------------------------------------------------------------------------------------

    async def _ended(self, node: str) -> str | None:
        code = self._processes[node].poll()
        if code is None:
            return None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def _kill(self, node: str) -> None:
        self._processes[node].kill()
        await asyncio.to_thread(self._processes[node].wait, KILL_TIMEOUT_S)

    async def _lose(self, node: str, *, torn: bool) -> int:
        assert self._shims is not None, "the cluster is open"
        lost = await asyncio.to_thread(power.lose, self._data_of(node), self._shims.synced(node), torn=torn)
        return sum(lost.values())

    async def _start(self, node: str) -> None:
        assert self._net is not None, "the cluster is open"
        data = self._data_of(node)
        argv = self._service.argv(sys.executable, node, self._net.addresses, data, self._plan.config.bug)
        if node in self._joins:
            argv += self._member_service().join_options
        command = self._net.command(node, ["setpriv", "--pdeathsig", "KILL", *argv])
        if self._groups is not None:
            command = self._groups.command(node, command)
        with self.log_file(node).open("ab") as log:
            self._processes[node] = self._spawn(command, log, self._environment(node, data))

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
        files = PurePosixPath(str(self._scratch))
        variables = shims.environment(
            self._kinds, self._libraries, files, node, data, notes_synced=self._notes_synced
        )
        return dict(os.environ) | variables

    async def _signal(self, node: str, number: signal.Signals) -> None:
        self._processes[node].send_signal(number)

    # -- the nemesis' side --------------------------------------------------------------------------------------

    async def _state(self, node: str) -> ProcessState:
        """The letter in `/proc/PID/stat`."""
        try:
            stat = Path(f"/proc/{self._processes[node].pid}/stat").read_text(encoding="ascii")  # noqa: ASYNC240 - no disk
        except OSError:
            return "down"
        return state_of(stat)

    async def _wall_ahead_ms(self, node: str) -> float:
        """From a process that is started as the node's is; the monotonic clock, which nobody shifts, is the measure."""
        script = "import time; print(time.time() - time.monotonic())"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=subprocess.PIPE,
            env=self._environment(node, self._data_of(node)),
        )  # fmt: skip
        said, _ = await asyncio.wait_for(process.communicate(), CLOCK_TIMEOUT_S)
        return (float(said) - (time.time() - time.monotonic())) * 1000

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage a file of a node that is down; that it may not start again is no surprise."""
        self._excused.add(node)
        return await asyncio.to_thread(inflict, self._data_of(node), damage)

    async def wipe(self, node: str) -> None:
        """Forget the node's files; it comes back as one that joins."""
        await asyncio.to_thread(shutil.rmtree, self._data_of(node), ignore_errors=True)
        self._joins.add(node)

    def _data_of(self, node: str) -> Path:
        return (self._directory / "nodes" / node).resolve()
