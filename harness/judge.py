"""Verdicts of a run: what its workload asks for, and whether the run can bear a verdict at all.

    linearizable   the history fits the workload's model, where it has one
    ...            the workload's checkers, each under its own name (`checkers.catalogue`)
    invariants     in the simulator: the nodes kept the invariants of their protocol, seen after each event
    stats          every kind of operation succeeded at least once (else nothing was tested)
    liveness       where it was asked for: a healed majority made progress in time, see `harness.liveness`
    online         the same, as far as it was seen while the history was recorded (`--online`)
    linearizable-with-log
                   the history fits the model and the system's own log (`--with-log`, `checkers.committed`)
    harness        the harness did all it was asked to: faults injected and healed, final reads made, no node died by
                   itself, not interrupted
    faults         every kind of fault had an effect; only where that is required (`require_effect`) it may be unknown

Merged as invalid > unknown > valid. A checker that crashes is ``unknown``, and says with what.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from checkers import (
    Budget,
    History,
    HistoryError,
    Op,
    Verdict,
    check_linearizable,
    check_stats,
    model_by_name,
)
from checkers.catalogue import CheckerCall, run_checker
from checkers.committed import CHECKER, LoggedRequest, check_with_log
from harness import effect, liveness, workloads
from harness.config import Config
from harness.errors import Valid
from harness.liveness import LivenessRecord
from harness.recorder import Recorder
from harness.runner import RunRecord
from nemesis.composition import kinds_in, parse

PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Check:
    """One check's verdict, with its reasons as lines for people."""

    name: str
    valid: Valid
    lines: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


def judge(ops: Sequence[Op], config: Config, recorder: Recorder, record: RunRecord) -> tuple[Check, ...]:
    """All checks of a run."""
    checks = (
        *check_workload(ops, config),
        *check_invariants(record),
        check_operations(ops),
        check_harness(record),
    )
    checks = (*checks, *check_online(recorder, config), *check_log(ops, config, record))
    if config.faults or record.faults:
        checks = (*checks, check_effect(ops, config, record))
    return (*checks, check_liveness(record.liveness)) if record.liveness is not None else checks


def check_workload(ops: Sequence[Op], config: Config) -> tuple[Check, ...]:
    """What the workload's model and its checkers say of the history."""
    workload = workloads.by_name(config.workload)
    checks = [check_model(ops, workload.model)] if workload.model else []
    checks += [check_with(ops, call) for call in workload.checkers(workloads.settings_of(config))]
    return tuple(checks)


def check_with(ops: Sequence[Op], call: CheckerCall) -> Check:
    """What one checker of the catalogue says."""
    try:
        verdict = run_checker(call, History.of(ops))
    except Exception as error:  # noqa: BLE001 - whatever a checker dies of, the answer is unknown
        return _crashed(call.name, error)
    return Check(call.name, verdict.valid, tuple(verdict.lines()), verdict.to_json())


def _crashed(name: str, error: Exception) -> Check:
    trace = traceback.format_exc(limit=-3).splitlines()
    return Check(name, "unknown", (f"the checker crashed: {error!r}", *trace))


def merged(checks: Sequence[Check]) -> Valid:
    """The worst of them."""
    for worst in ("invalid", "unknown"):
        if any(check.valid == worst for check in checks):
            return worst
    return "valid"


def check_model(ops: Sequence[Op], model: str, *, of_user: bool = False) -> Check:
    """Is the history linearizable?

    Raises:
        HistoryError: it is none of this model's, and was recorded by a user's own test.
    """
    try:
        verdict: Verdict = check_linearizable(ops, model_by_name(model), budget=Budget())
    except HistoryError as error:
        if of_user:
            raise
        return _crashed("linearizable", error)
    except Exception as error:  # noqa: BLE001 - whatever a checker dies of, the answer is unknown
        return _crashed("linearizable", error)
    return Check("linearizable", verdict.valid, tuple(verdict.lines()), verdict.to_json())


