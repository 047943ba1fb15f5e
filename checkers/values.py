"""Values of operations in a canonical, hashable form, so that a checker can compare and intern them.

Rules of this module
    1. Equal JSON values have equal canonical forms, different ones have different forms. Python alone
       would say ``1 == True``; a register that was given ``true`` and answers ``1`` is broken, so booleans
       become `TRUE` and `FALSE`, which equal nothing but themselves. Numbers compare by value: ``1`` and
       ``1.0`` are the same JSON number.
    2. Lists become tuples, objects become `Map`, sets become `Set`; strings, numbers and None stay.
    3. `show` gives the text of a value for people: the same for the same value, whatever the order in
       which a set or an object happens to be held.

>>> freeze([1, True, {"a": None}])
(1, TRUE, Map((('a', None),)))
>>> freeze(1) == freeze(True)
False
>>> show(freeze([1, True, {"a": None}]))
'[1,true,{"a":null}]'
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable
from typing import Any

import msgspec


class Bool(enum.Enum):
    """JSON's two booleans; true in an ``if`` when true, but never equal to a number."""

    FALSE = 0
    TRUE = 1

    def __bool__(self) -> bool:
        return self is Bool.TRUE

    def __repr__(self) -> str:
        return self.name


TRUE = Bool.TRUE
FALSE = Bool.FALSE


class _Tagged(tuple[Any, ...]):
    """A tuple that equals only tuples of its own class (so ``{}`` is not ``[]``)."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((type(self).__name__, tuple(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple.__repr__(self)})"


class Map(_Tagged):
    """A JSON object: a tuple of (key, value) pairs in the order of `show` of the keys."""

    __slots__ = ()


class Set(_Tagged):
    """A set (EDN has them): its members in the order of `show`."""

    __slots__ = ()


def freeze(value: Any) -> Hashable:
    """The canonical form of a JSON value; see the rules of the module.

    Args:
        value: anything that JSON or EDN can say; canonical forms are their own canonical form.

    Raises:
        TypeError: for a Python object that is no such value.
    """
    kind = type(value)
    if value is None or kind is int or kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return TRUE if value else FALSE
    if kind is list or kind is tuple:
        return tuple(map(freeze, value))
    handler = _FREEZERS.get(kind)
    if handler is not None:
        return handler(value)
    raise TypeError(
        f"a value of type {kind.__name__} is not a JSON value: use numbers, strings, lists, objects"
    )


def _freeze_map(value: dict[Any, Any]) -> Map:
    pairs = ((freeze(key), freeze(member)) for key, member in value.items())
    return Map(sorted(pairs, key=lambda pair: show(pair[0])))


def _freeze_set(value: frozenset[Any] | set[Any]) -> Set:
    return Set(sorted({freeze(member) for member in value}, key=show))


_FREEZERS: dict[type, Callable[[Any], Hashable]] = {
    float: lambda value: int(value) if value.is_integer() else value,
    dict: _freeze_map,
    set: _freeze_set,
    frozenset: _freeze_set,
    Bool: lambda value: value,
    Map: lambda value: value,
    Set: lambda value: value,
}


def thaw(value: Any) -> Any:
    """The JSON value that a canonical form stands for (sets become lists)."""
    if isinstance(value, Bool):
        return value is TRUE
    if isinstance(value, Map):
        return {key if isinstance(key, str) else show(key): thaw(member) for key, member in value}
    if isinstance(value, tuple):
        return [thaw(member) for member in value]
    return value


def show(value: Any, limit: int = 0) -> str:
    """The value as compact JSON, cut to ``limit`` characters where that is not 0.

    >>> show("x" * 30, limit=12)
    '"xxxxxxxx...'
    """
    text = msgspec.json.encode(thaw(value)).decode()
    if limit and len(text) > limit:
        return text[: limit - 3] + "..."
    return text


def show_apart(one: Any, other: Any, limit: int = 60) -> tuple[str, str]:
    """Two values that differ, as `show`; of long strings and lists the stretch where they part.

    >>> show_apart([1, 2], [2])
    ('[1,2]', '[2]')
    >>> show_apart("x" * 100 + "ab", "x" * 100 + "b", limit=20)
    ('"...xxxxxxxxxxab"', '"...xxxxxxxxxxb"')
    >>> show_apart(tuple(range(50)), (*range(30), 99), limit=20)[1]
    '[... 25 more, 25,26,27,28,29,99]'
    """
    text = isinstance(one, str) and isinstance(other, str)
    listed = isinstance(one, tuple) and isinstance(other, tuple)
    if not (text or listed) or max(len(one), len(other)) <= (limit if text else _ELEMENTS_SHOWN):
        return show(one, limit), show(other, limit)
    same = _same_start(one, other)
    if text:
        start = max(0, same - limit // 2)
        return _stretch(one, start, limit), _stretch(other, start, limit)
    start = max(0, same - _ELEMENTS_SHOWN // 2 - 1)
    return _elements(one, start), _elements(other, start)


_ELEMENTS_SHOWN = 8


def _same_start(one: Any, other: Any) -> int:
    """The length of the start that two strings, or two tuples, have in common; by halves, since they may be long."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _stretch(text: str, start: int, limit: int) -> str:
    end = start + limit
    return show(("..." if start else "") + text[start:end] + ("..." if len(text) > end else ""))


def _elements(values: tuple[Any, ...], start: int) -> str:
    end = start + _ELEMENTS_SHOWN
    before = f"... {start} more, " if start else ""
    after = f", ... {len(values) - end} more" if len(values) > end else ""
    return f"[{before}{show(values[start:end])[1:-1]}{after}]"
