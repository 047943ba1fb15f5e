"""Linearizable reads: thesis 6.4."""

import pytest

from raft.core import (
    AppendEntries,
    AppendReply,
    Core,
    HardState,
    Options,
    ReadIndex,
    ReadIndexReply,
    Saved,
    TimeoutNow,
    VoteReply,
)


def core_of(**options):
    options = Options(**{"pre_vote": False, **options})
    return Core("a", ("a", "b", "c"), Saved(HardState(0)), random=lambda: 0.5, now_us=0, options=options)


def settle(core):
    messages, reads = [], []
    while (ready := core.ready()) is not None:
        reads += ready.reads
        for message in [*ready.messages, *ready.held]:
            if message.dst == core.name:
                core.step(message, core.now_us)
            else:
                messages.append(message)
    return messages, reads


def lead(core):
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", core.term, granted=True), core.now_us)
    settle(core)
    return core


def ok(core, peer, index, read_seq=0, now_us=None):
    core.step(AppendReply(peer, "a", core.term, True, index, 0, 0, read_seq), now_us or core.now_us)


def test_a_read_needs_a_round_that_began_after_it_arrived():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    assert core.read("r1", core.now_us)
    messages, reads = settle(core)
    assert [message.read_seq for message in messages] == [1, 1]
    assert reads == []
    ok(core, "c", 1, read_seq=0)  # answers an earlier message
    assert settle(core)[1] == []
    ok(core, "c", 1, read_seq=1)
    assert settle(core)[1] == [("r1", 1)]


def test_a_read_waits_for_an_entry_of_the_own_term():
    core = lead(core_of())
    core.read("r1", core.now_us)
    assert settle(core)[0] == []
    ok(core, "b", 1)
    assert [message.read_seq for message in settle(core)[0]] == [1, 1]
    core.read("r2", core.now_us)
    ok(core, "b", 1, read_seq=1)
    assert settle(core)[1] == [("r1", 1)]


def test_reads_that_come_together_share_a_round_and_later_ones_do_not():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    core.read("r1", core.now_us)
    core.read("r2", core.now_us)
    settle(core)
    core.read("r3", core.now_us)
    assert settle(core)[0] == []  # one round is out
    ok(core, "b", 1, read_seq=1)
    messages, reads = settle(core)
    assert reads == [("r1", 1), ("r2", 1)]
    if not messages:
        core.tick(core.deadline_us)
        messages, _ = settle(core)
    assert {message.read_seq for message in messages} == {2}
    ok(core, "b", 1, read_seq=1)
    assert settle(core)[1] == []
    ok(core, "c", 1, read_seq=2)
    assert settle(core)[1] == [("r3", 1)]


def test_a_heartbeat_begins_a_new_round_when_answers_are_lost():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    core.read("r1", core.now_us)
    settle(core)
    core.read("r2", core.now_us)
    core.tick(core.deadline_us)
    assert {message.read_seq for message in settle(core)[0]} == {2}
    ok(core, "b", 1, read_seq=2)
    assert settle(core)[1] == [("r1", 1), ("r2", 1)]


def test_a_rejection_confirms_leadership_as_well_as_a_success():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    core.read("r1", core.now_us)
    settle(core)
    core.step(AppendReply("c", "a", core.term, False, 1, 0, 0, 1), core.now_us)
    assert settle(core)[1] == [("r1", 1)]


def test_a_deposed_leader_answers_no_read():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    core.read("r1", core.now_us)
    settle(core)
    core.step(AppendReply("b", "a", core.term + 1, True, 1, 0, 0, 1), core.now_us)
    assert core.role.name == "follower"
    assert settle(core)[1] == []
    assert not core.read("r2", core.now_us)


def test_a_read_is_not_handed_out_before_the_entries_it_must_see():
    core = lead(core_of(committed_per_turn_max=1))
    for _ in range(3):
        core.propose(b"x", core.now_us)
    settle(core)
    ok(core, "b", 4)
    core.read("r1", core.now_us)
    first = core.ready()
    assert first.committed
    ok(core, "b", 4, read_seq=1)
    seen = []
    while (ready := core.ready()) is not None:
        seen.append((len(ready.committed), list(ready.reads)))
    assert seen == [(1, []), (1, []), (1, [("r1", 4)])]


# -- leases -------------------------------------------------------------------------------------------------


def test_a_lease_answers_at_once_and_runs_out():
    core = lead(core_of(lease_reads=True))
    ok(core, "b", 1)
    settle(core)
    core.tick(core.deadline_us)
    sent_us = core.now_us
    seq = settle(core)[0][0].read_seq
    ok(core, "b", 1, read_seq=seq, now_us=sent_us + 20_000)
    settle(core)
    core.read("r1", sent_us + 30_000)
    assert settle(core) == ([], [("r1", 1)])
    # 150 ms, less what clocks may drift, from when the heartbeat was sent, not from when it was answered.
    core.read("r2", sent_us + 134_000)
    assert settle(core) == ([], [("r2", 1)])
    core.read("r3", sent_us + 135_000)
    assert settle(core)[1] == []


def test_a_transfer_ends_the_lease():
    """The target may be elected at any time, and voters vote for it at once."""
    core = lead(core_of(lease_reads=True))
    ok(core, "b", 1)
    settle(core)
    core.tick(core.deadline_us)
    seq = settle(core)[0][0].read_seq
    ok(core, "b", 1, read_seq=seq)
    settle(core)
    assert core.transfer("b", core.now_us)
    settle(core)
    core.read("r1", core.now_us)
    assert settle(core)[1] == []


