"""Configuration and plans: what is refused, what a seed fixes, what survives storing."""

from __future__ import annotations

import json

import pytest

from harness import config as configs
from harness import plan as plans
from harness.config import Config
from harness.errors import ConfigError
from harness.seeds import Streams, skewed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rate_hz": -1.0}, "rate is -1.0; give a number above 0"),
        ({"rate_hz": float("nan")}, "rate is nan"),
        ({"nodes": 0}, "nodes is 0; give a whole number from 1 to 99"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"time_limit_s": 0.0}, "time limit is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"rate_hz": 1e6, "time_limit_s": 80000.0}, "more than 5000000 operations"),
        (
            {"stop_when_broken": True, "cluster": "local"},
            "stop when broken needs nodes that can be looked into",
        ),
        ({"session_ttl_ms": -1}, "session ttl is -1; give milliseconds from 1 to 3600000, or 0 for none"),
    ],
)
def test_bad_values_are_named(options, sentence):
    """One sentence with the thing, the value and the remedy."""
    with pytest.raises(ConfigError, match=sentence):
        configs.load(None, options)


def test_file_overrides_defaults_and_options_override_the_file(tmp_path):
    """Three layers, the nearest to the user wins."""
    file = tmp_path / "run.toml"
    file.write_text('nodes = 3\nrate_hz = 20\nfaults = ["kill"]\n')
    config = configs.load(file, {"rate_hz": 50.0, "seed": None})
    assert (config.nodes, config.rate_hz, config.faults, config.concurrency) == (3, 50.0, ("kill",), 10)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("nodes = [", "not TOML"), ("knots = 3", "knots"), ('nodes = "many"', "nodes")],
)
def test_bad_files_are_named(tmp_path, text, sentence):
    """The file and what is wrong with it."""
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        configs.load(file, {})
    assert str(file) in str(caught.value)


def test_a_missing_config_file_is_named(tmp_path):
    """Not a traceback."""
    with pytest.raises(ConfigError, match="No such file"):
        configs.load(tmp_path / "none.toml", {})


def test_the_same_seed_draws_the_same_plan():
    """And another seed another one."""
    a, b, c = (plans.draw(Config(time_limit_s=10), seed) for seed in (7, 7, 8))
    assert plans.encode(a) == plans.encode(b)
    assert plans.encode(a) != plans.encode(c)


def test_a_plan_without_a_seed_gets_one_and_keeps_it():
    """The seed that nobody chose is in the plan."""
    plan = plans.draw(Config(time_limit_s=1))
    assert plan.config.seed == plan.seed
    assert plans.encode(plans.draw(plan.config)) == plans.encode(plan)


def test_plans_survive_storing(tmp_path):
    """What is read is what was written, operation for operation; each has a line of its own."""
    plan = plans.draw(Config(time_limit_s=5), 3)
    file = tmp_path / "plan.json"
    file.write_bytes(plans.encode(plan))
    assert plans.encode(plans.read(file)) == plans.encode(plan)
    assert len(file.read_text().splitlines()) > len(plan.ops) + len(plan.faults)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda p: p[: len(p) // 2], "mend the file"),
        (lambda p: json.dumps(json.loads(p) | {"version": 99}), "version 99"),
        (lambda p: json.dumps(json.loads(p) | {"nodes": []}), "at least one"),
        (
            lambda p: json.dumps(json.loads(p) | {"ops": [{"at_us": 1, "worker": 77, "f": "read"}]}),
            "worker 77",
        ),
        (lambda p: json.dumps(json.loads(p) | {"nodes": ["x1", "x2", "x3", "x4", "x5"]}), "x1"),
    ],
)
def test_damaged_plans_are_refused_with_a_sentence(tmp_path, damage, sentence):
    """An edited plan is checked before anything starts."""
    file = tmp_path / "plan.json"
    file.write_text(damage(plans.encode(plans.draw(Config(time_limit_s=20), 3)).decode()))
    with pytest.raises(ConfigError, match=sentence):
        plans.read(file)


def test_the_rate_is_as_asked():
    """Arrivals over the time limit at the rate, give or take a few per cent."""
    plan = plans.draw(Config(time_limit_s=100, rate_hz=100), 1)
    assert 9_500 < len(plan.ops) < 10_500
    assert [op.at_us for op in plan.ops] == sorted(op.at_us for op in plan.ops)
    assert plan.ops[-1].at_us < 100_000_000


def test_unique_values_are_unique_and_cas_can_succeed():
    """Each written value once; a cas expects a value that was written to its key."""
    plan = plans.draw(Config(time_limit_s=30, unique_values=True), 1)
    written = [op.value for op in plan.ops if op.f == "write"]
    written += [op.value[1] for op in plan.ops if op.f == "cas"]
    assert len(written) == len(set(written))
    by_key: dict[str, set[int]] = {}
    for op in plan.ops:
        if op.f == "write":
            by_key.setdefault(op.key, set()).add(op.value)
        elif op.f == "cas":
            assert op.value[0] is None or op.value[0] in by_key[op.key]
            by_key.setdefault(op.key, set()).add(op.value[1])


def test_keys_are_retired_and_each_is_read_in_the_end():
    """No key has many more operations than it should; all of them are read once more."""
    plan = plans.draw(Config(time_limit_s=60, ops_per_key=50), 1)
    counts: dict[str, int] = {}
    for op in plan.ops:
        counts[op.key] = counts.get(op.key, 0) + 1
    assert max(counts.values()) <= 55
    assert {op.key for op in plan.final} == set(counts)


def test_streams_are_independent_of_each_other():
    """Drawing from one does not shift another."""
    streams = Streams(1)
    first = streams.stream("a")
    first.random()
    assert streams.stream("b").random() == Streams(1).stream("b").random()


def test_skewed_delays_have_the_mean_that_is_asked():
    """Within a few per cent over many draws, never negative."""
    rng = Streams(1).stream("delays")
    draws = [skewed(rng, 100.0) for _ in range(50_000)]
    assert min(draws) >= 0
    assert 95 < sum(draws) / len(draws) < 105
