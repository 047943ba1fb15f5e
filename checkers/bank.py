"""A bank: transfers between accounts, and reads of all balances, whose sum never changes.

Rules of this module
    1. An ok ``read`` has a map from account to balance, or a list of ``[account, balance]``.
    2. Wrong are: a sum other than `total` (wrong-total), an account that is not one of the accounts (unexpected-key),
       a balance that is null, or no number (null-balance) or, unless `negative` is allowed, below 0 (negative-value).
    3. Keys are banks of their own.

A read of the sum is a check of atomicity and of snapshots: a transfer that is half seen changes the sum, and so do
two transfers of which one overwrites what the other did.
"""

from __future__ import annotations

from typing import Any

from checkers.calls import Call, calls_of, hashable
from checkers.findings import Findings, some
from checkers.history import History
from checkers.verdict import Verdict

NAME = "bank"


def check_bank(history: History, *, total: int = 100, accounts: int = 0, negative: bool = False) -> Verdict:
    """Whether every read of a bank adds up.

    Args:
        history: with operations ``read`` and ``transfer``.
        total: what the balances of a bank sum up to.
        accounts: how many accounts there are, named 0 to this; 0 for any.
        negative: whether balances may be below 0.

    Raises:
        HistoryError: the history is malformed.
    """
    calls = calls_of(history)
    findings = Findings()
    reads = [call for call in calls if call.f == "read" and call.status == "ok"]
    for call in reads:
        _judge(call, findings, total, accounts, negative=negative)
    keys = {hashable(call.key) for call in calls}
    cause = "" if reads else "no read succeeded: there is nothing to check"
    return findings.verdict(NAME, len(calls), len(keys), cause)


def _judge(call: Call, findings: Findings, total: int, accounts: int, *, negative: bool) -> None:
    value = call.result
    pairs = list(value.items()) if isinstance(value, dict) else findings.seen(call)
    if pairs is None:
        return
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        what = some([hashable(value)])
        findings.add(
            "malformed", call.complete.index, f"{call.span} of process {call.process} was answered {what}"
        )
        return
    balances: dict[str, Any] = {str(name): hashable(n) for name, n in pairs}
    at = call.complete.index
    where = f"the read {call.span} of process {call.process}" + (
        f" of {call.key}" if call.key is not None else ""
    )
    strange = [name for name in balances if accounts and name not in {str(n) for n in range(accounts)}]
    if strange:
        findings.add("unexpected-key", at, f"{where} has the accounts {some(strange)}")
    elif any(not isinstance(balance, int | float) for balance in balances.values()):
        findings.add("null-balance", at, f"{where} has {_shown(balances)}")
    elif sum(balances.values()) != total:
        findings.add(
            "wrong-total", at, f"{where} has {_shown(balances)}: {sum(balances.values())}, not {total}"
        )
    elif not negative and min(balances.values(), default=0) < 0:
        findings.add("negative-value", at, f"{where} has {_shown(balances)}")


def _shown(balances: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {some([balance])}" for name, balance in sorted(balances.items()))
