"""The containers and the network of one run, and the engine that keeps them.

Rules of this module
    1. Everything that is made carries labels: the run, its owner (a process), and the machine of the owner. Only what
       carries them is ever removed, and what belongs to another machine's processes is left alone.
    2. Containers get `NET_ADMIN` and are never privileged. Their first process is Docker's init.
    3. The SDK waits for answers, so these methods are called in threads; each ends within `CALL_TIMEOUT_S`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import sys
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from harness.clusters.cgroups import Limits
from harness.errors import SetupError
from nemesis import netns
from nemesis.network import CommandReach

RUN_LABEL, OWNER_LABEL, HOST_LABEL = "splitbrain.run", "splitbrain.owner", "splitbrain.host"
RUN_VARIABLE = "SPLITBRAIN_RUN"
SUBNETS = tuple(f"10.{second}.0" for second in range(92, 124))
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
CAUSES_MAX = 10
CALL_TIMEOUT_S = 60
VISIBLE_TIMEOUT_S = 1.0
FOLLOW_PAUSE_S = 0.2
CONNECTIONS_MAX = 64  # a log that is followed holds one
LOG_LIMITS = {"max-size": "64m", "max-file": "2"}
LOOPBACK = "127.0.0.1"
UNLIMITED = Limits()


def engine() -> Any:
    """A connection to the Docker engine.

    Raises:
        SetupError: the SDK is not installed, or there is no engine, or it is not for us.
    """
    try:
        sdk = importlib.import_module("docker")
        client = sdk.from_env(timeout=CALL_TIMEOUT_S, max_pool_size=CONNECTIONS_MAX)
    except (ImportError, AttributeError):
        raise SetupError(
            "cluster 'docker': the Docker SDK is missing; pip install 'splitbrain[docker]'"
        ) from None
    except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
        said = system_reason(error) or short(error)
        if "Permission denied" in said:
            raise SetupError(
                "cluster 'docker': no permission to use the Docker engine; run as root or as a member of the "
                "group docker"
            ) from None
        raise SetupError(
            f"cluster 'docker': no Docker engine answers at {os.environ.get('DOCKER_HOST') or DEFAULT_ENGINE} "
            f"({said}); start one, or name it in DOCKER_HOST"
        ) from None
    return client


def system_reason(error: BaseException | None) -> str:
    """What the operating system said, below what the libraries between made of it; empty where it said nothing.

    >>> try:
    ...     raise RuntimeError("('Aborted.', FileNotFoundError(2, ...))") from FileNotFoundError(2, "No such file")
    ... except RuntimeError as error:
    ...     system_reason(error)
    'No such file'
    """
    said = ""
    for _ in range(CAUSES_MAX):
        if error is None:
            break
        if isinstance(error, OSError) and isinstance(error.errno, int) and error.strerror:
            said = error.strerror
        error = error.__cause__ or error.__context__
    return said


def short(error: Exception) -> str:
    """The first line of what an error of the SDK says."""
    text = str(getattr(error, "explanation", None) or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def this_host() -> str:
    """The machine and the space of process numbers in which an owner can be looked for."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except OSError:
        machine = os.uname().nodename
    with contextlib.suppress(OSError):
        machine += f" {Path('/proc/self/ns/pid').readlink()}"
    return machine


def sweep() -> list[str]:
    """Remove containers and networks of owners that are gone; says what it removed."""
    try:
        client = engine()
    except SetupError:
        return []
    found = []
    of_ours = {"label": [OWNER_LABEL, f"{HOST_LABEL}={this_host()}"]}
    with contextlib.closing(client):
        for container in client.containers.list(all=True, filters=of_ours, ignore_removed=True):
            if not netns.is_alive(container.labels[OWNER_LABEL]):
                container.remove(force=True, v=True)
                found.append(f"removed container {container.name}")
        for network in client.networks.list(filters=of_ours):
            if not netns.is_alive(network.attrs["Labels"][OWNER_LABEL]):
                network.remove()
                found.append(f"removed network {network.name}")
    return found


