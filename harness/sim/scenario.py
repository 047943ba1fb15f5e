"""A user's own program under test in a `World`: what a scenario is given, how it is run, and what comes of it.

Rules of this module
    1. A scenario is a function that is given a `Sim`, adds nodes, and returns the test, an async function. See
       docs/simulator.md.
    2. A run is invalid when the test raises or never ends, or when the operations that it recorded do not fit
       `Sim.model`. What the programs on the nodes raise is theirs: a process that exits, told in the report.
    3. The same seed gives the same run; `run` can be asked to make sure, and says where two runs of it part.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import math
import random
import re
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from checkers import Op, encode_op, model_by_name
from harness.errors import ConfigError, InternalError, Interrupted, SplitbrainError, Valid
from harness.interrupts import interruptible
from harness.judge import check_model
from harness.sim.entropy import SimRefused
from harness.sim.loop import SimDeadlock
from harness.sim.world import World
from harness.sim.world_host import Host
from nemesis.composition import kinds_in, parse
from nemesis.faults import FaultError
from nemesis.kinds import FaultKind, kind
from nemesis.nemesis import Nemesis
from nemesis.schedule import FaultEvent, draw

Test = Callable[[], Coroutine[Any, Any, Any]]
Scenario = Callable[["Sim"], Test]

LINES_MAX = 30
OPS_MAX = 1_000_000
TEST_LIMIT_FACTOR = 20.0  # how much longer than the faults a test may take before it counts as stuck


class Operation:
    """An operation that is under way; `Sim.operation` makes them."""

    def __init__(self) -> None:
        self.outcome: tuple[str, Any, str | None] | None = None

    def done(self, value: Any = None, *, ok: bool = True, node: str | None = None) -> None:
        """The system answered: it happened, with this result, or (`ok=False`) it certainly never did."""
        self.outcome = ("ok" if ok else "fail", value, node)


class Sim:
    """What a scenario is given.

    Attributes:
        world: the hosts and the network.
        arg: what the user gave with `--arg`, else None.
        model: name of the model that recorded operations must fit; None to check nothing but the test itself.
        ops: the history so far.
    """

    def __init__(self, world: World, arg: str | None = None) -> None:
        self.world = world
        self.arg = arg
        self.model: str | None = None
        self.ops: list[Op] = []
        self._free: list[int] = []
        self._processes = 0

    def node(self, name: str, program: Callable[[Host], Coroutine[Any, Any, Any]]) -> Host:
        """Add a host that runs `program(host)` at each start."""
        if not callable(program):
            raise ConfigError(
                f"the program of node {name!r} is {program!r}; give an async function of one host"
            )
        host = self.world.host(name, lambda: program(host))
        return host

    def stream(self, name: str) -> random.Random:
        """A random stream of this seed for the test's own choices."""
        return self.world.streams.stream(f"test/{name}")

    @contextlib.contextmanager
    def operation(self, f: str, key: Any = None, value: Any = None) -> Iterator[Operation]:
        """Record an operation: ok or fail if `done` is called, else info, also where the body raises an OSError."""
        for part in (key, value):
            _check_json(f, part)
        process = heapq.heappop(self._free) if self._free else self._fresh()
        self._record(process, "invoke", f, key=key, value=value)
        operation = Operation()
        error: str | None = None
        try:
            yield operation
        except OSError as raised:  # TimeoutError and every broken connection
            error = type(raised).__name__
        except asyncio.IncompleteReadError as raised:
            error = type(raised).__name__
        finally:
            outcome = operation.outcome
            if outcome is not None:
                _check_json(f, outcome[1])
            if outcome is None:
                self._record(process, "info", f, key=key, value=value, error=error or "unknown")
            else:
                heapq.heappush(self._free, process)
                result = value if value is not None or outcome[0] != "ok" else outcome[1]
                self._record(process, outcome[0], f, key=key, value=result, node=outcome[2])

    def _fresh(self) -> int:
        self._processes += 1
        return self._processes - 1

    def _record(self, process: int | str, type_: Any, f: str, **fields: Any) -> None:
        if len(self.ops) >= OPS_MAX:
            raise ConfigError(f"the scenario recorded {OPS_MAX} lines; let it end earlier")
        now_ns = self.world.loop.now_us * 1000
        self.ops.append(Op(index=len(self.ops), time_ns=now_ns, process=process, type=type_, f=f, **fields))


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of one seed.

    Attributes:
        lines: why it is not valid.
        ops: the recorded history.
        faults: how many were injected.
        notes: what programs ended with, beside being killed, and what of their tasks nobody caught.
        trace: a digest of all that ran.
    """

    seed: int
    valid: Valid
    lines: tuple[str, ...]
    ops: Sequence[Op]
    faults: int
    sim_seconds: float
    notes: tuple[str, ...] = field(default=())
    trace: str = ""


def run(
    scenario: Scenario, seed: int, *, kinds: Sequence[str] = (), limit_s: float = 20.0, arg: str | None = None
) -> Ran:
    """Run one seed of a scenario under faults of these kinds for about `limit_s`.

    Raises:
        SimRefused: a program asked for something that is not simulated.
        ConfigError: unknown kinds of fault.
    """
    world = World(seed)
    sim = Sim(world, arg)
    with world.virtual():
        test = _test_of(scenario, sim)
    conductor = _Conductor(world, _drawn(world, kinds, limit_s))
    lines: list[str] = []
    valid: Valid = "valid"
    try:
        # An exception in the midst of a program could be caught by it.
        with interruptible(world.loop.interrupt):
            world.run(lambda: conductor.conduct(test), limit_s=limit_s * TEST_LIMIT_FACTOR)
    except (SimRefused, ConfigError, Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the test raises is its verdict, `sys.exit` too
        is_ours = isinstance(error, InternalError) and not isinstance(error, SimDeadlock)
        valid = "unknown" if is_ours else "invalid"
        what = "the run was given up" if is_ours else f"the test failed: {type(error).__name__}"
        lines.append(f"{what}: {error}")
    if problems := conductor.problems():
        lines += problems
        valid = "invalid" if valid == "invalid" else "unknown"
    if sim.model is not None:
        check = check_model(sim.ops, sim.model, of_user=True)
        if check.valid != "valid":
            lines += check.lines
            valid = "invalid" if "invalid" in (valid, check.valid) else "unknown"
    return Ran(
        seed, valid, tuple(lines[:LINES_MAX]), sim.ops, conductor.injected,
        world.loop.now_us / 1e6, _notes(world), world.loop.trace_sha256,
    )  # fmt: skip


def _test_of(scenario: Scenario, sim: Sim) -> Test:
    """The test, if the factory is what it should be."""
    try:
        test: Any = scenario(sim)
    except (SplitbrainError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(f"the scenario raised {raised(error)}") from error
    if inspect.iscoroutine(test):
        test.close()
        raise ConfigError("the scenario is an async function; let it be a plain one that returns one")
    if not callable(test):
        raise ConfigError("the scenario returned no test; let it return an async function without arguments")
    if sim.model is not None:
        if not isinstance(sim.model, str):
            raise ConfigError(f"sim.model is {sim.model!r}; give the name of a model, see docs/models.md")
        try:
            model_by_name(sim.model)
        except ValueError as error:
            raise ConfigError(f"sim.model: {error}") from None
    return test  # type: ignore[no-any-return]


def raised(error: BaseException) -> str:
    """An exception in a user's code, in half a sentence: what, and at which line."""
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return what  # it names the line
    frames = traceback.extract_tb(error.__traceback__)
    return f"{what} (line {frames[-1].lineno} of {frames[-1].filename})" if frames else what


