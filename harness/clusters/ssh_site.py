"""What a run has on the hosts of an ssh cluster: a directory on each, and whatever is needed to run and break a node.

Rules of this module
    1. All of it lies below one directory of the run, `/tmp/splitbrain-...`; nothing is installed on the host.
    2. It ends with this process, however that ends: a shell on each host waits at the end of our connection, and when
       that closes kills the node, removes our rules from the network, and the directory. `sudo` is asked for nothing
       but `tc`, `iptables`, `ip` and the packet queue.
    3. What a node prints goes to a file there, and is fetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import shlex
import signal
import socket
import tarfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from harness.clusters import bundle, scratch
from harness.clusters.ssh_pool import COMMAND_TIMEOUT_S, CommandError, Host, Pool
from harness.errors import SetupError
from nemesis import nfqueue, tc
from nemesis.network import Conversation, NetworkError

SBIN = "PATH=$PATH:/usr/sbin:/sbin"
PYTHON_MIN = (3, 11)
CLOCK_TRIES = 3

_FACTS = """
id -u
uname -m
python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1 | tail -n 1
sudo -n true 2>/dev/null && echo yes || echo no
"""

_HOLDER = """
umask 022
dir={directory}
mkdir $dir || exit 1
echo ready
cat >/dev/null
kill -9 $(cat $dir/pid 2>/dev/null) 2>/dev/null
device=$(PATH=$PATH:/sbin:/usr/sbin ip -o addr show to {address} 2>/dev/null | awk '{{print $2; exit}}' | cut -d @ -f 1)
{sudo} sh -s $device <<'HEAL' >/dev/null 2>&1
PATH=$PATH:/usr/sbin:/sbin
{heal}
HEAL
# A node that is being started just now is not in `pid` yet, and would make its directory again.
for i in $(seq 100); do
  for process in /proc/[0-9]*; do
    [ $process = /proc/$$ ] || ! grep -qsa $dir $process/cmdline || kill -9 ${{process#/proc/}} 2>/dev/null
  done
  rm -rf $dir 2>/dev/null; [ -e $dir ] || break; sleep 0.05
done
echo gone
"""

# The shell stays as the node's parent, to know how it ended.
_START = """
cd {directory} && rm -f exit pid || exit 1
setsid sh -c '{command} </dev/null >>log 2>&1 & echo $! >pid.new; mv pid.new pid
wait $!; echo $? >exit.new; mv exit.new exit' </dev/null >/dev/null 2>&1 &
for i in $(seq 500); do [ -s pid ] && exit 0; sleep 0.01; done
echo "it was not started" >&2; exit 1
"""

# What is appended to the log, until nobody listens any more.
_FOLLOW = """
import select, sys
with open("log", "rb") as log:
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        sys.stdout.buffer.write(log.read())
        sys.stdout.buffer.flush()
"""

_KILL = """
cd {directory} && kill -9 $(cat pid) 2>/dev/null
for i in $(seq 500); do [ -s exit ] && exit 0; sleep 0.01; done
echo "it did not end" >&2; exit 1
"""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found out about a host."""

    sudo: str  # what goes in front of a command that needs root; "false" where there is no way
    machine: str
    python: str
    address: str


class Site:
    """See the module. `open`, then `install`, then the rest; `close` at the end."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.directory = PurePosixPath(f"/tmp/splitbrain-{uuid.uuid4().hex[:8]}")  # noqa: S108 - a name of our own
        self.facts: dict[str, HostFacts] = {}
        self._holders: dict[str, Any] = {}
        self._followers: list[tuple[Any, threading.Thread]] = []

    @property
    def nodes(self) -> list[str]:
        """Names of all nodes."""
        return list(self.pool.hosts)

    @property
    def addresses(self) -> dict[str, str]:
        """By which each node is reached by the others."""
        return {node: facts.address for node, facts in self.facts.items()}

    async def open(self) -> None:
        """Connect to all hosts, look at them, and make the directories.

        Raises:
            SetupError: a host cannot be reached, or lacks Python.
        """
        await asyncio.gather(*(self.pool.call(self._open, node) for node in self.nodes))

    def _open(self, node: str) -> None:
        host = self.pool.hosts[node]
        said = self.pool.run(node, _FACTS).decode().splitlines()
        uid, machine, python, may_sudo = (*said, "", "", "", "")[:4]
        version = tuple(int(part) for part in python.split(".") if part.isdigit())
        if version < PYTHON_MIN:
            raise SetupError(
                f"cluster 'ssh': {host.shown}: Python is {python or 'missing'}; install Python 3.11 or newer there"
            )
        sudo = "" if uid == "0" else "sudo -n" if may_sudo == "yes" else "false"
        self.facts[node] = HostFacts(sudo, machine, python, _address(host))
        heal = tc.heal_script("$1") + nfqueue.heal_script()
        script = _HOLDER.format(
            directory=self.directory, address=self.facts[node].address, sudo=sudo, heal=heal
        )
        holder = self.pool.open_channel(node, script)
        self._holders[node] = holder
        if holder.recv(100) != b"ready\n":
            raise SetupError(f"cluster 'ssh': {host.shown}: {self.directory} cannot be made there")

    async def install(self, kinds: Sequence[str]) -> None:
        """Bring code, wheels and libraries to all hosts."""
        await asyncio.gather(*(self.pool.call(self._install, node, tuple(kinds)) for node in self.nodes))

    def _install(self, node: str, kinds: tuple[str, ...]) -> None:
        packed = _packed(self.facts[node].python, self.facts[node].machine, kinds)
        libraries = " ".join(str(self.library(kind)) for kind in kinds)
        try:
            self.pool.run(node, f"mkdir {self.directory}/code && tar -xzf - -C {self.directory}/code", packed)
            self.pool.run(
                node,
                f"cd {self.directory}/code && python3 -c 'import ctypes, sys, raft.server, nemesis.nfqueue; "
                f"[ctypes.CDLL(name) for name in sys.argv[1:]]' {libraries}",
            )
        except CommandError as error:
            raise SetupError(f"cluster 'ssh': {self.pool.hosts[node].shown}: {error}") from None

    def library(self, kind: str) -> PurePosixPath:
        """Where the library of a kind lies on a host."""
        return self.directory / "code" / bundle.SHIMS / f"libsb{kind}.so"

    async def close(self) -> None:
        """Remove all from all hosts, and end the connections."""
        await asyncio.gather(*(self.pool.call(self._close, node) for node in self._holders))
        self.drop()

    def _close(self, node: str) -> None:
        holder = self._holders[node]
        try:
            holder.shutdown_write()
            if b"gone" not in holder.recv(100):
                raise SetupError(f"cluster 'ssh': {self.directory} on {node} was not removed")
        except OSError as error:
            raise SetupError(
                f"cluster 'ssh': {self.directory} on {node} may not be removed yet ({error})"
            ) from None
        finally:
            holder.close()

    def drop(self) -> None:
        """End the connections; the hosts clean up by themselves."""
        for channel, thread in self._followers:
            channel.close()
            thread.join(COMMAND_TIMEOUT_S)
        self._followers.clear()
        self.pool.close()
        self._holders.clear()

    # -- the node's process -------------------------------------------------------------------------------------

    def start(self, node: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in the background; what it prints is appended to the log."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = shlex.join(
            ["env", f"PYTHONPATH={self.directory}/code", "PYTHONUNBUFFERED=1", *variables, *argv]
        )
        if "'" in command:
            raise SetupError(f"cluster 'ssh': the command line of {node} needs quotes: {command}")
        self.pool.ask(node, _START.format(directory=self.directory, command=command))

    def kill(self, node: str) -> None:
        """SIGKILL, and wait for the end."""
        self.pool.ask(node, _KILL.format(directory=self.directory))

    def signal(self, node: str, number: signal.Signals) -> None:
        """Send a signal."""
        self.pool.ask(node, f"kill -{int(number)} $(cat {self.directory}/pid)")

    def ended(self, node: str) -> str | None:
        """How it ended; None while it runs."""
        code = self.pool.ask(node, f"cat {self.directory}/exit 2>/dev/null || true").decode().strip()
        if not code:
            return None
        number = int(code) - 128
        return (
            f"signal {signal.Signals(number).name}" if number > 0 and code != "255" else f"exit code {code}"
        )

    def stat(self, node: str) -> str:
        """`/proc/PID/stat` of the node; empty where it is gone."""
        return self.pool.ask(node, f"cat /proc/$(cat {self.directory}/pid)/stat 2>/dev/null || true").decode()

    def run_beside(self, node: str, script: str, environment: Mapping[str, str]) -> str:
        """Run a script of the shell in the environment of a node."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        return self.pool.ask(node, shlex.join(["env", *variables, "sh", "-c", script])).decode()

    def ahead_ns(self, node: str) -> int:
        """How far the host's monotonic clock is ahead of ours; the best of a few tries, to half a round trip."""
        best = (1 << 62, 0)
        for _ in range(CLOCK_TRIES):
            sent_ns = time.monotonic_ns()
            theirs_ns = int(self.pool.ask(node, "python3 -SEc 'import time; print(time.monotonic_ns())'"))
            took_ns = time.monotonic_ns() - sent_ns
            best = min(best, (took_ns, theirs_ns - sent_ns - took_ns // 2))
        return best[1]

    def log(self, node: str, here: Path) -> None:
        """Fetch what it printed."""
        self.pool.get(node, self.directory / "log", here)

    def follow(self, node: str, here: Path) -> None:
        """Copy what it prints into a file, as it prints it; a thread of its own does it until the connection ends."""
        script = f"cd {self.directory} && touch log && exec python3 -Sc {shlex.quote(_FOLLOW)}"
        channel = self.pool.open_channel(node, script)
        channel.settimeout(None)
        here.touch()
        thread = threading.Thread(target=_copy, args=(channel, here), daemon=True)
        self._followers.append((channel, thread))
        thread.start()

    # -- for the network ----------------------------------------------------------------------------------------

    def _for_root(self, argv: Sequence[str]) -> str:
        return f"{SBIN} PYTHONPATH={self.directory}/code {shlex.join(argv)}"

    def _ask_root(self, node: str, argv: Sequence[str], stdin: str) -> str:
        return self.pool.ask(node, self._for_root(argv), stdin, sudo=self.facts[node].sudo).decode()

    async def run(self, node: str, argv: Sequence[str], stdin: str = "") -> str:
        """As `nemesis.network.Reach` has it."""
        try:
            return await self.pool.call(self._ask_root, node, argv, stdin)
        except (CommandError, SetupError, OSError) as error:
            raise NetworkError(str(error)) from None

    async def talk(self, node: str, argv: Sequence[str]) -> Conversation:
        """As `nemesis.network.Reach` has it."""
        try:
            script = f"{self.facts[node].sudo} sh -c {shlex.quote(self._for_root(argv))}"
            channel = await self.pool.call(self.pool.open_channel, node, script.strip())
        except (SetupError, OSError) as error:
            raise NetworkError(str(error)) from None
        conversation = _Conversation(self.pool, channel)
        greeting = await conversation.hear()
        if greeting != "ready":
            await conversation.close()
            raise NetworkError(f"{' '.join(argv)} on {node} did not start: {greeting or 'no answer'}")
        return conversation


class _Conversation:
    """A program on a host that answers lines."""

    def __init__(self, pool: Pool, channel: Any) -> None:
        self._pool = pool
        self._channel = channel
        self._heard = b""

    async def ask(self, line: str) -> str:
        try:
            await self._pool.call(self._channel.sendall, f"{line}\n".encode())
        except OSError:
            return "nothing: it has ended"
        return await self.hear()

    async def hear(self) -> str:
        return await self._pool.call(self._hear)

    def _hear(self) -> str:
        try:
            while b"\n" not in self._heard:
                part = self._channel.recv(1 << 16)
                if not part:
                    error: bytes = self._channel.recv_stderr(1 << 16)
                    return error.decode(errors="replace").strip()
                self._heard += part
        except TimeoutError:
            return f"nothing within {COMMAND_TIMEOUT_S:g} s"
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode(errors="replace").strip()

    async def close(self) -> None:
        await self._pool.call(self._close)

    def _close(self) -> None:
        try:
            self._channel.shutdown_write()
            self._channel.recv_exit_status()
        except OSError:
            pass
        finally:
            self._channel.close()


def _copy(channel: Any, here: Path) -> None:
    with contextlib.suppress(OSError), here.open("r+b") as copy:
        while part := channel.recv(1 << 16):
            copy.write(part)
            copy.flush()


def _address(host: Host) -> str:
    if host.address:
        return host.address
    try:
        return str(socket.getaddrinfo(host.name, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise SetupError(
            f"cluster 'ssh': {host.name} has no address ({error.strerror}); mend --node or /etc/hosts"
        ) from None


@functools.cache
def _packed(python: str, machine: str, kinds: tuple[str, ...]) -> bytes:
    """All that a node is made of, as a compressed archive."""
    with scratch.passing("bundle") as name:
        built = bundle.fill(Path(name), python, machine, kinds)
        if missing := [kind for kind in kinds if kind not in built]:
            raise SetupError(
                f"cluster 'ssh': the fault {missing[0]!r} needs a C compiler; on Debian: apt-get install gcc libc6-dev"
            )
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            tar.add(name, arcname=".")
        return packed.getvalue()
