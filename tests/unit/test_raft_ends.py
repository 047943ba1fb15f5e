"""How a server ends whose disk fails it: one sentence with the directory and the remedy, and 255."""

import asyncio
import errno
import os
import subprocess
import sys

import pytest

from raft.disk import FileDisk
from raft.server import Server
from raft.settings import load
from raft.testing.processes import free_ports

REMEDIES = {
    errno.ENOSPC: "No space left on device; make room on its file system, and start this server again",
    errno.EDQUOT: "Disk quota exceeded; raise the quota or remove other files, and start this server again",
    errno.EIO: "Input/output error; the device fails, so move the directory to another, or remove this member and",
    errno.EROFS: "Read-only file system; mount its file system such that it can be written, or name a directory",
    errno.EACCES: "Permission denied; give the user of this server the right to read and write it",
    errno.EISDIR: "Is a directory; name a directory that can be written",
}


def fails(number, *, unless=lambda *_: False):
    """An operation of a disk that works only at times."""

    def wrap(real):
        def operation(*args):
            if unless(*args):
                return real(*args)
            raise OSError(number, os.strerror(number))

        return operation

    return wrap


def serve(directory, *flags):
    """Runs a cluster of one until it ends."""
    peers, clients = free_ports(2)
    member = f"n1=127.0.0.1:{peers},127.0.0.1:{clients}"
    settings = load(["--name", "n1", "--data-dir", str(directory), "--member", member, *flags], {})

    async def run():
        async with asyncio.timeout(30):
            await Server(settings).run()

    asyncio.run(run())


@pytest.mark.parametrize("number", REMEDIES)
@pytest.mark.parametrize("operation", ["names", "append", "sync_names"])
def test_a_disk_that_fails_at_the_start_is_named_with_the_remedy(tmp_path, monkeypatch, number, operation):
    monkeypatch.setattr(FileDisk, operation, fails(number)(getattr(FileDisk, operation)))
    with pytest.raises(OSError) as caught:
        serve(tmp_path / "n1")
    assert str(caught.value).startswith(f"data_dir {tmp_path / 'n1'} cannot be used: {REMEDIES[number]}")


@pytest.mark.parametrize("flags", [(), ("--unsafe-no-sync",)])
@pytest.mark.parametrize("number", REMEDIES)
def test_a_disk_that_fails_later_is_named_with_the_remedy(tmp_path, monkeypatch, number, flags):
    beginning = fails(number, unless=lambda _disk, _name, data: data.startswith(b"raft-wal"))
    monkeypatch.setattr(FileDisk, "append", beginning(FileDisk.append))
    with pytest.raises(OSError) as caught:
        serve(tmp_path / "n1", *flags)
    assert str(caught.value).startswith(f"data_dir {tmp_path / 'n1'} cannot be used: {REMEDIES[number]}")


def test_the_exit_code_is_the_same_where_the_sentence_cannot_be_written():
    """As where the log is on the disk that is full."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        command = [sys.executable, "-m", "raft", "--data-dir", "/dev/null", "--member", "n1=1,2", "--name"]
        codes = [
            subprocess.run([*command, name], check=False, stderr=full).returncode for name in ("n1", "n2")
        ]
    assert codes == [255, 254]


def test_a_file_system_without_locks_is_not_called_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr("raft.disk.fcntl.flock", fails(errno.ENOLCK)(None))
    with pytest.raises(OSError, match=r"cannot be used: No locks available; name a directory"):
        serve(tmp_path / "n1")
