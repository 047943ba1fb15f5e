r"""Registers checked while they are recorded, in memory that does not grow with the history.

Rules of this module
    1. Input: reads and writes, where every value is written once per key and nobody writes the initial one; it is the
       generator that promises this. Any other operation makes the answer ``unknown``, with the reason.
    2. A no is final, and comes at the completion that makes it certain, once its moment is over: calls of that moment
       may still follow it. A yes speaks of what was seen so far.
    3. What is held per key: the values that may still be read, about as many as clients, and each write that never
       returned and that nobody saw.

Theory of operation
    The zones of `checkers.zones` (Gibbons and Korach 1997): a value's block is its write and its reads, f its first
    return and s its last call. Two blocks clash iff f_A < s_B and f_B < s_A. Completions come in order, so f is fixed
    by the first one and s only grows; a clash is found when a zone changes.

    *Forgetting.* Let T be the earliest call that is still open: whatever completes from now on was called at T or
    later. Let f_A < T and s_A < T, and let there be a block B with f_B < T and f_A < s_B. Then one more read of A's
    value would have s_A >= T > f_B: a clash. So A may be forgotten if reading a value that is not held is a
    violation, which it is anyway (nobody wrote it). And no other block C will need A: if C has completions, and
    f_C < s_A, then A closes C (f_A < T, f_C < s_A), so C is forgotten too, or clashes with A already; if f_C > s_A, or
    C has no completion yet and f_C is still to come, C never clashes with A.

    Events are numbered by their times so that calls come before returns of the same time (see `checkers.history`).

>>> from checkers.history import Op
>>> online = Online()
>>> for op in (
...     Op(0, 1, 0, "invoke", "write", value=1), Op(1, 2, 0, "ok", "write", value=1),
...     Op(2, 3, 0, "invoke", "write", value=2), Op(3, 4, 0, "ok", "write", value=2),
...     Op(4, 5, 1, "invoke", "read"), Op(5, 6, 1, "ok", "read", value=1),
... ):
...     online.add(op)
>>> print(*online.verdict().lines(), sep="\n")
invalid: not linearizable with model register: 3 operations, zones-online
  with the completion at index 5 each of 1 and 2 was there before the other one was: no order is possible
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from checkers.formats import decode_line, is_cut, split_header
from checkers.history import History, HistoryError, Op, backwards, nobody_asked
from checkers.models import Register, model_by_name
from checkers.problem import NEVER
from checkers.values import freeze, show
from checkers.verdict import Verdict

_READS, _WRITES = frozenset({"read", "get"}), frozenset({"write", "put"})
_SHOWN = 48
#: So many lines at time 0 are a history without times.
_HELD_MAX = 1_000
#: As for a stored history of reads and writes in JSON lines.
_DEFAULT_MODEL = "etcd-register"


@dataclass(slots=True)
class _Block:
    first_ret: int
    last_call: int
    value: Hashable


@dataclass(slots=True)
class _Key:
    blocks: dict[Hashable, _Block]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A completion, the invocation that it answers, and their moments."""

    op: Op
    asked: Op
    name: Hashable
    call: int
    moment: int


