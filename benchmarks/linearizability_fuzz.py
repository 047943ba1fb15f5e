"""Random small histories of every model: the checker against brute force and against the networkx oracle.

    python benchmarks/linearizability_fuzz.py                         20,000 histories from seed 0
    python benchmarks/linearizability_fuzz.py --histories 1000000 --tally FILE    the whole, or what is left of it
    python benchmarks/linearizability_fuzz.py --seed 7 --histories 1  one again

Histories have lost and refused operations, several keys, equal times, and in half of them an answer is changed. The
networkx oracle, which is ten times slower, sees one in ten; the compiled searches, where they are installed, see one
in twenty. With ``--tally`` a run goes on where the last one stopped, and counts what was tried on the same code. The
exit code is 1 at the first disagreement, which is printed with its seed.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import random
import sys
import time
from pathlib import Path

import msgspec

import checkers
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
    revision_models,
)
from checkers.history import Operation
from checkers.problem import compile_problem
from checkers.search import Meter
from checkers.values import freeze

VALUES = (0, 1, 2)
#: Larger tables of states take longer than all the rest.
CELLS_MAX = 500
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


def _steps(rng):
    """A transaction of multi-register."""
    return [
        ["write", rng.choice("xy"), rng.choice(VALUES)]
        if rng.random() < 0.5
        else ["read", rng.choice("xy"), None]
        for _ in range(rng.randint(1, 3))
    ]


def txn(rng):
    """A transaction of etcd's shape."""

    def command(depth):
        kind = rng.choice(("get", "put", "delete", "txn" if depth else "get"))
        if kind == "txn":
            return ["txn", body(0)]
        return [kind, rng.choice("xy"), *([rng.randint(1, 3)] if kind == "put" else [])]

    def body(depth):
        target = rng.choice(("value", "create", "mod", "version"))
        compare = [rng.choice("xy"), target, "=" if target == "value" else rng.choice("=<>"), 1]
        return {"compare": [compare], "then": [command(depth) for _ in range(2)], "else": [command(depth)]}

    return body(1)


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
    "multi-register": {"txn": _steps},
    "revision-register": {**_REGISTER, "delete": _nothing},
    "revision-kv": {"get": _nothing, "put": _value, "delete": _nothing, "cas": _pair, "txn": txn},
}
_ASKING = {"read", "get", "dequeue", "pop", "txn"}
#: Models whose keys are one object.
_WHOLE = {"multi-register", "revision-kv"}


def answers(state, seen):
    """What a question might be answered: what is in the state, and what was asked to be put there."""
    found = [None, *seen]
    if isinstance(state, frozenset | tuple):
        found += [sorted(state, key=repr), *state]
        found += [list(bag) for bag in state if isinstance(bag, tuple)]
        found += [value for bag in state if isinstance(bag, tuple) for value in bag]
    return [state, *found] if isinstance(state, int | str | None) else found