def _notes(world: World) -> tuple[str, ...]:
    """What a user wants to know of the programs: how they ended, and what nobody caught, each once and how often."""
    exits = [f"{host.name} {how}" for host in world.hosts.values() for how in host.exits if how != "killed"]
    uncaught = (f"{name}: {message}" for name, message in world.uncaught)
    counted = Counter([*exits, *uncaught])
    notes = [note if count == 1 else f"{note} ({count} times)" for note, count in counted.items()]
    return tuple(notes[:LINES_MAX])


def _check_json(f: str, part: Any) -> None:
    """What is recorded is written down as JSON, and compared as that."""
    if part is None or isinstance(part, (bool, int, str)):
        return
    try:
        msgspec.json.encode(part)
        _check_numbers(part)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"the scenario recorded {f} of {part!r}, which is no JSON: {error}") from None


def _check_numbers(part: Any) -> None:
    """Numbers that JSON does not have would be written as null."""
    if isinstance(part, float) and not math.isfinite(part):
        raise ValueError(f"{part} is no number of it")
    if isinstance(part, (list, tuple)):
        for inner in part:
            _check_numbers(inner)
    elif isinstance(part, dict):
        _check_numbers(list(part.values()))


def difference(first: Ran, second: Ran) -> str | None:
    """Where two runs of one seed part, in a sentence; None if they are the same."""
    for a, b in zip(first.ops, second.ops, strict=False):
        if a != b:
            return f"two runs of seed {first.seed} differ: first {_shown(a)}, then {_shown(b)}"
    if (
        len(first.ops) != len(second.ops)
        or first.sim_seconds != second.sim_seconds
        or _without_addresses(first) != _without_addresses(second)
    ):
        return f"two runs of seed {first.seed} end differently: first {_ended(first)}, then {_ended(second)}"
    return None


