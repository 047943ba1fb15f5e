"""Reading and writing histories: our JSON lines, EDN, and the logs of Jepsen tests.

Rules of this module
    1. ``jsonl`` is the format that splitbrain writes, one `Op` a line, after a header line that may name
       the model; docs/history-format.md has it in full.
    2. ``edn`` and ``jepsen-log`` are read by `checkers.foreign`.
    3. The last line of a ``jsonl`` may be cut off where its writer was killed: what stands before it is
       read, and a note says so. Any other fault is a `HistoryError` with the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from checkers import fast
from checkers.foreign import is_log, read_edn, read_jepsen_log
from checkers.history import CheckerCall, History, HistoryError, NoHistoryError, Op, OpType
from checkers.memory import collector_paused

FORMATS = ("jsonl", "edn", "jepsen-log")

_SNIFF_BYTES = 65_536
#: Columns of files from that size on are kept beside them.
_KEEP_BYTES = 1 << 26
_COLUMNS_SUFFIX = ".columns"
#: From that size on the lines are read by compiled code: where that is loaded, must be loaded, must be compiled.
_SCAN_BYTES_LOADED, _SCAN_BYTES_WARM, _SCAN_BYTES_COLD = 1 << 20, 1 << 24, 1 << 26
#: Editors of Windows put it before the text.
_MARK = b"\xef\xbb\xbf"

#: What msgspec says of what it cannot read; the last of values in values in values.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.json.Encoder()
_op_decoder = msgspec.json.Decoder(Op)


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of a ``jsonl`` history, where there is one.

    Attributes:
        splitbrain: the word ``history``.
        version: of the format; 1.
        model: name of the model to check with, or None.
        initial: the object's value before the history.
        checkers: names and options of the checkers to use beside, or instead of, the model.
    """

    splitbrain: str
    version: int = 1
    model: str | None = None
    initial: Any = None
    checkers: tuple[CheckerCall, ...] = ()


class _Line(msgspec.Struct, frozen=True, gc=False):
    """A line whose writer left out what order already says."""

    process: int | str
    type: OpType
    f: str
    index: int | None = None
    time_ns: int | None = None
    key: Any = None
    value: Any = None
    error: str | None = None
    node: str | None = None
    revision: int | None = None


_header_decoder = msgspec.json.Decoder(Header)
_line_decoder = msgspec.json.Decoder(_Line)


def encode_op(op: Op) -> bytes:
    r"""One line of a ``jsonl`` history, with its newline: what a run appends as it goes on.

    >>> encode_op(Op(0, 5, 1, "invoke", "read", key="x"))
    b'{"index":0,"time_ns":5,"process":1,"type":"invoke","f":"read","key":"x"}\n'
    """
    return _encoder.encode(op) + b"\n"


def encode_header(
    model: str | None = None, initial: Any = None, checkers: Sequence[CheckerCall] = ()
) -> bytes:
    r"""The first line of a ``jsonl`` history, with its newline.

    >>> encode_header("etcd-register")
    b'{"splitbrain":"history","version":1,"model":"etcd-register"}\n'
    """
    fields: dict[str, Any] = {"splitbrain": "history", "version": 1, "model": model, "initial": initial}
    if checkers:
        fields["checkers"] = checkers
    return _encoder.encode({name: value for name, value in fields.items() if value is not None}) + b"\n"


def read_history(path: str | Path, format: str = "auto") -> History:  # noqa: A002  (the word of the documentation)
    """The history stored in a file.

    Args:
        path: file to read.
        format: ``jsonl``, ``edn``, ``jepsen-log``, or ``auto`` to look at the file.

    Raises:
        HistoryError: for a file that is missing, or is no history, or has a fault; one sentence that names
            the file, the place and the remedy.
    """
    source = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise HistoryError(
            f"{source}: cannot be read ({error.strerror}): give the path of a history"
        ) from None
    return parse_history(data, format, source)


def parse_history(data: bytes, format: str = "auto", source: str = "history") -> History:  # noqa: A002
    """The history in the bytes of a file; see `read_history`. ``source`` is its name in messages."""
    data = data.removeprefix(_MARK)
    if not data or data.isspace():
        raise NoHistoryError(f"{source}: is empty: a history has at least one line; did the run record any?")
    if format == "auto":
        format = _sniff(data, source)  # noqa: A001
    reader = _READERS.get(format)
    if reader is None:
        raise HistoryError(f"{source}: unknown format {format!r}: use auto, {', '.join(FORMATS)}")
    return reader(data, source)


def _sniff(data: bytes, source: str) -> str:
    head = data[:_SNIFF_BYTES]
    if b"\0" in head:
        raise NoHistoryError(f"{source}: is a binary file, not a history: give one of {', '.join(FORMATS)}")
    text = head.decode("utf-8", "replace")
    if is_log(text):
        return "jepsen-log"
    body = re.sub(r"\A(?:\s|;[^\n]*)*", "", text)
    if re.match(r'\{\s*"', body):
        return "jsonl"
    if re.match(r"(?:#_\s*\S+\s*)*[\[(]?\s*(?:#[\w.]+\s*)?\{\s*:", body) or re.match(r"[\[(]\s*[\])]", body):
        return "edn"
    if re.match(r"\[\s*\{\s*\"", body):
        raise NoHistoryError(
            f"{source}: is a JSON array: write one object a line, for example with jq -c '.[]' {source}"
        )
    raise NoHistoryError(
        f"{source}: does not look like a history: it should be JSON lines, EDN maps or the log of a "
        "Jepsen test "
        "(see docs/history-format.md), or name the format"
    )


# -- JSON lines ------------------------------------------------------------------------------------------


