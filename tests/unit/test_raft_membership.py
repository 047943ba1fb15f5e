"""Joint consensus: section 6."""

from dataclasses import replace

import msgspec
import pytest

from raft.api import Done, Get, Put
from raft.core import (
    AppendEntries,
    AppendReply,
    Config,
    Core,
    Entry,
    EntryKind,
    HardState,
    Options,
    Saved,
    VoteReply,
)
from raft.invariants import Invariants
from raft.node import Node
from raft.testing import World

PLAIN = Options(pre_vote=False, check_quorum=False)


def config_entry(index, term, config):
    return Entry(index, term, EntryKind.CONFIG, msgspec.json.encode(config))


def core_of(*entries, names=("a", "b", "c"), term=1):
    return Core("a", names, Saved(HardState(term), entries), random=lambda: 0.5, now_us=0, options=PLAIN)


def settle(core):
    sent = []
    while (ready := core.ready()) is not None:
        for message in [*ready.messages, *ready.held]:
            if message.dst == core.name:
                core.step(message, core.now_us)
            else:
                sent.append(message)
    return sent


def ok(core, peer, index):
    core.step(AppendReply(peer, "a", core.term, True, index, 0, 0, 0), core.now_us)
    return settle(core)


def leader(names=("a", "b", "c")):
    core = core_of(names=names)
    core.tick(core.deadline_us)
    settle(core)
    for peer in core.peers[: len(names) // 2]:
        core.step(VoteReply(peer, "a", core.term, granted=True), core.now_us)
    settle(core)
    for peer in core.peers:
        ok(core, peer, 1)
    assert core.commit_index == 1
    return core


def test_addresses_come_with_members_and_go_with_them():
    core = leader()
    core.change_config(("a", "b", "c"), ("d",), [("d", "there"), ("x", "is nobody")], now_us=core.now_us)
    assert core.config == Config(("a", "b", "c"), (), ("d",), (("d", "there"),))
    settle(core)
    for peer in ("b", "c", "d"):
        ok(core, peer, core.log.last_index)
    core.change_config(("a", "b", "c", "d"), now_us=core.now_us)
    assert core.config.addresses == (("d", "there"),)
    settle(core)
    for _ in range(2):  # the joint membership, and the one after it
        for peer in ("b", "c", "d"):
            ok(core, peer, core.log.last_index)
    assert core.config == Config(("a", "b", "c", "d"), (), (), (("d", "there"),))
    core.change_config(("a", "b", "c"), now_us=core.now_us)
    assert core.config.outgoing
    assert core.config.addresses == (("d", "there"),), "who is leaving is still spoken to"
    settle(core)
    for peer in ("b", "c"):
        ok(core, peer, core.log.last_index)
    assert core.config == Config(("a", "b", "c"))


def test_a_server_uses_the_latest_configuration_in_its_log_committed_or_not():
    core = core_of()
    joint = Config(("b", "c", "d"), ("a", "b", "c"))
    core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, (config_entry(1, 1, joint),)), 1)
    assert core.config == joint
    assert core.peers == ("b", "c", "d")


def test_a_configuration_whose_entry_is_removed_is_in_force_no_longer():
    core = core_of(config_entry(1, 1, Config(("a",))))
    assert core.voters == ("a",)
    core.step(AppendEntries("b", "a", 2, 0, 0, 0, 0, (Entry(1, 2, EntryKind.NOOP),)), 1)
    assert core.voters == ("a", "b", "c")


def test_a_restarted_server_finds_the_configuration_in_its_log():
    assert core_of(config_entry(1, 1, Config(("a", "d")))).voters == ("a", "d")


def test_a_joint_election_needs_both_majorities():
    core = core_of(config_entry(1, 1, Config(("a", "d", "e"), ("a", "b", "c"))))
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("d", "a", 2, granted=True), core.now_us)
    assert core.role.name == "candidate"
    core.step(VoteReply("b", "a", 2, granted=True), core.now_us)
    assert core.role.name == "leader"


def test_a_joint_commit_needs_both_majorities_and_then_the_new_one_alone():
    core = leader()
    assert core.change_config(["a", "d", "e"], now_us=core.now_us) == 2
    settle(core)
    ok(core, "d", 2)
    ok(core, "e", 2)
    assert core.commit_index == 1
    ok(core, "b", 2)
    assert core.commit_index == 2
    assert core.config == Config(("a", "d", "e"))
    assert core.log.last_index == 3
    ok(core, "b", 3)
    assert core.commit_index == 2
    ok(core, "d", 3)
    assert core.commit_index == 3


