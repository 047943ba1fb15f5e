"""Transactions of a history, their micro-operations, and the verdict that anomalies among them add up to.

Rules of this module
    1. A transaction is a call whose value is a list of micro-operations ``[f, key, value]``, with ``f`` one of ``r``,
       ``append`` and ``w`` (Jepsen's ``:r`` and so on too). Any ``f`` of the operation is taken (``txn`` in ours).
    2. Single operations count as transactions of one: ``append`` and ``read`` (or ``r``), ``write`` (or ``w``) of a
       key. Dependency graphs of such histories are a check of linearizability that takes linear time. What they write
       is the argument: an answer need not repeat it.
    3. What a lost transaction has read is not known; what it has written is known from its invocation.
    4. Keys are compared as values are (`checkers.values`): ``1`` and ``1.0`` are one key, ``true`` and ``"1"`` others.
       Where the operation has a key, as those of groups have, it is one of that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from checkers.calls import Call, calls_of, hashable
from checkers.history import History, HistoryError
from checkers.isolation import forbids, violated
from checkers.memory import collector_paused
from checkers.values import show
from checkers.verdict import Verdict

Micro = tuple[str, Any, Any]  # f, key, value

_NAMES = {"r": "r", "read": "r", "w": "w", "write": "w", "append": "append"}
EVIDENCE_LINES = 20
_EXAMPLES = 3
_CHARS = 40


class OtherKey(msgspec.Struct, frozen=True):
    """A key that is neither a number nor a word: compared as a value, and told as JSON."""

    value: Hashable

    def __str__(self) -> str:
        return show(self.value)


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """A call and what it did: for an ``ok`` as it was answered, else as it was asked."""

    call: Call
    ops: tuple[Micro, ...]

    @property
    def committed(self) -> bool:
        """Whether it certainly happened."""
        return self.call.status == "ok"


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that some consistency model rules out.

    Attributes:
        name: as `checkers.isolation` has it.
        at: `Op.index` of the completion by which it shows.
        lines: for people; the first is a sentence, the others go below it.
    """

    name: str
    at: int
    lines: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """Anomalies by name, of each at most some examples, and how many there are."""

    examples: dict[str, list[Anomaly]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, at: int, *lines: str) -> None:
        """Note an anomaly."""
        self.counts[name] = self.counts.get(name, 0) + 1
        kept = self.examples.setdefault(name, [])
        if len(kept) < _EXAMPLES:
            kept.append(Anomaly(name, at, lines))


def transactions_of(history: History) -> list[Transaction]:
    """All transactions, in the order of their invocations.

    Raises:
        HistoryError: an operation that is no transaction.
    """
    return [Transaction(call, _ops_of(call, history)) for call in calls_of(history)]


def _ops_of(call: Call, history: History) -> tuple[Micro, ...]:
    if call.f in _NAMES:
        f = _NAMES[call.f]
        return ((f, _key(call.key), call.result if f == "r" and call.status == "ok" else call.argument),)
    value = call.result if call.status == "ok" else call.argument
    if not isinstance(value, list | tuple):
        raise _no_transaction(call, value, history)
    ops = []
    for op in value:
        try:
            f, key, what = op
            name = _NAMES[f] if f in _NAMES else _NAMES[f.removeprefix(":")]
        except (TypeError, ValueError, AttributeError, KeyError):
            raise _no_transaction(call, op, history) from None
        ops.append((name, _key(key if call.key is None else [call.key, key]), what))
    return tuple(ops)


def _key(key: Any) -> int | str | OtherKey:
    known = hashable(key)
    return known if type(known) is int or type(known) is str else OtherKey(known)


def _no_transaction(call: Call, value: Any, history: History) -> HistoryError:
    where = f"{history.source}: " if history.source else ""
    return HistoryError(
        f"{where}index {call.invoke.index}: {call.f} of {show(hashable(value), 60)} is no transaction: give a list of "
        '["r", key, value], '
        '["append", key, value] or ["w", key, value]'
    )


