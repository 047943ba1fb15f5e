"""What a server process is told: flags over environment over a TOML file.

Every setting has one name in all three places: `--data-dir`, `RAFT_DATA_DIR`, `data_dir = `. A cluster is
named member by member, as `name=host:port,host:port`: the address for its peers, and the one for clients. A
port alone is one of loopback. A server listens where its members' entry says, unless `listen_peers` or
`listen_clients` say otherwise (behind a port mapping, or to listen on all addresses).
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from raft.bugs import BUGS
from raft.core import Options
from raft.node import DEFAULTS


class SettingsError(ValueError):
    """A setting that cannot be; the message names it, its value and what it should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen, or to connect to."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One server of the cluster."""

    name: str
    peers: Address
    clients: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: a certificate, its key, and the authority whose certificates are asked of the other side."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that `python -m raft` needs to know."""

    name: str
    members: tuple[Member, ...]
    data_dir: Path
    cluster: str = "raft"  # a server talks to servers of the same cluster only
    unsafe_no_sync: bool = False  # never sync the disk: to measure what syncing costs
    join: bool = False  # wait to be made a member, instead of being one from the start
    bugs: tuple[str, ...] = ()
    request_timeout_ms: int = 5_000
    listen_peers: Address | None = None
    listen_clients: Address | None = None
    peer_tls: TlsFiles = TlsFiles()
    client_tls: TlsFiles = TlsFiles()
    peer_identity: str = (
        "name"  # what certificates of servers must name: "name", the member, or "any" of the authority's
    )
    token: str = field(default="", repr=False)  # what clients must show; "" for nothing
    proxy: bool = False  # pass calls on to the leader, instead of naming it
    log_format: str = "text"
    log_level: str = "info"
    options: Options = DEFAULTS

    @property
    def me(self) -> Member:
        """This server among the members."""
        return next(member for member in self.members if member.name == self.name)

    def member(self, name: str | None) -> Member | None:
        """The member of that name, if there is one."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def exposed(self) -> list[str]:
        """What others than this machine can do without showing who they are, in words."""
        found = []
        if not self.peer_tls.cert and not _is_loopback(self.listen_peers or self.me.peers):
            found.append(
                "any host that reaches the peers' port can pose as a member: set peer_cert, peer_key, peer_ca"
            )
        if not (self.token or self.client_tls.ca) and not _is_loopback(
            self.listen_clients or self.me.clients
        ):
            found.append(
                "any host that reaches the clients' port can read and write: set a token or client_ca"
            )
        return found


_OPTIONS = {
    "election_timeout_ms_min": "election_timeout_us_min",
    "election_timeout_ms_max": "election_timeout_us_max",
    "heartbeat_ms": "heartbeat_us",
}
_OTHER_OPTIONS = tuple(
    field.name for field in fields(Options) if not field.name.endswith(("_us_min", "_us_max", "_us"))
)


def parse_member(text: str) -> Member:
    """One member.

    >>> parse_member("n1=127.0.0.1:7001,127.0.0.1:8001").clients.port
    8001
    """
    name, equals, addresses = text.partition("=")
    parts = addresses.split(",")
    if not (name and equals and len(parts) == 2):
        raise SettingsError(
            f"member {text!r} is not of the form name=host:port,host:port (peers, then clients)"
        )
    if not name.isprintable():  # it stands in logs and metrics
        raise SettingsError(f"member name {name!r} has characters that cannot be printed; leave them out")
    return Member(name=name, peers=_address(parts[0]), clients=_address(parts[1]))


def _is_loopback(address: Address) -> bool:
    if address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False  # a name; who knows what it stands for


def _address(text: str) -> Address:
    text = text.strip()
    host, colon, port = (f"127.0.0.1:{text}" if text.isdigit() else text).rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 1 << 16):
        raise SettingsError(f"address {text!r} is not of the form host:port, or a port of loopback")
    return Address(host=host.strip("[]"), port=int(port))


def load(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from the command line, the environment and the file one of them names."""
    flags = {key: value for key, value in vars(_parser().parse_args(argv)).items() if value is not None}
    known = {action.dest for action in _parser()._actions} - {"help"}  # noqa: SLF001 - the one list of names
    surroundings: dict[str, Any] = {
        key: environment[f"RAFT_{key.upper()}"]
        for key in sorted(known)
        if f"RAFT_{key.upper()}" in environment
    }
    path = flags.get("config") or surroundings.get("config")
    values = {**(_read_toml(Path(path), known) if path else {}), **surroundings, **flags}
    return _build(values)


