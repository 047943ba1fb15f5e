"""Revisions, transactions of etcd's shape, and the changes that a watch sees: one state machine, no cluster."""

import random

import msgspec
import pytest

from raft.api import (
    Cas,
    Compacted,
    Compare,
    Delete,
    Done,
    Expired,
    Get,
    Grant,
    If,
    Mismatch,
    Put,
    Range,
    Request,
    Txn,
    Watch,
    prefix_end,
)
from raft.kv import KeyValue, encode_command


class Client:
    def __init__(self, store, name="c"):
        self.store, self.name, self.seq = store, name, 0

    def __call__(self, command, clock_us=0):
        self.seq += 1
        return self.store.apply(encode_command(Request(self.name, self.seq, command), clock_us))


@pytest.fixture
def store():
    return KeyValue(events_max=10)


@pytest.fixture
def client(store):
    return Client(store)


def record(store, key):
    return store.query(Get(key, detail=True)).value


# -- revisions ---------------------------------------------------------------------------------------------


def test_each_entry_that_changes_something_is_a_revision(store, client):
    assert client(Put("x", 1)) == Done(None, 1, 1)
    assert client(Put("y", 1)) == Done(None, 2, 2)
    assert client(Get("x")) == Done(1, 1, 2)
    assert client(Cas("x", 5, 6)) == Mismatch(1, 1, 2)
    assert client(Cas("x", 1, 2)) == Done(None, 3, 3)
    assert client(Delete("z")) == Done(None, 0, 3)
    assert client(Delete("x")) == Done(None, 4, 4)
    assert client(Get("x")) == Done(None, 0, 4)


def test_a_key_knows_when_it_was_made_and_changed_and_how_often(store, client):
    client(Put("other", 0))
    client(Put("x", "a"))
    client(Cas("x", "a", "b"))
    client(Txn((("append", "x", 1), ("append", "x", 2))))
    assert record(store, "x") == {
        "key": "x",
        "value": [1, 2],
        "create_revision": 2,
        "mod_revision": 4,
        "version": 3,
        "lease": "",
    }
    client(Delete("x"))
    client(Put("x", "again"))
    assert record(store, "x")["create_revision"] == 6
    assert record(store, "x")["version"] == 1


def test_a_transaction_is_one_revision(store, client):
    assert client(Txn((("w", "x", 1), ("w", "y", 2), ("w", "x", 3)))).revision == 1
    assert record(store, "x")["version"] == record(store, "y")["mod_revision"] == 1
    assert client(Txn((("r", "x", None),))) == Done([["r", "x", 3]], 0, 1)


def test_ranges_tell_whether_there_is_more(store, client):
    for key in ("a/1", "a/2", "a/3", "b"):
        client(Put(key, key))
    found = store.query(Range("a/", prefix_end("a/"), 2, detail=True)).value
    assert [one["key"] for one in found["records"]] == ["a/1", "a/2"]
    assert found["more"]
    assert not store.query(Range("a/", prefix_end("a/"), 3, detail=True)).value["more"]
    assert client(Delete("a/", prefix_end("a/"))) == Done(3, revision=5)
    assert store.query(Range()).value == [["b", "b"]]


@pytest.mark.parametrize("prefix", ["a", "a/", "\ud7ff", "a\U0010ffff", "é"])
def test_the_end_of_a_prefix_is_just_behind_it(prefix):
    end = prefix_end(prefix)
    assert prefix < prefix + "\U0010ffff" < end
    end.encode()


def test_a_prefix_without_end():
    assert prefix_end("\U0010ffff") == ""


# -- if, then, otherwise -------------------------------------------------------------------------------------


def test_the_branch_is_taken_by_the_state_before(store, client):
    client(Put("x", 1))
    command = If(
        (Compare("x", "value", "=", 1), Compare("y", "create", "=", 0)),
        (Put("x", 2), Get("x"), Put("y", 1), Delete("x"), Delete("z"), Range("", None)),
        (Get("x"),),
    )
    assert client(command) == Done(
        {"succeeded": True, "results": [None, 2, None, 1, 0, [["y", 1]]]}, revision=2
    )
    assert client(command) == Done({"succeeded": False, "results": [None]}, revision=2)


def test_conditions_in_a_branch_are_decided_by_the_state_before_too(store, client):
    inner = If((Compare("x", "version", "=", 0),), (Put("saw", "before"),), (Put("saw", "after"),))
    client(If((), (Put("x", 1), inner)))
    assert store.value_of("saw") == "before"


@pytest.mark.parametrize(
    ("target", "relation", "operand", "holds"),
    [
        ("mod", "=", 3, True),
        ("mod", "<", 3, False),
        ("mod", "<=", 3, True),
        ("create", ">", 1, True),
        ("create", ">=", 3, False),
        ("version", "!=", 2, False),
        ("version", "=", 2, True),
        ("value", "!=", 1, True),
        ("value", "=", True, True),
        ("lease", "=", "l", True),
    ],
)
def test_relations(store, client, target, relation, operand, holds):
    client(Put("other", 1))
    client(Grant(1000, "l"), 1)
    client(Put("x", 1))
    client(Put("x", True, "l"))
    answer = client(If((Compare("x", target, relation, operand),)))
    assert answer.value["succeeded"] is holds


