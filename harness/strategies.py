"""Hypothesis strategies for whoever tests with splitbrain, and for its own tests. Needs `pip install hypothesis`.

    faults(nodes)            one fault, of any kind that a cluster of these nodes allows
    fault_plans(nodes)       fault events in order of time
    plans()                  whole plans, small enough to run in some milliseconds
    valid_histories()        register histories that are linearizable by construction, with unknown outcomes in them
    broken_histories()       the same with one answer that no order of operations can explain

>>> from checkers import check_linearizable
>>> from hypothesis import find
>>> lines = find(broken_histories(), lambda lines: True)
>>> check_linearizable(lines, "etcd-register").valid
'invalid'

A user's own test, in a few lines (`harness.shrink.attempt` runs a plan in memory):

    @given(plans(bug="stale-read"))
    def test_reads_are_never_stale(plan):
        assert attempt(plan).violations == ()

Hypothesis runs it, shrinks a failing plan, and stores it in its database, from where it is tried first the next time.

Theory of operation
    Everything is drawn piece by piece and not from a seed of ours, because Hypothesis can only shrink what it has
    drawn. What it takes for simplest comes first: no fault, no operation, the first variant, time 0.

    A valid history is drawn as a run of an atomic register: at each step one process is chosen, and it calls, or takes
    effect, or returns. So every operation takes effect once between its call and its return, which is what
    linearizable means. An operation whose outcome is unknown may have taken effect or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from checkers import Op
from harness import plan as plans_
from harness.config import Config
from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import Streams
from nemesis.faults import Fault
from nemesis.kinds import FAULTS, kind
from nemesis.schedule import FaultEvent
from nemesis.trigger import Trigger

STEPS_MAX = 60
FAULTS_MAX = 6
OPS_MAX = 40
VARIANTS_MAX = 30
SEEDS_MAX = 2**16
PROCESSES_MAX = 4
KEYS = ("a", "b")
VALUES = 3
NEVER_WRITTEN = 99
READER = 10_000  # a process that no other operation has
STEP_NS = 1_000


def faults(nodes: Sequence[str], *, kinds: Sequence[str] | None = None) -> st.SearchStrategy[Fault]:
    """One fault of some kind, hitting some of the nodes; the first of each kind's variants is the simplest."""
    return st.builds(
        _variant,
        st.sampled_from(_possible(nodes, kinds)),
        st.just(tuple(nodes)),
        st.integers(0, VARIANTS_MAX),
    )


def _possible(nodes: Sequence[str], kinds: Sequence[str] | None) -> list[str]:
    return [name for name in (kinds if kinds is not None else FAULTS) if kind(name).nodes_min <= len(nodes)]


def _variant(name: str, nodes: tuple[str, ...], number: int) -> Fault:
    """The same fault for the same number, in every process."""
    return next(itertools.islice(kind(name).draw(nodes, Streams(0).stream(name)), number, None))


@st.composite
def fault_plans(
    draw: st.DrawFn,
    nodes: Sequence[str],
    *,
    kinds: Sequence[str] | None = None,
    duration_ms: int = 5_000,
    max_size: int = FAULTS_MAX,
) -> tuple[FaultEvent, ...]:
    """Fault events in order of time; they shrink to fewer, earlier, shorter and plainer ones."""
    possible = _possible(nodes, kinds)
    if not possible or duration_ms < 2:
        return ()
    # As with operations below, a fault is left out by a single choice, and the others still begin when they did.
    longest_ms = max(1, duration_ms // 3)
    drawn = st.tuples(
        st.sampled_from((False, True, True, True)),
        st.integers(0, longest_ms),
        st.integers(1, longest_ms),
        faults(nodes, kinds=possible),
    )
    events = []
    now_ms = 0
    for number in range(draw(st.integers(0, max_size))):
        kept, gap_ms, length_ms, fault = draw(drawn)
        now_ms += gap_ms
        if now_ms + length_ms > duration_ms:
            break
        if not kept:
            continue
        trigger = _trigger(fault, possible, number)
        events.append(
            FaultEvent(
                id=f"f{number + 1}", start_ms=now_ms, stop_ms=now_ms + length_ms, fault=fault, when=trigger
            )
        )
    return tuple(events)


def _trigger(fault: Fault, possible: Sequence[str], number: int) -> Trigger | None:
    """What sets the fault off, where it is of a reactive kind: it names the node that did."""
    if "trigger" not in (getattr(fault, "aim", None), getattr(fault, "topology", None)):
        return None
    reactive = [name for name in possible if kind(name).draw_trigger is not None]
    chosen = kind(reactive[number % len(reactive)])
    assert chosen.draw_trigger is not None, "it was chosen for having one"
    return chosen.draw_trigger(Streams(number).stream("trigger"))


@st.composite
def plans(draw: st.DrawFn, /, **settings: Any) -> Plan:
    """Plans of short runs; `settings` are fields of `harness.config.Config` to hold fixed.

    A plan is drawn piece by piece, so that Hypothesis shrinks it as one would by hand: fewer faults, operations,
    nodes and clients, smaller gaps between them. Operations are those of the workload, in its order, some left out.
    `test` may run a plan with `harness.shrink.attempt.attempt`.
    """
    config = msgspec.structs.replace(
        Config(time_limit_s=1.0, rate_hz=40.0, recovery_s=0.5, keys=2),
        **{"nodes": draw(st.integers(3, 5)), **settings},
    )
    if "concurrency" not in settings:
        config = msgspec.structs.replace(config, concurrency=draw(st.integers(1, 6)))
    base = plans_.draw(config, settings.get("seed", draw(st.integers(0, SEEDS_MAX))))
    kinds = [*base.config.faults]
    events = draw(fault_plans(base.nodes, kinds=kinds, duration_ms=round(config.time_limit_s * 1000)))
    # The most choices come last: with fewer of them, none after them changes its meaning.
    ops = draw(_operations(base))
    keys = {op.key for op in ops}
    final = tuple(op for op in base.final if op.key is None or op.key in keys)
    return msgspec.structs.replace(base, ops=ops, faults=events, final=final)


@st.composite
def _operations(draw: st.DrawFn, base: Plan) -> tuple[PlannedOp, ...]:
    """Some of the plan's operations, in its order, at times and of workers of their own."""
    limit_ms = round(base.config.time_limit_s * 1000)
    # Hypothesis' shrinker gives up after some hundred tries in vain, so it must get far with few: the first choice
    # cuts the end off, and as much is drawn for an operation that is left out as for one that is kept, so that one is
    # left out by a single choice and all later choices still mean what they meant.
    drawn = st.tuples(
        st.booleans(),
        st.integers(0, max(1, 4 * limit_ms // OPS_MAX)),
        st.integers(0, base.config.concurrency - 1),
    )
    chosen = []
    at_ms = 0
    for op in base.ops[: draw(st.integers(0, OPS_MAX))]:
        kept, gap_ms, worker = draw(drawn)
        if not kept:
            continue
        at_ms += gap_ms
        if at_ms >= limit_ms:
            break
        chosen.append(msgspec.structs.replace(op, at_us=at_ms * 1000, worker=worker))
    return tuple(chosen)


@st.composite
def valid_histories(draw: st.DrawFn) -> list[Op]:
    """Lines of a history of registers with read, write and cas that is linearizable, and not empty."""
    run = _AtomicRun()
    for _ in range(draw(st.integers(1, STEPS_MAX))):
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
