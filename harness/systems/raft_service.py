"""The reference system as a process: `python -m raft`, spoken to through its `POST /v1/request`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from harness.systems.base import Call, LoggedEntry, LogPart
from nemesis.target import Members
from raft import api

PEER_PORT = 7000
CLIENT_PORT = 8000

_encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[api.Response] = msgspec.json.Decoder(api.Response)


class RaftService:
    """See the module and `harness.systems.base.Service`.

    >>> service = RaftService()
    >>> service.encode(api.Request("c1", 7, api.Get("x"))).body
    b'["c1",7,["get","x",false]]'
    >>> service.decode(200, b'["done",3]')
    Done(value=3)
    >>> service.decode(404, b"")
    Unknown(reason='the node answered 404')
    >>> service.decode(503, service.refusal)
    Refused(reason='no node leads')
    """

    client_port = CLIENT_PORT
    status_path = "/status"
    leader_path = "/leader"
    join_options: ClassVar[list[str]] = ["--join"]
    refusal = _encode(api.Refused("no node leads"))

    def argv(
        self, python: str, node: str, addresses: Mapping[str, str], data: Path, bug: str | None
    ) -> list[str]:
        """One server; all members are known to each from the start."""
        members = [
            f"--member={name}={address}:{PEER_PORT},{address}:{CLIENT_PORT}"
            for name, address in addresses.items()
        ]
        bugs = [f"--bug={bug}"] if bug is not None else []
        return [
            python,
            "-m",
            "raft",
            f"--name={node}",
            f"--data-dir={data}",
            "--log-format=json",
            *members,
            *bugs,
        ]

    def encode(self, request: api.Request) -> Call:
        """A whole request as JSON."""
        return Call("POST", "/v1/request", _encode(request))

    def decode(self, status: int, body: bytes) -> api.Response:
        """A whole response as JSON; 503 is what a load balancer says for all nodes."""
        if status not in (200, 503):
            return api.Unknown(f"the node answered {status}")
        try:
            return _decoder.decode(body)
        except msgspec.DecodeError as error:
            return api.Unknown(f"the node answered nonsense: {error}")

    def event(self, line: str) -> tuple[int, str, dict[str, Any]] | None:
        """From the log as JSON.

        >>> RaftService().event('{"ts": "", "mono_ns": 7, "level": "info", "node": "n1", "event": "leader", "term": 3}')
        (7, 'leader', {'term': 3})
        """
        try:
            said = msgspec.json.decode(line)
            at_ns, name = int(said.pop("mono_ns")), str(said.pop("event"))
        except (msgspec.DecodeError, AttributeError, KeyError, ValueError, TypeError):
            return None
        return at_ns, name, {key: value for key, value in said.items() if key not in ("ts", "level", "node")}

    def members(self, status: Any) -> Members:
        """From `/status`."""
        config = status["config"]
        return Members(
            voters=tuple(config["voters"]),
            learners=tuple(config["learners"]),
            outgoing=tuple(config["outgoing"]),
            is_settled=not config["is_changing"],
        )

    def change_members(self, voters: Sequence[str], learners: Sequence[str]) -> Call:
        """`POST /v1/members`."""
        return Call("POST", "/v1/members", _encode({"voters": list(voters), "learners": list(learners)}))

    def transfer(self, node: str) -> Call:
        """`POST /v1/transfer`."""
        return Call("POST", "/v1/transfer", _encode({"to": node}))

    def log_call(self, after: int) -> Call:
        """`GET /v1/log`."""
        return Call("GET", f"/v1/log?after={after}", b"")

    def log_part(self, body: bytes) -> LogPart:
        """From `GET /v1/log`; an entry without a client only carries the time.

        >>> entry = b'{"index": 9, "term": 2, "request": ["c1", 4, ["get", "x", false], 0]}'
        >>> RaftService().log_part(b'{"after": 8, "commit_index": 9, "entries": [%s]}' % entry).entries
        [LoggedEntry(place=9, term=2, request=('c1', 4))]
        """
        said = msgspec.json.decode(body)
        entries = [
            LoggedEntry(
                int(entry["index"]),
                int(entry["term"]),
                (entry["request"][0], entry["request"][1]) if entry["request"] else None,
            )
            for entry in said["entries"]
        ]
        return LogPart(int(said["after"]), int(said["commit_index"]), entries)

    def leader_term(self, status: Any) -> int | None:
        """From `/status`."""
        return int(status["term"]) if status["role"] == "leader" else None
