"""Generators: which operation comes next, when, and by whom; as values that can be combined, tested and planned with.

>>> events = quick(limit(4, stagger(0.1, mix(repeat(ask("read", "x")), repeat(ask("write", "x", 1))))))
>>> len(events)
4

Every combinator is a function with an example in its documentation: `harness.generators.limits` (how much),
`timing` (when), `threads` and `shares` (by whom), `wraps` (changed how), `keys` (of which objects).
`harness.generators.base` says what a generator is; `simulate` runs one without a cluster, `checked` says what is wrong
with one, and `harness.workloads.planning` makes a plan of one.
"""

from harness.generators.base import NEMESIS, PENDING, Answer, Context, Event, Generator, ask, lift, log, sleep
from harness.generators.checked import problems, validate
from harness.generators.keys import concurrent_keys, sequential_keys
from harness.generators.limits import concurrency_limit, cycle, limit, once, process_limit, repeat, until_ok
from harness.generators.shares import reserve
from harness.generators.simulate import GeneratorError, after_ms, at_once, imperfect, quick, simulate
from harness.generators.threads import (
    any_of,
    clients,
    each_process,
    each_thread,
    flip_flop,
    mix,
    nemesis,
    on_threads,
    phases,
    shortest_any,
    synchronize,
    then,
)
from harness.generators.timing import cache, cycle_times, delay, stagger, time_limit
from harness.generators.wraps import (
    f_map,
    filter_ops,
    ignore_updates,
    later,
    map_ops,
    on_update,
    promise,
    trace,
)

__all__ = [
    "NEMESIS",
    "PENDING",
    "Answer",
    "Context",
    "Event",
    "Generator",
    "GeneratorError",
    "after_ms",
    "any_of",
    "ask",
    "at_once",
    "cache",
    "clients",
    "concurrency_limit",
    "concurrent_keys",
    "cycle",
    "cycle_times",
    "delay",
    "each_process",
    "each_thread",
    "f_map",
    "filter_ops",
    "flip_flop",
    "ignore_updates",
    "imperfect",
    "later",
    "lift",
    "limit",
    "log",
    "map_ops",
    "mix",
    "nemesis",
    "on_threads",
    "on_update",
    "once",
    "phases",
    "problems",
    "process_limit",
    "promise",
    "quick",
    "repeat",
    "reserve",
    "sequential_keys",
    "shortest_any",
    "simulate",
    "sleep",
    "stagger",
    "synchronize",
    "then",
    "time_limit",
    "trace",
    "until_ok",
    "validate",
]
