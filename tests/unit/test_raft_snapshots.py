"""Compaction and InstallSnapshot: section 7."""

import pytest

from raft.core import (
    AppendEntries,
    AppendReply,
    Config,
    Core,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Options,
    Saved,
    SaveEntries,
    SaveHardState,
    SaveSnapshot,
    Snapshot,
    SnapshotReply,
    TruncateFrom,
    VoteReply,
    replay,
)

CONFIG = Config(("a", "b", "c"))


def entries_of(*terms, first=1):
    return tuple(Entry(index, term, EntryKind.COMMAND) for index, term in enumerate(terms, first))


def core_of(*terms, snapshot=None, term=None, **options):
    options = Options(**{"pre_vote": False, "snapshot_chunk_bytes": 4, **options})
    first = snapshot.index + 1 if snapshot else 1
    saved = Saved(HardState(term if term is not None else 9), entries_of(*terms, first=first), snapshot)
    return Core("a", ("a", "b", "c"), saved, random=lambda: 0.5, now_us=0, options=options)


def drain(core):
    out = []
    while (ready := core.ready()) is not None:
        out.append(ready)
        for message in ready.held:
            if message.dst == core.name:
                core.step(message, core.now_us)
    return out


def messages(core, dst=None):
    return [
        m for r in drain(core) for m in [*r.messages, *r.held] if m.dst != core.name and dst in (None, m.dst)
    ]


def chunk(offset, data, size=10, index=5, term=9, index_term=3):
    return InstallSnapshot("b", "a", term, index, index_term, CONFIG, size, offset, data, 0)


# -- records ------------------------------------------------------------------------------------------------


def test_a_snapshot_record_keeps_what_follows_it_in_the_same_history():
    snapshot = Snapshot(2, 1, CONFIG, b"")
    saved = replay([SaveHardState(4, "b"), SaveEntries(entries_of(1, 1, 4)), SaveSnapshot(snapshot)])
    assert saved == Saved(HardState(4, "b"), entries_of(4, first=3), snapshot)


@pytest.mark.parametrize("snapshot", [Snapshot(2, 3, CONFIG, b""), Snapshot(9, 3, CONFIG, b"")])
def test_a_snapshot_record_of_another_history_drops_the_log(snapshot):
    assert replay([SaveEntries(entries_of(1, 1, 4)), SaveSnapshot(snapshot)]).entries == ()


def test_entries_go_on_behind_a_snapshot():
    snapshot = Snapshot(9, 3, CONFIG, b"")
    tail = entries_of(4, 4, first=10)
    assert replay([SaveSnapshot(snapshot), SaveEntries(tail), TruncateFrom(11)]).entries == tail[:1]


def test_records_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="entry 3 was saved where 2 belongs: records are missing"):
        replay([SaveEntries(entries_of(1)), SaveEntries(entries_of(1, first=3))])


# -- compaction ---------------------------------------------------------------------------------------------


def test_compaction_saves_the_snapshot_and_keeps_a_little_in_memory():
    core = core_of(1, 1, 2, 3, snapshot_trailing=1)
    core.step(AppendEntries("b", "a", 9, 4, 3, 3, 0, ()), 1)
    drain(core)
    core.compact(3, b"state")
    assert (core.log.offset, core.log.last_index, core.snapshot.index) == (2, 4, 3)
    assert [r.records for r in drain(core)] == [[SaveSnapshot(Snapshot(3, 2, CONFIG, b"state"))]]
    core.compact(3, b"again")
    assert drain(core) == []


@pytest.mark.parametrize(("bytes_max", "first_kept"), [(20, 2), (19, 3), (10, 3), (1, 4)])
def test_of_large_entries_fewer_are_kept_in_memory(bytes_max, first_kept):
    large = [Entry(index, 1, EntryKind.COMMAND, b"x" * 10) for index in range(1, 5)]
    core = core_of(snapshot_trailing=2, snapshot_trailing_bytes=bytes_max)
    core.step(AppendEntries("b", "a", 9, 0, 0, 4, 0, tuple(large)), 1)
    drain(core)
    core.compact(3, b"state")
    assert core.log.offset + 1 == first_kept


def test_only_what_was_handed_out_can_be_compacted():
    core = core_of(1, 1)
    with pytest.raises(AssertionError):
        core.compact(1, b"")


def test_a_restarted_node_goes_on_from_its_snapshot():
    core = core_of(4, snapshot=Snapshot(3, 2, CONFIG, b""))
    assert (core.commit_index, core.log.offset, core.log.term(3), core.log.term(2)) == (3, 3, 2, None)
    assert (core.log.last_index, core.log.last_term) == (4, 4)


def test_a_message_from_before_the_snapshot_is_answered_with_what_is_committed():
    core = core_of(4, snapshot=Snapshot(3, 2, CONFIG, b""))
    core.step(AppendEntries("b", "a", 9, 1, 1, 3, 0, entries_of(1, 2, first=2)), 1)
    assert messages(core) == [AppendReply("a", "b", 9, True, 3, 0, 0, 0)]
    assert core.log.last_index == 4


# -- the follower -------------------------------------------------------------------------------------------


def test_chunks_make_a_snapshot():
    core = core_of(1, 1)
    core.step(chunk(0, b"0123"), 1)
    assert messages(core) == [SnapshotReply("a", "b", 9, 5, 4, 0)]
    core.step(chunk(4, b"4567"), 2)
    core.step(chunk(8, b"89"), 3)
    readies = drain(core)
    assert readies[-1].snapshot == Snapshot(5, 3, CONFIG, b"0123456789")
    assert SaveSnapshot(readies[-1].snapshot) in readies[-1].records
    assert readies[-1].held[-1] == AppendReply("a", "b", 9, True, 5, 0, 0, 0)
    assert (core.log.offset, core.log.last_index, core.commit_index) == (5, 5, 5)


