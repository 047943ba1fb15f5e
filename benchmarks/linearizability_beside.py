"""The linearizability check beside another checker, on the same histories in one run.

    python benchmarks/linearizability_beside.py PROGRAM                   histories made from a seed
    python benchmarks/linearizability_beside.py PROGRAM --stored DIR      those that a DIR/VERDICTS.tsv names
    python benchmarks/linearizability_beside.py PROGRAM --json            the same as JSON

PROGRAM is called with ``MODEL INITIAL SECONDS`` and gets the history as JSON lines (docs/history-format.md) on its
standard input; it prints one JSON object: ``verdict`` (valid, invalid, unknown) and ``seconds``, of the check alone,
without reading and pairing. For Porcupine that is a page of Go around ``CheckEventsTimeout``. Models asked for:
cas-register, etcd-register and string-kv.

Ours is told in two parts: until the operations of the lines in memory are paired, which theirs has not in it, and the
check from there to the verified verdict. Everything is compiled before, and all are the smallest of the repetitions.
Ratios (theirs by our check; and by both parts) are printed only where both verdicts were compared and are the same.
``out of memory`` is a PROGRAM that died at `MEMORY_MIB`. The exit code is 1 where two verdicts differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

from checkers import Budget, History, encode_op, fast, linear, model_by_name, read_history
from checkers.memory import collector_paused
from harness.module_files import module_from_file

MEMORY_MIB = 10_240
REPEAT = 3


def made_rows(large):
    """(name, lines, model, initial) of synthetic histories."""
    table = module_from_file(Path(__file__).with_name("linearizability.py"))
    for size in (1_000, 10_000, *([100_000, 1_000_000] if large else [])):
        lines = table.register_lines(size, 10)
        yield f"unique values, c=10, {size}", lines, "etcd-register", 0
        yield "  with a stale read", table.with_stale_read(lines), "etcd-register", 0
    yield "unique values, 1% info, 1000", table.register_lines(1_000, 10, info=0.01), "cas-register", 0
    for size in (1_000, 7_500):
        for clients in (5, 10, 20, 30):
            lines = table.register_lines(size, clients, values=5, cas=0.3)
            yield f"5 values, cas, c={clients}, {size}", lines, "cas-register", 0
            yield "  with an impossible read", table.with_impossible_read(lines), "cas-register", 0
    yield "20 crashed writes on one key", table.twenty_crashed(), "cas-register", 0
    for size, clients, keys in ((500, 10, 10), (2_000, 10, 10), (2_000, 10, 1), (5_000, 50, 10)):
        lines = table.string_lines(size, clients, keys=keys)
        yield f"strings by append, c={clients}, {keys} keys, {size}", lines, "string-kv", None
        yield "  with two pieces swapped", table.with_swapped_parts(lines), "string-kv", None


def stored_rows(folder):
    """(name, lines, model, initial) of recorded histories of one register or of strings by key."""
    with (folder / "VERDICTS.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            words = row["model"].replace(",", " ").split()
            if words[0] not in {"cas-register", "etcd-register", "string-kv"}:
                continue
            history = read_history(folder / row["path"])
            initial = next((json.loads(w[8:]) for w in words if w.startswith("initial=")), None)
            yield row["path"], list(map(plain(history), history.lines)), words[0], initial


def plain(history):
    """Lines in which a refused compare-and-set says so; the order of lines is that of events."""

    def line(op):
        refused = history.bare_mismatch and op.type == "fail" and op.f == "cas" and op.error is None
        return type(op)(
            op.index, None, op.process, op.type, op.f, op.key, op.value, "mismatch" if refused else op.error
        )

    return line


def theirs(program, lines, model, initial, seconds):
    """(verdict, seconds): the smallest of the repetitions."""
    data, times, verdict = b"".join(map(encode_op, lines)), [], "unknown"

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20,) * 2)

    for _ in range(REPEAT):
        ran = subprocess.run(
            [*program, model, json.dumps(initial), str(seconds)],
            input=data, capture_output=True, check=False, preexec_fn=bounded,
        )  # fmt: skip
        if ran.returncode:
            return "out of memory" if b"out of memory" in ran.stderr else f"died ({ran.returncode})", math.inf
        answer = json.loads(ran.stdout)
        verdict = answer["verdict"]
        times.append(answer["seconds"])
        if times[-1] > seconds / 4:
            break
    return verdict, min(times)


def ours(lines, model, initial, seconds):
    """(verdict, seconds of pairing, seconds of the check)."""
    paired, times, verdict = [], [], None
    budget, made = Budget(seconds=seconds), model_by_name(model, initial)
    for _ in range(REPEAT):
        with collector_paused():
            began = time.perf_counter()
            check = linear.Check(History.of(lines), made, budget, explain=False)
            paired.append(time.perf_counter() - began)
            began = time.perf_counter()
            verdict = check.run()
            times.append(time.perf_counter() - began)
        if times[-1] > seconds / 4:
            break
    return verdict, min(paired), min(times)


def compare(program, row, seconds):
    name, lines, model, initial = row
    verdict, paired_s, check_s = ours(lines, model, initial, seconds)
    their_verdict, their_s = theirs(program, lines, model, initial, seconds)
    decided = {"valid", "invalid"}
    same = verdict.valid == their_verdict and verdict.valid in decided
    return {
        "history": name,
        "operations": verdict.operations,
        "model": model,
        "ours": verdict.valid,
        "algorithm": verdict.algorithm,
        "paired_s": paired_s,
        "ours_s": check_s,
        "theirs": their_verdict,
        "theirs_s": None if math.isinf(their_s) else their_s,
        "ratio": their_s / check_s if same else None,
        "ratio_with_pairing": their_s / (paired_s + check_s) if same else None,
        "differ": not same and {verdict.valid, their_verdict} <= decided,
    }


HEADER = (
    f"{'history':44} {'operations':>10} {'ours':>8} {'paired s':>9} {'check s':>9} {'theirs':>13} {'s':>9} {'ratio':>9}"
    f" {'all':>8}  algorithm"
)


def shown(row):
    theirs_s = "" if row["theirs_s"] is None else f"{row['theirs_s']:.5f}"
    ratio, whole = ("" if row[n] is None else f"{row[n]:,.1f}" for n in ("ratio", "ratio_with_pairing"))
    differ = "  THE VERDICTS DIFFER" if row["differ"] else ""
    return (
        f"{row['history']:44} {row['operations']:10} {row['ours']:>8} {row['paired_s']:9.5f} {row['ours_s']:9.5f}"
        f" {row['theirs']:>13} {theirs_s:>9} {ratio:>9} {whole:>8}  {row['algorithm']}{differ}"
    )


def summary(rows):
    """Over the rows with a ratio: how many, all seconds of both, and geometric means."""
    both = [row for row in rows if row["ratio"] is not None]
    if not both:
        return {"compared": 0}
    ours_s, paired_s, theirs_s = (sum(row[n] for row in both) for n in ("ours_s", "paired_s", "theirs_s"))
    return {
        "compared": len(both),
        "ours_s": round(ours_s, 4),
        "paired_s": round(paired_s, 4),
        "theirs_s": round(theirs_s, 4),
        "total_ratio": round(theirs_s / ours_s, 2),
        "total_ratio_with_pairing": round(theirs_s / (paired_s + ours_s), 2),
        "geometric_mean": round(geometric_mean(row["ratio"] for row in both), 2),
        "geometric_mean_with_pairing": round(geometric_mean(row["ratio_with_pairing"] for row in both), 2),
    }


def geometric_mean(numbers):
    logs = [math.log(number) for number in numbers]
    return math.exp(sum(logs) / len(logs))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="+", help="the other checker's command")
    parser.add_argument("--stored", type=Path, help="a folder of histories with a VERDICTS.tsv")
    parser.add_argument("--large", action="store_true", help="also up to a million operations")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of one check, for both")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    for part in fast.PARTS:
        fast.prepare(part)
    rows = []
    if not options.json:
        print(HEADER)
    for row in stored_rows(options.stored) if options.stored else made_rows(options.large):
        rows.append(compare(options.program, row, options.seconds))
        if not options.json:
            print(shown(rows[-1]), flush=True)
    found = summary(rows)
    print(json.dumps({"summary": found, "rows": rows} if options.json else found, indent=1))
    return int(any(row["differ"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
