"""Every checker that is not a model's, by name: what a history's header or `splitbrain check --checker` may ask for.

Rules of this module
    1. A checker is a pure function from a history and its options to a `Verdict`. It never raises for what a system
       under test answered: only a malformed history is a `HistoryError`.
    2. Nothing that was checked is never a pass: a history without the operations that a checker needs is ``unknown``.
    3. The value that a history begins with is where registers and counters begin; for objects that begin empty the
       answer is then ``unknown``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from checkers.bank import check_bank
from checkers.causal import check_causal
from checkers.counters import check_counter, check_unique_ids
from checkers.forks import check_causal_reverse, check_g2, check_long_fork
from checkers.groups import check_multi_register
from checkers.history import CheckerCall, CheckerCallError, History
from checkers.leases import check_lease
from checkers.list_append import check_list_append
from checkers.logs import check_log
from checkers.queues import check_queue, check_total_queue
from checkers.rw_register import check_rw_register
from checkers.sessions import GUARANTEES, check_sessions
from checkers.sets import check_set, check_set_full
from checkers.values import freeze, show
from checkers.verdict import Verdict
from checkers.watches import check_watch

__all__ = ["CHECKERS", "CheckerCall", "CheckerEntry", "run_checker"]


@dataclass(frozen=True, slots=True)
class CheckerEntry:
    """A checker: what it finds, the function, and its options with their defaults."""

    summary: str
    check: Callable[..., Verdict]
    options: Mapping[str, Any]


CHECKERS: Mapping[str, CheckerEntry] = MappingProxyType(
    {
        "list-append": CheckerEntry(
            "transactions that append to lists and read them, against a consistency model (as Elle)",
            check_list_append,
            {"model": "strict-serializable"},
        ),
        "rw-register": CheckerEntry(
            "transactions that read and write registers, against a consistency model (as Elle)",
            check_rw_register,
            {"model": "strict-serializable"},
        ),
        "set": CheckerEntry("every acknowledged element is in the last read", check_set, {}),
        "set-full": CheckerEntry(
            "every element stays once it was seen or acknowledged; how long that takes",
            check_set_full,
            {"linearizable": True},
        ),
        "bank": CheckerEntry(
            "the balances of a bank always add up",
            check_bank,
            {"total": 100, "accounts": 0, "negative": False},
        ),
        "counter": CheckerEntry("every read of a counter is within its bounds", check_counter, {}),
        "unique-ids": CheckerEntry("no identifier is given twice", check_unique_ids, {}),
        "queue": CheckerEntry(
            "nothing is dequeued that was not in, nor out of order", check_queue, {"fifo": False}
        ),
        "total-queue": CheckerEntry("what goes in comes out, once", check_total_queue, {}),
        "log": CheckerEntry("logs as of Kafka: offsets, and polls in their order", check_log, {}),
        "watch": CheckerEntry("who watches sees every change, once, in order", check_watch, {}),
        "lease": CheckerEntry("what a lease keeps is there while it lasts", check_lease, {"ttl_ms": 2000}),
        "session": CheckerEntry(
            "read-your-writes, monotonic reads and writes, writes-follow-reads",
            check_sessions,
            {"guarantees": "+".join(GUARANTEES)},
        ),
        "causal": CheckerEntry(
            "no register is read as it was before what caused the read", check_causal, {"convergence": True}
        ),
        "causal-reverse": CheckerEntry(
            "no read sees a write without those that ended before it", check_causal_reverse, {}
        ),
        "long-fork": CheckerEntry("no two reads see two writes in opposite orders", check_long_fork, {}),
        "g2": CheckerEntry("of two inserts that exclude each other one succeeds", check_g2, {}),
        "multi-register": CheckerEntry(
            "reads and writes of several registers at once are linearizable, each key a group of its own",
            check_multi_register,
            {},
        ),
    }
)
"""Every checker by its name."""

_BEGIN_EMPTY = frozenset(
    {"list-append", "set", "set-full", "queue", "total-queue", "session", "causal-reverse", "long-fork"}
)
_KINDS = {bool: "true or false", int: "an integer", str: "a word"}


def run_checker(call: CheckerCall, history: History) -> Verdict:
    """What the checker says of the history.

    Raises:
        CheckerCallError: there is no such checker, or it has no such option, or not of that kind.
        HistoryError: the history is malformed.
    """
    entry = CHECKERS.get(call.name)
    if entry is None:
        close = difflib.get_close_matches(call.name, CHECKERS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise CheckerCallError(f"unknown checker {call.name!r}: {hint}Known checkers: {', '.join(CHECKERS)}")
    for name, value in call.options.items():
        if name not in entry.options:
            known = ", ".join(entry.options) or "none"
            raise CheckerCallError(f"the checker {call.name} has no option {name!r}: it has {known}")
        if type(value) is not type(entry.options[name]):
            kind = _KINDS[type(entry.options[name])]
            raise CheckerCallError(f"the option {name} of the checker {call.name} is {value!r}: give {kind}")
    if call.name in _BEGIN_EMPTY and history.initial not in (None, [], ()):
        cause = f"the history begins with {show(freeze(history.initial), 40)}, and objects of this checker begin empty"
        return Verdict(valid="unknown", checker=call.name, cause=cause)
    return entry.check(history, **{**entry.options, **call.options})
