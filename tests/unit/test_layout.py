"""The layout traps of CONTRIBUTING.md, watched over."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("raft", "checkers", "nemesis", "harness")


def test_docker_holds_no_python():
    """It would shadow the docker SDK."""
    assert list((ROOT / "docker").rglob("*.py")) == []


def test_tests_are_no_package_and_shadow_none():
    """Pytest would import a folder of that name in the package's place."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert [p for p in (ROOT / "tests").rglob("*") if p.is_dir() and p.name in PACKAGES] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_files_stay_readable(package):
    """None above about 500 lines."""
    long = {str(p): n for p in (ROOT / package).rglob("*.py") if (n := len(p.read_text().splitlines())) > 520}
    assert long == {}


@pytest.mark.parametrize("package", ["harness/sim", "raft/core", "nemesis"])
def test_no_real_clock_and_no_unnamed_dice_where_a_seed_rules(package):
    """A leak of real time or randomness would break replay; `Random(seed)` objects are fine."""
    clocks = re.compile(
        r"time\.time\(|time\.monotonic|perf_counter|datetime\.now|os\.urandom|uuid4|Random\(\)"
    )
    module_dice = re.compile(r"[^.\w]random\.(random|choice|shuffle|randint|seed)\(")
    on_the_real_machine = {
        "entropy.py",  # replaces them
        "nfqueue.py",
        "netns.py",
        "backend.py",
        "clock.py",
        "shim.py",
        "door.py",
        "prober.py",
        "scenario.py",
    }
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        if path.name in on_the_real_machine:
            continue
        source = path.read_text()
        rules = [clocks, module_dice] if re.search(r"^import random", source, re.MULTILINE) else [clocks]
        found += [
            f"{path}: {line}" for line in source.splitlines() if any(rule.search(line) for rule in rules)
        ]
    assert found == []
