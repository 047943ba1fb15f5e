"""`splitbrain sim run` as a user types it, on the example that the documentation shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "primary_backup.py"
FAULTS = ("--fault", "partition", "--fault", "kill")


def splitbrain(*args, cwd):
    command = [sys.executable, "-m", "harness.cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=540, check=False)


def last_json(result):
    return json.loads(result.stdout.splitlines()[-1])


def test_the_bug_of_the_example_is_found_and_found_again_from_its_seed(tmp_path):
    found = splitbrain("sim", "run", f"{EXAMPLE}:scenario", *FAULTS, "--json", cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    summary = last_json(found)
    assert summary["valid"] is False
    assert any("impossible" in line for line in summary["explanation"])
    again = splitbrain(
        "sim", "run", f"{EXAMPLE}:scenario", *FAULTS, "--seed", summary["seed"], "--json", cwd=tmp_path
    )
    assert last_json(again)["explanation"] == summary["explanation"]
    check = splitbrain("check", summary["history"], "--model", "register", cwd=tmp_path)
    assert check.returncode == 1


def test_the_mended_example_is_valid(tmp_path):
    args = ("--arg", "safe", "--seeds", "8", "--json")
    result = splitbrain("sim", "run", f"{EXAMPLE}:scenario", *FAULTS, *args, cwd=tmp_path)
    summary = last_json(result)
    assert (result.returncode, summary["valid"], summary["seeds"]) == (0, True, 8), result.stderr
    assert summary["faults"] > 0


def test_a_program_that_a_seed_does_not_fix_is_told(tmp_path):
    (tmp_path / "loose.py").write_text(
        "import asyncio\n"
        "count = 0\n"
        "def scenario(sim):\n"
        "    async def test():\n"
        "        global count\n"
        "        count += 1\n"
        "        await asyncio.sleep(count)\n"
        "    return test\n"
    )
    result = splitbrain("sim", "run", "loose:scenario", cwd=tmp_path)
    assert result.returncode == 254
    assert "two runs of seed 0" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nowhere:scenario",), "No module named 'nowhere'"),
        (("nowhere",), "give MODULE:FACTORY"),
        (("nowhere.py:x",), "no such file"),
        ((f"{EXAMPLE}:nothing",), "has no function nothing"),
        ((f"{EXAMPLE}:scenario", "--fault", "meteor"), "there is no fault 'meteor'"),
        ((f"{EXAMPLE}:scenario", "--seeds", "x"), "seeds are 'x'"),
    ],
)
def test_what_a_user_can_get_wrong_is_said_in_one_sentence(tmp_path, args, says):
    result = splitbrain("sim", "run", *args, cwd=tmp_path)
    assert result.returncode == 254
    assert says in result.stderr
    assert "Traceback" not in result.stderr
