"""The driver: what it does with what the core produces, and what clients are told."""

import pytest

from raft.api import Cas, Delete, Done, Get, NotLeader, Put, Refused, Request, Unknown
from raft.core import Options
from raft.node import Node
from raft.storage import MemoryStorage
from raft.testing import World


def cluster(size=3, seed=1, **options):
    world = World(size, seed, options=Options(**options))
    world.run(ms=1000)
    return world


def ask(world, name, command, client="c", seq=1):
    answers = []
    world.nodes[name].on_request(Request(client, seq, command), answers.append)
    return answers


def followers(world):
    return [name for name in world.names if name != world.leader()]


def test_writes_and_reads_through_the_leader():
    world = cluster()
    leader = world.leader()
    assert isinstance(world.call(leader, Put("x", 1)), Done)
    assert isinstance(world.call(leader, Cas("x", 1, 2)), Done)
    assert world.call(leader, Cas("x", 1, 3)).current == 2
    assert world.call(leader, Get("x")).value == 2
    assert isinstance(world.call(leader, Delete("x")), Done)
    assert world.call(leader, Get("x")).value is None


def test_a_follower_names_the_leader():
    world = cluster()
    assert ask(world, followers(world)[0], Put("x", 1)) == [NotLeader(world.leader())]
    assert ask(world, followers(world)[0], Get("x")) == [NotLeader(world.leader())]


def test_a_node_without_a_leader_says_so():
    assert ask(World(3, 1), "n1", Put("x", 1)) == [NotLeader(None)]


def test_all_replicas_apply_the_same():
    world = cluster(5)
    for number in range(20):
        world.call(world.leader(), Put("x", number))
    world.run(ms=200)
    assert len({node.machine.digest() for node in world.nodes.values()}) == 1


def test_status_is_a_view_of_the_node():
    world = cluster()
    status = world.nodes[world.leader()].status()
    assert (status.role, status.leader, status.voted_for) == ("leader", world.leader(), world.leader())
    assert status.commit_index == status.applied_index == status.last_index == 1


def test_a_deposed_leader_does_not_know_about_its_writes():
    world = cluster()
    old = world.leader()
    world.partition([old], followers(world))
    answers = ask(world, old, Put("x", 1))
    world.run(ms=2000)
    assert len(answers) == 1
    assert isinstance(answers[0], Unknown)


def test_a_deposed_leader_fails_its_reads_for_certain():
    world = cluster()
    old = world.leader()
    world.partition([old], followers(world))
    answers = ask(world, old, Get("x"))
    world.run(ms=2000)
    assert answers == [NotLeader(None)]


def test_an_entry_that_lost_its_place_to_a_committed_one_never_happens():
    """The one case in which a leader that steps down knows: the winner's entry came with the news."""
    world = cluster(check_quorum=False)
    old = world.leader()
    world.partition([old], followers(world))
    answers = ask(world, old, Put("x", "lost"))
    world.run(ms=1000)
    assert answers == []
    new = next(n.name for n in world.nodes.values() if n.name != old and n.core.role.name == "leader")
    assert isinstance(world.call(new, Put("x", "kept")), Done)
    world.heal()
    world.run(ms=1000)
    assert [type(answer) for answer in answers] in ([Unknown], [NotLeader])
    assert world.call(new, Get("x")).value == "kept"


def test_a_retry_after_a_change_of_leader_takes_effect_once():
    world = cluster(5)
    old = world.leader()
    ask(world, old, Cas("x", None, 1), seq=7)
    world.run(ms=4)  # replicated, perhaps committed, and not answered
    world.crash(old)
    world.run(ms=1500)
    new = world.leader()
    assert isinstance(world.call(new, Cas("x", None, 1), client="c", seq=7), Done)
    assert world.call(new, Get("x")).value == 1


def test_overload_is_refused_for_certain():
    world = cluster(uncommitted_entries_max=2, pending_reads_max=2)
    leader = world.leader()
    assert ask(world, leader, Put("x", 1)) == ask(world, leader, Put("x", 2)) == []
    assert ask(world, leader, Put("x", 3)) == [Refused("too many writes are waiting")]
    assert ask(world, leader, Get("x")) == ask(world, leader, Get("x")) == []
    assert ask(world, leader, Get("x")) == [Refused("too many reads are waiting")]


def test_writes_are_refused_while_leadership_is_handed_over():
    world = cluster()
    leader = world.leader()
    world.partition([leader], followers(world))
    ask(world, leader, Put("x", 1))
    assert world.nodes[leader].transfer()
    assert ask(world, leader, Put("x", 2)) == [Refused("leadership is being handed over")]
    assert not world.nodes[followers(world)[0]].transfer()


def test_a_follower_serves_reads_when_it_may():
    world = cluster(follower_reads=True)
    assert isinstance(world.call(world.leader(), Put("x", 1)), Done)
    for name in followers(world):
        assert world.call(name, Get("x")).value == 1


