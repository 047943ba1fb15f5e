"""Leader election: sections 5.2 and 5.4.1 of the paper, one test for each rule."""

from dataclasses import replace

import pytest

from raft.core import (
    AppendEntries,
    AppendReply,
    Core,
    Entry,
    EntryKind,
    HardState,
    Options,
    ProtocolViolation,
    RequestVote,
    Saved,
    SaveHardState,
    VoteReply,
)

NAMES = ("a", "b", "c", "d", "e")
PLAIN = Options(pre_vote=False, check_quorum=False)  # as in the paper


def core_of(*terms, term=None, vote=None, names=NAMES, random=lambda: 0.5, options=PLAIN):
    entries = tuple(Entry(index, t, EntryKind.COMMAND) for index, t in enumerate(terms, 1))
    saved = Saved(HardState(term if term is not None else (terms[-1] if terms else 0), vote), entries)
    return Core("a", names, saved, random=random, now_us=0, options=options)


def settle(core):
    """Steps the node's held messages as if the disk were instant; returns others' messages, and records."""
    messages, records = [], []
    while (ready := core.ready()) is not None:
        records += ready.records
        for message in [*ready.messages, *ready.held]:
            if message.dst == core.name:
                core.step(message, core.now_us)
            else:
                messages.append(message)
    return messages, records


