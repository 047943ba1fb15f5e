"""A user's own model, with an eye on what is easily wrong in one.

Rules of this module
    1. A mistake in a model is never a pass: it raises `ModelError`, whose message names the model, the operation, the
       state and the remedy. What may be meant so is a remark.
    2. The models of this package are not wrapped: their tests are their proof.
    3. A step is asked twice the same, since a step that is not pure makes any verdict worthless.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from checkers.effects import Effect, Inconsistent, State
from checkers.history import Operation
from checkers.models import Model
from checkers.values import show

_SHOWN = 60
_NEEDED = ("name", "initial", "step")


class ModelError(Exception):
    """A mistake in a user's model; the message is a sentence for its author."""


def vetted(model: Any) -> Model:
    """The model, wrapped in `OwnModel` where it is a user's.

    Raises:
        TypeError: it is none.
    """
    if isinstance(model, type):
        name = model.__name__
        raise TypeError(f"{name} is a class: give an object of it, {name}()")
    missing = next((needed for needed in _NEEDED if not hasattr(model, needed)), None)
    if missing is not None:
        raise TypeError(
            f"{_text(model)} is no model: it has no {missing}; a model is a name from `checkers.MODELS`, or an object "
            "with name, initial() and step(state, operation), see docs/models.md"
        )
    ours = type(model).__module__.partition(".")[0] == __name__.partition(".")[0]
    return model if ours else OwnModel(model)


class _At:
    """Where a step was asked; put into words only where there is something to say."""

    __slots__ = ("operation", "state")

    def __init__(self, state: State, operation: Operation) -> None:
        self.state = state
        self.operation = operation

    def __str__(self) -> str:
        asked = self.operation
        argument = "" if asked.argument is None else f" {show(asked.argument, _SHOWN)}"
        return f"at {asked.f}{argument} (index {asked.invoke_index}) in the state {_text(self.state)}"


class OwnModel:
    """A user's model that looks at what its steps answer.

    Attributes:
        remarks: what may be meant so, but often is not.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.name = str(model.name)
        self.remarks: dict[str, str] = {}
        self._written: dict[Any, State] = {}
        self._first: list[State] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._model, name)
        return self._saying_effects(found) if name == "effect" else found

    def initial(self) -> State:
        """The state before the first operation."""
        try:
            state = self._model.initial()
        except (Exception, SystemExit) as error:
            raise ModelError(f"initial() of the model {self.name} failed with {_words(error)}") from error
        self._look_at(state, None)
        self._first = [state]
        return state

    def step(self, state: Any, operation: Operation, /) -> State | Inconsistent:
        """The model's answer.

        Raises:
            ModelError: it is none, or another one when asked again.
        """
        at = _At(state, operation)
        before = hash(state)
        try:
            after, again = self._model.step(state, operation), self._model.step(state, operation)
        except (Exception, SystemExit) as error:
            raise ModelError(f"step of the model {self.name} failed {at} with {_words(error)}") from error
        if isinstance(after, Inconsistent) and isinstance(again, Inconsistent):
            if self._says(operation) is Effect.OVERWRITE:
                raise ModelError(
                    f"effect of the model {self.name} says OVERWRITE, which is possible in every state, but step is "
                    f"not {at}: say GENERAL"
                )
            return after
        self._look_at(after, at)
        if hash(state) != before:
            raise ModelError(
                f"step of the model {self.name} changed the state {at}: return a new one instead"
            )
        if after != again:
            raise ModelError(
                f"step of the model {self.name} is not pure: {at} it answered {_text(after)}, then {_text(again)}; it "
                "must answer the same to the same"
            )
        self._look_at_kind(after, at)
        self._look_at_effect(operation, state, after, at)
        return after

    def _saying_effects(self, say: Callable[[Operation], Effect]) -> Callable[[Operation], Effect]:
        def effect(operation: Operation) -> Effect:
            said: object = say(operation)
            if isinstance(said, Effect):
                return said
            raise ModelError(
                f"effect of the model {self.name} says {_text(said)} of {operation.f} "
                f"(index {operation.invoke_index}): say one of checkers.effects.Effect, GENERAL where you are not sure"
            )

        return effect

    def _says(self, operation: Operation) -> Effect | None:
        say = getattr(self, "effect", None)
        return None if say is None else say(operation)

    def _look_at_effect(self, operation: Operation, state: State, after: State, at: _At) -> None:
        """Whether the step did what the model says of it; the searches rest on that."""
        says = self._says(operation)
        kind = (operation.f, operation.key, operation.argument, operation.result, operation.revision)
        if says is Effect.PURE and after != state:
            wrong = f"PURE, which changes no state, but step made it {_text(after)}"
        elif says is Effect.OVERWRITE and self._written.setdefault(kind, after) != after:
            wrong = f"OVERWRITE, whose new state is always the same, but step made it {_text(self._written[kind])} and "
            wrong += _text(after)
        else:
            return
        raise ModelError(f"effect of the model {self.name} says {wrong} {at}: say GENERAL")

    def _look_at(self, state: State, at: _At | None) -> None:
        """Whether it is a value that can be remembered."""
        try:
            hash(state)
        except TypeError:
            kind = type(state).__name__
            where = "initial()" if at is None else f"step {at}"
            raise ModelError(
                f"{where} of the model {self.name} returned the state {_text(state)}, which is not hashable: "
                f"instead of a {kind} use a tuple, a frozenset or a frozen dataclass"
            ) from None
        by_identity = type(state).__eq__ is object.__eq__ and not isinstance(state, enum.Enum | type)
        if by_identity and getattr(state, "__dict__", None):
            kind = type(state).__name__
            raise ModelError(
                f"states of the model {self.name} are of the class {kind}, which compare by identity, so that equal "
                f"states differ: make {kind} a frozen dataclass"
            )

    def _look_at_kind(self, after: State, at: _At) -> None:
        """Whether it looks like a state at all."""
        advice = "step returns the next state, or Inconsistent(reason)"
        if after is Inconsistent:
            raise ModelError(
                f"step of the model {self.name} returned the class Inconsistent {at}: call it with a reason"
            )
        first = self._first[0] if self._first else self.initial()
        pair = isinstance(after, tuple) and len(after) == 2 and isinstance(after[0], bool)
        if (isinstance(after, bool) and not isinstance(first, bool)) or (
            pair and not isinstance(first, tuple)
        ):
            raise ModelError(f"step of the model {self.name} returned {_text(after)} {at}: {advice}")
        if after is None and first is not None:
            self.remarks.setdefault(
                "none",
                f"step of the model {self.name} returned None {at}, which was taken for a state; {advice}",
            )


def remarks_of(model: Model) -> tuple[str, ...]:
    """What is to be said about the model beside the verdict."""
    return tuple(model.remarks.values()) if isinstance(model, OwnModel) else ()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _text(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
