"""The replicated state machine: string keys, JSON values, revisions, leases, client sessions (thesis 6.3).

Rules of this module
    1. `apply` is a function of the state and the bytes of the entry: no clock, no chance, no order of sets,
       so that every node that applies the same log has the same state, which `digest` tells.
    2. Time comes with the entries that need it, stamped by their leader (`raft.clock`). What that time ends
       is ended before the entry itself is looked at.
    3. Everything is bounded: sessions and leases by refusing more, sessions that nobody opened and events by
       forgetting the oldest, in the order of the log.
    4. An entry changes the keys as a whole or not at all, and is one revision.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from raft.api import (
    READS,
    Cas,
    CloseSession,
    Command,
    Compacted,
    Compare,
    Delete,
    Done,
    Expired,
    Get,
    Grant,
    If,
    Json,
    KeepAlive,
    LeaseInfo,
    Leases,
    Mismatch,
    OpenSession,
    Put,
    Query,
    Range,
    Refused,
    Request,
    Response,
    Revoke,
    Txn,
    Watch,
)
from raft.keys import NULL, Keys, StoredKeys, as_json, canonical, page_of, parse
from raft.leases import LeaseTable, StoredLease
from raft.sessions import Sessions, StoredSessions, is_opened

_RANGE_MAX = 10_000
_US_PER_MS = 1_000


class Clock(msgspec.Struct, frozen=True, array_like=True, tag="clock"):
    """Does nothing but carry the time; leaders write it when something has come to its end."""


class _Logged(msgspec.Struct, frozen=True, array_like=True):
    """A request as it stands in the log. The time is left out where nothing needs it."""

    client: str
    seq: int
    command: Command | Clock
    clock_us: int = 0


class _State(msgspec.Struct):
    keys: StoredKeys
    sessions: StoredSessions
    leases: list[StoredLease]
    clock_us: int
    named: int


_decode_logged = msgspec.json.Decoder(_Logged).decode
_decode_state = msgspec.json.Decoder(_State).decode


def encode_command(request: Request, clock_us: int = 0) -> bytes:
    """The bytes of an entry that carries `request`, stamped with the cluster's time if that is given.

    >>> encode_command(Request("c1", 7, Cas("x", 1, 2)))
    b'["c1",7,["cas","x",1,2]]'
    """
    if clock_us:
        return canonical(_Logged(request.client, request.seq, request.command, clock_us))
    return canonical(request)


def request_of(data: bytes) -> tuple[str, int]:
    """Who sent the request that an entry carries, and its number; an entry that only carries the time is nobody's.

    >>> request_of(encode_command(Request("c1", 7, Cas("x", 1, 2))))
    ('c1', 7)
    """
    logged = _decode_logged(data)
    return logged.client, logged.seq


def encode_clock(clock_us: int) -> bytes:
    """The bytes of an entry that only carries the time.

    >>> encode_clock(9)
    b'["",0,["clock"],9]'
    """
    return canonical(_Logged("", 0, Clock(), clock_us))


def needs_clock(request: Request) -> bool:
    """Whether the entry of a request must be stamped."""
    return isinstance(request.command, (Grant, KeepAlive, OpenSession)) or is_opened(request.client)


class KeyValue:
    """The state machine of one node.

    >>> store = KeyValue()
    >>> store.apply(encode_command(Request("c1", 1, Put("x", 1))))
    Done(mod_revision=1, revision=1)
    >>> store.apply(encode_command(Request("c1", 2, Cas("x", True, 2))))
    Mismatch(current=1, mod_revision=1, revision=1)
    >>> store.query(Get("x"))
    Done(value=1, mod_revision=1, revision=1)
    """

    __slots__ = ("_leases_max", "_named", "clock_us", "keys", "leases", "sessions")

    def __init__(
        self,
        sessions_max: int = 10_000,
        leases_max: int = 10_000,
        events_max: int = 10_000,
        events_bytes_max: int = 64 << 20,
    ) -> None:
        self._leases_max = leases_max
        self.keys = Keys(events_max, events_bytes_max)
        self.sessions = Sessions(sessions_max)
        self.leases = LeaseTable()
        self.clock_us = 0
        self._named = 0  # how many names of leases and sessions were made up

    # -- the log -----------------------------------------------------------------------------------

    def apply(self, data: bytes) -> Response:
        """Applies one entry, or finds that it was applied before; returns what its client is answered."""
        logged: Any = _decode_logged(data)
        if logged.clock_us:
            self.advance(logged.clock_us)
        if isinstance(logged.command, Clock):
            return Done()
        answer = self._answered(logged)
        if answer is None:
            if is_opened(logged.client):
                self.sessions.touch(logged.client, self.clock_us)
            answer = self._execute(logged)
            self.keys.commit()
            self.sessions.remember(logged, answer)
        return answer

    def advance(self, clock_us: int) -> None:
        """Takes the time of an entry, and ends what ends by then."""
        self.clock_us = max(self.clock_us, clock_us)
        self._expire_sessions(self.clock_us)
        self._expire_leases(self.clock_us)

    def _expire_sessions(self, clock_us: int) -> None:
        self.sessions.expire(clock_us)

    def _expire_leases(self, clock_us: int) -> None:
        for lease in self.leases.deadlines.due(clock_us):
            self._end_lease(lease)

    @property
    def next_end_us(self) -> int | None:
        """When, by the cluster's clock, the next lease or session ends if nothing is done for it."""
        if not self.leases.leases and not self.sessions.opened:
            return None
        lease_us, session_us = self.leases.deadlines.next_us, self.sessions.deadlines.next_us
        if lease_us is None or session_us is None:
            return lease_us if session_us is None else session_us
        return min(lease_us, session_us)

    def _answered(self, request: Request) -> Response | None:
        """The answer a request was given before, or None if it is new (thesis 6.3)."""
        return self.sessions.answered(request)

    def _execute(self, request: Request) -> Response:
        command = request.command
        if isinstance(command, Put):
            return self._on_put(command)
        if isinstance(command, Cas):
            return self._on_cas(command)
        if isinstance(command, READS):
            return self.query(command)
        handler = _HANDLERS.get(type(command))
        if handler is None:
            return Refused("this is not for the log")
        answer: Response = getattr(self, handler)(command, request.client)
        return answer

    # -- keys --------------------------------------------------------------------------------------

    def _on_put(self, command: Put) -> Response:
        if command.lease and command.lease not in self.leases.leases:
            return Expired("lease", command.lease)
        revision = self._put(command.key, canonical(command.value), command.lease)
        return Done(None, revision, revision)

    def _on_cas(self, command: Cas) -> Response:
        record = self.keys.get(command.key)
        if (NULL if record is None else record.value) != canonical(command.expected):
            return self._mismatch(command.key)
        revision = self._put(command.key, canonical(command.new), record.lease if record else "")
        return Done(None, revision, revision)

    def _on_delete(self, command: Delete, _client: str) -> Response:
        count = self._delete(command.key, command.end)
        revision = self.keys.revision + (count > 0)
        if command.end is not None:
            return Done(count, revision=revision)
        return Done(None, revision if count else 0, revision)

    def _put(self, key: str, value: bytes, lease: str) -> int:
        if self.leases.leases:
            old = self.keys.get(key)
            self.leases.move(key, old.lease if old else "", lease)
        return self.keys.put(key, value, lease)

    def _delete(self, key: str, end: str | None = None) -> int:
        """Removes keys; returns how many there were."""
        names = [key] if end is None else [name for name, _ in self.keys.between(key, end)]
        count = 0
        self.keys.expect(len(names))
        for name in names:
            old = self.keys.delete(name)
            if old is not None:
                self.leases.move(name, old.lease, "")
                count += 1
        return count

    def _mismatch(self, key: str) -> Mismatch:
        record = self.keys.get(key)
        return Mismatch(parse(self.keys.text(key)), record.mod_revision if record else 0, self.keys.revision)

    def _on_txn(self, txn: Txn, _client: str) -> Response:
        for key, expected in txn.guards:
            if self.keys.text(key) != canonical(expected):
                return self._mismatch(key)
        revision = self.keys.revision
        done: list[list[Json]] = []
        for kind, key, value in txn.ops:
            if kind == "r":
                done.append([kind, key, self.value_of(key)])
                continue
            record = self.keys.get(key)
            if kind == "append":
                held = self.value_of(key)
                new = [*(held if isinstance(held, list) else []), value]
                revision = self._put(key, canonical(new), record.lease if record else "")
            else:
                revision = self._put(key, canonical(value), "")
            done.append([kind, key, value])
        return Done(done, revision=revision)

    # -- transactions of etcd's shape --------------------------------------------------------------

    def _on_if(self, command: If, _client: str) -> Response:
        """Decides every condition by the state as it was before, then does what follows."""
        decided = self._decide(command)
        missing = next((lease for lease in _leases_of(decided) if lease not in self.leases.leases), None)
        if missing is not None:
            return Expired("lease", missing)
        before = self.keys.revision
        value, changed = self._run(decided)
        return Done(value, revision=before + changed)

    def _decide(self, command: If) -> _Decided:
        succeeded = all(self._holds(compare) for compare in command.compare)
        commands = command.then if succeeded else command.otherwise
        return succeeded, [self._decide(one) if isinstance(one, If) else one for one in commands]

    def _run(self, decided: _Decided) -> tuple[Json, bool]:
        succeeded, commands = decided
        results: list[Json] = []
        changed = False
        for command in commands:
            match command:
                case Put(key, value, lease):
                    self._put(key, canonical(value), lease)
                    result, changes = None, True
                case Delete(key, end):
                    result = self._delete(key, end)
                    changes = result > 0
                case Get() | Range():
                    result, changes = self._read(command)[0], False
                case _:
                    result, changes = self._run(command)
            results.append(result)
            changed = changed or changes
        return {"succeeded": succeeded, "results": results}, changed

    def _holds(self, compare: Compare) -> bool:
        record = self.keys.get(compare.key)
        held: Any
        match compare.target:
            case "value":
                held, operand = self.keys.text(compare.key), canonical(compare.operand)
            case "lease":
                held, operand = record.lease if record else "", compare.operand
            case "version":
                held, operand = record.version if record else 0, compare.operand
            case "create":
                held, operand = record.create_revision if record else 0, compare.operand
            case _:
                held, operand = record.mod_revision if record else 0, compare.operand
        return _related(held, compare.relation, operand)

    # -- leases ------------------------------------------------------------------------------------

    def _on_grant(self, command: Grant, _client: str) -> Response:
        leases, lease = self.leases.leases, command.lease
        if lease in leases:
            return Mismatch(self._lease_as_json(lease, self.clock_us), revision=self.keys.revision)
        if len(leases) >= self._leases_max:
            return Refused("there are too many leases")
        name = lease or self._name("lease-")
        self.leases.grant(name, command.ttl_ms * _US_PER_MS, self.clock_us)
        return Done({"lease": name, "ttl_ms": command.ttl_ms}, revision=self.keys.revision)

    def _on_keep_alive(self, command: KeepAlive, client: str) -> Response:
        lease = command.lease
        if not lease:
            ttl_us = self.sessions.touch(client, self.clock_us)
            value = None if ttl_us is None else {"session": client, "ttl_ms": ttl_us // _US_PER_MS}
            return Done(value, revision=self.keys.revision)
        if lease not in self.leases.leases:
            return Expired("lease", lease)
        ttl_us = self.leases.keep_alive(lease, self.clock_us)
        return Done({"lease": lease, "ttl_ms": ttl_us // _US_PER_MS}, revision=self.keys.revision)

    def _on_revoke(self, command: Revoke, _client: str) -> Response:
        if command.lease not in self.leases.leases:
            return Expired("lease", command.lease)
        return Done(self._end_lease(command.lease), revision=self.keys.revision)

    def _on_open_session(self, command: OpenSession, _client: str) -> Response:
        if self.sessions.full:
            return Refused("too many sessions are open")
        name = self._name("@")
        self.sessions.open(name, command.ttl_ms * _US_PER_MS, self.clock_us)
        return Done({"session": name, "ttl_ms": command.ttl_ms}, revision=self.keys.revision)

    def _on_close_session(self, _command: CloseSession, client: str) -> Response:
        self.sessions.close(client)
        return Done(revision=self.keys.revision)

    def _end_lease(self, lease: str) -> int:
        """Ends a lease and its keys, as one revision; returns how many keys there were."""
        keys = self.leases.end(lease)
        self.keys.expect(len(keys))
        for key in keys:
            self.keys.delete(key)
        self.keys.commit()
        return len(keys)

    def _name(self, prefix: str) -> str:
        while True:
            self._named += 1
            name = f"{prefix}{self._named}"
            if name not in self.leases.leases:  # which a client may have named so
                return name

    def _lease_as_json(self, lease: str, clock_us: int) -> Json:
        held = self.leases.leases[lease]
        left_us = max(0, self.leases.deadlines.at_us(lease) - clock_us)
        return {
            "lease": lease,
            "ttl_ms": held.ttl_us // _US_PER_MS,
            "left_ms": left_us // _US_PER_MS,
            "keys": sorted(held.keys),
        }

    # -- reads -------------------------------------------------------------------------------------

    def query(self, command: Query, clock_us: int = 0) -> Response:
        """Reads the state as it is now; that this is recent enough is the caller's business."""
        match command:
            case Get() | Range():
                value, mod_revision = self._read(command)
                return Done(value, mod_revision, self.keys.revision)
            case LeaseInfo(lease):
                if lease not in self.leases.leases:
                    return Expired("lease", lease)
                value = self._lease_as_json(lease, max(self.clock_us, clock_us))
                return Done(value, revision=self.keys.revision)
            case Leases():
                return Done(sorted(self.leases.leases), revision=self.keys.revision)

    def _read(self, command: Get | Range) -> tuple[Json, int]:
        """What a read gives, and the revision of what it is about if that is one key."""
        if isinstance(command, Get):
            record = self.keys.get(command.key)
            if record is None:
                return None, 0
            value = as_json(command.key, record) if command.detail else parse(record.value)
            return value, record.mod_revision
        limit = max(0, min(command.limit, _RANGE_MAX))
        found = list(islice(self.keys.between(command.start, command.end), limit + 1))
        if not command.detail:
            return [[key, parse(record.value)] for key, record in found[:limit]], 0
        page = page_of(found[:limit])
        records = [as_json(key, record) for key, record in page]
        return {"records": records, "more": len(found) > len(page)}, 0

    def events(self, watch: Watch, after: int) -> Done | Compacted:
        """The changes that a watch asks for which are there, with the revision that it has seen all of."""
        if after < self.keys.compacted:
            return Compacted(self.keys.compacted)
        found, upto = self.keys.events(watch.key, watch.end, after, max(1, min(watch.limit, _RANGE_MAX)))
        return Done({"revision": upto, "events": found}, revision=self.keys.revision)

    def value_of(self, key: str) -> Json:
        """The value of a key, None where it is absent; for tests and inspection."""
        return parse(self.keys.text(key))

    # -- the whole ---------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state, sessions included: without them a retry after a restore would be applied again."""
        return msgspec.json.encode(self._stored())

    def _stored(self) -> _State:
        return _State(
            self.keys.stored(),
            self.sessions.stored(),
            self.leases.stored(),
            self.clock_us,
            self._named,
        )

    def restore(self, data: bytes) -> None:
        """Replaces the state by one that `snapshot` gave."""
        state = _decode_state(data)
        self.keys.restore(state.keys)
        self.sessions.restore(state.sessions)
        self.leases.restore(state.leases)
        self.clock_us, self._named = state.clock_us, state.named
        for key, record in self.keys.records.items():
            self.leases.move(key, "", record.lease)

    def digest(self) -> str:
        """A fingerprint of the whole state, sessions included: equal where the same log was applied."""
        keys = self.keys.stored()
        whole: list[Any] = [
            sorted(keys.records, key=lambda record: record.key),
            [keys.revision, keys.compacted, keys.events],
            self.sessions.fingerprint(),
            sorted(self.leases.stored(), key=lambda lease: lease.name),
            [self.clock_us, self._named],
        ]
        return hashlib.blake2b(canonical(whole), digest_size=16).hexdigest()


_HANDLERS: Mapping[type, str] = {
    Delete: "_on_delete",
    Txn: "_on_txn",
    If: "_on_if",
    Grant: "_on_grant",
    KeepAlive: "_on_keep_alive",
    Revoke: "_on_revoke",
    OpenSession: "_on_open_session",
    CloseSession: "_on_close_session",
}

_Decided = tuple[bool, list[Any]]  # which branch, and what is in it, with conditions decided in the same way


def _leases_of(decided: _Decided) -> Iterable[str]:
    for command in decided[1]:
        if isinstance(command, tuple):
            yield from _leases_of(command)
        elif isinstance(command, Put) and command.lease:
            yield command.lease


def _related(held: Any, relation: str, operand: Any) -> bool:
    return bool(_RELATIONS[relation](held, operand))


_RELATIONS: Mapping[str, Any] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