def elected(core):
    core.tick(core.deadline_us)
    settle(core)
    for peer in core.peers[: len(core.voters) // 2]:
        core.step(VoteReply(peer, core.name, core.term, granted=True), core.now_us)
    assert core.role.name == "leader"
    return settle(core)[0]


def test_all_start_as_followers_in_term_0():
    core = core_of()
    assert (core.role.name, core.term, core.leader) == ("follower", 0, None)


@pytest.mark.parametrize(("draw", "expected_us"), [(0.0, 150_000), (0.5, 225_000), (0.999999, 299_999)])
def test_election_timeouts_are_drawn_from_150_to_300_ms(draw, expected_us):
    assert core_of(random=lambda: draw).deadline_us == expected_us


def test_a_follower_that_hears_nothing_becomes_a_candidate():
    core = core_of(1, 2)
    core.tick(core.deadline_us - 1)
    assert core.role.name == "follower"
    core.tick(core.deadline_us)
    assert (core.role.name, core.term, core.voted_for) == ("candidate", 3, "a")
    messages, records = settle(core)
    assert messages == [RequestVote("a", peer, 3, 2, 2) for peer in "bcde"]
    assert records == [SaveHardState(3, "a")]


def test_requests_for_votes_wait_for_the_disk():
    core = core_of()
    core.tick(core.deadline_us)
    ready = core.ready()
    assert ready.messages == []
    assert len(ready.held) == 5  # four requests, and the own vote, which counts once it is durable too
    assert core.role.granted == []


def test_the_candidate_asks_again_those_who_have_not_answered():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", 1, granted=True), core.now_us)
    core.step(VoteReply("c", "a", 1, granted=False), core.now_us)
    core.tick(core.deadline_us)
    assert [message.dst for message in settle(core)[0]] == ["d", "e"]


def test_votes_of_a_majority_make_a_leader():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    core.step(VoteReply("b", "a", 1, granted=True), core.now_us)
    assert core.role.name == "candidate"
    core.step(VoteReply("c", "a", 1, granted=True), core.now_us)
    assert (core.role.name, core.leader) == ("leader", "a")


def test_a_vote_counts_once_however_often_it_arrives():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    for _ in range(3):
        core.step(VoteReply("b", "a", 1, granted=True), core.now_us)
    assert core.role.name == "candidate"


def test_the_vote_of_a_stranger_does_not_count():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    for stranger in ("x", "y", "z"):
        core.step(VoteReply(stranger, "a", 1, granted=True), core.now_us)
    assert core.role.name == "candidate"


def test_a_vote_of_an_older_term_does_not_count():
    core = core_of(term=4)
    core.tick(core.deadline_us)
    settle(core)
    for peer in "bcd":
        core.step(VoteReply(peer, "a", 4, granted=True), core.now_us)
    assert core.role.name == "candidate"


def test_refusals_do_not_elect():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    for peer in "bcde":
        core.step(VoteReply(peer, "a", 1, granted=False), core.now_us)
    assert core.role.name == "candidate"


def test_a_candidate_that_wins_nothing_starts_again_in_a_new_term():
    core = core_of()
    core.tick(core.deadline_us)
    first = core.election_us
    core.tick(first)
    assert (core.role.name, core.term) == ("candidate", 2)
    assert core.election_us > first


def test_a_new_leader_says_so_at_once():
    messages = elected(core_of())
    assert [type(message) for message in messages] == [AppendEntries] * 4
    assert [message.dst for message in messages] == ["b", "c", "d", "e"]


def test_a_late_vote_does_not_disturb_a_leader():
    core = core_of()
    elected(core)
    core.step(VoteReply("e", "a", 1, granted=True), core.now_us)
    assert settle(core) == ([], [])


def test_one_vote_a_term_first_come_first_served():
    core = core_of()
    core.step(RequestVote("b", "a", 1, 0, 0), 1)
    core.step(RequestVote("c", "a", 1, 9, 1), 2)
    core.step(RequestVote("b", "a", 1, 0, 0), 3)  # asked again, the same answer
    messages, records = settle(core)
    assert messages == [
        VoteReply("a", "b", 1, granted=True),
        VoteReply("a", "c", 1, granted=False),
        VoteReply("a", "b", 1, granted=True),
    ]
    assert records == [SaveHardState(1, "b")]


def test_a_vote_waits_for_the_disk():
    core = core_of()
    core.step(RequestVote("b", "a", 1, 0, 0), 1)
    ready = core.ready()
    assert ready.messages == []
    assert ready.held == [VoteReply("a", "b", 1, granted=True)]


def test_a_vote_survives_a_restart():
    core = core_of(term=3, vote="b")
    core.step(RequestVote("c", "a", 3, 0, 0), 1)
    core.step(RequestVote("b", "a", 3, 0, 0), 2)
    assert [message.granted for message in settle(core)[0]] == [False, True]


def test_a_new_term_is_a_new_vote():
    core = core_of(term=3, vote="b")
    core.step(RequestVote("c", "a", 4, 0, 0), 1)
    assert settle(core) == ([VoteReply("a", "c", 4, granted=True)], [SaveHardState(4, "c")])


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [
        (3, 2, True),  # the same log
        (4, 2, True),  # longer
        (2, 2, False),  # shorter
        (1, 3, True),  # shorter, but of a later term
        (9, 1, False),  # longer, but of an earlier term
    ],
)
def test_only_a_log_at_least_as_up_to_date_gets_the_vote(last_index, last_term, granted):
    core = core_of(1, 1, 2)
    core.step(RequestVote("b", "a", 3, last_index, last_term), 1)
    assert settle(core)[0] == [VoteReply("a", "b", 3, granted=granted)]


def test_granting_restarts_the_election_timer_and_refusing_does_not():
    core = core_of(1, 1, 2)
    before = core.deadline_us
    core.step(RequestVote("b", "a", 3, 1, 1), 50_000)
    assert core.deadline_us == before
    core.step(RequestVote("c", "a", 3, 3, 2), 50_000)
    assert core.deadline_us == before + 50_000


def test_a_request_of_an_older_term_is_refused_and_learns_the_term():
    core = core_of(term=5)
    core.step(RequestVote("b", "a", 4, 9, 4), 1)
    assert settle(core)[0] == [VoteReply("a", "b", 5, granted=False)]


