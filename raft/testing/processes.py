"""A cluster of real processes on loopback, for tests: `python -m raft`, several times, and calls to them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

_PLACES = 64


class Reply(NamedTuple):
    """What a call got: the status, the body (JSON as a value, anything else as text), and the headers."""

    status: int
    body: Any
    headers: Mapping[str, str]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:
        return None


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now.

    They are none of those that systems give to outgoing connections: one of these may be gone by the time a server
    listens, or after it was killed and before it is started again. And processes that look at the same time, as tests
    that run side by side, look at different ones: their numbers differ by little.
    """
    found: list[int] = []
    with ExitStack() as stack:
        mine = range(10_000 + os.getpid() % _PLACES, 32_768, _PLACES)
        for port in random.sample(mine, len(mine)):
            one = stack.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"there are no {count} free ports on loopback")


class Processes:
    """Servers `n1`, `n2`, ..., each with a directory and a log of its own below `directory`."""

    def __init__(
        self, directory: Path, size: int = 3, flags: Sequence[str] = (), tls: ssl.SSLContext | None = None
    ) -> None:
        ports = free_ports(2 * size)
        self.directory = directory
        self.flags = flags
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.clients = dict(zip(self.names, ports[size:], strict=True))
        self.members = [
            f"{name}=127.0.0.1:{ports[at]},127.0.0.1:{ports[size + at]}" for at, name in enumerate(self.names)
        ]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.headers: dict[str, str] = {}
        self._scheme = "https" if tls else "http"
        handlers: list[Any] = [_NoRedirect, urllib.request.ProxyHandler({})]
        if tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=tls))
        self._opener = urllib.request.build_opener(*handlers)

    def start(self, name: str, *flags: str) -> None:
        """Starts a server on whatever its directory holds; one that runs already is left alone."""
        if name in self.running:
            return
        members = [flag for member in self.members for flag in ("--member", member)]
        command = [sys.executable, "-m", "raft", "--name", name, "--data-dir", str(self.directory / name)]
        with self.log_file(name).open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 - our own program
                [*command, *members, *self.flags, *flags], stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def terminate(self, name: str) -> int:
        """SIGTERM; returns the exit code."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def log_file(self, name: str) -> Path:
        """What a server has written."""
        return self.directory / f"{name}.log"

    def url(self, name: str, path: str = "") -> str:
        """Where clients reach a server."""
        return f"{self._scheme}://127.0.0.1:{self.clients[name]}{path}"

    def call(
        self, name: str, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One call; a redirect is an answer like any other.

        Raises:
            OSError: nobody answered.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - of loopback
            self.url(name, path), data, {**self.headers, **(headers or {})}, method=method
        )
        try:
            with self._opener.open(request, timeout=10) as answer:
                text, status, got = answer.read(), answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                text, status, got = error.read(), error.code, dict(error.headers)
        is_json = got.get("Content-Type") == "application/json"
        return Reply(status, json.loads(text) if is_json else text.decode(), got)

    def leader(self, timeout_s: float = 30) -> str:
        """The server that leads, as all that run see it, and they are a majority."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            seen = []
            for name in list(self.running):
                try:
                    seen.append(self.call(name, "GET", "/leader").body["leader"])
                except OSError:
                    continue
            if len(set(seen)) == 1 and seen[0] in self.running and len(seen) > len(self.names) // 2:
                return str(seen[0])
            time.sleep(0.02)
        raise TimeoutError(f"no leader within {timeout_s:g} s")

    def follower(self) -> str:
        """A running server that does not lead."""
        leader = self.leader()
        return next(name for name in self.running if name != leader)


@contextmanager
def running(
    directory: Path, size: int = 3, *flags: str, tls: ssl.SSLContext | None = None
) -> Iterator[Processes]:
    """A cluster that is gone afterwards."""
    cluster = Processes(directory, size, flags, tls)
    try:
        for name in cluster.names:
            cluster.start(name)
        yield cluster
    finally:
        for process in cluster.running.values():
            process.kill()
        for process in cluster.running.values():
            process.wait()
