"""The state machine and its client sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.api import Cas, Delete, Done, Get, Mismatch, Put, Range, Request, Txn, Unknown
from raft.kv import KeyValue, encode_command

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Client:
    def __init__(self, store, name="c"):
        self.store, self.name, self.seq = store, name, 0

    def __call__(self, command, seq=None):
        self.seq += 1
        return self.store.apply(encode_command(Request(self.name, seq or self.seq, command)))


def test_put_get_cas_delete():
    store = KeyValue()
    client = Client(store)
    assert isinstance(client(Put("x", 1)), Done)
    assert store.query(Get("x")).value == 1
    assert client(Cas("x", 2, 3)).current == 1
    assert isinstance(client(Cas("x", 1, 3)), Done)
    assert client(Get("x")).value == 3
    assert isinstance(client(Delete("x")), Done)
    assert isinstance(client(Delete("x")), Done)
    assert store.value_of("x") is None


def test_an_absent_key_holds_none():
    client = Client(KeyValue())
    assert client(Cas("x", 1, 2)).current is None
    assert isinstance(client(Cas("x", None, 2)), Done)


@pytest.mark.parametrize("held", [True, 1, 1.0, "1", [1], {"a": 1}, None, False, 0])
@pytest.mark.parametrize("expected", [True, 1, 1.0, "1", [1], {"a": 1}, None, False, 0])
def test_values_are_equal_only_if_their_json_is(held, expected):
    client = Client(KeyValue())
    client(Put("x", held))
    same = type(held) is type(expected) and held == expected
    answer = client(Cas("x", expected, "new"))
    assert isinstance(answer, Done) if same else answer == Mismatch(held, 1, 1)


def test_the_order_of_an_objects_keys_does_not_matter():
    client = Client(KeyValue())
    client(Put("x", {"a": 1, "b": 2}))
    assert isinstance(client(Cas("x", {"b": 2, "a": 1}, 0)), Done)


@given(json_values)
def test_any_json_comes_back_as_it_was(value):
    store = KeyValue()
    Client(store)(Put("x", value))
    assert store.query(Get("x")).value == value
    copy = KeyValue()
    copy.restore(store.snapshot())
    assert copy.query(Get("x")).value == value
    assert copy.digest() == store.digest()


def test_a_retry_is_applied_once_and_gets_the_first_answer():
    store = KeyValue()
    client = Client(store)
    client(Put("x", 1))
    assert client(Cas("x", 1, 2), seq=5) == Done(mod_revision=2, revision=2)
    Client(store, "other")(Put("x", 9))
    assert client(Cas("x", 1, 2), seq=5) == Done(mod_revision=2, revision=2)
    assert store.value_of("x") == 9


def test_a_request_overtaken_by_a_later_one_of_its_client_is_not_applied():
    store = KeyValue()
    client = Client(store)
    client(Put("x", 1), seq=5)
    assert isinstance(client(Put("x", 0), seq=4), Unknown)
    assert store.value_of("x") == 1


def test_sessions_are_bounded_and_forgotten_in_the_order_of_the_log():
    store = KeyValue(sessions_max=2)
    one, two, three = (Client(store, name) for name in ("one", "two", "three"))
    one(Put("x", 1), seq=1)
    two(Put("x", 2), seq=1)
    one(Put("x", 3), seq=2)
    three(Put("x", 4), seq=1)  # the session of `two` goes
    one(Put("x", 3), seq=2)
    assert store.value_of("x") == 4
    two(Put("x", 2), seq=1)
    assert store.value_of("x") == 2


def test_a_snapshot_has_the_sessions():
    store = KeyValue()
    client = Client(store)
    client(Put("x", 1), seq=1)
    client(Cas("x", 5, 6), seq=2)
    copy = KeyValue()
    copy.restore(store.snapshot())
    again = Client(copy)
    copy_before = copy.digest()
    assert again(Cas("x", 5, 6), seq=2).current == 1
    assert copy.digest() == copy_before == store.digest()


def test_the_digest_tells_states_apart():
    first, second = KeyValue(), KeyValue()
    Client(first)(Put("x", 1))
    Client(second)(Put("x", 1.0))
    assert first.digest() != second.digest()


def test_a_range_is_read_in_order_and_bounded():
    store = KeyValue()
    client = Client(store)
    for key in "dbac":
        client(Put(key, key.upper()))
    assert store.query(Range()).value == [["a", "A"], ["b", "B"], ["c", "C"], ["d", "D"]]
    assert store.query(Range("b", "d")).value == [["b", "B"], ["c", "C"]]
    assert store.query(Range("b", None, 1)).value == [["b", "B"]]
    assert client(Range("x")).value == []


def test_a_transaction_happens_at_once():
    store = KeyValue()
    client = Client(store)
    client(Put("x", 1))
    ops = (
        ("r", "x", None),
        ("w", "x", 2),
        ("r", "x", None),
        ("append", "l", 1),
        ("append", "l", 2),
        ("r", "l", None),
    )
    assert client(Txn(ops)) == Done(
        [
            ["r", "x", 1],
            ["w", "x", 2],
            ["r", "x", 2],
            ["append", "l", 1],
            ["append", "l", 2],
            ["r", "l", [1, 2]],
        ],
        revision=2,
    )
    assert store.value_of("l") == [1, 2]


def test_a_transaction_whose_guard_fails_does_nothing():
    store = KeyValue()
    client = Client(store)
    client(Put("x", 1))
    txn = Txn((("w", "y", 1),), (("x", 1), ("z", 5)))
    assert client(txn).current is None
    assert store.value_of("y") is None
    assert client(Txn((("w", "y", 1),), (("x", 1), ("z", None)))).value == [["w", "y", 1]]


def test_a_retried_transaction_appends_once():
    store = KeyValue()
    client = Client(store)
    txn = Txn((("append", "l", 1),))
    assert client(txn, seq=3) == client(txn, seq=3) == Done([["append", "l", 1]], revision=1)
    assert store.value_of("l") == [1]


def test_an_unknown_operation_is_refused_before_it_is_in_a_log():
    with pytest.raises(ValueError, match="'increment' is no operation of a transaction"):
        Txn((("increment", "x", 1),))
