"""Histories: what clients asked of a system, what they were told, and when.

Rules of this module
    1. A history is a sequence of `Op` lines in real-time order. An operation is two lines, its invocation
       and its completion, of one process; a process has at most one operation open at a time.
    2. A completion is ``ok`` (it happened), ``fail`` (it certainly never did and never will) or ``info``
       (nobody knows: it may take effect at any later time, or never). An invocation without a completion
       counts as ``info``.
    3. Lines of a process that is not an integer (the nemesis) are notes: checkers skip them.
    4. Equal times are concurrent; where times are absent the order of the lines is the order of events.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

OpType = Literal["invoke", "ok", "fail", "info"]


class Op(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of a history.

    Attributes:
        index: position in the history, from 0.
        time_ns: nanoseconds since the start of the run, from one monotonic clock.
        process: an integer for a client's process; a name (``"nemesis"``) for anything else.
        type: see rule 2 of the module.
        f: what was asked, e.g. ``"read"``, ``"write"``, ``"cas"``, ``"start-partition"``.
        key: the object it was asked of, or None where the history has only one.
        value: argument at the invocation, result at the completion; for cas ``[old, new]``.
        error: why it is ``fail`` or ``info``, as a short token (``"mismatch"``, ``"timeout"``, ``"refused"``).
        node: the node that it was sent to, where known.
    """

    index: int
    time_ns: int
    process: int | str
    type: OpType
    f: str
    key: Any = None
    value: Any = None
    error: str | None = None
    node: str | None = None
