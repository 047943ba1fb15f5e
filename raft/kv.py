"""The replicated state machine: string keys, JSON values, client sessions (thesis 6.3).

Rules of this module
    1. `apply` is a function of the state and the bytes of the entry: no clock, no chance, no order of sets,
       so that every node that applies the same log has the same state, which `digest` tells.
    2. Values are kept as canonical JSON text. Equality is equality of that text: `true`, `1` and `1.0`
       differ, and the order of an object's keys does not matter.
    3. The session table is bounded, and forgets by log order: when it is full, the session whose last write
       is the oldest entry goes. A retry that comes after `sessions_max` other clients have written is taken
       for new.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Any

import msgspec

from raft.api import Cas, Delete, Done, Get, Json, Mismatch, Put, Range, Request, Response, Txn, Unknown

_canonical = msgspec.json.Encoder(order="deterministic").encode
_parse = msgspec.json.Decoder().decode
_decode_request = msgspec.json.Decoder(Request).decode
_NULL = b"null"
_RANGE_MAX = 10_000


class _State(msgspec.Struct):
    values: dict[str, msgspec.Raw]
    sessions: dict[str, tuple[int, Response]]


_decode_state = msgspec.json.Decoder(_State).decode


def encode_command(request: Request) -> bytes:
    """The bytes of an entry that carries `request`.

    >>> encode_command(Request("c1", 7, Put("x", 1)))
    b'["c1",7,["put","x",1]]'
    """
    return _canonical(request)


class KeyValue:
    """The state machine of one node.

    >>> store = KeyValue()
    >>> store.apply(encode_command(Request("c1", 1, Put("x", 1))))
    Done(value=None)
    >>> store.apply(encode_command(Request("c1", 2, Cas("x", True, 2))))
    Mismatch(current=1)
    >>> store.query(Get("x"))
    Done(value=1)
    """

    __slots__ = ("_sessions", "_sessions_max", "_values")

    def __init__(self, sessions_max: int = 10_000) -> None:
        self._values: dict[str, bytes] = {}
        # client -> (seq, answer); the order of insertion is the order of the sessions' last writes.
        self._sessions: dict[str, tuple[int, Response]] = {}
        self._sessions_max = sessions_max

    def apply(self, data: bytes) -> Response:
        """Applies one entry, or finds that it was applied before; returns what its client is answered."""
        request = _decode_request(data)
        answer = self._answered(request)
        if answer is None:
            answer = self._execute(request.command)
            self._remember(request, answer)
        return answer

    def query(self, command: Get | Range) -> Response:
        """Reads the state as it is now; that this is recent enough is the caller's business."""
        if isinstance(command, Get):
            return Done(self.value_of(command.key))
        inside = (k for k in self._values if k >= command.start and (command.end is None or k < command.end))
        found = heapq.nsmallest(min(command.limit, _RANGE_MAX), inside)
        return Done([[key, self.value_of(key)] for key in found])

    def snapshot(self) -> bytes:
        """The whole state, sessions included: without them a retry after a restore would be applied again."""
        values = {key: msgspec.Raw(value) for key, value in self._values.items()}
        return msgspec.json.encode(_State(values, self._sessions))

    def restore(self, data: bytes) -> None:
        """Replaces the state by one that `snapshot` gave."""
        state = _decode_state(data)
        self._values = {key: bytes(value) for key, value in state.values.items()}
        self._sessions = dict(state.sessions)

    def digest(self) -> str:
        """A fingerprint of the whole state, sessions included: equal where the same log was applied."""
        whole: list[Any] = [sorted(self._values.items()), list(self._sessions.items())]
        return hashlib.blake2b(_canonical(whole), digest_size=16).hexdigest()

    def _answered(self, request: Request) -> Response | None:
        """The answer a request was given before, or None if it is new (thesis 6.3)."""
        session = self._sessions.get(request.client)
        if session is None or session[0] < request.seq:
            return None
        if session[0] == request.seq:
            return session[1]
        return Unknown(f"request {request.seq} of this client came after its request {session[0]}")

    def _remember(self, request: Request, answer: Response) -> None:
        sessions = self._sessions
        sessions.pop(request.client, None)  # so that the client moves to the end of the order
        sessions[request.client] = (request.seq, answer)
        if len(sessions) > self._sessions_max:
            del sessions[next(iter(sessions))]

    def _execute(self, command: Any) -> Response:
        match command:
            case Put(key, value):
                self._values[key] = _canonical(value)
            case Cas(key, expected, new):
                current = self._values.get(key, _NULL)
                if current != _canonical(expected):
                    return Mismatch(_parse(current))
                self._values[key] = _canonical(new)
            case Delete(key):
                self._values.pop(key, None)
            case Txn():
                return self._transact(command)
            case Get() | Range():
                return self.query(command)
        return Done()

    def _transact(self, txn: Txn) -> Response:
        for key, expected in txn.guards:
            current = self._values.get(key, _NULL)
            if current != _canonical(expected):
                return Mismatch(_parse(current))
        done: list[list[Json]] = []
        for kind, key, value in txn.ops:
            if kind == "r":
                done.append([kind, key, self.value_of(key)])
                continue
            if kind == "append":
                held = self.value_of(key)
                self._values[key] = _canonical([*(held if isinstance(held, list) else []), value])
            else:
                self._values[key] = _canonical(value)
            done.append([kind, key, value])
        return Done(done)

    def value_of(self, key: str) -> Json:
        """The value of a key, None where it is absent; for tests and inspection."""
        return _parse(self._values.get(key, _NULL))
