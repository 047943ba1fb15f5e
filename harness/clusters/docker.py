"""`--cluster docker`: nodes are containers on a private network of their own.

Rules of this module
    1. Kill, start, pause and resume are about the node's process; its container stays (`docker_node`). Pausing is
       SIGSTOP, not the freezer, which would keep it from being killed.
    2. A container that ended nevertheless loses its network namespace and all rules with it: they are written again
       when it was started again, to the device that has its address then.
    3. What the image lacks or has of old is built before the run.

Theory of operation
    Each container has a fixed address in a subnet that Docker had free, so that members know each other by address
    for the whole run. Clients come from the bridge's side, which no rule names; where the engine runs on another
    machine (or in a virtual one) they take the ports on loopback instead. Rules are written by nsenter where we are
    root, which takes milliseconds, and otherwise by `docker exec`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from harness.clusters import abilities, balancer, docker_node, images, scratch, shims
from harness.clusters.base import LOAD_BALANCER
from harness.clusters.docker_box import LOOPBACK, Box, engine, short
from harness.clusters.http import Connection
from harness.clusters.real import RealCluster
from harness.clusters.real_nemesis import CLOCK_SCRIPT, ahead_ms, state_of
from harness.clusters.shims import ShimFiles
from harness.errors import ConfigError, SetupError, SplitbrainError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis import backend as backends
from nemesis import damage as damages
from nemesis import power
from nemesis.backend import Abilities
from nemesis.faults import FaultError
from nemesis.network import Network, NetworkError
from nemesis.target import Damage, ProcessState

T = TypeVar("T")

DATA = Path("/data")
SHIM_FILES = PurePosixPath("/run/splitbrain")
DIRECT_TIMEOUT_S = 1.0
NO_SHIM = (
    "no C compiler when the image was built: apt-get install gcc libc6-dev, then splitbrain images build"
)


@functools.cache
def probe() -> Abilities:
    """What can be done to the network of a container here; takes about a second, once.

    Raises:
        SetupError: no engine, no image, or the container did not start.
    """
    with contextlib.closing(engine()) as client:
        if (why := images.problem(client)) is not None:
            raise SetupError(f"cluster 'docker': {why}; make it with: splitbrain images build")
        box = Box(client)
        try:
            return asyncio.run(_tried(box))
        except NetworkError as error:
            raise SetupError(f"cluster 'docker': {error}") from None
        except SplitbrainError:
            raise
        except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
            raise SetupError(f"cluster 'docker': a container was not started: {short(error)}") from None
        finally:
            box.remove()


async def _tried(box: Box) -> Abilities:
    """What a container can. The engine makes one to its end, also when we are told to stop: so that is waited for."""
    await asyncio.to_thread(box.create, "probe", images.node_image(), ["sleep", "60"])
    await asyncio.to_thread(box.start, "probe")
    said = await box.reach().run("probe", ["sh"], backends.probe_script(box.python))
    return backends.parse(said)


def libraries() -> tuple[str, ...]:
    """The kinds of library that the image of a node has."""
    with contextlib.closing(engine()) as client:
        return images.shims_of(client)


def check(plan: Plan) -> None:
    """Refuse a plan that cannot be performed in containers here; builds images that are missing.

    Raises:
        ConfigError: a fault has no means.
        SetupError: there is no engine, or an image cannot be built.
    """
    with contextlib.closing(engine()) as client:
        images.ensure(client, _say, balancer=plan.config.via == "lb")
    backend = backends.choose(probe())
    there = libraries()
    others = [name for name in abilities.DOCKER if abilities.library_of(name) in (None, *there)]
    reasons = dict.fromkeys(
        (name for name in abilities.DOCKER if name not in others),
        "no C compiler when the image was built: apt-get install gcc libc6-dev",
    )
    try:
        backends.check_faults((event.fault for event in plan.faults), plan.nodes, backend, others, reasons)
    except FaultError as error:
        raise ConfigError(str(error)) from None


def _say(line: str) -> None:
    sys.stderr.write(f"cluster 'docker': {line}\n")


class DockerCluster(RealCluster):
    """See the module."""

    kind = "docker"
    log_is_live = True

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        super().__init__(plan, service, directory, backends.choose(probe()))
        self._client = engine()
        self._box = Box(self._client)
        self._scratch: Path | None = None
        self._is_direct = False
        self._made: set[str] = set()  # nodes whose container was started once

    async def _begin(self) -> None:
        box = self._box
        self._scratch = scratch.make(self.kind)
        self._shims = ShimFiles(self._scratch, self._nodes)
        self._addresses = await asyncio.to_thread(box.make_network, (*self._nodes, LOAD_BALANCER))
        lb_address = self._addresses.pop(LOAD_BALANCER)
        await asyncio.gather(*(self._call(f"{node} was not made", self._maker(node)) for node in self._nodes))
        await asyncio.gather(*(self._launch(node) for node in self._nodes))
        for node in self._nodes:
            box.follow(node, self.log_file(node))
        if self._plan.config.via == "lb":
            await self._call("the load balancer was not started", lambda: self._start_balancer(lb_address))
            self._addresses[LOAD_BALANCER] = lb_address
        await asyncio.to_thread(lambda: box.is_here)  # may wait
        self._is_direct = await self._can_dial_directly()
        nodes = {node: self._addresses[node] for node in self._nodes}
        self._network = Network(box.reach(), nodes, self._backend, python=box.python)
        await self._network.open()

    def _maker(self, node: str) -> Callable[[], None]:
        assert self._scratch is not None, "the cluster is opening"
        libraries = {kind: images.library(kind) for kind in self._kinds}
        return functools.partial(
            self._box.create,
            node,
            images.node_image(),
            docker_node.keeper(
                self._service.argv("python3", node, self._addresses, DATA, self._plan.config.bug)
            ),
            address=self._addresses[node],
            port=self._service.client_port,
            environment=shims.environment(
                self._kinds, libraries, SHIM_FILES, node, DATA, notes_synced=self._notes_synced
            ),
            mounts={self._scratch: SHIM_FILES},
            limits=self._limits,
        )

    def _start_balancer(self, address: str) -> None:
        nodes = {node: self._addresses[node] for node in self._nodes}
        config = balancer.config(self._service, nodes).encode()
        file = PurePosixPath("/etc/haproxy/run.cfg")
        argv = ["haproxy", "-W", "-db", "-f", str(file)]
        self._box.create(LOAD_BALANCER, images.LB_IMAGE, argv, address=address, port=balancer.PORT)
        self._box.put(LOAD_BALANCER, file, config)
        self._box.start(LOAD_BALANCER)

    async def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except Exception as error:  # noqa: BLE001 - as above
            raise SetupError(f"cluster 'docker': {what}: {short(error)}") from None

    async def _can_dial_directly(self) -> bool:
        """Whether containers are reached by their addresses: somebody answers there, if only by refusing."""
        address = (self._addresses[self._nodes[0]], self._service.client_port)
        try:
            async with asyncio.timeout(DIRECT_TIMEOUT_S):
                Connection(*await asyncio.open_connection(*address)).drop()
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        return True

    def _end(self) -> None:
        try:
            self._save_logs()
        finally:
            self._box.remove()
            self._client.close()
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)

    def _save_logs(self) -> None:
        for node in self._box.nodes:
            with contextlib.suppress(Exception):  # a log that cannot be had must not keep anything alive
                self.log_file(node).write_bytes(self._box.logs(node))

    async def _dial(self, node: str) -> Connection:
        port = balancer.PORT if node == LOAD_BALANCER else self._service.client_port
        if self._is_direct:
            return Connection(*await asyncio.open_connection(self._addresses[node], port))
        return Connection(*await asyncio.open_connection(LOOPBACK, self._box.port(node, port)))

    def facts(self) -> dict[str, Any]:
        """The means that were used, and whether they bit."""
        reached = {"network_reached_by": "nsenter" if self._box.is_here else "docker exec"}
        dialled = {"clients_dial": "addresses" if self._is_direct else "ports on loopback"}
        return super().facts() | reached | dialled

    # -- processes ----------------------------------------------------------------------------------------------

    async def _ended(self, node: str) -> str | None:
        how = await self._call(f"{node} was not looked at", lambda: docker_node.ended(self._box, node))
        if how is not None:
            self.log_file(node).write_bytes(
                await self._call(f"no log of {node}", lambda: self._box.logs(node))
            )
            if self._network is not None and not await asyncio.to_thread(self._box.is_running, node):
                await self._network.leave(node)
        return how

    async def _kill(self, node: str) -> None:
        await self._call(f"{node} was not killed", lambda: docker_node.kill(self._box, node))

    async def _lose(self, node: str, *, torn: bool) -> int:
        """From here where the container's files can be seen from here, which takes milliseconds."""
        box = self._box
        if box.is_here:
            assert self._shims is not None, "the cluster is open"
            data = Path(f"/proc/{box.pid(node)}/root{DATA}")
            lost = await asyncio.to_thread(power.lose, data, self._shims.synced(node), torn=torn)
            return sum(lost.values())
        synced = Path(SHIM_FILES / shims.file_of(node, shims.SYNCED))
        script = shlex.join(power.argv(DATA, synced, torn=torn))
        return power.lost_bytes(await self._call(f"no loss on {node}", lambda: box.run(node, script)))

    async def _start(self, node: str) -> None:
        if node in self._made and await asyncio.to_thread(self._box.is_running, node):
            await self._call(f"{node} was not started", lambda: docker_node.start(self._box, node))
            return
        await self._call(f"{node} was not started", lambda: self._box.start(node))
        if node in self._made and self._network is not None:
            async with self._writing:
                await self._network.refresh(node)
        self._made.add(node)

    async def _signal(self, node: str, number: signal.Signals) -> None:
        await self._call(f"no {number.name} to {node}", lambda: docker_node.send(self._box, node, number))

    async def _state(self, node: str) -> ProcessState:
        return state_of(await self._call(f"no state of {node}", lambda: docker_node.stat(self._box, node)))

    async def _wall_ahead_ms(self, node: str) -> float:
        """From a process in the container, which has the node's environment."""
        return ahead_ms(await self._call(f"no clock of {node}", lambda: self._box.run(node, CLOCK_SCRIPT)))

    # -- files ----------------------------------------------------------------------------------------------------

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage a file of a node that is down; that it may not start again is no surprise."""
        self._excused.add(node)
        script = shlex.join(damages.argv(DATA, damage))
        return await self._call(f"no damage to {node}", lambda: self._box.run(node, script))

    async def wipe(self, node: str) -> None:
        """Forget the node's files; it comes back as one that joins."""
        options = self._member_service().join_options
        await self._call(
            f"{node} was not wiped", lambda: self._box.run(node, f"find {DATA} -mindepth 1 -delete")
        )
        await self._call(
            f"{node} was not told to join", lambda: docker_node.add_options(self._box, node, options)
        )
        self._joins.add(node)
