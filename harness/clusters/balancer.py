"""The load balancer in front of the nodes: HAProxy, which sends every request to the node that says it leads.

Rules of this module
    1. Who leads is asked of the nodes (`leader_path`: 200 only on the leader), ten times a second.
    2. HAProxy must not repeat a request, for only the client knows what is safe to repeat: `retries 0`.
    3. Where no node leads, HAProxy answers 503 itself, before it has sent anything to anybody. Its body is the
       system's own way of saying "refused", so that clients know that the operation did not happen.
    4. When a leader steps down or is silent, its connections are cut: requests under way are then lost, which is what
       their clients must assume.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import SetupError
from harness.systems.base import Service

PORT = 8000
CHECK_MS = 100

_CONFIG = """\
global
    log stdout format iso local0 notice
    maxconn 4096
defaults
    mode http
    log global
    retries 0
    timeout connect 200ms
    timeout client 30s
    timeout server 30s
    timeout check {check_ms}ms
frontend clients
    bind {bind}
    default_backend leader
{resolvers}backend leader
    option httpchk GET {path}
    http-check expect status 200
    http-error status 503 content-type application/json string '{refusal}'
    default-server inter {check_ms}ms fall 1 rise 1 on-marked-down shutdown-sessions{by_name}
"""
_RESOLVERS = """\
resolvers here
    parse-resolv-conf
    hold valid 1s
"""


def config(
    service: Service, addresses: Mapping[str, str], bind: str = f":{PORT}", *, by_name: bool = False
) -> str:
    """HAProxy's configuration for nodes with these addresses; names are looked up again every second."""
    head = _CONFIG.format(
        bind=bind,
        path=service.leader_path,
        refusal=service.refusal.decode(),
        check_ms=CHECK_MS,
        resolvers=_RESOLVERS if by_name else "",
        by_name=" resolvers here init-addr last,libc,none" if by_name else "",
    )
    servers = [
        f"    server {node} {address}:{service.client_port} check\n" for node, address in addresses.items()
    ]
    return head + "".join(servers)


def require() -> str:
    """The program, for clusters on which it runs beside the harness.

    Raises:
        SetupError: it is not installed.
    """
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise SetupError("the load balancer needs haproxy here; on Debian: apt-get install haproxy")
    return found


def free_port() -> int:
    """A port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(
    prefix: Sequence[str],
    service: Service,
    addresses: Mapping[str, str],
    bind: str,
    directory: Path,
    log: Path,
) -> subprocess.Popen[bytes]:
    """Start it as a process of this machine, which ends with ours.

    Args:
        prefix: what leads into the network where it is to listen.
        service: the system's.
        addresses: of all nodes.
        bind: where to listen.
        directory: for its configuration.
        log: for what it says.
    """
    file = directory / "haproxy.cfg"
    file.write_text(config(service, addresses, bind), encoding="ascii")
    argv = [*prefix, "setpriv", "--pdeathsig", "KILL", require(), "-db", "-f", str(file)]
    with log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - our own command line
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
