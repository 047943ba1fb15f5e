"""Hypothesis strategies for whoever tests with splitbrain, and for its own tests. Needs `pip install hypothesis`.

    fault_plans(nodes)       fault events in order of time, of every shape that a cluster of these nodes allows
    plans()                  whole plans, small enough to run in some milliseconds
    valid_histories()        register histories that are linearizable by construction, with unknown outcomes in them
    broken_histories()       the same with one answer that no order of operations can explain

>>> from checkers import check_linearizable
>>> from hypothesis import find
>>> lines = find(broken_histories(), lambda lines: True)
>>> check_linearizable(lines, "etcd-register").valid
'invalid'

Theory of operation
    A valid history is drawn as a run of an atomic register: at each step one process is chosen, and it calls, or takes
    effect, or returns. So every operation takes effect once between its call and its return, which is what
    linearizable means. An operation whose outcome is unknown may have taken effect or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from checkers import Op
from harness import plan as plans_
from harness.config import Config
from harness.plan import Plan
from harness.seeds import Streams
from nemesis.kinds import FAULTS, kind
from nemesis.schedule import FaultEvent
from nemesis.schedule import draw as draw_faults

STEPS_MAX = 60
PROCESSES_MAX = 4
KEYS = ("a", "b")
VALUES = 3
NEVER_WRITTEN = 99
READER = 10_000  # a process that no other operation has
STEP_NS = 1_000


def fault_plans(
    nodes: Sequence[str], *, kinds: Sequence[str] | None = None, duration_ms: int = 5_000
) -> st.SearchStrategy[tuple[FaultEvent, ...]]:
    """Fault events as a run would draw them, of some of the kinds."""
    possible = [
        name for name in (kinds if kinds is not None else FAULTS) if kind(name).nodes_min <= len(nodes)
    ]

    def drawn(chosen: list[str], seed: int) -> tuple[FaultEvent, ...]:
        return draw_faults(chosen, tuple(nodes), duration_ms, Streams(seed).stream)

    return st.builds(
        drawn, st.lists(st.sampled_from(possible), unique=True, max_size=3), st.integers(0, 2**32)
    )


def plans(**settings: Any) -> st.SearchStrategy[Plan]:
    """Plans of short runs; `settings` are fields of `harness.config.Config` to hold fixed."""

    def drawn(seed: int, nodes: int, concurrency: int, faults: list[str]) -> Plan:
        config = Config(
            nodes=nodes, concurrency=concurrency, faults=tuple(faults), time_limit_s=1.0, rate_hz=40.0
        )
        return plans_.draw(msgspec.structs.replace(config, **settings), seed)

    kinds = st.lists(st.sampled_from(("partition", "latency", "kill", "pause")), unique=True)
    return st.builds(drawn, st.integers(0, 2**32), st.integers(3, 5), st.integers(1, 6), kinds)


@st.composite
def valid_histories(draw: st.DrawFn) -> list[Op]:
    """Lines of a history of registers with read, write and cas that is linearizable."""
    run = _AtomicRun()
    for _ in range(draw(st.integers(0, STEPS_MAX))):
        run.step(draw(st.integers(0, PROCESSES_MAX - 1)), draw)
    return run.lines


@st.composite
def broken_histories(draw: st.DrawFn) -> list[Op]:
    """A valid history in which one successful read saw a value that nobody ever wrote."""
    lines = draw(valid_histories())
    reads = [op.index for op in lines if _is_read(op)]
    if not reads:
        at = len(lines)
        lines.append(Op(at, (at + 1) * STEP_NS, READER, "invoke", "read", key=KEYS[0]))
        lines.append(Op(at + 1, (at + 2) * STEP_NS, READER, "ok", "read", key=KEYS[0]))
        reads = [at + 1]
    index = draw(st.sampled_from(reads))
    return [msgspec.structs.replace(op, value=NEVER_WRITTEN) if op.index == index else op for op in lines]


def _is_read(op: Op) -> bool:
    return op.f == "read" and op.type == "ok"


class _AtomicRun:
    """Registers that do one thing at a time, and processes that call them."""

    def __init__(self) -> None:
        self.lines: list[Op] = []
        self._values: dict[str, int | None] = dict.fromkeys(KEYS)
        self._open: dict[int, Op] = {}
        self._results: dict[int, tuple[Any, Any]] = {}  # type and value, once it has taken effect
        self._names = list(range(PROCESSES_MAX))

    def step(self, slot: int, draw: st.DrawFn) -> None:
        """One process calls, takes effect, or returns; now and then nobody learns how it ended."""
        process = self._names[slot]
        if process not in self._open:
            self._call(process, draw)
        elif draw(st.integers(0, 9)) == 0:
            self._give_up(slot)
        elif process not in self._results:
            self._take_effect(process)
        else:
            self._return(process)

    def _call(self, process: int, draw: st.DrawFn) -> None:
        f = draw(st.sampled_from(("read", "write", "cas")))
        value = draw(st.integers(0, VALUES - 1))
        argument = {"read": None, "write": value, "cas": [draw(st.integers(0, VALUES - 1)), value]}[f]
        self._open[process] = self._line(process, "invoke", f, draw(st.sampled_from(KEYS)), argument)

    def _take_effect(self, process: int) -> None:
        op = self._open[process]
        held = self._values[op.key]
        if op.f == "read":
            self._results[process] = ("ok", held)
        elif op.f == "write":
            self._values[op.key] = op.value
            self._results[process] = ("ok", op.value)
        elif held == op.value[0]:
            self._values[op.key] = op.value[1]
            self._results[process] = ("ok", op.value)
        else:
            self._results[process] = ("fail", op.value)

    def _return(self, process: int) -> None:
        op, (type_, value) = self._open.pop(process), self._results.pop(process)
        self._line(process, type_, op.f, op.key, value, error="mismatch" if type_ == "fail" else None)

    def _give_up(self, slot: int) -> None:
        process = self._names[slot]
        op = self._open.pop(process)
        self._results.pop(process, None)
        self._line(process, "info", op.f, op.key, op.value, error="timeout")
        self._names[slot] = process + PROCESSES_MAX

    def _line(
        self, process: int, type_: Any, f: str, key: str, value: Any, *, error: str | None = None
    ) -> Op:
        index = len(self.lines)
        op = Op(index, (index + 1) * STEP_NS, process, type_, f, key=key, value=value, error=error)
        self.lines.append(op)
        return op
