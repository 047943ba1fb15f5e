"""`--cluster local`: the reference system as processes in namespaces, broken for real, and gone afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from nemesis.netns import Netns, NetnsError

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900)]

LABEL = b"SPLITBRAIN_OWNER="


@pytest.fixture(scope="module", autouse=True)
def _namespaces():
    try:
        Netns(("n1",)).close()
    except NetnsError as error:
        pytest.skip(str(error))


def command(store, *options):
    return [sys.executable, "-m", "harness.cli", "run", "--cluster", "local", "--store", str(store), *options]


def run(store, *options):
    """Exit code, the JSON summary, and what was said."""
    done = subprocess.run(
        command(store, "--json", *options), capture_output=True, text=True, check=False, timeout=280
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else None, done.stderr


def left_by(pid):
    """Processes that carry the label of this owner, and directories named after it."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and LABEL + f"{pid}:".encode() in (entry / "environ").read_bytes():
                found.append((entry / "comm").read_text())
        except OSError:
            pass
    return [*found, *Path("/tmp").glob(f"sb-*-{pid}-*")]


def eventually(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def results_of(summary):
    return json.loads((Path(summary["run_dir"]) / "results.json").read_text())


def test_faults_bite_and_the_verdict_is_valid(tmp_path, until_all_was_seen):
    faults = [option for name in ("partition", "latency", "kill", "pause") for option in ("--fault", name)]

    def once():
        code, summary, said = run(tmp_path, *faults, "--time-limit", "15", "--rate", "60", "--seed", "2")
        assert (code, summary["valid"]) == (0, True), said
        assert summary["ok"] > 100
        return summary

    def seen(summary):
        facts = results_of(summary)["facts"]
        return {
            "faults": summary["faults"] >= 4,
            "packets met": facts["packets_met_by_faults"] > 0,
            "nodes started again": facts["processes_started"] > 5,
        }

    run_dir = Path(until_all_was_seen(once, seen)["run_dir"])
    samples = [json.loads(line) for line in (run_dir / "nodes" / "status.jsonl").read_text().splitlines()]
    assert {sample["node"] for sample in samples} == {"n1", "n2", "n3", "n4", "n5"}
    assert any(sample["status"] and sample["status"]["role"] == "leader" for sample in samples)
    assert all((run_dir / "nodes" / f"n{number}.log").stat().st_size for number in range(1, 6))


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler; on Debian: apt-get install gcc libc6-dev")
def test_clocks_and_disks_are_broken_too(tmp_path):
    code, summary, said = run(
        tmp_path, "--nodes", "3", "--fault", "clock", "--fault", "disk", "--time-limit", "12", "--rate", "50",
        "--seed", "4",
    )  # fmt: skip
    assert (code, summary["valid"]) == (0, True), said
    assert summary["faults"] >= 2


def test_two_hundred_clients_of_one_harness(tmp_path):
    code, summary, said = run(
        tmp_path, "--nodes", "3", "--fault", "none", "--concurrency", "200", "--rate", "100", "--time-limit",
        "10", "--keys", "50", "--op-timeout", "5000",
    )  # fmt: skip
    assert (code, summary["valid"]) == (0, True), said
    assert summary["ok"] > 200, "of a thousand; a busy machine does not come to all"
    lines = map(json.loads, (Path(summary["run_dir"]) / "history.jsonl").read_text().splitlines()[1:])
    assert len({line["process"] for line in lines if line["type"] == "ok"}) > 100, "who asks is drawn"


ROOTLESS = """
import functools, sys
from harness.clusters import local
from nemesis.netns import Netns
local.Netns = functools.partial(Netns, rootless=True)
from harness.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_two_runs_at_once_one_of_them_in_a_user_namespace_behind_a_load_balancer(tmp_path):
    options = [
        "--nodes",
        "3",
        "--time-limit",
        "15",
        "--rate",
        "50",
        "--json",
        "--seed",
        "3",
        "--fault",
        "partition",
    ]
    options += ["--fault", "latency", "--fault", "kill"]
    argvs = [command(tmp_path / "a", *options), command(tmp_path / "b", *options)]
    argvs[1][1:3] = ["-c", ROOTLESS]
    if shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin"):
        argvs[1] += ["--via", "lb"]
    runs = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for argv in argvs
    ]
    for process in runs:
        said, errors = process.communicate(timeout=280)
        summary = json.loads(said.splitlines()[-1])
        assert (process.returncode, summary["valid"]) == (0, True), errors
        assert results_of(summary)["facts"]["packets_met_by_faults"] > 0
        assert left_by(process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tmp_path, number):
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
        assert eventually(lambda: len(left_by(process.pid)) > 4, 60), "it runs"
        assert eventually(lambda: list(tmp_path.glob("latest/nodes/status.jsonl")), 60), "it is ready"
        time.sleep(2)
        # As a terminal does it: to the whole group.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert eventually(lambda: not [one for one in left_by(process.pid) if isinstance(one, str)])
        for directory in left_by(process.pid):  # what `doctor --heal` is for
            shutil.rmtree(directory)
    else:
        assert process.returncode == 2, "what was recorded is checked, and the verdict is unknown"
        assert left_by(process.pid) == []
        assert json.loads((tmp_path / "latest" / "results.json").read_text())["interrupted"]


def test_the_committed_log_of_real_nodes_bounds_what_is_unknown(tmp_path, until_all_was_seen):
    options = ("--nodes", "3", "--fault", "partition", "--fault", "kill", "--time-limit", "6", "--seed", "3")

    def once():
        code, summary, said = run(tmp_path, *options, "--rate", "80", "--with-log")
        assert (code, summary["valid"]) in ((0, True), (2, "unknown")), said
        return summary

    def seen(summary):
        """Who leads at the end must tell its log within two seconds."""
        with_log = results_of(summary)["checks"]["linearizable-with-log"]
        return {"valid": summary["valid"] is True, "valid with the log": with_log["valid"] is True}

    run_dir = Path(until_all_was_seen(once, seen)["run_dir"])
    requests = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    assert sum(1 for request in requests if "index" in request) > 50, "most requests are found in it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_measuring_workloads_tells_how_far_it_is_and_leaves_no_worker(tmp_path, number):
    """Its workers, who have the clusters, went on for ever when it was killed."""
    argv = [
        sys.executable,
        "-m",
        "harness.cli",
        "workloads",
        "--measure",
        "--cluster",
        "local",
        "--seeds",
        "9",
    ]
    argv += ["--workload", "register", "--bug", "stale-read", "--time-limit", "2"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        lines = [process.stderr.readline() for _ in range(2)]
        assert "up to 9 runs of 2 s" in lines[0]
        assert "register none seed 0: " in lines[1]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (worker,) = [pid for pid in map(int, children.read_text().split()) if Path(f"/proc/{pid}").exists()]
        assert eventually(lambda: len(left_by(worker)) > 5, 60), "the next run goes on"
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        said = process.stderr.read()  # until the last worker has closed it
        assert "Traceback" not in said
        assert len(said.splitlines()) <= 3, "no further runs"
        assert process.wait(60) == (2 if number == signal.SIGINT else -number)
    assert eventually(lambda: left_by(worker) == [])


def test_a_fault_without_means_is_refused_before_the_run(tmp_path):
    """Without ip and tc there is no network to break; PATH keeps what Python itself needs."""
    done = subprocess.run(
        command(tmp_path / "store", "--fault", "partition"),
        env=os.environ | {"PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 255
    assert "cluster 'local': " in done.stderr
    assert "apt-get install" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler; on Debian: apt-get install gcc libc6-dev")
def test_every_other_kind_bites_for_real(tmp_path, until_all_was_seen):
    """Slow processes, crash points, lost power, disks that stand still, drifting clocks, changes of membership."""
    kinds = ("mix(slow,crash,power-loss,disk-stall,clock-drift)", "membership", "isolate-new-leader")
    faults = [option for name in kinds for option in ("--fault", name)]

    def once():
        code, summary, said = run(
            tmp_path, *faults, "--nodes", "5", "--time-limit", "25", "--rate", "40", "--seed", "5",
            "--fault-interval", "3",
        )  # fmt: skip
        assert (code, summary["valid"]) == (0, True), said
        events = results_of(summary)["fault_events"]
        assert not [event for event in events if event["proof"] == "refuted"]
        return events

    def seen(events):
        proofs = Counter(event["proof"] for event in events if event["start_s"] is not None)
        return {
            "five proved": proofs["proved"] >= 5,
            "one was set off": any(event.get("set_off") for event in events),
            "members changed": any("joint" in event["caused"] for event in events),
        }

    until_all_was_seen(once, seen)
