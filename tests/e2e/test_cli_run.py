"""`splitbrain run` and `replay` from end to end, mostly in this process."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import commands
from harness import plan as plans
from harness.cli import main
from harness.commands import bugs
from harness.config import Config

TWO_PORTS = ["--node", "a@b:23", "--node", "a@c:24=10.0.0.1"]
SHORT = ["--time-limit", "8", "--rate", "60"]


def splitbrain(capsys, *args):
    """Run a command in this process: exit code, last line of standard output as JSON if it is, all of stderr."""
    try:
        code = main(list(args))
    except SystemExit as leave:
        code = leave.code
    out, err = capsys.readouterr()
    return code, out, err


def run_json(capsys, tmp_path, *args):
    code, out, err = splitbrain(capsys, "run", "--store", str(tmp_path / "store"), "--json", *args)
    return code, json.loads(out.splitlines()[-1]), err


def test_a_run_of_the_correct_system_is_valid_and_stored(capsys, tmp_path):
    """Verdict, figures, and a directory with everything needed to look again."""
    code, result, err = run_json(capsys, tmp_path, "--seed", "7", *SHORT)
    assert code == 0, err
    assert result["valid"] is True
    assert result["seed"] == 7
    assert result["ops"] == result["ok"] + result["fail"] + result["info"]
    assert result["ops"] > 400
    assert result["faults"] >= 4
    assert result["sim_seconds"] > 8
    run_dir = Path(result["run_dir"])
    assert sorted(p.name for p in run_dir.iterdir()) == [
        "history.jsonl",
        "plan.json",
        "plot.svg",
        "report.txt",
        "results.json",
    ]
    history = (run_dir / "history.jsonl").read_bytes()
    assert hashlib.sha256(history).hexdigest() == result["history_sha256"]
    assert json.loads((run_dir / "results.json").read_text())["valid"] is True
    assert (run_dir / "report.txt").read_text().startswith("verdict: VALID")
    assert (tmp_path / "store" / "latest").resolve() == run_dir.resolve()


def test_the_seed_is_printed_first_and_last(capsys, tmp_path):
    """So that nobody has to look for it."""
    code, out, _ = splitbrain(capsys, "run", "--store", str(tmp_path), "--seed", "11", *SHORT)
    assert code == 0
    lines = out.strip().splitlines()
    assert lines[0].startswith("seed 11")
    assert lines[-1] == "seed 11"


@pytest.mark.parametrize("faults", [["none"], ["partition"], ["kill", "pause"], ["latency"]])
def test_faults_are_those_that_were_asked_for(capsys, tmp_path, faults):
    """Nothing else happens to the cluster."""
    options = [word for name in faults for word in ("--fault", name)]
    code, result, err = run_json(capsys, tmp_path, "--seed", "3", *SHORT, *options)
    assert code == 0, err
    events = json.loads((Path(result["run_dir"]) / "results.json").read_text())["fault_events"]
    assert {event["kind"] for event in events} == set(faults) - {"none"}
    assert all(event["stop_s"] is not None for event in events)


def run_in_process(tmp_path, hash_seed, *args):
    env = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "--json", "--store", str(tmp_path), *args],
        env=env, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("bug", [[], ["--bug", "stale-read"]])
def test_two_processes_with_different_hash_seeds_record_the_same_bytes(tmp_path, bug):
    """One root seed fixes everything."""
    a = run_in_process(tmp_path / "a", 1, "--seed", "7", "--time-limit", "20", *bug)
    b = run_in_process(tmp_path / "b", 2, "--seed", "7", "--time-limit", "20", *bug)
    assert a["history_sha256"] == b["history_sha256"]
    assert a["explanation"] == b["explanation"]
    c = run_in_process(tmp_path / "c", 1, "--seed", "8", "--time-limit", "20", *bug)
    assert c["history_sha256"] != a["history_sha256"]


def test_replay_repeats_the_history(capsys, tmp_path):
    """Byte for byte, and it says so."""
    _, result, _ = run_json(capsys, tmp_path, "--seed", "5", *SHORT)
    code, out, err = splitbrain(capsys, "replay", result["run_dir"], "--json")
    replayed = json.loads(out.splitlines()[-1])
    assert code == 0
    assert replayed["identical"] is True
    assert replayed["history_sha256"] == result["history_sha256"]
    assert "byte for byte the same" in err


def test_replay_of_an_edited_plan_follows_the_edit_and_says_where_it_parts(capsys, tmp_path):
    """A plan is data: take all faults out, and the run has none."""
    _, result, _ = run_json(capsys, tmp_path, "--seed", "5", *SHORT)
    plan_file = Path(result["run_dir"]) / "plan.json"
    plan = json.loads(plan_file.read_text())
    plan_file.write_text(json.dumps(plan | {"faults": []}))
    code, out, err = splitbrain(capsys, "replay", result["run_dir"], "--json")
    replayed = json.loads(out.splitlines()[-1])
    assert replayed["faults"] == 0
    assert replayed["identical"] is False
    assert "differ from line" in err
    assert code == 255


def test_a_plan_alone_is_run_without_a_history_to_compare_with(capsys, tmp_path):
    _, result, _ = run_json(capsys, tmp_path, "--seed", "5", *SHORT)
    edited = tmp_path / "edited.json"
    edited.write_text(
        json.dumps(json.loads((Path(result["run_dir"]) / "plan.json").read_text()) | {"faults": []})
    )
    code, out, err = splitbrain(capsys, "replay", str(edited), "--store", str(tmp_path / "new"), "--json")
    replayed = json.loads(out.splitlines()[-1])
    assert (code, replayed["faults"], replayed["identical"]) == (0, 0, None)
    assert "replay: " not in err


FAULT = {"id": "cut", "start_ms": 2000, "stop_ms": 4000}
GRUDGE = {"fault": "partition", "topology": "custom", "grudge": {"n1": ["n2"], "n3": ["n1", "n2"]}}


def test_faults_are_written_by_hand(capsys, tmp_path):
    """A grudge for two seconds; that it was in force is demanded and proved as of drawn faults."""
    plan = tmp_path / "faults.json"
    plan.write_text(json.dumps([FAULT | {"fault": GRUDGE}]))
    options = ("--seed", "5", *SHORT, "--fault-plan", str(plan), "--require-effect")
    code, result, err = run_json(capsys, tmp_path, *options)
    assert (code, result["faults"]) == (0, 1), err
    assert "1 faults planned (by hand)" in err
    stored = json.loads((Path(result["run_dir"]) / "results.json").read_text())["fault_events"]
    assert [(event["id"], event["proof"]) for event in stored] == [("cut", "proved")]
    assert splitbrain(capsys, "replay", result["run_dir"])[0] == 0
    never = {"fault": GRUDGE, "when": {"on": "snapshot-receiving", "hold_ms": 10}}
    plan.write_text(json.dumps([FAULT | never]))
    code, _, err = run_json(capsys, tmp_path, *options)
    assert (code, "fault cut had no effect" in err or "fault partition had no effect" in err) == (2, True), (
        err
    )


@pytest.mark.parametrize(
    ("events", "sentence"),
    [
        ("[", "cannot be read"),
        ([FAULT | {"fault": {"fault": "meteor"}}], "known faults: partition, latency"),
        ([FAULT | {"fault": {"fault": "kill", "aim": "two", "nodes": ["n1"]}}], "give one of named, one"),
        ([FAULT | {"fault": {"fault": "kill", "aim": "one", "nodes": ["n9"]}}], "which the cluster does not have"),
        ([FAULT | {"fault": GRUDGE}, FAULT | {"fault": GRUDGE}], "two events with the id 'cut'"),
        ([FAULT | {"stop_ms": 99_999_999, "fault": GRUDGE}], "lasts until 100000 s, but the time limit is 60 s"),
    ],
)  # fmt: skip
def test_faults_written_wrongly_are_refused_before_anything_is_made(
    capsys, tmp_path, monkeypatch, events, sentence
):
    monkeypatch.chdir(tmp_path)
    plan = tmp_path / "faults.json"
    plan.write_text(events if isinstance(events, str) else json.dumps(events))
    code, _, err = splitbrain(capsys, "run", "--fault-plan", str(plan))
    assert code == 254
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda plan: plan["ops"][0].update(f="explode"), "'explode', but the workload register has read, write"),
        (lambda plan: plan["ops"][-1].update(at_us=10**12), "an operation at 1e+06 s, but the time limit is 8 s"),
        (lambda plan: plan["faults"].append(plan["faults"][0]), "two events with the id"),
        (lambda plan: plan["config"].update(nodes=-3), "nodes is -3"),
        (lambda plan: plan["config"].update(faults=["meteor"]), "there is no fault 'meteor'"),
        (lambda plan: plan.update(fault=[]), "unknown field `fault`"),
        (lambda plan: plan["ops"][3].update(vale=5), "unknown field `vale` - at `$.ops[3]`"),
        (lambda plan: plan["network"].update(los=0.5), "unknown field `los` - at `$.network`"),
        (lambda plan: plan["network"].update(links={"n1->n9": {}}), "network.links has 'n1->n9'; name two nodes"),
        (lambda plan: plan["disk"].update(sync_us=5), "unknown field `sync_us` - at `$.disk`"),
    ],
)  # fmt: skip
def test_a_plan_edited_wrongly_is_refused(capsys, tmp_path, edit, sentence):
    """Also what would have been run for days, or taken for a bug of splitbrain."""
    plan = json.loads(plans.encode(plans.draw(Config(time_limit_s=8, rate_hz=60, seed=5))))
    edit(plan)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    code, _, err = splitbrain(capsys, "replay", str(tmp_path / "plan.json"), "--store", str(tmp_path / "new"))
    assert code == 254
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("workload", "op", "sentence"),
    [
        ("register", {"f": "cas", "key": "k", "value": 5}, "cas of key 'k' cannot be performed with the value 5 (Type"),
        ("append", {"f": "txn", "value": [["w", "x"]]}, "the operation txn of key None cannot be performed"),
        ("append", {"f": "txn", "value": [["x", "x", 1]]}, "'x' is no operation of a transaction"),
        ("bank", {"f": "transfer", "key": "b", "value": {"from": 0, "to": 1}}, "(KeyError: 'amount'); mend the plan"),
    ],
)  # fmt: skip
def test_a_value_that_an_operation_cannot_have_is_the_plans_mistake(capsys, tmp_path, workload, op, sentence):
    plan = json.loads(plans.encode(plans.draw(Config(time_limit_s=1, rate_hz=10, seed=5, workload=workload))))
    plan |= {"ops": [op | {"at_us": 0, "worker": 0}], "final": [], "faults": []}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    code, _, err = splitbrain(capsys, "replay", str(tmp_path / "plan.json"), "--store", str(tmp_path / "new"))
    assert (code, "Traceback" in err) == (254, False)
    assert sentence in " ".join(err.split())


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["run", "--rate", "-5"], 254, "rate is -5.0; give a number above 0"),
        (["run", "--rate", "fast"], 254, "invalid float value: 'fast'"),
        (["run", "--nodes", "0"], 254, "nodes is 0"),
        (["run", "--workload", "poetry"], 254, "unknown workload 'poetry'; known: register"),
        (["run", "--system", "zab"], 254, "unknown system 'zab'; known: raft"),
        (["run", "--cluster", "moon"], 254, "unknown cluster 'moon'"),
        (["run", "--bug", "mosquito"], 254, "unknown bug 'mosquito'"),
        (["run", "--fault", "meteor"], 254, "no fault 'meteor'"),
        (["run", "--frobnicate"], 254, "--frobnicate"),
        (["run", "--config", "/nonexistent.toml"], 254, "/nonexistent.toml: No such file"),
        (["run", "--via", "lb"], 254, "cluster 'sim' has no load balancer"),
        (["run", "--fault-plan", "/nonexistent"], 254, "fault plan /nonexistent: No such file"),
        (
            ["run", "--cluster", "docker", "--fault", "timer-drift"],
            254,
            "fault 'timer-drift' needs 'clock-timers', which cluster 'docker' cannot do",
        ),
        (["run", "--cluster", "ssh", *["--node", "a@host"] * 3], 254, "node 'a@host' is there twice"),
        (["run", "--cluster", "ssh", *TWO_PORTS, "--node", "a@d=10.0.0.1"], 254, "is there twice"),
        (["dance"], 254, "dance"),
        (["replay", "/nonexistent"], 254, "/nonexistent: no such directory"),
    ],
)
def test_mistakes_get_one_sentence_and_the_right_exit_code(
    capsys, tmp_path, monkeypatch, args, code, sentence
):
    """Thing, value and remedy; no traceback; nothing is left in the store."""
    monkeypatch.chdir(tmp_path)
    got, _, err = splitbrain(capsys, *args)
    assert got == code
    assert sentence in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "store").exists()


def test_an_unwritable_store_is_named(capsys, tmp_path):
    """A store below a file cannot be made; the sentence says which and what to do."""
    (tmp_path / "file").write_text("")
    code, _, err = splitbrain(capsys, "run", "--store", str(tmp_path / "file" / "store"), *SHORT)
    assert code == 255
    assert "choose another with --store" in err
    assert "Traceback" not in err


def test_a_run_too_short_to_test_anything_is_unknown(capsys, tmp_path):
    """A kind of operation that never succeeded makes a verdict worthless, never valid."""
    code, result, _ = run_json(
        capsys, tmp_path, "--seed", "1", "--time-limit", "0.004", "--rate", "40", "--fault", "none"
    )
    assert code == 2
    assert result["valid"] == "unknown"


def test_ctrl_c_keeps_the_history_checks_it_and_says_so(tmp_path):
    """An interrupted run is unknown, its history complete up to there, and checkable."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "run", "--json", "--store", str(tmp_path), "--seed", "1",
         "--time-limit", "3000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        files = list(tmp_path.glob("*-seed1/history.jsonl"))
        if files and files[0].stat().st_size > 200_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    result = json.loads(out.splitlines()[-1])
    assert result["valid"] == "unknown"
    assert any("interrupted" in line for line in result["explanation"])
    assert "Traceback" not in err
    assert result["ops"] > 500
    assert main(["check", str(files[0])]) == 0


