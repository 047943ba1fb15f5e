"""Namespaces of our own: nothing outside is touched, and nothing is left, however the owner ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nemesis import netns
from nemesis.faults import FaultError
from nemesis.netns import Netns, NetnsError

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

# Opens a network, starts a process in it, stops it (SIGSTOP), and waits to be killed.
OWNER = """
import os, signal, subprocess, sys, time
from nemesis.netns import Netns
net = Netns(["n1", "n2"], rootless=sys.argv[1] == "rootless")
guest = subprocess.Popen(net.command("n1", ["sleep", "300"]))
while open(f"/proc/{guest.pid}/comm").read() != "sleep\\n":
    time.sleep(0.01)
os.kill(guest.pid, signal.SIGSTOP)
print(net._holder.pid, guest.pid, net._directory, flush=True)
time.sleep(300)
"""


@pytest.fixture(params=["root", "rootless"])
def rootless(request):
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("not root")
    try:
        Netns(["n1"], rootless=request.param == "rootless").close()
    except NetnsError as error:
        pytest.skip(str(error))
    return request.param == "rootless"


def interfaces():
    return Path("/proc/net/dev").read_text().count(":")


def is_running(pid):
    """Whether there is such a process that has not ended: a zombie nobody has waited for does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition):
    for _ in range(400):
        if condition():
            return True
        time.sleep(0.05)
    return False


def ours():
    return set(Path(tempfile.gettempdir()).glob(f"sb-netns-{os.getpid()}-*"))


def test_nodes_have_addresses_and_the_host_notices_nothing(rootless):
    before, directories = interfaces(), ours()
    with Netns(["n1", "n2"], rootless=rootless) as net:
        assert dict(net.addresses) == {"n1": "10.91.0.1", "n2": "10.91.0.2"}
        assert "10.91.0.1/24" in net.run("n1", ["ip", "-o", "-4", "addr", "show", "dev", net.device])
        assert net.client_address in net.run(None, ["ip", "-o", "-4", "addr"])
        assert "10.91.0.2" not in net.run("n1", ["ip", "-o", "-4", "addr"])
        assert interfaces() == before
        assert not list(Path("/run/netns").glob("sb*"))
    assert interfaces() == before
    assert ours() == directories


def test_the_process_started_is_the_program_itself(rootless):
    with Netns(["n1"], rootless=rootless) as net:
        guest = subprocess.Popen(net.command("n1", ["sleep", "300"]))
        assert wait_until(lambda: Path(f"/proc/{guest.pid}/comm").read_text() == "sleep\n")
    assert guest.wait(30) == -signal.SIGKILL, "closing ends who lives inside"


def test_closing_twice_is_closing_once(rootless):
    net = Netns(["n1"], rootless=rootless)
    net.close()
    net.close()


def test_this_process_gets_sockets_of_the_clients_side(rootless):
    echo = "import socket; s = socket.create_server(('', 7000)); print('up', flush=True); c, a = s.accept(); "
    echo += "c.sendall(a[0].encode())"
    with Netns(["n1"], rootless=rootless) as net:
        server = subprocess.Popen(
            net.command("n1", [sys.executable, "-c", echo]), stdout=subprocess.PIPE, text=True
        )
        assert server.stdout.readline() == "up\n"
        with net.socket() as one, net.socket() as other:
            one.settimeout(30)
            one.connect((net.addresses["n1"], 7000))
            assert one.recv(100).decode() == net.client_address
            with pytest.raises(OSError, match="refused"):
                other.connect((net.addresses["n1"], 7001))
        server.wait(30)
        server.stdout.close()


def test_a_failed_command_names_it_and_what_it_said(rootless):
    with (
        Netns(["n1"], rootless=rootless) as net,
        pytest.raises(NetnsError, match="ip nonsense in n1 failed: Object"),
    ):
        net.run("n1", ["ip", "nonsense"])


def test_when_the_owner_is_killed_all_of_it_goes(rootless):
    bystander = subprocess.Popen(
        ["sleep", "300"], env=os.environ | {"SPLITBRAIN_OWNER": netns.identity(os.getpid())}
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, "rootless" if rootless else "root"], stdout=subprocess.PIPE, text=True
    )
    try:
        holder, guest, directory = owner.stdout.readline().split()
        assert is_running(holder)
        assert is_running(guest)
        owner.kill()
        owner.wait()
        assert wait_until(lambda: not is_running(holder)), "the holder ends with the pipe"
        assert wait_until(lambda: not Path(directory).exists())
        assert is_running(guest), "a stopped process does not notice"
        found = netns.sweep()
        assert [line for line in found if f"process {guest} (sleep), left by process {owner.pid}" in line]
        assert wait_until(lambda: not is_running(guest))
        assert is_running(bystander.pid), "its owner is alive"
        assert netns.sweep() == []
    finally:
        owner.stdout.close()
        bystander.kill()
        bystander.wait()


def test_an_abandoned_directory_is_removed(rootless):
    abandoned = Path(tempfile.mkdtemp(prefix="sb-netns-999999999-"))
    with Netns(["n1"], rootless=rootless) as net:
        assert f"removed {abandoned}" in netns.sweep()
        assert not abandoned.exists()
        assert net.run("n1", ["true"]) == ""


def test_a_pid_used_again_is_not_the_owner():
    pid, _, started = netns.identity(os.getpid()).partition(":")
    assert netns.is_alive(f"{pid}:{started}")
    assert not netns.is_alive(f"{pid}:{int(started) + 1}")
    assert not netns.is_alive("nonsense")


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [([], "0 nodes"), (["n"] * 201, "201 nodes"), (["a b"], "'a b' cannot name"), (["../x"], "cannot name")],
)
def test_names_that_cannot_be(nodes, sentence):
    with pytest.raises(FaultError, match=sentence):
        Netns(nodes)


def test_missing_tools_are_named_with_the_package(monkeypatch):
    directories = ours()
    monkeypatch.setattr(netns, "TOOLS", ("unshare", "no-such-tool"))
    with pytest.raises(NetnsError, match="no-such-tool not found; on Debian: apt-get install iproute2"):
        Netns(["n1"])
    assert ours() == directories
