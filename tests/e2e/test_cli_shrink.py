"""`splitbrain shrink` as a user types it."""

import json
import subprocess
import sys

import pytest


def splitbrain(*args, cwd):
    command = [sys.executable, "-m", "harness.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=540, check=False)


def last_json(result):
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("shrink")
    for seed in range(1, 30):
        run = splitbrain("run", "--bug", "stale-read", "--time-limit", 6, "--seed", seed, "--json", cwd=cwd)
        if run.returncode == 1:
            return cwd, last_json(run)
    pytest.fail("stale-read was not found in 29 seeds")


@pytest.mark.timeout(1200)
def test_a_failing_run_becomes_a_small_one_that_replays_with_its_story(failing):
    cwd, run = failing
    # Far more seconds than it takes, since a busy machine needs them.
    result = splitbrain("shrink", run["run_dir"], "--budget-s", 400, "--json", cwd=cwd)
    assert result.returncode == 1, result.stderr
    shrunk = last_json(result)
    assert shrunk["valid"] is False
    assert shrunk["seed"] == run["seed"]
    assert 1 <= shrunk["operations"] <= 12
    assert 0 <= shrunk["faults"] <= 5
    assert shrunk["seconds"] > 0
    assert shrunk["run_dir"] != run["run_dir"]
    assert "Where it went wrong" in (cwd / shrunk["run_dir"] / "story.txt").read_text()
    replay = splitbrain("replay", shrunk["run_dir"], "--json", cwd=cwd)
    assert replay.returncode == 1
    assert last_json(replay)["identical"] is True


def test_a_store_that_cannot_be_written_is_told_before_the_search(failing):
    cwd, run = failing
    (cwd / "file").write_text("")
    result = splitbrain("shrink", run["run_dir"], "--store", "file/store", cwd=cwd)
    assert (result.returncode, result.stdout) == (255, "")
    assert "store file/store: cannot be written (Not a directory)" in result.stderr


def test_sigterm_keeps_what_the_search_has_come_to(failing):
    cwd, run = failing
    command = [sys.executable, "-m", "harness.cli", "shrink", run["run_dir"], "--store", "ended"]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as search:
        told = [search.stdout.readline(), search.stdout.readline()]  # what is shrunk, and the first attempt
        search.terminate()
        told += search.stdout.readlines()
    assert search.returncode == 1, told
    assert (cwd / "ended" / "latest" / "plan.json").exists()


def test_a_valid_run_is_refused_in_one_sentence(tmp_path):
    run = splitbrain("run", "--time-limit", 1, "--fault", "none", "--seed", 1, "--json", cwd=tmp_path)
    result = splitbrain("shrink", last_json(run)["run_dir"], cwd=tmp_path)
    assert result.returncode == 254
    assert "nothing to shrink" in result.stderr
    assert len(result.stderr.splitlines()[-1]) < 400


@pytest.mark.parametrize(
    ("args", "says"), [(("nowhere",), "no such directory"), ((".", "--budget-s", "0"), "budget is 0")]
)
def test_what_a_user_can_get_wrong_is_said_in_one_sentence(tmp_path, args, says):
    result = splitbrain("shrink", *args, cwd=tmp_path)
    assert result.returncode == 254
    assert says in result.stderr
    assert "Traceback" not in result.stderr
