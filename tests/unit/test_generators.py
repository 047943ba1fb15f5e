"""Generators beyond their doctests: purity, time, ties, what is wrong with one, and driving a run by one."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from harness import plan as plans
from harness.config import Config
from harness.execute import execute
from harness.generators import (
    GeneratorError,
    after_ms,
    any_of,
    ask,
    cache,
    clients,
    concurrent_keys,
    cycle,
    cycle_times,
    delay,
    each_thread,
    imperfect,
    lift,
    limit,
    log,
    mix,
    nemesis,
    on_threads,
    on_update,
    once,
    phases,
    problems,
    process_limit,
    promise,
    quick,
    repeat,
    reserve,
    simulate,
    sleep,
    stagger,
    synchronize,
    time_limit,
    until_ok,
)
from harness.generators.base import PENDING, Context, Draws
from harness.progress import QuietProgress
from harness.workloads import WORKLOADS, settings_of


def fs(events):
    return [event.f for event in events if event.kind == "invoke"]


def test_being_asked_changes_nothing():
    """A generator that was asked and not followed is asked again with the same answer, given the same chance."""
    generator = mix(repeat(ask("a")), (ask("b", None, n) for n in range(5)), [ask("c"), ask("d")])

    def answer():
        context = Context.start(3)
        context.dice = Draws(7)
        return generator.op(context)[0]

    assert answer() == answer() == answer()


def test_the_same_seed_gives_the_same_operations_and_another_one_others():
    def run(seed):
        generator = limit(200, stagger(0.01, clients(mix(repeat(ask("r")), repeat(ask("w"))))))
        return simulate(generator, concurrency=5, seed=seed, complete=imperfect)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_no_process_has_two_operations_and_none_comes_back_after_an_unknown_outcome():
    events = simulate(limit(500, repeat(ask("x"))), concurrency=4, nemesis=False, complete=imperfect)
    open_, gone = set(), set()
    for event in events:
        assert event.process not in gone
        if event.kind == "invoke":
            assert event.process not in open_
            open_.add(event.process)
        else:
            open_.discard(event.process)
            if event.kind == "info":
                gone.add(event.process)
    assert gone


def test_completions_come_before_operations_of_the_same_time():
    """Else operations would be concurrent that need not be."""
    events = simulate([ask("a"), synchronize(ask("b"))], concurrency=2, nemesis=False, complete=after_ms(0))
    assert [(event.f, event.kind) for event in events] == [
        ("a", "invoke"), ("a", "ok"), ("b", "invoke"), ("b", "ok"),
    ]  # fmt: skip


def test_phases_wait_for_every_thread():
    events = simulate(phases(each_thread(ask("a")), each_thread(ask("b"))), concurrency=3, nemesis=False)
    kinds = [(event.f, event.kind) for event in events]
    assert kinds.index(("b", "invoke")) > max(n for n, one in enumerate(kinds) if one == ("a", "ok"))


def test_a_sleeping_thread_is_busy_and_leaves_no_trace():
    events = simulate([sleep(2), ask("a")], concurrency=1, nemesis=False)
    assert [(event.f, event.time_us) for event in events if event.kind == "invoke"] == [("a", 2_000_000)]


def test_ties_are_broken_by_chance_and_by_weight():
    soon = any_of(repeat(ask("rare")), repeat(ask("often")), weights=(1, 9))
    found = fs(quick(limit(1000, soon)))
    assert 50 < found.count("rare") < 160


@pytest.mark.parametrize(
    "both",
    [
        any_of(on_threads([0], delay(5, repeat(ask("slow")))), on_threads([1], repeat(ask("fast")))),
        reserve(1, delay(5, repeat(ask("slow"))), repeat(ask("fast"))),
        concurrent_keys(
            1, ("slow", "fast"), lambda f: delay(5, repeat(ask(f))) if f == "slow" else repeat(ask(f))
        ),
    ],
)
def test_what_is_due_later_does_not_hold_up_whose_thread_is_free_before(both):
    """The operations of others went on only when that one's time had come: a quarter of them were asked for."""
    found = fs(simulate(time_limit(20, both), concurrency=2, nemesis=False))
    assert (found.count("slow"), found.count("fast")) == (4, 2000)


