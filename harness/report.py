"""Results as a value, and the report as text: the verdict first, then the evidence, then the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.effect import Overlaps, Span, spans_of, to_json
from harness.errors import JSON_VALID, Valid
from harness.judge import Check, merged
from harness.plan import Plan
from harness.recorder import Recorder
from harness.runner import RunRecord

FAULTS_LISTED = 60

SUMMARY_FIELDS = (
    "valid", "seed", "ops", "ok", "fail", "info", "faults", "run_dir", "sim_seconds", "wall_seconds", "history_sha256",
)  # fmt: skip


def results(
    plan: Plan, recorder: Recorder, record: RunRecord, checks: Sequence[Check], run_dir: Path, wall_s: float
) -> dict[str, Any]:
    """Everything about a run as plain JSON; `SUMMARY_FIELDS` are what `--json` promises."""
    spans = spans_of(recorder.ops)
    overlaps = Overlaps(spans)
    return {
        "valid": JSON_VALID[merged(checks)],
        "seed": plan.seed,
        "ops": len(spans),
        "ok": recorder.count("ok"),
        "fail": recorder.count("fail"),
        "info": len(spans) - recorder.count("ok") - recorder.count("fail"),
        "faults": sum(1 for fault in record.faults if fault.started_ns is not None),
        "run_dir": str(run_dir),
        "sim_seconds": round(record.end_ns / 1e9, 3),
        "wall_seconds": round(wall_s, 3),
        "history_sha256": recorder.sha256,
        "system": plan.config.system,
        "workload": plan.config.workload,
        "cluster": plan.config.cluster,
        "bug": plan.config.bug,
        "skipped": record.skipped,
        "interrupted": record.interrupted,
        "by_f": _by_f(recorder),
        "latency_ms": _latency(spans),
        "checks": {
            check.name: {"valid": JSON_VALID[check.valid], "lines": list(check.lines), **check.details}
            for check in checks
        },
        "fault_events": [to_json(fault, overlaps) for fault in record.faults],
        "facts": record.facts,
    }


def exit_verdict(result: dict[str, Any]) -> Valid:
    """The verdict in a result value."""
    return next(
        valid
        for valid, shown in JSON_VALID.items()
        if shown == result["valid"] and type(shown) is type(result["valid"])
    )


def _by_f(recorder: Recorder) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for (f, type_), count in sorted(recorder.outcomes.items()):
        table.setdefault(f, {"ok": 0, "fail": 0, "info": 0})[type_] = count
    return table


def _latency(spans: Sequence[Span]) -> dict[str, float]:
    times = sorted((span.completed_ns - span.invoked_ns) / 1e6 for span in spans if span.outcome == "ok")
    if not times:
        return {}
    return {f"p{q}": round(times[min(len(times) - 1, len(times) * q // 100)], 3) for q in (50, 90, 99)} | {
        "max": round(times[-1], 3)
    }


def text(result: dict[str, Any], checks: Sequence[Check]) -> str:
    """The report for people."""
    lines = [f"verdict: {_word(result['valid'])}", ""]
    for check in checks:
        if check.lines:
            lines += [f"{check.name}: {check.valid}", *(f"  {line}" for line in check.lines), ""]
        else:
            lines.append(f"{check.name}: {check.valid}")
    lines += ["", *_figures(result), "", *_fault_lines(result["fault_events"])]
    lines += ["", f"replay: splitbrain replay {result['run_dir']}", f"seed:   {result['seed']}"]
    return "\n".join(lines)


def _figures(result: dict[str, Any]) -> list[str]:
    lines = [
        (
            f"operations: {result['ops']} ({result['ok']} ok, {result['fail']} fail, {result['info']} info; "
            f"{result['skipped']} planned but not started in time)"
        )
    ]
    lines += [
        f"  {f:<8} {n['ok']:>7} ok {n['fail']:>7} fail {n['info']:>7} info" for f, n in result["by_f"].items()
    ]
    if result["latency_ms"]:
        shown = "  ".join(f"{name} {value:g}" for name, value in result["latency_ms"].items())
        lines.append(f"latency of ok, ms: {shown}")
    lines.append(
        f"time: {result['sim_seconds']:g} s on the cluster's clock, {result['wall_seconds']:g} s to run and check"
    )
    lines.append(f"history sha256: {result['history_sha256']}")
    return lines


def _fault_lines(events: Sequence[dict[str, Any]]) -> list[str]:
    if not events:
        return ["faults: none"]
    lines = [
        "faults (seconds in force, operations overlapped, what proved it, what the cluster did meanwhile):"
    ]
    for event in events[:FAULTS_LISTED]:
        if "set_off" in event:
            lines.append(f"  armed, set off {event['set_off']} times  {event['description']}")
            continue
        if event["start_s"] is None:
            lines.append(
                f"  not injected    {event['kind']}{', its time was over' if event['is_late'] else ''}"
            )
            continue
        stop = f"{event['stop_s']:7.2f}" if event["stop_s"] is not None else "      -"
        lines.append(
            f"  {event['start_s']:7.2f} - {stop}  {event['overlapped_ops']:>5} ops  {event['description']}"
        )
        caused = ", ".join(f"{kind} {count}" for kind, count in event["caused"].items())
        lines.append(
            f"{'':21}{event['proof']}{_in_brackets(event['evidence'][:1])}{f'; {caused}' if caused else ''}"
        )
    if len(events) > FAULTS_LISTED:
        lines.append(f"  and {len(events) - FAULTS_LISTED} more in results.json")
    return lines


def _in_brackets(lines: Sequence[str]) -> str:
    return f" ({lines[0]})" if lines else ""


def _word(valid: bool | str) -> str:  # noqa: FBT001 - a value of JSON
    return {True: "VALID", False: "INVALID"}.get(valid, "UNKNOWN") if isinstance(valid, bool) else "UNKNOWN"
