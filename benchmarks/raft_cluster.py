"""Three servers of the reference system as processes, and a client that costs little: for the benchmarks here."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from raft.testing.processes import free_ports

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Memory that a process has resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / (1 << 20)


class HttpClient(asyncio.Protocol):
    """One connection, one call at a time, as little work as a client can do."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._buffer = b""

    @classmethod
    async def connect(cls, port: int) -> HttpClient:
        """A connection to a server of this machine."""
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    def call(self, method: str, path: str, body: bytes = b"") -> asyncio.Future[tuple[int, bytes]]:
        """Status and body."""
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(head.encode() + body)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"Content-Length: ", 0, end)
        if end < 0 or self._answer is None:
            return
        stop = end + 4 + int(data[at + 16 : data.index(b"\r\n", at)])
        if len(data) >= stop:
            self._buffer = data[stop:]
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result((int(data[9:12]), data[end + 4 : stop]))


class Cluster:
    """Processes of `python -m raft` on the loopback."""

    def __init__(self, directory: str, flags: tuple[str, ...], size: int = 3) -> None:
        self.directory = directory
        self.flags = flags
        self.names = [f"n{number}" for number in range(1, size + 1)]
        ports = free_ports(2 * size)
        self.ports = dict(zip(self.names, ports[size:], strict=True))
        self.members = [
            f"--member={name}=127.0.0.1:{ports[at]},127.0.0.1:{ports[size + at]}"
            for at, name in enumerate(self.names)
        ]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "raft", f"--name={name}", f"--data-dir={self.directory}/{name}"]
        with Path(self.directory, f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([*command, *self.members, *self.flags], stderr=log)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    async def leader(self, timeout_s: float = 30.0) -> str:
        """The name of a server that answers a linearizable read."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for name in self.processes:
                with contextlib.suppress(OSError):
                    client = await HttpClient.connect(self.ports[name])
                    status, _ = await client.call("GET", "/v1/keys/x")
                    client.transport.close()
                    if status == 200:
                        return name
            await asyncio.sleep(0.01)
        raise TimeoutError("no leader")

    async def answers(self, name: str, timeout_s: float = 30.0) -> None:
        """Waits until a server serves, and knows of a leader."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                client = await HttpClient.connect(self.ports[name])
                status, _ = await client.call("GET", "/health")
                client.transport.close()
                if status == 200:
                    return
            await asyncio.sleep(0.02)
        raise TimeoutError(f"{name} does not serve")

    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid) for process in self.processes.values())


@contextlib.contextmanager
def running(*flags: str, size: int = 3) -> Iterator[Cluster]:
    """A cluster with its data beside the working directory: on a real disk, not in a memory file system."""
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as directory:
        cluster = Cluster(directory, flags, size)
        try:
            for name in cluster.names:
                cluster.start(name)
            yield cluster
        finally:
            for name in list(cluster.processes):
                cluster.kill(name)
