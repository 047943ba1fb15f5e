"""Histories: what clients asked of a system, what they were told, and when.

Rules of this module
    1. A history is a sequence of `Op` lines in real-time order. An operation is two lines, its invocation
       and its completion, of one process; a process has at most one operation open at a time.
    2. A completion is ``ok`` (it happened), ``fail`` (it certainly never did and never will) or ``info``
       (nobody knows: it may take effect at any later time, or never). An invocation without a completion
       counts as ``info``.
    3. Lines of a process that is not an integer (the nemesis) are notes: checkers skip them.
    4. Equal times are concurrent; where times are absent the order of the lines is the order of events.

Theory of operation
    `History.operations` pairs the lines once. Every event (invocation or completion) gets an *order
    number*, its place in real-time order; of events with equal times all calls come before all returns,
    which makes the intervals closed: operations that touch are concurrent. One operation precedes another
    when its ``ret`` is smaller than the other's ``call``; an ``info`` operation has no ``ret`` and precedes
    nothing.

    A failed operation never happened and says nothing, so it is left out. The one exception is a failed
    compare-and-set which was refused *because the value differed*: at some moment between its call and its
    return the value was not the expected one. It stays, with the status ``mismatch``, for the models that
    use it (see docs/models.md).

>>> history = History.of([
...     Op(0, 10, 0, "invoke", "write", value=1),
...     Op(1, 20, 1, "invoke", "read"),
...     Op(2, 30, 0, "ok", "write", value=1),
...     Op(3, 40, 1, "ok", "read", value=1),
... ])
>>> for o in history.operations:
...     print(o.process, o.f, o.argument, o.result, o.status, o.call, o.ret)
0 write 1 1 ok 0 2
1 read None 1 ok 1 3
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec

from checkers.memory import collector_paused
from checkers.values import freeze, show

OpType = Literal["invoke", "ok", "fail", "info"]
Status = Literal["ok", "info", "mismatch"]

_TYPES = ("invoke", "ok", "fail", "info")


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
        error: why it is ``fail`` or ``info``, as a short token (``"mismatch"``, ``"timeout"``, ...).
        node: the node that it was sent to, where known.
        revision: of a completion, where the system tells: the number of the change of this key that the operation
            made or saw. Changes of one key have growing numbers.
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
    revision: int | None = None


class CheckerCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checker of `checkers.catalogue` with its options."""

    name: str
    options: dict[str, Any] = {}


class CheckerCallError(ValueError):
    """A checker, an option of one or a value of that which there is not; the message names what there is."""


class HistoryError(ValueError):
    """A history that cannot be read or paired; the message names the place, the fault and the remedy."""


class NoHistoryError(HistoryError):
    """A file that is no history at all, rather than one with a fault."""


class Operation(msgspec.Struct, frozen=True, gc=False):
    """An invocation together with its completion.

    Attributes:
        process: the client's process.
        f: what was asked.
        key: the object it was asked of, in canonical form.
        argument: value of the invocation, in canonical form (`checkers.values.freeze`).
        result: value of the ``ok`` completion, in canonical form; None for the other statuses.
        status: ``ok``, ``info``, or ``mismatch`` for a compare-and-set refused because the value differed.
        call: order number of the invocation.
        ret: order number of the completion; None for ``info``, which precedes nothing.
        invoke_index: `Op.index` of the invocation.
        complete_index: `Op.index` of the completion, None where there is none.
        call_ns: time of the invocation in ns, None where the history has no times.
        ret_ns: time of the completion in ns, None where there is none.
        revision: `Op.revision` of an ``ok`` or ``mismatch`` completion, None where the system did not tell.
    """

    process: int
    f: str
    key: Hashable
    argument: Hashable
    result: Hashable
    status: Status
    call: int
    ret: int | None
    invoke_index: int
    complete_index: int | None = None
    call_ns: int | None = None
    ret_ns: int | None = None
    revision: int | None = None