def log_of(record: RunRecord) -> tuple[LoggedRequest, ...] | str:
    """Every request that needed an entry of the log, with its place there; or why that is not known."""
    if isinstance(record.log, str):
        return record.log
    places = ((op, client, seq, record.log.get((client, seq))) for op, client, seq in record.requests)
    return tuple(LoggedRequest(op, client, seq, *(place or ())) for op, client, seq, place in places)


def check_log(ops: Sequence[Op], config: Config, record: RunRecord) -> tuple[Check, ...]:
    """Is the history linearizable if the system's log is believed? Nothing where that was not asked for."""
    if not config.with_log:
        return ()
    log = log_of(record)
    if isinstance(log, str):
        return (Check(CHECKER, "unknown", (f"there is no complete log: {log}",)),)
    model = model_by_name(workloads.by_name(config.workload).model)
    try:
        verdict = check_with_log(History.of(ops), model, log, budget=Budget())
    except Exception as error:  # noqa: BLE001 - whatever a checker dies of, the answer is unknown
        return (_crashed(CHECKER, error),)
    return (Check(CHECKER, verdict.valid, tuple(verdict.lines()), verdict.to_json()),)


def check_online(recorder: Recorder, config: Config) -> tuple[Check, ...]:
    """What was known of the history while it was recorded; nothing where nobody looked."""
    if recorder.online is None:
        return ()
    verdict = replace(recorder.online.verdict(), checker="online")
    lines = verdict.lines()
    if verdict.valid == "invalid" and recorder.ops:
        lines.append(
            f"  the run ended early: {recorder.ops[-1].time_ns / 1e9:.3f} s of {config.time_limit_s:g} s"
        )
    return (Check("online", verdict.valid, tuple(lines), verdict.to_json()),)


def check_invariants(record: RunRecord) -> tuple[Check, ...]:
    """Did the nodes keep the invariants of their protocol? Nothing where nobody could look."""
    if record.violations is None:
        return ()
    lines = [*record.violations]
    if record.stopped:
        lines.append(f"  the run was stopped there, {record.end_ns / 1e9:.3f} s after its begin")
    return (Check("invariants", "invalid" if record.violations else "valid", tuple(lines)),)


def check_operations(ops: Sequence[Op]) -> Check:
    """Did every kind of operation succeed at least once?"""
    verdict = check_stats(History.of(ops))
    return Check("stats", verdict.valid, () if verdict.valid == "valid" else tuple(verdict.lines()))


def check_effect(ops: Sequence[Op], config: Config, record: RunRecord) -> Check:
    """Did every kind of fault do something? Only where that is required it matters for the verdict."""
    kinds = kinds_in(parse(one) for one in config.faults) or _kinds_by_hand(record)
    missing = effect.without_effect(kinds, record.faults, effect.Overlaps(effect.spans_of(ops)))
    lines = tuple(f"fault {kind} had no effect: {why}" for kind, why in missing.items())
    valid: Valid = "unknown" if missing and config.require_effect else "valid"
    return Check("faults", valid, lines, {"without_effect": missing})


def _kinds_by_hand(record: RunRecord) -> list[str]:
    """Of a plan whose faults nobody has drawn: those that it has."""
    return list(dict.fromkeys(effect.kind_of(fault) for fault in record.faults))


def check_liveness(record: LivenessRecord) -> Check:
    """Did a healthy majority answer in time?"""
    lines = tuple(record.lines())
    return Check("liveness", "invalid" if lines else "valid", lines, liveness.details(record))


def check_harness(record: RunRecord) -> Check:
    """Did the harness do all that it was asked to?"""
    problems = record.problems[:PROBLEMS_SHOWN]
    if len(record.problems) > PROBLEMS_SHOWN:
        problems.append(f"and {len(record.problems) - PROBLEMS_SHOWN} more of the kind")
    if record.interrupted:
        problems.insert(
            0, f"interrupted at {record.end_ns / 1e9:.1f} s; what was recorded up to there was checked"
        )
    return Check("harness", "unknown" if problems else "valid", tuple(problems))
