"""What a client's call means: from method, path, query and body to a command, and from an answer to JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from raft.api import (
    Branch,
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
    Range,
    Refused,
    Response,
    Revoke,
    Txn,
    Watch,
    prefix_end,
)
from raft.http1 import Answer, Call, Refusal

WATCH_WAIT_MS_MAX = 60_000
OPERATIONS_MAX = 10_000  # of a transaction: while a node applies it, it does nothing else
_SPAN = ("prefix", "start", "end")  # which keys

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


DEPTH_MAX = 100  # of lists and objects in each other
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # in and, as a signed byte, out
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def refuse_deep(body: bytes) -> None:
    """Refuses JSON that is nested so deeply that one replica may run out of stack where another did not.

    Raises:
        Refusal: it is.
    """
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    steps = memoryview(_TEXTS.sub(b"", body).translate(_STEPS, _NO_BRACKETS)).cast("b")
    if max(accumulate(steps), default=0) > DEPTH_MAX:
        raise Refusal(400, f"the JSON is nested more than {DEPTH_MAX} deep")


def refuse_long(command: Command) -> Command:
    """Refuses a transaction that would keep nodes from their heartbeats while they apply it.

    Raises:
        Refusal: it is one.
    """
    if isinstance(command, Txn | If) and (count := _size_of(command)) > OPERATIONS_MAX:
        raise Refusal(
            413, f"a transaction of {count} conditions and operations; at most {OPERATIONS_MAX} are taken"
        )
    return command


def _size_of(command: Branch | Txn) -> int:
    if isinstance(command, Txn):
        return len(command.ops) + len(command.guards)
    if isinstance(command, If):
        return len(command.compare) + sum(map(_size_of, (*command.then, *command.otherwise)))
    return 1


# -- bodies --------------------------------------------------------------------------------------------------


class _CasBody(msgspec.Struct, forbid_unknown_fields=True):
    expected: Any
    new: Any


class _TtlBody(msgspec.Struct, forbid_unknown_fields=True):
    ttl_ms: int
    lease: str = ""


class _Condition(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    target: str
    operand: Any
    relation: str = "="


class _PutOp(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    value: Any
    lease: str = ""


class _KeyOp(msgspec.Struct, forbid_unknown_fields=True):
    key: str


class _KeysOp(msgspec.Struct, forbid_unknown_fields=True):
    key: str = ""
    end: str | None = None
    prefix: str | None = None


class _RangeOp(msgspec.Struct, forbid_unknown_fields=True):
    start: str = ""
    end: str | None = None
    prefix: str | None = None
    limit: int = 1_000


class _Op(msgspec.Struct, forbid_unknown_fields=True):
    """One of these."""

    put: _PutOp | None = None
    get: _KeyOp | None = None
    delete: _KeysOp | None = None
    range: _RangeOp | None = None
    txn: _TxnBody | None = None


class _TxnBody(msgspec.Struct, forbid_unknown_fields=True, rename={"otherwise": "else"}):
    compare: list[_Condition] = []
    then: list[_Op] = []
    otherwise: list[_Op] = []


class _OpsBody(msgspec.Struct, forbid_unknown_fields=True):
    ops: tuple[tuple[str, str, Any], ...]
    guards: tuple[tuple[str, Any], ...] = ()


_cas_body = msgspec.json.Decoder(_CasBody).decode
_ttl_body = msgspec.json.Decoder(_TtlBody).decode
_txn_body = msgspec.json.Decoder(_TxnBody).decode
_ops_body = msgspec.json.Decoder(_OpsBody).decode


# -- from calls to commands ----------------------------------------------------------------------------------


def command_of(call: Call) -> Command | None:
    """The command that a call stands for; None if its path is none of those here.

    Raises:
        Refusal: it is one of those, and cannot be understood.
        msgspec.DecodeError: its body cannot.
    """
    kind, _, rest = call.path.removeprefix("/v1/").partition("/")
    make = _KINDS.get(kind) if call.path.startswith("/v1/") else None
    return make(call, _unquoted(rest)) if make is not None else None


def _unquoted(text: str) -> str:
    """A part of the path; two names must not become one because neither is UTF-8."""
    return unquote(_utf8(text), errors="strict")


def _utf8(text: str) -> str:
    """What a client sent as UTF-8 and without escapes; a head is read as Latin-1."""
    return text if text.isascii() else text.encode("latin-1").decode()


def _on_keys(call: Call, key: str) -> Command:
    if not key:
        if call.method == "GET":
            _knows(call, *_SPAN, "limit")
            return Range(*_span(call), number(call, "limit", 1_000), detail=True)
        if call.method == "DELETE" and call.query:
            _knows(call, *_SPAN)
            start, end = _span(call)
            return Delete(start, end or "")
        raise Refusal(405, f"there is no {call.method} of keys without naming one, or a prefix")
    if call.method == "GET":
        return Get(key, detail=True)
    if call.method == "PUT":
        _knows(call, "lease")
        return Put(key, _decode(call.body), _option(call, "lease") or "")
    if call.method == "POST":
        body = _cas_body(call.body)
        return Cas(key, body.expected, body.new)
    if call.method == "DELETE":
        return Delete(key)
    raise Refusal(405, f"there is no {call.method} of a key")


def _on_txn(call: Call, _rest: str) -> Command:
    _only(call, "POST")
    body = _decode(call.body)
    if isinstance(body, dict) and "ops" in body:
        ops = _ops_body(call.body)
        return refuse_long(Txn(ops.ops, ops.guards))
    return refuse_long(_if(_txn_body(call.body)))


def _if(body: _TxnBody) -> If:
    return If(
        tuple(Compare(one.key, one.target, one.relation, one.operand) for one in body.compare),
        tuple(map(_branch, body.then)),
        tuple(map(_branch, body.otherwise)),
    )


def _branch(op: _Op) -> Branch:
    given = [one for one in (op.put, op.get, op.delete, op.range, op.txn) if one is not None]
    if len(given) != 1:
        raise Refusal(400, "each operation of a transaction is one of put, get, delete, range and txn")
    match given[0]:
        case _PutOp(key, value, lease):
            return Put(key, value, lease)
        case _KeyOp(key):
            return Get(key, detail=True)
        case _KeysOp(key, end, prefix):
            return Delete(key, end) if prefix is None else Delete(prefix, prefix_end(prefix))
        case _RangeOp(start, end, prefix, limit):
            if prefix is not None:
                start, end = prefix, prefix_end(prefix)
            return Range(start, end, limit, detail=True)
        case _TxnBody() as inner:
            return _if(inner)
    raise AssertionError(given)


def _on_leases(call: Call, lease: str) -> Command:
    if not lease:
        if call.method == "GET":
            return Leases()
        _only(call, "POST", "GET")
        body = _ttl_body(call.body)
        return Grant(body.ttl_ms, body.lease)
    _only(call, "GET", "POST", "DELETE")
    if call.method == "GET":
        return LeaseInfo(lease)
    return KeepAlive(lease) if call.method == "POST" else Revoke(lease)


def _on_sessions(call: Call, session: str) -> Command:
    if not session:
        _only(call, "POST")
        return OpenSession(_ttl_body(call.body).ttl_ms)
    _only(call, "POST", "DELETE")
    if call.headers.get("client") != session:
        raise Refusal(400, f"the headers Client: {session} and Seq say in which session, and what comes next")
    return KeepAlive() if call.method == "POST" else CloseSession()


def watch_of(call: Call) -> Watch:
    """What `GET /v1/watch` asks for."""
    _knows(call, "key", *_SPAN, "after", "wait_ms", "limit")
    key = _option(call, "key")
    start, end = _span(call)
    after = number(call, "after", -1)
    return Watch(
        start if key is None else key,
        (end or "") if key is None else None,
        after if after >= 0 else None,
        min(number(call, "wait_ms", 0), WATCH_WAIT_MS_MAX),
        number(call, "limit", 1_000),
    )


_KINDS: dict[str, Callable[[Call, str], Command]] = {
    "keys": _on_keys,
    "txn": _on_txn,
    "leases": _on_leases,
    "sessions": _on_sessions,
}


def _only(call: Call, *methods: str) -> None:
    if call.method not in methods:
        raise Refusal(405, f"there is no {call.method} {call.path}; there is {', '.join(methods)}")


def _span(call: Call) -> tuple[str, str | None]:
    prefix = _option(call, "prefix")
    if prefix is not None:
        return prefix, prefix_end(prefix)
    return _option(call, "start") or "", _option(call, "end")


def _knows(call: Call, *names: str) -> None:
    """Refuses what nobody looks at: a misspelt prefix would stand for all keys."""
    for name in _options(call):
        if name not in names:
            raise Refusal(400, f"the query has {name[:30]!r}; there is {', '.join(names)}")


def _options(call: Call) -> dict[str, str]:
    return dict(parse_qsl(_utf8(call.query), keep_blank_values=True, errors="strict")) if call.query else {}


def _option(call: Call, name: str) -> str | None:
    return _options(call).get(name)


def number(call: Call, name: str, default: int) -> int:
    """A whole number of the query."""
    text = _option(call, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Refusal(400, f"{name} is {text[:30]!r}; it must be a whole number")
    return int(text)


# -- from answers to JSON ------------------------------------------------------------------------------------


def answer_of(command: Command, response: Response) -> Answer:
    """What a client gets for an answer that says what became of its command."""
    match response:
        case Done():
            return as_json(200, _done(command, response))
        case Mismatch(current, mod_revision, revision):
            return as_json(409, {"current": current, "mod_revision": mod_revision, "revision": revision})
        case Expired(what, name):
            return error(404, f"there is no {what} {name!r}: it has ended, or never was")
        case Compacted(revision):
            return as_json(410, {"compacted": revision})
        case Refused(reason):
            return error(503, reason)
        case _:
            return error(504, getattr(response, "reason", "the leader is not known"))


def _done(command: Command, done: Done) -> Json:
    revisions = {"mod_revision": done.mod_revision, "revision": done.revision}
    match command:
        case Get(key):
            return {**(done.value or {"key": key, "value": None}), **revisions}
        case Put() | Cas() | Delete():
            deleted = {} if done.value is None else {"deleted": done.value}
            return {"ok": True, **deleted, **revisions}
        case Leases() | Txn() | Revoke():
            name = {Leases: "leases", Txn: "ops", Revoke: "deleted"}[type(command)]
            return {name: done.value, "revision": done.revision}
        case Watch():
            return done.value
        case _:
            return {**(done.value or {"ok": True}), "revision": done.revision}


def as_json(status: int, value: Any) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, encode(value))


def error(status: int, why: str) -> Answer:
    """An answer that says in a sentence what is wrong."""
    return as_json(status, {"error": why})
