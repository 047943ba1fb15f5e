"""A server's log: one line for each event, in words and fields, or as JSON for machines.

2026-01-02T03:04:05.678Z info  n1 leader term=3 last_index=17
{"ts": "2026-01-02T03:04:05.678Z", "mono_ns": 812345678, "level": "info", "node": "n1", "event": "leader", ...}

`mono_ns` is the monotonic clock of the machine: it tells the order of what several servers of one machine did, also
while their wall clocks are wrong.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from typing import Any

import msgspec

log = logging.getLogger("raft")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def set_up(node: str, style: str, level: str) -> None:
    """Makes the log of this process: to stderr, in the style `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json(node) if style == "json" else _Text(node))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def event(name: str, /, *, level: int = logging.INFO, **fields: Any) -> None:
    """Writes an event with its fields."""
    log.log(level, name, extra={"fields": fields})


def _when(record: logging.LogRecord) -> str:
    at = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Json(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": _when(record),
            "mono_ns": time.monotonic_ns(),
            "level": record.levelname.lower(),
            "node": self._node,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line).decode()


class _Text(logging.Formatter):
    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_plain(value)}" for name, value in getattr(record, "fields", {}).items())
        line = f"{_when(record)} {record.levelname.lower():<8} {self._node} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _plain(value: Any) -> str:
    text = str(value)
    return text if text and not any(c.isspace() or c in '="' for c in text) else _encode(text).decode()
