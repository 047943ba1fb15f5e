"""Histories: values, pairing, order numbers, and the three formats."""

import json

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
    parse_history,
    read_history,
)
from checkers.values import FALSE, TRUE, freeze, show, thaw


def lines(*rows):
    """Ops from (process, type, f, value) in order, 10 ns apart."""
    return [
        Op(n, 10 * n + 10, process, kind, f, value=value) for n, (process, kind, f, value) in enumerate(rows)
    ]


def of(*rows):
    return History.of(lines(*rows)).operations


# -- values


def test_true_is_not_one():
    """Python holds True == 1 == 1.0; a checker must not, but 1 and 1.0 are one JSON number."""
    assert len({freeze(True), freeze(1), freeze(False), freeze(0), freeze("1"), freeze(None)}) == 6
    assert freeze(1) == freeze(1.0)
    assert freeze([True]) != freeze([1])
    assert (bool(TRUE), bool(FALSE)) == (True, False)


def test_lists_maps_and_sets_differ():
    """Equal contents in another kind of collection are another value."""
    forms = [freeze([]), freeze({}), freeze(set()), freeze([["a", 1]]), freeze({"a": 1})]
    assert len(set(forms)) == len(forms)
    assert freeze({"b": 1, "a": 2}) == freeze({"a": 2, "b": 1})
    assert freeze({1, 2, 3}) == freeze({3, 2, 1})


@pytest.mark.parametrize("value", [None, True, 3, "a", [1, [True]], {"a": {"b": [None]}}, 1.5])
def test_values_come_back(value):
    """Thaw undoes freeze, and freezing twice changes nothing."""
    assert thaw(freeze(value)) == value
    assert freeze(freeze(value)) == freeze(value)
    assert json.loads(show(freeze(value))) == value


def test_a_python_object_is_no_value():
    """The message names the type."""
    with pytest.raises(TypeError, match="object"):
        freeze(object())


# -- pairing


def test_a_read_gets_the_value_of_its_completion():
    """And an info keeps the argument of its invocation, whatever its completion says."""
    read, write = of(
        (0, "invoke", "read", None),
        (1, "invoke", "write", 5),
        (0, "ok", "read", 7),
        (1, "info", "write", "timed out"),
    )
    assert (read.argument, read.result, read.status, read.ret) == (None, 7, "ok", 2)
    assert (write.argument, write.result, write.status, write.ret) == (5, None, "info", None)


def test_an_invocation_without_completion_is_info():
    """A killed writer leaves these behind."""
    (write,) = of((0, "invoke", "write", 1))
    assert (write.status, write.ret, write.complete_index) == ("info", None, None)


def test_failed_operations_are_dropped_except_mismatches():
    """A fail certainly never happened; only a mismatch still says something."""
    history = [
        *lines((0, "invoke", "cas", [1, 2]), (1, "invoke", "cas", [3, 4]), (2, "invoke", "write", 1)),
        Op(3, 40, 0, "fail", "cas", value=[1, 2], error="mismatch"),
        Op(4, 50, 1, "fail", "cas", value=[3, 4], error="refused"),
        Op(5, 60, 2, "fail", "write", value=1),
    ]
    (kept,) = History.of(history).operations
    assert (kept.argument, kept.status, kept.ret) == ((1, 2), "mismatch", 3)


def test_notes_of_the_nemesis_are_skipped():
    """They never need to pair."""
    history = lines(("nemesis", "info", "start", None), (0, "invoke", "read", None), (0, "ok", "read", 1))
    assert len(History.of(history).operations) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, "ok", "read", 1)], r"index 0: process 0 completes 'read' with 'ok' but has nothing open"),
        (
            [(0, "invoke", "read", None)] * 2,
            r"index 1: process 0 invokes 'read' while .* index 0 is still open",
        ),
        (
            [(0, "invoke", "read", None), (0, "ok", "write", 1)],
            r"completes 'write' but had invoked 'read' at index 0",
        ),
        ([(0, "invoke", "read", None), (0, "done", "read", 1)], r"type 'done' of process 0 is unknown"),
        ([(0, "done", "read", 1)], r"type 'done' of process 0 is unknown"),
    ],
)
def test_what_does_not_pair_is_one_sentence(rows, message):
    """Each fault names its index, its process and the remedy."""
    with pytest.raises(HistoryError, match=message) as caught:
        of(*rows)
    assert "\n" not in str(caught.value)


def test_another_key_at_the_completion_is_a_fault():
    """A completion may leave its key out, but not change it."""
    with pytest.raises(HistoryError, match='of key "y" but had invoked it of key "x" at index 0'):
        _ = History.of(
            [Op(0, 1, 0, "invoke", "read", key="x"), Op(1, 2, 0, "ok", "read", key="y")]
        ).operations
    (fine,) = History.of(
        [Op(0, 1, 0, "invoke", "read", key="x"), Op(1, 2, 0, "ok", "read", value=1)]
    ).operations
    assert fine.key == "x"


