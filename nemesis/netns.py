r"""A small network of our own: one namespace for each node, joined by a bridge.

Rules of this module
    1. Nothing outside is touched: no interface, no route and no named namespace appears on the host. All of
       it hangs on one holder process in its own network and mount namespaces (and, without root, its own
       user namespace).
    2. It ends with its owner on every way out. The holder waits at the end of a pipe; when the owner closes
       it, or dies in whatever way, the holder ends, and the kernel removes namespaces, interfaces and rules.
    3. What runs inside carries a label in its environment. `sweep` finds labelled processes whose owner is
       gone, stopped ones too, and kills them, and them only.

Theory of operation
    The namespaces are bind-mounted as files in a directory that only the holder sees, and that others reach
    through /proc/HOLDER/root. `command` puts `nsenter` in front of a command line; nsenter and env replace
    themselves, so the process started is the program itself, and signals sent to it arrive there.

        node n1  eth0 10.91.0.1 --- sb1 \
        node n2  eth0 10.91.0.2 --- sb2 -- bridge br0, 10.91.0.254: the side of the clients
        node n3  eth0 10.91.0.3 --- sb3 /
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nemesis.door import Door
from nemesis.fault_base import FaultError

OWNER_VARIABLE = "SPLITBRAIN_OWNER"
DIRECTORY_PREFIX = "sb-netns-"
DEVICE = "eth0"
SUBNET = "10.91.0"
NODES_MAX = 200
OPEN_TIMEOUT_S = 20.0
TOOLS = ("unshare", "nsenter", "ip", "sh")

_HOLDER = """
set -e
directory=$1; shift
mount -t tmpfs sb "$directory"
ip link set lo up
ip link add br0 type bridge
ip addr add {subnet}.254/24 dev br0
ip link set br0 up
number=0
for node in "$@"; do
  number=$((number + 1))
  : > "$directory/$node"
  unshare --net="$directory/$node" true
  ip link add sb$number type veth peer name {device} netns "$directory/$node"
  ip link set sb$number master br0 up
  nsenter --net="$directory/$node" sh -ec "
    ip link set lo up; ip addr add {subnet}.$number/24 dev {device}; ip link set {device} up"
