"""Registers whose system tells revisions: the order that these say is checked directly, in nearly linear time.

Rules of this module
    1. Input: the operations of one key, where each acknowledged change tells its revision (`Op.revision`). Whatever
       does not fit is None (undecided), for the general search.
    2. A yes comes with its order, which the caller verifies against the model; so guesses (which lost cas made a
       change that somebody saw) can only cost an answer.
    3. A no is one of `RevisionRegister`: revisions grow with the changes. A model that does not look at revisions
       may accept what they contradict; its user is told. A no names the operations that contradict each other.

Theory of operation
    Changes in the order of their revisions, each followed by the reads that saw its revision, are *slots*, with the
    start as the first. As revisions grow, every right order goes through the slots like this; within one, reads
    commute. So the *fixed* operations, those that told a revision, are right iff
        no two acknowledged changes have one revision,
        reads saw the value of their slot, refused cas did not, and a cas expected the value of the slot before,
        none returned before one of an earlier slot was called, or a read before the change that it saw.

    *A slot without a writer*: its revision was seen, so a lost write made it, of the value that was seen, called
    before anything of the slot or later returned. That deadline only grows with the revision, so of one value the
    first slot gets the write called first, and so on: if any assignment works then this one, and none has earlier
    calls up to any slot. A lost cas may need a value before it, so where there are some, a no is undecided.

    *A lost write that nobody saw* is left out: it is a change more, which only makes a difference if something
    expected its value. Where a cas, or a read without a revision, finds no place and such a write could have made
    one, this is undecided.

    *Reads without a revision* (of an absent key, mostly), and refused cas without: slot i is possible for one called
    at c and returning at r iff nothing later than i returned before c, and nothing earlier, nor the change of i, was
    called after r: both bounds grow with i, so that is a range. Two of them must not be in slots against their real
    time. In the order of calls each gets the first slot that its value, its range and those that returned before its
    call allow. By induction no solution has it in an earlier one, so it is right iff none leaves its range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from checkers.history import Operation
from checkers.models import Model, Register, RegisterCode
from checkers.problem import NEVER
from checkers.revision_models import RevisionRegister
from checkers.values import show

_SHOWN = 48


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a key.

    Attributes:
        order: for a yes, a linearization.
        clash: for a no, the operations that contradict each other, one or two of them.
        why: for a no, the contradiction in a sentence.
    """

    order: tuple[Operation, ...] = ()
    clash: tuple[Operation, ...] = ()
    why: str = ""

    @property
    def valid(self) -> bool:
        """Whether it is linearizable."""
        return not self.why


@dataclass(slots=True)
class _Slot:
    """A change and those that saw it."""

    revision: int
    value: Hashable
    writer: Operation | None = None
    reads: list[Operation] = field(default_factory=list)

    @property
    def fixed(self) -> list[Operation]:
        return self.reads if self.writer is None else [self.writer, *self.reads]


class _Clash(Exception):
    def __init__(self, why: str, *operations: Operation) -> None:
        super().__init__(why)
        self.found = Found(clash=operations, why=why)


class _UndecidedError(Exception):
    pass


def tells(operations: Sequence[Operation]) -> bool:
    """Whether any of the operations told its revision."""
    return any(operation.revision is not None for operation in operations)


def decide(operations: Sequence[Operation], model: Model) -> Found | None:
    """Whether the operations of one key are linearizable in the order of their revisions.

    Args:
        operations: all that count for the model.
        model: a `Register` or a `RevisionRegister`; for another the answer is None.

    Returns:
        None where this module cannot tell.
    """
    if not isinstance(model, Register | RevisionRegister) or not tells(operations):
        return None
    check = _Check(model)
    try:
        check.read(operations)
        check.make_slots()
        check.give_writers()
        check.look_at_values()
        check.look_at_times()
        return Found(order=check.place_loose())
    except _UndecidedError:
        return None
    except _Clash as clash:
        return clash.found if check.sure else None


def _ret(operation: Operation) -> int:
    return NEVER if operation.ret is None else operation.ret


def _call(operation: Operation) -> int:
    return operation.call


def _text(operation: Operation, code: RegisterCode) -> str:
    """For example ``write 3 [4..7] of process 2``."""
    values = " to ".join(show(value, _SHOWN) for value in code[1:])
    end = "" if operation.complete_index is None else operation.complete_index
    what = "cas refused, expecting" if code[0] == "differs" else operation.f
    return f"{what} {values} [{operation.invoke_index}..{end}] of process {operation.process}"