class Box:
    """The containers and the network of one run.

    Attributes:
        name: of the run, and of its network; containers are called NAME-NODE.
    """

    def __init__(self, client: Any) -> None:
        self.name = f"splitbrain-{uuid.uuid4().hex[:8]}"
        self._is_here: bool | None = None if os.geteuid() == 0 and shutil.which("nsenter") else False
        self._client = client
        self._labels = {
            RUN_LABEL: self.name, OWNER_LABEL: netns.identity(os.getpid()), HOST_LABEL: this_host()
        }  # fmt: skip
        self._containers: dict[str, Any] = {}
        self._pids: dict[str, int] = {}
        self._followers: list[threading.Thread] = []
        self._is_removed = threading.Event()

    @property
    def is_here(self) -> bool:
        """Whether the containers' processes are visible to us as root, so that nsenter and kill reach them.

        Found out once, of the first container, which may just be about to become what it is to be.
        """
        deadline = time.monotonic() + VISIBLE_TIMEOUT_S
        while self._is_here is None and self._pids:
            pid = next(iter(self._pids.values()))
            if f"{RUN_VARIABLE}={self.name}".encode() in _environ(pid):
                self._is_here = True
            elif time.monotonic() > deadline:
                self._is_here = False
            else:
                time.sleep(0.01)
        return bool(self._is_here)

    @property
    def python(self) -> str:
        """The Python that runs where `reach` leads."""
        return sys.executable if self.is_here else "python3"

    @property
    def nodes(self) -> list[str]:
        """Names of what was made."""
        return list(self._containers)

    def make_network(self, nodes: Sequence[str]) -> dict[str, str]:
        """A private network in a subnet that is free; returns the address of each node."""
        types = importlib.import_module("docker").types
        refusal = "none is free"
        for subnet in SUBNETS:
            pool = types.IPAMPool(subnet=f"{subnet}.0/24", gateway=f"{subnet}.254")
            try:
                self._client.networks.create(
                    self.name,
                    driver="bridge",
                    ipam=types.IPAMConfig(pool_configs=[pool]),
                    labels=self._labels,
                )
            except Exception as error:  # noqa: BLE001 - the SDK's own kinds; taken by somebody else
                refusal = short(error)
                continue
            return {node: f"{subnet}.{number}" for number, node in enumerate(nodes, start=1)}
        raise SetupError(
            f"cluster 'docker': Docker gave none of the subnets 10.92.0.0/24 to 10.123.0.0/24 ({refusal}); "
            "remove unused networks with docker network prune"
        )

    def create(
        self,
        node: str,
        image: str,
        argv: Sequence[str],
        *,
        address: str | None = None,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, PurePosixPath] | None = None,
        limits: Limits = UNLIMITED,
    ) -> None:
        """A container, not started yet: in our network with that address, or in none.

        Args:
            node: what to call it.
            image: of what.
            argv: its command line.
            address: in the network of the run.
            port: to be found on loopback too.
            environment: variables, beside the image's.
            mounts: directories of this machine, and where they are seen.
            limits: of CPU and memory.
        """
        options: dict[str, Any] = {"network_mode": "none"}
        if address is not None:
            endpoint = self._client.api.create_endpoint_config(ipv4_address=address)
            options = {"network": self.name, "networking_config": {self.name: endpoint}}
        if port is not None:
            options["ports"] = {f"{port}/tcp": (LOOPBACK, None)}
        if limits.cpus is not None:
            options["nano_cpus"] = round(limits.cpus * 1e9)
        if limits.memory_mb is not None:
            options["mem_limit"] = options["memswap_limit"] = limits.memory_mb << 20
        types = importlib.import_module("docker").types
        binds = {str(here): {"bind": str(there), "mode": "rw"} for here, there in (mounts or {}).items()}
        self._containers[node] = self._client.containers.create(
            image, list(argv), name=f"{self.name}-{node}", hostname=node, cap_add=["NET_ADMIN"], init=True,
            labels=self._labels, environment={**(environment or {}), RUN_VARIABLE: self.name}, volumes=binds,
            log_config=types.LogConfig(type="json-file", config=LOG_LIMITS), **options,
        )  # fmt: skip

    def start(self, node: str) -> None:
        """Start it, the first time or again."""
        container = self._containers[node]
        container.start()
        container.reload()
        self._pids[node] = int(container.attrs["State"]["Pid"])

    def port(self, node: str, port: int) -> int:
        """Where on loopback the port of a container is found; another one after each start."""
        found = self._containers[node].attrs["NetworkSettings"]["Ports"][f"{port}/tcp"]
        return int(found[0]["HostPort"])

    def is_running(self, node: str) -> bool:
        """Whether the container runs, whatever the node in it does."""
        if self.is_here:
            return Path(f"/proc/{self._pids[node]}").exists()
        container = self._containers[node]
        container.reload()
        return bool(container.attrs["State"]["Running"])

    def how_it_ended(self, node: str) -> str:
        """What became of a container that does not run."""
        container = self._containers[node]
        container.reload()
        state = container.attrs["State"]
        return f"exit code {state['ExitCode']}" + (" (out of memory)" if state.get("OOMKilled") else "")

    def run(self, node: str, script: str) -> str:
        """Run a script of the shell in a container, as root, to its end."""
        code, said = self._containers[node].exec_run(["sh", "-c", script], user="0")
        text = said.decode(errors="replace").strip()
        if code:
            raise SetupError(f"{script[:80]!r} in {node} failed: {text}")
        return str(text)

    def pid(self, node: str) -> int:
        """The container's first process, as this machine numbers it."""
        return self._pids[node]

    def logs(self, node: str) -> bytes:
        """All that a container said."""
        said: bytes = self._containers[node].logs()
        return said

    def follow(self, node: str, file: Path) -> None:
        """Copy what a container says into a file, as it says it; a thread of its own does it until it is removed."""
        file.touch()
        thread = threading.Thread(target=self._follow, args=(node, file), daemon=True)
        self._followers.append(thread)
        thread.start()

    def _follow(self, node: str, file: Path) -> None:
        # From the start each time: what is there already is written over itself.
        while not self._is_removed.is_set():
            with contextlib.suppress(Exception), file.open("r+b") as copy:  # a quiet minute, or it is gone
                said = self._containers[node].logs(stream=True, follow=True)
                try:
                    for part in _parts(said):
                        copy.write(part)
                        copy.flush()
                finally:
                    said.close()
            self._is_removed.wait(FOLLOW_PAUSE_S)

    def put(self, node: str, path: PurePosixPath, data: bytes) -> None:
        """Write a file into a container, running or not."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
        self._containers[node].put_archive(str(path.parent), packed.getvalue())

    def get(self, node: str, path: PurePosixPath, size_max_bytes: int = 64 << 20) -> bytes:
        """A file or a directory of a container, running or not, as a tar archive."""
        packed = bytearray()
        for part in _parts(self._containers[node].get_archive(str(path))[0]):
            packed += part
            if len(packed) > size_max_bytes:
                raise SetupError(
                    f"{path} of {node} is larger than {size_max_bytes} bytes; copy it with docker cp"
                )
        return bytes(packed)

    def reach(self) -> CommandReach:
        """How commands get into the network of a node."""
        return CommandReach(self._command)

    def _command(self, node: str, argv: Sequence[str]) -> list[str]:
        if self.is_here:
            return ["nsenter", f"--target={self._pids[node]}", "--net", "--", *argv]
        return ["docker", "exec", "-i", "-u", "0", f"{self.name}-{node}", *argv]

    def remove(self) -> None:
        """Everything of this run, found by its label, also what was made by a call that was cut short."""
        self._is_removed.set()
        mine = {"label": f"{RUN_LABEL}={self.name}"}
        found = self._client.containers.list(all=True, filters=mine, ignore_removed=True)
        with ThreadPoolExecutor(8) as threads:
            for _ in threads.map(lambda container: container.remove(force=True, v=True), found):
                pass
        for network in self._client.networks.list(filters=mine):
            network.remove()
        for thread in self._followers:
            thread.join(VISIBLE_TIMEOUT_S)


def _parts(stream: Any) -> Iterator[bytes]:
    yield from stream


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