def test_a_transfer_that_came_to_nothing_leaves_no_lease():
    """The message that asks for the election may still be on its way, and voters would vote at once."""
    core = lead(core_of(lease_reads=True))
    ok(core, "b", 1)
    settle(core)
    assert core.transfer("b", core.now_us)
    assert any(isinstance(message, TimeoutNow) for message in settle(core)[0])
    while core.role.transfer_to is not None:
        core.tick(core.deadline_us)
        ok(core, "c", 1, read_seq=settle(core)[0][0].read_seq)
        settle(core)
    core.read("r1", core.now_us)
    assert settle(core)[1] == []
    ok(core, "c", 1, read_seq=core.role.read_seq)
    assert settle(core)[1] == [("r1", 1)]


def test_a_transfer_to_one_who_lags_leaves_the_lease_until_it_is_asked_to_campaign():
    core = lead(core_of(lease_reads=True))
    ok(core, "c", 1)
    settle(core)
    core.tick(core.deadline_us)
    ok(core, "c", 1, read_seq=settle(core)[0][0].read_seq)
    settle(core)
    assert core.transfer("b", core.now_us)
    core.read("r1", core.now_us)
    assert settle(core)[1] == [("r1", 1)]


def test_leases_need_check_quorum():
    with pytest.raises(ValueError, match="lease_reads needs check_quorum"):
        Options(lease_reads=True, check_quorum=False)


def test_a_restarted_node_keeps_the_promise_it_may_have_made():
    fresh = core_of(lease_reads=True)
    assert fresh.now_us - fresh.heard_us < 150_000


# -- follower reads -----------------------------------------------------------------------------------------


def follower(**options):
    core = core_of(follower_reads=True, **options)
    core.step(AppendEntries("b", "a", 3, 0, 0, 0, 0, ()), 1)
    settle(core)
    return core


def test_a_follower_asks_the_leader_and_waits_until_it_has_applied_as_much():
    core = follower()
    assert core.read("r1", 2)
    ask = settle(core)[0][0]
    assert (ask.dst, ask.term) == ("b", 3)
    core.step(ReadIndexReply("b", "a", 3, ask.read_id, 0), 3)
    assert settle(core)[1] == [("r1", 0)]
    core.step(ReadIndexReply("b", "a", 3, ask.read_id, 0), 3)  # twice
    assert settle(core)[1] == []


def test_the_leader_gives_the_index_after_a_round():
    core = lead(core_of())
    ok(core, "b", 1)
    settle(core)
    core.step(ReadIndex("c", "a", core.term, 77), core.now_us)
    settle(core)
    ok(core, "b", 1, read_seq=1)
    assert ReadIndexReply("a", "c", core.term, 77, 1) in settle(core)[0]


def test_without_a_leader_or_the_option_a_follower_serves_no_read():
    assert not core_of(follower_reads=True).read("r", 1)
    core = core_of()
    core.step(AppendEntries("b", "a", 3, 0, 0, 0, 0, ()), 1)
    assert not core.read("r", 1)


def test_questions_without_answers_are_bounded():
    core = follower(pending_reads_max=2)
    for number in range(5):
        assert core.read(number, 2)
    assert list(core.role.asked_reads.values()) == [3, 4]


def test_questions_to_a_former_leader_are_forgotten():
    core = follower()
    core.read("r1", 2)
    ask = settle(core)[0][0]
    core.step(AppendEntries("c", "a", 4, 0, 0, 0, 0, ()), 3)
    core.step(ReadIndexReply("b", "a", 4, ask.read_id, 0), 3)
    assert settle(core)[1] == []


def test_a_transfer_under_way_keeps_a_late_answer_from_renewing_the_lease():
    core = lead(core_of(lease_reads=True))
    ok(core, "b", 1, read_seq=core.role.read_seq)
    settle(core)
    core.tick(core.heartbeat_us)
    settle(core)
    assert core.transfer("b", core.now_us)
    ok(core, "c", 1, read_seq=core.role.read_seq)
    settle(core)
    assert len(core.role.sent_us) == 0
    core.read("r1", core.now_us)
    assert settle(core)[1] == []


def test_an_answer_to_nobodys_question_is_dropped():
    core = follower()
    core.step(ReadIndexReply("b", "a", core.term, 12345, 1), core.now_us)
    assert core.ready() is None


def test_answered_reads_wait_for_each_their_own_index():
    core = follower()
    for context in ("early", "late"):
        assert core.read(context, core.now_us)
    first, second = sorted(core.role.asked_reads)
    core.step(ReadIndexReply("b", "a", core.term, first, core.commit_index), core.now_us)
    core.step(ReadIndexReply("b", "a", core.term, second, core.commit_index + 9), core.now_us)
    assert [context for context, _ in settle(core)[1]] == ["early"]
    assert settle(core)[1] == []


def test_who_is_no_leader_gives_no_index():
    core = follower()
    settle(core)
    core.step(ReadIndex("c", "a", core.term, 1), core.now_us)
    assert core.ready() is None


def test_questions_of_followers_are_bounded_at_the_leader_while_nobody_confirms_that_it_leads():
    core = lead(core_of(pending_reads_max=2))
    ok(core, "b", 1)
    settle(core)
    for read_id in range(9):
        core.step(ReadIndex("c", "a", core.term, read_id), core.now_us)
        settle(core)
    rounds = [len(one.contexts) for one in core.role.read_rounds]
    assert sum(rounds) + len(core.role.waiting_reads) == 2