def test_a_lease_that_is_not_there_undoes_the_whole(store, client):
    nested = If((), (Put("y", 1, "gone"),))
    assert client(If((), (Put("x", 1), nested))) == Expired("lease", "gone")
    assert store.value_of("x") is None
    assert store.keys.revision == 0


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (["x", "size", "=", 1], "'size' is nothing of a key"),
        (["x", "value", "<", 1], "'<' says nothing of a value"),
        (["x", "mod", "~", 1], "'~' is no relation"),
        (["x", "mod", "=", "1"], "a mod is compared with a whole number, not '1'"),
    ],
)
def test_conditions_that_nobody_could_decide_are_refused(bad, sentence):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.json.decode(msgspec.json.encode(["c", 1, ["if", [bad], [], []]]), type=Request)


def test_conditions_are_not_nested_for_ever():
    command = If()
    for _ in range(7):
        command = If((), (command,))
    with pytest.raises(ValueError, match="nested 9 deep"):
        If((), (command,))


# -- changes -------------------------------------------------------------------------------------------------


def seen(store, *watch, **options):
    return store.events(Watch(*watch, **options), options["after"]).value


def test_a_watch_sees_changes_in_order_from_where_it_left_off(store, client):
    client(Put("x", 1))
    client(Put("y", 1))
    client(Txn((("w", "x", 2), ("w", "x", 3), ("w", "z", 0))))
    client(Delete("x"))
    client(Delete("x"))
    got = seen(store, "x", after=1)
    assert got["revision"] == 4
    assert [(event["type"], event["mod_revision"], event.get("value")) for event in got["events"]] == [
        ("put", 3, 3),
        ("delete", 4, None),
    ]
    assert [event["key"] for event in seen(store, "y", "{", after=0)["events"]] == ["y", "z"]
    assert seen(store, "x", after=4) == {"revision": 4, "events": []}


def test_a_limit_does_not_cut_a_revision_in_two(store, client):
    client(Txn((("w", "a", 1), ("w", "b", 1))))
    client(Put("a", 2))
    got = seen(store, "a", "z", after=0, limit=1)
    assert (got["revision"], len(got["events"])) == (1, 2)
    assert seen(store, "a", "z", after=got["revision"], limit=1)["revision"] == 2


def test_a_node_that_lags_does_not_take_a_watch_back(store, client):
    client(Put("x", 1))
    assert seen(store, "x", after=7) == {"revision": 7, "events": []}


def test_what_is_forgotten_is_said_to_be(store, client):
    for number in range(15):
        client(Put("x", number))
    assert store.events(Watch("x"), 4) == Compacted(5)
    assert len(seen(store, "x", after=5)["events"]) == 10


@pytest.mark.parametrize("seed", range(5))
def test_ranges_are_in_order_whatever_was_put_and_removed_between_them(seed):
    rng, store, held = random.Random(seed), KeyValue(), {}
    client = Client(store)
    for number in range(400):
        key = f"k{rng.randrange(300)}"
        match rng.randrange(8):
            case 0:
                client(Delete(key))
                held.pop(key, None)
            case 1 if not number % 20:
                client(Delete("k1", "k2"))
                held = {name: value for name, value in held.items() if not "k1" <= name < "k2"}
            case 2:
                assert store.query(Range("", limit=1_000)).value == [
                    list(item) for item in sorted(held.items())
                ]
            case _:
                client(Put(key, number))
                held[key] = number
    for number in range(300):
        client(Put(f"m{number}", 0))
    store.query(Range())
    assert client(Delete("m", "n")).value == 300
    assert store.query(Range("", limit=1_000)).value == [list(item) for item in sorted(held.items())]


def test_large_changes_are_forgotten_sooner():
    store = KeyValue(events_bytes_max=100)
    client = Client(store)
    for number in range(9):
        client(Put("x", "y" * (18 + 10 * (number == 8))))  # 20 bytes as JSON, and 30
    assert [event["mod_revision"] for event in seen(store, "x", after=5)["events"]] == [6, 7, 8, 9]
    assert store.events(Watch("x"), 4) == Compacted(5)
    client(Delete("x"))
    copy = KeyValue(events_bytes_max=100)
    copy.restore(store.snapshot())
    for one in (store, copy):
        Client(one, "other")(Put("x", "y" * 200))
    assert copy.digest() == store.digest()
    assert store.keys.compacted == 11


def test_a_range_ends_where_an_answer_would_be_too_large(store, client):
    for number in range(5):
        client(Put(f"k{number}", "x" * (900 << 10)))
    first = store.query(Range("k", limit=10, detail=True)).value
    assert ([record["key"] for record in first["records"]], first["more"]) == (["k0", "k1"], True)
    rest = store.query(Range("k4", limit=10, detail=True)).value
    assert ([record["key"] for record in rest["records"]], rest["more"]) == (["k4"], False)


def test_a_snapshot_has_the_changes(store, client):
    for number in range(12):
        client(Put(f"k{number % 3}", number))
    client(Delete("k1"))
    copy = KeyValue(events_max=10)
    copy.restore(store.snapshot())
    assert copy.digest() == store.digest()
    assert copy.events(Watch("", "z"), 5) == store.events(Watch("", "z"), 5)
    assert copy.events(Watch("", "z"), 2) == store.events(Watch("", "z"), 2) == Compacted(3)
    for one in (store, copy):
        Client(one, "other")(Put("k0", "more"))
    assert copy.digest() == store.digest()
