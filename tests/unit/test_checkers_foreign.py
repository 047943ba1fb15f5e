"""Histories of Jepsen, Knossos and Porcupine: EDN, logs of every age, and values that carry their key."""

import pytest

from checkers import HistoryError, check_linearizable, default_model, parse_history

PREFIXES = {
    "that Porcupine keeps": "INFO  jepsen.util - ",
    "of the console": "INFO [2021-02-23 10:31:11,243] jepsen worker 3 - jepsen.util ",
    "of jepsen.log": "2021-02-26 23:39:01,300{GMT}\tINFO\t[jepsen worker 1] jepsen.util: ",
    "of history.txt": "",
}


def log(*rows, prefix="INFO  jepsen.util - ", end="\n"):
    """A log of rows of cells."""
    return "".join(prefix + "\t".join(row) + end for row in rows).encode()


CAS = (("0", ":invoke", ":cas", "[1 2]"), ("0", ":fail", ":cas", "[1 2]"))
STALE = (
    ("0", ":invoke", ":write", "3"),
    ("0", ":ok", ":write", "3"),
    (":nemesis", ":info", ":start", ":n1"),
    ("1", ":invoke", ":read", "nil"),
    ("1", ":ok", ":read", "nil"),
)


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_logs_of_every_age(prefix, end):
    """The words before the operation differ, and so may the ends of lines."""
    other = b"2021-02-26 23:39:01,300{GMT}\tWARN\t[main] jepsen.core: Test crashed!\n"
    history = parse_history(other + log(*STALE, prefix=prefix, end=end) + other)
    assert (history.format, len(history.lines)) == ("jepsen-log", 5)
    assert check_linearizable(history, "etcd-register").valid == "invalid"
    assert check_linearizable(history, "cas-register").valid == "valid"


@pytest.mark.parametrize(
    "error", [":conn-closed", '[22 "expected 3, but had 4"]', "clojure.lang.ExceptionInfo: { unread"]
)
def test_the_column_of_errors(error):
    """What failed with an error was not refused for its value; without one it was."""
    (refused,) = parse_history(log(*CAS)).operations
    assert refused.status == "mismatch"
    history = parse_history(log(CAS[0], (*CAS[1], error)))
    assert history.operations == ()
    assert (history.lines[1].value, history.lines[1].error) == ([1, 2], error.removeprefix(":"))


def test_an_error_in_edn_may_be_a_keyword():
    """A mismatch that is said to be one is one."""
    text = "{:process 0 :type :invoke :f :cas :value [1 2]} {:process 0 :type :fail :f :cas :value [1 2] :error %s}"
    assert [o.status for o in parse_history((text % ":mismatch").encode()).operations] == ["mismatch"]
    assert parse_history((text % ":timeout").encode()).operations == ()


KEYED = (
    ("0", ":invoke", ":write", "[0 3]"),
    ("0", ":ok", ":write", "[0 3]"),
    ("0", ":invoke", ":write", "[1 5]"),
    ("0", ":ok", ":write", "[1 5]"),
    (":nemesis", ":info", ":start", "nil"),
    ("1", ":invoke", ":cas", "[1 [5 6]]"),
    ("1", ":info", ":cas", ":timed-out"),
    ("0", ":invoke", ":read", "[0 nil]"),
    ("0", ":ok", ":read", "[0 3]"),
)


def edn(*rows):
    """The same rows as maps."""
    return "".join(
        f"{{:process {process}, :type {kind}, :f {f}, :value {value}}}\n" for process, kind, f, value in rows
    ).encode()


@pytest.mark.parametrize("write", [edn, log])
def test_values_that_carry_their_key(write):
    """Jepsen's independent tests: a value is a key and what is asked of that key. Each key is an object of its own."""
    history = parse_history(write(*KEYED))
    assert [(o.key, o.argument, o.result) for o in history.operations] == [
        (0, 3, 3),
        (1, 5, 5),
        (1, (5, 6), None),
        (0, None, 3),
    ]
    verdict = check_linearizable(history, "cas-register")
    assert (verdict.valid, verdict.keys) == ("valid", 2)
    assert "pairs of a key and a value" in verdict.lines()[-1]
    stale = parse_history(write(*KEYED[:-1], ("0", ":ok", ":read", "[0 4]")))
    assert check_linearizable(stale, "cas-register").failing_keys == ("0",)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (7, "nil"),  # a read of the one register
        (7, "[0 1]"),  # it asks for something
        (7, "[0 nil], :key 7"),  # the key stands elsewhere
        (5, "4"),
    ],
)
def test_pairs_that_are_values(place, value):
    """Where not every value is a pair, or a read asks for more than a key, pairs are values."""
    rows = list(KEYED)
    rows[place] = (*rows[place][:3], value)
    history = parse_history(edn(*rows))
    assert history.notes == ()
    assert history.lines[0].value == [0, 3]


def test_a_mark_at_the_start_of_a_file():
    """Editors of Windows put one there."""
    for data in (b'{"process":0,"type":"invoke","f":"read"}\n', edn(*KEYED), log(*STALE)):
        assert parse_history(b"\xef\xbb\xbf" + data).operations == parse_history(data).operations


def test_an_array_of_json_is_told_how_to_become_lines():
    """It is what many programs write."""
    with pytest.raises(HistoryError, match=r"x.json: is a JSON array: write one object a line, .*jq -c"):
        parse_history(b'[ {"process":0,"type":"invoke","f":"read"} ]', source="x.json")


def test_transactions_of_elle_are_told_their_checker():
    """No model fits them, a checker does."""
    text = b"{:process 0, :type :invoke, :f :txn, :value [[:append 1 2] [:r 1 nil]]}"
    history = parse_history(text)
    with pytest.raises(HistoryError, match="--checker list-append"):
        check_linearizable(history, default_model(history)[0])
