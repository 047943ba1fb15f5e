"""Registers with values written once: the zones against the oracle, plain and compiled."""

import random
import time
from collections import Counter

import msgspec
import pytest

from checkers import (
    History,
    Op,
    Operation,
    check_linearizable,
    encode_op,
    fast,
    formats,
    linear,
    model_by_name,
    parse_history,
    zones,
)
from checkers.columns import KeyParts, register_columns
from checkers.linear import groups_of
from checkers.models import uses_mismatch
from checkers.oracle import is_linearizable
from checkers.registers import PLAIN, OrderError, RegisterColumns, columns_of, solve
from checkers.zones import FITS, NOT_UNIQUE, UNPLACED, VIOLATION, check_order

MODELS = [model_by_name("cas-register", 0), model_by_name("etcd-register", 0)]
NEEDS_FAST = pytest.mark.skipif(
    not fast.installed(), reason="numpy and numba are not installed (extra 'fast')"
)


def run_of(rng, *, count, clients, info, refused):
    """Operations of one correct register; every write writes a new value."""
    state, fresh, open_, done, now, made = 0, 10, [], [], 0, 0
    while made < count or open_:
        now += 1
        if made < count and len(open_) < clients and (not open_ or rng.random() < 0.6):
            kind, fresh = rng.random(), fresh + 1
            if kind < 0.45:
                f, argument = "read", None
            elif kind < 0.7:
                f, argument = "write", fresh
            else:
                old = state if rng.random() < 0.5 else rng.choice([0, *range(11, fresh)])
                f, argument = "cas", (old, fresh)
            open_.append(Operation(made, f, None, argument, None, "info", now, None, now))
            made += 1
            continue
        at = rng.randrange(len(open_))
        one = open_[at]
        lost = rng.random() < info
        if one.status == "info" and (not lost or rng.random() < 0.5):
            if one.f == "read":
                one = msgspec.structs.replace(one, status="ok", result=state)
            elif one.f == "cas" and state != one.argument[0]:
                one = msgspec.structs.replace(one, status="mismatch")
            else:
                state = one.argument if one.f == "write" else one.argument[1]
                one = msgspec.structs.replace(one, status="ok", result=one.argument)
            open_[at] = one
            if rng.random() < 0.5:
                continue
        if lost:
            one = msgspec.structs.replace(one, status="info", result=None)
        elif one.status == "info":
            continue
        else:
            one = msgspec.structs.replace(one, ret=now, complete_index=now)
        open_.pop(at)
        if one.status != "mismatch" or refused:
            done.append(one)
    return sorted(done, key=lambda one: one.call)


def broken(rng, history):
    """One read or one expectation exchanged for another value of the history."""
    if not history:
        return history
    at = rng.randrange(len(history))
    one, value = history[at], rng.choice([0, *range(11, 24)])
    if one.f == "read" and one.status == "ok":
        one = msgspec.structs.replace(one, result=value)
    elif one.f == "cas":
        one = msgspec.structs.replace(one, argument=(value, one.argument[1]))
    return [*history[:at], one, *history[at + 1 :]]


def random_case(seed):
    rng = random.Random(f"zones {seed}")
    model = rng.choice(MODELS)
    history = run_of(
        rng,
        count=rng.randint(1, 11),
        clients=rng.randint(1, 6),
        info=rng.choice((0, 0.1, 0.4)),
        refused=uses_mismatch(model),
    )
    return (broken(rng, history) if rng.random() < 0.6 else history), model


def agree(seed, backend, tally):
    history, model = random_case(seed)
    other, _ = random_case(seed + 1)
    parts = {"x": history, "y": other}
    groups = {
        key: [
            msgspec.structs.replace(one, key=key)
            for one in part
            if one.status != "mismatch" or uses_mismatch(model)
        ]
        for key, part in parts.items()
    }
    columns = columns_of(groups, model)
    if backend is not PLAIN:
        columns = arrays(columns, backend)
    solution = solve(columns, backend)
    for key, status in zip("xy", solution.status, strict=True):
        expected = is_linearizable(groups[key], model)
        tally[int(status), expected] += 1
        assert status != FITS or expected, f"zones say yes to seed {seed}, key {key}"
        assert status != VIOLATION or not expected, f"zones say no to seed {seed}, key {key}"
        assert status != NOT_UNIQUE, "these histories write every value once"


