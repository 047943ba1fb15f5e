"""Operations for checkers that need those that failed too, and values as they were written.

`History.operations` leaves out what failed, since a model learns nothing from it. Other checkers do: an element that
only a failed operation wrote and somebody read is an aborted read.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

import msgspec

from checkers.history import History, Op, check_answer, invoked_twice, order_numbers, unpaired
from checkers.memory import collector_paused
from checkers.values import freeze

CallStatus = Literal["ok", "fail", "info"]


class Call(msgspec.Struct, frozen=True, gc=False):
    """An invocation together with its completion.

    Attributes:
        process: the client's process.
        f: what was asked.
        key: the object it was asked of.
        argument: value of the invocation, as JSON.
        result: value of the completion, as JSON; that of the invocation where there is no completion.
        status: ``ok``, ``fail`` or ``info``, the last also where there is no completion.
        call: order number of the invocation (see `checkers.history`).
        ret: order number of the completion; None for ``info``, which precedes nothing.
        invoke: line of the invocation.
        complete: line of the completion; the invocation's where there is none.
    """

    process: int
    f: str
    key: Any
    argument: Any
    result: Any
    status: CallStatus
    call: int
    ret: int | None
    invoke: Op
    complete: Op

    @property
    def span(self) -> str:
        """Where it is in the history: ``[3..7]``, ``[3..]`` where the end is not known."""
        return f"[{self.invoke.index}..{self.complete.index if self.ret is not None else ''}]"


def calls_of(history: History) -> list[Call]:
    """All operations of clients, in the order of their invocations.

    Raises:
        HistoryError: where lines do not pair, or times run backwards.
    """
    with collector_paused():
        return _pair(history)


def _pair(history: History) -> list[Call]:
    order = order_numbers(history)
    lines = history.lines
    open_places: dict[int, int] = {}
    found: list[Call] = []
    for place, op in enumerate(lines):
        process = op.process
        if type(process) is not int:
            continue
        if op.type == "invoke":
            if process in open_places:
                raise invoked_twice(history, lines[open_places[process]], op)
            open_places[process] = place
            continue
        started = open_places.pop(process, None)
        if started is None or op.type not in ("ok", "fail", "info"):
            raise unpaired(history, op)
        check_answer(history, lines[started], op)
        found.append(_call(order, lines, started, place))
    for place in open_places.values():
        op = lines[place]
        found.append(
            Call(int(op.process), op.f, op.key, op.value, op.value, "info", order[place], None, op, op)
        )
    found.sort(key=lambda call: call.call)
    return found


def _call(order: Sequence[int], lines: Sequence[Op], started: int, place: int) -> Call:
    first, last = lines[started], lines[place]
    status: CallStatus = last.type  # type: ignore[assignment]  # the caller has looked
    ret = order[place] if status != "info" else None
    process: int = first.process  # type: ignore[assignment]
    return Call(
        process, first.f, first.key, first.value, last.value, status, order[started], ret, first, last
    )


def hashable(value: Any) -> Hashable:
    """The value as something that can be looked up: numbers and words as they are, the rest in canonical form."""
    if type(value) is int or type(value) is str:
        return value
    return freeze(value)


def seconds(op: Op, digits: int = 3) -> str:
    """The time of a line for people."""
    return f"{op.time_ns / 1e9:.{digits}f} s"
