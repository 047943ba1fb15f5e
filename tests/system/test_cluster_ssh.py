"""`--cluster ssh` against containers of our own that run sshd."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from harness.clusters import docker_box, images, ssh
from harness.clusters.docker_box import Box
from harness.clusters.ssh_pool import CommandError, Pool, parse_host, pool_for
from harness.clusters.ssh_site import Site
from harness.errors import SetupError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]
pytest.importorskip("paramiko", reason="no paramiko; pip install 'splitbrain[ssh]'")

IMAGE = "splitbrain-test-sshd"
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Three machines; options that name them, and a pool to look around with."""
    directory = tmp_path_factory.mktemp("ssh")
    try:
        client = docker_box.engine()
        if (why := images.problem(client)) is not None:
            pytest.skip(why)
    except SetupError as error:
        pytest.skip(str(error))
    client.images.build(
        path=str(Path(__file__).parent / "sshd"), tag=IMAGE, rm=True, buildargs={"BASE": images.node_image()}
    )
    box = Box(client)
    pool = None
    try:
        yield_of = _start(box, directory)
        pool = Pool({node: parse_host(host) for node, host in yield_of[0].items()}, *yield_of[1])
        yield yield_of[0], yield_of[1], pool
    finally:
        if pool is not None:
            pool.close()
        box.remove()
        client.close()


