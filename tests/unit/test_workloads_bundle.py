"""Workloads as bundles: options, and that every one is described and can be drawn."""

from __future__ import annotations

import json

import pytest

from harness.cli import main
from harness.config import Config
from harness.errors import ConfigError
from harness.workloads import WORKLOADS, settings_of


def test_workloads_are_listed_as_json(capsys):
    """A list of objects with a name each, so that a script can choose."""
    assert main(["workloads", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == list(WORKLOADS)
    assert all(one["summary"] and one["checker"] for one in listed)


def test_workloads_are_listed_for_people(capsys):
    assert main(["workloads"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in WORKLOADS)


@pytest.mark.parametrize(
    ("given", "said"),
    [("keys", "is not NAME=VALUE"), ("=3", "is not NAME=VALUE"), ("nope=3", "has no option 'nope'")],
)
def test_a_wrong_option_is_one_sentence(capsys, given, said):
    assert main(["run", "--option", given]) == 254
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("workload", "option", "said"),
    [
        ("append", "model=serialisable", "did you mean 'serializable'?"),
        ("session", "guarantees=monotonic", "unknown session guarantee 'monotonic'"),
    ],
)
def test_a_word_that_the_checker_does_not_know_is_refused_before_the_run(
    capsys, tmp_path, workload, option, said
):
    """And not when all is over, as a checker that crashed."""
    asked = ["run", "--workload", workload, "--option", option, "--store", str(tmp_path / "store")]
    assert main(asked) == 254
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_options_of_no_workload_are_refused():
    with pytest.raises(ConfigError, match="no option"):
        settings_of(Config(workload_options={"nope": 1}))