def arrays(columns, backend):
    names = ("f", "a", "b", "call", "ret", "key", "value_key", "initial_value")
    return RegisterColumns(
        **{name: backend.copy(getattr(columns, name)) for name in names}, keys=columns.keys, origin=None
    )


def test_zones_agree_with_the_oracle():
    """What they say is right, and they seldom say nothing."""
    tally = Counter()
    for seed in range(6_000):
        agree(seed, PLAIN, tally)
    assert tally[FITS, True] > 4_000
    assert tally[VIOLATION, False] > 1_000
    assert tally[UNPLACED, True] + tally[UNPLACED, False] < 500


@NEEDS_FAST
def test_compiled_zones_agree_with_the_oracle():
    """The same kernels, compiled, on arrays."""
    tally = Counter()
    backend = fast.Compiled()
    for seed in range(6_000, 8_000):
        agree(seed, backend, tally)
    assert tally[FITS, True] > 1_000
    assert tally[VIOLATION, False] > 300


@pytest.mark.slow
def test_zones_agree_with_the_oracle_at_length():
    """An order of magnitude more often."""
    tally = Counter()
    for seed in range(10_000, 70_000):
        agree(seed, PLAIN, tally)


def test_values_written_twice_are_left_to_the_search():
    """Also a write of the initial value."""
    for value, again in ((1, 1), (0, 5)):
        writes = [
            Operation(0, "write", None, v, None, "ok", 2 * n, 2 * n + 1, n)
            for n, v in enumerate((value, again))
        ]
        assert solve(columns_of({None: writes}, MODELS[0])).status == [NOT_UNIQUE]


@pytest.mark.parametrize(
    ("rows", "fits"),
    [
        # Two cas from one value; a circle of cas; a cas from what nobody wrote; a stale read; a lost write.
        ([("cas", (0, 1), 0, 1), ("cas", (0, 2), 2, 3)], False),
        ([("cas", (1, 2), 0, 5), ("cas", (2, 1), 1, 4)], False),
        ([("cas", (7, 2), 0, 5)], False),
        ([("write", 1, 0, 1), ("write", 2, 2, 3), ("read", 1, 4, 5)], False),
        ([("write", 1, 0, 1), ("read", 0, 2, 3)], False),
        # Two forward zones that overlap, by which both writes are seen alternately.
        (
            [
                ("write", 1, 0, 20),
                ("write", 2, 1, 21),
                ("read", 1, 2, 3),
                ("read", 2, 4, 5),
                ("read", 1, 6, 7),
            ],
            False,
        ),
        ([("write", 1, 0, 20), ("write", 2, 1, 21), ("read", 1, 2, 3), ("read", 2, 4, 5)], True),
        ([("cas", (0, 1), 0, 1), ("cas", (1, 2), 2, 3), ("read", 2, 4, 5)], True),
    ],
)
def test_each_kind_of_violation(rows, fits):
    """Each has a history that it catches, and its neighbour that is fine."""
    history = [
        Operation(n, f, None, None if f == "read" else v, v, "ok", call, ret, n)
        for n, (f, v, call, ret) in enumerate(rows)
    ]
    history.sort(key=lambda one: one.call)
    assert is_linearizable(history, MODELS[0]) is fits
    assert solve(columns_of({None: history}, MODELS[0])).status == [FITS if fits else VIOLATION]


def test_an_order_that_does_not_hold_is_refused():
    """The verification catches a wrong order, one twice, one missing."""
    columns = ([1, 0], [5, 5], [-1, -1], [0, 2], [1, 3], [0, 0], [FITS])
    for order, holds in (([0, 1], True), ([1, 0], False), ([0], False), ([0, 0, 1], False)):
        assert (check_order(order, *columns, [9], [-1], [0, 0]) == 0) is holds


