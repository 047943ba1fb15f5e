"""Histories of other harnesses: EDN as Jepsen and Knossos store it, and what Jepsen logs.

Rules of this module
    1. ``edn`` is a vector or list of maps with ``:process :type :f :value`` (and ``:key``, ``:time``,
       ``:error``), or one map a line. ``jepsen-log`` is ``history.txt``, ``jepsen.log`` or what the console
       showed: lines with ``PROCESS<tab>:type<tab>:f<tab>value``, perhaps another tab and an error, after
       nothing or after the words of `jepsen.util`'s logger; other lines are not ours.
    2. The order of the lines is the order of events (their times are of several clocks), and a failed
       ``:cas`` without an error was refused because the value differed.
    3. Values of Jepsen's independent tests are pairs of a key and what is asked of it: `by_key`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from checkers.edn import EdnError, read_first, read_forms
from checkers.history import History, HistoryError, NoHistoryError, Op, OpType

_TYPES: dict[str, OpType] = {"invoke": "invoke", "ok": "ok", "fail": "fail", "info": "info"}
_LOG_LINE = re.compile(
    r"^(.*?\bjepsen\.util(?:\ -|:)?[ \t]+)?(\d+|:[\w-]+)[ \t]+(:\w+)[ \t]+(:\S+)(?:[ \t]+(.*?))?\s*?$",
    re.MULTILINE,
)
_READS = frozenset({"read", "get"})
_KEYED = "all values are pairs of a key and a value, as in Jepsen's independent tests: each key is an object of its own"


def is_log(text: str) -> bool:
    """Whether any line is of an operation in a Jepsen test."""
    return next(_log_lines(text), None) is not None


def read_edn(data: bytes, source: str) -> History:
    """The history in a file of EDN.

    Raises:
        HistoryError: it is none; with the place.
    """
    text = _text(data, source)
    lines: list[Op] = []
    try:
        for form in _edn_maps(text):
            if not isinstance(form, dict):
                raise HistoryError(
                    f"{source}: operation {len(lines)} is {str(form)[:40]!r}: an EDN history is made of maps"
                )
            lines.append(_edn_op(form, len(lines), source))
    except EdnError as error:
        raise HistoryError(f"{source}: {error}: correct the EDN there") from None
    return _history(lines, source, "edn")


def read_jepsen_log(data: bytes, source: str) -> History:
    """The history in a log.

    Raises:
        HistoryError: no line is of an operation, or one has a type that there is not.
    """
    lines: list[Op] = []
    for process, kind, f, rest in _log_lines(_text(data, source)):
        value, error = _value_and_error(rest)
        number: int | str = int(process) if process.isdigit() else process
        values = {"process": number, "type": kind, "f": f, "value": value, "error": error}
        lines.append(_op(values, len(lines), source))
    if not lines:
        raise HistoryError(
            f"{source}: has no line of an operation (PROCESS :type :f value): give a log of Jepsen, or another --format"
        )
    return _history(lines, source, "jepsen-log")


def _history(lines: list[Op], source: str, form: str) -> History:
    apart = by_key(lines)
    notes = () if apart is None else (_KEYED,)
    return History(
        lines if apart is None else apart, source=source, bare_mismatch=True, format=form, notes=notes
    )


def by_key(lines: Sequence[Op]) -> list[Op] | None:
    """The lines with keys and values apart, where every value is a pair of both; else None.

    That is so where each invocation has a pair, and each read, of which there must be one, asks for nothing of its
    key: ``[k nil]``. A completion may have something else in the place of the pair (``:timed-out``).
    """
    clients = [op for op in lines if type(op.process) is int]
    asked = [op for op in clients if op.type == "invoke"]
    reads = [op for op in asked if op.f in _READS]
    if not reads or any(op.key is not None for op in clients) or not all(_is_pair(op.value) for op in asked):
        return None
    if any(op.value[1] is not None for op in reads):
        return None
    return [_apart(op) if type(op.process) is int else op for op in lines]


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _apart(op: Op) -> Op:
    if not _is_pair(op.value):
        return op
    key, value = op.value
    return msgspec.structs.replace(op, key=key, value=value)


def _edn_maps(text: str) -> Iterator[Any]:
    for form in read_forms(text):
        if isinstance(form, list):
            yield from form
        else:
            yield form


def _edn_op(form: dict[Any, Any], place: int, source: str) -> Op:
    values = {str(name).removeprefix(":"): value for name, value in form.items()}
    for name in ("process", "type", "f"):
        if name not in values:
            kind = HistoryError if place else NoHistoryError  # results of Jepsen are maps, too
            raise kind(f"{source}: operation {place} has no :{name}: each map needs :process, :type and :f")
    return _op(values, place, source)


def _op(values: dict[str, Any], place: int, source: str) -> Op:
    kind = str(values["type"]).removeprefix(":")
    if kind not in _TYPES:
        raise HistoryError(
            f"{source}: operation {place} has the type {kind!r}: use one of {', '.join(_TYPES)}"
        )
    process = values["process"]
    index, error, time_ns = values.get("index"), values.get("error"), values.get("time")
    return Op(
        index=index if type(index) is int else place,
        time_ns=time_ns if type(time_ns) is int else 0,
        process=process if type(process) is int else str(process).removeprefix(":"),
        type=_TYPES[kind],
        f=str(values["f"]).removeprefix(":"),
        key=values.get("key"),
        value=values.get("value"),
        error=None if error is None else str(error).removeprefix(":"),
    )


def _log_lines(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Process, type, f and the rest of each line that is of an operation."""
    for match in _LOG_LINE.finditer(text):
        logger, process, kind, f, rest = match.groups()
        if logger is not None or kind[1:] in _TYPES:
            yield process, kind, f, rest or ""


def _value_and_error(rest: str) -> tuple[Any, str | None]:
    """The value as EDN, or as it stands where it is none; the error is for people, and may be anything."""
    try:
        value, error = read_first(rest)
    except EdnError:
        return rest, None
    return value, error.strip() or None


def _text(data: bytes, source: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise HistoryError(f"{source}: byte {error.start} is not UTF-8: a history is a text file") from None