def _without_addresses(ran: Ran) -> list[str]:
    """Where Python puts an object is in the text of many an exception, and nothing that a run does follows from it."""
    return [_ADDRESS.sub("", line) for line in ran.lines]


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _ended(ran: Ran) -> str:
    what = f"({ran.lines[0][:200]})" if ran.lines else "without a failure"
    return f"after {len(ran.ops)} lines and {ran.sim_seconds:g} s, {what}"


def _shown(op: Op) -> str:
    return encode_op(op).decode().strip()[:200]


def _drawn(world: World, kinds: Sequence[str], limit_s: float) -> tuple[FaultEvent, ...]:
    if not kinds:
        return ()
    try:
        for name in kinds_in(parse(one) for one in kinds):
            _check_kind(kind(name))
        return draw(kinds, tuple(world.nodes), limit_s * 1000, world.streams.stream)
    except FaultError as error:
        raise ConfigError(str(error)) from None


def _check_kind(asked: FaultKind) -> None:
    """Refused whatever the seed draws: one that draws no such fault is no reason to begin."""
    why = None
    if asked.category == "membership":
        why = "changes the members of a cluster, and nodes of a scenario are members of nothing"
    elif asked.draw_trigger is not None:
        why = "waits for what a cluster tells of itself, and nodes of a scenario tell nothing"
    if why is not None:
        raise ConfigError(
            f"the fault {asked.name} {why}; take one that comes by itself, as kill or partition"
        )


class _Conductor:
    """The test, and the faults beside it."""

    def __init__(self, world: World, events: Sequence[FaultEvent]) -> None:
        self._world = world
        self._events = events
        self._nemesis = Nemesis(world)
        self.injected = 0

    def problems(self) -> list[str]:
        """Which faults could not be injected, and why, each once."""
        found = (
            f"the fault {error.fault} could not be injected: {error.message}"
            for error in self._nemesis.errors
        )
        return list(dict.fromkeys(found))

    async def conduct(self, test: Test) -> None:
        faults = asyncio.ensure_future(self._inject())
        made = test()
        try:
            if not inspect.isawaitable(made):
                raise ConfigError(
                    f"the test returned {made!r} and nothing to wait for; make it an async function"
                )
            await made
        finally:
            faults.cancel()

    async def _inject(self) -> None:
        nemesis = self._nemesis
        steps = [(event.start_ms, 1, event) for event in self._events]
        steps += [(event.stop_ms, 0, event) for event in self._events]
        for at_ms, starts, event in sorted(steps, key=lambda step: (step[0], step[1])):
            await asyncio.sleep(max(0.0, at_ms / 1000 - self._world.loop.time()))
            if starts:
                self.injected += not (await nemesis.inject(event)).errors
            else:
                await nemesis.heal(event)
        if steps:  # it starts whatever does not run, also what has ended by itself
            await nemesis.heal_all()