def shown(transaction: Transaction) -> str:
    """A transaction in one line: where, whose, and what it did."""
    ops = ", ".join(_shown_op(op, known=transaction.committed) for op in transaction.ops)
    node = f" on {transaction.call.complete.node}" if transaction.call.complete.node else ""
    state = "" if transaction.committed else f" ({transaction.call.status})"
    return f"{transaction.call.span} process {transaction.call.process}{node}{state}: {ops}"


def _shown_op(op: Micro, *, known: bool) -> str:
    f, key, value = op
    if f == "r" and not known:
        return f"r {key} ?"
    return f"{f} {key} {show_value(value)}"


def show_value(value: Any) -> str:
    """A value for people; of a long list its end, of a long text its beginning."""
    if isinstance(value, str):
        return value if len(value) <= _CHARS else value[: _CHARS - 3] + "..."
    if type(value) in (list, tuple) and len(value) > 8:
        return f"[... {', '.join(show_value(one) for one in value[-6:])}]"
    return show(hashable(value), 8 * _CHARS)


def check_transactions(
    history: History,
    model: str,
    checker: str,
    look: Callable[[Sequence[Transaction], Sequence[str]], tuple[Findings, int] | str],
) -> Verdict:
    """The check as a whole, between reading the transactions and judging what was found in them.

    Args:
        history: of transactions.
        model: one of `checkers.isolation`; several are joined by ``+``.
        checker: its name.
        look: from transactions and models to what is wrong and how many keys there are; a sentence where that cannot
            be told.

    Raises:
        HistoryError: the history is none of such transactions.
        ValueError: there is no such model.
    """
    models = model.split("+")
    with collector_paused():
        everyone = transactions_of(history)
        found = look(everyone, models)
        if isinstance(found, str):
            return Verdict(
                valid="unknown", checker=checker, model=model, operations=len(everyone), cause=found
            )
        findings, keys = found
        return verdict_of(findings, everyone, models, checker=checker, keys=keys)


def verdict_of(
    findings: Findings, transactions: Sequence[Transaction], models: Sequence[str], *, checker: str, keys: int
) -> Verdict:
    """What the anomalies mean for the models that were asked for.

    Raises:
        ValueError: there is no such model.
    """
    ruled_out = frozenset().union(*(forbids(model) for model in models))
    committed = sum(one.committed for one in transactions)
    bad = {name: found for name, found in findings.examples.items() if name in ruled_out}
    allowed = [name for name in findings.examples if name not in ruled_out]
    notes = [f"also found, and allowed by {' and '.join(models)}: {', '.join(allowed)}"] if allowed else []
    common: dict[str, Any] = {
        "checker": checker,
        "model": " and ".join(models),
        "algorithm": "dependency graph",
        "operations": len(transactions),
        "keys": keys,
        "notes": tuple(notes),
        "anomalies": dict(sorted(findings.counts.items())),
    }
    if bad:
        weakest, others = violated(findings.examples)
        at = sorted({one.at for found in bad.values() for one in found})
        lines = _evidence(bad, findings.counts, weakest)
        return Verdict(
            valid="invalid", at=tuple(at), evidence=lines, violated=weakest, also_violated=others, **common
        )
    if not committed or not keys:
        cause = "no transaction was committed" if not committed else "no transaction touched a key"
        return Verdict(valid="unknown", cause=f"{cause}: there is nothing to check", **common)
    return Verdict(valid="valid", **common)


def _evidence(
    bad: Mapping[str, Sequence[Anomaly]], counts: Mapping[str, int], weakest: Iterable[str]
) -> tuple[str, ...]:
    """At most twenty lines: what models are out, and the plainest example of each anomaly for which there is room."""
    lines = [
        f"not {', '.join(weakest)}: " + ", ".join(f"{name} ({counts[name]})" for name in sorted(bad)),
    ]
    for name, found in sorted(bad.items(), key=lambda item: len(item[1][0].lines)):
        example = min(found, key=lambda one: (len(one.lines), one.at))
        new = [f"{name}: {example.lines[0]}", *(f"  {line}" for line in example.lines[1:])]
        if len(lines) + len(new) <= EVIDENCE_LINES or len(lines) == 1:
            lines += new[: EVIDENCE_LINES - len(lines)]
    return tuple(lines)