@pytest.mark.parametrize(
    "message",
    [
        VoteReply("b", "a", 9, granted=False),
        AppendReply("b", "a", 9, ok=False, index=0, hint_index=0, hint_term=0, read_seq=0),
        RequestVote("b", "a", 9, 0, 0),
        AppendEntries("b", "a", 9, 0, 0, 0, 0, ()),
    ],
)
@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_any_message_of_a_newer_term_makes_a_follower(role, message):
    core = core_of()
    if role == "leader":
        elected(core)
    elif role == "candidate":
        core.tick(core.deadline_us)
        settle(core)
    core.step(message, core.now_us)
    assert (core.role.name, core.term) == ("follower", 9)
    assert settle(core)[1][0].term == 9
    assert core.deadline_us > core.now_us


def test_a_candidate_yields_to_the_leader_of_its_term():
    core = core_of()
    core.tick(core.deadline_us)
    core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, ()), core.now_us)
    assert (core.role.name, core.leader, core.voted_for) == ("follower", "b", "a")


def test_two_leaders_of_a_term_stop_the_node():
    core = core_of()
    elected(core)
    with pytest.raises(ProtocolViolation, match="another leader of the same term"):
        core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, ()), core.now_us)


def test_heartbeats_keep_followers_quiet():
    core = core_of()
    for now_us in range(0, 1_000_000, 50_000):
        core.step(AppendEntries("b", "a", 1, 0, 0, 0, 0, ()), now_us)
        core.tick(now_us + 49_000)
    assert core.role.name == "follower"


def test_a_leader_sends_heartbeats_every_50_ms():
    core = core_of()
    elected(core)
    due = core.deadline_us
    assert due - core.now_us == 50_000
    core.tick(due)
    assert len(settle(core)[0]) == 4
    assert core.deadline_us == due + 50_000


def test_a_single_node_elects_itself():
    core = core_of(names=("a",))
    core.tick(core.deadline_us)
    settle(core)
    assert core.role.name == "leader"
    assert core.commit_index == 1


def test_a_refusal_that_comes_twice_is_one():
    core = core_of()
    core.tick(core.deadline_us)
    settle(core)
    for _ in range(2):
        core.step(VoteReply("b", "a", core.term, granted=False), core.now_us)
    assert core.role.refused == ["b"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"election_timeout_us_min": 9, "election_timeout_us_max": 8}, "give a positive minimum"),
        ({"heartbeat_us": 150_000}, "must be positive and below"),
        ({"lease_drift_max": 1.0}, "lease_drift_max 1.0 must be in"),
        ({"pending_reads_max": 0}, "pending_reads_max 0 must be at least 1"),
        ({"snapshot_trailing": -1}, "snapshot_trailing -1 must not be negative"),
    ],
)
def test_options_under_which_nothing_could_last_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        Options(**options)


@pytest.mark.parametrize("pre", [False, True])
@pytest.mark.parametrize(
    ("last", "priority", "transfer", "granted"),
    [
        ((2, 1), 0, False, False),  # as good a log, and less wanted
        ((2, 1), 5, False, True),
        ((3, 1), 0, False, True),  # a better log
        ((2, 1), 0, True, True),  # the leader itself says so
    ],
)
def test_of_equally_good_logs_that_of_the_higher_priority_gets_the_vote(
    pre, last, priority, transfer, granted
):
    core = core_of(1, 1, term=3, options=replace(PLAIN, priority=5))
    core.step(RequestVote("b", "a", 4, *last, pre, transfer, priority), 1)
    (reply,) = [message for message in settle(core)[0] if isinstance(message, VoteReply)]
    assert reply.granted == granted


def test_who_may_not_lead_has_no_priority():
    core = core_of(1, 1, term=3, names=("b", "c"), options=replace(PLAIN, priority=5))
    core.step(RequestVote("b", "a", 4, 2, 1), 1)
    (reply,) = [message for message in settle(core)[0] if isinstance(message, VoteReply)]
    assert reply.granted


def test_a_candidate_tells_its_priority():
    core = core_of(options=replace(PLAIN, priority=7))
    core.tick(core.deadline_us)
    assert {message.priority for message in settle(core)[0]} == {7}
