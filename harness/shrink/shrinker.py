"""The search for the smallest plan that still violates its model in the same way.

Theory of operation
    A simulated cluster is chaotic: leave out one operation, and the messages that it caused are gone, every later
    message of their links draws another delay, and the next election may be won by somebody else. So a shrinker
    cannot expect that a part which does not matter can be left out with nothing else changing; it can only try
    many smaller plans, and each is a new chance. What helps is that attempts get cheaper as plans get smaller:
    the first one costs a second, the later ones some milliseconds each. Hence the order of passes, those that save
    the most time first:

        moment     small plans around a moment of its run (`moment`), or of operations that come all at once (`burst`),
                   hundreds of them, and those grown from what broke an invariant (`grow`)
        end        what is planned after the violation: dropped without any risk
        start      what is planned long before it
        keys       all operations of a key at once
        nodes      five become three
        faults, workers, operations   by delta debugging
        names      plain ones, and plain numbers
        time       gaps between planned things closed
        values     faults shorter and milder, compare-and-sets turned into writes, round times

    repeated until the plan gets no smaller, or the budget is spent. After each success the end is cut off again. A pass
    over a large plan that has failed many times in a row is left early. While the plan is still large then, bold
    guesses are made (`nudge`), and small plans as at first; the passes are repeated after those that succeed.
    In the end Hypothesis makes the numbers of the plan smaller (`polish`), where it is installed.

Rules of this module
    1. Same kind of violation: the history of the smaller plan violates the same model, checker or invariant, or
       liveness if that was it. Which key it is, and which operation, may change. A plan that breaks an invariant
       where a history is to go wrong is no success; at most other plans are grown from it.
    2. The seed is kept (`edits`). The search itself draws from a stream of that seed: the same run and the same
       number of attempts give the same result.
    3. What was tried once is not tried again; plans are known by the digest of their bytes.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from harness import plan as plans
from harness.plan import Plan
from harness.planned import PlannedOp
from harness.seeds import Streams
from harness.shrink import edits, polish
from harness.shrink.attempt import Attempt, Violation, attempt
from harness.shrink.burst import burst
from harness.shrink.ddmin import ddmin
from harness.shrink.grow import Cores, core_of, grown
from harness.shrink.moment import small_plan
from harness.shrink.nudge import guess

COLLECT_EVERY = 200
ATTEMPTS_MAX = 1_000_000
ROUNDS_MAX = 100
START_WINDOWS_MS = (500, 1_000, 2_000, 4_000, 8_000, 16_000)
ROUND_STEPS_MS = (100, 50, 20, 10, 5)
SMALL_OPS = 12
SMALL_FAULTS = 5
PATIENCE_MIN = 6  # attempts in a row that a pass over a large plan may fail; more, the smaller the plan
PATIENCE_OPS = 1_500
FINE_SIZE_MAX = 80  # of a larger plan, guesses leave out more in less time than passes over single things
NAMED_ONLY = ("read", "write", "cas")  # operations whose keys and values mean nothing beyond themselves
KEEP_MIN, KEEP_MAX = 0.5, 0.95
GUESSES_EACH = 12  # guesses in a row that may fail before they get less bold
GUESSES_MAX = 100_000
LARGE_OPS = 250  # from here on, moments are tried before anything is left out
MOMENTS_MAX = 2_000
LAST_GUESSES = 80
# Of the budget, from its start: moments of a large plan, of any plan, and once more where it is still large.
MOMENTS_SHARE_LARGE, MOMENTS_SHARE, MOMENTS_SHARE_LATER = 0.4, 0.1, 0.5
GROW = 0.5  # how often a plan is grown where there is something to grow it from
BURST = 0.5  # of the others


class BudgetSpent(Exception):
    """The search is to end with the best plan so far."""


class PatienceLost(Exception):
    """A pass is to end: it has failed too often in a row."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search: seconds of real time, and a number of attempts for who wants the same result twice."""

    seconds: float = 60.0
    attempts: int = ATTEMPTS_MAX


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The outcome.

    Attributes:
        plan: the smallest plan found.
        attempt: its run.
        attempts: how many plans were run.
        seconds: how long it took.
        complete: no edit makes it smaller any more (else the budget was spent, or the search interrupted).
        interrupted: somebody ended it.
    """

    plan: Plan
    attempt: Attempt
    attempts: int
    seconds: float
    complete: bool
    interrupted: bool = False


Report = Callable[[str, Plan, int], None]


def shrink(
    plan: Plan,
    budget: Budget,
    report: Report = lambda *_: None,
    *,
    origin: Plan | None = None,
    wanted: str = "",
) -> Shrunk | None:
    """Search; None where the plan itself shows no such violation when it is run.

    Args:
        plan: what to begin with.
        budget: how long.
        report: is told of each success: the pass, the plan, how many attempts it took.
        origin: the whole plan, where the end of `plan` was cut off already: its final operations are of use.
        wanted: `Violation.what` of the failure to keep, where that is known: with its end cut off, a plan may show
            another one before it. Otherwise the first one of the plan's run.
    """
    search = _Search(plan, origin if origin is not None else plan, budget, report)
    search.wanted = wanted
    complete = interrupted = False
    try:
        if not search.start():
            return None
        complete = search.run()
    except (BudgetSpent, KeyboardInterrupt) as ended:
        interrupted = isinstance(ended, KeyboardInterrupt)
        if not search.best_attempt.violations:
            if interrupted:
                raise
            return None
    seconds = search.elapsed_s()
    return Shrunk(search.best, search.best_attempt, search.attempts, seconds, complete, interrupted)


class _Search:
    def __init__(self, plan: Plan, origin: Plan, budget: Budget, report: Report) -> None:
        self.best = plan
        self.best_attempt = Attempt()
        self._origin = origin
        self._went_wrong: tuple[Violation, ...] = ()
        self.wanted = ""
        self._cores = Cores()
        self.attempts = 0
        self._budget = budget
        self._report = report
        self._started_s = time.monotonic()
        self._tried: set[bytes] = set()
        self._doing = "start"
        self._failures = 0

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def _spent(self) -> float:
        """How much of the budget, of 1."""
        return max(self.elapsed_s() / self._budget.seconds, self.attempts / self._budget.attempts)

    # -- trying -----------------------------------------------------------------------------------------------

    def start(self) -> bool:
        """Run the plan as it is."""
        self._doing = "as it was"
        first = attempt(self.best)
        if not self.wanted and first.violations:
            self.wanted = first.violations[0].what
        self._went_wrong = tuple(one for one in first.violations if one.what == self.wanted)
        return self._accept(self.best, first) if self._went_wrong else False

    def _try(self, candidate: Plan, *, grow: bool = False) -> bool:
        """Whether the candidate fails too; then it is the best one from now on, its end cut off.

        With `grow`, others may be grown from it if it breaks an invariant and nothing more.
        """
        digest = hashlib.sha256(plans.encode(candidate)).digest()
        if digest in self._tried:
            return False
        if self._failures > PATIENCE_MIN + PATIENCE_OPS // (1 + len(self.best.ops)) and not self._small():
            raise PatienceLost
        if self.attempts and self._spent() >= 1:
            raise BudgetSpent
        self._tried.add(digest)
        if self.attempts % COLLECT_EVERY == 0:
            gc.collect()  # each run leaves circles behind, which the loop keeps from being found
        result = attempt(candidate, wanted=self.wanted)
        if self._first_wanted(result) is not None:
            return self._accept(candidate, result)
        self.attempts += 1
        self._failures += 1
        core = core_of(candidate, result) if grow else None
        if core is not None:
            self._cores.keep(core)
        return False

    def _first_wanted(self, result: Attempt) -> Violation | None:
        return next((violation for violation in result.violations if violation.what == self.wanted), None)

    def _accept(self, candidate: Plan, result: Attempt) -> bool:
        self.attempts += 1
        self._failures = 0
        self.best, self.best_attempt = candidate, result
        self._report(self._doing, self.best, self.attempts)
        self._cut_off_end()
        return True

    def _cut_off_end(self) -> None:
        first = self._first_wanted(self.best_attempt)
        if first is None:
            return
        shorter = edits.cut_off_end(self.best, self.best_attempt.ops, first)
        if shorter != self.best:
            name, self._doing = self._doing, "end"
            self._try(shorter)
            self._doing = name

    def _first_that_fails(self, candidates: Iterable[Plan]) -> bool:
        return any(self._try(candidate) for candidate in candidates)

    # -- passes -----------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Repeat all passes until none of them changes anything; guess where they leave the plan large."""
        self._moments(MOMENTS_SHARE_LARGE if len(self.best.ops) > LARGE_OPS else MOMENTS_SHARE)
        self._all_passes()
        if not self._small():
            self._moments(MOMENTS_SHARE_LATER)
        guesses = self._guesses()
        for _ in range(ROUNDS_MAX):
            while not self._small() and next(guesses):
                pass
            before = self._weight()
            self._all_passes()
            if self._weight() >= before and self._small() and not self._lucky_guess():
                self._polish()
                return True
        return False

    def _lucky_guess(self) -> bool:
        """A last try at something smaller that cannot be reached by leaving out one thing."""
        rng = Streams(self.best.seed).stream(f"shrink/last/{self.attempts}")
        self._doing = "guess"
        for _ in range(LAST_GUESSES):
            self._failures = 0
            candidate = guess(self.best, rng, KEEP_MIN)
            if candidate is not None and self._weight_of(candidate) < self._weight() and self._try(candidate):
                return True
        return False

    def _weight(self) -> tuple[int, ...]:
        """What gets smaller while there is something to gain from further rounds."""
        return self._weight_of(self.best)

    @staticmethod
    def _weight_of(plan: Plan) -> tuple[int, ...]:
        limit_ms = round(plan.config.time_limit_s * 1000)
        size = len(plan.ops) + len(plan.final) + len(plan.faults)
        return (size, len(plan.nodes), plan.config.concurrency, limit_ms // 100)

    def _small(self) -> bool:
        return (
            len(self.best.ops) + len(self.best.final) <= SMALL_OPS and len(self.best.faults) <= SMALL_FAULTS
        )

    def _size(self) -> int:
        return self._weight()[0]

    def _all_passes(self) -> None:
        passes = [self._start, self._keys, self._nodes, self._faults, self._workers]
        if self._size() <= FINE_SIZE_MAX:
            passes += [self._ops, self._finals, self._names, self._time, self._values]
        for one in passes:
            self._doing = one.__name__.removeprefix("_")
            self._failures = 0
            with contextlib.suppress(PatienceLost):
                one()

    def _guesses(self) -> Iterator[bool]:
        """Guess until the plan is half as large; True for that. Guesses get bolder with success, less bold without."""
        rng = Streams(self.best.seed).stream("shrink/guesses")
        keep = KEEP_MIN
        size = self._size()
        for number in range(GUESSES_MAX):
            self._doing, self._failures = "guess", 0
            if number % GUESSES_EACH == GUESSES_EACH - 1:
                keep = min(KEEP_MAX, keep + 0.05)
            if number % 3 == 2:
                succeeded = self._try_small_one(rng)
            else:
                candidate = guess(self.best, rng, keep)
                succeeded = candidate is not None and self._try(candidate)
            if succeeded:
                keep = max(KEEP_MIN, keep - 0.15)
                if self._size() <= size // 2 or self._small():
                    yield True
                    size = self._size()
        while True:
            yield False

    def _moments(self, share: float) -> None:
        """Small plans around moments of the run, until one fails or so much of the budget is spent."""
        rng = Streams(self.best.seed).stream(f"shrink/moments/{self.attempts}")
        for _ in range(MOMENTS_MAX):
            self._doing, self._failures = "moment", 0
            if self._spent() > share:
                return
            if self._try_small_one(rng):
                return

    def _try_small_one(self, rng: random.Random) -> bool:
        """A plan around a moment, of a burst, or grown from one that broke an invariant."""
        grows = bool(self._cores) and rng.random() < GROW
        if grows:
            candidate = grown(self._cores.next(), self._origin, rng)
        elif rng.random() < BURST:
            candidate = burst(self._origin, rng)
        else:
            candidate = small_plan(self._origin, self._went_wrong, rng)
        return self._is_nearer(candidate) and self._try(candidate, grow=not grows)

    def _is_nearer(self, candidate: Plan) -> bool:
        """Whether it is nearer to what is called small than the best one."""

        def excess(plan: Plan) -> int:
            return max(0, len(plan.ops) + len(plan.final) - SMALL_OPS) + max(
                0, len(plan.faults) - SMALL_FAULTS
            )

        return excess(candidate) < excess(self.best)

    def _polish(self) -> None:
        self._doing = "polish"
        polish.polish(self.best, self._fails_too)
        self._fails_too(edits.plain_times(self.best))

    def _fails_too(self, candidate: Plan) -> bool:
        """The same as `_try` for who must not be left by an exception."""
        self._failures = 0
        with contextlib.suppress(BudgetSpent, PatienceLost):
            return self._try(candidate)
        return False

    def _start(self) -> None:
        """Keep only the last stretch before the violation, the shortest that does."""
        limit_ms = round(self.best.config.time_limit_s * 1000)
        windows = [window for window in START_WINDOWS_MS if window < limit_ms]
        windows += [limit_ms // 2, limit_ms * 3 // 4]
        self._first_that_fails(
            edits.cut_off_start(self.best, limit_ms - window) for window in sorted(windows)
        )

    def _keys(self) -> None:
        for violation in self.best_attempt.violations:
            if self._try(edits.keep_keys(self.best, [violation.key])):
                return
        keys = list(dict.fromkeys(op.key for op in (*self.best.ops, *self.best.final)))
        if len(keys) > 1:
            ddmin(keys, lambda kept: bool(kept) and self._try(edits.keep_keys(self.best, kept)))

    def _nodes(self) -> None:
        nodes = self.best.nodes
        for count in range(1, len(nodes)):
            if self._first_that_fails(
                edits.keep_nodes(self.best, kept) for kept in itertools.combinations(nodes, count)
            ):
                return

    def _faults(self) -> None:
        ids = [event.id for event in self.best.faults]
        ddmin(ids, lambda kept: self._try(edits.keep_faults(self.best, kept)))

    def _workers(self) -> None:
        workers = sorted({op.worker for op in self.best.ops})
        ddmin(workers, lambda kept: self._try(edits.keep_ops(self.best, lambda op: op.worker in kept)))
        for keep_homes in (True, False):
            if self._try(edits.pack_workers(self.best, keep_homes=keep_homes)):
                return

    def _ops(self) -> None:
        names = [_name(op) for op in self.best.ops]

        def test(kept: list[tuple[int, int, str]]) -> bool:
            wanted = set(kept)
            return self._try(edits.keep_ops(self.best, lambda op: _name(op) in wanted))

        ddmin(names, test)

    def _finals(self) -> None:
        """Fewer final reads, and a shorter recovery before them."""
        if not self.best.final:
            return
        self._first_that_fails([msgspec.structs.replace(self.best, final=())])
        for recovery_s in (0.0, 0.5, 1.0, self.best.config.recovery_s / 2):
            if self.best.final and recovery_s < self.best.config.recovery_s:
                config = msgspec.structs.replace(self.best.config, recovery_s=recovery_s)
                if self._try(msgspec.structs.replace(self.best, config=config)):
                    break

    def _names(self) -> None:
        """Plain keys and values, where they are nothing but names: a watch follows a prefix, a bank has amounts."""
        if any(op.f not in NAMED_ONLY for op in (*self.best.ops, *self.best.final)):
            return
        for simpler in (edits.plain_values, edits.plain_keys):
            self._try(simpler(self.best))

    def _time(self) -> None:
        """Close gaps between planned things, the longest first."""
        for _ in range(ROUNDS_MAX):
            if not self._first_that_fails(self._shorter_gaps()):
                return

    def _shorter_gaps(self) -> Iterator[Plan]:
        times = edits.instants_ms(self.best)
        gaps = sorted(((later - at, at) for at, later in itertools.pairwise(times)), reverse=True)
        for length_ms, at_ms in gaps:
            for by_ms in (length_ms - 1, length_ms * 3 // 4, length_ms // 2, length_ms // 4):
                if length_ms >= 20 and by_ms > 0:
                    yield edits.shorten_gap(self.best, at_ms, by_ms)

    def _values(self) -> None:
        for event in self.best.faults:
            self._first_that_fails(edits.simpler_faults(self.best, event))
        self._first_that_fails(edits.simpler_ops(self.best))
        self._first_that_fails(edits.round_times(self.best, step_ms) for step_ms in ROUND_STEPS_MS)


def _name(op: PlannedOp) -> tuple[int, int, str]:
    return (op.at_us, op.worker, f"{op.f} {op.key}")