def test_a_chunk_out_of_place_is_not_taken():
    core = core_of(1, 1)
    core.step(chunk(4, b"4567"), 1)
    core.step(chunk(0, b"0123"), 2)
    core.step(chunk(0, b"0123"), 3)
    assert [m.received for m in messages(core)] == [0, 4, 4]


def test_chunks_of_two_snapshots_do_not_mix():
    core = core_of(1, 1)
    core.step(chunk(0, b"0123"), 1)
    core.step(chunk(4, b"4567", index=6), 2)
    assert [m.received for m in messages(core)] == [4, 0]
    core.step(chunk(0, b"abcd", term=10), 3)
    assert bytes(core.role.partial) == b"abcd"


def test_a_snapshot_of_what_is_committed_already_is_only_acknowledged():
    core = core_of(1, 1, 1, 1, 3, 3)
    core.step(AppendEntries("b", "a", 9, 6, 3, 6, 0, ()), 1)
    drain(core)
    core.step(chunk(0, b"0123"), 2)
    assert messages(core) == [AppendReply("a", "b", 9, True, 6, 0, 0, 0)]
    assert core.snapshot is None


def test_the_log_after_the_snapshot_stays_if_it_has_its_last_entry():
    """Dropping it would lose what this node has acknowledged (Figure 13, step 6)."""
    core = core_of(1, 1, 1, 1, 3, 3, 3)
    core.step(chunk(0, b"", size=0), 1)
    drain(core)
    assert (core.log.offset, core.log.last_index, core.commit_index) == (5, 7, 5)


def test_the_log_goes_if_its_entry_there_is_another():
    core = core_of(1, 1, 1, 1, 2, 2, 2)
    core.step(chunk(0, b"", size=0), 1)
    drain(core)
    assert (core.log.offset, core.log.last_index, core.log.last_term) == (5, 5, 3)


def test_a_chunk_of_an_older_leader_is_refused():
    core = core_of(1, term=12)
    core.step(chunk(0, b"0123"), 1)
    assert messages(core) == [AppendReply("a", "b", 12, False, 0, 0, 0, 0)]


# -- the leader ---------------------------------------------------------------------------------------------


def leader():
    core = core_of(4, snapshot=Snapshot(3, 2, CONFIG, b"0123456789"))
    core.tick(core.deadline_us)
    drain(core)
    core.step(VoteReply("c", "a", core.term, granted=True), core.now_us)
    drain(core)
    core.step(AppendReply("b", "a", core.term, False, 4, 1, 1, 0), core.now_us)
    return core


def test_a_follower_that_needs_what_is_compacted_gets_the_snapshot_chunk_by_chunk():
    core = leader()
    sent = messages(core, "b")
    for received in (4, 8):
        core.step(SnapshotReply("b", "a", core.term, 3, received, 0), core.now_us)
        core.step(SnapshotReply("b", "a", core.term, 3, received, 0), core.now_us)  # twice: no second stream
        sent += messages(core, "b")
    assert [(m.offset, m.data, m.size) for m in sent] == [(0, b"0123", 10), (4, b"4567", 10), (8, b"89", 10)]
    core.step(AppendReply("b", "a", core.term, True, 3, 0, 0, 0), core.now_us)
    assert [(m.prev_index, len(m.entries)) for m in messages(core, "b")] == [(3, 2)]


def test_a_heartbeat_sends_the_chunk_again():
    core = leader()
    messages(core)
    core.tick(core.deadline_us)
    assert [m.offset for m in messages(core, "b")] == [0]


def test_a_follower_that_restarted_in_between_starts_again():
    core = leader()
    messages(core)
    core.step(SnapshotReply("b", "a", core.term, 3, 4, 0), core.now_us)
    core.step(SnapshotReply("b", "a", core.term, 3, 0, 0), core.now_us)
    assert [m.offset for m in messages(core, "b")] == [4, 0]


def test_replies_about_other_snapshots_and_rejections_in_between_change_nothing():
    core = leader()
    messages(core)
    core.step(SnapshotReply("b", "a", core.term, 2, 4, 0), core.now_us)
    core.step(SnapshotReply("x", "a", core.term, 3, 4, 0), core.now_us)
    core.step(AppendReply("b", "a", core.term, False, 4, 1, 1, 0), core.now_us)
    assert messages(core) == []


def test_a_snapshot_that_came_too_late_is_not_taken():
    """The leader's was there first: there is nothing left of what this one would cover."""
    core = core_of(1, 1, snapshot=Snapshot(5, 1, CONFIG, b""))
    drain(core)
    core.compact(5, b"late")
    core.compact(4, b"later")
    assert core.snapshot == Snapshot(5, 1, CONFIG, b"")


def test_a_configuration_that_a_snapshot_covers_is_forgotten_with_the_log():
    core = core_of(1, snapshot=Snapshot(5, 1, CONFIG, b""), snapshot_trailing=0)
    config = Entry(7, 9, EntryKind.CONFIG, b'[["a","b"],[],[]]')
    core.step(AppendEntries("b", "a", 9, 6, 1, 7, 0, (config,)), 0)
    drain(core)
    assert core.voters == ("a", "b")
    core.compact(7, b"state")
    assert core.snapshot.config == Config(("a", "b"))
    assert (core.voters, core.config_index) == (("a", "b"), 7)
    core.step(AppendEntries("b", "a", 9, 7, 9, 7, 0, ()), 0)
    assert core.voters == ("a", "b")
