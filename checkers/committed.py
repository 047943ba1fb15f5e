"""Linearizability bounded by the system's committed log: a second, narrower verdict, which trusts that log.

Rules of this module
    1. The verdict without the log stands by itself. This one is told beside it, as ``linearizable-with-log``; where it
       alone is invalid, what clients saw contradicts what the system has in its log.
    2. The log must be complete: every entry that was committed up to the end of the history. Whoever exports it
       answers for that, and exports nothing where it is not sure.
    3. The history is only made narrower, so what is invalid without the log stays invalid.

Theory of operation
    An operation that ended ``info`` may take effect at any later time or never, and a long run has many of these. A
    system that replicates a log knows more. With each operation stand the requests that it made and that need an entry
    of the log, and where in the log each is (`LoggedRequest`).

    - *None of them is in the log*: the operation never happened, for only what is committed is applied. It is left out.
    - *A blind write of a register whose one request is in the log*: it happened, and not later than its entry was first
      known to be committed: whoever asks after that must be served from a state with it. It counts as ``ok`` at that
      time.
    - *Everything else that is in the log* (a cas that may have found another value; an operation of several requests)
      stays ``info``: that it must happen at some time before infinity says nothing new of an operation that may always
      be the last one.
    - *An operation with one request that was answered ``ok``, and whose request is not in the log*: a lost update,
      whatever the model says. *A blind write that was answered ``fail``, and whose request is in it*: a definite answer
      that was wrong.

    An operation without requests (a read) is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from checkers.history import History, HistoryError, Op
from checkers.linear import Budget, check_linearizable
from checkers.models import Model, Register
from checkers.verdict import Verdict

CHECKER = "linearizable-with-log"
_BLIND = frozenset({"write", "put"})
_SHOWN = 8


class LoggedRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request that needs an entry of the log.

    Attributes:
        op: `Op.index` of the invocation of the operation that made it.
        client: who sent it, as the system knows clients.
        seq: which of the client's requests it is.
        index: of its first entry in the committed log; None where it is not in it.
        time_ns: when that entry was first known to be committed, on the clock of the history; None where unknown.
    """

    op: int
    client: str
    seq: int
    index: int | None = None
    time_ns: int | None = None


_decode = msgspec.json.Decoder(LoggedRequest).decode
_encode = msgspec.json.Encoder().encode


def encode_log(requests: Iterable[LoggedRequest]) -> bytes:
    """A line of JSON for each."""
    return b"".join(_encode(request) + b"\n" for request in requests)


def read_log(path: Path) -> tuple[LoggedRequest, ...]:
    """What `encode_log` has written to a file.

    Raises:
        HistoryError: the file cannot be read, or a line of it is no request.
    """
    requests: list[LoggedRequest] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    requests.append(_decode(line))
                except msgspec.DecodeError as error:
                    raise HistoryError(
                        f"{path}: line {number} is no request of a committed log ({error}); "
                        "write op, client, seq and, of what is in the log, index and time_ns"
                    ) from None
    except OSError as error:
        raise HistoryError(
            f"{path}: cannot be read ({error.strerror}); a run stores its committed log with `run --with-log`"
        ) from None
    return tuple(requests)


class Narrowed(NamedTuple):
    """A history as the log bounds it.

    Attributes:
        history: the narrower one.
        left_out: how many operations never happened.
        bounded: how many happened, and by when.
        lost: indexes of the invocations of operations that were answered ``ok`` and are not in the log.
        denied: of writes that were answered ``fail`` and are in it.
    """

    history: History
    left_out: int
    bounded: int
    lost: tuple[int, ...]
    denied: tuple[int, ...]


