"""`--cluster docker`: nodes are containers on a private network of their own.

Rules of this module
    1. Containers get `NET_ADMIN` and are never privileged. Everything that is made carries two labels, the run and
       its owner, and only what carries them is ever removed.
    2. A node's process is the first of its container: killing it ends the container, starting brings the same one
       back with its disk. Pausing is SIGSTOP, not the freezer, which would keep a node from being killed.
    3. A stopped container loses its network namespace and all rules with it: they are written again at its start.

Theory of operation
    Each container has a fixed address in a subnet that Docker had free, so that members know each other by address
    for the whole run. Clients come from the bridge's side, which no rule names. Rules are written by nsenter where
    we are root, which takes milliseconds, and otherwise by `docker exec`.

    The SDK waits for answers, so it is called in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.clusters.http import Connection
from harness.clusters.real import RealCluster
from harness.errors import ConfigError, SetupError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis import backend as backends
from nemesis import netns
from nemesis.backend import NETWORK_FIELDS, Abilities, Backend
from nemesis.faults import FaultError
from nemesis.network import CommandReach, Network, NetworkError
from nemesis.target import Link, Ruleset

T = TypeVar("T")

IMAGE = "splitbrain-node"
RUN_LABEL, OWNER_LABEL, SOURCES_LABEL = "splitbrain.run", "splitbrain.owner", "splitbrain.sources"
SUBNETS = tuple(f"10.{second}.0" for second in range(92, 124))
CALL_TIMEOUT_S = 60
FAULTS_OF_PROCESSES = ("kill", "pause")
DATA = Path("/data")


def engine() -> Any:
    """A connection to the Docker engine.

    Raises:
        SetupError: the SDK is not installed, or there is no engine.
    """
    try:
        sdk = importlib.import_module("docker")
        client = sdk.from_env(timeout=CALL_TIMEOUT_S)
    except (ImportError, AttributeError):
        raise SetupError(
            "cluster 'docker': the Docker SDK is missing; pip install 'splitbrain[docker]'"
        ) from None
    except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
        raise SetupError(f"cluster 'docker': no Docker engine answers ({_short(error)}); start one") from None
    return client


def build_image(context: Path, base: str) -> str:
    """Build the nodes' image and return its name.

    Raises:
        SetupError: the build failed; with the engine's last words.
    """
    client = engine()
    before = client.images.list(name=IMAGE)
    try:
        built, _ = client.images.build(
            path=str(context), tag=IMAGE, buildargs={"BASE": base}, labels={SOURCES_LABEL: sources_digest()},
            rm=True, forcerm=True,
        )  # fmt: skip
        for old in before:
            if old.id != built.id:
                with contextlib.suppress(Exception):  # in use by a run that goes on
                    client.images.remove(old.id)
    except Exception as error:  # noqa: BLE001 - as above
        raise SetupError(
            f"image {IMAGE}: {_short(error)}; where no registry is reachable make a base with docker/make-base "
            "and give it with --base"
        ) from None
    finally:
        client.close()
    return IMAGE


def sources_digest() -> str:
    """What the code of a node is now; an image that was built from other code would be tested in its place."""
    digest = hashlib.sha256()
    for package in ("raft", "nemesis"):
        found = importlib.util.find_spec(package)
        assert found is not None, "our own packages are installed"
        for root in found.submodule_search_locations or ():
            for path in sorted(Path(root).rglob("*.py")):
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _check_image(client: Any) -> None:
    try:
        labels = client.images.get(IMAGE).labels
    except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
        raise SetupError(
            f"cluster 'docker': no image {IMAGE} ({_short(error)}); make it with: splitbrain images build"
        ) from None
    if labels.get(SOURCES_LABEL) != sources_digest():
        raise SetupError(
            f"cluster 'docker': image {IMAGE} was built from other code than this; make it again with: "
            "splitbrain images build"
        )


@functools.cache
def probe() -> Abilities:
    """What can be done to the network of a container here; takes about a second, once.

    Raises:
        SetupError: no engine, no image, or the container did not start.
    """
    client = engine()
    box = _Box(client)
    try:
        _check_image(client)
        box.create("probe", ["sleep", "60"], None)
        box.start("probe")
        said = asyncio.run(box.reach().run("probe", ["sh"], backends.probe_script(box.python)))
        return backends.parse(said)
    except NetworkError as error:
        raise SetupError(f"cluster 'docker': {error}") from None
    finally:
        box.remove()
        client.close()


def check(plan: Plan) -> None:
    """Refuse a plan that cannot be performed in containers here.

    Raises:
        ConfigError: a fault has no means.
        SetupError: engine or image are missing.
    """
    backend = backends.choose(probe())
    supported = (*(name for name in NETWORK_FIELDS if backend.means(name)), *FAULTS_OF_PROCESSES)
    reasons = {name: backend.reason(name) for name in NETWORK_FIELDS}
    try:
        backends.check_supported((event.fault for event in plan.faults), plan.nodes, supported, reasons)
    except FaultError as error:
        raise ConfigError(str(error)) from None


def sweep() -> list[str]:
    """Remove containers and networks of owners that are gone; says what it removed."""
    try:
        client = engine()
    except SetupError:
        return []
    found = []
    try:
        of_ours = {"label": OWNER_LABEL}
        for container in client.containers.list(all=True, filters=of_ours, ignore_removed=True):
            if not netns.is_alive(container.labels[OWNER_LABEL]):
                container.remove(force=True, v=True)
                found.append(f"removed container {container.name}")
        for network in client.networks.list(filters=of_ours):
            if not netns.is_alive(network.attrs["Labels"][OWNER_LABEL]):
                network.remove()
                found.append(f"removed network {network.name}")
    finally:
        client.close()
    return found


class _Box:
    """The containers and the network of one run; every method waits for the engine."""

    def __init__(self, client: Any) -> None:
        self.name = f"splitbrain-{uuid.uuid4().hex[:8]}"
        self.by_nsenter = os.geteuid() == 0 and shutil.which("nsenter") is not None
        self.python = sys.executable if self.by_nsenter else "python3"
        self._client = client
        self._labels = {RUN_LABEL: self.name, OWNER_LABEL: netns.identity(os.getpid())}
        self._network: Any = None
        self._containers: dict[str, Any] = {}
        self._pids: dict[str, int] = {}

    def make_network(self, nodes: Sequence[str]) -> dict[str, str]:
        """A private network; returns the address of each node."""
        types = importlib.import_module("docker").types
        for subnet in SUBNETS:
            pool = types.IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.254")
            with contextlib.suppress(Exception):  # taken by somebody else
                self._network = self._client.networks.create(
                    self.name,
                    driver="bridge",
                    ipam=types.IPAMConfig(pool_configs=[pool]),
                    labels=self._labels,
                )
                return {node: f"{subnet}.{number}" for number, node in enumerate(nodes, start=1)}
        raise SetupError(
            "cluster 'docker': Docker gave none of the subnets 10.92.0.0/24 to 10.123.0.0/24; remove unused "
            "networks with docker network prune"
        )

    def create(self, node: str, argv: Sequence[str], address: str | None) -> None:
        """A container, not started yet."""
        options: dict[str, Any] = {}
        if address is not None:
            endpoint = self._client.api.create_endpoint_config(ipv4_address=address)
            options = {"network": self.name, "networking_config": {self.name: endpoint}}
        else:
            options = {"network_mode": "none"}
        try:
            self._containers[node] = self._client.containers.create(
                IMAGE, list(argv), name=f"{self.name}-{node}", hostname=node, cap_add=["NET_ADMIN"],
                labels=self._labels, **options,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - as above
            raise SetupError(f"cluster 'docker': {node} was not made: {_short(error)}") from None

    def start(self, node: str) -> None:
        container = self._containers[node]
        container.start()
        container.reload()
        self._pids[node] = int(container.attrs["State"]["Pid"])

    def state(self, node: str) -> dict[str, Any]:
        container = self._containers[node]
        container.reload()
        state: dict[str, Any] = container.attrs["State"]
        return state

    def signal(self, node: str, name: str) -> None:
        self._containers[node].kill(signal=name)

    def wait(self, node: str) -> None:
        self._containers[node].wait(timeout=CALL_TIMEOUT_S)

    def logs(self, node: str) -> bytes:
        said: bytes = self._containers[node].logs()
        return said

    def nodes(self) -> list[str]:
        return list(self._containers)

    def reach(self) -> CommandReach:
        """How commands get into the network of a node."""
        return CommandReach(self._command)

    def _command(self, node: str, argv: Sequence[str]) -> list[str]:
        if self.by_nsenter:
            return ["nsenter", f"--target={self._pids[node]}", "--net", "--", *argv]
        return ["docker", "exec", "-i", f"{self.name}-{node}", *argv]

    def remove(self) -> None:
        """Everything of this run, found by its label, also what was made by a call that was cut short."""
        mine = {"label": f"{RUN_LABEL}={self.name}"}
        for container in self._client.containers.list(all=True, filters=mine, ignore_removed=True):
            container.remove(force=True, v=True)
        for network in self._client.networks.list(filters=mine):
            network.remove()


class DockerCluster(RealCluster):
    """See the module."""

    kind = "docker"

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        super().__init__(plan, service, directory)
        self._backend: Backend = backends.choose(probe())
        self._client = engine()
        self._box = _Box(self._client)
        self._addresses: dict[str, str] = {}
        self._network: Network | None = None
        # A restarted node gets its rules while the network may be changing: one packet queue a node, not two.
        self._writing = asyncio.Lock()
        self._up: set[str] = set()
        self._starts = 0
        self._met: dict[Link, int] = {}

    async def _begin(self) -> None:
        box = self._box
        self._addresses = await asyncio.to_thread(box.make_network, self._nodes)
        for node in self._nodes:
            argv = self._service.argv("python3", node, self._addresses, DATA, self._plan.config.bug)
            await asyncio.to_thread(box.create, node, argv, self._addresses[node])
        await asyncio.gather(*(self._start_container(node) for node in self._nodes))
        self._network = Network(box.reach(), self._addresses, self._backend, python=box.python)
        await self._network.open()

    async def _start_container(self, node: str) -> None:
        await self._call(f"{node} was not started", lambda: self._box.start(node))
        self._up.add(node)
        self._starts += 1

    async def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except Exception as error:  # noqa: BLE001 - as above
            raise SetupError(f"cluster 'docker': {what}: {_short(error)}") from None

    async def _finish(self) -> None:
        self._deaths += await asyncio.to_thread(self._dead)
        if self._network is not None:
            await self._network.heal()

    def _end(self) -> None:
        try:
            self._save_logs()
        finally:
            self._box.remove()
            self._client.close()

    def _save_logs(self) -> None:
        for node in self._box.nodes():
            with contextlib.suppress(Exception):  # a log that cannot be had must not keep anything alive
                self.log_file(node).write_bytes(self._box.logs(node))

    async def _dial(self, node: str) -> Connection:
        port = self._service.client_port
        return Connection(*await asyncio.open_connection(self._addresses[node], port))

    def _dead(self) -> list[str]:
        dead = []
        for node in sorted(self._up):
            state = self._box.state(node)
            if not state["Running"]:
                self.log_file(node).write_bytes(self._box.logs(node))
                dead.append(
                    f"{node} ended with exit code {state['ExitCode']}, its last words: {self.last_words(node)}"
                )
        return dead

    def facts(self) -> dict[str, Any]:
        """The means that were used, and whether they bit."""
        return {
            "network_backend": msgspec.to_builtins(self._backend),
            "network_reached_by": "nsenter" if self._box.by_nsenter else "docker exec",
            "packets_met_by_faults": sum(self._met.values()),
            "packets_met_by_link": {f"{src}->{dst}": n for (src, dst), n in sorted(self._met.items())},
            "processes_started": self._starts,
        }

    # -- the nemesis' side ----------------------------------------------------------------------------------------

    async def set_network(self, rules: Ruleset) -> None:
        """Count what the rules so far met, then replace them."""
        if self._network is None:
            return
        async with self._writing:
            for link, count in (await self._network.evidence()).items():
                self._met[link] = self._met.get(link, 0) + count
            await self._network.apply(rules)

    async def kill(self, node: str) -> None:
        """SIGKILL to the container's only process."""
        if node not in self._up or self._network is None:
            return
        self._up.discard(node)
        async with self._writing:
            await self._network.leave(node)
        await self._call(f"{node} was not killed", lambda: self._box.signal(node, "SIGKILL"))
        await self._call(f"{node} did not end", lambda: self._box.wait(node))

    async def start(self, node: str) -> None:
        """Start the container again, and write its rules again."""
        if self._network is None or node in self._up:
            return
        await self._start_container(node)
        async with self._writing:
            await self._network.refresh(node)

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        if node in self._up:
            await self._call(f"{node} was not paused", lambda: self._box.signal(node, "SIGSTOP"))

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        if node in self._up:
            await self._call(f"{node} was not resumed", lambda: self._box.signal(node, "SIGCONT"))


def _short(error: Exception) -> str:
    """The first line of what an error of the SDK says."""
    text = str(getattr(error, "explanation", None) or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
