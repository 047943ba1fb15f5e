"""What keeps leaders: PreVote (thesis 9.6), CheckQuorum (6.2), stickiness (4.2.3), transfer (3.10)."""

from raft.core import (
    AppendEntries,
    AppendReply,
    Core,
    Entry,
    EntryKind,
    HardState,
    Options,
    RequestVote,
    Saved,
    TimeoutNow,
    VoteReply,
)
from raft.testing import World


def core_of(*terms, term=None, names=("a", "b", "c"), **options):
    entries = tuple(Entry(index, t, EntryKind.COMMAND) for index, t in enumerate(terms, 1))
    saved = Saved(HardState(term if term is not None else (terms[-1] if terms else 0)), entries)
    return Core("a", names, saved, random=lambda: 0.5, now_us=0, options=Options(**options))


def settle(core):
    messages, records = [], []
    while (ready := core.ready()) is not None:
        records += ready.records
        for message in [*ready.messages, *ready.held]:
            if message.dst == core.name:
                core.step(message, core.now_us)
            else:
                messages.append(message)
    return messages, records


def lead(core):
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", core.term + 1, granted=True, pre=True), core.now_us)
    settle(core)
    core.step(VoteReply("b", "a", core.term, granted=True), core.now_us)
    assert core.role.name == "leader"
    settle(core)
    return core


# -- PreVote ------------------------------------------------------------------------------------------------


def test_a_pre_candidate_asks_about_the_next_term_and_changes_nothing():
    core = core_of(1, term=5)
    core.tick(core.deadline_us)
    messages, records = settle(core)
    assert messages == [RequestVote("a", peer, 6, 1, 1, pre=True) for peer in "bc"]
    assert (core.role.name, core.term, records) == ("pre-candidate", 5, [])


def test_a_majority_of_pre_votes_starts_the_election():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", 1, granted=True, pre=True), core.now_us)
    assert (core.role.name, core.term) == ("candidate", 1)


def test_a_pre_vote_is_not_a_vote_and_a_vote_no_pre_vote():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", 0, granted=True), core.now_us)
    assert core.role.name == "pre-candidate"
    core.step(VoteReply("b", "a", 1, granted=True, pre=True), core.now_us)
    settle(core)
    core.step(VoteReply("b", "a", 1, granted=True, pre=True), core.now_us)
    core.step(VoteReply("c", "a", 1, granted=True, pre=True), core.now_us)
    assert core.role.name == "candidate"


def test_granting_a_pre_vote_is_no_promise():
    core = core_of(term=3)
    core.step(RequestVote("b", "a", 4, 0, 0, pre=True), 1)
    core.step(RequestVote("c", "a", 4, 0, 0, pre=True), 2)
    messages, records = settle(core)
    assert [(m.term, m.granted, m.pre) for m in messages] == [(4, True, True), (4, True, True)]
    assert (core.term, core.voted_for, records) == (3, None, [])


def test_a_pre_vote_is_refused_to_an_older_log_and_for_no_newer_term():
    core = core_of(1, 2, term=3)
    core.step(RequestVote("b", "a", 4, 9, 1, pre=True), 1)
    core.step(RequestVote("b", "a", 3, 9, 3, pre=True), 2)
    core.step(RequestVote("b", "a", 2, 9, 2, pre=True), 3)
    assert [(m.term, m.granted, m.pre) for m in settle(core)[0]] == [(3, False, True)] * 3


def test_a_refused_pre_candidate_learns_a_newer_term():
    """Or two groups, each behind the other in term or in log, would refuse each other for ever."""
    core = core_of(term=3)
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", 3, granted=False, pre=True), core.now_us)
    assert core.role.name == "pre-candidate"
    core.step(VoteReply("c", "a", 7, granted=False, pre=True), core.now_us)
    assert (core.role.name, core.term) == ("follower", 7)


def test_a_node_that_was_cut_off_does_not_depose_the_leader():
    world = World(3, seed=3)
    world.run(ms=1000)
    leader = world.leader()
    outsider = next(name for name in world.names if name != leader)
    world.partition([name for name in world.names if name != outsider])
    world.run(ms=3000)
    term = world.nodes[leader].core.term
    world.heal()
    world.run(ms=1000)
    assert world.leader() == leader
    assert {node.core.term for node in world.nodes.values()} == {term}


