"""Leases, sessions that end, and those who wait for changes."""

import pytest

from raft.api import (
    Cas,
    CloseSession,
    Done,
    Expired,
    Get,
    Grant,
    KeepAlive,
    LeaseInfo,
    Leases,
    Mismatch,
    NotLeader,
    OpenSession,
    Put,
    Refused,
    Request,
    Revoke,
    Txn,
    Watch,
)
from raft.bugs import assemble
from raft.core import Options
from raft.kv import KeyValue, encode_clock, encode_command
from raft.node import Node
from raft.testing import World

MS = 1000


class Client:
    def __init__(self, store, name="c"):
        self.store, self.name, self.seq = store, name, 0

    def __call__(self, command, ms=0, seq=None):
        self.seq += 1
        return self.store.apply(encode_command(Request(self.name, seq or self.seq, command), ms * MS))


@pytest.fixture
def store():
    return KeyValue(sessions_max=2, leases_max=3)


@pytest.fixture
def client(store):
    return Client(store)


def at(store, ms):
    store.apply(encode_clock(ms * MS))


# -- leases --------------------------------------------------------------------------------------------------


def test_a_key_goes_with_its_lease_at_its_time_and_not_before(store, client):
    assert client(Grant(100, "l"), 1000) == Done({"lease": "l", "ttl_ms": 100})
    client(Put("x", 1, "l"))
    client(Put("y", 1, "l"))
    at(store, 1099)
    assert store.value_of("x") == 1
    at(store, 1100)
    assert store.value_of("x") is None
    assert store.keys.revision == 3, "both keys go in one revision"
    assert store.events(Watch("", "z"), 2).value["events"] == [
        {"type": "delete", "key": "x", "mod_revision": 3},
        {"type": "delete", "key": "y", "mod_revision": 3},
    ]
    assert client(Put("x", 2, "l")) == Expired("lease", "l")
    assert client(KeepAlive("l"), 1200) == Expired("lease", "l")


def test_what_is_due_ends_before_the_entry_is_looked_at(store, client):
    client(Grant(100, "l"), 1000)
    client(Put("x", 1, "l"))
    assert client(KeepAlive("l"), 1100) == Expired("lease", "l")


def test_a_lease_kept_alive_lives_on(store, client):
    client(Grant(100, "l"), 1000)
    assert client(KeepAlive("l"), 1090) == Done({"lease": "l", "ttl_ms": 100})
    assert store.next_end_us == 1190 * MS
    at(store, 1189)
    assert store.query(LeaseInfo("l")) == Done({"lease": "l", "ttl_ms": 100, "left_ms": 1, "keys": []})
    assert store.query(LeaseInfo("l"), 1500 * MS).value["left_ms"] == 0
    at(store, 1190)
    assert store.query(LeaseInfo("l")) == Expired("lease", "l")
    assert store.next_end_us is None


def test_the_time_of_the_log_never_goes_back(store, client):
    client(Grant(100, "l"), 1000)
    client(KeepAlive("l"), 500)
    assert store.next_end_us == 1100 * MS


def test_a_revoked_lease_takes_its_keys_with_it(store, client):
    client(Grant(100, "l"), 1)
    client(Put("x", 1, "l"))
    client(Put("y", 1, "l"))
    client(Put("y", 2))  # has no lease any more
    assert client(Revoke("l")) == Done(1, revision=4)
    assert (store.value_of("x"), store.value_of("y")) == (None, 2)
    assert client(Revoke("l")) == Expired("lease", "l")


def test_who_keeps_the_lease_of_a_key_and_who_does_not(store, client):
    client(Grant(100, "l"), 1)
    client(Grant(100, "m"), 1)
    client(Put("x", 1, "l"))
    client(Cas("x", 1, 2))
    client(Put("y", [], "l"))
    client(Txn((("append", "y", 1),)))
    client(Put("z", 1, "l"))
    client(Put("z", 1, "m"))
    client(Put("w", 1, "l"))
    client(Txn((("w", "w", 1),)))
    assert store.query(LeaseInfo("l")).value["keys"] == ["x", "y"]
    assert store.query(LeaseInfo("m")).value["keys"] == ["z"]


def test_names_of_leases(store, client):
    client(Grant(100, "lease-1"), 1)
    assert client(Grant(100, "lease-1"), 1).current["lease"] == "lease-1"
    assert isinstance(client(Grant(100, "lease-1"), 1), Mismatch)
    assert client(Grant(100), 1).value["lease"] == "lease-2"
    assert store.query(Leases()) == Done(["lease-1", "lease-2"])
    client(Grant(100), 1)
    assert client(Grant(100), 1) == Refused("there are too many leases")


