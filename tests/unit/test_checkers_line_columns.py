"""Histories that are scanned into columns: the same as those that are read line by line, or not scanned at all."""

import os
import random

import pytest

from checkers import (
    History,
    Op,
    check_linearizable,
    encode_header,
    encode_op,
    fast,
    formats,
    linear,
    model_by_name,
)
from checkers.columns import register_columns
from checkers.history import CheckerCall

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not fast.installed(), reason="numpy and numba are not installed (extra 'fast')"),
]


@pytest.fixture(autouse=True)
def _always(monkeypatch):
    for name in ("_SCAN_BYTES_COLD", "_SCAN_BYTES_WARM", "_SCAN_BYTES_LOADED"):
        monkeypatch.setattr(formats, name, 1)


def lines_of(rng, values, *, notes=True):
    """Reads, writes, cas and deletes of some keys, with notes between, lost and refused ones, and equal times."""
    lines, open_, process, time_ns = [], {}, 0, 1
    while len(lines) < 60 or open_:
        time_ns += rng.randrange(2)
        if notes and rng.random() < 0.05:
            lines.append(
                Op(len(lines), time_ns, "nemesis", "info", "kill", None, {"nodes": ["n1"], "x": None})
            )
        elif len(lines) < 60 and (not open_ or rng.random() < 0.5):
            f = rng.choice(("read", "write", "cas", "delete"))
            value = {"write": rng.choice(values), "cas": [rng.choice(values), rng.choice(values)]}.get(f)
            open_[process] = (f, rng.choice(("x", "y", None)), value)
            lines.append(Op(len(lines), time_ns, process, "invoke", *open_[process], None, "n1"))
            process += 1
        elif open_:
            who = rng.choice(sorted(open_))
            f, key, value = open_.pop(who)
            kind = rng.choice(("ok", "ok", "info", "fail"))
            value = rng.choice([*values, None]) if f == "read" and kind == "ok" else value
            error = rng.choice(("mismatch", "refused")) if kind == "fail" else None
            told = rng.choice((None, rng.randrange(9)))
            lines.append(
                Op(len(lines), time_ns, who, kind, f, rng.choice((key, None)), value, error, None, told)
            )
    return lines


def bodies(lines, model="kv"):
    return encode_header(model) + b"".join(map(encode_op, lines))


@pytest.mark.parametrize("values", [(1, 2, 30), ("a", "bc", "é"), (1, None, "1", True)])
def test_scanned_is_as_read(values):
    """The same lines, and the same columns but for how values are numbered."""
    for seed in range(150):
        lines = lines_of(random.Random(seed), values)
        scanned = formats.parse_history(bodies(lines))
        assert type(scanned.lines).__name__ == "ScannedLines"
        assert scanned.timed
        assert [scanned.lines[n] for n in range(len(lines))] == lines
        assert scanned.lines.client_fs() == {op.f for op in lines if op.process != "nemesis"}
        model = model_by_name("kv")
        one, other = register_columns(scanned, model), register_columns(History.of(lines), model)
        if one is None:
            continue  # then the lines are looked at one by one, as ever
        assert one.keys == other.keys
        for name in ("f", "call", "ret", "key"):
            assert getattr(one, name).tolist() == getattr(other, name).tolist(), (name, seed)
        renamed = {}
        for name in ("a", "b"):
            for mine, theirs in zip(getattr(one, name).tolist(), getattr(other, name).tolist(), strict=True):
                assert renamed.setdefault(mine, theirs) == theirs, (name, seed)
        assert len(set(renamed.values())) == len(renamed)
        assert list(scanned.lines) == lines


@pytest.mark.parametrize(
    "line",
    [
        b'{"index": 0,"time_ns":1,"process":0,"type":"invoke","f":"read"}',
        b'{"time_ns":1,"process":0,"type":"invoke","f":"read"}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":"a\\u0062"}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":1.0}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":01}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":-0}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":{"a":1}}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","value":[1,2,3]}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"write","other":1}',
        b'{"index":0,"time_ns":1,"process":"nemesis","type":"invoke","f":}',
        b'{"index":0,"time_ns":1,"process":0,"type":"invoke","f":"wri',
    ],
)
def test_what_is_unusual_is_left_to_the_reader(line):
    """It then says what is wrong, or copes."""
    from checkers.line_columns import scan  # noqa: PLC0415  (imports numba)

    assert scan(encode_op(Op(0, 0, 0, "invoke", "read")) + line + b"\n") is None


@pytest.mark.parametrize(
    "name",
    ["kid", "valid", "extra", "input", "name", "time_ms", "private", "reversed", "g", "a_revision", ""],
)
def test_other_names_are_not_taken_for_ours(name):
    """The reader leaves them out; a column of that length and beginning is another thing."""
    rows = [("invoke", "write", 1), ("ok", "write", 1), ("invoke", "read", None), ("ok", "read", 0)]
    body = b"".join(
        encode_op(Op(n, n + 1, 0, kind, f, None, value))[:-2] + f',"{name}":{n}}}\n'.encode()
        for n, (kind, f, value) in enumerate(rows)
    )
    history = formats.parse_history(body)
    assert isinstance(history.lines, list)
    assert check_linearizable(history, model_by_name("register", 0)).valid == "invalid"


