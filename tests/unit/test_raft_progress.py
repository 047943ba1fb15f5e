"""What a leader knows of a follower."""

from raft.core import Config, Snapshot
from raft.core.progress import Progress


def test_a_probe_is_sent_once():
    progress = Progress(5)
    assert progress.may_send(10, 100)
    progress.sent(7, 10)
    assert not progress.may_send(10, 100)
    assert progress.next_index == 5


def test_success_opens_the_window():
    progress = Progress(5)
    progress.sent(7, 10)
    assert progress.accepted(7)
    assert (progress.match_index, progress.next_index, progress.probing) == (7, 8, False)
    progress.sent(12, 10)
    assert progress.next_index == 13
    assert progress.may_send(2, 100)
    assert not progress.may_send(1, 100)  # as many messages as may be on their way
    assert not progress.may_send(2, 10)  # as many bytes
    progress.accepted(12)
    assert progress.may_send(1, 1)


def test_an_old_success_changes_nothing():
    progress = Progress(5)
    progress.accepted(7)
    assert not progress.accepted(6)
    assert (progress.match_index, progress.next_index) == (7, 8)


def test_a_rejection_goes_back_to_the_hint_but_not_below_the_match():
    progress = Progress(9)
    assert progress.rejected(8, 3)
    assert (progress.next_index, progress.probing) == (4, True)
    progress.accepted(6)
    progress.sent(20, 10)
    assert progress.rejected(20, 2)
    assert progress.next_index == 7


def test_a_rejection_of_what_was_acknowledged_is_an_old_one():
    progress = Progress(9)
    progress.accepted(8)
    assert not progress.rejected(8, 3)
    assert (progress.match_index, progress.next_index, progress.probing) == (8, 9, False)


def test_a_rejection_of_another_message_than_the_probe_is_an_old_one():
    progress = Progress(9)
    progress.rejected(8, 3)
    progress.sent(3, 10)
    assert not progress.rejected(8, 3)
    assert not progress.may_send(10, 100)


def test_a_hint_above_the_rejected_index_still_goes_back():
    progress = Progress(9)
    assert progress.rejected(8, 30)
    assert progress.next_index == 8


def test_what_is_told_of_a_follower():
    progress = Progress(1)
    assert (progress.state, progress.inflight, progress.inflight_bytes) == ("probe", 0, 0)
    progress.accepted(0)
    progress.sent(3, 100)
    assert (progress.state, progress.inflight, progress.inflight_bytes) == ("replicate", 1, 100)
    progress.snapshot = Snapshot(9, 1, Config(), b"")
    assert progress.state == "snapshot"