def _read_toml(path: Path, known: set[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"cannot read the settings in {path}: {error}") from error
    unknown = sorted(set(values) - known)
    if unknown:
        raise SettingsError(f"{path} has unknown settings: {', '.join(unknown)}")
    return values


def _build(values: Mapping[str, Any]) -> Settings:
    for needed in ("name", "member", "data_dir"):
        if not values.get(needed):
            raise SettingsError(
                f"{needed} is not set: use --{needed.replace('_', '-')}, RAFT_{needed.upper()} or a file"
            )
    members = tuple(parse_member(text) for text in _texts("member", values["member"]))
    names = [member.name for member in members]
    if values["name"] not in names or len(set(names)) != len(names):
        raise SettingsError(
            f"name {values['name']!r} must be one of the members, each named once: {', '.join(names)}"
        )
    listen = {key: _address(str(values[key])) for key in ("listen_peers", "listen_clients") if key in values}
    return Settings(
        name=values["name"],
        members=members,
        data_dir=Path(_text("data_dir", values["data_dir"])),
        cluster=_text("cluster", values.get("cluster", "raft")),
        unsafe_no_sync=_boolean("unsafe_no_sync", values.get("unsafe_no_sync", False)),
        join=_boolean("join", values.get("join", False)),
        bugs=_bugs(values),
        request_timeout_ms=_request_timeout_ms(values),
        peer_tls=_tls_files("peer", values),
        client_tls=_tls_files("client", values),
        peer_identity=_choice("peer_identity", values.get("peer_identity", "name"), ("name", "any")),
        token=_token(values),
        proxy=_boolean("proxy", values.get("proxy", False)),
        log_format=_choice("log_format", values.get("log_format", "text"), ("text", "json")),
        log_level=_choice(
            "log_level", values.get("log_level", "info"), ("debug", "info", "warning", "error")
        ),
        options=_options(values),
        **listen,
    )


def _tls_files(side: str, values: Mapping[str, Any]) -> TlsFiles:
    paths = {
        kind: Path(_text(f"{side}_{kind}", values[f"{side}_{kind}"]))
        for kind in ("cert", "key", "ca")
        if values.get(f"{side}_{kind}")
    }
    needed = ("cert", "key", "ca") if side == "peer" else ("cert", "key")
    missing = [f"{side}_{kind}" for kind in needed if kind not in paths]
    if paths and missing:
        given = ", ".join(f"{side}_{kind}" for kind in paths)
        raise SettingsError(f"{given} without {', '.join(missing)}: TLS needs {', '.join(needed)}")
    for kind, path in paths.items():
        if not path.is_file():
            raise SettingsError(f"{side}_{kind} is {path}, where there is no file")
    return TlsFiles(**paths)


def _token(values: Mapping[str, Any]) -> str:
    path = values.get("token_file")
    if not path:
        return _text("token", values.get("token", ""))
    try:
        token = Path(_text("token_file", path)).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the token in {path}: {error}") from error
    if not token:
        raise SettingsError(f"token_file is {path}, which is empty; it must hold what clients have to show")
    return token


def _bugs(values: Mapping[str, Any]) -> tuple[str, ...]:
    bugs = _texts("bug", values.get("bug") or ())
    unknown = [bug for bug in bugs if bug not in BUGS]
    if unknown:
        raise SettingsError(f"bug is {unknown[0]!r}; it must be one of {', '.join(BUGS)}")
    return bugs


def _request_timeout_ms(values: Mapping[str, Any]) -> int:
    timeout_ms = _integer("request_timeout_ms", values.get("request_timeout_ms", 5_000))
    if timeout_ms < 1:
        raise SettingsError(f"request_timeout_ms is {timeout_ms}; it must be at least 1")
    return timeout_ms


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} is {value!r}; it must be text")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """Several texts: a list of them, or one with spaces between."""
    if isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, (list, tuple)):
        raise SettingsError(f"{name} is {value!r}; it must be text, or a list of texts")
    return tuple(_text(name, one) for one in value)


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
    return str(value)


def _options(values: Mapping[str, Any]) -> Options:
    given: dict[str, Any] = {}
    for name, option in _OPTIONS.items():
        if name in values:
            given[option] = 1000 * _integer(name, values[name])
    for name in _OTHER_OPTIONS:
        if name in values:
            kind = type(getattr(Options(), name))
            convert = {bool: _boolean, int: _integer}.get(kind, _number)
            given[name] = convert(name, values[name])
    try:
        return Options(**given)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "1", "yes", "on", "false", "0", "no", "off"):
        return str(value).lower() in ("true", "1", "yes", "on")
    raise SettingsError(f"{name} is {value!r}; it must be true or false")


def _integer(name: str, value: Any) -> int:
    if type(value) is int:
        return int(value)
    # Longer texts are no number that anybody means, and Python refuses to read some of them.
    if isinstance(value, str) and len(value) <= 18:
        with contextlib.suppress(ValueError):
            return int(value)
    raise SettingsError(f"{name} is {value!r}; it must be a whole number")


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    raise SettingsError(f"{name} is {value!r}; it must be a number")


_TEXTS = {
    "listen_peers": "host:port to listen on for peers, if not that of the member",
    "listen_clients": "host:port to listen on for clients, if not that of the member",
    "peer_cert": "certificate (PEM) shown to other servers",
    "peer_key": "its key",
    "peer_ca": "authority whose certificates other servers must show",
    "peer_identity": "name: the certificate of a server must name the member; any: each of the authority will do",
    "client_cert": "certificate (PEM) shown to clients",
    "client_key": "its key",
    "client_ca": "authority whose certificates clients must show",
    "token": "what clients must show as a bearer token; others see flags, so prefer a file or the environment",
    "token_file": "a file with that token",
    "log_format": "text or json",
    "log_level": "debug, info, warning or error",
}


_OPTION_TEXTS = {
    "election_timeout_ms_min": "who hears of no leader for so long, or up to the maximum, campaigns",
    "election_timeout_ms_max": "see the minimum",
    "heartbeat_ms": "how often a leader is heard of",
    "pre_vote": "ask who would vote before disturbing anybody with a new term",
    "check_quorum": "a leader that hears of no majority steps down; voters stick to a leader they hear",
    "lease_reads": "answer reads from a lease, which rests on clocks",
    "lease_drift_max": "how much faster one clock may run than another, as a part of 1",
    "priority": "of two logs that are equally good, that of the higher priority gets the votes",
    "promotes_learners": "a learner becomes a voter once it has caught up",
    "follower_reads": "followers answer reads too, having asked the leader how far",
    "snapshot_entries": "applied entries between two snapshots",
    "snapshot_log_bytes": "or so many bytes of them, and as many as the last snapshot has",
    "snapshot_trailing": "entries kept in memory behind a snapshot, for followers that lag a little",
    "snapshot_trailing_bytes": "and so many bytes of them at most",
    "snapshot_chunk_bytes": "how much of a snapshot is sent at a time",
    "entries_per_append_max": "entries in one message",
    "bytes_per_append_max": "bytes of entries in one message",
    "inflight_appends_max": "messages to one peer that are not answered yet",
    "inflight_bytes_max": "bytes to one peer that are not answered yet",
    "uncommitted_entries_max": "entries that wait to be committed; beyond that writes are refused",
    "uncommitted_bytes_max": "bytes that wait to be committed",
    "pending_reads_max": "reads that wait",
    "committed_per_turn_max": "entries that are applied at a time",
    "sessions_max": "client sessions that are remembered",
    "leases_max": "leases that are alive",
    "watches_max": "clients that wait for a change",
    "watch_events_max": "changes that are kept for those who watch",
    "watch_events_bytes_max": "and so many bytes of them at most",
}


def _default(name: str) -> Any:
    """What an option of `raft.core.Options` is when nobody says anything."""
    return getattr(DEFAULTS, _OPTIONS[name]) // 1000 if name in _OPTIONS else getattr(DEFAULTS, name)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise SettingsError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m raft", description="One server of a Raft key-value store.")
    parser.add_argument("--config", help="a TOML file with these settings, spelled with underscores")
    parser.add_argument("--name", help="which of the members this server is")
    parser.add_argument(
        "--member", action="append", help="name=host:port,host:port; once for each, itself included"
    )
    parser.add_argument("--data-dir", help="where this server keeps its log and snapshots")
    parser.add_argument("--cluster", help="a name that servers of one cluster share")
    parser.add_argument(
        "--unsafe-no-sync",
        action="store_const",
        const=True,
        help="never sync the disk: fast, and a power cut loses what was acknowledged",
    )
    parser.add_argument("--join", action="store_const", const=True, help="wait to be made a member")
    parser.add_argument("--bug", action="append", help="seed a known bug (see raft.bugs)")
    parser.add_argument("--request-timeout-ms", help="how long a client waits for an answer")
    for name, text in _TEXTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=text)
    parser.add_argument(
        "--proxy", action="store_const", const=True, help="pass calls on to the leader, instead of naming it"
    )
    for name in (*_OPTIONS, *_OTHER_OPTIONS):
        shown = str(_default(name)).lower()
        parser.add_argument(
            f"--{name.replace('_', '-')}", help=f"{_OPTION_TEXTS[name]} ({shown} unless given)"
        )
    return parser