@pytest.mark.parametrize(
    ("name", "kept"), [("run", "; what was recorded is kept in the run directory"), ("check", "")]
)
def test_an_interrupted_command_speaks_of_a_run_only_where_there_is_one(
    capsys, monkeypatch, tmp_path, name, kept
):
    """A check has recorded nothing."""

    def interrupted(_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.load(name), "main", interrupted)
    code, _, err = splitbrain(capsys, name, *([str(tmp_path)] if name == "check" else []))
    assert (code, err) == (2, f"splitbrain: interrupted{kept}\n")


def test_sigterm_ends_a_command_as_ctrl_c_does_wherever_it_is(capsys, monkeypatch):
    """What it has made until then it takes away: a container that was tried, a library that was compiled."""
    cleaned = []

    def busy(_args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            cleaned.append(True)

    monkeypatch.setattr(bugs, "main", busy)
    before = signal.getsignal(signal.SIGTERM)
    code, _, err = splitbrain(capsys, "bugs")
    assert (code, cleaned) == (2, [True])
    assert err == "splitbrain: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_bugs_are_listed(capsys):
    """At least the six that every Raft has had."""
    code, out, _ = splitbrain(capsys, "bugs", "--json")
    names = {bug["name"] for bug in json.loads(out)}
    assert code == 0
    assert names >= {
        "stale-read", "vote-not-persisted", "commit-prior-term", "ack-before-majority",
        "truncate-without-conflict", "retry-not-deduped",
    }  # fmt: skip
    code, out, _ = splitbrain(capsys, "bugs")
    assert code == 0
    assert "commit-prior-term" in out
