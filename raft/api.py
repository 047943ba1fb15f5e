"""What a client may ask of a node, and what it is answered.

Definite and indefinite answers
    A checker of histories lives by the difference between "it did not happen" and "nobody knows", so every
    answer says which it is:

    answer       the request ...
    Done         took effect, exactly once
    Mismatch     was decided, and changed nothing: the condition did not hold
    Expired      was decided, and changed nothing: the lease or the session it names is not there (any more)
    Compacted    reads events that the store no longer has
    NotLeader    did not and never will take effect through this attempt: it was not appended to the log, or
                 the entry that was appended lost its place to a committed entry of another leader
    Refused      did not and never will take effect through this attempt: overload, or a full table
    Unknown      may have taken effect, may yet do so, or may never: the node stopped being the leader after
                 it had appended the entry, and cannot know whether a later leader has it

    Each answer speaks of one attempt. Whoever repeats a request (same `client`, same `seq`) knows it never
    happened only if that is true of every attempt.

Retries
    `client` and `seq` make writes exactly-once (thesis 6.3): a write repeated with the same pair takes effect
    once, and every attempt that is answered gets the answer of the first. A client has one request
    outstanding at a time, and its `seq` grows. A client of any name has a session from its first write on,
    which is forgotten only when too many others have written since. `OpenSession` gives a session with a
    stated life time, whose name begins with "@": once it has expired, every request in it is answered
    Expired, so that a retry that comes too late is never taken for new.

Revisions
    The store counts the entries that changed a key: that is the `revision` of every answer, the order of all
    changes. A key remembers the revision that created it and the last one that changed it, and how many did
    (`version`). A change and what it replaced can be asked for by revision (`Watch`). The answer to a command
    about one key says in `mod_revision` which change it made, or which one it saw (0: the key is absent).

Time
    Leases and sessions end by the cluster's own clock, which is part of the log (`raft.clock`): it never runs
    faster than the leader's monotonic clock, and stands still while nobody leads. So a lease ends no earlier
    than `ttl_ms` after the last Grant or KeepAlive that was answered, counted from when it was asked for, and
    it may end later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

Json: TypeAlias = Any  # None, bool, int, float, str, or a list or dict of such

TTL_MS_MAX = 366 * 24 * 3_600_000
_DEPTH_MAX = 8  # of conditions in conditions
_TARGETS = ("value", "create", "mod", "version", "lease")
_RELATIONS = ("=", "!=", "<", ">", "<=", ">=")


# -- reads and writes of keys --------------------------------------------------------------------------------


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Reads a key, linearizably: its value, or with `detail` its record (see `Range`), None if absent."""

    key: str
    detail: bool = False


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Sets a key; with a lease it goes when the lease ends, without one it stays."""

    key: str
    value: Json
    lease: str = ""


class Cas(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """Sets a key to `new` if it holds `expected`; an absent key holds None.

    Values are compared by their JSON text, so that `true`, `1` and `1.0` are three values. The key keeps its
    lease.
    """

    key: str
    expected: Json
    new: Json


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Removes a key, which need not exist, or with `end` all from `key` up to but not including `end`.

    With `end` the answer is how many there were. An end of "" is behind all keys.
    """

    key: str
    end: str | None = None


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """Reads the keys from `start` on, up to but not including `end`, linearizably, in order.

    The answer is `[[key, value], ...]`, at most `limit` of them; with `detail` it is `{"records": [...], "more":
    whether there are others}`, a record being `{"key", "value", "create_revision", "mod_revision", "version",
    "lease"}`. `prefix_end` gives the end for a prefix; None and "" are behind all keys.
    """

    start: str = ""
    end: str | None = None
    limit: int = 1_000
    detail: bool = False