@pytest.mark.parametrize("ttl_ms", [0, -1, 10**12])
def test_life_times_that_cannot_be(ttl_ms):
    with pytest.raises(ValueError, match="it must be from 1 to"):
        Grant(ttl_ms)
    with pytest.raises(ValueError, match="it must be from 1 to"):
        OpenSession(ttl_ms)


# -- sessions ------------------------------------------------------------------------------------------------


def opened(store, ttl_ms=100, ms=1000, opener="opener"):
    name = Client(store, opener)(OpenSession(ttl_ms), ms).value["session"]
    return Client(store, name)


def test_a_session_lives_while_it_is_used(store):
    session = opened(store)
    assert isinstance(session(Put("x", 1), 1090), Done)
    assert session(KeepAlive(), 1180).value == {"session": session.name, "ttl_ms": 100}
    assert isinstance(session(Put("x", 2), 1279), Done)
    assert session(Put("x", 3), 1379) == Expired("session", session.name)
    assert store.value_of("x") == 2


def test_a_retry_in_a_session_is_applied_once_and_one_that_comes_too_late_never(store):
    session = opened(store)
    session(Txn((("append", "x", 1),)), 1000, seq=1)
    session(Txn((("append", "x", 1),)), 1000, seq=1)
    assert store.value_of("x") == [1]
    at(store, 2000)
    assert isinstance(session(Txn((("append", "x", 1),)), 2000, seq=1), Expired)
    assert store.value_of("x") == [1]


def test_a_closed_session_is_gone(store):
    session = opened(store)
    assert isinstance(session(CloseSession(), 1000), Done)
    assert isinstance(session(Put("x", 1), 1000), Expired)


def test_a_session_that_nobody_opened(store):
    assert Client(store, "@17")(Put("x", 1), 1) == Expired("session", "@17")


def test_open_sessions_are_bounded_and_not_pushed_out(store):
    first = opened(store)
    opened(store, opener="second")
    answer = Client(store, "third")(OpenSession(100), 1000)
    assert answer == Refused("too many sessions are open")
    for name in "abc":
        Client(store, name)(Put("x", 0))
    assert isinstance(first(Put("x", 1), 1000), Done)


def test_a_snapshot_has_leases_sessions_and_the_time(store, client):
    client(Grant(100, "l"), 1000)
    client(Put("x", 1, "l"))
    session = opened(store)
    session(Put("y", 1), 1010)
    copy = KeyValue(sessions_max=2, leases_max=3)
    copy.restore(store.snapshot())
    assert copy.digest() == store.digest()
    for one in (store, copy):
        assert Client(one, session.name)(Put("y", 1), 1050, seq=1).revision == 2
        at(one, 1110)
        assert one.value_of("x") is None
        assert isinstance(Client(one, session.name)(Put("y", 1), 1111), Expired)
    assert copy.digest() == store.digest()


def test_deadlines_do_not_pile_up(store, client):
    client(Grant(100, "l"), 1000)
    for ms in range(1000, 2000):
        client(KeepAlive("l"), ms)
    assert len(store.leases.deadlines._heap) < 100


# -- in a cluster --------------------------------------------------------------------------------------------


def cluster(seed=1, size=3, node=Node, **options):
    world = World(size, seed=seed, node=node, options=Options(**options))
    world.run(ms=1000)
    return world


def test_the_leader_ends_what_is_due_and_everybody_the_same():
    world = cluster()
    leader = world.leader()
    assert isinstance(world.call(leader, Grant(500, "l")), Done)
    assert isinstance(world.call(leader, Put("x", 1, "l")), Done)
    world.run(ms=400)
    assert world.call(leader, Get("x")).value == 1
    world.run(ms=300)
    assert world.call(leader, Get("x")).value is None
    assert world.call(leader, LeaseInfo("l")) == Expired("lease", "l")
    world.run(ms=200)
    assert len({node.machine.digest() for node in world.nodes.values()}) == 1