def _read_jsonl(data: bytes, source: str) -> History:
    header, body, first_line = split_header(data, source)
    notes: tuple[str, ...] = ()
    if body and not body.endswith(b"\n"):
        body, notes = _drop_cut_line(body, first_line, source)
    lines, timed = _lines(body, first_line, source)
    return History(
        lines,
        source=source,
        timed=timed,
        model=header.model,
        initial=header.initial,
        checkers=header.checkers,
        format="jsonl",
        notes=notes,
        truncated=bool(notes),
    )


def _lines(body: bytes, first_line: int, source: str) -> tuple[Sequence[Op], bool]:
    """The lines, and whether they have times."""
    scanned = _scanned(body, source)
    if scanned is not None:
        return scanned, scanned.timed
    try:
        with collector_paused():
            lines: list[Op] = _op_decoder.decode_lines(body)
    except _UNREADABLE:
        return _read_lenient(body, first_line, source)
    return lines, any(op.time_ns for op in lines)


def _scanned(body: bytes, source: str) -> Any:
    """The lines read by compiled code, where they are many and as `encode_op` writes them; else None."""
    enough = (
        _SCAN_BYTES_LOADED
        if fast.loaded("lines")
        else _SCAN_BYTES_WARM
        if fast.warm("lines")
        else _SCAN_BYTES_COLD
    )
    if len(body) < enough or not fast.installed() or not body.endswith(b"\n"):
        return None
    from checkers import line_columns  # noqa: PLC0415  (imports numba)

    beside = Path(f"{source}{_COLUMNS_SUFFIX}")
    kept = line_columns.restore(beside, body) if beside.exists() else None
    if kept is not None:
        return kept
    keeps = len(body) >= _KEEP_BYTES and Path(source).is_file()  # no pipe
    return line_columns.scan_and_keep(beside, body) if keeps else line_columns.scan(body)


def split_header(data: bytes, source: str) -> tuple[Header, bytes, int]:
    """The header, the lines after it, and the number of the first of them."""
    data = data.removeprefix(_MARK)
    none = Header("history")
    end = data.find(b"\n")
    first = data if end < 0 else data[:end]
    if b'"splitbrain"' not in first:
        return none, data, 1
    try:
        header = _header_decoder.decode(first)
    except _UNREADABLE as error:
        if b'"process"' in first:  # an operation that happens to hold the word
            return none, data, 1
        raise HistoryError(f"{source}: line 1 is no header: {error}: see docs/history-format.md") from None
    if header.splitbrain != "history" or header.version != 1:
        raise NoHistoryError(
            f"{source}: line 1 announces {header.splitbrain!r} version {header.version}: this "
            "splitbrain reads "
            "'history' version 1"
        )
    return header, b"" if end < 0 else data[end + 1 :], 2


def is_cut(line: bytes) -> bool:
    """Whether a file's last line ends in the middle: without its newline, and as no whole JSON value."""
    try:
        msgspec.json.decode(line)
    except _UNREADABLE:
        return not line.endswith(b"\n")
    return False


def _drop_cut_line(body: bytes, first_line: int, source: str) -> tuple[bytes, tuple[str, ...]]:
    """Without the last line, and a note, where that line is no whole JSON value."""
    start = body.rfind(b"\n") + 1
    if is_cut(body[start:]):
        number = first_line + body.count(b"\n")
        note = (
            f"{source}: line {number} is cut off (its writer was stopped); the {number - first_line} "
            "whole lines "
            "before it were checked"
        )
        return body[:start], (note,)
    return body, ()


def _read_lenient(body: bytes, first_line: int, source: str) -> tuple[list[Op], bool]:
    """Line by line, for a file that leaves out index or time_ns, or has a fault: then to say where."""
    lines: list[Op] = []
    untimed = 0
    for number, raw in enumerate(body.splitlines(), first_line):
        if not raw.strip():
            continue
        op, has_time = decode_line(raw, number, source, len(lines))
        untimed += not has_time
        lines.append(op)
    if 0 < untimed < len(lines):
        raise HistoryError(
            f"{source}: {untimed} of {len(lines)} lines have no time_ns: give it on all lines or none"
        )
    return lines, not untimed and any(op.time_ns for op in lines)


def decode_line(raw: bytes, number: int, source: str, place: int) -> tuple[Op, bool]:
    """The operation on one line, and whether the line has a time.

    Args:
        raw: the line.
        number: of the line, for messages.
        source: name of the file, for messages.
        place: index of the operation where the line has none.

    Raises:
        HistoryError: where it is none.
    """
    try:
        return _op_decoder.decode(raw), True
    except _UNREADABLE:
        pass
    try:
        line = _line_decoder.decode(raw)
    except _UNREADABLE as error:
        raise _bad_line(source, number, raw, error) from None
    index = place if line.index is None else line.index
    told = (line.key, line.value, line.error, line.node, line.revision)
    op = Op(index, line.time_ns or 0, line.process, line.type, line.f, *told)
    return op, line.time_ns is not None


def _bad_line(source: str, number: int, raw: bytes, error: Exception) -> HistoryError:
    found = re.search(r"\(byte (\d+)\)", str(error))
    column = f", column {int(found.group(1)) + 1}" if found else ""
    reason = re.sub(r"\s*\(byte \d+\)", "", str(error)).replace(" - at `$.", " at `")
    text = raw[:60].decode("utf-8", "replace").rstrip()
    kind = NoHistoryError if number == 1 else HistoryError
    return kind(
        f"{source}: line {number}{column} is no line of a history ({reason}): {text!r}; correct or remove it"
    )


_READERS: dict[str, Callable[[bytes, str], History]] = {
    "jsonl": _read_jsonl,
    "edn": read_edn,
    "jepsen-log": read_jepsen_log,
}
