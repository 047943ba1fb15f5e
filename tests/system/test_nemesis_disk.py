"""A real process whose disk gets slow, fails and fills up while it runs, below one directory only."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from nemesis import disk, power, shim
from nemesis.target import HEALTHY_DISK, DiskRule

pytestmark = pytest.mark.system

# For each line, a path: writes to it and syncs, several times; tells errors and how long a sync took.
PROCESS = """
import errno, os, sys, time
for line in sys.stdin:
    path, count = line.split()
    answers, slowest_s = [], 0
    for _ in range(int(count)):
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, b"x"), os.pwrite(descriptor, b"y", 0), os.writev(descriptor, [b"z"])
            start = time.monotonic()
            os.fsync(descriptor), os.fdatasync(descriptor)
            slowest_s = max(slowest_s, time.monotonic() - start)
            answers.append("ok")
        except OSError as error:
            answers.append(errno.errorcode[error.errno])
        os.close(descriptor)
    print(slowest_s, *answers, flush=True)
"""


TRIES = 40  # of what may take long only because somebody else uses the disk


class Writer:
    def __init__(self, process):
        self.process = process

    def write(self, path, count=1):
        self.process.stdin.write(f"{path} {count}\n")
        self.process.stdin.flush()
        slowest_s, *answers = self.process.stdout.readline().split()
        return float(slowest_s), answers

    def least_s(self, path, below_s):
        """The quickest of some writes that succeed, up to the first that takes less than the bound."""
        least_s = float("inf")
        for _ in range(TRIES):
            took_s, answers = self.write(path)
            assert answers == ["ok"]
            if (least_s := min(least_s, took_s)) < below_s:
                break
        return least_s


@pytest.fixture
def data(tmp_path):
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def file(tmp_path):
    disk.write_rule(tmp_path / "disk", HEALTHY_DISK)
    return tmp_path / "disk"


@pytest.fixture
def writer(tmp_path, data, file):
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler; on Debian: apt-get install gcc libc6-dev")
    libraries = [shim.build("disk", tmp_path), shim.build("clock", tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        env=os.environ | shim.preload(libraries) | disk.environment(file, data),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Writer(process)
        process.stdin.close()


def test_a_healthy_disk_does_all(writer, data):
    assert writer.write(data / "log", 3)[1] == ["ok"] * 3
    assert (data / "log").stat().st_size == 9


def test_syncs_get_slow_and_fast_again(writer, data, file):
    disk.write_rule(file, DiskRule(sync_delay_ms=150))
    assert 0.3 <= writer.least_s(data / "log", 1) < 1
    disk.write_rule(file, HEALTHY_DISK)
    assert writer.least_s(data / "log", 0.25) < 0.25


def test_syncs_fail_by_chance(writer, data, file):
    disk.write_rule(file, DiskRule(sync_error=1.0))
    assert writer.write(data / "log", 5)[1] == [errno.errorcode[errno.EIO]] * 5
    disk.write_rule(file, DiskRule(sync_error=0.5))
    answers = writer.write(data / "log", 200)[1]
    # Two syncs a round: three in four rounds fail.
    assert 110 < answers.count("EIO") < 190
    assert set(answers) == {"EIO", "ok"}


def test_a_full_disk_takes_nothing(writer, data, file):
    disk.write_rule(file, DiskRule(write_error=1.0))
    assert writer.write(data / "log", 2)[1] == ["ENOSPC"] * 2
    assert (data / "log").stat().st_size == 0
    disk.write_rule(file, HEALTHY_DISK)
    assert writer.write(data / "log")[1] == ["ok"]


def test_only_the_data_of_the_node_are_concerned(writer, data, file, tmp_path):
    disk.write_rule(file, DiskRule(sync_delay_ms=500, sync_error=1.0, write_error=1.0))
    beside = tmp_path / "data-of-somebody-else"
    assert writer.least_s(beside, 0.5) < 0.5
    assert writer.write(beside, 3)[1] == ["ok"] * 3
    (tmp_path / "link").symlink_to(data)
    assert writer.write(tmp_path / "link" / "log")[1] == ["ENOSPC"], "links are followed"


def test_the_rule_is_written_in_place(file):
    inode = file.stat().st_ino
    disk.write_rule(file, DiskRule(0.001, 0.000001, 1.0))
    assert file.stat().st_ino == inode
    assert file.stat().st_size == 72
    assert disk.read_rule(file) == DiskRule(0.001, 0.000001, 1.0)
    assert disk.read_rule(file.with_name("missing")) == HEALTHY_DISK


def test_a_disk_that_stands_still_goes_on(writer, data, file):
    disk.write_rule(file, DiskRule(stalled=True))
    healed_s = []

    def heal_what_was_struck():
        while not disk.read_struck(file).get("stalled"):
            time.sleep(0.01)
        time.sleep(0.3)
        healed_s.append(time.monotonic())
        disk.write_rule(file, HEALTHY_DISK)

    healer = threading.Thread(target=heal_what_was_struck, daemon=True)
    healer.start()
    assert writer.write(data / "a")[1] == ["ok"]
    assert time.monotonic() >= healed_s[0]
    healer.join()


@pytest.mark.parametrize("point", ["before-sync", "after-sync"])
def test_a_process_dies_at_its_point_and_only_once(writer, data, file, point):
    disk.write_crash_point(file, point)
    assert writer.write(data.parent / "elsewhere")[1] == ["ok"]
    writer.process.stdin.write(f"{data / 'a'} 1\n")
    writer.process.stdin.flush()
    assert writer.process.wait(60) == -signal.SIGKILL
    assert disk.read_struck(file) == {"crash": 1}
    assert file.read_bytes()[16:20] == bytes(4), "it would die again as soon as it is started"


def wrote_under_a_lie(script, tmp_path, data, file):
    """Runs a program whose syncs lie from the moment at which it waits for a line; where is noted what was synced."""
    synced = tmp_path / "synced"
    environment = shim.preload([shim.build("disk", tmp_path)]) | disk.environment(file, data)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(data)],
        env=os.environ | environment | power.environment(synced),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        disk.write_rule(file, DiskRule(lying_sync=1.0))
        process.communicate(b"\n", 60)
    return synced


def test_a_sync_that_lies_is_not_noted_and_the_power_takes_what_it_promised(tmp_path, data, file):
    script = (
        "import os, sys\n"
        "end = os.open(sys.argv[1] + '/wal', os.O_CREAT | os.O_WRONLY | os.O_APPEND)\n"
        "os.write(end, b'first'), os.fsync(end)\n"
        "print(flush=True), sys.stdin.readline()\n"
        "os.write(end, b', second'), os.fsync(end)\n"
    )
    synced = wrote_under_a_lie(script, tmp_path, data, file)
    assert (data / "wal").read_bytes() == b"first, second"
    assert disk.read_struck(file) == {"lying_sync": 1}
    assert power.lose(data, synced, torn=False) == {"wal": 8}
    assert (data / "wal").read_bytes() == b"first"


@pytest.mark.parametrize("torn", [False, True])
def test_the_power_takes_what_was_written_into_room_and_leaves_the_room(tmp_path, data, file, torn):
    """A log may be longer than what is written, and end with zeros of its own."""
    script = (
        "import os, sys\n"
        "end = os.open(sys.argv[1] + '/wal', os.O_CREAT | os.O_WRONLY)\n"
        "os.write(end, bytes(100_000)), os.pwrite(end, b'first' + bytes(3), 0), os.fdatasync(end)\n"
        "print(flush=True), sys.stdin.readline()\n"
        "os.pwrite(end, b', second', 8), os.fdatasync(end)\n"
    )
    synced = wrote_under_a_lie(script, tmp_path, data, file)
    left = b"first" + bytes(3)
    if torn:
        left += b", se"
    assert power.lose(data, synced, torn=torn) == {"wal": 4 if torn else 8}
    assert (data / "wal").read_bytes() == left.ljust(100_000, b"\0")
    assert power.lose(data, synced, torn=False) == {}, "what is left is on the disk"


CHANGES = {
    "written over": "end = os.open(path, os.O_RDWR); os.pwrite(end, b'XY', 1); os.pwrite(end, b'Z', 2)",
    "cut": "end = os.open(path, os.O_WRONLY); os.ftruncate(end, 3); os.lseek(end, 0, 2); os.write(end, b'!')",
    "emptied": "end = os.open(path, os.O_WRONLY | os.O_TRUNC); os.writev(end, [b'an', b'other'])",
    "by the io module": "end = open(path, 'r+b'); end.seek(2); end.write(b'---------'); end.flush()",
    "appended and cut": "end = os.open(path, os.O_WRONLY | os.O_APPEND); os.write(end, b'??'); os.ftruncate(end, 9)",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_becomes_what_it_was_when_it_was_synced(tmp_path, data, file, what):
    script = (
        "import os, sys\n"
        "path = sys.argv[1] + '/file'\n"
        "end = os.open(path, os.O_CREAT | os.O_WRONLY); os.write(end, b'all\\0 synced\\0'); os.fsync(end)\n"
        "print(flush=True), sys.stdin.readline()\n"
        f"{CHANGES[what]}\n"
    )
    synced = wrote_under_a_lie(script, tmp_path, data, file)
    changed = (data / "file").read_bytes()
    assert changed != b"all\0 synced\0"
    assert power.lose(data, synced, torn=False)["file"] > 0
    assert (data / "file").read_bytes() == b"all\0 synced\0"


def test_what_was_made_and_never_synced_is_gone_and_what_nobody_knows_of_stays(tmp_path, data, file):
    """Also where the new file got the inode of an old one that was synced."""
    (data / "old").write_bytes(b"from before")
    script = (
        "import os, sys\n"
        "path = sys.argv[1] + '/'\n"
        "for name in 'ab': end = os.open(path + name, os.O_CREAT | os.O_WRONLY); os.write(end, b'12'); os.fsync(end)\n"
        "os.close(end), os.remove(path + 'b'), os.rename(path + 'a', path + 'c')\n"
        "print(flush=True), sys.stdin.readline()\n"
        "end = os.open(path + 'd', os.O_CREAT | os.O_WRONLY); os.write(end, b'345')\n"
    )
    synced = wrote_under_a_lie(script, tmp_path, data, file)
    assert power.lose(data, synced, torn=False) == {"d": 3}
    assert {left.name: left.read_bytes() for left in data.iterdir()} == {"old": b"from before", "c": b"12"}


def test_a_write_over_synced_bytes_tears_in_the_middle(tmp_path, data, file):
    script = (
        "import os, sys\n"
        "end = os.open(sys.argv[1] + '/file', os.O_CREAT | os.O_RDWR); os.write(end, b'abcdefgh'); os.fsync(end)\n"
        "print(flush=True), sys.stdin.readline()\n"
        "os.pwrite(end, b'ABCD', 2), os.pwrite(end, b'__', 0), os.fsync(end)\n"
    )
    synced = wrote_under_a_lie(script, tmp_path, data, file)
    assert power.lose(data, synced, torn=True) == {"file": 4}
    assert (data / "file").read_bytes() == b"abABefgh"