def test_a_lease_that_is_renewed_outlives_many_leaders():
    world = cluster(size=5)
    world.call(world.leader(), Grant(900, "l"))
    world.call(world.leader(), Put("x", 1, "l"))
    for _ in range(5):
        old = world.leader()
        assert isinstance(world.call(old, KeepAlive("l")), Done)
        world.crash(old)
        world.run(ms=800)
        world.start(old)
        world.run(ms=50)
    assert world.call(world.leader(), Get("x")).value == 1
    world.run(ms=1200)
    assert world.call(world.leader(), Get("x")).value is None


def test_time_stands_still_while_nobody_leads():
    world = cluster()
    world.call(world.leader(), Grant(1000, "l"))
    world.call(world.leader(), Put("x", 1, "l"))
    for name in world.names:
        world.crash(name)
    world.run(ms=5000)
    for name in world.names:
        world.start(name)
    world.run(ms=600)
    assert world.call(world.leader(), Get("x")).value == 1
    world.run(ms=1500)
    assert world.call(world.leader(), Get("x")).value is None


def test_a_leader_that_is_cut_off_ends_nothing():
    world = cluster()
    old = world.leader()
    world.call(old, Grant(600, "l"))
    world.call(old, Put("x", 1, "l"))
    world.run(ms=550)
    world.partition([name for name in world.names if name != old])
    world.run(ms=3000)
    assert world.nodes[old].machine.value_of("x") == 1
    world.heal()
    world.run(ms=1000)
    assert world.nodes[old].machine.value_of("x") is None


def test_no_entry_is_written_where_nothing_ends():
    world = cluster()
    before = world.nodes[world.leader()].status().last_index
    world.run(ms=5000)
    assert world.nodes[world.leader()].status().last_index == before


# -- waiting for changes -------------------------------------------------------------------------------------


def watch(world, name, *args, **options):
    answers = []
    world.nodes[name].on_request(Request("w", 1, Watch(*args, **options)), answers.append)
    return answers


def test_a_watch_waits_for_the_change_on_any_node():
    world = cluster()
    world.call(world.leader(), Put("x", 1))
    world.run(ms=100)
    waiting = {name: watch(world, name, "x", wait_ms=10_000) for name in world.names}
    world.call(world.leader(), Put("y", 1))
    world.run(ms=100)
    assert all(answers == [] for answers in waiting.values())
    world.call(world.leader(), Put("x", 2))
    world.run(ms=100)
    for answers in waiting.values():
        assert [event["value"] for event in answers[0].value["events"]] == [2]
        assert answers[0].value["revision"] == 3
    assert all(len(node.watches) == 0 for node in world.nodes.values())


def test_a_watch_ends_with_nothing_when_nothing_happens():
    world = cluster()
    answers = watch(world, world.leader(), "x", after=0, wait_ms=200)
    world.run(ms=199)
    assert answers == []
    world.run(ms=2)
    assert answers == [Done({"revision": 0, "events": []})]
    assert watch(world, world.leader(), "x") == [Done({"revision": 0, "events": []})]


def test_a_node_that_gets_a_snapshot_tells_those_who_wait():
    world = cluster(snapshot_entries=20, snapshot_trailing=1)
    behind = next(name for name in world.names if name != world.leader())
    world.partition([name for name in world.names if name != behind])
    answers = watch(world, behind, "x", after=0, wait_ms=60_000)
    for number in range(50):
        world.call(world.leader(), Put("x", number))
    world.heal()
    world.run(ms=2000)
    assert [event["value"] for event in answers[0].value["events"]][:3] == [0, 1, 2]


def test_who_waits_has_seen_what_was_forgotten_meanwhile():
    world = cluster(watch_events_max=3)
    waiting = {name: watch(world, name, "x", wait_ms=10_000) for name in world.names}
    for number in range(10):
        world.call(world.leader(), Put("y", number))
    world.call(world.leader(), Put("x", "seen"))
    world.run(ms=100)
    for answers in waiting.values():
        assert [event["value"] for event in answers[0].value["events"]] == ["seen"]


def test_who_is_told_may_wait_again_at_once_and_send_another_away():
    world = cluster()
    node, told = world.nodes[world.leader()], []

    def first(answer):
        told.append(("first", answer.value["revision"]))
        node.watches.forget(third)
        node.watches.add(Watch("x", after=answer.value["revision"], wait_ms=1000), first)

    def second(answer):
        told.append(("second", [event["value"] for event in answer.value["events"]]))

    def third(answer):
        told.append(("third", answer))

    node.watches.add(Watch("x", wait_ms=9000), first)
    node.watches.add(Watch("", "", wait_ms=9000), second)
    node.watches.add(Watch("x", wait_ms=9000), third)
    world.call(world.leader(), Put("x", 1))
    world.call(world.leader(), Put("x", 2))
    assert told == [("first", 1), ("second", [1]), ("first", 2)]
    assert len(node.watches) == 1


