"""Guided search: features are states, changed plans can be stored, a corpus repeats itself and lasts."""

import json
import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import plan as plans
from harness.config import Config
from harness.guided.corpus import Corpus
from harness.guided.features import run_with_features
from harness.guided.guide import Guide
from harness.guided.mutate import FAULTS_MORE, mutated
from harness.shrink.attempt import attempt

SMALL = Config(nodes=3, concurrency=3, time_limit_s=1.0, rate_hz=20.0, recovery_s=0.3)


def drawn(seed, **changes):
    return plans.draw(msgspec.structs.replace(SMALL, **changes), seed)


def test_looking_at_a_run_changes_nothing_and_sees_the_same_again():
    plan = drawn(3)
    run, features = run_with_features(plan)
    assert run.ops == attempt(plan).ops
    assert run_with_features(plan)[1] == features
    assert len(features) > 5
    assert list(features) == sorted(set(features))


def test_the_same_states_have_the_same_numbers_in_another_process():
    code = (
        "from harness import plan as plans; from harness.config import Config; import json;"
        "from harness.guided.features import run_with_features;"
        "c = Config(nodes=3, concurrency=3, time_limit_s=1.0, rate_hz=20.0, recovery_s=0.3);"
        "print(json.dumps(run_with_features(plans.draw(c, 3))[1]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert [json.loads(text) for text in found] == [list(run_with_features(drawn(3))[1])]


def test_a_run_without_faults_reaches_less_than_one_with_them():
    calm = run_with_features(drawn(3, faults=()))[1]
    wild = run_with_features(drawn(3))[1]
    assert len(calm) < len(wild)
    assert not set(calm) >= set(wild)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 20), st.integers(0, 20))
def test_a_changed_plan_keeps_its_load_and_can_be_stored(tmp_path_factory, seed, one, other):
    plan, lender = drawn(one), drawn(other)
    faults_max = len(plan.faults) + FAULTS_MORE
    changed = mutated(plan, lender, faults_max, random.Random(seed))
    assert changed.ops == plan.ops
    assert changed.config == plan.config
    assert len(changed.faults) <= faults_max
    assert len({event.id for event in changed.faults}) == len(changed.faults)
    assert all(0 <= event.start_ms < event.stop_ms <= 1001 for event in changed.faults)
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_bytes(plans.encode(changed))
    assert plans.read(path) == changed


def test_a_search_repeats_itself_and_keeps_only_what_reached_something_new():
    def search():
        corpus, tried = Corpus(SMALL, 7), []
        for _ in range(15):
            plan = corpus.next()
            tried.append(plan)
            corpus.learn(plan, run_with_features(plan)[1])
        return corpus, tried

    first, second = search(), search()
    assert first[1] == second[1]
    assert first[0].reached == second[0].reached > 20
    plan = first[1][0]
    assert first[0].learn(plan, run_with_features(plan)[1]) == 0


def test_what_is_rare_is_taken_more_often():
    corpus = Corpus(SMALL, 7)
    common, rare = drawn(1), drawn(2)
    corpus.learn(common, (1,))
    corpus.learn(rare, (2,))
    for _ in range(30):
        corpus.learn(common, (1,))
    taken = [corpus._take() for _ in range(200)]
    assert taken.count(rare) > 150


def test_a_guide_goes_on_with_its_corpus(tmp_path):
    results = tmp_path / "sweep.jsonl"
    guide = Guide(SMALL, 0, results, swarm=False)
    plan = guide.plan(0)
    assert guide.learn(0, (1, 2)) == 2
    guide.plan(1)
    assert guide.learn(1, (2,)) == 0
    guide.path.write_bytes(guide.path.read_bytes() + b'{"plan": {"ver')
    again = Guide(SMALL, 0, results, swarm=False)
    assert again.reached == 2
    assert [entry.plan for entry in again._corpus.entries] == [plan]


def test_a_result_that_nobody_can_learn_from_is_no_trouble(tmp_path):
    guide = Guide(SMALL, 0, tmp_path / "sweep.jsonl", swarm=False)
    guide.plan(5)
    assert guide.learn(5, ()) == 0
    with pytest.raises(KeyError):
        guide.learn(5, ())
