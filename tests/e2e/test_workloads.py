"""Every workload holds on the reference system under faults, and finds a seeded bug of its own kind.

The seeds of bugs are the first that find them (`splitbrain workloads --measure`); schedules that move may move them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import plan as plans
from harness.cli import main
from harness.config import Config
from harness.errors import SetupError
from harness.execute import execute
from harness.measure import measure
from harness.progress import QuietProgress
from harness.workloads import WORKLOADS
from nemesis.kinds import FAULTS


def run(tmp_path, workload, *, bug=None, seed=0, seconds=6.0, **options):
    config = Config(workload=workload, bug=bug, time_limit_s=seconds, workload_options=options)
    execution = execute(plans.draw(config, seed), tmp_path, QuietProgress())
    own = {
        check.name: check
        for check in execution.checks
        if check.name not in ("stats", "harness", "invariants")
    }
    return execution, own


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_is_valid_on_the_system_without_a_bug(tmp_path, workload):
    execution, _ = run(tmp_path, workload, seed=1)
    assert execution.result["valid"] is True, execution.report
    assert execution.result["faults"] > 0


FOUND_BY = [
    ("append", "txn-in-two-parts", 0, 6),
    ("wr", "txn-in-two-parts", 0, 6),
    ("bank", "txn-in-two-parts", 0, 6),
    ("bank", "guards-unchecked", 0, 6),
    ("counter", "guards-unchecked", 0, 6),
    ("unique-ids", "guards-unchecked", 0, 6),
    ("queue", "guards-unchecked", 0, 6),
    ("total-queue", "guards-unchecked", 0, 6),
    ("lock", "guards-unchecked", 0, 6),
    ("log", "guards-unchecked", 0, 6),
    ("g2", "guards-unchecked", 0, 6),
    ("multi-register", "txn-in-two-parts", 0, 6),
    ("set", "ack-before-majority", 0, 8),
    ("set-full", "ack-before-majority", 0, 8),
    ("watch", "watch-gap", 0, 15),
    ("lease", "keep-alive-not-replicated", 0, 15),
]


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "bug", "seed", "seconds"), FOUND_BY)
def test_a_workload_finds_a_bug_of_its_kind_and_explains_it(tmp_path, workload, bug, seed, seconds):
    execution, own = run(tmp_path, workload, bug=bug, seed=seed, seconds=seconds)
    bad = [check for check in own.values() if check.valid == "invalid"]
    assert bad, execution.report
    assert all(2 <= len(check.lines) <= 24 for check in bad)


SURVIVABLE = tuple(name for name, kind in FAULTS.items() if kind.survivable)


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_workload_is_valid_under_the_whole_nemesis(tmp_path, workload):
    """With this seed a leader also dies of the change of membership that the nemesis asks it for."""
    config = Config(workload=workload, time_limit_s=5.0, faults=SURVIVABLE)
    execution = execute(plans.draw(config, 4), tmp_path, QuietProgress())
    assert execution.result["valid"] is True, execution.report


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_lease_that_cut_off_nodes_ended_by_themselves_is_missed_when_one_of_them_leads(tmp_path, seed):
    config = Config(
        workload="lease", bug="lease-expired-locally", time_limit_s=8.0,
        faults=("partition-minority", "kill-leader"),
    )  # fmt: skip
    execution = execute(plans.draw(config, seed), tmp_path, QuietProgress())
    assert {check.name: check.valid for check in execution.checks}["lease"] == "invalid"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [14, 15])
def test_membership_finds_that_one_majority_of_a_joint_configuration_decides(tmp_path, seed):
    config = Config(
        workload="membership", bug="joint-one-majority", time_limit_s=15.0, faults=("partition-in-joint",),
        fault_intensity=3.0,
    )  # fmt: skip
    execution = execute(plans.draw(config, seed), tmp_path, QuietProgress())
    assert {check.name: check.valid for check in execution.checks}["linearizable"] == "invalid"


@pytest.mark.slow
def test_a_stored_history_is_judged_by_the_checker_that_its_header_names(tmp_path, capsys):
    """And by another one, if the user wants that."""
    _, own = run(tmp_path, "append", bug="txn-in-two-parts")
    header = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])
    assert header["checkers"] == [{"name": "list-append", "options": {"model": "strict-serializable"}}]
    assert main(["check", str(tmp_path), "--json"]) == 1
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["anomalies"] == own["list-append"].details["anomalies"]
    assert main(["check", str(tmp_path), "--checker", "list-append:model=read-uncommitted", "--json"]) in (
        0,
        1,
    )
    assert main(["check", str(tmp_path), "--checker", "nonsense"]) == 254
    assert "unknown checker 'nonsense'" in capsys.readouterr().err
    assert main(["check", str(tmp_path), "--checker", "bank", "--model", "kv"]) == 254


def test_a_history_of_jepsen_is_checked_by_name(tmp_path, capsys):
    """Transactions as Elle's users have them."""
    file = tmp_path / "history.edn"
    file.write_text(
        "{:process 0 :type :invoke :f :txn :value [[:append :x 1] [:r :y nil]]}\n"
        "{:process 1 :type :invoke :f :txn :value [[:append :y 1] [:r :x nil]]}\n"
        "{:process 0 :type :ok :f :txn :value [[:append :x 1] [:r :y []]]}\n"
        "{:process 1 :type :ok :f :txn :value [[:append :y 1] [:r :x []]]}\n"
    )
    assert main(["check", str(file), "--checker", "list-append"]) == 1
    out = capsys.readouterr().out
    assert "G2-item: T1 -rw -> T2 -rw -> T1" in out
    assert main(["check", str(file), "--checker", "list-append:model=snapshot-isolation"]) == 0


