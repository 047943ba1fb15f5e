"""Small checks of what readers may see: long forks, causes after their effects, and two inserts where one is allowed.

`long-fork`
    Each member of a group is written once. Whoever reads a group sees some of its members. Of any two reads one must
    see all that the other sees: if one sees a without b and the other b without a, the writes of a and b happened in
    two orders (parallel snapshot isolation allows that; snapshot isolation does not).

`causal-reverse`
    A write that was acknowledged before another began must be in every read that has the other (strict
    serializability; plain serializability allows it to be missing).

`g2`
    Adya's G2: two transactions each look whether the other's row is there, and insert their own if not. At most one
    of them may succeed.

Rules of this module
    1. Reads have a list of what they saw: of members or values, or of micro-operations ``["r", key, value]`` in which
       null was not there.
    2. Keys are groups of their own.
    3. Inserts of Jepsen's tests have the key in their value: ``[key, [id, null]]``.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.values import show
from checkers.verdict import Verdict

LONG_FORK = "long-fork"
CAUSAL_REVERSE = "causal-reverse"
G2 = "g2"


def check_long_fork(history: History) -> Verdict:
    """Whether of any two reads of a group one sees all that the other sees.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    groups: dict[Any, list[tuple[Call, frozenset[Any]]]] = {}
    calls = calls_of(history)
    for call in calls:
        if call.status == "ok" and (seen := _seen(call, findings)) is not None:
            groups.setdefault(_group(call), []).append((call, seen))
    for reads in groups.values():
        reads.sort(key=lambda read: (len(read[1]), read[0].call))
        for (one, fewer), (other, more) in itertools.pairwise(reads):
            if not fewer <= more:
                sentence = (
                    f"{one.span} of process {one.process} saw {some(_ordered(fewer - more))} and not "
                    f"{some(_ordered(more - fewer))}; {other.span} of process {other.process} saw the latter and not "
                    "the former"
                )
                findings.add("long-fork", max(one.complete.index, other.complete.index), sentence)
    compared = any(len(reads) > 1 for reads in groups.values())
    cause = "" if compared else "no group was read twice: there is nothing to check"
    return findings.verdict(LONG_FORK, len(calls), len(groups), cause)


def _seen(call: Call, findings: Findings) -> frozenset[Any] | None:
    """What a read saw; None for what is no read."""
    value = call.result
    if _is_txn(value):
        return frozenset(hashable(op[1]) for op in value if op[2] is not None)
    seen = findings.seen(call) if call.f == "read" else None
    return None if seen is None else frozenset(map(hashable, seen))


def _is_txn(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(_is_read(op) for op in value)


def _is_read(op: Any) -> bool:
    return isinstance(op, list | tuple) and len(op) == 3 and str(op[0]).removeprefix(":") in ("r", "read")


def _group(call: Call) -> Any:
    if _is_txn(call.result):
        return tuple(sorted({show(hashable(op[1])) for op in call.result}))
    return hashable(call.key)


def _ordered(elements: frozenset[Any]) -> list[Any]:
    return sorted(elements, key=str)


def check_causal_reverse(history: History) -> Verdict:
    """Whether every read has what was there before what it has.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    groups: dict[Any, list[Call]] = {}
    calls = calls_of(history)
    for call in calls:
        groups.setdefault(hashable(call.key), []).append(call)
    compared = 0
    for group in groups.values():
        writes = [call for call in group if call.f == "write" and call.status != "fail"]
        acknowledged = sorted((call.ret, n) for n, call in enumerate(writes) if call.ret is not None)
        rets = [ret for ret, _ in acknowledged]
        by_value = {hashable(call.argument): call for call in writes}
        for call in group:
            if call.f != "read" or call.status != "ok":
                continue
            seen = {hashable(one) for one in findings.seen(call) or ()}
            latest = max(
                (by_value[one] for one in seen if one in by_value), key=lambda w: w.call, default=None
            )
            if latest is None:
                continue
            compared += 1
            before = [writes[n] for _, n in acknowledged[: bisect_left(rets, latest.call)]]
            missing = [write for write in before if hashable(write.argument) not in seen]
            if missing:
                findings.add("missing-cause", call.complete.index, _reversed(call, latest, missing))
    cause = "" if compared else "no read saw anything: there is nothing to check"
    return findings.verdict(CAUSAL_REVERSE, len(calls), len(groups), cause)


def _reversed(read: Call, latest: Call, missing: Sequence[Call]) -> str:
    return (
        f"{read.span} of process {read.process} saw {some([hashable(latest.argument)])}, written in {latest.span}, and "
        f"not {some([hashable(one.argument) for one in missing])}, whose write {missing[0].span} had ended before that"
    )


def check_g2(history: History) -> Verdict:
    """Whether at most one insert of each key succeeded.

    Raises:
        HistoryError: the history is malformed.
    """
    findings = Findings()
    first: dict[Any, Call] = {}
    calls = [call for call in calls_of(history) if call.f == "insert"]
    for call in sorted((call for call in calls if call.ret is not None), key=lambda call: call.ret or 0):
        if call.status != "ok":
            continue
        key = _inserted(call)
        other = first.setdefault(key, call)
        if other is not call:
            sentence = f"both inserts of {some([key])} succeeded: {other.span} and {call.span}"
            findings.add("G2", call.complete.index, sentence)
    cause = "" if first else "no insert succeeded: there is nothing to check"
    return findings.verdict(G2, len(calls), len({_inserted(call) for call in calls}), cause)


def _inserted(call: Call) -> Any:
    """The key of an insert, by rule 3."""
    match call.argument:
        case [key, [_, None] | [None, _]] if call.key is None:
            return hashable(key)
    return hashable(call.key)
