"""Registers checked while they are recorded: the same answers as of the stored history, in bounded memory."""

import random
import sys
import types
from pathlib import Path

import pytest

from checkers import History, Op, check_linearizable, model_by_name, online


def random_lines(rng, count, clients):
    """A register with values written once, lost and failed writes, equal times; perhaps a stale or odd read."""
    state, old, lines, open_, process, time_ns, fresh = 0, [0], [], {}, 0, 1, 0
    while count or open_:
        time_ns += rng.randrange(3)
        if count and len(open_) < clients and (not open_ or rng.random() < 0.5):
            fresh += 1
            f, value = rng.choice((("read", None), ("write", fresh)))
            open_[process] = [f, value, None]
            lines.append(Op(len(lines), time_ns, process, "invoke", f, "x", value))
            process, count = process + 1, count - 1
            continue
        who = rng.choice(sorted(open_))
        f, value, happened = open_[who]
        kind = "ok" if f == "read" or rng.random() < 0.9 else rng.choice(("info", "fail"))
        if happened is None and kind != "fail" and (kind == "ok" or rng.random() < 0.5):
            if f == "write":
                state = value
                old.append(value)
            happened = open_[who][2] = (state,)
            if rng.random() < 0.5:
                continue
        elif happened is not None and kind == "fail" and rng.random() < 0.8:
            kind = "ok"
        del open_[who]
        result = value
        if f == "read":
            result = rng.choice(old[-4:]) if rng.random() < 0.06 else happened[0]
        lines.append(Op(len(lines), time_ns, who, kind, f, "x", result if kind == "ok" else value))
    return lines


#: A write that is read, and then said to have failed.
FAILED = [
    Op(0, 1, 0, "invoke", "write", "x", 1),
    Op(1, 2, 1, "invoke", "read", "x"),
    Op(2, 3, 1, "ok", "read", "x", 1),
    Op(3, 4, 0, "fail", "write", "x", 1),
]


def histories_of(count):
    yield FAILED
    for seed in range(count):
        rng = random.Random(f"online {seed}")
        yield random_lines(rng, rng.choice((4, 8, 30)), rng.randint(1, 5))


def disagreement(module, histories=400):
    seen = set()
    for seed, lines in enumerate(histories_of(histories)):
        check = module.Online(initial=0)
        for op in lines:
            check.add(op)
        wanted = check_linearizable(History.of(lines), model_by_name("register", 0), explain=False).valid
        if check.verdict().valid != wanted:
            return seed, seen
        seen.add(wanted)
    return None, seen


def test_it_agrees_with_the_check_of_what_was_stored():
    """On valid and invalid histories."""
    assert disagreement(online) == (None, {"valid", "invalid"})


@pytest.mark.parametrize(
    ("text", "replacement"),
    [
        ("clash = other.first_ret < block.last_call and", "clash = False and"),
        ("if block.last_call < earliest and block.first_ret < closer.last_call:", "if True:"),
        ("if block is not None and block.first_ret < NEVER:", "if False:"),
        ("if block.first_ret < earliest]", "]"),
        ("call, moment + 1", "call, moment - 1"),
    ],
)  # fmt: skip
def test_mutants_are_caught(text, replacement):
    """Each rule that is broken on purpose is noticed."""
    source = Path(online.__file__).read_text()
    assert source.count(text) == 1
    made = types.ModuleType("checkers.online_mutant")
    sys.modules[made.__name__] = made
    exec(compile(source.replace(text, replacement), made.__name__, "exec"), made.__dict__)
    assert disagreement(made)[0] is not None


def test_memory_does_not_grow():
    """Twenty thousand operations on one key: never more values held than some clients can still read."""
    check, most = online.Online(), 0
    for n in range(20_000):
        process, time_ns = n % 5, 10 * n + 1
        check.add(Op(2 * n, time_ns, process, "invoke", "write", None, n))
        check.add(Op(2 * n + 1, time_ns + 5, process, "ok", "write", None, n))
        most = max(most, check.held)
    assert check.verdict().valid == "valid"
    assert most <= 4


def test_what_does_not_fit_is_unknown():
    """Other operations, and what is no history."""
    for lines in (
        [Op(0, 1, 0, "invoke", "cas", None, [1, 2])],
        [Op(0, 1, 0, "ok", "read", None, 1)],
        [Op(0, 1, 0, "invoke", "write", None, 1), Op(1, 2, 1, "invoke", "write", None, 1)],
    ):
        check = online.Online()
        for op in lines:
            check.add(op)
        assert check.verdict().valid == "unknown"
        assert check.verdict().cause
