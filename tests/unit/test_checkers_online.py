"""Registers checked while they are recorded: the same answers as of the stored history, in bounded memory."""

import random
import re

import msgspec
import pytest

from checkers import (
    History,
    HistoryError,
    Op,
    check_linearizable,
    default_model,
    encode_header,
    encode_op,
    model_by_name,
    online,
    parse_history,
)
from tests.mutants import mutant


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


def tied_lines(rng, count):
    """The same, but all lines of a moment in any order, as from a clock that is coarse: 8 ticks of it are one."""
    lines = [msgspec.structs.replace(op, time_ns=op.time_ns // 8 + 1) for op in random_lines(rng, count, 3)]
    order = sorted(lines, key=lambda op: (op.time_ns, rng.random()))
    begun = set()  # an invocation stays before its completion
    for op in list(order):
        if op.type == "invoke":
            begun.add(op.process)
        elif op.process not in begun:
            call = next(one for one in order if one.process == op.process and one.type == "invoke")
            order.remove(call)
            order.insert(order.index(op), call)
            begun.add(op.process)
    return order


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
        yield tied_lines(rng, rng.choice((4, 8, 12)))


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
        ("call, ended.moment + 1", "call, ended.moment - 1"),
        (", *(one.call for one in self._ended[1:]))", ")"),
        ("if self._ended and self._ended[0].moment < moment:", "if self._ended:"),
    ],
)  # fmt: skip
def test_mutants_are_caught(text, replacement):
    """Each rule that is broken on purpose is noticed."""
    assert disagreement(mutant(online, text, replacement))[0] is not None


def stored(lines, **header):
    """The lines of a file."""
    return [encode_header(**header), *map(encode_op, lines)] if header else list(map(encode_op, lines))


def rows(*cells):
    """Lines from (time, process, type, f, value)."""
    return [Op(n, *cell[:4], None, *cell[4:]) for n, cell in enumerate(cells)]


TOUCHING = rows(
    (0, 0, "invoke", "write", 1), (5, 0, "ok", "write", 1), (5, 1, "invoke", "read"), (6, 1, "ok", "read", 0)
)  # fmt: skip
NIL = rows(
    (1, 0, "invoke", "write", 1), (2, 0, "ok", "write", 1), (3, 1, "invoke", "read"), (4, 1, "ok", "read")
)


@pytest.mark.parametrize(
    ("lines", "header", "valid"),
    [
        (
            TOUCHING,
            {"model": "register", "initial": 0},
            "valid",
        ),  # the first line is at time 0, and times count
        (
            [msgspec.structs.replace(op, time_ns=0) for op in TOUCHING],
            {"model": "register", "initial": 0},
            "invalid",
        ),
        (NIL, {}, "invalid"),  # null means absent where nothing else is said, and to etcd's register
        (NIL, {"model": "etcd-register"}, "invalid"),
        (NIL, {"model": "register"}, "valid"),
    ],
)
def test_a_stream_is_read_as_its_file(lines, header, valid):
    """Times, the header's model, what null means: the same as of the stored history."""
    data = stored(lines, **header)
    history = parse_history(b"".join(data))
    assert check_linearizable(history, default_model(history)[0]).valid == valid
    verdict = online.check_stream(data, "h.jsonl")
    assert (verdict.valid, verdict.model) == (valid, header.get("model", "etcd-register"))
    bare = [re.sub(rb'"index":\d+,"time_ns":\d+,', b"", line) for line in stored(NIL)]
    assert online.check_stream(bare, "h.jsonl", "register").valid == "valid"
    assert online.check_stream([b"\xef\xbb\xbf" + bare[0], b"\n", *bare[1:]], "h.jsonl").valid == "invalid"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        ([b"  \n"], "is empty"),
        (stored(rows((9, 0, "invoke", "read"), (5, 0, "ok", "read"))), "index 1: time_ns 5 is before 9"),
        ([*stored(NIL[:2]), b'{"process":0,"type":"invoke","f":"read"}\n'], "line 3 has no time_ns"),
        ([*stored(NIL[:2]), b'{"index":2,"time_ns":3,"proc'], "line 3 is cut off .*without --online"),
        (stored(NIL, model="stack"), "not the model stack"),
        (stored(rows((1, "a", "invoke", "read"))), 'such as "a" are notes'),
        ([*stored(NIL[:2]), b"[]\n"], "line 3 .*got `array`"),
    ],
)
def test_what_is_wrong_with_a_stream(lines, message):
    """One sentence, as of the stored history."""
    with pytest.raises(HistoryError, match=f"h.jsonl: .*{message}"):
        online.check_stream(lines, "h.jsonl")


def test_a_stream_without_clients_is_no_pass():
    """Nothing was checked."""
    verdict = online.check_stream(stored(rows((1, "nemesis", "info", "start"))), "h.jsonl")
    assert (verdict.valid, "nothing to check" in verdict.cause) == ("unknown", True)
    many = [Op(n, 0, n // 2, ("invoke", "ok")[n % 2], "write", None, n // 2) for n in range(3_000)]
    assert online.check_stream(stored(many), "h.jsonl").operations == 1_500


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
        [Op(0, 1, 0, "invoke", "read"), Op(1, 2, 0, "ok", "write", None, 1)],
        [Op(0, 1, 0, "invoke", "write", None, 1), Op(1, 2, 1, "invoke", "write", None, 1)],
    ):
        check = online.Online()
        for op in lines:
            check.add(op)
        assert check.verdict().valid == "unknown"
        assert check.verdict().cause