def _start(box, directory):
    key, known = directory / "key", directory / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    addresses = box.make_network(NODES)
    for node in NODES:
        box.create(node, IMAGE, ["/usr/sbin/sshd", "-D", "-e"], address=addresses[node])
        box.start(node)
        run_in = box._containers[node].exec_run
        script = f"echo '{key.with_suffix('.pub').read_text().strip()}' > /home/tester/.ssh/authorized_keys"
        assert run_in(["sh", "-c", script], user="tester")[0] == 0
        host_key = run_in(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"])[1].decode().split()[:2]
        with known.open("a") as file:
            file.write(f"{addresses[node]} {' '.join(host_key)}\n")
    return {node: f"tester@{addresses[node]}" for node in NODES}, (str(key), str(known))


def command(store, hosts, *options, known_hosts=None):
    names, (key, known), _ = hosts
    argv = [sys.executable, "-m", "harness.cli", "run", "--cluster", "ssh", "--store", str(store)]
    argv += [part for host in names.values() for part in ("--node", host)]
    return [*argv, "--ssh-key", key, "--ssh-known-hosts", known_hosts or known, *options]


def left_on(hosts):
    """Directories, nodes and rules of ours on all hosts."""
    script = (
        "find /tmp/splitbrain-* -ls 2>/dev/null; "
        "for process in /proc/[0-9]*; do tr '\\0' ' ' <$process/cmdline 2>/dev/null; echo; done "
        "| grep -e '^python3 -m [r]aft' -e '^python3 -[S]c' -e '[n]emesis'; "
        "sudo env PATH=/usr/sbin:/sbin:/bin:/usr/bin sh -c '"
        "tc qdisc show dev eth0 | grep 5b:; iptables -w -t mangle -S | grep SPLITBRAIN'; true"
    )
    return {node: said for node in NODES if (said := hosts[2].run(node, script).decode())}


def eventually(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def test_faults_bite_and_the_verdict_is_valid(hosts, tmp_path, until_all_was_seen):
    faults = ("partition", "latency", "kill", "pause", "clock")
    options = [option for name in faults for option in ("--fault", name)]
    options += ["--time-limit", "15", "--rate", "60", "--seed", "5", "--json"]

    def once():
        done = subprocess.run(
            command(tmp_path, hosts, *options), capture_output=True, text=True, check=False, timeout=280
        )
        summary = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, summary["valid"]) == (0, True), done.stderr
        assert summary["ok"] > 50
        assert left_on(hosts) == {}
        return Path(summary["run_dir"])

    def seen(run_dir):
        facts = json.loads((run_dir / "results.json").read_text())["facts"]
        return {
            "packets met": facts["packets_met_by_faults"] > 0,
            "nodes started again": facts["processes_started"] > 3,
        }

    run_dir = until_all_was_seen(once, seen)
    assert all("listens to clients" in (run_dir / "nodes" / f"{node}.log").read_text() for node in NODES)


def test_members_disks_and_crash_points_too_and_what_reacts(hosts, tmp_path, run_with_faults_from_inside):
    # A seed that damages one node only: with two damaged of three nobody is left to lead, and crash points not got to.
    done = run_with_faults_from_inside(partial(command, tmp_path, hosts), "6")
    assert "interrupted" not in done.stderr
    assert left_on(hosts) == {}


def test_hosts_lose_power_with_what_was_not_synced(hosts, tmp_path):
    options = ["--fault", "mix(lying-disk,power-loss)", "--fault-interval", "2"]
    options += ["--time-limit", "15", "--rate", "60", "--seed", "3", "--json"]
    done = subprocess.run(
        command(tmp_path, hosts, *options), capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode in (0, 1, 2), "a disk that lies breaks what Raft promises; " + done.stderr
    events = json.loads((tmp_path / "latest" / "results.json").read_text())["fault_events"]
    lines = [line for event in events for line in event["evidence"]]
    assert any("bytes lost" in line for line in lines), lines
    assert any("lost power" in line for line in lines), lines
    assert left_on(hosts) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_hosts_clean_up_by_themselves(hosts, tmp_path, number):
    options = ("--fault", "pause", "--fault", "partition", "--time-limit", "60", "--rate", "20")
    with subprocess.Popen(
        command(tmp_path, hosts, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        assert eventually(lambda: list(tmp_path.glob("latest/nodes/status.jsonl")), 60), "it is ready"
        time.sleep(2)
        assert set(left_on(hosts)) == set(NODES), "there is something to remove"
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == (2 if number == signal.SIGINT else -signal.SIGKILL)
    assert eventually(lambda: left_on(hosts) == {}), left_on(hosts)


def test_what_was_being_started_while_the_run_ended_goes_too(hosts):
    """A node that was started by a change of membership made its directory again after it was removed."""
    names, (key, known), _ = hosts
    site = Site(pool_for(NODES, list(names.values()), key, known))

    async def main():
        await site.open()
        again = f"while :; do mkdir -p {site.directory}/data; sleep 0.01; done"
        await site.pool.call(site.pool.run, "n1", f"setsid sh -c '{again}' </dev/null >/dev/null 2>&1 &")
        await site.close()

    asyncio.run(main())
    assert left_on(hosts) == {}


def test_an_unknown_host_key_is_refused(hosts, tmp_path):
    nobody = tmp_path / "known_hosts"
    nobody.touch()
    done = subprocess.run(
        command(tmp_path / "store", hosts, "--fault", "none", known_hosts=str(nobody)),
        capture_output=True, text=True, check=False, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 255
    assert "its host key is not in known_hosts" in done.stderr
    assert "ssh-keyscan" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_a_key_that_is_refused_is_named(hosts, tmp_path):
    names, (_, known), _ = hosts
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    with pytest.raises(SetupError, match=r"our keys are refused; put one there with: ssh-copy-id tester@"):
        ssh.probe(tuple(names.values()), str(tmp_path / "key"), known)


def test_a_port_in_use_is_told_in_the_words_of_the_node(hosts, tmp_path):
    listener = hosts[2].open_channel("n2", "exec python3 -m http.server 8000")
    try:
        listens = "cat /proc/net/tcp | grep -c ':1F40 .* 0A ' || true"
        assert eventually(lambda: int(hosts[2].run("n2", listens)) > 0)
        done = subprocess.run(
            command(tmp_path, hosts, "--fault", "none"), capture_output=True, text=True, check=False
        )
    finally:
        hosts[2].run("n2", "pkill -f [h]ttp.server || true")
        listener.close()
    assert done.returncode == 255
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("splitbrain: cluster 'ssh': n2 ended with exit code 255, its last words: ")
    assert "address already in use" in line
    assert eventually(lambda: left_on(hosts) == {}), left_on(hosts)


def test_commands_are_bounded_and_connections_are_opened_again(hosts):
    pool = hosts[2]
    with pytest.raises(CommandError, match=r"'exit 3' on n1 failed"):
        pool.run("n1", "exit 3")
    pool.connect("n1").close()
    assert pool.run("n1", "cat", b"after it broke") == b"after it broke"
    assert len(pool.run("n1", "head -c 3000000 /dev/zero")) == 3_000_000
