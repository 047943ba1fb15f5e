"""`splitbrain sim run` as a user types it, on the example that the documentation shows."""

import json
import shlex
import signal
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


def test_the_line_that_runs_it_again_can_be_typed(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    first = splitbrain(
        "sim",
        "run",
        "mistakes:fails",
        "--seeds",
        "1",
        "--fault",
        "mix(kill, pause)",
        "--arg=-a b",
        cwd=tmp_path,
    )
    line = next(line for line in first.stdout.splitlines() if line.startswith("again: "))
    words = shlex.split(line)
    assert words[:3] == ["again:", "splitbrain", "sim"]
    again = splitbrain(*words[2:], cwd=tmp_path)
    assert again.stdout == first.stdout


def test_a_verdict_is_told_where_its_history_cannot_be_stored(tmp_path):
    (tmp_path / "file").write_text("")
    args = ("--store", "file/store", "--arg", "bug")
    found = splitbrain("sim", "run", f"{EXAMPLE}:scenario", *FAULTS, *args, cwd=tmp_path)
    assert found.returncode == 255
    assert "INVALID" in found.stdout
    assert "store file/store: cannot be written (Not a directory)" in found.stderr


def test_the_mended_example_is_valid(tmp_path):
    args = ("--arg", "safe", "--seeds", "8", "--json")
    result = splitbrain("sim", "run", f"{EXAMPLE}:scenario", *FAULTS, *args, cwd=tmp_path)
    summary = last_json(result)
    assert (result.returncode, summary["valid"], summary["seeds"]) == (0, True, 8), result.stderr
    assert summary["faults"] > 0


def test_a_file_with_dataclasses(tmp_path):
    """They look their annotations up in the module that they are in."""
    (tmp_path / "classes.py").write_text(
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\n"
        "class Options:\n"
        "    count: int = 0\n"
        "def scenario(sim): pass\n"
    )
    result = splitbrain("sim", "run", "classes.py:scenario", cwd=tmp_path)
    assert "cannot be imported" not in result.stderr, result.stderr


def test_a_program_that_a_seed_does_not_fix_is_told(tmp_path):
    (tmp_path / "loose.py").write_text(
        "import asyncio\n"
        "count = 0\n"
        "def scenario(sim):\n"
        "    async def test():\n"
        "        global count\n"
        "        count += 1\n"
        "        await asyncio.sleep(count)\n"
        "        assert count == 1, 'kept'\n"
        "    return test\n"
    )
    result = splitbrain("sim", "run", "loose:scenario", cwd=tmp_path)
    assert result.returncode == 254
    assert (
        "two runs of seed 0 end differently: first after 0 lines and 1 s, without a failure, then"
        in result.stderr
    )
    assert "then after 0 lines and 2 s, (the test failed: AssertionError: kept" in result.stderr


MISTAKES = """
import asyncio, dataclasses, random, time
def raises(sim): raise KeyError("x")
def nothing(): pass
def twice(sim):
    sim.node("a", asyncio.sleep)
    sim.node("a", asyncio.sleep)
def no_program(sim): sim.node("a", 3)
async def waits(sim): pass
def no_test(sim): return lambda: 3
def no_model(sim):
    sim.model = "nosuch"
    return lambda: asyncio.sleep(1)
def recording(f, value, model="register"):
    def scenario(sim):
        sim.model = model
        async def test():
            with sim.operation(f, "k", value) as operation:
                operation.done()
        return test
    return scenario
class Kept:
    clock = staticmethod(time.time)
    dice: float = dataclasses.field(default_factory=random.random)
def kept(sim):
    async def test(clock=time.time, dice=random.random):
        assert False, (clock(), dice(), Kept.clock(), Kept.dice.default_factory())
    return test
flies = recording("fly", 1)
no_json = recording("write", object())
no_number = recording("write", [1, {"x": float("nan")}])
model_5 = recording("write", 1, model=5)
def chance(sim):
    drawn = random.random()
    async def test():
        assert drawn > 2, f"drawn {drawn}"
    return test
def fails(sim):
    sim.node("n1", lambda host: asyncio.sleep(1000))
    async def test():
        assert False, sim.arg
    return test
def address(sim):
    async def test():
        raise ValueError(f"no answer from {asyncio.Lock()} in {[object() for _ in range(3)]}")
    return test
def three(sim):
    async def program(host):
        await asyncio.sleep(1000)
    for name in ("n1", "n2", "n3"):
        sim.node(name, program)
    return lambda: asyncio.sleep(25)
def notes(sim):
    async def program(host):
        async def on_client(reader, writer):
            raise KeyError("uncaught")
        await (await asyncio.start_server(on_client, port=80)).serve_forever()
    sim.node("n1", program)
    async def test():
        for _ in range(3):
            _, writer = await asyncio.open_connection("n1", 80)
            await asyncio.sleep(1)
    return test
"""


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("raises", "the scenario raised KeyError: 'x' (line 3 of "),
        ("nothing", "the scenario raised TypeError: nothing() takes 0 positional arguments"),
        ("twice", "the scenario raised ValueError: there are two hosts named 'a'"),
        ("no_program", "the program of node 'a' is 3; give an async function"),
        ("waits", "the scenario is an async function"),
        ("no_test", "the test returned 3 and nothing to wait for; make it an async function"),
        ("no_model", "sim.model: unknown model 'nosuch'"),
        ("flies", "the model register knows read, write only, not 'fly'"),
        ("no_json", "the scenario recorded write of <object object at"),
        ("no_number", "which is no JSON: nan is no number of it"),
        ("model_5", "sim.model is 5; give the name of a model"),
    ],
)
def test_a_mistake_in_a_scenario_is_the_users_and_said_in_one_sentence(tmp_path, factory, says):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    result = splitbrain("sim", "run", f"mistakes:{factory}", cwd=tmp_path)
    assert says in result.stderr
    assert result.returncode == 254
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = (", "SyntaxError: '(' was never closed"),
        ("boom", "NameError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_a_module_that_cannot_be_imported_is_the_users_mistake(tmp_path, text, says):
    (tmp_path / "broken.py").write_text(text)
    for name in ("broken:f", "broken.py:f"):
        result = splitbrain("sim", "run", name, cwd=tmp_path)
        assert f"scenario '{name}' cannot be imported: {says}" in result.stderr
        assert (result.returncode, "Traceback" in result.stderr) == (254, False)


def test_a_failure_that_names_objects_is_a_failure_and_no_difference(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    result = splitbrain("sim", "run", "mistakes:address", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (1, "")
    assert "the test failed: ValueError: no answer from <asyncio.locks.Lock object at 0x" in result.stdout


def test_the_factory_draws_from_the_seed_too(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    results = [splitbrain("sim", "run", "mistakes:chance", "--seeds", "1", cwd=tmp_path) for _ in range(2)]
    assert results[0].stdout == results[1].stdout
    assert "the test failed: AssertionError: drawn 0." in results[0].stdout


def test_what_a_scenario_keeps_when_it_is_imported_is_virtual_in_its_runs(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    results = [
        splitbrain("sim", "run", name, "--seeds", "1", cwd=tmp_path)
        for name in ("mistakes:kept", "mistakes.py:kept")
    ]
    assert "the test failed: AssertionError: (1700000000.0, 0." in results[0].stdout
    assert results[0].stdout.splitlines()[0] == results[1].stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("membership", "the fault membership changes the members of a cluster"),
        ("mix(kill, transfer)", "the fault transfer changes the members of a cluster"),
        ("kill-in-snapshot", "the fault kill-in-snapshot waits for what a cluster tells of itself"),
    ],
)
def test_faults_that_nodes_of_a_scenario_cannot_suffer_are_refused(tmp_path, fault, says):
    """Also with a time in which none of them would have been drawn."""
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    for limit in ("20", "0.01"):
        result = splitbrain(
            "sim", "run", "mistakes:three", "--fault", fault, "--time-limit", limit, cwd=tmp_path
        )
        assert (result.returncode, result.stdout) == (254, "")
        assert says in result.stderr
        assert len(result.stderr.splitlines()) == 1


STUBBORN = """
import asyncio
def scenario(sim):
    async def program(host):
        print("begun", flush=True)
        while True:
            try:
                await asyncio.sleep(1e-5)
            except:
                pass
    sim.node("n1", program)
    return lambda: asyncio.sleep(float(sim.arg))
"""


def stubborn(directory, *options):
    (directory / "stubborn.py").write_text(STUBBORN)
    return [sys.executable, "-m", "harness.cli", "sim", "run", "stubborn:scenario", *options]


def test_a_program_that_catches_its_own_end_does_not_outlive_the_command(tmp_path):
    command = stubborn(tmp_path, "--seeds", "2", "--arg", "0.01")
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_program_cannot_catch_the_end_of_the_command(tmp_path, number):
    command = stubborn(tmp_path, "--time-limit", "1e6", "--arg", "1e6")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **streams) as run:
        assert run.stdout.readline() == "begun\n"
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (2, "splitbrain: interrupted\n")


def test_what_nobody_caught_is_told(tmp_path):
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    result = splitbrain("sim", "run", "mistakes:notes", "--seeds", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "KeyError('uncaught') (3 times)" in result.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((f"{EXAMPLE}:scenario", "--seed", "-1"), "seed is -1"),
        ((f"{EXAMPLE}:scenario", "--time-limit", "inf"), "time limit is inf"),
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