@dataclass(slots=True)
class Online:
    """A check that goes on while operations come in.

    Attributes:
        initial: what every key holds before.
        silent_nil: whether an ok read of null says nothing (see docs/models.md).
        model: name of the model, for the verdict.
        timed: whether lines of one time are concurrent; else the order of lines counts alone.
        evidence: what is wrong, once it is.
        unfit: why nothing can be said, once it cannot.
    """

    initial: Any = None
    silent_nil: bool = True
    model: str = "register"
    timed: bool = True
    operations: int = 0
    evidence: str | None = None
    unfit: str | None = None
    _keys: dict[Hashable, _Key] = field(default_factory=dict)
    _open: dict[int, tuple[int, Op, Hashable]] = field(default_factory=dict)
    _ended: list[_Ended] = field(default_factory=list)
    _lines: int = 0

    def add(self, op: Op) -> None:
        """The next line of the history; nothing is done with it once the answer is known."""
        moment = 2 * (op.time_ns if self.timed else self._lines)
        self._lines += 1
        if type(op.process) is not int or self.evidence or self.unfit:
            return
        if self._ended and self._ended[0].moment < moment:
            self._settle()
        if op.type == "invoke":
            self._invoke(op, op.process, moment)
        else:
            self._complete(op, op.process, moment)

    @property
    def held(self) -> int:
        """How many values are held, of all keys."""
        return sum(len(key.blocks) for key in self._keys.values())

    def verdict(self) -> Verdict:
        """What is known so far, if the moment of the last line is over."""
        self._settle()
        return Verdict(
            valid="unknown" if self.unfit else "invalid" if self.evidence else "valid",
            model=self.model,
            algorithm="zones-online",
            operations=self.operations,
            keys=len(self._keys),
            cause=self.unfit,
            evidence=(self.evidence,) if self.evidence else (),
        )

    def _key(self, name: Hashable) -> _Key:
        if name not in self._keys:
            initial = freeze(self.initial)
            self._keys[name] = _Key({initial: _Block(-1, -1, initial)})
        return self._keys[name]

    def _invoke(self, op: Op, process: int, moment: int) -> None:
        name = freeze(op.key)
        if op.f not in _READS | _WRITES:
            self.unfit = (
                f"index {op.index}: a register that is checked online has reads and writes only, not {op.f!r}"
            )
            return
        if process in self._open:
            self.unfit = (
                f"index {op.index}: process {process} invokes {op.f!r} while another operation is open"
            )
            return
        self.operations += 1
        self._open[process] = (moment, op, name)
        if op.f in _WRITES:
            value = freeze(op.value)
            blocks = self._key(name).blocks
            if value in blocks:
                self.unfit = (
                    f"index {op.index}: {show(value, _SHOWN)} is written twice; check the stored history"
                )
                return
            blocks[value] = _Block(NEVER, moment, value)

    def _complete(self, op: Op, process: int, moment: int) -> None:
        if process not in self._open:
            self.unfit = f"index {op.index}: process {process} completes {op.f!r} but has nothing open"
            return
        call, asked, name = self._open.pop(process)
        if op.f != asked.f:
            self.unfit = f"index {op.index}: process {process} completes {op.f!r} but had invoked {asked.f!r}"
            return
        self._ended.append(_Ended(op, asked, name, call, moment))

    def _settle(self) -> None:
        """What the completions of a moment that is over say."""
        while self._ended and not self.evidence and not self.unfit:
            earliest = min((opened[0] for opened in self._open.values()), default=NEVER)
            earliest = min(earliest, self._ended[0].moment, *(one.call for one in self._ended[1:]))
            self._end(self._ended.pop(0), earliest)

    def _end(self, ended: _Ended, earliest: int) -> None:
        op, asked, call = ended.op, ended.asked, ended.call
        blocks = self._key(ended.name).blocks
        if op.type == "ok":
            silent = asked.f in _READS and op.value is None and self.silent_nil
            if not silent:
                self._extend(
                    op, blocks, freeze(op.value if asked.f in _READS else asked.value), call, ended.moment + 1
                )
        elif op.type == "fail" and asked.f in _WRITES:
            block = blocks.pop(freeze(asked.value), None)
            if block is not None and block.first_ret < NEVER:
                self.evidence = (
                    f"the write at index {op.index} failed, but {show(block.value, _SHOWN)} was read"
                )
        _forget(blocks, earliest)

    def _extend(self, op: Op, blocks: dict[Hashable, _Block], value: Hashable, call: int, ret: int) -> None:
        block = blocks.get(value)
        if block is None:
            if op.f in _READS:
                self.evidence = (
                    f"the {op.f} at index {op.index} returned {show(value, _SHOWN)}, which nobody wrote, or which was "
                    f"replaced for good before the {op.f} was called"
                )
            return  # a write whose block was forgotten: somebody saw its value before it returned
        block.first_ret = min(block.first_ret, ret)
        block.last_call = max(block.last_call, call)
        for other in blocks.values():
            clash = other.first_ret < block.last_call and block.first_ret < other.last_call
            if clash and other is not block:
                self.evidence = (
                    f"with the completion at index {op.index} each of {show(value, _SHOWN)} and "
                    f"{show(other.value, _SHOWN)} was there before the other one was: no order is possible"
                )
                return