# -- stickiness and CheckQuorum -----------------------------------------------------------------------------


def test_a_voter_that_hears_a_leader_ignores_candidates():
    core = core_of()
    core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, ()), 1000)
    settle(core)
    core.step(RequestVote("c", "a", 9, 5, 5), 150_000)
    assert (settle(core)[0], core.term) == ([], 1)
    core.step(RequestVote("c", "a", 9, 5, 5), 151_000)
    assert core.voted_for == "c"


def test_a_leader_ignores_candidates_unless_it_asked_for_the_election():
    core = lead(core_of())
    core.step(RequestVote("c", "a", 9, 5, 5), core.now_us)
    assert core.role.name == "leader"
    core.step(RequestVote("c", "a", 9, 5, 5, transfer=True), core.now_us)
    assert core.voted_for == "c"


def test_a_leader_nobody_answers_steps_down():
    core = lead(core_of())
    for _ in range(20):
        core.tick(core.deadline_us)
        if core.role.name != "leader":
            break
    assert core.role.name == "follower"
    assert core.leader is None
    assert 300_000 < core.now_us - 225_000 <= 360_000


def test_a_leader_a_majority_answers_stays():
    core = lead(core_of())
    for _ in range(20):
        core.tick(core.deadline_us)
        core.step(AppendReply("c", "a", core.term, True, 1, 0, 0, 0), core.now_us)
    assert core.role.name == "leader"


def test_a_newer_term_in_an_append_reply_still_deposes():
    """A follower that has moved on must be able to join again."""
    core = lead(core_of())
    core.step(AppendReply("c", "a", 7, False, 0, 0, 0, 0), core.now_us)
    assert (core.role.name, core.term) == ("follower", 7)


# -- transfer -----------------------------------------------------------------------------------------------


def test_leadership_is_handed_over_once_the_target_has_the_log():
    core = lead(core_of())
    core.step(AppendReply("c", "a", 1, True, 1, 0, 0, 0), core.now_us)
    settle(core)
    assert core.transfer("b", core.now_us)
    assert settle(core)[0] == []
    assert core.propose(b"x", core.now_us) is None
    core.step(AppendReply("b", "a", 1, True, 1, 0, 0, 0), core.now_us)
    assert TimeoutNow("a", "b", 1) in settle(core)[0]


def test_a_transfer_that_fails_is_given_up():
    core = lead(core_of(check_quorum=False))
    core.transfer("b", core.now_us)
    for _ in range(8):
        core.tick(core.deadline_us)
    assert core.propose(b"x", core.now_us) is not None


def test_no_transfer_to_oneself_to_strangers_or_by_a_follower():
    core = core_of()
    assert not core.transfer("b", 1)
    lead(core)
    assert not core.transfer("a", core.now_us)
    assert not core.transfer("x", core.now_us)


def test_the_target_campaigns_at_once_past_pre_vote():
    core = core_of()
    core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, ()), 1)
    core.step(TimeoutNow("b", "a", 1), 2)
    assert (core.role.name, core.term) == ("candidate", 2)
    assert all(message.transfer for message in settle(core)[0][1:])


def test_a_late_or_foreign_timeout_now_is_ignored():
    core = core_of()
    core.step(AppendEntries("b", "a", 3, 0, 0, 0, 0, ()), 1)
    core.step(TimeoutNow("c", "a", 3), 2)
    core.step(TimeoutNow("b", "a", 2), 3)
    assert (core.role.name, core.term) == ("follower", 3)


def test_a_transfer_takes_less_than_an_election_timeout():
    world = World(5, seed=1)
    world.run(ms=1000)
    old = world.leader()
    new = next(name for name in world.names if name != old)
    assert world.nodes[old].transfer(new)
    world.run(ms=50)
    assert world.leader() == new


def test_leadership_goes_to_one_who_answers_however_complete_the_log_of_another_is():
    world = World(3, seed=1)
    world.run(ms=1000)
    old = world.leader()
    away, new = (name for name in world.names if name != old)
    world.partition([old, new])
    world.run(ms=1000)
    assert world.leader() == old
    assert world.nodes[old].transfer()
    world.run(ms=100)
    assert (world.leader(), world.nodes[away].core.role.name != "leader") == (new, True)
