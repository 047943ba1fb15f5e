"""`splitbrain sweep --dask` on a scheduler and two worker processes of this machine, one of which is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from raft.testing.processes import free_ports

pytest.importorskip("distributed", reason="needs the package distributed; pip install 'splitbrain[dask]'")

pytestmark = [pytest.mark.system, pytest.mark.slow]

SEEDS = 40
SMALL = ("--time-limit", "4", "--rate", "40", "--json")


def start(*args, cwd):
    """The scheduler, too, keeps files, which would stay in the machine's own directory for them."""
    env = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "10s"}
    env["DASK_TEMPORARY_DIRECTORY"] = str(cwd)
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + args[0], *map(str, args[1:])],
        cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler, and its two workers."""
    address = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    started = [
        start("dask_scheduler", "--host", address, "--no-dashboard", "--dashboard-address", "", cwd=tmp_path)
    ]
    try:
        started += [
            start(
                "dask_worker", address, "--nthreads", 1, "--no-nanny", "--no-dashboard",
                "--local-directory", tmp_path / f"worker-{number}", "--death-timeout", 60, cwd=tmp_path,
            )
            for number in (1, 2)
        ]  # fmt: skip
        wait_for_workers(address, 2)
        assert list(tmp_path.glob("dask-scratch-space/scheduler-*")), "where the scheduler keeps its files"
        yield address, started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


def wait_for_workers(address, count):
    code = f"from distributed import Client; Client({address!r}, timeout=60).wait_for_workers({count}, timeout=60)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)


def seeds_in(path):
    return [json.loads(line)["seed"] for line in path.read_bytes().splitlines()[1:]]


def results_file(cwd):
    return next(iter((cwd / "store").glob("*sweep*.jsonl")), None)


def wait_for_results(cwd, count, process):
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and process.poll() is None:
        path = results_file(cwd)
        if path is not None and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.02)
    pytest.fail(f"the sweep came to no {count} results")


def test_a_sweep_is_complete_although_one_of_two_workers_is_killed_in_the_middle(tmp_path, cluster):
    address, workers = cluster
    command = [sys.executable, "-m", "harness.cli", "sweep", "--dask", address, "--seeds", str(SEEDS), *SMALL]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_results(tmp_path, 5, sweep)
        assert len(seeds_in(results_file(tmp_path))) < SEEDS - 4, "killed too late to show anything"
        workers[0].send_signal(signal.SIGKILL)
        out, err = sweep.communicate(timeout=240)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert (summary["valid"], summary["seeds"]) == (True, SEEDS)
    assert sorted(seeds_in(results_file(tmp_path))) == list(range(SEEDS)), "each seed once"


def test_an_address_where_nothing_answers_is_told_in_one_sentence(tmp_path):
    command = [sys.executable, "-m", "harness.cli", "sweep", "--dask", f"tcp://127.0.0.1:{free_ports(1)[0]}"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 254
    assert "no scheduler answers" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