@pytest.mark.slow
def test_a_lock_by_lease_without_fencing_loses_elements(tmp_path):
    """What etcd's documentation warns of; with fencing the same seed is valid."""
    options = {"ttl_ms": 20}
    fenced, _ = run(tmp_path / _made(tmp_path, "a"), "lock-set", seed=2, **options)
    assert fenced.result["valid"] is True, fenced.report
    _, own = run(tmp_path / _made(tmp_path, "b"), "lock-set", seed=2, fencing=False, **options)
    assert own["set-full"].valid == "invalid"


def _made(tmp_path: Path, name: str) -> str:
    (tmp_path / name).mkdir()
    return name


@pytest.mark.slow
def test_what_finds_what_is_measured():
    """One cell with the bug and one without; what is printed of them."""
    base = Config(time_limit_s=4)
    found = measure(base, "g2", "guards-unchecked", seeds=2)
    assert (found.found_by, found.text) == (0, "**0**")
    assert measure(base, "g2", "none", seeds=1).text == "1/1 valid"


def test_nodes_that_were_not_ready_are_measured_once_more(monkeypatch):
    """A table of half an hour was lost to a machine that was busy for a moment."""
    attempts, said = [], []

    def fails_at_first(*arguments):
        attempts.append(1)
        if len(attempts) <= failing:
            raise SetupError("cluster 'docker': no answer from n1 within 30 s")
        return execute(*arguments)

    monkeypatch.setattr("harness.measure.execute", fails_at_first)
    failing = 1
    assert measure(Config(time_limit_s=1), "register", "none", 1, said.append).seeds == 1
    assert said[0].endswith("no answer from n1 within 30 s; once more")
    failing = 4
    with pytest.raises(SetupError, match="no answer from n1"):
        measure(Config(time_limit_s=1), "register", "none", 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bug", "nonsense"], "unknown bug 'nonsense'"),
        (["--workload", "nonsense"], "unknown workload 'nonsense'"),
        (["--seeds", "0"], "must be 1 or more"),
        (["--fault", "nonsense"], "no fault 'nonsense'"),
        (["--cluster", "ssh"], "cluster 'ssh' needs hosts"),
        (["--rate", "-1"], "rate is -1"),
    ],
)
def test_measuring_what_there_is_not_is_one_sentence(capsys, words, said):
    assert main(["workloads", "--measure", *words]) == 254
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
