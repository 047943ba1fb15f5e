"""README.md shows what commands print: they print it. What takes a cluster is in `tests/system`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkers.isolation import MODELS
from harness.cli import main
from harness.workloads import WORKLOADS

README = (Path(__file__).parents[2] / "README.md").read_text()
NUMBERS = {22: "twenty-two"}


def shown_after(words: str) -> list[str]:
    """The lines of the first block of text after these words."""
    assert words in README
    return README.partition(words)[2].partition("```text\n")[2].partition("```")[0].splitlines()


def test_how_many_there_are():
    assert f"There are {NUMBERS[len(WORKLOADS)]} workloads" in README
    assert f"any of {len(MODELS)} consistency models" in README


def test_a_run_ends_as_shown(capsys, monkeypatch, tmp_path):
    """All but how long it took, and when that was."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--seed", "1"]) == 0
    varying = r" in [\d.]+ s$|\d{8}T\d{6}"
    shown = [re.sub(varying, "", line) for line in shown_after("`make run` ends like this")]
    assert [re.sub(varying, "", line) for line in capsys.readouterr().out.splitlines()][
        -len(shown) :
    ] == shown


@pytest.mark.slow
def test_a_bug_is_found_and_shrunk_as_shown(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--bug", "stale-read", "--seed", "1"]) == 1
    assert main(["replay", "store/latest"]) == 1
    assert "replay: the history is byte for byte the same" in capsys.readouterr().out.splitlines()
    assert main(["shrink", "store/latest"]) == 1
    out = capsys.readouterr().out
    assert "6151 operations and 67 faults became 2 and 1 in " in out
    told = iter([" ".join(line.split()) for line in out.splitlines()])
    missing = [
        line
        for line in shown_after("Here `shrink` takes 6151 operations and 67 faults")
        if " ".join(line.split()) not in told
    ]
    assert missing == []