class History:
    """Lines of a history, and the operations that they pair to.

    Attributes:
        lines: the `Op` lines, in real-time order.
        source: file that it was read from, for messages; ``""`` for a history in memory.
        timed: whether equal ``time_ns`` count as concurrent (else the order of lines counts alone).
        bare_mismatch: whether a failed ``cas`` without an error was refused because the value differed
            (so in logs of Jepsen tests), rather than by an error ``"mismatch"`` (our own format).
        model: name of the model that the file's header asks for, or None.
        initial: the header's initial value, None where there is none.
        checkers: the checkers that the file's header asks for.
        format: ``jsonl``, ``edn``, ``jepsen-log``, or ``memory``.
        notes: sentences about what the reader had to leave out; they belong into the verdict.
        truncated: the file ends in the middle of a line, which was left out: its writer was stopped.
    """

    def __init__(  # noqa: PLR0913  (all but the first by name, each with a default)
        self,
        lines: Sequence[Op],
        *,
        source: str = "",
        timed: bool = False,
        bare_mismatch: bool = False,
        model: str | None = None,
        initial: Any = None,
        checkers: tuple[CheckerCall, ...] = (),
        format: str = "memory",  # noqa: A002  (the word of the documentation)
        notes: tuple[str, ...] = (),
        truncated: bool = False,
    ) -> None:
        self.lines = lines
        self.source = source
        self.timed = timed
        self.bare_mismatch = bare_mismatch
        self.model = model
        self.initial = initial
        self.checkers = checkers
        self.format = format
        self.notes = notes
        self.truncated = truncated

    @classmethod
    def of(cls, lines: Iterable[Op], *, model: str | None = None, initial: Any = None) -> History:
        """The history of lines in memory; timed unless every ``time_ns`` is 0."""
        kept = tuple(lines)
        return cls(kept, timed=any(op.time_ns for op in kept), model=model, initial=initial)

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """The operations in the order of their calls: ``ok``, ``info`` and ``mismatch``; see the module.

        Raises:
            HistoryError: where lines do not pair, or times run backwards.
        """
        with collector_paused():
            return pair(self)

    def __len__(self) -> int:
        return len(self.lines)


def pair(history: History) -> tuple[Operation, ...]:
    """Pairs the lines of a history; what `History.operations` caches."""
    order = order_numbers(history)
    open_calls: dict[int, int] = {}
    done: list[Operation] = []
    lines = history.lines
    for place, op in enumerate(lines):
        if type(op.process) is not int:
            continue
        if op.type == "invoke":
            if op.process in open_calls:
                raise invoked_twice(history, lines[open_calls[op.process]], op)
            open_calls[op.process] = place
            continue
        call_place = open_calls.pop(op.process, None)
        if call_place is None:
            raise unpaired(history, op)
        operation = _complete(history, order, call_place, place)
        if operation is not None:
            done.append(operation)
    done.extend(_operation(history, order, place, None, "info") for place in open_calls.values())
    done.sort(key=lambda operation: operation.call)
    if len({operation.invoke_index for operation in done}) < len(done):
        raise _stands_twice(history, done)
    return tuple(done)


def _complete(history: History, order: Sequence[int], call_place: int, place: int) -> Operation | None:
    """The operation of an invocation and its completion, None where it certainly never happened."""
    call, op = history.lines[call_place], history.lines[place]
    check_answer(history, call, op)
    if op.type == "ok":
        return _operation(history, order, call_place, place, "ok")
    if op.type == "info":
        return _operation(history, order, call_place, place, "info")
    if op.type != "fail":
        raise HistoryError(
            f"{_where(history, op)}: type {op.type!r} of process {op.process} is unknown: use one of "
            f"{', '.join(_TYPES)}"
        )
    if is_mismatch(op, bare=history.bare_mismatch):
        return _operation(history, order, call_place, place, "mismatch")
    return None


def check_answer(history: History, call: Op, op: Op) -> None:
    """Look whether a completion is of what was invoked.

    Raises:
        HistoryError: it has another f, or another key.
    """
    if op.f != call.f:
        raise HistoryError(
            f"{_where(history, op)}: process {op.process} completes {op.f!r} but had invoked "
            f"{call.f!r} at index "
            f"{call.index}: a completion repeats the f of its invocation"
        )
    if op.key is not None and freeze(op.key) != freeze(call.key):
        raise HistoryError(
            f"{_where(history, op)}: process {op.process} completes {op.f!r} of key "
            f"{show(freeze(op.key), 40)} but "
            f"had invoked it of key {show(freeze(call.key), 40)} at index {call.index}: a completion "
            "repeats the key"
        )


