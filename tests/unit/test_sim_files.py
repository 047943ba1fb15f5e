"""Simulated files: what survives a crash, what a bad disk does, and that Raft's own log lives on them."""

import collections

import pytest

from harness.seeds import Streams
from harness.sim.files import SECTOR_BYTES, SimFiles
from harness.sim.trouble import DiskError, NothingToDamage
from nemesis.target import HEALTHY_DISK, Damage, DiskRule
from raft.core import Entry, EntryKind, SaveEntries, SaveHardState
from raft.wal import CorruptLog, Wal

LATER_US = 1_000_000


class Clock:
    now_us = 0


def files_of(seed=1):
    clock = Clock()
    return clock, SimFiles(clock, Streams(seed).dice("disk", clock))


def durable(name, data, seed=1):
    clock, files = files_of(seed)
    files.append(name, data)
    files.sync(name)
    files.sync_names()
    clock.now_us += LATER_US
    return clock, files


def test_what_was_synced_survives_and_what_was_not_may():
    fates = collections.Counter()
    for seed in range(100):
        _, files = durable("log", b"synced", seed)
        files.append("log", b"-" * 10)
        files.append("log", b"+" * 10)
        files.crash()
        data = files.read("log")
        assert data.startswith(b"synced")
        fates[data[6:]] += 1
    assert b"" in fates
    assert b"-" * 10 + b"+" * 10 in fates
    assert bytes(10) + b"+" * 10 in fates, "a later write may survive an earlier one"


def test_a_write_may_be_torn_at_a_sector():
    torn = 0
    for seed in range(100):
        _, files = durable("log", b"", seed)
        files.append("log", b"x" * (4 * SECTOR_BYTES))
        files.crash()
        sectors = [files.read("log")[i : i + SECTOR_BYTES] for i in range(0, 4 * SECTOR_BYTES, SECTOR_BYTES)]
        assert set(sectors) <= {b"x" * SECTOR_BYTES, bytes(SECTOR_BYTES), b""}
        torn += 0 < sum(sector.startswith(b"x") for sector in sectors) < 4
    assert torn > 5


def test_a_sync_that_was_not_done_when_the_power_went_counts_for_nothing():
    lost = 0
    for seed in range(40):
        _, files = files_of(seed)
        files.append("log", b"data")
        files.sync("log")
        files.sync_names()
        files.crash()
        lost += "log" not in files.names() or files.read("log") == b""
    assert lost > 5


def test_a_name_is_durable_only_after_its_directory_is_synced():
    names = set()
    for seed in range(40):
        clock, files = durable("new.tmp", b"whole", seed)
        files.rename("new.tmp", "new")
        assert files.names() == ["new"]
        clock.now_us += LATER_US
        files.crash()
        assert files.read(files.names()[0]) == b"whole"
        names.add(*files.names())
    assert names == {"new", "new.tmp"}


def test_a_lying_disk_forgets_what_it_said_was_durable():
    clock, files = durable("log", b"")
    files.set_rule(DiskRule(lying_sync=1.0, lose_unsynced=True))
    files.append("log", b"promised")
    files.sync("log")
    clock.now_us += LATER_US
    files.crash()
    assert files.read("log") == b""
    assert files.troubles == {"lying_sync": 1}


def test_a_failing_and_a_full_disk_raise():
    _, files = durable("log", b"")
    files.set_rule(DiskRule(sync_error=1.0))
    with pytest.raises(DiskError, match="failed to sync"):
        files.sync("log")
    files.set_rule(DiskRule(write_error=1.0))
    with pytest.raises(DiskError, match="full"):
        files.append("log", b"x" * 100)
    assert len(files.read("log")) < 100


def test_a_stalled_disk_is_done_only_when_it_goes_on():
    clock, files = durable("log", b"")
    files.set_rule(DiskRule(stalled=True))
    files.append("log", b"waits")
    files.sync("log")
    went_on = []
    files.when_unstalled(lambda: went_on.append(files.end_us))
    assert files.end_us is None
    clock.now_us += LATER_US
    files.set_rule(HEALTHY_DISK)
    assert went_on == [files.end_us]
    assert files.end_us > clock.now_us
    clock.now_us = files.end_us
    files.crash()
    assert files.read("log") == b"waits"


def test_a_slow_and_a_stalled_disk_count_what_they_troubled():
    """Else a run on them has no proof of what was in force."""
    _, files = durable("log", b"")
    files.set_rule(DiskRule(sync_delay_ms=50))
    files.sync("log")
    files.set_rule(DiskRule(stalled=True))
    files.sync("log")
    files.sync("log")
    assert files.troubles == {"sync_delay_ms": 1, "stalled": 2}


def test_a_misdirected_write_is_seen_after_a_restart_only():
    clock, files = durable("log", b"a" * 4 * SECTOR_BYTES)
    files.set_rule(DiskRule(misdirect=1.0))
    files.append("log", b"b" * 10)
    files.sync("log")
    assert files.read("log").endswith(b"b" * 10)
    clock.now_us += LATER_US
    files.crash()
    data = files.read("log")
    assert b"b" * 10 in data
    assert len(data) <= 4 * SECTOR_BYTES + 10
    assert data != b"a" * 4 * SECTOR_BYTES + b"b" * 10 or data.index(b"b") == 4 * SECTOR_BYTES


def test_damage_flips_bits_and_cuts_ends():
    _, files = durable("log", bytes(100))
    files.crash()
    assert "of log flipped" in files.damage(Damage("bit-flip", 1, (0.5,)))
    assert sum(byte.bit_count() for byte in files.read("log")) == 1
    assert files.damage(Damage("truncate", 30, path="l*")) == "30 bytes cut from the end of log"
    assert len(files.read("log")) == 70
    with pytest.raises(NothingToDamage, match="wal"):
        files.damage(Damage("truncate", 1, path="wal-*"))


def entries(first, count):
    return SaveEntries(
        tuple(Entry(i, 1, EntryKind.COMMAND, b"data" * 200) for i in range(first, first + count))
    )


def written_log(seed, batches=5):
    """A log of some committed batches, and one that was not synced when the power went."""
    clock, files = files_of(seed)
    wal = Wal(files, segment_bytes=4096)
    wal.load()
    wal.commit([SaveHardState(1, "a")])
    for batch in range(batches):
        wal.commit([entries(1 + 3 * batch, 3)])
    clock.now_us = files.end_us
    return clock, files, wal


def test_rafts_log_cuts_off_what_a_crash_tore_and_loses_nothing_else():
    cut = 0
    for seed in range(60):
        clock, files, wal = written_log(seed)
        before = files.bytes_written
        wal.commit([entries(16, 3)])
        clock.now_us += 50  # long before the sync is done
        files.crash()
        saved = Wal(files).load()
        assert len(saved.entries) in (15, 18)
        assert [entry.index for entry in saved.entries] == list(range(1, len(saved.entries) + 1))
        cut += len(saved.entries) == 15
        assert files.bytes_written >= before
    assert 0 < cut < 60


def test_rafts_log_refuses_a_flipped_bit_in_the_middle():
    _, files, _ = written_log(1, batches=3)
    files.crash()
    files.damage(Damage("bit-flip", 1, (0.3,)))
    with pytest.raises(CorruptLog, match="is damaged at byte"):
        Wal(files).load()
