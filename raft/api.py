"""What a client may ask of a node, and what it is answered.

Definite and indefinite answers
    A checker of histories lives by the difference between "it did not happen" and "nobody knows", so every
    answer says which it is:

    answer       the request ...
    Done         took effect, exactly once
    Mismatch     was decided, and changed nothing: the condition did not hold
    NotLeader    did not and never will take effect through this attempt: it was not appended to the log, or
                 the entry that was appended lost its place to a committed entry of another leader
    Refused      did not and never will take effect through this attempt: overload
    Unknown      may have taken effect, may yet do so, or may never: the node stopped being the leader after
                 it had appended the entry, and cannot know whether a later leader has it

    Each answer speaks of one attempt. Whoever repeats a request (same `client`, same `seq`) knows it never
    happened only if that is true of every attempt.

Retries
    `client` and `seq` make writes exactly-once (thesis 6.3): a write repeated with the same pair takes effect
    once, and every attempt that is answered gets the answer of the first. A client has one request
    outstanding at a time, and its `seq` grows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

Json: TypeAlias = Any  # None, bool, int, float, str, or a list or dict of such


class Get(msgspec.Struct, frozen=True, array_like=True, tag="get"):
    """Reads a key, linearizably."""

    key: str


class Put(msgspec.Struct, frozen=True, array_like=True, tag="put"):
    """Sets a key."""

    key: str
    value: Json


class Cas(msgspec.Struct, frozen=True, array_like=True, tag="cas"):
    """Sets a key to `new` if it holds `expected`; an absent key holds None.

    Values are compared by their JSON text, so that `true`, `1` and `1.0` are three values.
    """

    key: str
    expected: Json
    new: Json


class Delete(msgspec.Struct, frozen=True, array_like=True, tag="delete"):
    """Removes a key; it need not exist."""

    key: str


class Range(msgspec.Struct, frozen=True, array_like=True, tag="range"):
    """Reads the keys from `start` on, up to but not including `end`, linearizably: `[[key, value], ...]` in order."""

    start: str = ""
    end: str | None = None
    limit: int = 1_000


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


Command: TypeAlias = Get | Put | Cas | Delete | Range | Txn
READS = (Get, Range)  # need no entry in the log


class Request(msgspec.Struct, frozen=True, array_like=True):
    """One attempt of a client's request."""

    client: str
    seq: int
    command: Command


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """It took effect; `value` is what was read (None for an absent key), None for plain writes."""

    value: Json = None


class Mismatch(msgspec.Struct, frozen=True, array_like=True, tag="mismatch"):
    """A Cas found `current` instead of what it expected, and changed nothing."""

    current: Json


class NotLeader(msgspec.Struct, frozen=True, array_like=True, tag="not-leader"):
    """Definite: nothing happened through this attempt. `leader` is whom to ask, if this node knows."""

    leader: str | None


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag="unknown"):
    """Indefinite: it may have happened, and may still happen."""

    reason: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """Definite: this node would not take the request."""

    reason: str


Response: TypeAlias = Done | Mismatch | NotLeader | Unknown | Refused
Reply: TypeAlias = Callable[[Response], None]