class Txn(msgspec.Struct, frozen=True, array_like=True, tag="txn"):
    """Several reads and writes at one point in time, all or none.

    Each of `ops` is `["r", key, null]`, `["w", key, value]` or `["append", key, value]`; the answer is the
    same list with the reads filled in. Each of `guards` is `[key, expected]`: if one does not hold, nothing
    happens, and the answer is Mismatch with what that key holds.
    """

    ops: tuple[tuple[str, str, Json], ...]
    guards: tuple[tuple[str, Json], ...] = ()

    def __post_init__(self) -> None:
        """Refuses what no replica could apply, before it is in anybody's log."""
        for kind, _, _ in self.ops:
            if kind not in ("r", "w", "append"):
                raise ValueError(
                    f'{kind!r} is no operation of a transaction; there are "r", "w" and "append"'
                )


class Compare(msgspec.Struct, frozen=True, array_like=True):
    """A condition: the key's `target` stands in `relation` to `operand`.

    The target is "value" (an absent key holds None; values know only = and !=), "create", "mod" or "version"
    (numbers, 0 if the key is absent) or "lease" (a name, "" for none; knows only = and !=).

    >>> Compare("x", "create", "=", 0)  # the key is absent
    Compare(key='x', target='create', relation='=', operand=0)
    """

    key: str
    target: str
    relation: str
    operand: Json

    def __post_init__(self) -> None:
        """Refuses what no replica could decide."""
        if self.target not in _TARGETS:
            raise ValueError(f"{self.target!r} is nothing of a key; there are {', '.join(_TARGETS)}")
        if self.target in ("value", "lease"):
            if self.relation not in ("=", "!="):
                raise ValueError(f"{self.relation!r} says nothing of a {self.target}; there are = and !=")
        elif self.relation not in _RELATIONS:
            raise ValueError(f"{self.relation!r} is no relation; there are {', '.join(_RELATIONS)}")
        elif type(self.operand) is not int:
            raise ValueError(f"a {self.target} is compared with a whole number, not {self.operand!r}")


class If(msgspec.Struct, frozen=True, array_like=True, tag="if"):
    """A transaction of etcd's shape: `then` if every one of `compare` holds, else `otherwise`, at one point in time.

    The answer is `{"succeeded": bool, "results": [...]}`, a result for each command of the branch that was
    taken: what the command alone would be answered as its value. A command that cannot be done (a Put with a
    lease that has ended) undoes the whole.
    """

    compare: tuple[Compare, ...] = ()
    then: tuple[Branch, ...] = ()
    otherwise: tuple[Branch, ...] = ()

    def __post_init__(self) -> None:
        """Refuses conditions in conditions in conditions without end."""
        if self.depth > _DEPTH_MAX:
            raise ValueError(f"conditions are nested {self.depth} deep; at most {_DEPTH_MAX} are taken")

    @property
    def depth(self) -> int:
        """How deep conditions are nested: 1 without any inside."""
        inner = (c.depth for branch in (self.then, self.otherwise) for c in branch if isinstance(c, If))
        return 1 + max(inner, default=0)


Branch: TypeAlias = Get | Put | Delete | Range | If


class Watch(msgspec.Struct, frozen=True, array_like=True, tag="watch"):
    """Asks for the changes of a key, or of those from `key` up to `end` ("": of all), that came after a revision.

    With `after` None, changes from now on. The answer is `{"revision": r, "events": [...]}`: every change
    with a revision in (after, r], in order; ask again with `after=r` for what follows. An event is
    `{"type": "put", ...}` with the fields of a record, or `{"type": "delete", "key", "mod_revision"}`. If
    there is none yet, the answer comes with the first one, or empty after `wait_ms`. What the store has
    forgotten is answered Compacted.

    Any node answers, from what it has applied: never out of order and never with a gap, but on a node that
    is cut off, late.
    """

    key: str
    end: str | None = None
    after: int | None = None
    wait_ms: int = 0
    limit: int = 1_000


# -- leases and sessions -----------------------------------------------------------------------------------


class Grant(msgspec.Struct, frozen=True, array_like=True, tag="grant"):
    """Makes a lease, and answers `{"lease": name, "ttl_ms"}`; Mismatch if there is one of that name."""

    ttl_ms: int
    lease: str = ""  # a name is found if none is given

    def __post_init__(self) -> None:
        """Refuses life times that cannot be."""
        _check_ttl(self.ttl_ms)