class Clients:
    """Clients of one correct object for each key, or of one store; what they are told becomes a history."""

    def __init__(self, rng, name):
        self.rng, self.name = rng, name
        initial = {"x": 0, "y": 1} if name == "multi-register" and rng.random() < 0.5 else None
        self.model, self.table = model_by_name(name, initial), OPERATIONS[name]
        self.keys = ("x", "y") if name == "revision-kv" or rng.random() < 0.3 else (None,)
        self.keys = (None,) if name == "multi-register" else self.keys
        self.states = dict.fromkeys((None,) if name in _WHOLE else self.keys, self.model.initial())
        self.seen, self.asked = [], []

    def lines(self):
        """What happens; mostly little, since little histories are the ones that can be tried by the million."""
        rng, lines, open_, process, time_ns = self.rng, [], {}, 0, 1
        left = rng.randint(2, 9) if rng.random() < 0.4 else rng.randint(2, 5)
        while left or open_:
            time_ns += rng.randrange(3)
            if left and len(open_) < 4 and (not open_ or rng.random() < 0.55):
                f, key = rng.choice(sorted(self.table)), rng.choice(self.keys)
                value, key = self.table[f](rng), None if f == "txn" else key
                if value is not None:
                    self.seen.append(value)
                open_[process] = [f, key, value, None]
                self.asked.append(value)
                lines.append(Op(len(lines), time_ns, process, "invoke", f, key, value))
                process, left = process + 1, left - 1
                continue
            who = rng.choice(sorted(open_))
            f, key, value, outcome = open_[who]
            if outcome is None:
                outcome = open_[who][3] = self.happen(f, key, value)
                if rng.random() < 0.5:
                    continue
            del open_[who]
            if outcome[0] != "never":
                kind, result, error, revision = (*outcome, None, None, None)[:4]
                lines.append(
                    Op(len(lines), time_ns, who, kind, f, key, result, error=error, revision=revision)
                )
        return lines

    def happen(self, f, key, value):
        """Applies an operation: how it ends, value, error, revision."""
        rng, state_key = self.rng, None if self.name in _WHOLE else key
        lost = rng.random() < 0.15
        if lost and rng.random() < 0.5:
            return ("info", None, "timeout") if rng.random() < 0.7 else ("never",)
        numbered = self.name.startswith("revision-")
        taken = (self.numbered if numbered else self.plain)(self.states[state_key], f, key, value)
        self.states[state_key], result, revision, happened = taken
        if lost:
            return ("info", None, "timeout")
        if not happened:
            return ("fail", value, "mismatch" if f == "cas" else "refused", revision)
        return ("ok", result, None, revision)

    def plain(self, state, f, key, value):
        """(state after, result, None, whether it happened)."""
        found = [self.steps(state, value)] if f == "txn" else [value]
        if f in _ASKING and f != "txn":
            found = answers(state, self.seen)
            self.rng.shuffle(found)
        for result in found:
            operation = Operation(0, f, key, freeze(value), freeze(result), "ok", 0, 1, 0)
            after = self.model.step(state, operation)
            if not isinstance(after, Inconsistent):
                return after, result, None, True
        return state, None, None, False

    def steps(self, state, steps):
        """The steps of a transaction of multi-register, with what its reads see; now and then one says nothing."""
        held, done = dict(state), []
        for what, key, value in steps:
            if what == "write":
                held[key] = value
            elif self.rng.random() < 0.1:
                done.append([what, key, None])
                continue
            done.append([what, key, held.setdefault(key, self.rng.choice(VALUES))])
        return done

    def numbered(self, state, f, key, value):
        """The same of a store that numbers its changes; now and then it does not tell the number."""
        rng, register = self.rng, self.name == "revision-register"
        held = state if register else dict(state[1]).get(key, (None, 0, 0))[::2]
        result, revision, happened, after = value, held[1], True, state
        if f in {"read", "get"}:
            result = held[0]
        else:
            if f == "txn":
                store = revision_models._Store(*state)
                result = revision_models._run(store, revision_models._decide(store, freeze(value)))
            after = self.model.step(state, Operation(0, f, key, freeze(value), None, "info", 0, None, 0))
            if isinstance(after, Inconsistent):
                after, happened = state, False
            elif register:  # what deleted nothing made no change
                revision = state[1] + rng.choice((1, 1, 3)) if after != state else None
                after = (after[0], revision or state[1], 0)
            elif not register and (after != state or f == "txn"):
                revision = after[0]
        return after, result, revision if rng.random() < 0.9 else None, happened


def random_history(rng, name):
    """Lines of clients; perhaps an answer is changed. And the model."""
    clients = Clients(rng, name)
    lines = clients.lines()
    answered = [n for n, op in enumerate(lines) if op.type == "ok" and (op.f in _ASKING or op.revision)]
    asked = answered + [n for n, op in enumerate(lines) if op.error or (op.type, op.f) == ("ok", "cas")]
    if asked and rng.random() < 0.6:
        n = rng.choice(asked)
        lines[n] = changed(clients, lines[n], lines[rng.choice(asked)])
    return History.of(lines), clients.model


def changed(clients, op, other):
    """The line with another answer."""
    rng, value = clients.rng, other.value
    if op.error:  # what nobody knew, or was refused
        return msgspec.structs.replace(op, type="ok", value=clients.asked[op.process], error=None)
    if op.f == "cas" and rng.random() < 0.7:
        return msgspec.structs.replace(op, type="fail", error="mismatch")
    if op.revision and rng.random() < 0.6:
        told = other.revision if rng.random() < 0.3 else max(0, op.revision + rng.choice((-1, 1)))
        return msgspec.structs.replace(op, revision=told)
    if clients.name == "multi-register":
        steps = [list(step) for step in op.value]
        reads = [step for step in steps if step[0] == "read"]
        if reads:
            rng.choice(reads)[2] = rng.choice(VALUES)
        return msgspec.structs.replace(op, value=steps)
    if op.f not in _ASKING:
        return op
    if clients.name not in _WHOLE and rng.random() < 0.5:
        value = rng.choice(answers(clients.states[op.key], clients.seen))
    if clients.name == "revision-register" and isinstance(value, tuple | list):
        value = rng.choice(VALUES)
    return msgspec.structs.replace(op, value=value)


