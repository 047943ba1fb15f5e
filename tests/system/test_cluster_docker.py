"""`--cluster docker`: nodes in containers, broken for real, and gone afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.clusters import docker, docker_box
from harness.errors import SetupError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]


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


def test_faults_bite_and_the_verdict_is_valid(engine, tmp_path):
    options = ["--nodes", "3", "--time-limit", "15", "--rate", "60", "--seed", "5", "--json"]
    options += [option for name in ("partition", "latency", "kill", "pause") for option in ("--fault", name)]
    with subprocess.Popen(
        command(tmp_path, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        said, errors = process.communicate(timeout=200)
    summary = json.loads(said.splitlines()[-1])
    assert (process.returncode, summary["valid"]) == (0, True), errors
    assert left_by(engine, process.pid) == []
    run_dir = Path(summary["run_dir"])
    facts = json.loads((run_dir / "results.json").read_text())["facts"]
    assert summary["ok"] > 50
    assert facts["packets_met_by_faults"] > 0
    assert facts["processes_started"] > 3
    assert all((run_dir / "nodes" / f"n{number}.log").stat().st_size for number in (1, 2, 3))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("latest/nodes/status.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        assert len(left_by(engine, process.pid)) == 4, "three containers and a network"
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == 2
    assert left_by(engine, process.pid) == []


def test_clocks_and_disks_are_broken_behind_the_load_balancer(engine, tmp_path):
    options = ["--nodes", "3", "--time-limit", "12", "--rate", "50", "--seed", "4", "--json", "--via", "lb"]
    options += [option for name in ("clock", "disk", "kill") for option in ("--fault", name)]
    done = subprocess.run(
        command(tmp_path, *options), capture_output=True, text=True, check=False, timeout=200
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, summary["valid"]) == (0, True), done.stderr
    assert summary["ok"] > 30
    nodes = Path(summary["run_dir"]) / "nodes"
    assert "is UP" in (nodes / "lb.log").read_text()
    leaders = {
        (sample["node"], sample["status"]["term"])
        for sample in map(json.loads, (nodes / "status.jsonl").read_text().splitlines())
        if sample["status"] and sample["status"]["role"] == "leader"
    }
    assert len(leaders) > 1, "the leader changed under load, and nothing that was acknowledged was lost"
