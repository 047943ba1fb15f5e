r"""Did anything happen at all? Counts by kind of operation, and a verdict on them.

Rules of this module
    1. A history in which some kind of operation never succeeded proves little, however valid it is: its
       verdict is ``unknown``, and merged with the others it keeps them from passing.

>>> from checkers.history import History, Op
>>> history = History.of([Op(0, 1, 0, "invoke", "read"), Op(1, 2, 0, "info", "read", error="timeout")])
>>> print(*check_stats(history).lines(), sep="\n")
unknown: every kind of operation succeeded, 1 operations
  no read ever succeeded (0 ok, 0 fail, 1 info): look at the errors, or run longer
"""

from __future__ import annotations

from checkers.history import History, HistoryError
from checkers.verdict import Verdict


def counts(history: History) -> dict[str, dict[str, int]]:
    """How many operations of each ``f`` ended ``ok``, ``fail`` and ``info``, by f in alphabetical order.

    An invocation without a completion counts as ``info``.
    """
    found: dict[str, dict[str, int]] = {}
    for op in history.lines:
        if type(op.process) is not int:
            continue
        of = found.setdefault(op.f, {"ok": 0, "fail": 0, "info": 0, "invoke": 0})
        of[op.type] += 1
    return {
        f: {"ok": of["ok"], "fail": of["fail"], "info": of["invoke"] - of["ok"] - of["fail"]}
        for f, of in sorted(found.items())
    }


def check_stats(history: History) -> Verdict:
    """``unknown`` where nothing was done, or some kind of operation never succeeded; else ``valid``.

    Raises:
        HistoryError: where an operation has more completions than invocations.
    """
    by_f = counts(history)
    if any(of["info"] < 0 for of in by_f.values()):
        raise HistoryError(f"{history.source or 'history'}: there are more completions than invocations")
    never = [
        f"no {f} ever succeeded ({of['ok']} ok, {of['fail']} fail, {of['info']} info)"
        for f, of in by_f.items()
        if of["ok"] == 0
    ]
    if not by_f:
        never = ["there is no operation of a client"]
    return Verdict(
        valid="unknown" if never else "valid",
        checker="every kind of operation succeeded",
        operations=sum(sum(of.values()) for of in by_f.values()),
        cause="; ".join(never) + ": look at the errors, or run longer" if never else None,
    )
