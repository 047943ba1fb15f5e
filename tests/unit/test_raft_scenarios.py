"""The scenarios in tests/scenarios: what they say is what happens.

To accept a changed outcome, run this file with RAFT_REWRITE=1 in the environment, and read the difference.
"""

import os
from pathlib import Path

import pytest

from raft.testing.script import ScriptError, play

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_scenario(path):
    expected = path.read_text()
    actual = play(expected)
    if os.environ.get("RAFT_REWRITE"):
        path.write_text(actual)
    assert actual == expected or os.environ.get("RAFT_REWRITE")


def test_commands_that_make_no_sense_are_quoted():
    with pytest.raises(ScriptError, match="there is no command 'jump a'"):
        play("> jump a\n")
    with pytest.raises(ScriptError, match="x does not run"):
        play("> nodes a\n> campaign x\n")