def is_mismatch(op: Op, *, bare: bool) -> bool:
    """Whether a ``fail`` line is a compare-and-set refused because the value differed.

    Args:
        op: a line of type ``fail``.
        bare: see `History.bare_mismatch`; a log then puts a keyword such as ``:timed-out`` in the place of
            the pair ``[old, new]`` where the failure had another cause.
    """
    if op.f != "cas":
        return False
    if op.error is not None:
        return op.error == "mismatch"
    return bare and isinstance(op.value, list | tuple)


def _operation(
    history: History, order: Sequence[int], call_place: int, place: int | None, status: Status
) -> Operation:
    call = history.lines[call_place]
    end = None if place is None else history.lines[place]
    return Operation(
        process=call.process,  # type: ignore[arg-type]  # only integers are paired
        f=call.f,
        key=freeze(call.key),
        argument=freeze(call.value),
        result=freeze(end.value) if end is not None and status == "ok" else None,
        status=status,
        call=order[call_place],
        ret=order[place] if place is not None and status != "info" else None,
        invoke_index=call.index,
        complete_index=None if end is None else end.index,
        call_ns=call.time_ns if history.timed else None,
        ret_ns=end.time_ns if history.timed and end is not None and status != "info" else None,
        revision=end.revision if end is not None and status != "info" else None,
    )


def order_numbers(history: History) -> Sequence[int]:
    """Order number of each line; see the theory of operation. Linear but for ties, which are sorted."""
    lines = history.lines
    if not history.timed:
        return range(len(lines))
    before = None
    tied = False
    for op in lines:
        if before is not None and op.time_ns <= before.time_ns:
            if op.time_ns < before.time_ns:
                raise backwards(history.source, before, op)
            tied = True
        before = op
    if not tied:
        return range(len(lines))
    ranked = sorted(
        range(len(lines)), key=lambda place: (lines[place].time_ns, lines[place].type != "invoke", place)
    )
    order = [0] * len(lines)
    for rank, place in enumerate(ranked):
        order[place] = rank
    return order


def _stands_twice(history: History, operations: Sequence[Operation]) -> HistoryError:
    """The error of two invocations of one index, by which evidence and witnesses name them."""
    index = Counter(operation.invoke_index for operation in operations).most_common(1)[0][0]
    where = f"{history.source}: " if history.source else ""
    return HistoryError(
        f"{where}index {index} stands on two lines: number the lines, or leave index out so that their order counts"
    )


def nobody_asked(history: History) -> str | None:
    """Why there is nothing to check: no line is of a client; None where one is.

    Raises:
        HistoryError: what looks like clients has names instead of numbers.
    """
    lines: Any = history.lines
    if len(lines.clients()) if hasattr(lines, "clients") else any(type(op.process) is int for op in lines):
        return None
    named = next((op.process for op in history.lines if op.type == "invoke"), None)
    if named is not None:
        where = f"{history.source}: " if history.source else ""
        raise HistoryError(
            f"{where}no process is a number: lines of a name such as {show(freeze(named), 40)} are notes, which nobody "
            "checks; give each client an integer"
        )
    return "no client did anything in this history: there is nothing to check"


def backwards(source: str, before: Op, op: Op) -> HistoryError:
    """The error of a line whose time is before that of the line before it."""
    where = f"{source}: index {op.index}" if source else f"index {op.index}"
    return HistoryError(
        f"{where}: time_ns {op.time_ns} is before {before.time_ns} of the line before it: write a history in the "
        "order of its times, or leave time_ns out so that the order of lines counts"
    )


def _where(history: History, op: Op) -> str:
    return f"{history.source}: index {op.index}" if history.source else f"index {op.index}"


def invoked_twice(history: History, first: Op, second: Op) -> HistoryError:
    """The error of a process that has two operations open."""
    return HistoryError(
        f"{_where(history, second)}: process {second.process} invokes {second.f!r} while its "
        f"{first.f!r} from index "
        f"{first.index} is still open: give each process one operation at a time, and a new number "
        "after an info"
    )


def unpaired(history: History, op: Op) -> HistoryError:
    """The error of a completion that nothing was invoked for."""
    if op.type not in _TYPES:
        return HistoryError(
            f"{_where(history, op)}: type {op.type!r} of process {op.process} is unknown: use one of "
            f"{', '.join(_TYPES)}"
        )
    return HistoryError(
        f"{_where(history, op)}: process {op.process} completes {op.f!r} with {op.type!r} but has "
        "nothing open: "
        "write the invocation of each operation before its completion"
    )
