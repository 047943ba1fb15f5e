"""Random small histories of every model: the checker against brute force and against the networkx oracle.

    python benchmarks/linearizability_fuzz.py                         20,000 histories from seed 0
    python benchmarks/linearizability_fuzz.py --histories 1000000     the whole (some tens of minutes)
    python benchmarks/linearizability_fuzz.py --seed 7 --histories 1  one again

Histories have lost and refused operations, several keys, equal times, and in half of them an answer is changed. The
networkx oracle, which is ten times slower, sees one in ten; the compiled searches, where they are installed, see one
in five. The exit code is 1 at the first disagreement, which is printed with its seed.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time

from checkers import (
    History,
    Inconsistent,
    Op,
    check_linearizable,
    encode_op,
    fast,
    graph_oracle,
    model_by_name,
    oracle,
)
from checkers.history import Operation
from checkers.problem import compile_problem
from checkers.search import Meter
from checkers.values import freeze

VALUES = (0, 1, 2)
NUMBERS = (1, 2)


def _pair(rng):
    return [rng.choice(VALUES), rng.choice(VALUES)]


def _value(rng):
    return rng.choice(VALUES)


def _fresh(rng):
    """Mostly new, so that the algorithms for values put in once get their share."""
    return rng.choice(VALUES) if rng.random() < 0.1 else rng.randrange(3, 60)


def _nothing(_rng):
    return None


def _number(rng):
    return rng.choice(NUMBERS)


def _text(rng):
    return rng.choice("ab")


_REGISTER = {"read": _nothing, "write": _value, "cas": _pair}
#: What clients ask of each model.
OPERATIONS = {
    "register": {"read": _nothing, "write": _fresh},
    "cas-register": _REGISTER,
    "etcd-register": _REGISTER,
    "kv": {**_REGISTER, "delete": _nothing},
    "string-kv": {"get": _nothing, "put": _text, "append": _text},
    "counter": {"read": _nothing, "add": _number, "subtract": _number},
    "set": {"read": _nothing, "add": _fresh},
    "append-list": {"read": _nothing, "append": _text},
    "fifo-queue": {"enqueue": _fresh, "dequeue": _nothing},
    "priority-queue": {"enqueue": _fresh, "dequeue": _nothing},
    "unordered-queue": {"enqueue": _fresh, "dequeue": _nothing},
    "stack": {"push": _fresh, "pop": _nothing},
    "mutex": {"acquire": _nothing, "release": _nothing},
    "semaphore": {"acquire": _number, "release": _number},
}
_ASKING = {"read", "get", "dequeue", "pop"}


def answers(state, seen):
    """What a question might be answered: what is in the state, and what was asked to be put there."""
    found = [None, *seen]
    if isinstance(state, frozenset | tuple):
        found += [sorted(state, key=repr), *state]
        found += [list(bag) for bag in state if isinstance(bag, tuple)]
        found += [value for bag in state if isinstance(bag, tuple) for value in bag]
    return [state, *found] if isinstance(state, int | str | None) else found


def random_history(rng, name):
    """Lines of clients of one correct object for each key; perhaps an answer is changed."""
    model, table = model_by_name(name), OPERATIONS[name]
    keys = ("x", "y") if rng.random() < 0.3 else (None,)
    states, seen = dict.fromkeys(keys, model.initial()), []
    lines, open_, process, time_ns, left = [], {}, 0, 1, rng.randint(2, 9)
    while left or open_:
        time_ns += rng.randrange(3)
        if left and len(open_) < 4 and (not open_ or rng.random() < 0.55):
            f, key = rng.choice(sorted(table)), rng.choice(keys)
            value = table[f](rng)
            if value is not None:
                seen.append(value)
            open_[process] = [f, key, value, None]
            lines.append(Op(len(lines), time_ns, process, "invoke", f, key, value))
            process, left = process + 1, left - 1
            continue
        who = rng.choice(sorted(open_))
        f, key, value, outcome = open_[who]
        if outcome is None:
            outcome = open_[who][3] = happen(rng, model, states, (f, key, value), seen)
            if rng.random() < 0.5:
                continue
        del open_[who]
        if outcome[0] != "never":
            lines.append(Op(len(lines), time_ns, who, outcome[0], f, key, *outcome[1:]))
    asked = [n for n, op in enumerate(lines) if op.type == "ok" and op.f in _ASKING]
    if asked and rng.random() < 0.5:
        n = rng.choice(asked)
        op, other = lines[n], rng.choice(asked)
        value = lines[other].value if rng.random() < 0.5 else rng.choice(answers(states[op.key], seen))
        lines[n] = Op(op.index, op.time_ns, op.process, "ok", op.f, op.key, value)
    return History.of(lines)


def happen(rng, model, states, asked, seen):
    """Applies an operation: (how it ends, value, error)."""
    f, key, value = asked
    lost = rng.random() < 0.15
    if lost and rng.random() < 0.5:
        return ("info", None, "timeout") if rng.random() < 0.7 else ("never",)
    found = answers(states[key], seen) if f in _ASKING else [value]
    rng.shuffle(found)
    for result in found:
        operation = Operation(0, f, key, freeze(value), freeze(result), "ok", 0, 1, 0)
        after = model.step(states[key], operation)
        if not isinstance(after, Inconsistent):
            states[key] = after
            return ("info", None, "timeout") if lost else ("ok", result)
    return ("fail", value, "mismatch" if f == "cas" else "refused")


def compiled(history, model):
    """What the compiled searches say of a history of one key; None where they do not apply."""
    from checkers.compiled_search import CompiledSearcher, TooLarge

    operations = [
        o for o in history.operations if o.status != "mismatch" or getattr(model, "uses_mismatch", False)
    ]
    if len({operation.key for operation in operations}) != 1:
        return None
    try:
        searcher = CompiledSearcher(compile_problem(operations, model))
    except TooLarge:
        return None
    meter = Meter(10**6, 1 << 28, time.monotonic() + 1000)
    deep, levelwise = (searcher.run(order, meter, 10**5).valid for order in ("dfs", "bfs"))
    return deep if deep is levelwise else "two answers"


def disagreement(seed, with_compiled):
    """(model, what was found) where all agree; with the disagreement as a third where they do not."""
    rng = random.Random(f"fuzz {seed}")
    name = rng.choice(sorted(OPERATIONS))
    history, model = random_history(rng, name), model_by_name(name)
    verdict = check_linearizable(history, model, explain=seed % 100 == 0)
    wanted = oracle.is_linearizable(history.operations, model)
    said = {"checker": {"valid": True, "invalid": False}.get(verdict.valid), "brute force": wanted}
    if seed % 10 == 0:
        said["networkx"] = graph_oracle.is_linearizable(history.operations, model)
    if seed % 5 == 0 and with_compiled:
        found = compiled(history, model)
        said |= {} if found is None else {"compiled": found}
    if len(set(said.values())) == 1:
        return name, verdict, None
    return name, verdict, f"{said}\n" + b"".join(map(encode_op, history.lines)).decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    options = parser.parse_args()
    with_compiled = fast.installed()
    counts = collections.Counter()
    began = time.perf_counter()
    for seed in range(options.seed, options.seed + options.histories):
        name, verdict, wrong = disagreement(seed, with_compiled)
        if wrong is not None:
            print(f"seed {seed}, model {name}: {wrong}")
            return 1
        counts[name, verdict.valid] += 1
        if (seed + 1) % 100_000 == 0:
            print(f"{seed + 1} histories, {time.perf_counter() - began:.0f} s", flush=True)
    for (name, valid), count in sorted(counts.items()):
        print(f"{name:16} {valid:8} {count:8}")
    print(f"{options.histories} histories, no disagreement, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