def compiled(history, model):
    """What the compiled searches say of a history of one key; None where they do not apply."""
    from checkers.compiled_search import CompiledSearcher, TooLarge, explore

    operations = [
        o for o in history.operations if o.status != "mismatch" or getattr(model, "uses_mismatch", False)
    ]
    if len({operation.key for operation in operations}) != 1:
        return None
    problem = compile_problem(operations, model)
    if not problem.forms and explore(problem, CELLS_MAX) is None:
        return None
    try:
        searcher = CompiledSearcher(problem)
    except TooLarge:
        return None
    meter = Meter(10**6, 1 << 28, time.monotonic() + 1000)
    deep, levelwise = (searcher.run(order, meter, 10**5).valid for order in ("dfs", "bfs"))
    return deep if deep is levelwise else "two answers"


def disagreement(seed, with_compiled):
    """(model, what was found) where all agree; with the disagreement as a third where they do not."""
    rng = random.Random(f"fuzz {seed}")
    name = rng.choice(sorted(OPERATIONS))
    history, model = random_history(rng, name)
    verdict = check_linearizable(history, model, explain=seed % 100 == 0)
    wanted = oracle.is_linearizable(history.operations, model)
    said = {"checker": {"valid": True, "invalid": False}.get(verdict.valid), "brute force": wanted}
    if seed % 10 == 0:
        said["networkx"] = graph_oracle.is_linearizable(history.operations, model)
    if seed % 20 == 0 and with_compiled:
        found = compiled(history, model)
        said |= {} if found is None else {"compiled": found}
    if len(set(said.values())) == 1:
        return name, verdict, None
    return name, verdict, f"{said}\n" + b"".join(map(encode_op, history.lines)).decode()


def code():
    """A digest of what is tried: all checkers, and this file."""
    digest = hashlib.sha256()
    for path in (*sorted(Path(checkers.__file__).parent.glob("*.py")), Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Tally:
    """How many histories of which model were found what, kept in a file between runs of the same code."""

    def __init__(self, path, seed):
        self.path, self.code = path, code()
        self.next_seed, self.counts, self.seconds = seed, collections.Counter(), 0.0
        if path is not None and path.exists():
            kept = json.loads(path.read_text())
            self.next_seed = kept["next_seed"]
            if kept["code"] == self.code:
                self.counts = collections.Counter({tuple(row[:2]): row[2] for row in kept["counts"]})
                self.seconds = kept["seconds"]

    def keep(self):
        """Writes the file."""
        if self.path is not None:
            rows = [[*one, count] for one, count in sorted(self.counts.items())]
            kept = {"code": self.code, "next_seed": self.next_seed, "seconds": self.seconds, "counts": rows}
            self.path.write_text(json.dumps(kept))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--histories", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first history")
    parser.add_argument("--tally", type=Path, help="file to go on from, and to keep the counts in")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    options = parser.parse_args()
    with_compiled = fast.installed()
    tally = Tally(options.tally, options.seed)
    began = last = time.perf_counter()
    for _ in range(options.histories):
        seed = tally.next_seed
        name, verdict, wrong = disagreement(seed, with_compiled)
        if wrong is not None:
            print(f"seed {seed}, model {name}: {wrong}")
            return 1
        tally.counts[name, verdict.valid] += 1
        tally.next_seed += 1
        if tally.next_seed % 1_000 == 0:
            now = time.perf_counter()
            tally.seconds += now - last
            last = now
            tally.keep()
            if now - began > options.seconds:
                break
    tally.seconds += time.perf_counter() - last
    tally.keep()
    for (name, valid), count in sorted(tally.counts.items()):
        print(f"{name:17} {valid:8} {count:8}")
    print(f"{tally.counts.total()} histories, no disagreement, {tally.seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