class _Check:
    """One run of `decide`, step by step; each raises `_Clash` or `_UndecidedError`."""

    def __init__(self, model: Register | RevisionRegister) -> None:
        self.model = model
        #: Whether a no is one: nothing was guessed.
        self.sure = True
        self.codes: dict[int, RegisterCode] = {}
        self.writers: dict[int, Operation] = {}
        self.reads: dict[int, list[Operation]] = {}
        self.loose: list[Operation] = []
        self.infos: dict[Hashable, list[Operation]] = {}
        self.given: dict[int, int] = {}  # revisions of lost writes
        self.spare: Counter[Hashable] = Counter()
        start = model.start
        self.slots = [_Slot(0, start)]

    def code(self, operation: Operation) -> RegisterCode:
        return self.codes[operation.invoke_index]

    def text(self, operation: Operation) -> str:
        return _text(operation, self.code(operation))

    def read(self, operations: Sequence[Operation]) -> None:
        """Sorts the operations into those that change, see and are loose."""
        model = self.model
        code_of = model.code if isinstance(model, RevisionRegister) else model.register_code
        for operation in operations:
            code = code_of(operation)
            if code is None:
                raise _UndecidedError
            self.codes[operation.invoke_index] = code
            revision, changes = operation.revision, code[0] in {"write", "cas"}
            if operation.ret is None:
                if changes:
                    self.infos.setdefault(code[-1], []).append(operation)
            elif revision is None:
                self._untold(operation, changes=changes)
            elif revision < changes:  # nothing is below that of the start, which is 0
                raise _UndecidedError
            elif not changes:
                self.reads.setdefault(revision, []).append(operation)
            else:
                other = self.writers.setdefault(revision, operation)
                if other is not operation:
                    why = f"{self.text(other)} and {self.text(operation)} both made revision {revision}"
                    raise _Clash(why, other, operation)
        self.spare.update({value: len(infos) for value, infos in self.infos.items()})

    def _untold(self, operation: Operation, *, changes: bool) -> None:
        if changes and operation.f != "delete":
            raise _UndecidedError
        if changes:
            self.sure = False  # it is taken for one that found nothing to delete
        self.loose.append(operation)

    def make_slots(self) -> None:
        """The start, and one for each revision that was made or seen."""
        first = self.slots[0]
        if first.value is not None and self.reads:
            self._find_start(first)
        for revision in sorted(self.writers.keys() | self.reads.keys()):
            reads = self.reads.get(revision, [])
            writer = self.writers.get(revision)
            if revision == first.revision and writer is None:
                first.reads = reads
                continue
            value = self.code(writer)[-1] if writer is not None else self._seen(reads)
            self.slots.append(_Slot(revision, value, writer, reads))

    def _find_start(self, first: _Slot) -> None:
        """A value at the start may have any revision: that of the earliest read which saw it."""
        lowest = min(self.reads)
        if lowest in self.writers or lowest > min(self.writers, default=NEVER):
            return
        if self._seen(self.reads[lowest]) == first.value:
            first.revision = lowest
            self.sure = first.value not in self.infos and self.sure

    def _seen(self, reads: Sequence[Operation]) -> Hashable:
        """The value of a revision of which no acknowledged change tells."""
        for read in reads:
            code = self.code(read)
            if code[0] == "read" and len(code) > 1 and code[1] is not None:
                return code[1]
        raise _UndecidedError

    def give_writers(self) -> None:
        """Lost writes for the revisions that nobody else made."""
        wanted: dict[Hashable, list[int]] = {}
        for at, slot in enumerate(self.slots):
            if at and slot.writer is None:
                wanted.setdefault(slot.value, []).append(at)
        for value, places in wanted.items():
            infos = sorted(self.infos.get(value, []), key=lambda operation: operation.call)
            if len(infos) < len(places):
                read = self.slots[places[len(infos)]].reads[0]
                times = "" if not infos else f" more than {len(infos)} times"
                why = (
                    f"{self.text(read)} saw revision {read.revision}, but nobody can have written that{times}"
                )
                raise _Clash(why, read)
            self.spare[value] = len(infos) - len(places)
            if any(self.code(info)[0] == "cas" for info in infos):
                self.sure = False
            for at in places:
                self._give(self.slots[at], self.slots[at - 1].value, infos)

    def _give(self, slot: _Slot, before: Hashable, infos: list[Operation]) -> None:
        """The first that fits; whether it was called in time is seen with all others' times."""
        fitting = (info for info in infos if self.code(info)[0] == "write" or self.code(info)[1] == before)
        slot.writer = next(fitting, None)
        if slot.writer is None:
            raise _UndecidedError
        infos.remove(slot.writer)
        self.given[slot.writer.invoke_index] = slot.revision

    def _first_returns(self) -> list[Operation | None]:
        """Of each slot and all later ones, the fixed operation that returns first."""
        firsts: list[Operation | None] = [None] * (len(self.slots) + 1)
        for at in range(len(self.slots) - 1, -1, -1):
            here = [*self.slots[at].fixed, *(one for one in [firsts[at + 1]] if one is not None)]
            firsts[at] = min(here, key=_ret, default=None)
        return firsts

    def look_at_values(self) -> None:
        """Whether all saw what was there."""
        for at, slot in enumerate(self.slots):
            for read in slot.reads:
                self._look(read, slot)
            code = ("write",) if slot.writer is None else self.code(slot.writer)
            if slot.writer is not None and code[0] == "cas" and code[1] != self.slots[at - 1].value:
                before = self.slots[at - 1]
                if self.spare[code[1]]:
                    raise _UndecidedError
                why = f"{self.text(slot.writer)} made revision {slot.revision}, but the value was "
                why += f"{show(before.value, _SHOWN)} then, since {self._made(before)}"
                raise _Clash(why, *(op for op in (before.writer, slot.writer) if op is not None))

    def _made(self, slot: _Slot) -> str:
        return (
            "the start" if slot.writer is None else f"{self.text(slot.writer)} made revision {slot.revision}"
        )

    def _look(self, read: Operation, slot: _Slot) -> None:
        code = self.code(read)
        if len(code) == 1 or (code[1] == slot.value) is (code[0] == "read"):
            return
        where = f"but the value at revision {slot.revision} was {show(slot.value, _SHOWN)}"
        others = [op for op in slot.fixed if op is not read and self.code(op)[-1] == slot.value][:1]
        seen = f": {self.text(others[0])}" if others else ""
        raise _Clash(f"{self.text(read)} saw revision {slot.revision}, {where}{seen}", *others, read)

    def look_at_times(self) -> None:
        """Whether none returned before one of an earlier slot was called, nor before the change it saw."""
        latest: Operation | None = None
        for slot in self.slots:
            for operation in slot.fixed:
                if latest is not None and _ret(operation) < latest.call:
                    raise self._backwards(operation, slot.revision, latest)
                if operation is slot.writer:
                    latest = operation if latest is None else max(latest, operation, key=_call)
            for read in slot.reads:
                latest = read if latest is None else max(latest, read, key=_call)

    def _backwards(self, operation: Operation, revision: int, later: Operation) -> _Clash:
        first = f"{self.text(operation)} had returned, with revision {revision}, before"
        told = self.given.get(later.invoke_index, later.revision)
        return _Clash(f"{first} {self.text(later)} was called, which has revision {told}", operation, later)

    def place_loose(self) -> tuple[Operation, ...]:
        """Puts those without a revision into slots; the order of all."""
        slots = self.slots
        places = _Places(slots)
        latest_calls: list[int] = []
        latest = -1
        for slot in slots:
            latest = max(latest, -1 if slot.writer is None else slot.writer.call)
            latest_calls.append(latest)
            latest = max([latest, *(read.call for read in slot.reads)])
        firsts = self._first_returns()[1:]
        returns = [NEVER if first is None else _ret(first) for first in firsts]
        put: list[list[Operation]] = [[] for _ in slots]
        returning: list[tuple[int, int, int]] = []
        floor = 0
        for operation in sorted(self.loose, key=lambda operation: operation.call):
            while returning and returning[0][0] < operation.call:
                floor = max(floor, heappop(returning)[2])
            start = max(floor, bisect_left(returns, operation.call))
            at = places.next(self.code(operation), start)
            if at is None or latest_calls[at] > _ret(operation):
                raise self._no_place(operation, start, at)
            heappush(returning, (_ret(operation), operation.invoke_index, at))
            put[at].append(operation)
        order: list[Operation] = []
        for slot, more in zip(slots, put, strict=True):
            order += [] if slot.writer is None else [slot.writer]
            order += sorted([*slot.reads, *more], key=lambda operation: operation.call)
        return tuple(order)

    def _no_place(self, operation: Operation, start: int, at: int | None) -> Exception:
        if self.spare.total():
            return _UndecidedError()
        after = self.slots[start]
        why = f"{self.text(operation)} comes at revision {after.revision} or later, since others saw that before"
        if at is None:
            return _Clash(f"{why}; from there on it is impossible", *after.fixed[:1], operation)
        upcoming = self.slots[at]
        why += (
            f"; it would be possible at revision {upcoming.revision} only, which was made after it returned"
        )
        return _Clash(why, operation, *upcoming.fixed[:1])


class _Places:
    """Where a read without a revision is possible, by the values of the slots alone."""

    def __init__(self, slots: Sequence[_Slot]) -> None:
        self._count = len(slots)
        self._by_value: dict[Hashable, list[int]] = {}
        for at, slot in enumerate(slots):
            self._by_value.setdefault(slot.value, []).append(at)
        #: For each slot the next one with another value.
        self._other = [len(slots)] * len(slots)
        for at in range(len(slots) - 2, -1, -1):
            same = slots[at].value == slots[at + 1].value
            self._other[at] = self._other[at + 1] if same else at + 1
        self._values = [slot.value for slot in slots]

    def next(self, code: RegisterCode, start: int) -> int | None:
        """The first possible slot from ``start`` on."""
        if start >= self._count or len(code) == 1:
            return start if start < self._count else None
        if code[0] == "differs":
            at = self._other[start] if self._values[start] == code[1] else start
            return at if at < self._count else None
        there = self._by_value.get(code[1], [])
        at = bisect_left(there, start)
        return there[at] if at < len(there) else None