def test_only_those_are_looked_at_whose_keys_have_changed(monkeypatch):
    world = cluster()
    node, looked = world.nodes[world.leader()], []
    for watch in (Watch("x", wait_ms=9000), Watch("y", wait_ms=9000), Watch("a", "m", wait_ms=9000)):
        node.watches.add(watch, lambda _answer: None)
    events = type(node.machine).events

    def counted(machine, watch, after):
        looked.append(watch.key)
        return events(machine, watch, after)

    monkeypatch.setattr(type(node.machine), "events", counted)
    world.call(world.leader(), Put("z", 1))
    world.call(world.leader(), Put("y", 1))
    world.call(world.leader(), Put("b", 1))
    assert looked == ["y", "a"]


def test_who_is_gone_waits_no_more():
    world = cluster(watches_max=1)
    node, answers = world.nodes[world.leader()], []
    node.watches.add(Watch("x", wait_ms=1000), answers.append)
    node.watches.forget(answers.append)
    node.watches.forget(answers.append)
    assert len(node.watches) == 0
    world.call(world.leader(), Put("x", 1))
    world.run(ms=2000)
    assert answers == []


def test_those_who_wait_are_bounded():
    world = cluster(watches_max=2)
    watches = [watch(world, world.leader(), "x", wait_ms=1000) for _ in range(3)]
    assert watches == [[], [], [Refused("too many watches are waiting")]]


def test_writes_of_leases_need_the_leader():
    world = cluster()
    follower = next(name for name in world.names if name != world.leader())
    assert isinstance(world.call(follower, Grant(100)), NotLeader)


# -- the bugs of their kind ----------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("is_seeded", [True, False])


def bug(name, is_seeded):
    return assemble([name] if is_seeded else [])


@BOTH
def test_keep_alive_not_replicated(is_seeded):
    world = cluster(node=bug("keep-alive-not-replicated", is_seeded))
    world.call(world.leader(), Grant(500, "l"))
    world.call(world.leader(), Put("x", 1, "l"))
    for _ in range(6):
        world.run(ms=200)
        assert isinstance(world.call(world.leader(), KeepAlive("l")), Done)
        assert isinstance(world.call(world.leader(), Grant(500)), Done)  # takes the time along
        assert world.call(world.leader(), Get("x")).value == 1
    world.nodes[world.leader()].transfer(next(name for name in world.names if name != world.leader()))
    world.run(ms=100)
    assert isinstance(world.call(world.leader(), Grant(500)), Done)
    assert (world.call(world.leader(), Get("x")).value is None) == is_seeded


@BOTH
@pytest.mark.parametrize("what", ["lease", "session"])
def test_expired_locally(what, is_seeded):
    """A node that is cut off hears of no renewal, and so must not end anything."""
    name = {"lease": "lease-expired-locally", "session": "session-expiry-not-replicated"}[what]
    world = cluster(node=bug(name, is_seeded))
    world.call(world.leader(), Grant(500, "l"))
    world.call(world.leader(), Put("x", 1, "l"))
    session = world.call(world.leader(), OpenSession(500)).value["session"]
    world.run(ms=100)
    away = next(name for name in world.names if name != world.leader())
    world.partition([name for name in world.names if name != away])
    for number in range(5):
        world.run(ms=200)
        assert isinstance(world.call(world.leader(), KeepAlive("l")), Done)
        assert isinstance(world.call(world.leader(), Put("y", number), client=session, seq=number + 1), Done)
    world.heal()
    world.run(ms=300)
    machine = world.nodes[away].machine
    if what == "lease":
        assert (machine.value_of("x") is None) == is_seeded
    else:
        assert (machine.value_of("y") != 4) == is_seeded


@BOTH
def test_watch_gap(is_seeded):
    world = cluster(node=bug("watch-gap", is_seeded), snapshot_entries=40)
    for number in range(100):
        world.call(world.leader(), Put("x", number))
    world.run(ms=100)
    victim = next(name for name in world.names if name != world.leader())
    world.crash(victim)
    world.start(victim)
    world.run(ms=500)
    events = watch(world, victim, "x", after=0)[0].value["events"]
    assert (len(events) < 100) == is_seeded