def test_the_nemesis_acts_when_it_has_slept_and_not_with_the_next_operation_of_a_client():
    both = clients(delay(1, repeat(ask("read"), 5)), [sleep(2.5), ask("kill")])
    events = [event for event in simulate(both, concurrency=1) if event.kind == "invoke"]
    assert [event.time_us // 1000 for event in events if event.f == "kill"] == [2500]
    assert not any(event.tentative for event in events)


def test_mix_does_not_get_stuck_on_a_part_that_waits():
    """It goes on as soon as that part can."""
    busy = mix(clients(repeat(ask("a"), 3)), nemesis(repeat(ask("b"), 3)))
    found = fs(simulate(busy, concurrency=1))
    assert sorted(found) == ["a", "a", "a", "b", "b", "b"]


def test_mix_goes_on_beside_a_part_that_waits_for_ever():
    """As Jepsen says of its own: it could get stuck."""
    forever = mix(on_threads([7], repeat(ask("never"))), repeat(ask("a")))
    assert fs(quick(limit(9, forever))) == ["a"] * 9
    waits = promise()
    given = on_update(lambda g, _c, e: (waits.give(ask("b")), g)[1] if e.kind == "ok" else g, waits)
    assert sorted(fs(quick(mix(given, [ask("a"), ask("a")])))) == ["a", "a", "b"]


def test_a_delay_begins_with_its_first_operation_and_not_with_the_run():
    """Else a second phase would hurry to catch up on the first."""
    steady = phases(delay(1, repeat(ask("a"), 3)), delay(1, repeat(ask("b"), 3)))
    events = [event for event in simulate(steady, concurrency=4) if event.kind == "invoke"]
    assert [event.time_us for event in events] == [0, 1_000_000, 2_000_000, 2_010_000, 3_010_000, 4_010_000]


def test_a_late_delay_catches_up():
    events = simulate(delay(0.01, repeat(ask("a"), 4)), concurrency=1, nemesis=False, complete=after_ms(25))
    assert [e.time_us // 1000 for e in events if e.kind == "invoke"] == [0, 25, 50, 75]
    events = simulate(
        [delay(0.01, [sleep(0.1), repeat(ask("a"), 12)])], concurrency=1, nemesis=False, complete=after_ms(1)
    )
    times_ms = [event.time_us // 1000 for event in events if event.kind == "invoke"]
    assert times_ms[:10] == [100 + n for n in range(10)], "one after the other, without a gap"
    assert times_ms[-1] == 120, "and then with gaps again"


def test_reserve_gives_each_its_threads():
    generator = limit(300, reserve(2, repeat(ask("w")), 1, repeat(ask("c")), repeat(ask("r"))))
    by_thread = {(event.thread, event.f) for event in quick(generator, concurrency=5)}
    assert by_thread == {(0, "w"), (1, "w"), (2, "c"), (3, "r"), (4, "r")}


def test_reserve_counts_the_threads_that_it_was_given():
    """In the groups of keys, as Jepsen's register does: else all but the first group had the last generator alone."""
    each = concurrent_keys(3, "xy", lambda key: limit(30, reserve(1, repeat(ask("w")), repeat(ask("r")))))
    by_thread = {(event.thread, event.f) for event in quick(each, concurrency=6)}
    assert by_thread == {(0, "w"), (1, "r"), (2, "r"), (3, "w"), (4, "r"), (5, "r")}


def test_what_reserve_cannot_give_is_an_error():
    assert len(quick(reserve(2, repeat(ask("w"), 3), None), concurrency=2)) == 3
    with pytest.raises(ValueError, match="2 threads are too few for a reserve of 3"):
        quick(reserve(2, ask("w"), ask("r")), concurrency=2)
    with pytest.raises(ValueError, match="and a last one for the rest"):
        reserve(2, ask("w"))
    with pytest.raises(ValueError, match="a number of threads before each"):
        reserve(ask("w"), 2, ask("r"))


def test_weights_are_for_each_generator():
    for weights in (1,), (1, 2, 3), (0, 0), (2, -1):
        for combine in any_of, mix:
            with pytest.raises(ValueError, match="are not for 2 generators"):
                combine(ask("a"), ask("b"), weights=weights)


def test_time_limits_count_from_the_first_operation():
    generator = [sleep(5), time_limit(1.0, stagger(0.1, repeat(ask("a"))))]
    events = [event for event in simulate(generator, concurrency=1, nemesis=False) if event.kind == "invoke"]
    assert events[0].time_us > 5_000_000
    assert events[-1].time_us < events[0].time_us + 1_000_000


def test_windows_of_time_go_round_until_an_operation_is_due():
    """With pauses longer than a round it used to end."""
    rare = cycle_times((1, delay(10, repeat(ask("a")))), (1, delay(10, repeat(ask("b")))))
    events = [event for event in simulate(limit(6, rare), concurrency=1) if event.kind == "invoke"]
    assert [(event.time_us // 1_000_000, event.f) for event in events] == [
        (0, "a"), (1, "b"), (10, "a"), (11, "b"), (20, "a"), (21, "b"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="windows of some time"):
        cycle_times((0, ask("a")))


def test_what_is_shown_from_a_cache_is_done_once_and_told():
    """As Jepsen's: what was asked for and not taken is not made again; what was taken is not done again."""
    made = []

    def costly():
        made.append(len(made))
        return ask("write", None, made[-1])

    both = limit(30, any_of(delay(0.3, cache(1, costly)), delay(0.05, repeat(ask("read")))))
    values = [e.value for e in simulate(both, concurrency=2) if e.f == "write" and e.kind == "ok"]
    assert values == list(range(len(values)))
    assert len(made) <= len(values) + 1
    outcomes = iter(["fail", "fail", "ok"])
    events = simulate(
        cache(9, until_ok(repeat(ask("x")))),
        concurrency=1,
        nemesis=False,
        complete=lambda event, context: (1, next(outcomes), None),
    )
    assert fs(events) == ["x"] * 3


def test_groups_of_threads_work_on_keys_of_their_own():
    generator = concurrent_keys(3, range(6), lambda key: limit(12, repeat(ask("read"))))
    events = quick(generator, concurrency=6)
    assert sorted({event.key for event in events}) == list(range(6))
    for key in range(6):
        assert len({event.thread // 3 for event in events if event.key == key}) == 1
    with pytest.raises(ValueError, match="no groups of 4"):
        quick(concurrent_keys(4, range(3), lambda key: ask("read")), concurrency=6)


def test_process_limit_bounds_how_many_processes_there_are():
    generator = process_limit(7, repeat(ask("x")))
    events = simulate(generator, concurrency=3, nemesis=False, complete=after_ms(1, "info"))
    assert len({event.process for event in events}) <= 7


def test_process_limit_uses_so_many_threads_where_there_are_more():
    """As Jepsen's; it used to end at once, without an operation."""
    events = simulate(process_limit(2, repeat(ask("x"), 9)), concurrency=5, nemesis=False)
    assert {event.thread for event in events} == {0, 1}
    assert fs(events) == ["x"] * 9


def test_until_ok_ends_only_with_its_own_operation():
    generator = any_of(until_ok(repeat(ask("mine"))), limit(20, repeat(ask("other"))))
    outcomes = iter(["fail"] * 5 + ["ok"] * 100)
    events = simulate(
        generator, concurrency=2, nemesis=False, complete=lambda event, context: (10, next(outcomes), None)
    )
    assert [e for e in events if e.f == "mine" and e.kind == "ok"]


def test_a_python_generator_is_run_once_and_only_as_far_as_needed():
    made = []

    def numbers():
        for n in range(1000):
            made.append(n)
            yield ask("write", None, n)

    assert len(quick(limit(5, numbers()))) == 5
    assert len(made) <= 6


def test_a_python_generator_in_a_list_loses_nothing_when_it_is_asked_twice():
    """It waits for the only thread, and is asked again when that is free."""
    writes = (ask("write", None, n) for n in range(3))
    events = simulate([ask("a"), writes], concurrency=1, nemesis=False)
    assert [event.value for event in events if event.kind == "invoke"] == [None, 0, 1, 2]


def test_copies_of_a_list_have_their_own_run_of_its_python_generators():
    def numbers():
        return [(ask("write", None, n) for n in range(2))]

    assert [event.value for event in quick(cycle(numbers(), 2), concurrency=1)] == [0, 1, 0, 1]
    events = quick(each_thread(numbers()), concurrency=2)
    assert sorted((event.thread, event.value) for event in events) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_threads_may_come_from_an_iterator():
    some = on_threads((n for n in range(1, 3)), repeat(ask("x"), 8))
    assert {event.thread for event in quick(some, concurrency=4)} == {1, 2}


def test_a_function_gets_the_context_only_where_it_needs_an_argument():
    assert [event.key for event in quick(limit(2, partial(ask, "read", key="x")))] == ["x", "x"]
    made = [once(lambda key=key: ask("read", key)) for key in "xy"]
    assert [event.key for event in quick(made)] == ["x", "y"]
    assert quick(once(lambda context: ask("read", context.time_us)))[0].key == 0


def test_a_dict_that_is_no_operation_is_named():
    assert quick({"f": "write", "key": "x", "value": 3})[0].value == 3
    for wrong in {"key": "x"}, {"f": "write", "val": 3}:
        with pytest.raises(TypeError, match="is no operation: give an f"):
            quick(wrong)


def test_a_function_is_called_again_and_again_until_it_gives_none():
    def make(context):
        return [ask("a"), ask("b")] if context.time_us < 50_000 else None

    events = simulate(lift(make), concurrency=1, nemesis=False, complete=after_ms(10))
    assert fs(events) == ["a", "b"] * 3


def test_a_function_may_give_what_is_exhausted_but_not_for_ever():
    numbers = iter(range(6))

    def make():
        n = next(numbers, None)
        return None if n is None else [] if n % 2 else ask("x", None, n)

    assert [event.value for event in quick(make)] == [0, 2, 4]

    def nothing():
        return []

    with pytest.raises(ValueError, match="in a row without an operation"):
        quick(nothing)


def test_what_is_wrong_with_a_generator_is_named():
    assert problems(limit(50, clients(mix(repeat(ask("r")), repeat(ask("w")))))) == []
    wrong = problems(limit(5, repeat(ask("read"))), client_fs=frozenset({"read"}))
    assert wrong == ["'read' is asked of the nemesis, and is an operation of clients; wrap it in `clients`"]
    assert (
        "which can do read only" in problems(limit(1, clients(ask("raed"))), client_fs=frozenset({"read"}))[0]
    )

    class Busy:
        def op(self, context):
            event = ask("read").op(context)[0]
            return (event if event is not PENDING else quick(ask("read"))[0]), self

        def update(self, context, event):
            return self

    assert "which is busy with another operation" in problems(Busy(), concurrency=2)[0]

    def broken():
        raise RuntimeError("out of ideas")

    assert "RuntimeError: out of ideas" in problems(broken)[0]


def test_a_generator_that_waits_for_ever_is_an_error():
    with pytest.raises(GeneratorError, match="nothing is going on"):
        simulate(nemesis(ask("x")), nemesis=False)


def test_an_endless_generator_is_stopped():
    with pytest.raises(GeneratorError, match="more than 100 operations"):
        simulate(repeat(ask("a")), ops_max=100)


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_has_a_plan_that_its_workers_can_do(name):
    """Operations in order of time, for workers that there are, and the same again for the same seed."""
    config = Config(workload=name, time_limit_s=5, seed=3)
    plan = plans.draw(config)
    assert plan.ops
    assert [op.at_us for op in plan.ops] == sorted(op.at_us for op in plan.ops)
    assert {op.worker for op in (*plan.ops, *plan.final)} <= set(range(config.concurrency))
    assert plans.encode(plan) == plans.encode(plans.draw(config))
    assert plans.encode(plan) != plans.encode(plans.draw(msgspec.structs.replace(config, seed=4)))
    assert settings_of(config) == {n: o.default for n, o in WORKLOADS[name].options.items()}


def test_a_run_is_driven_by_a_generator_and_replays_from_its_plan(tmp_path):
    """The generator reads on until it has seen three values, which no plan could know."""
    seen = set()

    def stop(generator, context, event):
        if event.kind == "ok" and event.f == "read" and event.value is not None:
            seen.add(event.value)
        return None if len(seen) >= 3 else generator.update(context, event)

    writes = (ask("write", "x", n) for n in range(1000))
    generator = on_update(stop, stagger(0.02, mix(cycle(ask("read", "x")), writes)))
    plan = plans.draw(Config(seed=5, time_limit_s=20, faults=(), concurrency=4))
    plan = msgspec.structs.replace(plan, ops=(), final=())
    first = execute(plan, _directory(tmp_path, "first"), QuietProgress(), live=generator)
    assert first.result["valid"] is True, first.report
    assert len(seen) == 3
    assert 4 <= first.result["ops"] < 500
    stored = plans.read(first.run_dir / "plan.json")
    assert len(stored.ops) == first.result["ops"]
    again = execute(stored, _directory(tmp_path, "again"), QuietProgress())
    assert again.result["history_sha256"] == first.result["history_sha256"]


def test_a_live_run_ends_with_its_time_and_says_what_it_is_to_say(tmp_path, capsys):
    """Whatever lies beyond: an operation that is due much later, and a thread that sleeps."""
    for name, beyond in (
        ("due", delay(5000, repeat(ask("read", "x")))),
        ("asleep", each_thread([sleep(5000), ask("read", "x")])),
    ):
        plan = plans.draw(Config(seed=5, time_limit_s=2, faults=(), concurrency=2))
        plan = msgspec.structs.replace(plan, ops=(), final=())
        generator = [log(f"now {name}"), ask("write", "x", 1), beyond]
        ran = execute(plan, _directory(tmp_path, name), QuietProgress(), live=generator)
        assert ran.result["sim_seconds"] < 10, name
        assert f"now {name}" in capsys.readouterr().err


def test_a_live_generator_for_the_nemesis_is_told_where_faults_come_from(tmp_path):
    plan = plans.draw(Config(seed=5, time_limit_s=2, faults=(), concurrency=2))
    plan = msgspec.structs.replace(plan, ops=(), final=())
    generator = clients([ask("write", "x", 1), ask("read", "x")], nemesis(ask("kill")))
    ran = execute(plan, _directory(tmp_path, "run"), QuietProgress(), live=generator)
    assert ran.result["valid"] == "unknown"
    assert "or for the nemesis, whose faults are in the plan?" in ran.report


def _directory(tmp_path, name):
    (tmp_path / name).mkdir()
    return tmp_path / name
