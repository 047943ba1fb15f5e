"""Models of counters, sets, queues, stacks, locks and lists.

Rules of this module
    1. Each object is a table row: its operations, their effects, and a step of a few lines. `Machine` makes
       the model of it; there is one object per key.
    2. A step sees the state, the argument, the result, and whether the result is known: of an ``info``
       operation it is not, and the step says what happens if it takes effect.
    3. An ``ok`` dequeue or pop of null found nothing there.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from checkers.effects import Effect, Inconsistent, State
from checkers.history import Operation
from checkers.values import freeze, show, show_apart

_SHOWN = 60

Step = Callable[[Any, Any, Any, bool], State | Inconsistent]


@dataclass(frozen=True, slots=True)
class Machine:
    """A model from a table of steps.

    Attributes:
        name: of the model.
        start: the state before the first operation.
        steps: by ``f``, the effect and ``(state, argument, result, known) -> state | Inconsistent``.
        numeric: whether arguments must be numbers, but where `optional` says that there may be none.
        optional: the operations that may be asked without an argument.
    """

    name: str
    start: State
    steps: Mapping[str, tuple[Effect, Step]]
    numeric: bool = False
    by_key: bool = True
    optional: frozenset[str] = frozenset()

    def initial(self) -> State:
        """The state before the first operation."""
        return self.start

    def effect(self, operation: Operation) -> Effect:
        """See `Effect`."""
        return self.steps[operation.f][0] if operation.f in self.steps else Effect.GENERAL

    def misfit(self, operation: Operation) -> str | None:
        """See `checkers.models.misfit`."""
        if operation.f not in self.steps:
            return f"the model {self.name} knows {', '.join(self.steps)} only, not {operation.f!r}"
        asked = operation.argument
        if (
            self.numeric
            and self.effect(operation) is Effect.GENERAL
            and not isinstance(asked, int | float)
            and not (asked is None and operation.f in self.optional)
        ):
            return f"{operation.f} needs a number, not {show(asked)}"
        return None

    def step(self, state: State, operation: Operation, /) -> State | Inconsistent:
        """See `checkers.models.Model.step`."""
        known = operation.status != "info"
        return self.steps[operation.f][1](state, operation.argument, operation.result, known)


def _saw(result: Hashable, there: Hashable) -> Inconsistent:
    got, held = show_apart(result, there, _SHOWN)
    return Inconsistent(f"got {got} while there was {held}")


@dataclass(frozen=True, slots=True)
class GrowingList(Machine):
    """A list that only grows."""

    def reaches(self, state: Any, operation: Operation) -> bool:
        """See rule 3 of `checkers.models`."""
        seen = operation.result
        return operation.f != "read" or (isinstance(seen, tuple) and seen[: len(state)] == state)


def _read(state: Any, _argument: Any, result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return state if result == state else _saw(result, state)


def _add_number(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return state + (1 if argument is None else argument)  # type: ignore[no-any-return]


def _take_number(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return state - (1 if argument is None else argument)  # type: ignore[no-any-return]


def _add_element(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return state | {argument}  # type: ignore[no-any-return]


def _remove_element(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return state - {argument}  # type: ignore[no-any-return]


def _read_set(state: Any, _argument: Any, result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    elements = () if result is None else result
    if isinstance(elements, tuple) and len(elements) == len(state) and state.issuperset(elements):
        return state  # type: ignore[no-any-return]
    return _saw(result, tuple(sorted(state, key=show)))


def _at_end(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return (*state, argument)


def _taking(choose: Callable[[Any], int]) -> Step:
    """A step that takes the chosen one of the elements away."""

    def take(state: Any, _argument: Any, result: Any, known: bool) -> State | Inconsistent:  # noqa: FBT001
        if not state:
            return state if not known or result is None else _saw(result, None)
        place = choose(state)
        if known and result != state[place]:
            return _saw(result, state[place])
        return state[:place] + state[place + 1 :]  # type: ignore[no-any-return]

    return take


def _to_bags(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return frozenset(tuple(sorted((*bag, argument), key=show)) for bag in state)


def _from_bags(state: Any, _argument: Any, result: Any, known: bool) -> State | Inconsistent:  # noqa: FBT001
    """What is in the bag may be uncertain, since a lost dequeue took one of its elements."""
    after = set()
    for bag in state:
        if not bag and (not known or result is None):
            after.add(bag)
        for place, element in enumerate(bag):
            if not known or element == result:
                after.add(bag[:place] + bag[place + 1 :])
    if after:
        return frozenset(after)
    return _saw(result, min(state, key=show))


def _acquire(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    wanted = 1 if argument is None else argument
    if state < wanted:
        return Inconsistent(f"acquired {wanted} while {state} were free")
    return state - wanted  # type: ignore[no-any-return]


def _lock(state: Any, _argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return Inconsistent("acquired the lock while it was held") if state else True


def _unlock(state: Any, _argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
    return False if state else Inconsistent("released the lock while it was free")


#: `_LEASE_LOST` in the place of a lease's token: somebody may hold it under a token that he never learned.
_LEASE_FREE, _LEASE_LOST = 0, -1


def _lease(state: Any, _argument: Any, result: Any, known: bool) -> State | Inconsistent:  # noqa: FBT001
    """It may have run out at any time, so it can always be granted; but tokens grow."""
    highest = state[0]
    if not known:
        return (highest, _LEASE_LOST)
    if isinstance(result, int) and result > highest:
        return (result, result)
    return Inconsistent(f"granted the token {show(result, _SHOWN)} after {highest}")


def _holding_lease(*, after: bool) -> Step:
    """Renewing (``after``: it is held still) or releasing, with the token that was granted last."""

    def step(state: Any, argument: Any, _result: Any, _known: bool) -> State | Inconsistent:  # noqa: FBT001
        highest, token = state
        if not isinstance(argument, int) or (
            token != argument and not (token == _LEASE_LOST and argument > highest)
        ):
            holder = {_LEASE_FREE: "nobody held it", _LEASE_LOST: "it was held with a newer one"}
            there = holder.get(token, f"it was held with {token}")
            return Inconsistent(f"accepted the token {show(argument, _SHOWN)} while {there}")
        return (max(highest, argument), argument if after else _LEASE_FREE)

    return step


_first: Callable[[Any], int] = lambda _state: 0  # noqa: E731
_last: Callable[[Any], int] = lambda state: len(state) - 1  # noqa: E731
_smallest: Callable[[Any], int] = lambda state: min(range(len(state)), key=state.__getitem__)  # noqa: E731

_GENERAL, _PURE = Effect.GENERAL, Effect.PURE
_COUNTER = {"read": (_PURE, _read), "add": (_GENERAL, _add_number), "subtract": (_GENERAL, _take_number)}
_SET = {"read": (_PURE, _read_set), "add": (_GENERAL, _add_element), "remove": (_GENERAL, _remove_element)}
_LIST = {"read": (_PURE, _read), "append": (Effect.BLIND, _at_end)}
_STACK = {"push": (_GENERAL, _at_end), "pop": (_GENERAL, _taking(_last))}
_BAG = {"enqueue": (_GENERAL, _to_bags), "dequeue": (_GENERAL, _from_bags)}
_MUTEX = {"acquire": (_GENERAL, _lock), "release": (_GENERAL, _unlock)}
_LEASE = {
    "acquire": (_GENERAL, _lease),
    "renew": (_GENERAL, _holding_lease(after=True)),
    "release": (_GENERAL, _holding_lease(after=False)),
}
_SEMAPHORE = {"acquire": (_GENERAL, _acquire), "release": (_GENERAL, _add_number)}


def _queue(choose: Callable[[Any], int]) -> Mapping[str, tuple[Effect, Step]]:
    return {"enqueue": (_GENERAL, _at_end), "dequeue": (_GENERAL, _taking(choose))}


def _number(name: str, initial: Any, default: int) -> int | float:
    value = default if initial is None else initial
    if isinstance(value, bool) or not isinstance(value, int | float):
        # A ValueError like all other faults of what the user gives.
        raise ValueError(f"initial value {show(freeze(value))} of {name} is not a number")  # noqa: TRY004
    return value


def _elements(name: str, initial: Any) -> tuple[Hashable, ...]:
    if initial is not None and not isinstance(initial, list | tuple):
        raise ValueError(f"initial value {show(freeze(initial))} of {name} is not a list: give its elements")
    return tuple(map(freeze, initial or ()))


def _holding(
    name: str,
    steps: Mapping[str, tuple[Effect, Step]],
    as_state: Callable[[Any], State] = tuple,
    *,
    numeric: bool = False,
    optional: frozenset[str] = frozenset(),
) -> Callable[[Any], Machine]:
    def made(initial: Any) -> Machine:
        elements = _elements(name, initial)
        odd = [element for element in elements if numeric and not isinstance(element, int | float)]
        if odd:
            raise ValueError(
                f"initial value {show(elements, _SHOWN)} of {name} has {show(odd[0])}: give numbers"
            )
        return Machine(name, as_state(elements), steps, numeric, optional=optional)

    return made


#: Models by name, from an initial value (None: empty, 0, or one permit).
OBJECTS: dict[str, Callable[[Any], Machine]] = {
    "append-list": lambda initial: GrowingList("append-list", _elements("append-list", initial), _LIST),
    "counter": lambda initial: Machine(
        "counter", _number("counter", initial, 0), _COUNTER, numeric=True, optional=frozenset(_COUNTER)
    ),
    "fifo-queue": _holding("fifo-queue", _queue(_first)),
    "lease": lambda initial: Machine(
        "lease",
        (_number("lease", initial, 0), _LEASE_FREE),
        _LEASE,
        numeric=True,
        optional=frozenset({"acquire"}),
    ),
    "mutex": lambda initial: Machine("mutex", bool(initial), _MUTEX),
    "priority-queue": _holding(
        "priority-queue", _queue(_smallest), numeric=True, optional=frozenset({"dequeue"})
    ),
    "semaphore": lambda initial: Machine(
        "semaphore",
        _number("semaphore", initial, 1),
        _SEMAPHORE,
        numeric=True,
        optional=frozenset(_SEMAPHORE),
    ),
    "set": _holding("set", _SET, frozenset),
    "stack": _holding("stack", _STACK),
    "unordered-queue": _holding("unordered-queue", _BAG, lambda elements: frozenset({elements})),
}