def narrowed(history: History, requests: Iterable[LoggedRequest], *, bounds_writes: bool = True) -> Narrowed:
    """The history as the log bounds it.

    Args:
        history: of which every operation that needs the log has its requests in `requests`.
        requests: of the whole run.
        bounds_writes: whether ``write`` and ``put`` have an effect whenever they are applied.

    Raises:
        HistoryError: a request belongs to no invocation of the history, so the log is not of this run.
    """
    by_op: dict[int, list[LoggedRequest]] = {}
    for request in requests:
        by_op.setdefault(request.op, []).append(request)
    ends = _completions(history, by_op)
    found: dict[str, list[int]] = {"left out": [], "lost": [], "denied": []}
    drop: set[int] = set()
    happened: list[Op] = []
    for op, mine in by_op.items():
        call_place, end_place = ends[op]
        call, end = history.lines[call_place], None if end_place is None else history.lines[end_place]
        is_blind = bounds_writes and call.f in _BLIND and len(mine) == 1
        what = _judged(end, mine, is_blind=is_blind)
        if what in found:
            found[what].append(op)
        if what == "left out":
            drop |= {call_place} if end_place is None else {call_place, end_place}
        elif what == "bounded" and history.timed and mine[0].time_ns is not None:
            drop |= set() if end_place is None else {end_place}
            happened.append(_happened(call, end, max(mine[0].time_ns, call.time_ns)))
    kept = [line for place, line in enumerate(history.lines) if place not in drop]
    narrower = History(
        sorted(kept + happened, key=lambda line: line.time_ns) if happened else kept,
        source=history.source,
        timed=history.timed,
        bare_mismatch=history.bare_mismatch,
        model=history.model,
        initial=history.initial,
        notes=history.notes,
        truncated=history.truncated,
    )
    lost, denied = (tuple(sorted(found[name])) for name in ("lost", "denied"))
    return Narrowed(narrower, len(found["left out"]), len(happened), lost, denied)


def _judged(end: Op | None, requests: Sequence[LoggedRequest], *, is_blind: bool) -> str:
    """What the log says of an operation that ended so; see the module."""
    is_logged = any(request.index is not None for request in requests)
    if end is None or end.type == "info":
        return "bounded" if is_logged and is_blind else "" if is_logged else "left out"
    if end.type == "ok":
        return "lost" if len(requests) == 1 and not is_logged else ""
    return "denied" if is_logged and is_blind else ""


def check_with_log(
    history: History, model: Model, requests: Iterable[LoggedRequest], *, budget: Budget | None = None
) -> Verdict:
    """Whether the history is linearizable if the system's log is believed; see the module.

    Raises:
        HistoryError: see `narrowed` and `check_linearizable`.
    """
    narrower = narrowed(history, requests, bounds_writes=isinstance(model, Register))
    verdict = check_linearizable(narrower.history, model, budget=budget)
    contradictions = (
        *_contradiction(narrower.lost, "were answered ok and are not in the committed log"),
        *_contradiction(narrower.denied, "were answered fail and are in the committed log"),
    )
    return replace(
        verdict,
        valid="invalid" if contradictions else verdict.valid,
        checker=CHECKER,
        cause=None if contradictions else verdict.cause,
        evidence=(*contradictions, *verdict.evidence),
        notes=(
            *verdict.notes,
            (
                f"by the committed log {narrower.left_out} operations of unknown outcome never happened, and "
                f"{narrower.bounded} happened by the time at which their entry was committed"
            ),
        ),
    )


def _contradiction(ops: Sequence[int], what: str) -> tuple[str, ...]:
    if not ops:
        return ()
    shown = ", ".join(map(str, ops[:_SHOWN])) + (", ..." if len(ops) > _SHOWN else "")
    return (f"operations that {what}: {len(ops)}, invoked at index {shown}",)


def _happened(call: Op, end: Op | None, at_ns: int) -> Op:
    """The completion of a write that is in the log."""
    index = call.index if end is None else end.index
    return Op(index, at_ns, call.process, "ok", call.f, call.key, call.value)


def _completions(history: History, wanted: Mapping[int, object]) -> dict[int, tuple[int, int | None]]:
    """Places of the invocation and of the completion, by the index of the invocation."""
    found: dict[int, tuple[int, int | None]] = {}
    open_calls: dict[int | str, tuple[int, int]] = {}
    for place, line in enumerate(history.lines):
        if type(line.process) is not int:
            continue
        if line.type == "invoke":
            open_calls[line.process] = (line.index, place)
            found[line.index] = (place, None)
        elif line.process in open_calls:
            index, call_place = open_calls.pop(line.process)
            found[index] = (call_place, place)
    for op in wanted:
        if op not in found:
            raise HistoryError(
                f"the committed log has requests of an operation that was invoked at index {op}, and "
                f"{history.source or 'the history'} has no invocation there; give the log of the same run"
            )
    return found