def check_stream(
    lines: Iterable[bytes], source: str, model: str | None = None, initial: Any = None
) -> Verdict:
    """Checks lines of a ``jsonl`` history as they come, up to the first violation.

    Args:
        lines: of which the first may be a header, whose model and initial value count where none is given here.
        source: what to call them in messages.
        model: name of a register; the default is that of a stored history.
        initial: what every key holds before.

    Raises:
        HistoryError: for a line that is none, times that run backwards, or a model that is no register.
        ValueError: for a model that there is not.
    """
    stream = _Stream(source, model, initial)
    for number, line in enumerate(lines, 1):
        stream.take(number, line)
        if stream.check is not None and (stream.check.evidence or stream.check.unfit):
            break
    return stream.verdict()


@dataclass(slots=True)
class _Stream:
    """Lines on their way to `Online`.

    Attributes:
        check: where they go, once it is known whether they have times; until then they are ``held``.
    """

    source: str
    model: str | None
    initial: Any
    check: Online | None = None
    held: list[Op] = field(default_factory=list)
    before: Op | None = None
    count: int = 0
    headed: bool = False
    name: Op | None = None

    def take(self, number: int, line: bytes) -> None:
        """The next line."""
        if number == 1:
            header, line, first = split_header(line, self.source)
            self.headed = first > 1
            self.model = header.model if self.model is None else self.model
            self.initial = header.initial if self.initial is None else self.initial
        if not line.strip():
            return
        if is_cut(line):
            raise HistoryError(
                f"{self.source}: line {number} is cut off (its writer was stopped): check it without --online to judge "
                "what stands before it"
            )
        op, has_time = decode_line(line, number, self.source, self.count)
        self.count += 1
        if type(op.process) is not int and op.type == "invoke":
            self.name = self.name or op
        if self.check is not None:
            if has_time < self.check.timed:
                raise HistoryError(
                    f"{self.source}: line {number} has no time_ns: give it on all lines or none"
                )
            self._add(self.check, op)
            return
        self.held.append(op)
        if op.time_ns or not has_time or len(self.held) > _HELD_MAX:
            self._begin(timed=op.time_ns != 0)

    def _begin(self, *, timed: bool) -> Online:
        name = self.model or _DEFAULT_MODEL
        register = model_by_name(name, self.initial)
        if not isinstance(register, Register):
            raise HistoryError(
                f"{self.source}: --online checks registers, not the model {name}: leave out --online"
            )
        check = Online(register.start, not register.strict_nil, name, timed)
        for op in self.held:
            self._add(check, op)
        self.check, self.held = check, []
        return check

    def _add(self, check: Online, op: Op) -> None:
        if check.timed and self.before is not None and op.time_ns < self.before.time_ns:
            raise backwards(self.source, self.before, op)
        self.before = op
        check.add(op)

    def verdict(self) -> Verdict:
        """What is known at the end."""
        if self.count == 0 and not self.headed:
            raise HistoryError(
                f"{self.source}: is empty: a history has at least one line; did the run record any?"
            )
        check = self.check or self._begin(timed=False)
        verdict = check.verdict()
        if check.operations or check.unfit:
            return verdict
        return replace(
            verdict,
            valid="unknown",
            cause=nobody_asked(History([self.name] if self.name else [], source=self.source)),
        )


def _forget(blocks: dict[Hashable, _Block], earliest: int) -> None:
    """Drops the blocks that no later completion can touch; see the theory of operation."""
    settled = [block for block in blocks.values() if block.first_ret < earliest]
    if len(settled) < 2:
        return
    latest, second = sorted(settled, key=lambda block: block.last_call)[:-3:-1]
    for block in settled:
        closer = second if block is latest else latest
        if block.last_call < earliest and block.first_ret < closer.last_call:
            del blocks[block.value]
