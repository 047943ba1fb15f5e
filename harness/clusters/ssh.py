"""`--cluster ssh --node user@host ...`: nodes are hosts reached over ssh, where `sudo` may run tc.

Rules of this module
    1. Nothing has to be prepared on a host but Python, tc, iptables, a key of ours, and `sudo` without a password;
       `ssh_site` brings all else and removes it.
    2. Only what nodes say to each other is disturbed, by address: our own connection and the clients' are not.
    3. Hosts are one machine each: two nodes on one would want the same ports.

Theory of operation
    Clients dial the hosts' addresses from here. The plan, the faults and the checks are those of all clusters.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.clusters import abilities, balancer, scratch, shims
from harness.clusters.base import LOAD_BALANCER
from harness.clusters.http import Connection
from harness.clusters.real import RealCluster
from harness.clusters.real_nemesis import CLOCK_SCRIPT, ahead_ms, state_of
from harness.clusters.shims import ShimFiles
from harness.clusters.ssh_pool import CommandError, parse_host, pool_for
from harness.clusters.ssh_site import Site
from harness.config import Config
from harness.errors import ConfigError, SetupError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis import backend as backends
from nemesis import damage as damages
from nemesis import disk, power
from nemesis.backend import Abilities
from nemesis.faults import FaultError
from nemesis.network import Network, NetworkError
from nemesis.target import Damage, ProcessState

LOOPBACK = "127.0.0.1"


@functools.cache
def probe(hosts: tuple[str, ...], key: str | None, known_hosts: str | None) -> Abilities:
    """What can be done to the network of all of these hosts; tried once.

    Raises:
        SetupError: a host cannot be reached or used.
    """
    nodes = [f"n{number}" for number, _ in enumerate(hosts, start=1)]
    return asyncio.run(_probe(Site(pool_for(nodes, hosts, key, known_hosts))))


async def _probe(site: Site) -> Abilities:
    try:
        await site.open()
        await site.install(())
        said = await asyncio.gather(*(_tried(site, node) for node in site.nodes))
        await site.close()
    finally:
        site.drop()
    merged: dict[str, str | None] = {}
    for node, found in zip(site.nodes, said, strict=True):
        for name, refusal in found.refusals.items():
            if merged.setdefault(name) is None and refusal is not None:
                merged[name] = f"{site.pool.hosts[node].shown}: {refusal}"
    return Abilities(merged)


async def _tried(site: Site, node: str) -> Abilities:
    if site.facts[node].sudo == "false":
        reason = f"sudo wants a password; allow {site.pool.hosts[node].user} tc and iptables without one (NOPASSWD)"
        return Abilities(dict.fromkeys(backends.PROBES, reason))
    try:
        return backends.parse(await site.run(node, ["sh"], backends.probe_script("python3")))
    except NetworkError as error:
        raise SetupError(f"cluster 'ssh': {error}") from None


def _of(config: Config) -> tuple[tuple[str, ...], str | None, str | None]:
    return config.hosts, config.ssh_key, config.ssh_known_hosts


def check(plan: Plan) -> None:
    """Refuse a plan that cannot be performed on these hosts.

    Raises:
        ConfigError: there are no hosts, or a fault has no means.
        SetupError: a host cannot be used.
    """
    if not plan.config.hosts:
        raise ConfigError("cluster 'ssh' needs hosts; give each with --node user@host")
    _refuse_twice(plan.config.hosts)
    backend = backends.choose(probe(*_of(plan.config)))
    try:
        faults = (event.fault for event in plan.faults)
        backends.check_faults(faults, plan.nodes, backend, abilities.SSH)
    except FaultError as error:
        raise ConfigError(str(error)) from None
    if plan.config.via == "lb":
        balancer.require()


def _refuse_twice(hosts: Sequence[str]) -> None:
    """Two nodes of one machine would want the same ports there."""
    seen: dict[tuple[str, int] | str, None] = {}
    for text in hosts:
        host = parse_host(text)
        for place in ((host.name, host.port), host.address):
            if place and place in seen:
                raise ConfigError(f"node {text!r} is there twice; give each node a host of its own")
            seen[place] = None


class SshCluster(RealCluster):
    """See the module."""

    kind = "ssh"
    log_is_live = True

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        super().__init__(plan, service, directory, backends.choose(probe(*_of(plan.config))))
        hosts, key, known_hosts = _of(plan.config)
        self._site = Site(pool_for(self._nodes, hosts, key, known_hosts))
        self._scratch: Path | None = None
        self._balancer: subprocess.Popen[bytes] | None = None
        self._balancer_port = 0
        self._published: dict[
            str, bytes
        ] = {}  # shim files as the hosts have them, but for what is counted there

    async def _begin(self) -> None:
        self._scratch = scratch.make(self.kind)
        site = self._site
        await site.open()
        await site.install(self._kinds)
        self._addresses = site.addresses
        for node in self._nodes:
            self._ahead_ns[node] = await site.pool.call(site.ahead_ns, node)
        self._shims = ShimFiles(self._scratch, self._nodes, self._publish)
        if self._kinds:
            await asyncio.gather(*(self._put_shim_files(node) for node in self._nodes))
        self._network = Network(site, self._addresses, self._backend, python="python3")
        await self._network.open()
        await asyncio.gather(*(self._launch(node) for node in self._nodes))
        for node in self._nodes:
            await site.pool.call(site.follow, node, self.log_file(node))
        if self._plan.config.via == "lb":
            self._balancer_port = balancer.free_port()
            self._balancer = balancer.spawn(
                [], self._service, self._addresses, f"{LOOPBACK}:{self._balancer_port}", self._scratch,
                self.log_file(LOAD_BALANCER),
            )  # fmt: skip

    async def _put_shim_files(self, node: str) -> None:
        assert self._scratch is not None, "the cluster is opening"
        for kind in self._kinds:
            file = shims.file_of(node, kind)
            self._published[file] = (self._scratch / file).read_bytes()
            await self._site.pool.call(
                self._site.pool.put, node, self._site.directory / file, self._published[file]
            )

    async def _publish(self, file: Path) -> None:
        """Only what changed: the node has it mapped, and its library counts in the rest."""
        pool, node = self._site.pool, file.name.partition(".")[0]
        if file.name in self._published:
            old, new = self._published[file.name], file.read_bytes()  # noqa: ASYNC240 - some bytes, in memory
            await pool.call(pool.change, node, self._site.directory / file.name, old, new)
            self._published[file.name] = new

    async def probe_troubles(self, node: str) -> Mapping[str, int]:
        """The library's counts are in the file on the host."""
        file = shims.file_of(node, "disk")
        if file in self._published and self._scratch is not None:
            there = self._scratch / f"{file}.there"
            pool = self._site.pool
            there.write_bytes(await pool.call(pool.read, node, self._site.directory / file))
            return {**await super().probe_troubles(node), **disk.read_struck(there)}
        return await super().probe_troubles(node)

    async def close(self) -> None:
        """Fetch the logs, then end everything."""
        await super().close()
        await asyncio.gather(*(self._fetch_log(node) for node in self._nodes))
        await self._site.close()

    async def _fetch_log(self, node: str) -> None:
        with contextlib.suppress(
            SetupError, OSError
        ):  # a log that cannot be had must not keep anything alive
            await self._site.pool.call(self._site.log, node, self.log_file(node))

    def _end(self) -> None:
        if self._balancer is not None:
            self._balancer.kill()
            self._balancer.wait()
        self._site.drop()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _dial(self, node: str) -> Connection:
        if node == LOAD_BALANCER:
            return Connection(*await asyncio.open_connection(LOOPBACK, self._balancer_port))
        return Connection(*await asyncio.open_connection(self._addresses[node], self._service.client_port))

    # -- processes ----------------------------------------------------------------------------------------------

    async def _ended(self, node: str) -> str | None:
        how = await self._site.pool.call(self._site.ended, node)
        if how is not None:
            await self._fetch_log(node)
        return how

    async def _kill(self, node: str) -> None:
        await self._site.pool.call(self._site.kill, node)

    async def _lose(self, node: str, *, torn: bool) -> int:
        synced = Path(self._site.directory / shims.file_of(node, shims.SYNCED))
        return power.lost_bytes(await self._beside(node, power.argv(self._data, synced, torn=torn)))

    async def _start(self, node: str) -> None:
        site = self._site
        argv = self._service.argv("python3", node, self._addresses, self._data, self._plan.config.bug)
        if node in self._joins:
            argv += self._member_service().join_options
        environment = self._environment(node)
        try:
            await site.pool.call(site.start, node, argv, environment)
        except CommandError as error:
            raise SetupError(f"cluster 'ssh': {node} was not started: {error}") from None

    def _environment(self, node: str) -> dict[str, str]:
        site = self._site
        libraries = {kind: site.library(kind) for kind in self._kinds}
        files = PurePosixPath(site.directory)
        return shims.environment(
            self._kinds, libraries, files, node, self._data, notes_synced=self._notes_synced
        )

    @property
    def _data(self) -> Path:
        return Path(self._site.directory / "data")

    async def _state(self, node: str) -> ProcessState:
        return state_of(await self._site.pool.call(self._site.stat, node))

    async def _wall_ahead_ms(self, node: str) -> float:
        environment = self._environment(node)
        return ahead_ms(await self._site.pool.call(self._site.run_beside, node, CLOCK_SCRIPT, environment))

    async def _signal(self, node: str, number: signal.Signals) -> None:
        await self._site.pool.call(self._site.signal, node, number)

    # -- files ----------------------------------------------------------------------------------------------------

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage a file of a node that is down; that it may not start again is no surprise."""
        self._excused.add(node)
        return (await self._beside(node, damages.argv(self._data, damage))).strip()

    async def _beside(self, node: str, argv: Sequence[str]) -> str:
        """Run something of ours where the node is."""
        code = {"PYTHONPATH": f"{self._site.directory}/code"}
        said: str = await self._site.pool.call(self._site.run_beside, node, shlex.join(argv), code)
        return said

    async def wipe(self, node: str) -> None:
        """Forget the node's files; it comes back as one that joins."""
        await self._site.pool.call(self._site.run_beside, node, f"rm -rf {self._data}", {})
        self._joins.add(node)
