"""Every checker that is not a model's, by name: what a history's header or `splitbrain check --checker` may ask for.

Rules of this module
    1. A checker is a pure function from a history and its options to a `Verdict`. It never raises for what a system
       under test answered: only a malformed history is a `HistoryError`.
    2. Nothing that was checked is never a pass: a history without the operations that a checker needs is ``unknown``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from checkers.history import CheckerCall, History
from checkers.verdict import Verdict

__all__ = ["CHECKERS", "CheckerCall", "CheckerEntry", "run_checker"]


@dataclass(frozen=True, slots=True)
class CheckerEntry:
    """A checker: what it finds, the function, and its options with their defaults."""

    summary: str
    check: Callable[..., Verdict]
    options: Mapping[str, Any]


CHECKERS: Mapping[str, CheckerEntry] = MappingProxyType({})
"""Every checker by its name."""


def run_checker(call: CheckerCall, history: History) -> Verdict:
    """What the checker says of the history.

    Raises:
        ValueError: there is no such checker, or it has no such option.
        HistoryError: the history is malformed.
    """
    entry = CHECKERS.get(call.name)
    if entry is None:
        close = difflib.get_close_matches(call.name, CHECKERS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown checker {call.name!r}: {hint}Known checkers: {', '.join(CHECKERS)}")
    for name in call.options:
        if name not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise ValueError(f"the checker {call.name} has no option {name!r}: it has {known}")
    return entry.check(history, **{**entry.options, **call.options})