done
echo ready
cat > /dev/null || true
umount --recursive --lazy "$directory"
rmdir "$directory"
"""


class NetnsError(RuntimeError):
    """The machine did not let us have namespaces; the message says what it answered and what helps."""


class Netns:
    """Namespaces for these nodes, from `open` until `close` or the end of this process.

    Attributes:
        addresses: IPv4 address of each node.
        device: name of the network device in each namespace.
        client_address: address of the clients' side, where `command(None, ...)` runs.
    """

    def __init__(self, nodes: Sequence[str], *, rootless: bool | None = None) -> None:
        _check_nodes(nodes)
        self.addresses: Mapping[str, str] = {
            node: f"{SUBNET}.{number}" for number, node in enumerate(nodes, start=1)
        }
        self.device = DEVICE
        self.client_address = f"{SUBNET}.254"
        self._rootless = os.geteuid() != 0 if rootless is None else rootless
        self._directory = Path(tempfile.mkdtemp(prefix=f"{DIRECTORY_PREFIX}{os.getpid()}-"))
        self._door: Door | None = None
        self._holder = self._start_holder(nodes)

    def command(self, node: str | None, argv: Sequence[str]) -> list[str]:
        """The command line that runs another one in the namespace of a node, or for None of the clients."""
        target = str(self._holder.pid)
        inside = f"/proc/{target}/root{self._directory}/{node}" if node else f"/proc/{target}/ns/net"
        user = ["--user", "--preserve-credentials"] if self._rootless else []
        label = f"{OWNER_VARIABLE}={identity(os.getpid())}"
        return ["nsenter", f"--target={target}", *user, f"--net={inside}", "--", "env", label, *argv]

    def run(self, node: str | None, argv: Sequence[str], stdin: str = "") -> str:
        """Runs a command to its end and returns what it printed."""
        done = subprocess.run(  # noqa: S603 - the caller's command, without a shell
            self.command(node, argv), input=stdin, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise NetnsError(f"{' '.join(argv)} in {node or 'the clients'} failed: {done.stderr.strip()}")
        return done.stdout

    def socket(self) -> socket.socket:
        """A TCP socket on the clients' side, for this process to connect to a node."""
        if self._door is None:
            self._door = Door(lambda argv: self.command(None, argv))
        return self._door.socket()

    def close(self) -> None:
        """Kills what still runs inside and lets the kernel remove the rest. May be called twice."""
        if self._holder.poll() is None:
            for pid in self._inhabitants():
                _kill(pid)
        if self._door is not None:
            self._door.close()
            self._door = None
        self._end_holder()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_holder(self, nodes: Sequence[str]) -> subprocess.Popen[str]:
        missing = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
        if missing:
            self._directory.rmdir()
            raise NetnsError(
                f"{', '.join(missing)} not found; on Debian: apt-get install iproute2 util-linux"
            )
        user = ["--user", "--map-root-user"] if self._rootless else []
        script = _HOLDER.format(subnet=SUBNET, device=DEVICE)
        argv = ["unshare", *user, "--net", "--mount", "sh", "-c", script, "sb-netns", str(self._directory)]
        holder = subprocess.Popen(  # noqa: S603 - our own script; names of nodes are checked
            [*argv, *nodes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the owner, who still needs the namespaces to heal
            env=os.environ | {"PATH": _path(), OWNER_VARIABLE: identity(os.getpid())},
        )
        assert holder.stdout, "stdout was asked for as a pipe"
        if holder.stdout.readline() != "ready\n":
            _, error = holder.communicate()
            shutil.rmtree(self._directory, ignore_errors=True)
            raise NetnsError(
                f"no network namespaces here: {error.strip() or 'the holder ended'}; run as root or allow "
                "user namespaces (sysctl kernel.unprivileged_userns_clone=1, user.max_user_namespaces=1000)"
            )
        return holder

    def _end_holder(self) -> None:
        try:
            self._holder.communicate(timeout=OPEN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.communicate()

    def _inhabitants(self) -> Iterator[int]:
        """Processes in one of our network namespaces, but the holder itself."""
        names = [f"/proc/{self._holder.pid}/root{self._directory}/{node}" for node in self.addresses]
        ours = {_inode(Path(name)) for name in (*names, f"/proc/{self._holder.pid}/ns/net")} - {None}
        for pid in _pids():
            is_guest = self._holder.pid not in (pid, _parent(pid))
            if is_guest and _inode(Path(f"/proc/{pid}/ns/net")) in ours:
                yield pid


def sweep() -> list[str]:
    """Kills what is left of owners that are gone and removes their directories; returns what it found."""
    found: list[str] = []
    for pid in _pids():
        owner = _owner(pid)
        if owner and not is_alive(owner):
            name = Path(f"/proc/{pid}/comm").read_text().strip() if Path(f"/proc/{pid}").exists() else "?"
            _kill(pid)
            found.append(f"killed process {pid} ({name}), left by process {owner.partition(':')[0]}")
    for directory in sorted(Path(tempfile.gettempdir()).glob(f"{DIRECTORY_PREFIX}*")):
        if _is_abandoned(directory):
            shutil.rmtree(directory, ignore_errors=True)
            found.append(f"removed {directory}")
    return found


def _is_abandoned(directory: Path) -> bool:
    """Neither the process that made it, whose number is in its name, nor a holder lives any more."""
    maker = directory.name.removeprefix(DIRECTORY_PREFIX).partition("-")[0]
    name = str(directory).encode()
    if Path(f"/proc/{maker}").exists():
        return False
    return not any(name in _read(Path(f"/proc/{pid}/cmdline")).split(b"\0") for pid in _pids())


def _check_nodes(nodes: Sequence[str]) -> None:
    if not 1 <= len(nodes) <= NODES_MAX:
        raise FaultError(f"{len(nodes)} nodes; a network of namespaces takes 1 to {NODES_MAX}")
    for node in nodes:
        if not node.replace("-", "").replace("_", "").isalnum():
            raise FaultError(f"node name {node!r} cannot name a namespace; use letters, digits, '-' and '_'")


def _path() -> str:
    """The search path with the directories of ip and tc, which an ordinary user's may lack."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def identity(pid: int) -> str:
    """The process and when it started, so that another one with the same number is not taken for it."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return f"{pid}:{fields[19].decode()}" if len(fields) > 19 else f"{pid}:gone"


def is_alive(owner: str) -> bool:
    """Whether the process of that identity still runs."""
    pid = owner.partition(":")[0]
    return pid.isdigit() and identity(int(pid)) == owner


def _owner(pid: int) -> str | None:
    prefix = f"{OWNER_VARIABLE}=".encode()
    for entry in _read(Path(f"/proc/{pid}/environ")).split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode(errors="replace")
    return None


def _parent(pid: int) -> int:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _pids() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _read(path: Path) -> bytes:
    """The file, or nothing where the process has ended or is not ours."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
