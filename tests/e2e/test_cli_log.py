"""`--online` and `--with-log` of `splitbrain run`, and `check --with-log` on what they store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkers.committed import encode_log, read_log
from harness.cli import main

SHORT = ("--time-limit=8", "--seed=3", "--nodes=3")
WRITTEN_ONCE = ("--unique-values", "--option=cas=false")


def run(capsys, tmp_path, *options):
    code = main(["run", "--store", str(tmp_path), "--json", *SHORT, *options])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out else {}, err


def checks_of(summary):
    results = json.loads((Path(summary["run_dir"]) / "results.json").read_text())
    return {name: check["valid"] for name, check in results["checks"].items()}


@pytest.mark.parametrize("depth", ["fast", "whole"])
def test_a_run_stores_its_log_and_changes_nothing_else(capsys, tmp_path, depth):
    code, plain, _ = run(capsys, tmp_path, f"--depth={depth}", "--time-limit=3")
    assert code == 0
    code, logged, _ = run(capsys, tmp_path, f"--depth={depth}", "--time-limit=3", "--with-log")
    assert code == 0
    assert plain["history_sha256"] == logged["history_sha256"]
    assert checks_of(logged)["linearizable-with-log"] is True
    assert "linearizable-with-log" not in checks_of(plain)


def test_a_log_that_lacks_what_clients_saw(capsys, tmp_path):
    """The mutant: the same log without one entry, of a write that was answered."""
    _, summary, _ = run(capsys, tmp_path, "--with-log")
    directory = tmp_path / summary["run_dir"]
    assert main(["check", str(directory), "--with-log"]) == 0
    assert "valid: linearizable-with-log" in capsys.readouterr().out
    log = read_log(directory / "log.jsonl")
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()[1:]]

    def is_acknowledged_write(op):
        ended = next(line for line in lines[op + 1 :] if line["process"] == lines[op]["process"])
        return lines[op]["f"] == "write" and ended["type"] == "ok"

    lost = next(place for place, request in enumerate(log) if is_acknowledged_write(request.op))
    broken = [type(r)(r.op, r.client, r.seq) if place == lost else r for place, r in enumerate(log)]
    (directory / "log.jsonl").write_bytes(encode_log(broken))
    assert main(["check", str(directory)]) == 0
    assert main(["check", str(directory), "--with-log"]) == 1
    assert "not in the committed log: 1" in capsys.readouterr().out


def test_check_needs_a_log(capsys, tmp_path):
    _, summary, _ = run(capsys, tmp_path)
    assert main(["check", summary["run_dir"], "--with-log"]) == 254
    assert "a run stores its committed log with `run --with-log`" in capsys.readouterr().err


def test_online_ends_the_run_early(capsys, tmp_path):
    code, summary, _ = run(capsys, tmp_path, *WRITTEN_ONCE, "--online")
    assert code == 0
    assert checks_of(summary)["online"] is True
    code, summary, _ = run(
        capsys, tmp_path, *WRITTEN_ONCE, "--online", "--bug=read-before-own-commit", "--time-limit=30",
        "--nodes=5", "--seed=1",
    )  # fmt: skip
    assert code == 1
    checks = checks_of(summary)
    assert checks["online"] is False
    assert checks["linearizable"] is False
    assert summary["sim_seconds"] < 15
    assert any("the run ended early" in line for line in summary["explanation"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--online",), "add --unique-values"),
        (("--online", "--unique-values"), "add --option cas=false"),
        (("--online", "--unique-values", "--workload=bank"), "has none"),
        (("--with-log", "--workload=bank"), "has none"),
    ],
)
def test_what_cannot_be(capsys, tmp_path, options, says):
    code, _, err = run(capsys, tmp_path, *options)
    assert code == 254
    assert says in err
