"""One object's operations as small integers: what the searches work on.

Rules of this module
    1. A *kind* is a transition: operations with equal f, argument, result and status have one kind.
       States and kinds are interned, and ``step`` of the model is asked once for each pair of them.
    2. What is left out here is left out soundly: `compile_problem` never changes the verdict.

Theory of operation
    *Pure info operations are dropped.* A read that was never answered has no effect and says nothing.

    *Registers: values that nobody asks for are one value.* Call a value asked for if an ok read returned
    it, a compare-and-set expects it, or it is the initial one. No operation can tell two other values
    apart, so all of them become one (`_OTHER`). The states shrink, and operations become equal.

    *Registers without refused cas: unobserved info operations are dropped.* Call a value observed if an ok
    read returned it, an ok cas expects it, or an info cas that expects it writes an observed value. Take a
    linearization and delete from it every info write and info cas whose new value is not observed: until
    the next overwrite nobody read that value nor took a cas from it, except deleted ones, so every
    remaining answer stays what it was. Hence they are never needed. (A refused cas says "the value
    differs from x", which an unobserved write may well bring about: then they must stay.)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from checkers.effects import Effect, Inconsistent
from checkers.history import Operation
from checkers.models import (
    Model,
    RegisterCode,
    by_key,
    effect_of,
    reaches_of,
    register_code,
    uses_revisions,
)

PURE, OVERWRITE, GENERAL = 0, 1, 2
_EFFECTS = {
    Effect.PURE: PURE,
    Effect.OVERWRITE: OVERWRITE,
    Effect.BLIND: GENERAL,
    Effect.GENERAL: GENERAL,
}

#: `Problem.ret` of an operation that never returns.
NEVER = 1 << 62

ILLEGAL = -1

_OTHER = ("a value that nobody asks for",)


class Problem:
    """Operations of one object in the order of their calls.

    Attributes:
        operations: those that matter; the rest of the attributes are parallel to it.
        call: order numbers of the invocations.
        ret: order numbers of the completions, `NEVER` for info operations.
        kind: the kind of each.
        effect: PURE, OVERWRITE or GENERAL, by kind.
        initial: number of the initial state.
    """

    def __init__(
        self,
        operations: Sequence[Operation],
        keys: Sequence[Hashable],
        effects: Sequence[int],
        initial: Hashable,
        step: Callable[[Any, int], Any],
    ) -> None:
        self.operations = operations
        self.call = [operation.call for operation in operations]
        self.ret = [NEVER if operation.ret is None else operation.ret for operation in operations]
        kinds: dict[Hashable, int] = {}
        self.kind = [kinds.setdefault(key, len(kinds)) for key in keys]
        self.sample = [0] * len(kinds)
        self.effect = [GENERAL] * len(kinds)
        for place in range(len(operations) - 1, -1, -1):
            self.sample[self.kind[place]] = place
            self.effect[self.kind[place]] = effects[place]
        self.states: list[Hashable] = [initial]
        self._numbers: dict[Hashable, int] = {initial: 0}
        self._step = step
        #: What each kind does to a register; None where the object is none.
        self.forms: list[RegisterCode] | None = None
        #: Of an object that only grows, whether a state can be grown into one that an operation fits; else None.
        #: Then all operations that are GENERAL here are blind (`checkers.effects`).
        self.grows: Callable[[Any, int], bool] | None = None
        self.memo: list[dict[int, int]] = [{} for _ in kinds]
        self._reached: list[dict[int, bool]] = [{} for _ in kinds]
        self.initial = 0

    def next(self, kind: int, state: int) -> int:
        """The state after an operation of that kind, or `ILLEGAL`."""
        known = self.memo[kind].get(state)
        if known is not None:
            return known
        after = self._step(self.states[state], self.sample[kind])
        number = ILLEGAL if isinstance(after, Inconsistent) else self.number(after)
        self.memo[kind][state] = number
        return number

    @property
    def unseen(self) -> tuple[int, ...]:
        """Effects of what nobody sees if it goes in just before an overwrite."""
        return (OVERWRITE,) if self.grows is None else (OVERWRITE, GENERAL)

    def reaches(self, kind: int, state: int) -> bool:
        """False where no operation but an overwrite leads from the state to one that the kind fits."""
        assert self.grows is not None, "asked of objects that only grow"
        known = self._reached[kind].get(state)
        if known is None:
            known = self._reached[kind][state] = self.grows(self.states[state], self.sample[kind])
        return known

    def number(self, state: Hashable) -> int:
        """The number of a state, a new one where it is new."""
        number = self._numbers.setdefault(state, len(self.states))
        if number == len(self.states):
            self.states.append(state)
        return number


def compile_problem(operations: Sequence[Operation], model: Model) -> Problem:
    """The problem whether the operations (of one object, in the order of calls) are linearizable."""
    kept, effects = _without_pure_infos(operations, model)
    codes = [register_code(model, operation) for operation in kept]
    if kept and None not in codes:
        return _compile_register(kept, codes, effects, model)  # type: ignore[arg-type]
    problem = _compile_any(kept, effects, model)
    reaches = reaches_of(model)
    if reaches is not None and all(effect_of(model, operation) is not Effect.GENERAL for operation in kept):
        problem.grows = lambda state, at: reaches(state, kept[at])
    return problem


def compile_exact(operations: Sequence[Operation], model: Model) -> Problem:
    """The same without the reductions for registers: its states are those of the model, and `grows` is None."""
    return _compile_any(*_without_pure_infos(operations, model), model)


def _without_pure_infos(operations: Sequence[Operation], model: Model) -> tuple[list[Operation], list[int]]:
    pairs = [(operation, _EFFECTS[effect_of(model, operation)]) for operation in operations]
    kept = [pair for pair in pairs if pair[0].status != "info" or pair[1] != PURE]
    return [operation for operation, _ in kept], [effect for _, effect in kept]


def _compile_any(kept: Sequence[Operation], effects: Sequence[int], model: Model) -> Problem:
    told = uses_revisions(model)
    apart = by_key(model)
    keys = [
        (o.f, o.argument, o.result, o.status, o.revision if told else None, None if apart else o.key)
        for o in kept
    ]
    return Problem(kept, keys, effects, model.initial(), lambda state, at: model.step(state, kept[at]))


def _compile_register(
    operations: Sequence[Operation], codes: Sequence[RegisterCode], effects: Sequence[int], model: Model
) -> Problem:
    needed = _needed(codes, [operation.status == "info" for operation in operations])
    places = [place for place, need in enumerate(needed) if need]
    asked = {model.initial()}
    asked.update(codes[place][1] for place in places if codes[place][0] != "write" and len(codes[place]) > 1)
    merged = [_merge_unasked(codes[place], asked) for place in places]
    problem = Problem(
        [operations[place] for place in places],
        merged,
        [effects[place] for place in places],
        model.initial(),
        lambda state, at: _register_step(state, merged[at]),
    )
    problem.forms = [merged[at] for at in problem.sample]
    return problem


def _needed(codes: Sequence[RegisterCode], infos: Sequence[bool]) -> list[bool]:
    """Which operations must stay; see the theory of operation."""
    if any(code[0] == "differs" for code in codes):
        return [True] * len(codes)
    observed: set[Hashable] = set()
    sources: dict[Hashable, list[Hashable]] = {}
    for code, info in zip(codes, infos, strict=True):
        if code[0] == "cas" and info:
            sources.setdefault(code[2], []).append(code[1])
        elif code[0] != "write" and len(code) > 1:
            observed.add(code[1])
    todo = [old for new in sources if new in observed for old in sources[new]]
    while todo:
        value = todo.pop()
        if value not in observed:
            observed.add(value)
            todo.extend(sources.get(value, ()))
    return [not info or code[-1] in observed for code, info in zip(codes, infos, strict=True)]


def _merge_unasked(code: RegisterCode, asked: set[Hashable]) -> RegisterCode:
    if code[0] == "write" and code[1] not in asked:
        return ("write", _OTHER)
    if code[0] == "cas" and code[2] not in asked:
        return ("cas", code[1], _OTHER)
    return code


def _register_step(state: Hashable, code: RegisterCode) -> Hashable:
    kind = code[0]
    if kind == "write":
        return code[1]
    if kind == "cas":
        return code[2] if state == code[1] else _NO
    if kind == "differs":
        return state if state != code[1] else _NO
    return state if len(code) == 1 or state == code[1] else _NO


_NO = Inconsistent("see the model")
