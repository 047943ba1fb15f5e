"""Models of stores that number their changes: a register with revisions, and a whole store with transactions.

Rules of this module
    1. `Operation.revision` is part of the answer: which change the operation made or saw. A correct store never tells
       a wrong one. Where it tells none (and of ``info`` operations nobody knows it) nothing is held against it.
    2. Reads of nil found nothing; a refused compare-and-set says that the value differed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from checkers.effects import Effect, Inconsistent, State
from checkers.history import Operation
from checkers.values import Map, freeze, show

_READS, _WRITES = frozenset({"read", "get"}), frozenset({"write", "put"})
_SHOWN = 48

#: Value, revision of the last change that is known, and how many changes of unknown revision came after it.
RegisterState = tuple[Hashable, int, int]


@dataclass(frozen=True, slots=True)
class RevisionRegister:
    """A register per key whose changes have growing revisions, with gaps of any size (other keys may fill them).

    Operations are ``read``, ``write``, ``cas`` and ``delete``. Where it starts with a value, nobody knows that value's
    revision (it is 0 or more); an absent key is at revision 0.
    """

    start: Hashable = None
    name: str = "revision-register"
    by_key: bool = True
    uses_mismatch: bool = True
    uses_revisions: bool = True

    def initial(self) -> RegisterState:
        """The state before the first operation."""
        return (None, 0, 0) if self.start is None else (self.start, -1, 1)

    def effect(self, operation: Operation) -> Effect:
        """A read that tells its revision may settle which one a lost write made."""
        silent = operation.revision is None or operation.status == "info"
        return Effect.PURE if operation.f in _READS and silent else Effect.GENERAL

    def code(self, operation: Operation) -> tuple[Hashable, ...] | None:
        """The operation in the words of `checkers.models.RegisterCode`."""
        f, argument = operation.f, operation.argument
        if f in _READS:
            return ("read", operation.result)
        if f in _WRITES:
            return ("write", argument)
        if f == "cas" and isinstance(argument, tuple) and len(argument) == 2:
            return ("differs", argument[0]) if operation.status == "mismatch" else ("cas", *argument)
        return ("write", None) if f == "delete" else None

    def misfit(self, operation: Operation) -> str | None:
        """See `checkers.models.misfit`."""
        if self.code(operation) is not None:
            return None
        if operation.f == "cas":
            return f"cas needs the pair [old, new], not {show(operation.argument)}"
        return f"the model {self.name} knows read, write, cas, delete only, not {operation.f!r}"

    def step(self, state: RegisterState, operation: Operation, /) -> State | Inconsistent:
        """See `checkers.models.Model.step`."""
        code = self.code(operation)
        if code is None:
            return Inconsistent("is not an operation of this model")
        value = state[0]
        told = None if operation.status == "info" else operation.revision
        if code[0] == "differs" and value == code[1]:
            return Inconsistent(f"was refused though the value was {show(value, _SHOWN)} as expected")
        if code[0] in {"read", "cas"} and value != code[1]:
            did = "read" if code[0] == "read" else "expected"
            return Inconsistent(f"{did} {show(code[1], _SHOWN)} while the value was {show(value, _SHOWN)}")
        if code[0] in {"read", "differs"}:
            return _saw(state, told)
        if operation.f == "delete" and value is None and told is None:
            return state
        return _changed(state, code[-1], told)


def _saw(state: RegisterState, told: int | None) -> RegisterState | Inconsistent:
    value, revision, hidden = state
    if told is None or (not hidden and told == revision):
        return state
    if hidden and told >= revision + hidden:
        return value, told, 0
    return Inconsistent(f"saw revision {told} while it was {_at_least(revision, hidden)}")


def _changed(state: RegisterState, value: Hashable, told: int | None) -> RegisterState | Inconsistent:
    _, revision, hidden = state
    if told is None:
        return value, revision, hidden + 1
    if told > revision + hidden:
        return value, told, 0
    return Inconsistent(f"made revision {told} after revision {_at_least(revision, hidden)}")


def _at_least(revision: int, hidden: int) -> str:
    return f"{revision + hidden} or more" if hidden else str(revision)


#: Of a key: value, revision that created it, revision that changed it last, number of changes since it was created.
_Record = tuple[Hashable, int, int, int]
_ABSENT: _Record = (None, 0, 0, 0)
_TARGETS = {"value": 0, "create": 1, "mod": 2, "version": 3}
_RELATIONS: dict[Hashable, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class RevisionKv:
    """A whole store with one revision, which each operation that changes something raises by one, as etcd's.

    ``get``, ``put``, ``delete`` and ``cas`` are about the operation's key. The argument of ``txn`` is ``{"compare":
    [[key, target, relation, operand], ...], "then": [...], "else": [...]}``: targets ``value``, ``create``, ``mod``,
    ``version``; relations ``=``, ``!=``, ``<``, ``>``; commands ``["get", key]``, ``["put", key, value]``,
    ``["delete", key]`` and ``["txn", {...}]``. All conditions, inner ones too, are decided by the state before. Its
    result is ``{"succeeded": bool, "results": [...]}``: of a get the value, of a put null, of a delete the number of
    keys it removed.

    The revision that is told is that of the change that was made; where none was, that of the last change of the key
    that was read (for ``txn``: of the store). All that change the store must be in the history.

    Attributes:
        start: values by key at the beginning, which have revision 0.
    """

    start: Map = Map()  # noqa: RUF009  (immutable)
    name: str = "revision-kv"
    uses_mismatch: bool = True
    uses_revisions: bool = True

    def initial(self) -> State:
        """The revision of the store, and its records by key."""
        return 0, Map((key, (value, 0, 0, 1)) for key, value in self.start)

    def effect(self, operation: Operation) -> Effect:
        """See `Effect`."""
        return Effect.PURE if operation.f in _READS else Effect.GENERAL

    def misfit(self, operation: Operation) -> str | None:
        """See `checkers.models.misfit`."""
        f, argument = operation.f, operation.argument
        if f == "cas" and not (isinstance(argument, tuple) and len(argument) == 2):
            return f"cas needs the pair [old, new], not {show(argument)}"
        if f == "txn":
            return _bad_txn(argument)
        if f in _READS | _WRITES or f in {"cas", "delete"}:
            return None
        return f"the model {self.name} knows get, put, delete, cas, txn only, not {f!r}"

    def step(self, state: Any, operation: Operation, /) -> State | Inconsistent:
        """See `checkers.models.Model.step`."""
        store = _Store(*state)
        wrong = _KV_STEPS.get(operation.f, _on_write)(store, operation)
        if wrong is None and operation.status != "info" and operation.revision is not None:
            seen = store.revision if operation.f == "txn" else store.last_change(operation.key)
            if operation.revision != seen:
                wrong = f"told revision {operation.revision} while it was {seen}"
        return store.state() if wrong is None else Inconsistent(wrong)


class _Store:
    """The store while one operation is applied to it."""

    def __init__(self, revision: int, records: Map) -> None:
        self.before = revision
        self.revision = revision
        self.records: dict[Hashable, _Record] = dict(records)
        self._deleted: set[Hashable] = set()

    def value(self, key: Hashable) -> Hashable:
        return self.records.get(key, _ABSENT)[0]

    def last_change(self, key: Hashable) -> int:
        return self.revision if key in self._deleted else self.records.get(key, _ABSENT)[2]

    def put(self, key: Hashable, value: Hashable) -> None:
        self.revision = self.before + 1
        _, create, _, version = self.records.get(key, _ABSENT)
        self.records[key] = (value, create if version else self.revision, self.revision, version + 1)

    def delete(self, key: Hashable) -> int:
        if self.records.pop(key, None) is None:
            return 0
        self.revision = self.before + 1
        self._deleted.add(key)
        return 1

    def holds(self, compare: Any) -> bool:
        key, target, relation, operand = compare
        held = self.records.get(key, _ABSENT)[_TARGETS[target]]
        try:
            return _RELATIONS[relation](held, operand)
        except TypeError:  # of two kinds of value neither is less
            return False

    def state(self) -> State:
        return self.revision, Map(sorted(self.records.items(), key=lambda pair: show(pair[0])))


def _on_read(store: _Store, operation: Operation) -> str | None:
    held = store.value(operation.key)
    if operation.status == "info" or operation.result == held:
        return None
    return f"read {show(operation.result, _SHOWN)} while the value was {show(held, _SHOWN)}"


def _on_write(store: _Store, operation: Operation) -> str | None:
    store.put(operation.key, operation.argument)
    return None


def _on_delete(store: _Store, operation: Operation) -> str | None:
    store.delete(operation.key)
    return None


def _on_cas(store: _Store, operation: Operation) -> str | None:
    old, new = cast("tuple[Hashable, Hashable]", operation.argument)
    held = store.value(operation.key)
    if operation.status == "mismatch":
        return f"was refused though the value was {show(held, _SHOWN)} as expected" if held == old else None
    if held != old:
        return f"expected {show(old, _SHOWN)} while the value was {show(held, _SHOWN)}"
    store.put(operation.key, new)
    return None


def _on_txn(store: _Store, operation: Operation) -> str | None:
    result = freeze(_run(store, _decide(store, operation.argument)))
    if operation.status == "info" or operation.result in (None, result):
        return None
    return f"answered {show(operation.result, _SHOWN)} where {show(result, _SHOWN)} is right"


_KV_STEPS: dict[str, Callable[[_Store, Operation], str | None]] = {
    "read": _on_read,
    "get": _on_read,
    "delete": _on_delete,
    "cas": _on_cas,
    "txn": _on_txn,
}


def _decide(store: _Store, txn: Any) -> tuple[bool, list[Any]]:
    """Whether a transaction's conditions hold, and its commands, those of inner ones decided too."""
    parts = dict(txn)
    succeeded = all(map(store.holds, parts.get("compare", ())))
    commands = parts.get("then" if succeeded else "else", ())
    return succeeded, [("txn", _decide(store, one[1])) if one[0] == "txn" else one for one in commands]


