"""What the pages in docs/ list is what the code has: bugs, models, workloads, and what commands print about them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from checkers.models import MODELS
from harness.cli import main
from harness.workloads import WORKLOADS
from raft.bugs import BUGS
from raft.explore.__main__ import main as explore

DOCS = Path(__file__).parents[2] / "docs"


def rows(page: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with these."""
    lines = (DOCS / page).read_text().partition(header)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_seeded_bugs_are_those_of_the_code():
    told = {name.strip("`"): cells for name, *cells in rows("raft.md", "| bug | what is wrong | breaks")}
    coded = {name: [bug.summary, " ".join(bug.breaks), " ".join(bug.needs)] for name, bug in BUGS.items()}
    assert {name: cells[:3] for name, cells in told.items()} == coded


def test_every_letter_of_a_bug_is_explained(capsys):
    """On the page, and by `splitbrain bugs`, which has a word for a bug that needs no fault as well."""
    legend = (DOCS / "raft.md").read_text().partition("What it breaks:")[2].partition("\n\n")[0]
    letters = {letters for bug in BUGS.values() for letters in (*bug.breaks, *bug.needs)}
    assert {found for found in letters if not re.search(rf"\b{found} ", legend)} == set()
    assert main(["bugs", "--json"]) == 0
    for bug in json.loads(capsys.readouterr().out):
        assert bug["breaks"], bug["name"]
        assert bug["needs"], bug["name"]
        assert not letters & set(re.split("[^A-Z]+", bug["breaks"] + bug["needs"])), bug["name"]


@pytest.mark.parametrize(
    "command", re.findall(r"^    \$ python -m raft\.explore .*", (DOCS / "raft.md").read_text(), re.MULTILINE)
)
def test_what_the_explorer_is_said_to_print(capsys, command):
    """Times aside."""
    told = (DOCS / "raft.md").read_text().partition(command + "\n")[2].partition("\n\n")[0]
    explore(command.split()[4:])
    timed = r"[\d.]+ s, [\d,]+ states a second"
    wanted = [re.sub(timed, "", line[4:]) for line in told.splitlines()]
    assert re.sub(timed, "", capsys.readouterr().out).splitlines() == wanted


def test_the_models_are_those_of_the_code():
    told = [
        *rows("models.md", "| model | operations | an `ok`"),
        *rows("models.md", "| model | operations | what is"),
    ]
    assert sorted(name.strip("`") for name, *_ in told) == sorted(MODELS)


def test_the_workloads_are_those_of_the_code():
    told = rows("workloads.md", "| workload | clients | must hold | checker")
    assert [name.strip("`") for name, *_ in told] == list(WORKLOADS)
    for name, *_, checker in told:
        one = WORKLOADS[name.strip("`")]
        names = [
            call.name for call in one.checkers({key: option.default for key, option in one.options.items()})
        ]
        assert checker == (f"model `{one.model}`" if one.model else f"`{names[0]}`"), name