def test_a_wrong_kernel_is_noticed(monkeypatch):
    """An order laid out wrongly is a fault of the checker, and so an unknown verdict."""

    def lay_out_nothing(*_arguments):
        return 0

    monkeypatch.setattr(zones, "lay_out", lay_out_nothing)
    write = [Op(0, 1, 0, "invoke", "write", value=1), Op(1, 2, 0, "ok", "write", value=1)]
    verdict = check_linearizable(write, "register")
    assert verdict.valid == "unknown"
    assert OrderError.__name__ in verdict.cause


# -- from lines to columns


def as_lines(rng, groups):
    """The operations of several keys as lines of a history, with notes, failures and ties in time."""
    events = []
    for key, history in groups.items():
        for one in history:
            process = one.invoke_index * 10 + ord(key)
            argument = list(one.argument) if isinstance(one.argument, tuple) else one.argument
            events.append((one.call, 0, process, "invoke", one.f, key, argument, None))
            if one.ret is not None:
                kind = {"ok": "ok", "mismatch": "fail"}[one.status]
                value = one.result if one.f == "read" else argument
                events.append(
                    (one.ret, 1, process, kind, one.f, key, value, "mismatch" if kind == "fail" else None)
                )
            elif rng.random() < 0.5:
                events.append((100, 1, process, "info", one.f, key, None, "timeout"))
    events.sort(key=lambda event: (event[0], rng.random() if event[0] == 100 else event[1]))
    lines = [Op(0, 1, "nemesis", "info", "start")]
    for now, _, process, kind, f, key, value, error in events:
        hidden = None if kind != "invoke" and rng.random() < 0.3 else key
        lines.append(
            Op(len(lines), now // rng.choice((1, 1, 2)) * 2 + 1, process, kind, f, hidden, value, error)
        )
    times = 0
    for n, op in enumerate(lines):
        times = max(times, op.time_ns)
        lines[n] = msgspec.structs.replace(op, time_ns=times)
    return lines


@NEEDS_FAST
def test_columns_of_lines_are_those_of_operations():
    """Reading straight into arrays gives what pairing to operations gives."""
    for seed in range(300):
        rng = random.Random(seed)
        first, model = random_case(seed)
        second, _ = random_case(seed + 1)
        history = History.of(as_lines(rng, {"x": first, "y": second}))
        groups = groups_of(history, model)
        expected = columns_of(groups, model)
        columns = register_columns(history, model)
        solved = dict(zip(columns.keys, solve(columns, fast.Compiled()).status, strict=True))
        plain = dict(zip(expected.keys, solve(expected).status, strict=True))
        for key, status in plain.items():
            if key not in solved:
                assert {(o.f, o.status) for o in groups[key]} == {("read", "info")}
                continue
            assert solved[key] == status, f"seed {seed}, key {key}"
            part = groups_of(KeyParts(history, columns).part(key), model).get(key, [])
            whole = [o.invoke_index for o in groups[key] if o.status != "info" or o.f != "read"]
            assert [o.invoke_index for o in part] == whole


@NEEDS_FAST
@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("algorithm", ["auto", "search"])
def test_a_key_that_no_operation_has_is_none(monkeypatch, scanned, algorithm):
    """Completions may leave their key out, and all operations of a key may have failed."""
    for name in dir(linear):
        if name.startswith("_COLUMNS_"):
            monkeypatch.setattr(linear, name, 1)
    for name in ("_SCAN_BYTES_COLD", "_SCAN_BYTES_WARM", "_SCAN_BYTES_LOADED"):
        monkeypatch.setattr(formats, name, 1 if scanned else 1 << 40)
    rows = [
        ("invoke", "write", "y", 1), ("fail", "write", "y", 1), ("invoke", "write", "x", 1), ("ok", "write", None, 1),
        ("invoke", "write", "x", 1), ("ok", "write", None, 1), ("invoke", "write", "z", 1), ("ok", "write", None, 1),
    ]  # fmt: skip
    lines = [Op(n, n + 1, 0, kind, f, key, value) for n, (kind, f, key, value) in enumerate(rows)]
    history = parse_history(b"".join(map(encode_op, lines)))
    verdict = check_linearizable(history, "cas-register", algorithm=algorithm)
    assert (verdict.valid, verdict.keys, verdict.operations) == ("valid", 2, 3), verdict.cause
    assert register_columns(history, model_by_name("cas-register")).keys == ["x", "z"]
    nothing = parse_history(b"".join(map(encode_op, lines[:2])))
    assert check_linearizable(nothing, "cas-register", algorithm=algorithm).valid == "valid"


@NEEDS_FAST
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [*lines, msgspec.structs.replace(lines[-1], index=99)],
        lambda lines: [lines[0], lines[0], *lines[1:]],
        lambda lines: [lines[0], msgspec.structs.replace(lines[1], f="cas"), *lines[2:]],
        lambda lines: [lines[0], msgspec.structs.replace(lines[1], key="z"), *lines[2:]],
        lambda lines: [msgspec.structs.replace(lines[0], time_ns=50), *lines[1:]],
        lambda lines: [msgspec.structs.replace(lines[0], f="fly"), *lines[1:]],
    ],
)
def test_columns_leave_the_unusual_to_the_slow_way(change):
    """Which says what is wrong."""
    lines = [Op(n, n + 1, n // 2, ("invoke", "ok")[n % 2], "write", "k", n // 2) for n in range(6)]
    assert register_columns(History.of(lines), MODELS[0]) is not None
    assert register_columns(History.of(change(lines)), MODELS[0]) is None


@NEEDS_FAST
@pytest.mark.slow
def test_a_long_history_end_to_end():
    """Two hundred thousand lines of two keys: valid, and with one stale read invalid with a short story."""
    lines = []
    for n in range(50_000):
        key = "xy"[n % 2]
        lines += [
            Op(4 * n, 8 * n + 1, n % 7, "invoke", "write", key, n),
            Op(4 * n + 1, 8 * n + 3, n % 7, "ok", "write", key, n),
            Op(4 * n + 2, 8 * n + 5, n % 5, "invoke", "read", key),
            Op(4 * n + 3, 8 * n + 7, n % 5, "ok", "read", key, n),
        ]
    data = b"".join(map(encode_op, lines))
    fast.warm_up()  # what compiling takes is no fault of the history
    began_s = time.process_time()
    verdict = check_linearizable(parse_history(data), "etcd-register")
    assert (verdict.valid, verdict.algorithm, verdict.operations, verdict.keys) == (
        "valid",
        "zones",
        100_000,
        2,
    )
    lines[150_003] = msgspec.structs.replace(lines[150_003], value=37_498)
    verdict = check_linearizable(lines, "etcd-register")
    assert (verdict.valid, verdict.failing_keys) == ("invalid", ('"x"',))
    assert any("[150002..150003]" in line for line in verdict.evidence)
    assert time.process_time() - began_s < 60


@NEEDS_FAST
@pytest.mark.slow
def test_many_keys_with_values_written_twice(monkeypatch):
    """Each goes to the search on its own, without reading the whole history again for each."""
    for name in ("_COLUMNS_LINES_COLD", "_COLUMNS_LINES_WARM", "_COLUMNS_LINES_LOADED"):
        monkeypatch.setattr(linear, name, 1_000)
    lines = []
    for n in range(5_000):
        key = n % 1_000
        for f, value in (("write", n % 3), ("read", n % 3)):
            lines.append(Op(len(lines), len(lines) + 1, 0, "invoke", f, key, value if f == "write" else None))
            lines.append(Op(len(lines), len(lines) + 1, 0, "ok", f, key, value))
    fast.warm_up()
    began_s = time.process_time()
    verdict = check_linearizable(lines, "etcd-register")
    assert (verdict.valid, verdict.keys) == ("valid", 1_000)
    assert time.process_time() - began_s < 30


@NEEDS_FAST
@pytest.mark.slow
def test_warming_up_runs_everything():
    """So that nothing is left to compile."""
    assert fast.warm_up()