class KeepAlive(msgspec.Struct, frozen=True, array_like=True, tag="keep-alive"):
    """Lets a lease live for another `ttl_ms` from now, and answers as Grant does; without a lease, the session."""

    lease: str = ""


class Revoke(msgspec.Struct, frozen=True, array_like=True, tag="revoke"):
    """Ends a lease: its keys are deleted with it. Answers how many there were."""

    lease: str


class LeaseInfo(msgspec.Struct, frozen=True, array_like=True, tag="lease"):
    """Reads `{"lease", "ttl_ms", "left_ms", "keys"}`, linearizably; `left_ms` is a lower bound."""

    lease: str


class Leases(msgspec.Struct, frozen=True, array_like=True, tag="leases"):
    """Reads the names of all leases."""


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag="open-session"):
    """Opens a session, and answers `{"session": name, "ttl_ms"}`: use the name as `Request.client`.

    Every write in it lets it live for another `ttl_ms`; `KeepAlive()` is a write that does nothing else.
    """

    ttl_ms: int

    def __post_init__(self) -> None:
        """Refuses life times that cannot be."""
        _check_ttl(self.ttl_ms)


class CloseSession(msgspec.Struct, frozen=True, array_like=True, tag="close-session"):
    """Ends the session of the request."""


def _check_ttl(ttl_ms: int) -> None:
    if not 0 < ttl_ms <= TTL_MS_MAX:
        raise ValueError(f"ttl_ms is {ttl_ms}; it must be from 1 to {TTL_MS_MAX} milliseconds")


Query: TypeAlias = Get | Range | LeaseInfo | Leases
Command: TypeAlias = (
    Query | Put | Cas | Delete | Txn | If | Watch | Grant | KeepAlive | Revoke | OpenSession | CloseSession
)
READS = (Get, Range, LeaseInfo, Leases)  # need no entry in the log


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of a client's request."""

    client: str
    seq: int
    command: Command


def prefix_end(prefix: str) -> str:
    """The end of the range of all keys that begin with `prefix`; "", which is no end, where there is none.

    >>> prefix_end("jobs/"), prefix_end("")
    ('jobs0', '')
    """
    for at in range(len(prefix) - 1, -1, -1):
        after = ord(prefix[at]) + 1
        if after == 0xD800:
            after = 0xE000  # no text holds what is between
        if after <= 0x10FFFF:
            return prefix[:at] + chr(after)
    return ""


# -- answers -------------------------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done", repr_omit_defaults=True):
    """It took effect; `value` is what was read (None for an absent key), None for plain writes."""

    value: Json = None
    mod_revision: int = 0  # of the one key it is about: the change that it made or saw
    revision: int = 0  # of the store, after it


class Mismatch(msgspec.Struct, frozen=True, array_like=True, tag="mismatch", repr_omit_defaults=True):
    """A condition found `current` instead of what it expected, and nothing was changed."""

    current: Json
    mod_revision: int = 0
    revision: int = 0


class Expired(msgspec.Struct, frozen=True, array_like=True, tag="expired"):
    """Definite: nothing happened, for there is no such lease or session. It was there once, or never."""

    what: Literal["lease", "session"]
    name: str


class Compacted(msgspec.Struct, frozen=True, array_like=True, tag="compacted"):
    """The events up to and including `revision` are forgotten: read the keys, and watch from there."""

    revision: int


class NotLeader(msgspec.Struct, frozen=True, array_like=True, tag="not-leader"):
    """Definite: nothing happened through this attempt. `leader` is whom to ask, if this node knows."""

    leader: str | None


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag="unknown"):
    """Indefinite: it may have happened, and may still happen."""

    reason: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """Definite: this node would not take the request."""

    reason: str


Response: TypeAlias = Done | Mismatch | Expired | Compacted | NotLeader | Unknown | Refused
Reply: TypeAlias = Callable[[Response], None]