def test_a_removed_leader_does_not_count_itself_and_steps_down_when_it_is_committed():
    core = leader()
    core.change_config(["b", "c"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 2)
    assert core.commit_index == 1  # of the new voters only b has it
    ok(core, "c", 2)
    assert (core.commit_index, core.log.last_index, core.role.name) == (2, 3, "leader")
    ok(core, "b", 3)
    assert core.role.name == "leader"
    last = ok(core, "c", 3)
    assert (core.commit_index, core.role.name) == (3, "follower")
    assert {m.dst for m in last if isinstance(m, AppendEntries) and m.commit_index == 3} == {"b", "c"}
    before = core.term
    core.tick(core.deadline_us)
    assert (core.role.name, core.term) == ("follower", before)  # not a voter: it disturbs nobody


def test_learners_get_the_log_and_count_for_nothing():
    core = leader()
    assert core.change_config(["a", "b", "c"], ["d"], now_us=core.now_us) == 2
    assert "d" in {message.dst for message in settle(core)}
    ok(core, "d", 2)
    assert core.commit_index == 1
    ok(core, "b", 2)
    assert core.commit_index == 2
    assert core.log.last_index == 2  # learners only: no joint step


@pytest.mark.parametrize(
    ("voters", "learners", "why"),
    [
        ([], [], "a cluster needs voters"),
        (["a"], ["a"], "nobody is voter and learner at once"),
    ],
)
def test_impossible_configurations_are_refused(voters, learners, why):
    assert why in leader().change_config(voters, learners, now_us=1)


def test_one_change_at_a_time_by_a_leader_that_has_committed_in_its_term():
    core = core_of()
    assert core.change_config(["a"], now_us=1) == "this node is not the leader"
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", core.term, granted=True), core.now_us)
    assert "an entry of its own term" in core.change_config(["a"], now_us=core.now_us)
    core = leader()
    core.change_config(["a", "b"], now_us=core.now_us)
    assert "under way" in core.change_config(["a", "b", "c"], now_us=core.now_us)


def test_a_learner_that_lags_is_not_promoted():
    core = leader()
    core.change_config(["a", "b", "c"], ["d"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 2)
    for _ in range(100):
        core.propose(b"x", core.now_us)
    settle(core)
    ok(core, "b", 102)
    assert "d has not caught up" in core.change_config(["a", "b", "c", "d"], now_us=core.now_us)
    ok(core, "d", 102)
    assert core.change_config(["a", "b", "c", "d"], now_us=core.now_us) == 103


def test_a_learner_that_was_never_heard_of_or_went_silent_is_not_promoted():
    core = leader()
    core.change_config(["a", "b", "c"], ["d"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 2)
    assert "d has not caught up" in core.change_config(["a", "b", "c", "d"], now_us=core.now_us)
    ok(core, "d", 2)
    later_us = core.now_us + core.options.election_timeout_us_max + 1
    assert "d has not caught up" in core.change_config(["a", "b", "c", "d"], now_us=later_us)
    assert core.change_config(["a", "b", "c", "d"], now_us=core.now_us - later_us) == 3


def test_a_transfer_to_a_member_that_leaves_is_forgotten():
    core = leader()
    core.change_config(["a", "b", "c"], ["d"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 2)
    core.transfer("c", core.now_us)
    core.change_config(["a", "b"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 3)
    ok(core, "c", 3)
    assert core.role.transfer_to is None


def test_a_cluster_is_replaced_node_by_node_under_load():
    """Three nodes give way to three others that start empty; what was written stays."""
    world = World(3, seed=5)
    invariants = Invariants()
    world.run(ms=1000)
    assert isinstance(world.call(world.leader(), Put("x", 1)), Done)

    class Joiner(Node):
        def __init__(self, name, peers, host, options, observer):
            super().__init__(name, (), host, options, observer, joining=True)

    for name in ("n4", "n5", "n6"):
        world.add(name, Joiner)
    world.after_event = lambda: [invariants.check(node.core) for node in world.nodes.values()]
    leader = world.nodes[world.leader()]
    assert isinstance(leader.change_config(["n1", "n2", "n3"], ["n4", "n5", "n6"]), int)
    world.run(ms=500)
    assert isinstance(leader.change_config(["n4", "n5", "n6"]), int)
    world.run(ms=3000)
    assert world.leader() in ("n4", "n5", "n6")
    for name in ("n1", "n2", "n3"):
        world.crash(name)
    world.after_event = None
    world.run(ms=1000)
    assert world.call(world.leader(), Get("x")).value == 1


def test_what_is_committed_before_a_change_does_not_finish_it():
    core = leader()
    core.propose(b"x", core.now_us)
    assert not core.is_changing_config
    assert core.change_config(["a", "d"], now_us=core.now_us) == 3
    settle(core)
    ok(core, "b", 2)
    assert core.commit_index == 1  # from the moment it is in the log, the new voters count too
    ok(core, "d", 2)
    assert core.commit_index == 2
    assert core.is_changing_config
    assert core.config_index == 3


def test_learners_that_have_caught_up_become_voters_by_themselves():
    core = leader()
    core.options = replace(core.options, promotes_learners=True)
    core.change_config(["a", "b", "c"], ["d", "e"], now_us=core.now_us)
    settle(core)
    ok(core, "b", 2)
    for _ in range(100):
        core.propose(b"x", core.now_us)
    settle(core)
    ok(core, "b", 102)
    ok(core, "d", 102)

    def heartbeat():
        core.tick(core.heartbeat_us)
        settle(core)

    heartbeat()
    assert (core.voters, core.config.learners) == (("a", "b", "c", "d"), ("e",))
    heartbeat()  # one change at a time
    assert core.config.outgoing == ("a", "b", "c")
    for index in (103, 104):
        for peer in ("b", "c", "d"):
            ok(core, peer, index)
    heartbeat()  # e lags: nothing to do
    assert (core.voters, core.config) == (("a", "b", "c", "d"), Config(("a", "b", "c", "d"), (), ("e",)))