def test_columns_are_kept_beside_the_file(tmp_path, monkeypatch):
    """They are used while the file is the same, and not a moment longer."""
    monkeypatch.setattr(formats, "_KEEP_BYTES", 1)
    monkeypatch.setattr(linear, "_COLUMNS_LINES_LOADED", 1)
    file = tmp_path / "history.jsonl"

    def write(last):
        rows = [("invoke", "write", 1), ("ok", "write", 1), ("invoke", "read", None), ("ok", "read", last)]
        lines = [Op(n, n + 1, 0, kind, f, None, value) for n, (kind, f, value) in enumerate(rows)]
        file.write_bytes(bodies(lines, "register"))

    write(1)
    assert check_linearizable(formats.read_history(file), "register").valid == "valid"
    assert (tmp_path / "history.jsonl.columns").exists()
    assert check_linearizable(formats.read_history(file), "register").valid == "valid"
    write(2)
    assert check_linearizable(formats.read_history(file), "register").valid == "invalid"
    (tmp_path / "history.jsonl.columns").write_bytes(b"nonsense")
    assert check_linearizable(formats.read_history(file), "register").valid == "invalid"


def test_damaged_columns_are_made_anew(tmp_path, monkeypatch):
    """Whatever bytes were lost: a zip file of a version that there is not, a locked one, an array and no zip file."""
    monkeypatch.setattr(formats, "_KEEP_BYTES", 1)
    file, beside = tmp_path / "history.jsonl", tmp_path / "history.jsonl.columns"
    file.write_bytes(bodies([Op(0, 1, 0, "invoke", "write", None, 1)]))
    formats.read_history(file)
    np = pytest.importorskip("numpy")
    good = beside.read_bytes()
    entry = good.index(b"PK\x01\x02")  # the first in the list of what the file holds
    damaged = [
        good[: entry + at] + bytes([value]) + good[entry + at + 1 :] for at, value in ((6, 99), (8, 1))
    ]
    with (tmp_path / "array").open("wb") as array:
        np.save(array, np.zeros(3))
    for data in (*damaged, (tmp_path / "array").read_bytes()):
        beside.write_bytes(data)
        assert len(formats.read_history(file)) == 1
        assert beside.read_bytes() == good


def test_columns_of_another_scanner_are_made_anew(tmp_path, monkeypatch):
    """An older version's may mean something else, though the lines are the same."""
    from checkers import line_columns  # noqa: PLC0415 (needs numpy)

    body = encode_op(Op(0, 1, 0, "invoke", "write", None, 1))
    line_columns.save(tmp_path / "columns", line_columns.scan(body))
    assert line_columns.restore(tmp_path / "columns", body) is not None
    monkeypatch.setattr(line_columns, "_scanner", lambda: b"another")
    assert line_columns.restore(tmp_path / "columns", body) is None


def test_nothing_is_left_of_columns_that_were_not_finished(tmp_path, monkeypatch):
    """Ctrl-C, while a hundred megabytes are written."""

    def interrupted(*_args, **_columns):
        raise KeyboardInterrupt

    from checkers import line_columns  # noqa: PLC0415 (needs numpy)

    monkeypatch.setattr(line_columns.np, "savez", interrupted)
    found = line_columns.scan(encode_op(Op(0, 1, 0, "invoke", "write", None, 1)))
    with pytest.raises(KeyboardInterrupt):
        line_columns.save(tmp_path / "columns", found)
    assert not list(tmp_path.iterdir())


def test_nothing_is_kept_beside_a_pipe(tmp_path, monkeypatch):
    """Such as /dev/stdin, whose columns would stand in /dev."""
    monkeypatch.setattr(formats, "_KEEP_BYTES", 1)
    os.mkfifo(tmp_path / "pipe")
    data = bodies([Op(0, 1, 0, "invoke", "write", None, 1)])
    assert len(formats.parse_history(data, source=str(tmp_path / "pipe"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_revisions_and_checkers_come_with_the_columns(tmp_path, monkeypatch):
    """From the scan and from what was kept: the order of revisions decides, and the header's checkers are there."""
    monkeypatch.setattr(formats, "_KEEP_BYTES", 1)
    monkeypatch.setattr(linear, "_COLUMNS_LINES_LOADED", 1)
    file = tmp_path / "history.jsonl"
    lines = []
    for n, (f, value, revision) in enumerate(
        (("write", 1, 1), ("write", 2, 2), ("write", 1, 3), ("read", 1, 3))
    ):
        lines.append(Op(2 * n, 2 * n + 1, 0, "invoke", f, None, None if f == "read" else value))
        lines.append(Op(2 * n + 1, 2 * n + 2, 0, "ok", f, None, value, None, None, revision))
    call = CheckerCall("stats", {})
    file.write_bytes(encode_header("etcd-register", None, (call,)) + b"".join(map(encode_op, lines)))
    for kept in (False, True):
        assert (tmp_path / "history.jsonl.columns").exists() is kept
        history = formats.read_history(file)
        assert history.checkers == (call,)
        assert check_linearizable(history, "etcd-register").algorithm == "revisions"
