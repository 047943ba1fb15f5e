"""`--cluster docker`: nodes in containers, broken for real, and gone afterwards."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path, PurePosixPath

import pytest

from harness import config, plan
from harness.clusters import docker, docker_box, images
from harness.clusters.real_nemesis import RefusedError
from harness.errors import SetupError
from harness.systems.raft_service import RaftService
from nemesis.target import (
    BYTES_LOST,
    HEALTHY,
    HEALTHY_DISK,
    POWER_LOSSES,
    Damage,
    DiskRule,
    LinkRule,
    Ruleset,
)

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine():
    try:
        docker.probe()
        client = docker_box.engine()
    except SetupError as error:
        pytest.skip(str(error))
    yield client
    client.close()


def command(store, *options):
    return [
        sys.executable,
        "-m",
        "harness.cli",
        "run",
        "--cluster",
        "docker",
        "--store",
        str(store),
        *options,
    ]


def left_by(engine, pid):
    """Containers and networks that name this process as their owner."""
    of_ours = {"label": docker_box.OWNER_LABEL}
    containers = engine.containers.list(all=True, filters=of_ours, ignore_removed=True)
    labels = [(one.name, one.labels) for one in containers]
    labels += [(one.name, one.attrs["Labels"]) for one in engine.networks.list(filters=of_ours)]
    return [name for name, found in labels if found[docker_box.OWNER_LABEL].startswith(f"{pid}:")]


def results_of(summary):
    return json.loads((Path(summary["run_dir"]) / "results.json").read_text())


def test_faults_bite_and_the_verdict_is_valid(engine, tmp_path, until_all_was_seen):
    options = ["--nodes", "3", "--time-limit", "15", "--rate", "60", "--seed", "5", "--json"]
    options += [option for name in ("partition", "latency", "kill", "pause") for option in ("--fault", name)]

    def once():
        with subprocess.Popen(
            command(tmp_path, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            said, errors = process.communicate(timeout=280)
        summary = json.loads(said.splitlines()[-1])
        assert (process.returncode, summary["valid"]) == (0, True), errors
        assert left_by(engine, process.pid) == []
        assert summary["ok"] > 50
        return summary

    def seen(summary):
        facts = results_of(summary)["facts"]
        return {
            "packets met": facts["packets_met_by_faults"] > 0,
            "nodes started again": facts["processes_started"] > 3,
        }

    run_dir = Path(until_all_was_seen(once, seen)["run_dir"])
    assert all((run_dir / "nodes" / f"n{number}.log").stat().st_size for number in (1, 2, 3))


@pytest.mark.timeout(900)
def test_votes_that_are_forgotten_are_found_by_what_nodes_say_of_themselves(
    engine, tmp_path, until_all_was_seen
):
    """Clients seldom see two leaders of one term, but each says that it leads."""
    options = ["--bug", "vote-not-persisted", "--time-limit", "90", "--rate", "50", "--seed", "1", "--json"]
    options += ["--fault", "kill", "--fault", "partition", "--fault-interval", "3"]
    done = subprocess.run(
        command(tmp_path, *options), capture_output=True, text=True, check=False, timeout=280
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, summary["valid"]) == (1, False), done.stdout
    assert any("Election Safety: term" in line for line in summary["explanation"]), summary


BY_EXEC = """
import sys
from harness.clusters.docker_box import Box
Box.is_here = property(lambda self: False)
from harness.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_root_and_nsenter_everything_goes_by_docker_exec(engine, tmp_path, until_all_was_seen):
    options = ["--nodes", "3", "--time-limit", "12", "--rate", "60", "--seed", "5", "--json"]
    options += [option for name in ("partition", "latency", "kill", "pause") for option in ("--fault", name)]
    argv = command(tmp_path, *options)
    argv[1:3] = ["-c", BY_EXEC]

    def once():
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=280)
        summary = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, summary["valid"]) == (0, True), done.stderr
        results = results_of(summary)
        assert results["facts"]["network_reached_by"] == "docker exec"
        assert "refuted" not in [event["proof"] for event in results["fault_events"]]
        return results

    def seen(results):
        proofs = [event["proof"] for event in results["fault_events"]]
        return {
            "packets met": results["facts"]["packets_met_by_faults"] > 0,
            "four proved": proofs.count("proved") >= 4,
        }

    until_all_was_seen(once, seen)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_nothing_is_left_when_it_is_stopped(engine, tmp_path, number):
    options = (
        "--nodes",
        "3",
        "--fault",
        "pause",
        "--fault",
        "partition",
        "--time-limit",
        "60",
        "--rate",
        "20",
    )
    with subprocess.Popen(
        command(tmp_path, *options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("latest/nodes/status.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        assert len(left_by(engine, process.pid)) == 4, "three containers and a network"
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == 2
    assert left_by(engine, process.pid) == []


def test_clocks_and_disks_are_broken_behind_the_load_balancer(engine, tmp_path, until_all_was_seen):
    options = ["--nodes", "3", "--time-limit", "12", "--rate", "50", "--seed", "4", "--json", "--via", "lb"]
    options += [option for name in ("clock", "disk", "kill") for option in ("--fault", name)]

    def once():
        done = subprocess.run(
            command(tmp_path, *options), capture_output=True, text=True, check=False, timeout=280
        )
        summary = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, summary["valid"]) == (0, True), done.stderr
        assert summary["ok"] > 30
        nodes = Path(summary["run_dir"]) / "nodes"
        assert "is UP" in (nodes / "lb.log").read_text()
        return nodes

    def seen(nodes):
        leaders = {
            (sample["node"], sample["status"]["term"])
            for sample in map(json.loads, (nodes / "status.jsonl").read_text().splitlines())
            if sample["status"] and sample["status"]["role"] == "leader"
        }
        return {"the leader changed under load, and nothing that was acknowledged was lost": len(leaders) > 1}

    until_all_was_seen(once, seen)


def test_members_disks_and_crash_points_too_and_what_reacts(engine, tmp_path, run_with_faults_from_inside):
    run_with_faults_from_inside(partial(command, tmp_path), "5")


def test_a_node_forgets_its_disk_and_joins_again_and_another_dies_in_the_change(engine, tmp_path):
    asked = {"cluster": "docker", "nodes": 3, "faults": [], "time_limit_s": 5.0}
    cluster = docker.DockerCluster(plan.draw(config.load(None, asked), 1), RaftService(), tmp_path)

    async def until(look):
        for _ in range(600):
            if (found := await look()) is not None:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError("it did not come to that")

    async def change(voters, learners=()):
        async def is_let():
            with contextlib.suppress(RefusedError):  # nobody leads just now, or it has not caught up
                await cluster.change_members(sorted(voters), learners)
                return True

        async def is_done():
            view = await cluster.members()
            return True if view and view.is_settled and view.voters == tuple(sorted(voters)) else None

        assert await until(is_let)
        assert await until(is_done)

    async def main():
        await cluster.open()
        leader = await cluster.leader()
        out, other = [node for node in cluster.nodes if node != leader]
        await cluster.set_crash_point(other, "membership")
        await cluster.change_members(sorted({leader, other}))

        async def is_down():
            return True if await cluster.probe_process(other) == "down" else None

        assert await until(is_down)
        await cluster.set_crash_point(other, None)
        await cluster.start(other)
        await change({leader, other})
        await cluster.kill(out)
        await cluster.wipe(out)
        with pytest.raises(SetupError, match=r"no file .* with anything in it"):
            await cluster.damage_disk(out, Damage("truncate", 5))
        await cluster.start(out)
        await change({leader, other}, [out])
        await change(set(cluster.nodes))
        await cluster.close()

    cluster.run(main)
    assert cluster.deaths() == []
    assert left_by(engine, os.getpid()) == []


def test_from_a_wheel_far_from_any_checkout(engine, tmp_path):
    """Builds the wheel, installs it aside, and lets it build its images and run by them."""
    root, site = Path(__file__).parents[2], tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(site), str(root)]
    built = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=120)
    if "No matching distribution found for setuptools" in built.stderr:
        pytest.skip("building a wheel takes setuptools from a package index, and none can be reached")
    assert built.returncode == 0, built.stderr

    def splitbrain(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "harness.cli", *arguments],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)},
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip

    done = splitbrain("images", "build")
    assert done.returncode == 0, done.stderr
    tag = done.stdout.split()[1]
    try:
        done = splitbrain(
            "run", "--cluster", "docker", "--nodes", "3", "--time-limit", "8", "--seed", "1", "--json"
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert (summary["valid"], Path(summary["run_dir"]).parent) == (True, Path("store"))
        assert summary["ok"] > 50
    finally:
        if tag != images.node_image():
            engine.images.remove(tag)
            subprocess.run([sys.executable, "-m", "harness.cli", "images", "build"], check=True, timeout=200)


WRITE = """
import os
end = os.open("/data/file", os.O_CREAT | os.O_WRONLY)
os.write(end, b"synced"), os.fsync(end), os.pwrite(end, b"ABCD", 4)
"""


@pytest.mark.parametrize("way", ["nsenter", "docker exec"])
@pytest.mark.parametrize("torn", [0.0, 1.0])
def test_the_power_takes_what_was_not_synced(engine, tmp_path, way, torn):
    asked = {"cluster": "docker", "nodes": 1, "faults": ["power-loss"], "time_limit_s": 5.0}
    cluster = docker.DockerCluster(plan.draw(config.load(None, asked), 1), RaftService(), tmp_path)
    box = cluster._box
    if way == "docker exec":
        box._is_here = False

    async def main():
        await cluster.open()
        code, said = box._containers["n1"].exec_run(["python3", "-c", WRITE])
        assert code == 0, said
        await cluster.set_disk("n1", DiskRule(lose_unsynced=True, torn_write=torn))
        await cluster.kill("n1")
        assert box.run("n1", "cat /data/file") == ("syncAB" if torn else "synced")
        troubles = await cluster.probe_troubles("n1")
        assert (troubles[POWER_LOSSES], troubles[BYTES_LOST]) == (1, 2 if torn else 4)
        await cluster.set_disk("n1", HEALTHY_DISK)
        await cluster.start("n1")
        await cluster._wait_until_ready()
        await cluster.close()

    cluster.run(main)
    assert cluster.deaths() == []


CONNECT = """
import socket, sys, time
took = []
while len(took) < 15 or (min(took) > float(sys.argv[2]) and len(took) < 200):
    began = time.perf_counter()
    socket.create_connection((sys.argv[1], 8000), 20).close()
    took.append(1000 * (time.perf_counter() - began))
print(min(took))
"""


@pytest.mark.parametrize("way", ["nsenter", "docker exec"])
def test_latency_is_what_was_asked_and_a_container_that_ended_gets_its_rules_again(engine, tmp_path, way):
    planned = plan.draw(
        config.load(None, {"cluster": "docker", "nodes": 3, "faults": [], "time_limit_s": 5.0}), 1
    )
    cluster = docker.DockerCluster(planned, RaftService(), tmp_path)
    box, reach = cluster._box, cluster._box.reach()
    if way == "docker exec":
        box._is_here = False
    elif not box.is_here and box._is_here is False:
        pytest.skip("no nsenter, or not root")

    async def least_ms(src, dst, below_ms):
        """The least disturbed of some connections, of more on a machine so busy that none is below the bound."""
        argv = [box.python, "-c", CONNECT, cluster._addresses[dst], str(below_ms)]
        return float(await reach.run(src, argv))

    async def client_ms(node):
        began = time.perf_counter()
        (await cluster._dial(node)).drop()
        return 1000 * (time.perf_counter() - began)

    async def main():
        await cluster.open()
        await cluster.set_network(
            Ruleset({("n1", "n2"): LinkRule(delay_ms=50), ("n1", "n3"): LinkRule(blocked=True)})
        )
        assert 50 <= await least_ms("n1", "n2", 52) < 52
        assert await least_ms("n2", "n3", 5) < 5
        assert min([await client_ms("n1") for _ in range(50)]) < 5, "the clients' path is unaffected"
        first = box.pid("n1")
        box._containers["n1"].kill()
        await cluster.start("n1")
        assert box.pid("n1") != first, "it is another process in another namespace"
        assert "blackhole" in await reach.run("n1", ["tc", "qdisc", "show"])
        assert 50 <= await least_ms("n1", "n2", 52) < 52
        await cluster.set_network(HEALTHY)
        assert await least_ms("n1", "n3", 5) < 5
        assert box.get("n1", PurePosixPath("/etc/hostname")), "files can be fetched"
        box.put("n1", PurePosixPath("/tmp/there"), b"said")
        assert b"said" in box.get("n1", PurePosixPath("/tmp/there"))
        await cluster.close()

    cluster.run(main)
    assert cluster.facts()["network_reached_by"] == way
    assert [words.partition(", its last words")[0] for words in cluster.deaths()] == [
        "n1 ended with its container, exit code 137"
    ]
    assert left_by(engine, os.getpid()) == []
