"""`splitbrain sweep` as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def splitbrain(*args, cwd):
    command = [sys.executable, "-m", "harness.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=540, check=False)


def last_json(result):
    return json.loads(result.stdout.splitlines()[-1])


SMALL = ("--time-limit", "2", "--rate", "40", "--jobs", "2", "--json")


def test_a_sweep_of_a_correct_system_is_valid_and_keeps_no_run(tmp_path):
    result = splitbrain("sweep", "--seeds", "5:9", *SMALL, cwd=tmp_path)
    summary = last_json(result)
    assert (result.returncode, summary["valid"], summary["seeds"]) == (0, True, 4), result.stderr
    assert summary["groups"] == []
    assert summary["faults"] > 0
    assert [path.suffix for path in (tmp_path / "store").iterdir()] == [".jsonl"]


def test_a_sweep_of_a_broken_system_keeps_failures_that_replay(tmp_path):
    args = ("--seeds", "12", "--bug", "stale-read", "--time-limit", "6", "--jobs", "2", "--json")
    result = splitbrain("sweep", *args, cwd=tmp_path)
    summary = last_json(result)
    assert result.returncode == 1
    assert summary["valid"] is False
    (group,) = [group for group in summary["groups"] if group["valid"] is False]
    assert "linearizable" in group["signature"]
    replay = splitbrain("replay", group["run_dir"], "--json", cwd=tmp_path)
    assert (replay.returncode, last_json(replay)["identical"]) == (1, True)


def test_a_sweep_goes_on_where_it_stopped(tmp_path):
    first = last_json(splitbrain("sweep", "--seeds", "0:4", "--swarm", *SMALL, cwd=tmp_path))
    path = tmp_path / first["results_file"]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])
    again = splitbrain("sweep", "--resume", path, "--json", cwd=tmp_path)
    summary = last_json(again)
    assert again.returncode == 0, again.stderr
    assert (summary["resumed"], summary["seeds"], summary["ops"]) == (2, 4, first["ops"])
    assert summary["interrupted"] is False
    assert summary["states_reached"] == first["states_reached"]  # and none is counted twice


def test_a_sweep_ends_when_its_time_is_up(tmp_path):
    summary = last_json(splitbrain("sweep", "--until", "1.5s", *SMALL, cwd=tmp_path))
    assert summary["seeds"] >= 1
    assert summary["wall_seconds"] < 60


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--seeds", "9:3"), "seeds are '9:3'"),
        (("--until", "soon"), "--until is 'soon'"),
        (("--jobs", "0"), "jobs is 0"),
        (("--seed", "3"), "--seed 3 is for one run"),
        (("--resume", "nowhere.jsonl"), "sweep nowhere.jsonl"),
        (("--bug", "nonsense"), "unknown bug 'nonsense'"),
    ],
)
def test_what_a_user_can_get_wrong_is_said_in_one_sentence(tmp_path, args, says):
    result = splitbrain("sweep", *args, cwd=tmp_path)
    assert result.returncode == 254
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_guided_sweep_keeps_a_corpus_and_goes_on_with_it(tmp_path):
    first = last_json(splitbrain("sweep", "--seeds", "0:6", "--guided", *SMALL, cwd=tmp_path))
    path = tmp_path / first["results_file"]
    corpus = path.with_suffix(".corpus.jsonl")
    kept = len(corpus.read_bytes().splitlines())
    assert 1 <= kept <= 6
    assert first["states_reached"] > 10
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]))
    again = splitbrain("sweep", "--resume", path, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (last_json(again)["resumed"], last_json(again)["seeds"]) == (3, 6)
    assert len(corpus.read_bytes().splitlines()) >= kept


def test_a_sweep_for_liveness_says_how_long_recovery_took(tmp_path):
    summary = last_json(splitbrain("sweep", "--seeds", "3", "--liveness", *SMALL, cwd=tmp_path))
    assert summary["valid"] is True
    assert 0 <= summary["recovered_ms_max"] < 10_000


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the workers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_sweep_its_workers_are_gone_and_its_results_are_kept(tmp_path, number):
    args = ("--until", "10m", "--time-limit", "1", "--rate", "20", "--nodes", "3", "--jobs", "2")
    command = [sys.executable, "-m", "harness.cli", "sweep", *args]
    sweep = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        until_s = time.monotonic() + 60
        while not (found := list(tmp_path.glob("store/*.jsonl"))) or found[0].read_bytes().count(b"\n") < 3:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        workers = children_of(sweep.pid)
        assert len(workers) >= 2
        os.kill(sweep.pid, number)
        out, _ = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
    if number == signal.SIGTERM:
        assert "--resume" in out
        assert "Traceback" not in out
        assert sweep.returncode == 2  # what was interrupted is never valid
    until_s = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < until_s, "workers outlived their sweep"
        time.sleep(0.1)
    assert len(found[0].read_bytes().splitlines()) >= 3
