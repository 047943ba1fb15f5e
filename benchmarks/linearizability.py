"""How long the linearizability check takes, on histories made from a seed.

    python benchmarks/linearizability.py            a table
    python benchmarks/linearizability.py --json     the same as JSON
    python benchmarks/linearizability.py --large    also a million operations, and from a file
    python benchmarks/linearizability.py --jit      also how long each part compiles, in a cache of its own

Every row checks one history and says what the verdict should be and what it was; a time without the
right verdict is worth nothing, and the exit code is 1 if any is wrong. Times are wall clock, from lines in
memory to the verified verdict, the smallest of the repetitions; ``cold`` is the first of them, which imports (or,
once per machine, compiles) what the others find ready. ``told`` is with the counterexample.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checkers import (
    Budget,
    History,
    Op,
    check_linearizable,
    encode_header,
    encode_op,
    fast,
    model_by_name,
)
from checkers.columns import register_columns
from checkers.registers import solve

REPEAT = 3


def register_lines(count, clients, *, seed=1, values=0, cas=0.0, info=0.0, keys=1, revisions=False):
    """Lines of correct registers; ``values`` 0 writes a new value each time, ``revisions`` numbers changes."""
    rng, changes = random.Random(seed), [0] * keys
    state, open_, lines, fresh, made, process = [0] * keys, [], [], 0, 0, clients
    free = list(range(clients))
    while made < count or open_:
        if made < count and free and (not open_ or rng.random() < 0.7):
            key, kind = rng.randrange(keys), rng.random()
            fresh += 1
            new = rng.randrange(values) if values else fresh
            if kind < 0.5 - cas / 2:
                f, value = "read", None
            elif kind < 1 - cas:
                f, value = "write", new
            else:
                f, value = "cas", [rng.randrange(values) if values else state[key], new]
            one = [free.pop(), f, key, value, None]
            lines.append(Op(len(lines), 1000 * len(lines) + 1, one[0], "invoke", f, key, value))
            open_.append(one)
            made += 1
            continue
        at = rng.randrange(len(open_))
        who, f, key, value, result = open_[at]
        lost = f != "read" and info > 0 and rng.random() < info
        if result is None and (not lost or rng.random() < 0.5):
            if f == "read":
                result = ("ok", state[key])
            elif f == "write":
                state[key], result = value, ("ok", value)
            elif state[key] == value[0]:
                state[key], result = value[1], ("ok", value)
            else:
                result = ("fail", value)
            changes[key] += f == "write" or (f == "cas" and result[0] == "ok")
            open_[at][4] = result = (*result, changes[key] if revisions else None)
            if not lost and rng.random() < 0.5:
                continue
        open_[at] = open_[-1]
        open_.pop()
        kind, value, revision = ("info", None, None) if lost else result
        error = "timeout" if lost else "mismatch" if kind == "fail" else None
        lines.append(Op(len(lines), 1000 * len(lines) + 1, who, kind, f, key, value, error, None, revision))
        if lost:
            who, process = process, process + 1
        free.append(who)
    return lines


def with_stale_read(lines, part=0.9):
    """The first read after that part of the history returns the first value written under its key."""
    first = {}
    for op in lines:
        if op.type == "ok" and op.f == "write":
            first.setdefault(op.key, op.value)
    for n in range(int(part * len(lines)), len(lines)):
        op = lines[n]
        if op.type == "ok" and op.f == "read" and op.value != first.get(op.key):
            return [
                *lines[:n],
                Op(n, op.time_ns, op.process, "ok", "read", op.key, first[op.key]),
                *lines[n + 1 :],
            ]
    raise ValueError("no read to change")


def with_impossible_read(lines, part=0.9):
    """A read after that part of the history returns what nobody wrote."""
    for n in range(int(part * len(lines)), len(lines)):
        op = lines[n]
        if op.type == "ok" and op.f == "read":
            return [*lines[:n], Op(n, op.time_ns, op.process, "ok", "read", op.key, -1), *lines[n + 1 :]]
    raise ValueError("no read to change")


def with_two_orders(lines, part=0.9):
    """Two values are written once, at the same time, and two readers see them one after the other, in two orders.

    Every answer is possible by itself; only who tries all orders finds that they are not so together.
    """
    at, process = int(part * len(lines)), 1 + max(op.process for op in lines)
    key, (one, two) = lines[0].key, (1 << 40, 1 + (1 << 40))
    rows = [(0, "invoke", "write", one), (1, "invoke", "write", two)]
    for first, second in ((one, two), (two, one)):
        rows += [(2, "invoke", "read", None), (3, "invoke", "read", None)]
        rows += [(2, "ok", "read", first), (3, "ok", "read", second)]
    rows += [(0, "ok", "write", one), (1, "ok", "write", two)]
    more = [Op(0, 0, process + who, kind, f, key, value) for who, kind, f, value in rows]
    return [Op(n, 1000 * n + 1, *list_of(op)) for n, op in enumerate([*lines[:at], *more, *lines[at:]])]


def twenty_crashed(seed=1):
    """A hundred operations of five values on one key, among them twenty writes that never returned."""
    lines = [Op(n, n + 1, 100 + n, "invoke", "write", 0, n % 5) for n in range(20)]
    more = register_lines(100, 5, seed=seed, values=5, cas=0.3)
    return lines + [Op(op.index + 20, op.time_ns + 100, *list_of(op)) for op in more]


def list_of(op):
    return op.process, op.type, op.f, op.key, op.value, op.error


def container_lines(put, take, choose, count=5_000, *, wrong=False):
    """One producer and one consumer; the consumer takes what ``choose`` says, or once what it must not."""
    rng, inside, lines = random.Random(1), [], []

    def operation(process, f, value, result):
        lines.append(Op(len(lines), len(lines) + 1, process, "invoke", f, None, value))
        lines.append(Op(len(lines), len(lines) + 1, process, "ok", f, None, result))

    for n in range(count):
        operation(0, put, n, n)
        inside.append(n)
        while inside and rng.random() < 0.5:
            at = choose(inside)
            if wrong and n > 0.9 * count and len(inside) > 2:
                wrong, at = False, len(inside) // 2
            operation(1, take, None, inside.pop(at))
    return lines


def container_rows():
    """Queues and stacks whose values are put in once."""
    for name, put, take, choose in (
        ("fifo-queue", "enqueue", "dequeue", lambda _inside: 0),
        ("stack", "push", "pop", lambda inside: len(inside) - 1),
        ("priority-queue", "enqueue", "dequeue", lambda _inside: 0),
    ):
        yield f"{name}, 10000", container_lines(put, take, choose), name, "valid"
        yield "  with one taken out of turn", container_lines(put, take, choose, wrong=True), name, "invalid"


def string_lines(count, clients, *, seed=1, puts=0.05, keys=1):
    """Lines of strings at whose end things are put: half reads, and now and then all of it is replaced."""
    rng, state, open_, lines, free, made = random.Random(seed), [""] * keys, [], [], list(range(clients)), 0
    while made < count or open_:
        if made < count and free and (not open_ or rng.random() < 0.7):
            key, kind, made = rng.randrange(keys), rng.random(), made + 1
            f = "get" if kind < 0.5 else "put" if kind > 1 - puts else "append"
            open_.append([free.pop(), f, str(key), None if f == "get" else f"x {made} y", None])
            lines.append(Op(len(lines), 1000 * len(lines) + 1, open_[-1][0], "invoke", *open_[-1][1:4]))
            continue
        at = rng.randrange(len(open_))
        who, f, key, text, result = open_[at]
        if result is None:
            held = state[int(key)]
            state[int(key)] = {"get": held, "put": text, "append": held + (text or "")}[f]
            open_[at][4] = result = held if f == "get" else text
            if rng.random() < 0.5:
                continue
        open_[at] = open_[-1]
        open_.pop()
        lines.append(Op(len(lines), 1000 * len(lines) + 1, who, "ok", f, key, result))
        free.append(who)
    return lines


def with_swapped_parts(lines, part=0.9):
    """The first long read after that part of the history sees two of its pieces in the other order."""
    for n in range(int(part * len(lines)), len(lines)):
        op = lines[n]
        if op.type == "ok" and op.f == "get" and op.value.count("x") > 3:
            *rest, one, two, last, end = op.value.split("y")
            value = "y".join((*rest, two, one, last, end))
            return [*lines[:n], Op(n, op.time_ns, op.process, "ok", "get", op.key, value), *lines[n + 1 :]]
    raise ValueError("no read to change")


def measure_jit():
    """How long each part compiles, in a process and a cache of its own; then how long it loads."""
    program = (
        "import json, time\nfrom checkers import fast\nfound = {}\n"
        "for part in fast.PARTS:\n    began = time.perf_counter()\n    fast.prepare(part)\n"
        "    found[part] = round(time.perf_counter() - began, 2)\nprint(json.dumps(found))"
    )
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("compiled", "loaded"):
            ran = subprocess.run(
                [sys.executable, "-c", program],
                env=os.environ | {"NUMBA_CACHE_DIR": folder},
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            yield kind, json.loads(ran.stdout)


def unique_rows(large):
    """Registers whose values are written once."""
    for size in (10_000, 100_000, 1_000_000) if large else (10_000, 100_000):
        lines = register_lines(size, 10)
        yield f"unique values, c=10, {size}", lines, "etcd-register", "valid"
        yield f"  with a stale read, {size}", with_stale_read(lines), "etcd-register", "invalid"
        for info in (0.01, 0.05) if size < 1_000_000 else ():
            lines = register_lines(size, 10, info=info)
            yield f"unique values, {info:.0%} info, {size}", lines, "cas-register", "valid"
        if size < 1_000_000:
            yield f"unique, 1000 keys, {size}", register_lines(size, 10, keys=1000), "etcd-register", "valid"
    yield "unique values, 30% cas, 100000", register_lines(100_000, 10, cas=0.3), "etcd-register", "valid"


def cas_rows(large):
    """Registers of five values: the general search."""
    for size in (1_000, 7_500, *([100_000] if large else [])):
        for clients in (5, 10, 20, 30):
            for info in (0, 0.01):
                lines = register_lines(size, clients, values=5, cas=0.3, info=info)
                lost = f", {info:.0%} info" if info else ""
                yield f"5 values, cas, c={clients}, {size}{lost}", lines, "cas-register", "valid"
                yield "  with an impossible read", with_impossible_read(lines), "cas-register", "invalid"
                yield "  with two orders", with_two_orders(lines), "cas-register", "invalid"


def other_rows(_large):
    """Containers, revisions, refused cas, crashed writes."""
    yield from container_rows()
    for size, clients, keys in ((2_000, 10, 1), (5_000, 50, 10), (20_000, 50, 10)):
        lines = string_lines(size, clients, keys=keys)
        yield f"strings by append, c={clients}, {keys} keys, {size}", lines, "string-kv", "valid"
        yield "  with two pieces swapped", with_swapped_parts(lines), "string-kv", "invalid"
    lines = register_lines(100_000, 10, values=5, cas=0.3, revisions=True)
    yield "5 values with revisions, c=10, 100000", lines, "revision-register", "valid"
    lines = register_lines(7_500, 10, values=5, cas=0.3)
    yield "5 values, refused cas counts, c=10, 7500", lines, "etcd-register", "valid"
    lines = register_lines(750, 10, values=5, cas=0.3, info=0.05)
    yield "5 values, cas, c=10, 5% info, 750", lines, "cas-register", "valid"
    yield "  with an impossible read", with_impossible_read(lines), "cas-register", "invalid"
    yield "20 crashed writes on one key", twenty_crashed(), "cas-register", "valid"
    yield "  with an impossible read", with_impossible_read(twenty_crashed()), "cas-register", "invalid"
    yield "  with two orders", with_two_orders(twenty_crashed()), "cas-register", "invalid"


def measure(name, lines, model, expected, seconds):
    """One row: cold apart from warm, both without the counterexample; and once with it."""
    times, verdict, told = [], None, None
    for _ in range(REPEAT):
        verdict, took = checked(lines, model, seconds, explain=False)
        times.append(took)
        if took > seconds / 4:
            break
    if verdict.valid == "invalid":
        told = round(checked(lines, model, seconds, explain=True)[1], 4)
    return {
        "history": name,
        "operations": verdict.operations,
        "model": model,
        "expected": expected,
        "verdict": verdict.valid,
        "algorithm": verdict.algorithm,
        "cause": verdict.cause,
        "configurations": verdict.configurations,
        "cold_s": round(times[0], 4),
        "warm_s": round(min(times), 4),
        "told_s": told,
    }


def checked(lines, model, seconds, *, explain):
    """The verdict of a history that nobody has looked at, and how long it took."""
    history = History.of(lines)
    began = time.perf_counter()
    budget = Budget(seconds=seconds)
    initial = 0 if model.endswith("register") else None
    verdict = check_linearizable(history, model_by_name(model, initial), budget=budget, explain=explain)
    return verdict, time.perf_counter() - began


def measure_solve(size):
    """The zones alone, compiled, after pairing: what is left when the columns are there."""
    lines = register_lines(size, 10)
    fast.prepare("zones")
    for name, changed, expected in (
        ("", lines, "valid"),
        (", stale read", with_stale_read(lines), "invalid"),
    ):
        history = History.of(changed)
        began = time.perf_counter()
        columns = register_columns(history, model_by_name("etcd-register", 0))
        paired = time.perf_counter() - began
        backend, times = fast.Compiled(), []
        for _ in range(REPEAT + 2):
            began = time.perf_counter()
            status = solve(columns, backend).status
            times.append(time.perf_counter() - began)
        yield {
            "history": f"zones alone, c=10, {size}{name}",
            "operations": size,
            "model": "etcd-register",
            "expected": expected,
            "verdict": "invalid" if any(status) else "valid",
            "algorithm": f"zones; paired in {paired:.2f} s",
            "pair_s": round(paired, 4),
            "cold_s": round(times[0], 4),
            "warm_s": round(min(times), 4),
        }


FROM_FILE = """
import json, resource, sys, time
from checkers import check_linearizable, fast, read_history
for part in ("lines", "zones"):
    fast.prepare(part)