def _run(store: _Store, decided: tuple[bool, list[Any]]) -> dict[str, Any]:
    succeeded, commands = decided
    results: list[Any] = []
    for what, *rest in commands:
        if what == "put":
            store.put(*rest)
            results.append(None)
        elif what == "txn":
            results.append(_run(store, rest[0]))
        else:
            results.append(store.value(rest[0]) if what == "get" else store.delete(rest[0]))
    return {"succeeded": succeeded, "results": results}


_LENGTHS = {"get": 2, "delete": 2, "put": 3, "txn": 2}


def _bad_txn(txn: Hashable) -> str | None:
    """Why that is no transaction, as a clause."""
    if not isinstance(txn, Map) or not {key for key, _ in txn} <= {"compare", "then", "else"}:
        return f'txn needs {{"compare": [...], "then": [...], "else": [...]}}, not {show(txn)}'
    parts = cast("dict[str, Any]", dict(txn))
    for name, part in parts.items():
        if not isinstance(part, tuple) or not all(isinstance(one, tuple) for one in part):
            return f"{name} of txn is a list of lists, not {show(part)}"
    for compare in parts.get("compare", ()):
        if len(compare) != 4 or compare[1] not in _TARGETS or compare[2] not in _RELATIONS:
            return f"a condition is [key, target, relation, operand], not {show(compare)}"
    for command in (*parts.get("then", ()), *parts.get("else", ())):
        if len(command) != _LENGTHS.get(command[0] if command else ""):
            return f"a command is get, put, delete or txn with what belongs to it, not {show(command)}"
        inner = _bad_txn(command[1]) if command[0] == "txn" else None
        if inner is not None:
            return inner
    return None


def _kv(initial: Any) -> RevisionKv:
    if initial is not None and not isinstance(initial, Mapping):
        raise ValueError(
            f"initial value {show(freeze(initial))} of revision-kv is no object: give values by key"
        )
    return RevisionKv(cast("Map", freeze(dict(initial or {}))))


#: Models by name, from an initial value.
REVISION_MODELS: dict[str, Callable[[Any], RevisionRegister | RevisionKv]] = {
    "revision-kv": _kv,
    "revision-register": lambda initial: RevisionRegister(freeze(initial)),
}
