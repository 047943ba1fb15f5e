"""The real program in the simulated world: `--depth whole` repeats itself, judges rightly and finds what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import main

SMALL = ["--depth", "whole", "--nodes", "3", "--concurrency", "5", "--rate", "40"]


def run(capsys, tmp_path, *options):
    code = main(["run", *SMALL, *options, "--store", str(tmp_path), "--json"])
    out, err = capsys.readouterr()
    assert out, err
    return code, json.loads(out.splitlines()[-1])


def facts(result):
    return json.loads((Path(result["run_dir"]) / "results.json").read_text())["facts"]


def test_a_run_repeats_itself_in_another_process(capsys, tmp_path):
    code, here = run(capsys, tmp_path, "--seed", "3", "--time-limit", "5")
    assert code == 0
    program = "import sys; from harness.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", *SMALL, "--seed", "3", "--time-limit", "5"]
    there = subprocess.run(
        [*command, "--store", str(tmp_path), "--json"],
        env={**os.environ, "PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    again = json.loads(there.stdout.splitlines()[-1])
    assert again["history_sha256"] == here["history_sha256"]
    assert facts(again) == facts(here)
    assert len(facts(here)["trace_sha256"]) == 64
    log = (Path(here["run_dir"]) / "nodes" / "n1.log").read_text()
    assert "started term=0" in log


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["stale-read", "vote-not-persisted"])
def test_a_seeded_bug_is_found_in_the_real_program(capsys, tmp_path, bug):
    """Within ten seeds: which one moves with every change of the program, for it is the program that runs."""
    for seed in range(10):
        options = ("--seed", str(seed), "--bug", bug, "--time-limit", "20")
        code, result = run(capsys, tmp_path, *options)
        if code == 1:
            assert result["valid"] is False
            return
    pytest.fail(f"{bug} was not found in ten seeds")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a busy machine
def test_two_hundred_seeds_of_the_real_program_break_nothing(capsys, tmp_path):
    """Short runs under the kinds of fault that a right program survives, with all that a run checks.

    A run of two seconds may be unknown: where no write got through, nothing was tested.
    """
    kinds = (
        "partition,latency,loss,kill,pause,slow,crash,clock,timer-drift,disk,disk-stall,power-loss,torn-write"
    )
    code = main([
        "sweep", "--depth", "whole", "--seeds", "0:200", "--nodes", "3", "--concurrency", "3", "--rate", "15",
        "--time-limit", "2", "--fault", f"any({kinds})", "--store", str(tmp_path), "--json",
    ])  # fmt: skip
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])
    assert code in (0, 2), f"{err}\n{summary}"
    assert (summary["seeds"], summary["invalid"]) == (200, 0), summary
    assert summary["unknown"] <= 25, summary["groups"]
    assert summary["faults"] > 1000