began = time.perf_counter(), time.process_time()
history = read_history(sys.argv[1])
read = time.perf_counter() - began[0], time.process_time() - began[1]
verdict = check_linearizable(history, "etcd-register")
both = time.perf_counter() - began[0], time.process_time() - began[1]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps([verdict.operations, verdict.valid, verdict.algorithm, peak, *read, *both]))
"""


def measure_file(size):
    """From a file on disk to the verdict in a process of its own; then again, with the columns kept beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        with path.open("wb") as file:
            file.write(encode_header("etcd-register", 0))
            file.writelines(map(encode_op, register_lines(size, 10)))
        for name in ("", ", columns kept"):
            ran = subprocess.run(
                [sys.executable, "-c", FROM_FILE, str(path)], capture_output=True, text=True, check=True
            )
            operations, valid, algorithm, peak, read, read_cpu, both, both_cpu = json.loads(ran.stdout)
            yield {
                "history": f"from a file, c=10, {size}{name}",
                "operations": operations,
                "model": "etcd-register",
                "expected": "valid",
                "verdict": valid,
                "algorithm": f"{algorithm}; read in {read:.2f} s ({read_cpu:.2f} s CPU), {peak} MiB",
                "read_s": round(read, 4),
                "cold_s": round(both, 4),
                "cpu_s": round(both_cpu, 4),
                "warm_s": None,
                "peak_mib": peak,
            }


