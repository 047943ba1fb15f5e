"""Log replication: sections 5.3 and 5.4 of the paper, with its Figures 7 and 8."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.core import (
    AppendEntries,
    AppendReply,
    Core,
    Entry,
    EntryKind,
    HardState,
    Options,
    ProtocolViolation,
    Saved,
    SaveEntries,
    TruncateFrom,
    VoteReply,
)

NAMES = ("a", "b", "c", "d", "e")


def entries_of(*terms, first=1):
    return tuple(
        Entry(index, term, EntryKind.COMMAND, b"%d" % term) for index, term in enumerate(terms, first)
    )


def core_of(*terms, name="a", names=NAMES, term=None, **options):
    options = Options(**{"pre_vote": False, "check_quorum": False, **options})
    saved = Saved(HardState(term if term is not None else (terms[-1] if terms else 0)), entries_of(*terms))
    return Core(name, names, saved, random=lambda: 0.5, now_us=0, options=options)


def settle(core):
    """Everything that leaves the node while its disk is instant, the records, and what was committed."""
    messages, records, committed = [], [], []
    while (ready := core.ready()) is not None:
        records += ready.records
        committed += ready.committed
        for message in [*ready.messages, *ready.held]:
            if message.dst == core.name:
                core.step(message, core.now_us)
            else:
                messages.append(message)
    return messages, records, committed


def lead(core):
    """Elects the node; returns what it sends."""
    core.tick(core.deadline_us)
    settle(core)
    for peer in core.peers[: len(core.voters) // 2]:
        core.step(VoteReply(peer, core.name, core.term, granted=True), core.now_us)
    return settle(core)[0]


def ok(core, peer, index, read_seq=0):
    core.step(AppendReply(peer, core.name, core.term, True, index, 0, 0, read_seq), core.now_us)


def append(prev_index, prev_term, *terms, term=9, commit=0):
    return AppendEntries(
        "b", "a", term, prev_index, prev_term, commit, 0, entries_of(*terms, first=prev_index + 1)
    )


# -- the follower -------------------------------------------------------------------------------------------


def test_entries_that_follow_are_appended_and_acknowledged_once_durable():
    core = core_of(1)
    core.step(append(1, 1, 2, 2), 1)
    ready = core.ready()
    assert ready.messages == []
    assert ready.records[-1] == SaveEntries(entries_of(2, 2, first=2))
    assert ready.held == [AppendReply("a", "b", 9, True, 3, 0, 0, 0)]


def test_the_consistency_check_rejects_a_gap_with_a_hint():
    core = core_of(1, 1, 4)
    core.step(append(10, 6, 6), 1)
    assert settle(core)[0] == [AppendReply("a", "b", 9, False, 10, 3, 4, 0)]


def test_the_consistency_check_rejects_another_term_and_skips_all_of_it():
    core = core_of(1, 1, 4, 4, 4)
    core.step(append(5, 3, 6), 1)
    assert settle(core)[0] == [AppendReply("a", "b", 9, False, 5, 2, 1, 0)]


def test_a_conflict_removes_it_and_all_after_it():
    core = core_of(1, 2, 2, 2)
    core.step(append(1, 1, 3), 1)
    assert settle(core)[1][-2:] == [TruncateFrom(2), SaveEntries(entries_of(3, first=2))]
    assert [entry.term for entry in core.log.entries] == [1, 3]


def test_what_is_there_already_stays_whatever_comes_late():
    """A repeated or overtaken message must not remove what was acknowledged since."""
    core = core_of(1, 2, 2, 2)
    core.step(append(1, 1, 2), 1)
    messages, records, _ = settle(core)
    assert core.log.last_index == 4
    assert messages == [AppendReply("a", "b", 9, True, 2, 0, 0, 0)]  # not 4: the message proves no more
    assert not any(isinstance(record, TruncateFrom) for record in records)


def test_a_follower_commits_no_further_than_the_message_proves():
    core = core_of(1, 2, 2, 2)
    core.step(append(1, 1, commit=4), 1)
    assert core.commit_index == 1
    core.step(append(1, 1, 2, 2, 2, commit=3), 1)
    assert core.commit_index == 3
    core.step(append(1, 1, commit=1), 1)
    assert core.commit_index == 3


def test_committed_entries_come_out_once_in_order_and_bounded():
    core = core_of(1, 1, 1, 1, 1, committed_per_turn_max=2)
    core.step(append(5, 1, commit=5), 1)
    sizes = []
    while (ready := core.ready()) is not None:
        sizes.append([entry.index for entry in ready.committed])
    assert sizes == [[1, 2], [3, 4], [5]]


def test_an_older_leader_is_refused_and_learns_the_term():
    core = core_of(term=9)
    core.step(append(0, 0, 1, term=4), 1)
    assert settle(core)[0] == [AppendReply("a", "b", 9, False, 0, 0, 0, 0)]
    assert core.log.last_index == 0


def test_a_conflict_with_what_is_committed_stops_the_node():
    core = core_of(1, 2, 2)
    core.step(append(3, 2, commit=3), 1)
    with pytest.raises(ProtocolViolation, match="committed"):
        core.step(append(1, 1, 5), 2)


# -- the leader ---------------------------------------------------------------------------------------------


def test_a_leader_opens_its_term_with_an_entry_of_its_own():
    core = core_of(1)
    messages = lead(core)
    assert core.log.entries[-1] == Entry(2, 2, EntryKind.NOOP)
    assert all(
        message.prev_index == 1 and message.entries == (Entry(2, 2, EntryKind.NOOP),) for message in messages
    )


def test_a_leader_replicates_in_parallel_with_its_own_disk():
    core = core_of()
    lead(core)
    for peer in core.peers:
        ok(core, peer, 1)
    assert core.propose(b"x", core.now_us) == 2
    ready = core.ready()
    assert [message.dst for message in ready.messages] == ["b", "c", "d", "e"]
    assert ready.held == [AppendReply("a", "a", 1, True, 2, 0, 0, 0)]


def test_an_entry_is_committed_once_a_majority_has_it_the_leader_included_when_durable():
    core = core_of()
    lead(core)
    assert core.commit_index == 0
    ok(core, "b", 1)
    assert core.commit_index == 0
    ok(core, "b", 1)  # the same follower again
    assert core.commit_index == 0
    ok(core, "c", 1)
    assert core.commit_index == 1


def test_two_followers_and_an_unsynced_leader_are_no_majority():
    core = core_of()
    lead(core)
    core.propose(b"x", core.now_us)
    core.ready()  # its own log is not durable yet
    ok(core, "b", 2)
    ok(core, "c", 2)
    assert core.commit_index == 1


def test_followers_learn_the_commit_index_with_the_next_message():
    core = core_of()
    lead(core)
    ok(core, "b", 1)
    ok(core, "c", 1)
    core.tick(core.deadline_us)
    assert {message.commit_index for message in settle(core)[0]} == {1}


def test_a_proposal_at_a_follower_is_refused():
    assert core_of().propose(b"x", 1) is None


def test_replies_of_strangers_and_to_followers_change_nothing():
    core = core_of()
    ok(core, "b", 1)
    lead(core)
    for stranger in "xyz":
        ok(core, stranger, 1)
    assert core.commit_index == 0


def test_one_probe_until_the_logs_are_known_to_agree():
    core = core_of(1, 1)
    lead(core)
    core.propose(b"x", core.now_us)
    assert settle(core)[0] == []
    core.tick(core.deadline_us)
    assert [len(message.entries) for message in settle(core)[0]] == [2] * 4


def test_appends_are_bounded_in_entries_and_in_number():
    core = core_of(names=("a", "b", "c"), entries_per_append_max=2, inflight_appends_max=3)
    lead(core)
    ok(core, "b", 1)
    settle(core)
    for _ in range(9):
        core.propose(b"x", core.now_us)
    sent = [m for m in settle(core)[0] if m.dst == "b"]
    assert [len(message.entries) for message in sent] == [2, 2, 2]
    ok(core, "b", 3)
    assert [m.prev_index for m in settle(core)[0]] == [7]


def test_appends_are_bounded_in_bytes():
    core = core_of(names=("a", "b", "c"), bytes_per_append_max=10, inflight_bytes_max=20)
    lead(core)
    ok(core, "b", 1)
    settle(core)
    for _ in range(9):
        core.propose(b"12345", core.now_us)
    core.propose(b"more than one message may carry", core.now_us)
    sent = [m for m in settle(core)[0] if m.dst == "b"]
    assert [len(message.entries) for message in sent] == [2, 2]
    ok(core, "b", 9)
    assert [len(message.entries) for message in settle(core)[0]] == [1, 1]


def test_a_lost_message_is_found_by_the_next_heartbeat():
    core = core_of(names=("a", "b", "c"))
    lead(core)
    ok(core, "b", 1)
    core.propose(b"x", core.now_us)
    settle(core)  # and lost
    core.tick(core.deadline_us)
    heartbeat = next(m for m in settle(core)[0] if m.dst == "b")
    assert (heartbeat.prev_index, heartbeat.entries) == (2, ())
    core.step(AppendReply("b", "a", core.term, False, 2, 1, core.term, 0), core.now_us)
    assert [(m.prev_index, len(m.entries)) for m in settle(core)[0]] == [(1, 1)]


FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}
LEADER_OF_FIGURE_7 = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


def converge(leader, followers):
    """Delivers everything until there is nothing more to say, with a heartbeat now and then."""
    nodes = {leader.name: leader, **{follower.name: follower for follower in followers}}
    for _ in range(40):
        leader.tick(leader.deadline_us)
        quiet = False
        while not quiet:
            quiet = True
            for node in nodes.values():
                for message in settle(node)[0]:
                    quiet = False
                    if message.dst in nodes:
                        nodes[message.dst].step(message, leader.now_us)


@pytest.mark.parametrize("case", FIGURE_7)
def test_figure_7_every_follower_ends_with_the_leaders_log(case):
    names = ("follower", "leader", "other")
    leader = core_of(*LEADER_OF_FIGURE_7, name="leader", names=names, term=7)
    follower = core_of(*FIGURE_7[case], name="follower", names=names)
    leader.tick(leader.deadline_us)
    settle(leader)
    leader.step(VoteReply("other", "leader", 8, granted=True), leader.now_us)
    converge(leader, [follower])
    assert follower.log.entries == leader.log.entries
    assert [e.term for e in follower.log.entries] == [*LEADER_OF_FIGURE_7, 8]
    assert leader.commit_index == 11


@given(
    st.lists(st.integers(1, 4), max_size=10).map(sorted),
    st.lists(st.integers(1, 4), max_size=10).map(sorted),
    st.integers(1, 4),
)
def test_any_follower_ends_with_the_leaders_log(leader_terms, follower_terms, batch):
    """Whatever the logs, as long as equal (index, term) means equal prefixes."""
    agree = 0
    while (
        agree < min(len(leader_terms), len(follower_terms)) and leader_terms[agree] == follower_terms[agree]
    ):
        agree += 1
    # Log Matching: after the first difference no (index, term) may be shared.
    follower_terms = follower_terms[:agree] + [t + 5 for t in follower_terms[agree:]]
    names = ("follower", "leader", "other")
    leader = core_of(*leader_terms, name="leader", names=names, term=20, entries_per_append_max=batch)
    follower = core_of(*follower_terms, name="follower", names=names)
    leader.tick(leader.deadline_us)
    settle(leader)
    leader.step(VoteReply("other", "leader", 21, granted=True), leader.now_us)
    converge(leader, [follower])
    assert follower.log.entries == leader.log.entries
    assert follower.commit_index == leader.commit_index == len(leader_terms) + 1


def test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting():
    """After (c) a majority has S1's old entry, but S5, whose last entry is of term 3, could still win: (d).

    Once an entry of term 4 is on a majority, S5 cannot, and all before it is committed too: (e).
    """
    s1 = core_of(1, 2, name="a", term=3)
    lead(s1)
    assert s1.term == 4
    ok(s1, "b", 2)
    ok(s1, "c", 2)
    assert s1.commit_index == 0
    ok(s1, "b", 3)
    ok(s1, "c", 3)
    assert s1.commit_index == 3


def test_a_bug_that_goes_on_past_what_cannot_be_lowers_its_commit_index():
    """The systems that had those bugs did not notice either: the checkers are to."""

    class Unguarded(Core):
        __slots__ = ()

        def _impossible(self, what):
            pass

    core = Unguarded(
        "a", NAMES, Saved(HardState(3), entries_of(1, 1)), random=lambda: 0.5, now_us=0, options=Options()
    )
    core.commit_index = 2
    core.step(AppendEntries("b", "a", 3, 1, 1, 2, 0, entries_of(3, first=2)), 0)
    assert [entry.term for entry in core.log.entries] == [1, 3]
    assert core.commit_index == 2


def test_what_waits_to_be_committed_is_bounded_in_number_and_size():
    core = core_of(1, names=("a", "b", "c"), uncommitted_entries_max=4, uncommitted_bytes_max=10)
    lead(core)
    assert not core.is_full
    core.propose(b"12345", core.now_us)
    core.propose(b"67890", core.now_us)
    assert core.is_full  # ten bytes
    settle(core)
    ok(core, "b", 3)
    settle(core)
    assert not core.is_full  # of which five are committed, with what was there before
    assert core.role.uncommitted_bytes == 5
    for _ in range(3):
        core.propose(b"", core.now_us)
    assert core.is_full  # four entries
    core.step(VoteReply("b", "a", core.term + 1, granted=False), core.now_us)
    assert core.uncommitted == 4
    assert core.is_full
