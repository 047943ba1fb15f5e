"""After a run that was killed (SIGKILL) at any moment, `doctor --heal` removes all of it and nothing else."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from nemesis.netns import Netns, NetnsError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1200)]

MOMENTS = 10
LABEL = b"SPLITBRAIN_OWNER="
FAULTS = ("partition", "latency", "kill", "pause", "slow", "clock", "disk")


def output(*argv):
    """What a command says; empty where it is not there or refuses."""
    if shutil.which(argv[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        return ""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60).stdout


def traces():
    """What a run might leave on this machine outside its own namespaces: links, queues, chains, named namespaces."""
    links = [line.split(":")[1].strip() for line in output("ip", "-o", "link").splitlines()]
    queues = output("tc", "qdisc", "show").splitlines()
    rules = output("iptables-save").splitlines() + output("ip6tables-save").splitlines()
    return (
        {link for link in links if link.startswith("sb")}
        | {queue for queue in queues if " 5b: " in queue}
        | {rule for rule in rules if "SPLITBRAIN" in rule or "SB-PROBE" in rule}
        | set(output("ip", "netns", "list").splitlines())
    )


def directories():
    """Directories of runs, by the process that made them."""
    found = {}
    for path in Path(tempfile.gettempdir()).glob("sb-*-[0-9]*-*"):
        found.setdefault(int(path.name.split("-")[2]), set()).add(path)
    return found


def containers_of(owner):
    """Containers and networks with the label of this owner."""
    everything = output("docker", "ps", "-a", "--format", "{{.Labels}}").splitlines()
    everything += output("docker", "network", "ls", "--format", "{{.Labels}}").splitlines()
    return [labels for labels in everything if f"owner={owner}:" in labels]


def lives(pid):
    return Path("/proc", str(pid)).exists()


def processes_of(owner):
    """Processes that carry the label of this owner."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environ = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
            if LABEL + f"{owner}:".encode() in environ:
                found.append(f"{entry.name} {(entry / 'comm').read_text().strip()}")
        except OSError:  # it has ended meanwhile
            continue
    return found


def soon(found, owner):
    """What is found once nothing is any more, or after a while: what was killed takes a moment to go."""
    until_s = time.monotonic() + 20
    while found(owner) and time.monotonic() < until_s:
        time.sleep(0.05)
    return found(owner)


def engine_is_there():
    return bool(output("docker", "version", "--format", "{{.Server.Version}}").strip())


@pytest.fixture
def bystander():
    """Somebody else's network, whose owner lives, with a rule in it; and a process that only looks like ours."""
    try:
        net = Netns(("n1",))
    except NetnsError as error:
        pytest.skip(str(error))
    net.run("n1", ["tc", "qdisc", "add", "dev", "eth0", "root", "handle", "5b:", "htb"])
    with net, subprocess.Popen(["sleep", "600"], env=os.environ | {"SPLITBRAIN": "1"}) as sleeper:
        yield lambda: sleeper.poll() is None and "htb 5b:" in net.run("n1", ["tc", "qdisc", "show"])
        sleeper.kill()


def killed_run(cluster, store, after_s, seed, *, in_load):
    """Starts a run, kills it without a warning so long after its start or its first operation; says whose it was."""
    options = [option for name in FAULTS for option in ("--fault", name)]
    with subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "harness.cli",
                "run",
                "--cluster",
                cluster,
                "--store",
                str(store),
                *options,
            ),
            *("--nodes", "3", "--time-limit", "60", "--rate", "30", "--seed", str(seed)),
            *("--fault-interval", "2"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        while in_load and not any(file.stat().st_size for file in store.glob("*/history.jsonl")):
            assert process.poll() is None, "it was to run"
            time.sleep(0.02)
        time.sleep(after_s)
        assert process.poll() is None, "it was to run longer"
        process.send_signal(signal.SIGKILL)
        process.wait()
    return process.pid


def heal():
    """What a user types then, and what it says that it has removed."""
    argv = [sys.executable, "-m", "harness.cli", "doctor", "--heal", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=240)
    return json.loads(done.stdout)["healed"]


@pytest.mark.parametrize("cluster", ["local", "docker"])
def test_nothing_is_left_and_nothing_else_is_touched(cluster, tmp_path, bystander):
    if cluster == "docker" and not engine_is_there():
        pytest.skip("no Docker engine answers")
    before, others = traces(), directories()
    moments = random.Random(7)
    for number in range(MOMENTS):
        after_s, in_load = moments.uniform(0.1, 4.0), number % 2 == 0
        owner = killed_run(cluster, tmp_path / str(number), after_s, number, in_load=in_load)
        healed = heal()
        if containers_of(owner):  # which the engine was still making when the run was killed
            healed += heal()
        print(
            f"killed {after_s:.1f} s after its {'first operation' if in_load else 'start'}; healed: {healed}"
        )
        assert healed or not in_load, "a directory at least"
        assert soon(processes_of, owner) == []
        assert soon(containers_of, owner) == []
        assert owner not in directories()
        assert traces() <= before
        # Whoever lives keeps what it has; what it removes itself meanwhile is not ours to say.
        kept = [path for pid, paths in others.items() if lives(pid) for path in paths]
        assert not [path for path in kept if any(str(path) in item for item in healed)]
        assert bystander()