def measure_first_use():
    """A small file on the command line: with nothing compiled, and with everything in the cache."""
    lines = register_lines(200, 5, values=5, cas=0.3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.jsonl"
        path.write_bytes(encode_header("cas-register", 0) + b"".join(map(encode_op, lines)))
        command = [sys.executable, "-m", "harness.cli", "check", str(path)]
        for name, kept in (("nothing compiled", {"NUMBA_CACHE_DIR": folder}), ("all compiled", {})):
            times = []
            for _ in range(REPEAT):
                began = time.perf_counter()
                ran = subprocess.run(
                    command, env=os.environ | kept, capture_output=True, text=True, check=False
                )
                times.append(time.perf_counter() - began)
            yield {
                "history": f"command line, small file, {name}",
                "operations": len(lines) // 2,
                "model": "cas-register",
                "expected": "valid",
                "verdict": {0: "valid", 1: "invalid"}.get(ran.returncode, "unknown"),
                "algorithm": "start-up and all",
                "cold_s": round(times[0], 4),
                "warm_s": round(min(times), 4),
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--large", action="store_true", help="also a million operations, and from a file")
    parser.add_argument("--seconds", type=float, default=9.5, help="budget of one check")
    parser.add_argument("--jit", action="store_true", help="also how long each part of the kernels compiles")
    parser.add_argument("--only", choices=GROUPS, nargs="*", help="these groups of rows")
    options = parser.parse_args()
    results = []
    jit = dict(measure_jit()) if options.jit else {}
    if not options.json:
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(
            f"{'history':44} {'operations':>10} {'verdict':>8} {'cold s':>9} {'warm s':>9} {'told s':>9}  algorithm"
        )
    for row in all_rows(options):
        results.append(row)
        if not options.json:
            wrong = "" if row["verdict"] in {row["expected"], "unknown"} else f"  EXPECTED {row['expected']}"
            warm, told = ("" if row.get(n) is None else f"{row[n]:9.4f}" for n in ("warm_s", "told_s"))
            subject = f"{row['history']:44} {row['operations']:10} {row['verdict']:>8}"
            print(
                f"{subject} {row['cold_s']:9.4f} {warm:>9} {told:>9}  {row['algorithm']}{wrong}", flush=True
            )
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if options.json:
        print(
            json.dumps(
                {"python": platform.python_version(), "peak_mib": peak_mib, "jit_s": jit, "rows": results},
                indent=1,
            )
        )
    else:
        for kind, parts in jit.items():
            print(f"{kind}: " + ", ".join(f"{part} {seconds} s" for part, seconds in parts.items()))
        print(f"peak memory {peak_mib} MiB")
    return int(any(row["verdict"] not in {row["expected"], "unknown"} for row in results))


def all_rows(options):
    for group in options.only or GROUPS:
        yield from GROUPS[group](options)


def checks(rows):
    """Rows of histories that are checked."""

    def made(options):
        for row in rows(options.large):
            yield measure(*row, options.seconds)

    return made


def solved(options):
    for size in (10_000, 100_000, 1_000_000) if options.large else (10_000, 100_000):
        yield from measure_solve(size)


GROUPS = {
    "file": lambda options: measure_file(1_000_000) if options.large else (),
    "zones": solved,
    "first": lambda _options: measure_first_use(),
    "unique": checks(unique_rows),
    "cas": checks(cas_rows),
    "other": checks(other_rows),
}


if __name__ == "__main__":
    sys.exit(main())
