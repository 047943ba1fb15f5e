"""Sweeps: every seed gives one result whatever becomes of workers, files resume, failures are grouped."""

import concurrent.futures
import os
import signal
from pathlib import Path

import msgspec
import pytest

from harness.config import Config
from harness.errors import ConfigError
from harness.sweep import pool, results
from harness.sweep.board import Board
from harness.sweep.one import Result, Task, run_one
from harness.sweep.results import Header
from harness.sweep.swarm import swarmed

SMALL = Config(time_limit_s=0.5, rate_hz=20.0, recovery_s=0.5)


def nothing():
    pass


def tasks(count):
    return [Task(SMALL, seed) for seed in range(count)]


def succeed(task):
    return Result(task.seed, "valid")


def die_on_three(task):
    if task.seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return Result(task.seed, "valid")


def die_once(task):
    marker = Path(task.config.store)
    if task.seed == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Result(task.seed, "valid")


def raise_on_one(task):
    if task.seed == 1:
        raise RuntimeError("no")
    return Result(task.seed, "valid")


def swept(work, count=8, jobs=2, todo=None):
    return list(pool.results(todo or tasks(count), jobs, pool.local(jobs), work=work, idle=nothing))


def test_every_seed_gives_one_result():
    assert sorted(r.seed for r in swept(succeed, 20)) == list(range(20))


def test_a_seed_that_kills_its_worker_is_named_and_the_others_are_not_lost():
    found = {r.seed: r for r in swept(die_on_three)}
    assert sorted(found) == list(range(8))
    assert [seed for seed, r in found.items() if r.valid != "valid"] == [3]
    assert "worker process died" in found[3].evidence[0]


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    config = msgspec.structs.replace(SMALL, store=str(tmp_path / "died"))
    found = swept(die_once, todo=[Task(config, seed) for seed in range(6)])
    assert sorted((r.seed, r.valid) for r in found) == [(seed, "valid") for seed in range(6)]


def test_an_exception_of_a_worker_is_the_result_of_its_seed():
    found = {r.seed: r for r in swept(raise_on_one, 4)}
    assert found[1].valid == "unknown"
    assert "RuntimeError" in found[1].evidence[0]
    assert found[0].valid == "valid"


def test_tasks_are_taken_as_there_is_room_for_them():
    taken = []

    def endless():
        for seed in range(10**9):
            taken.append(seed)
            yield Task(SMALL, seed)

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        stream = pool.results(endless(), 1, lambda: threads, work=succeed, idle=nothing)
        assert next(stream).seed == 0
        stream.close()
    assert len(taken) <= 8


def test_one_seed_runs_to_a_result_and_repeats_itself():
    first, second = (msgspec.structs.replace(run_one(Task(SMALL, 7)), wall_seconds=0) for _ in range(2))
    assert first == second
    assert first.seed == 7
    assert first.ops > 0
    assert first.run_dir is None


def test_what_cannot_be_run_is_unknown_and_says_why():
    result = run_one(Task(msgspec.structs.replace(SMALL, workload="nonsense"), 1))
    assert result.valid == "unknown"
    assert "nonsense" in result.evidence[0]


def test_results_survive_a_torn_last_line(tmp_path):
    header = Header(SMALL, 0, 10, swarm=True)
    with results.create(tmp_path, header) as file:
        file.append(Result(0, "valid", ops=3))
        file.append(Result(1, "invalid", signature="x"))
        path = file.path
    path.write_bytes(path.read_bytes()[:-5])
    with results.resume(path) as file:
        assert file.header == header
        assert file.done == (Result(0, "valid", ops=3),)
        file.append(Result(1, "invalid", signature="x"))
    with results.resume(path) as file:
        assert [r.seed for r in file.done] == [0, 1]


def test_a_file_that_is_no_sweep_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"splitbrain": "history"}\n')
    with pytest.raises(ConfigError, match="not the results file of a sweep"):
        results.resume(path)


def test_failures_are_grouped_and_the_worst_verdict_counts():
    board = Board(4)
    for seed, (valid, signature) in enumerate(
        [("valid", ""), ("unknown", "slow"), ("invalid", "lost"), ("invalid", "lost")]
    ):
        board.add(Result(seed, valid, signature=signature, faults=2))
    assert board.worst == "invalid"
    assert [(g.signature, g.count, g.seeds) for g in board.sorted_groups()] == [
        ("lost", 2, [2, 3]),
        ("slow", 1, [1]),
    ]
    assert board.faults == 8


def test_a_sweep_without_seeds_or_that_was_interrupted_is_not_valid():
    assert Board(0).worst == "unknown"
    board = Board(2)
    board.add(Result(1, "valid"))
    assert board.worst == "valid"
    board.interrupted = True
    assert board.worst == "unknown"
    board.add(Result(2, "invalid"))
    assert board.worst == "invalid"


def test_seeds_a_minute_are_those_of_this_time():
    board = Board(4)
    for seed in range(3):
        board.add(Result(seed, "valid"))
    board.resumed = 2
    assert board.per_minute(30.0) == 2.0
    assert "3 of 4 seeds, 2 a minute" in board.line(30.0)


def test_swarmed_configurations_differ_by_seed_and_keep_what_the_user_named():
    named = msgspec.structs.replace(SMALL, faults=("kill", "partition-ring"))
    assert {f for seed in range(30) for f in swarmed(named, seed).faults} == {"kill", "partition-ring"}
    none = msgspec.structs.replace(SMALL, faults=())
    assert swarmed(none, 1).faults == ()
