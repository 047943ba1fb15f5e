"""The recorder: every line of the history, on disk as it happens.

Rules of this module
    1. A line is written with one system call before `record` returns, so a killed run loses at most the line that
       was being written, and an invocation is on record before it is sent.
    2. The bytes depend on the operations alone: same operations, same file, same digest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checkers import Op, encode_header, encode_op
from checkers.catalogue import CheckerCall
from checkers.online import Online
from harness.errors import SetupError


class Recorder:
    """Writes a history file and keeps the operations for the check.

    Attributes:
        ops: all lines so far.
        outcomes: how often each (f, type) of a client's completion was seen.
        online: what checks the history while it is recorded, if anything does.
    """

    online: Online | None = None

    def __init__(
        self,
        path: Path,
        *,
        model: str,
        now_ns: Callable[[], int],
        checkers: Sequence[CheckerCall] = (),
        online: Online | None = None,
    ) -> None:
        self.ops: list[Op] = []
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.online = online
        self._path = path
        self._now_ns = now_ns
        self._digest = hashlib.sha256()
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise SetupError(f"history {path}: {error.strerror}; give a store that can be written") from None
        self._write(encode_header(model or None, checkers=checkers))

    def record(
        self,
        process: int | str,
        type_: Any,
        f: str,
        key: Any = None,
        value: Any = None,
        error: str | None = None,
        node: str | None = None,
        revision: int | None = None,
    ) -> Op:
        """Append a line with the next index and the time of now."""
        op = Op(len(self.ops), self._now_ns(), process, type_, f, key, value, error, node, revision)
        self.ops.append(op)
        if type_ != "invoke" and isinstance(process, int):
            self.outcomes[f, type_] += 1
        self._write(encode_op(op))
        if self.online is not None:
            self.online.add(op)
        return op

    @property
    def is_violated(self) -> bool:
        """Whether the history is known to be wrong already."""
        return self.online is not None and self.online.evidence is not None

    def _write(self, line: bytes) -> None:
        self._digest.update(line)
        try:
            self._file.write(line)
        except OSError as error:
            raise SetupError(
                f"history {self._path}: {error.strerror}; what was recorded before is kept"
            ) from None

    def count(self, type_: str) -> int:
        """How many client operations ended so."""
        return sum(n for (_, t), n in self.outcomes.items() if t == type_)

    @property
    def sha256(self) -> str:
        """Digest of the file so far."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._file.close()
