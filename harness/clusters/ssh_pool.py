"""Connections to the hosts of a cluster over ssh: one a host, shared by all that is done there.

Rules of this module
    1. Host keys are checked against known_hosts, and an unknown one is refused: whoever answers in a host's place
       would be given root by `sudo`.
    2. At most `CHANNELS_MAX` commands run on a host at a time: sshd refuses more than ten sessions of one connection,
       four are in use all the while, and two shells wait for the next command (`ssh_shell`).
    3. A connection that broke is opened again, once, by whoever needs it next.
    4. Every wait has an end. The library waits in threads, of which there is a bounded number.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import getpass
import importlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from harness.clusters.ssh_shell import Shells
from harness.errors import ConfigError, SetupError

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 30.0
CHANNELS_MAX = 4
THREADS_MAX = 64
PORT = 22


class Host(NamedTuple):
    """One `--node`: who to be, where, and by which address the other nodes reach it ('' for the same)."""

    user: str
    name: str
    port: int
    address: str

    @property
    def shown(self) -> str:
        """As a user would write it."""
        return f"{self.user}@{self.name}" + (f":{self.port}" if self.port != PORT else "")


def parse_host(text: str) -> Host:
    """`[user@]host[:port][=address]`.

    >>> parse_host("raft@db1:2222=10.0.0.1")
    Host(user='raft', name='db1', port=2222, address='10.0.0.1')

    Raises:
        ConfigError: it is not of that form.
    """
    where, _, address = text.partition("=")
    user, _, where = where.rpartition("@")
    name, _, port = where.partition(":")
    if not name or (port and not (port.isdigit() and 0 < int(port) < 1 << 16)):
        raise ConfigError(f"node {text!r} is not of the form [user@]host[:port][=address]; mend --node")
    return Host(user or getpass.getuser(), name, int(port or PORT), address)


class CommandError(RuntimeError):
    """A command on a host failed; the message names both, and what was said."""


class Pool:
    """The connections; every method waits, and is called in threads (see `call`).

    Args:
        hosts: by the name of the node.
        key: a file with the private key, or None for the agent's and the usual ones.
        known_hosts: a file beside the user's own, or None.
    """

    def __init__(self, hosts: Mapping[str, Host], key: str | None, known_hosts: str | None) -> None:
        try:
            self._ssh: Any = importlib.import_module("paramiko")
        except ImportError:
            raise SetupError("cluster 'ssh': paramiko is missing; pip install 'splitbrain[ssh]'") from None
        self.hosts = dict(hosts)
        self._key = key
        self._known_hosts = known_hosts
        self._clients: dict[str, Any] = {}
        self._locks = {node: threading.Lock() for node in hosts}
        self._channels = {node: threading.BoundedSemaphore(CHANNELS_MAX) for node in hosts}
        self._shells: dict[tuple[str, str], Shells] = {}
        self._threads = ThreadPoolExecutor(
            min(THREADS_MAX, CHANNELS_MAX * len(hosts)), thread_name_prefix="ssh"
        )

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something that waits, in one of our threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    # -- connections --------------------------------------------------------------------------------------------

    def connect(self, node: str) -> Any:
        """The connection to a host, opened if there is none that works.

        Raises:
            SetupError: it cannot be had; with the reason and what helps.
        """
        with self._locks[node]:
            client = self._clients.get(node)
            if client is None or client.get_transport() is None or not client.get_transport().is_active():
                client = self._clients[node] = self._open(self.hosts[node])
            return client

    def _open(self, host: Host) -> Any:
        ssh = self._ssh
        client = ssh.SSHClient()
        client.load_system_host_keys()
        try:
            if self._known_hosts is not None:
                client.load_host_keys(self._known_hosts)
            client.set_missing_host_key_policy(ssh.RejectPolicy())
            client.connect(
                host.name, host.port, host.user, key_filename=self._key, allow_agent=self._key is None,
                look_for_keys=self._key is None, timeout=CONNECT_TIMEOUT_S, banner_timeout=CONNECT_TIMEOUT_S,
                auth_timeout=CONNECT_TIMEOUT_S, channel_timeout=COMMAND_TIMEOUT_S,
            )  # fmt: skip
            client.get_transport().set_keepalive(5)
        except Exception as error:  # noqa: BLE001 - each with its remedy
            client.close()
            raise SetupError(f"cluster 'ssh': {host.shown}: {self._remedy(error, host)}") from None
        return client

    def _remedy(self, error: Exception, host: Host) -> str:
        ssh, port = self._ssh, f"-p {host.port} " if host.port != PORT else ""
        if isinstance(error, ssh.BadHostKeyException):
            return (
                "its host key is not the one in known_hosts: another machine answers, or it was set up anew"
            )
        if isinstance(error, ssh.AuthenticationException):
            return f"our keys are refused; put one there with: ssh-copy-id {port}{host.user}@{host.name}"
        if isinstance(error, ssh.SSHException) and "known_hosts" in str(error):
            return (
                "its host key is not in known_hosts; look at it and add it with: "
                f"ssh-keyscan {port}{host.name} >> ~/.ssh/known_hosts"
            )
        tried = list(getattr(error, "errors", {}).values())  # paramiko's, one of each address
        said = getattr(tried[0] if tried else error, "strerror", None) or str(error) or type(error).__name__
        return f"no connection ({said}); check that sshd runs there"

    def close(self) -> None:
        """End all connections."""
        for client in self._clients.values():
            with contextlib.suppress(Exception):
                client.close()
        self._threads.shutdown(wait=True)

    # -- commands -----------------------------------------------------------------------------------------------

    def open_channel(self, node: str, command: str) -> Any:
        """Start a command; the channel is its input and output. The caller closes it."""
        channel = self.connect(node).get_transport().open_session(timeout=CONNECT_TIMEOUT_S)
        channel.settimeout(COMMAND_TIMEOUT_S)
        channel.exec_command(command)
        return channel

    def run(self, node: str, command: str, stdin: bytes = b"") -> bytes:
        """Run a command of the shell to its end and return what it printed.

        Raises:
            CommandError: it failed, or took too long.
            SetupError: there is no connection.
        """
        with self._channels[node]:
            channel = self.open_channel(node, command)
            try:
                if stdin:
                    channel.sendall(stdin)
                channel.shutdown_write()
                out = _all_of(channel.recv)
                error = _all_of(channel.recv_stderr)
                code = channel.recv_exit_status()
            except TimeoutError:
                raise CommandError(
                    f"{command[:80]!r} on {node} took more than {COMMAND_TIMEOUT_S:g} s"
                ) from None
            finally:
                channel.close()
        if code:
            raise CommandError(f"{command[:80]!r} on {node} failed: {error.decode(errors='replace').strip()}")
        return out

    def ask(self, node: str, command: str, stdin: str = "", *, sudo: str = "") -> bytes:
        """The same by a shell that stays, which takes one round trip; for text.

        Raises:
            CommandError: it failed, or took too long.
            SetupError: there is no connection.
        """
        with self._locks[node]:
            shells = self._shells.setdefault(
                (node, sudo), Shells(functools.partial(self.open_channel, node, f"{sudo} sh".strip()))
            )
        with self._channels[node]:
            try:
                with shells.borrow() as shell:
                    answer = shell.ask(command, stdin)
            except (OSError, EOFError) as error:
                why = (
                    f"took more than {COMMAND_TIMEOUT_S:g} s"
                    if isinstance(error, TimeoutError)
                    else str(error)
                )
                raise CommandError(f"{command[:80]!r} on {node}: {why}") from None
        if answer.code:
            said = answer.error.decode(errors="replace").strip()
            raise CommandError(f"{command[:80]!r} on {node} failed: {said}")
        return answer.out

    # -- files --------------------------------------------------------------------------------------------------

    def put(self, node: str, path: PurePosixPath, data: bytes) -> None:
        """Write a file on a host."""
        with self._channels[node], self.connect(node).open_sftp() as sftp:
            sftp.get_channel().settimeout(COMMAND_TIMEOUT_S)
            with sftp.open(str(path), "w") as file:
                file.write(data)

    def change(self, node: str, path: PurePosixPath, old: bytes, new: bytes) -> None:
        """Write over what differs between two contents: whoever has the file mapped sees it, and keeps the rest."""
        places = [number for number, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]]
        if not places:
            return
        part = "".join(f"\\{byte:03o}" for byte in new[places[0] : places[-1] + 1])
        write = f"dd of={path} bs=1 seek={places[0]} conv=notrunc"
        self.ask(node, f"printf '{part}' | {write} 2>/dev/null")

    def read(self, node: str, path: PurePosixPath) -> bytes:
        """A small file of a host."""
        return bytes.fromhex(self.ask(node, f"od -An -v -tx1 {path}").decode())

    def get(self, node: str, path: PurePosixPath, here: Path) -> None:
        """Copy a file of a host to here."""
        with self._channels[node], self.connect(node).open_sftp() as sftp:
            sftp.get_channel().settimeout(COMMAND_TIMEOUT_S)
            sftp.get(str(path), str(here))


def _all_of(receive: Callable[[int], bytes]) -> bytes:
    parts = []
    while part := receive(1 << 16):
        parts.append(part)
    return b"".join(parts)


def pool_for(nodes: Sequence[str], hosts: Sequence[str], key: str | None, known_hosts: str | None) -> Pool:
    """A pool for these nodes, by the hosts as the user wrote them."""
    return Pool(dict(zip(nodes, map(parse_host, hosts), strict=True)), key, known_hosts)