def test_equal_times_are_concurrent():
    """The write returned at 20 ns, the read was called at 20 ns: neither precedes the other."""
    rows = [
        Op(0, 10, 0, "invoke", "write", value=1),
        Op(1, 20, 0, "ok", "write", value=1),
        Op(2, 20, 1, "invoke", "read"),
        Op(3, 30, 1, "ok", "read", value=0),
    ]
    write, read = History.of(rows).operations
    assert read.call < write.ret
    untimed = History([Op(op.index, 0, op.process, op.type, op.f, value=op.value) for op in rows])
    write, read = untimed.operations
    assert write.ret < read.call


def test_times_that_run_backwards_are_a_fault():
    """Order could not be trusted; the message says what to do."""
    with pytest.raises(HistoryError, match="time_ns 5 is before 10 of the line before it"):
        _ = History.of([Op(0, 10, 0, "invoke", "read"), Op(1, 5, 0, "ok", "read")]).operations


# -- formats


def test_jsonl_comes_back():
    """What a run writes is what a check reads."""
    ops = [
        Op(0, 1, 0, "invoke", "cas", "k", [1, None]),
        Op(1, 2, 0, "fail", "cas", "k", [1, None], "mismatch", "n1"),
    ]
    data = encode_header("etcd-register", 3) + b"".join(map(encode_op, ops))
    history = parse_history(data)
    assert (list(history.lines), history.model, history.initial) == (ops, "etcd-register", 3)
    assert (history.timed, history.format, history.notes) == (True, "jsonl", ())
    assert default_model(history) == ("etcd-register", "model etcd-register: the history's header names it")


def test_jsonl_without_times_takes_the_order_of_lines():
    """Index and time_ns may be left out, together and everywhere."""
    data = b'{"process":0,"type":"invoke","f":"read"}\n{"process":0,"type":"ok","f":"read","value":1}\n'
    history = parse_history(data)
    assert [op.index for op in history.lines] == [0, 1]
    assert not history.timed
    with pytest.raises(HistoryError, match="1 of 2 lines have no time_ns"):
        parse_history(data.replace(b'"value":1', b'"value":1,"time_ns":5'))


def test_a_cut_last_line_is_a_note():
    """The writer was killed in the middle of a line: the rest is read, and said to be the rest."""
    whole = encode_op(Op(0, 1, 0, "invoke", "read")) + encode_op(Op(1, 2, 0, "ok", "read", value=1))
    history = parse_history(encode_header("register") + whole[:-9], source="h.jsonl")
    assert len(history.lines) == 1
    assert history.notes == (
        "h.jsonl: line 3 is cut off (its writer was stopped); the 1 whole lines before it were checked",
    )
    assert parse_history(whole[:-1]).notes == (), "a last line without its newline is whole"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"process":0,"type":"invoke"', "line 2"),
        (b'{"process":0,"type":"begin","f":"read"}', "line 2 is no line of a history .*'begin'"),
        (b'{"process":0,"type":"invoke"}', "line 2 .*required field `f`"),
        (b'{"process":0,"type":"invoke","f":"read"} x', "line 2, column 43"),
        (b"[1,2]", "line 2 .*got `array`"),
        (
            b'{"process":0,"type":"invoke","f":"write","value":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
            "line 2 .*recursion",
        ),
    ],
)
def test_a_bad_line_in_the_middle_is_a_fault(line, message):
    """It is named with its line, and where JSON breaks, with its column."""
    good = b'{"process":1,"type":"invoke","f":"read"}\n'
    with pytest.raises(HistoryError, match=f"h.jsonl: {message}"):
        parse_history(good + line + b"\n" + good, source="h.jsonl")


def test_edn_as_knossos_stores_it():
    """Comments, keywords, nil, a nemesis, tagged literals, lists or vectors, commas."""
    text = """; a comment
    ({:process :nemesis, :type :info, :f :start} #_{:process 9}
     #jepsen.history.Op{:process 0, :type :invoke, :f :cas, :value [0 1], :time 99}
     {:process 0, :type :fail, :f :cas, :value [0 1], :time 7}
     {:process 1 :type :invoke :f :write :value #{1 "a\\nb" \\x true 1.5}})"""
    history = parse_history(text.encode())
    assert history.format == "edn"
    refused, write = history.operations
    assert (refused.status, refused.argument, refused.call_ns) == ("mismatch", (0, 1), None)
    assert show(write.argument) == '["a\\nb","x",1,1.5,true]'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{:process 0", r"line 1, column 2: '\{' is never closed"),
        ("[{:process 0 :type ]", r"closed by '\]'"),
        ("[{:process 0, :type}]", "a map has a key without a value"),
        ("[{:process 0 :f :read}]", "operation 0 has no :type"),
        ("[{:process 0 :f :read :type :done}]", "operation 0 has the type 'done'"),
        ("[{:process 0 :f :read :type :ok} 5]", "operation 1 is '5'"),
        ("{:process 0 :f :read :type :ok}\n]", "line 2, column 1"),
    ],
)
def test_faulty_edn_is_one_sentence(text, message):
    """With the place."""
    with pytest.raises(HistoryError, match=message):
        parse_history(text.encode(), "edn")