def test_a_follower_gives_up_on_a_leader_that_does_not_answer():
    world = cluster(follower_reads=True)
    follower = followers(world)[0]
    world.blocked = {(follower, world.leader())}
    answers = ask(world, follower, Get("x"))
    world.run(ms=1000)
    assert [type(answer) for answer in answers] == [Refused]


def test_a_crashed_cluster_comes_back_with_all_it_acknowledged():
    world = cluster()
    for number in range(10):
        assert isinstance(world.call(world.leader(), Put(f"k{number}", number)), Done)
    for name in world.names:
        world.crash(name)
    for name in world.names:
        world.start(name)
    world.run(ms=1500)
    assert [world.call(world.leader(), Get(f"k{number}")).value for number in range(10)] == list(range(10))


def test_a_slow_disk_makes_larger_groups_not_longer_queues():
    world = cluster()
    world.sync_us = (20_000, 20_000)
    leader = world.leader()
    answers = []
    for number in range(50):
        world.nodes[leader].on_request(Request(f"c{number}", 1, Put("x", number)), answers.append)
        world.run(ms=1)
    world.run(ms=60)
    assert [type(answer) for answer in answers] == [Done] * 50


def test_snapshots_bound_the_log_and_survive_a_restart():
    world = cluster(snapshot_entries=10, snapshot_trailing=2)
    for number in range(35):
        world.call(world.leader(), Put(f"k{number}", number))
    world.run(ms=200)
    assert all(len(node.core.log.entries) < 15 for node in world.nodes.values())
    world.restart("n1")
    world.run(ms=1000)
    assert world.nodes["n1"].machine.value_of("k3") == 3
    assert any(event == "restored" for _, name, event, _ in world.trace if name == "n1")


def test_large_writes_are_snapshotted_sooner():
    world = cluster(snapshot_log_bytes=5_000, snapshot_trailing_bytes=1_000)
    for _ in range(30):
        world.call(world.leader(), Put("x", "x" * 1_000))
    world.run(ms=200)
    for node in world.nodes.values():
        assert node.core.snapshot is not None
        assert len(node.core.log.entries) < 10
    world.restart("n1")
    world.run(ms=1000)
    assert world.nodes["n1"].machine.value_of("x") == "x" * 1_000
    snapshots = sum(event == "snapshot" for _, name, event, _ in world.trace if name == "n2")
    assert 2 <= snapshots <= 6  # no more often than it takes to write as much as a snapshot is large


def test_a_stopped_node_does_nothing_more():
    world = cluster()
    leader = world.leader()
    world.nodes[leader].stop()
    assert ask(world, leader, Put("x", 1)) == []
    before = len(world.trace)
    world.nodes[leader].on_message(None)
    world.run(ms=100)
    assert all(name != leader for _, name, _, _ in world.trace[before:])


def test_events_are_traced():
    world = cluster()
    old = world.leader()
    world.partition([old], followers(world))
    ask(world, old, Put("x", 1))
    world.run(ms=1500)
    world.call(world.leader(), Put("x", 2))
    world.heal()
    world.run(ms=500)
    world.nodes[old].stop("test")
    seen = {event for _, _, event, _ in world.trace}
    assert {"started", "leader", "follower", "candidate", "truncated", "committed", "stopped"} <= seen


def test_heartbeats_do_not_re_arm_the_followers_timer():
    """At a thousand nodes, or a million heartbeats, the heap of timers is what costs."""
    world = cluster()
    armed = []
    follower = followers(world)[0]
    host = world._hosts[follower]
    host.call_later, original = lambda *args: armed.append(args) or original(*args), host.call_later
    world.run(ms=3000)
    assert len(armed) < 25  # 60 heartbeats came


def test_a_perfect_disk_syncs_at_once():
    class Host:
        storage = MemoryStorage()

        def now_us(self):
            return 0

        def random(self):
            return 0.0

        def call_later(self, *_):
            return self

        def cancel(self):
            pass

        def send(self, *_):
            pass

    node = Node("a", ("a",), Host(), Options())
    node.start()
    node.core.tick(node.core.deadline_us)
    node._turn()
    assert node.status().role == "leader"
    answers = []
    node.on_request(Request("c", 1, Put("x", 1)), answers.append)
    assert answers == [Done(mod_revision=1, revision=1)]
    assert Host.storage.load().entries[-1].index == 2


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"election_timeout_us_min": 0}, "give a positive minimum"),
        ({"election_timeout_us_max": 1}, "not above the maximum"),
        ({"heartbeat_us": 200_000}, "followers campaign against a healthy leader"),
        ({"sessions_max": 0}, "sessions_max 0 must be at least 1"),
        ({"lease_drift_max": 1.5}, "lease_drift_max 1.5 must be in"),
    ],
)
def test_options_that_cannot_work_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        Options(**options)
