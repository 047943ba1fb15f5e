"""EDN, the notation in which Jepsen and Knossos store histories, as far as histories use it.

Rules of this module
    1. Everything that the format has is read; a tagged literal such as ``#jepsen.history.Op{...}`` or
       ``#inst "..."`` is read as the value after its tag.
    2. Keywords keep their colon (``":read"``) and symbols are plain strings, so that a keyword differs from
       a string in values; whoever reads an operation takes the colon off.
    3. nil, true, false, numbers and strings are Python's; lists and vectors are lists, maps are dicts with
       canonical keys (`checkers.values.freeze`), sets are frozensets of canonical values.

>>> list(read_forms('{:f :cas, :value [1 nil]} ; comment'))
[{':f': ':cas', ':value': [1, None]}]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from checkers.values import freeze

_TOKEN = re.compile(
    r"""[\s,]*(?:;[^\n]*[\s,]*)*          # blanks and comments
        (?: (?P<string>"(?:[^"\\]|\\.)*")
          | (?P<open>\#\{|[\[({])
          | (?P<close>[\])}])
          | (?P<discard>\#_)
          | (?P<tag>\#[A-Za-z][^\s,;"\[\](){}]*)
          | (?P<meta>\^)
          | (?P<char>\\(?:newline|space|tab|return|u[0-9A-Fa-f]{4}|.))
          | (?P<atom>[^\s,;"\[\](){}\\]+)
          | (?P<end>\Z) )""",
    re.VERBOSE | re.DOTALL,
)
_ATOM = re.compile(r"[\s,]*([^\s,;\"\[\](){}\\#^][^\s,;\"\[\](){}\\]*)")
_INTEGER = re.compile(r"[-+]?\d+N?\Z")
_FLOAT = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?M?\Z")
_CONSTANTS: dict[str, Any] = {"nil": None, "true": True, "false": False}
_CLOSERS = {"[": "]", "(": ")", "{": "}", "#{": "}"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "b": "\b", "f": "\f"}
_CHARACTERS = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r"}
_DEPTH_MAX = 200


class EdnError(ValueError):
    """Text that is no EDN; the message names the line and the column."""


def read_forms(text: str) -> Iterator[Any]:
    """The values that stand one after another in the text; see the rules of the module.

    Raises:
        EdnError: where the text is no EDN, in the course of the iteration.
    """
    reader = _Reader(text)
    while True:
        found, value = reader.form(0)
        if not found:
            if reader.closer:
                raise reader.error(f"{reader.closer!r} closes nothing")
            return
        yield value


def read_first(text: str) -> tuple[Any, str]:
    """The first value in the text, and the text after it; None and nothing where there is no value.

    >>> read_first("[1 2] :timeout")
    ([1, 2], ' :timeout')

    Raises:
        EdnError: where the text starts with no value.
    """
    reader = _Reader(text)
    _, value = reader.form(0)
    return value, text[reader.at :]


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.token_at = 0
        self.closer = ""

    def error(self, message: str) -> EdnError:
        line = self.text.count("\n", 0, self.token_at) + 1
        column = self.token_at - (self.text.rfind("\n", 0, self.token_at) + 1) + 1
        return EdnError(f"line {line}, column {column}: {message}")

    def form(self, depth: int) -> tuple[bool, Any]:
        """The next value; (False, None) at the end of the text or at a closing bracket (`closer`)."""
        if depth > _DEPTH_MAX:
            raise self.error(f"brackets are nested deeper than {_DEPTH_MAX}")
        self.closer = ""
        while True:
            match = _TOKEN.match(self.text, self.at)
            if match is None:
                self.token_at = self.at
                raise self.error("no EDN value starts here")
            self.at = match.end()
            kind = str(match.lastgroup)
            self.token_at = match.start(kind)
            token = match.group(kind)
            if kind == "end":
                return False, None
            if kind == "close":
                self.closer = token
                return False, None
            if kind in {"discard", "meta"}:
                self._required(depth, token)
            elif kind != "tag":
                return True, self._value(kind, token, depth)

    def _required(self, depth: int, token: str) -> Any:
        found, value = self.form(depth + 1)
        if not found:
            raise self.error(f"a value must follow {token!r}")
        return value

    def _value(self, kind: str, token: str, depth: int) -> Any:
        if kind == "open":
            return self._collection(token, depth)
        if kind == "string":
            return _unescape(token[1:-1]) if "\\" in token else token[1:-1]
        if kind == "char":
            name = token[1:]
            if len(name) == 5 and name[0] == "u":
                return chr(int(name[1:], 16))
            return _CHARACTERS.get(name, name)
        return _atom(token)

    def _collection(self, opener: str, depth: int) -> Any:
        opened_at = self.token_at
        members: list[Any] = []
        while True:
            match = _ATOM.match(self.text, self.at)
            if match is not None:  # by far the most: keywords and numbers
                self.at = match.end()
                members.append(_atom(match.group(1)))
                continue
            found, value = self.form(depth + 1)
            if not found:
                break
            members.append(value)
        if self.closer != _CLOSERS[opener]:
            closer = self.closer
            if not closer:
                self.token_at = opened_at
            raise self.error(
                f"{opener!r} is closed by {closer!r}" if closer else f"{opener!r} is never closed"
            )
        self.closer = ""
        if opener == "#{":
            return frozenset(freeze(member) for member in members)
        if opener != "{":
            return members
        if len(members) % 2:
            raise self.error("a map has a key without a value")
        return {freeze(key): value for key, value in zip(members[::2], members[1::2], strict=True)}


@lru_cache(1 << 16)
def _atom(token: str) -> Any:
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if _INTEGER.match(token):
        return int(token.rstrip("N"))
    if _FLOAT.match(token):
        return float(token.rstrip("M"))
    return token


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        return chr(int(name[1:], 16)) if len(name) == 5 else _ESCAPES.get(name, name)

    return re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", one, text, flags=re.DOTALL)
