"""Kinds of fault put together: at the same time, by turns, or one after another.

    kill                 one kind
    any(kill,partition)  each in its own rhythm, at the same time; what a list of kinds means
    mix(kill,partition)  one at a time, by turns
    phases(kill,any())   each in its own part of the run, of equal length; `any()` is a part without faults

They nest, but for `mix`, whose parts are kinds.

>>> str(parse("phases(kill, any(partition, mix(pause, loss)))"))
'phases(kill,any(partition,mix(pause,loss)))'
>>> kinds_in([parse("mix(kill,pause)"), parse("kill")])
('kill', 'pause')
>>> parse("mix(kill")
Traceback (most recent call last):
nemesis.fault_base.FaultError: fault 'mix(kill' ends too early; write a kind, or any(...), ...
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from nemesis.fault_base import FaultError
from nemesis.kinds import kind

Manner = Literal["any", "mix", "phases"]
DEPTH_MAX = 8
_TOKEN = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*|[(),])\s*")
_REMEDY = "write a kind, or any(...), mix(...), phases(...) of kinds"


@dataclass(frozen=True, slots=True)
class Together:
    """Some parts, and in which manner they go together."""

    manner: Manner
    parts: tuple[Composition, ...]

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.manner}({','.join(map(str, self.parts))})"


Composition: TypeAlias = str | Together


def parse(text: str) -> Composition:
    """What was typed, with every kind known.

    Raises:
        FaultError: it cannot be read, or names what there is not.
    """
    tokens = _tokens(text)
    composition = _read(tokens, text, 0)
    if tokens:
        raise FaultError(f"fault {text!r} goes on with {tokens[-1]!r} where it should end; {_REMEDY}")
    return composition


def kinds_in(compositions: Iterable[Composition]) -> tuple[str, ...]:
    """The names of all kinds, each once, in order."""
    return tuple(dict.fromkeys(name for one in compositions for name in _names(one)))


def _names(composition: Composition) -> Iterator[str]:
    if isinstance(composition, str):
        yield composition
    else:
        for part in composition.parts:
            yield from _names(part)


def _tokens(text: str) -> list[str]:
    """The words and signs, the first one last."""
    found: list[str] = []
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            # A single unknown word gets the better answer that names what is near it.
            kind(text)
            raise FaultError(f"fault {text!r} cannot be read from {text[place:]!r} on; {_REMEDY}")
        found.append(match[1])
        place = match.end()
    return found[::-1]


def _read(tokens: list[str], text: str, depth: int) -> Composition:
    if depth > DEPTH_MAX:
        raise FaultError(f"fault {text!r} nests deeper than {DEPTH_MAX}; {_REMEDY}")
    name = _take(tokens, text)
    if not (tokens and tokens[-1] == "("):
        return kind(name).name
    if name not in get_args(Manner):
        raise FaultError(f"fault {text!r}: {name!r} takes no parts; {_REMEDY}")
    tokens.pop()
    parts: list[Composition] = []
    while tokens and tokens[-1] != ")":
        if parts and _take(tokens, text) != ",":
            raise FaultError(f"fault {text!r} lacks a comma between two parts; {_REMEDY}")
        parts.append(_read(tokens, text, depth + 1))
    _take(tokens, text)
    if name == "mix" and not (parts and all(isinstance(part, str) for part in parts)):
        raise FaultError(f"fault {text!r}: mix(...) takes kinds, at least one; write mix(kill,pause)")
    if name == "phases" and not parts:
        raise FaultError(f"fault {text!r}: phases() without parts; write phases(kill,pause)")
    return Together(cast("Manner", name), tuple(parts))


def _take(tokens: list[str], text: str) -> str:
    if not tokens:
        raise FaultError(f"fault {text!r} ends too early; {_REMEDY}")
    return tokens.pop()
