"""Groups of registers that are read and written together: linearizable, each group by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from checkers.history import History, Op
from checkers.linear import check_linearizable
from checkers.models import MultiRegister, model_by_name
from checkers.values import freeze, show
from checkers.verdict import Verdict, worst

NAME = "multi-register"


def check_multi_register(history: History) -> Verdict:
    """Whether the transactions of each key are linearizable as reads and writes of several registers.

    Registers are absent at first, which reads as null, unless the history says what they hold, each or all of them.

    Raises:
        HistoryError: the history is malformed.
    """
    groups: dict[Any, list[Op]] = {}
    asked: dict[int, Any] = {}  # a completion may leave out its key, and belongs to what was invoked
    for op in history.lines:
        if isinstance(op.process, int):
            if op.type == "invoke":
                asked[op.process] = op.key
            groups.setdefault(freeze(asked.get(op.process, op.key)), []).append(op)
    if not groups:
        return Verdict(
            valid="unknown", checker=NAME, cause="there is no transaction: there is nothing to check"
        )
    apart = {
        show(key): History(lines, source=history.source, timed=history.timed) for key, lines in groups.items()
    }
    model = replace(_model(history.initial), strict_nil=True)
    verdicts = {key: check_linearizable(group, model) for key, group in apart.items()}
    bad = [(key, verdict) for key, verdict in verdicts.items() if verdict.valid != "valid"]
    valid = worst(verdict.valid for verdict in verdicts.values())
    first = next((verdict for _, verdict in bad if verdict.valid == valid), Verdict(valid=valid))
    return replace(
        first,
        checker=NAME,
        operations=sum(verdict.operations for verdict in verdicts.values()),
        keys=len(groups),
        failing_keys=tuple(key for key, verdict in bad if verdict.valid == "invalid"),
        unknown_keys=tuple(key for key, verdict in bad if verdict.valid == "unknown"),
        at=tuple(sorted(_last_line(groups, key) for key, verdict in bad if verdict.valid == "invalid")),
    )


def _model(initial: Any) -> MultiRegister:
    if initial is None:
        return MultiRegister()
    model = model_by_name(NAME, initial)
    assert isinstance(model, MultiRegister), "it has that name"
    return model


def _last_line(groups: dict[Any, list[Op]], name: str) -> int:
    return next(lines[-1].index for key, lines in groups.items() if show(key) == name)