def test_edn_maps_one_a_line():
    """With keys and strings, as Porcupine stores its key-value histories."""
    text = (
        '{:process 0, :type :invoke, :f :get, :key "7", :value nil}\n'
        '{:process 0, :type :ok, :f :get, :key "7", :value ""}\n'
    )
    (get,) = parse_history(text.encode()).operations
    assert (get.key, get.result) == ("7", "")


def test_jepsen_log():
    """Lines of other loggers are not ours; a timed-out failure is no mismatch."""
    log = (
        "INFO  jepsen.core - Worker 1 starting\n"
        "INFO  jepsen.util - 0\t:invoke\t:cas\t[1 2]\nINFO  jepsen.util - 0\t:fail\t:cas\t[1 2]\n"
        "INFO  jepsen.util - 0\t:invoke\t:cas\t[1 2]\nINFO  jepsen.util - 0\t:fail\t:cas\t:timed-out\n"
        "INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n"
        "INFO  jepsen.util - 1\t:invoke\t:write\t3\nINFO  jepsen.util - 1\t:info\t:write\t:timed-out\n"
    )
    history = parse_history(log.encode())
    assert history.format == "jepsen-log"
    assert [(o.f, o.argument, o.status) for o in history.operations] == [
        ("cas", (1, 2), "mismatch"),
        ("write", 3, "info"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\x7fELF\0\0", "binary"),
        (b"once upon a time\n", "does not look like a history"),
        (b"\xff\xfe{", "does not look like a history"),
        (b'{"splitbrain":"plan","version":1}\n', "announces 'plan'"),
        (b'{"splitbrain":"history","version":2}\n', "version 2"),
    ],
)
def test_what_is_no_history_is_one_sentence(data, message):
    """Whatever the file is, the message names it and says what it should be."""
    with pytest.raises(HistoryError, match=message) as caught:
        parse_history(data, source="some.file")
    assert str(caught.value).startswith("some.file: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_format():
    """Both name what was given."""
    with pytest.raises(HistoryError, match=r"nowhere.jsonl: cannot be read"):
        read_history("nowhere.jsonl")
    with pytest.raises(HistoryError, match="unknown format 'xml'"):
        parse_history(b"x", "xml")


def test_default_models():
    """By the operations that there are; the reason names them."""
    assert default_model(History.of(lines((0, "invoke", "read", None))))[0] == "etcd-register"
    assert (
        default_model(parse_history(b"[{:process 0 :type :invoke :f :cas :value [1 2]}]"))[0]
        == "cas-register"
    )
    assert default_model(History.of(lines((0, "invoke", "append", "x"))))[0] == "string-kv"
    name, reason = default_model(History.of(lines((0, "invoke", "delete", None), (1, "invoke", "put", 1))))
    assert (name, "delete, put" in reason) == ("kv", True)
    with pytest.raises(HistoryError, match="no model fits the operations fly"):
        default_model(History.of(lines((0, "invoke", "fly", None))))


def test_revisions_of_lines_without_index():
    """What may be left out says nothing about the rest: 5 before 3 is wrong with and without it."""
    rows = [("invoke", 1, ""), ("ok", 1, ',"revision":5'), ("invoke", 2, ""), ("ok", 2, ',"revision":3')]
    text = "".join(
        f'{{"process":0,"type":"{kind}","f":"write","value":{value}{more}}}\n' for kind, value, more in rows
    )
    history = parse_history(text.encode())
    assert [op.revision for op in history.lines] == [None, 5, None, 3]
    assert check_linearizable(history, "revision-register").valid == "invalid"


def test_negative_times_are_times():
    """What happened before the clock's zero; a line without a time is another thing."""
    data = b'{"process":0,"type":"invoke","f":"read","time_ns":-2}\n{"process":0,"type":"ok","f":"read","time_ns":-1}\n'
    history = parse_history(data)
    assert (history.timed, [op.time_ns for op in history.lines]) == (True, [-2, -1])


def test_an_index_that_stands_twice_is_a_fault():
    """Evidence names operations by it."""
    rows = lines((0, "invoke", "write", 1), (0, "ok", "write", 1), (0, "invoke", "read", None))
    twice = [msgspec.structs.replace(op, index=0 if op.index == 2 else op.index + 1) for op in rows]
    assert len(History.of(twice).operations) == 2, "any order, and gaps, are fine"
    twice[2] = msgspec.structs.replace(twice[2], index=1)
    with pytest.raises(HistoryError, match=r"index 1 stands on two lines.*leave index out"):
        _ = History.of(twice).operations


def test_clients_that_are_names_are_told_to_be_numbers():
    """Lines of names are notes: a history of nothing else was meant otherwise."""
    data = b'{"process":"a","type":"invoke","f":"write","value":1}\n{"process":"a","type":"ok","f":"write","value":1}\n'
    history = parse_history(data, source="h.jsonl")
    for use in (default_model, lambda history: check_linearizable(history, "register")):
        with pytest.raises(HistoryError, match=r'h.jsonl: .*"a".* give each client an integer'):
            use(history)
