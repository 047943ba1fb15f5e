"""Models: what a correct object answers when operations are applied to it one at a time.

Rules of this module
    1. A model is a value with a ``name``, an ``initial()`` state and a pure ``step``. States are hashable
       and never changed in place. `Inconsistent` is the answer to an operation that a correct object in
       that state would not have completed so; its reason is a clause that completes "... but".
    2. `step` sees an `Operation` in canonical form (`checkers.values`): ``argument`` is what was asked,
       ``result`` what was answered. For ``info`` operations the result is unknown (None): `step` tells
       what the operation does *if* it takes effect.
    3. What a model says about itself beyond that only makes checking faster, or more exact:
       ``by_key`` (each key is an object of its own, checked apart), ``uses_mismatch`` (a refused
       compare-and-set says that the value differed), ``uses_revisions``
       (`Operation.revision` counts), ``effect`` (see `Effect`), ``register_code``
       (the object is a register, see `RegisterCode`). Leave out what you are not sure of.

A user's own model is a class of ten lines:

>>> class MaxRegister:
...     name = "max-register"
...     by_key = True
...     def initial(self):
...         return 0
...     def step(self, state, operation):
...         if operation.f == "write":
...             return max(state, operation.argument)
...         if operation.result == state:
...             return state
...         return Inconsistent(f"the maximum is {state}")
>>> isinstance(MaxRegister(), Model)
True
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from checkers.effects import Effect, Inconsistent, State
from checkers.history import History, HistoryError, Operation, nobody_asked
from checkers.objects import OBJECTS
from checkers.revision_models import REVISION_MODELS
from checkers.values import Map, freeze, show, show_apart


@runtime_checkable
class Model(Protocol):
    """See rule 1 of the module. Optional attributes are read by the functions below."""

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    def initial(self) -> State:
        """The state before the first operation; hashable."""
        ...

    def step(self, state: Any, operation: Operation, /) -> State | Inconsistent:
        """The state after the operation, or why it is impossible in that state."""
        ...


#: What a register operation is, for the algorithms that know registers: ``("read", value)``,
#: ``("write", value)``, ``("cas", old, new)`` for one that took effect, ``("differs", value)`` for a
#: compare-and-set refused because the value was another one.
RegisterCode = tuple[Hashable, ...]


def by_key(model: Model) -> bool:
    """Whether each key is an object of its own (P-compositionality); False unless the model says so."""
    return bool(getattr(model, "by_key", False))


def uses_mismatch(model: Model) -> bool:
    """Whether ``step`` understands operations with the status ``mismatch``; False unless it says so."""
    return bool(getattr(model, "uses_mismatch", False))


def uses_revisions(model: Model) -> bool:
    """Whether ``step`` looks at the revisions that were told; False unless it says so."""
    return bool(getattr(model, "uses_revisions", False))


def effect_of(model: Model, operation: Operation) -> Effect:
    """The model's word on the operation's effect; GENERAL, which is always sound, where it is silent."""
    if operation.status == "mismatch" and not uses_revisions(model):
        return Effect.PURE
    say: Callable[[Operation], Effect] | None = getattr(model, "effect", None)
    return say(operation) if say is not None else Effect.GENERAL


def register_code(model: Model, operation: Operation) -> RegisterCode | None:
    """The operation as one of a register, or None where the model is no register."""
    say: Callable[[Operation], RegisterCode | None] | None = getattr(model, "register_code", None)
    return say(operation) if say is not None else None


def reaches_of(model: Model) -> Callable[[State, Operation], bool] | None:
    """What the model says of states that can be grown into one that an operation fits; None where it is silent."""
    return getattr(model, "reaches", None)


def misfit(model: Model, operation: Operation) -> str | None:
    """Why the model cannot speak of that operation at all, as a clause; None where it can."""
    say: Callable[[Operation], str | None] | None = getattr(model, "misfit", None)
    return say(operation) if say is not None else None


def _unknown_f(model: str, operation: Operation, known: str) -> str:
    return f"the model {model} knows {known} only, not {operation.f!r}"


_MISFIT = Inconsistent("is not an operation of this model")


_READS = frozenset({"read", "get"})
_WRITES = frozenset({"write", "put"})


@dataclass(frozen=True, slots=True)
class Register:
    """A register per key: read, write and, where ``cas`` is True, compare-and-set.

    The four variants differ in two questions. *What does an ok read of nil say?* Nothing at all
    (``strict_nil`` False: the convention of Knossos), or that the key is absent (True: etcd). *What does a
    refused cas say?* Nothing (``uses_mismatch`` False), or that the value differed (True).

    Attributes:
        name: name of the model.
        start: initial value of every key, in canonical form.
        cas: whether ``cas`` is understood; its argument is the pair ``[old, new]``.
        strict_nil: whether an ok read of nil means that the value is nil.
        uses_mismatch: whether a refused cas constrains.
        delete: whether ``delete`` is understood: it makes the key absent (nil).
    """

    name: str
    start: Hashable = None
    cas: bool = False
    strict_nil: bool = False
    uses_mismatch: bool = False
    delete: bool = False

    @property
    def by_key(self) -> bool:
        """Each key is an object of its own."""
        return True

    def initial(self) -> State:
        """The state before the first operation."""
        return self.start

    def effect(self, operation: Operation) -> Effect:
        """See `Effect`."""
        if operation.f in _READS:
            return Effect.PURE
        if operation.f in _WRITES or (self.delete and operation.f == "delete"):
            return Effect.OVERWRITE
        return Effect.GENERAL

    def register_code(self, operation: Operation) -> RegisterCode | None:
        """The operation in the words of `RegisterCode`; ``("read",)`` is a read that says nothing."""
        f, argument = operation.f, operation.argument
        if f in _READS:
            silent = operation.result is None and not self.strict_nil
            return ("read",) if silent else ("read", operation.result)
        if f in _WRITES:
            return ("write", argument)
        if f == "cas" and self.cas and isinstance(argument, tuple) and len(argument) == 2:
            return ("differs", argument[0]) if operation.status == "mismatch" else ("cas", *argument)
        if f == "delete" and self.delete:
            return ("write", None)
        return None

    def step(self, state: State, operation: Operation, /) -> State | Inconsistent:
        """See `Model.step`."""
        code = self.register_code(operation)
        if code is None:
            return _MISFIT
        return _REGISTER_STEPS[str(code[0])](state, code)

    def misfit(self, operation: Operation) -> str | None:
        """See the function `misfit`."""
        if self.register_code(operation) is not None:
            return None
        if operation.f == "cas" and self.cas:
            return f"cas needs the pair [old, new], not {show(operation.argument)}"
        known = ["read", "write", *(["cas"] if self.cas else []), *(["delete"] if self.delete else [])]
        return _unknown_f(self.name, operation, ", ".join(known))


def _step_read(state: State, code: RegisterCode) -> State | Inconsistent:
    if len(code) == 1 or state == code[1]:
        return state
    return Inconsistent(_holds(state, f"read {show(code[1])}"))


def _step_write(_state: State, code: RegisterCode) -> State | Inconsistent:
    return code[1]


def _step_cas(state: State, code: RegisterCode) -> State | Inconsistent:
    return code[2] if state == code[1] else Inconsistent(_holds(state, f"expected {show(code[1])}"))


def _step_differs(state: State, code: RegisterCode) -> State | Inconsistent:
    if state != code[1]:
        return state
    return Inconsistent(f"was refused though the value was {show(state)} as expected")


_REGISTER_STEPS: dict[str, Callable[[State, RegisterCode], State | Inconsistent]] = {
    "read": _step_read,
    "write": _step_write,
    "cas": _step_cas,
    "differs": _step_differs,
}


def _holds(state: State, saw: str) -> str:
    return f"{saw} while the value was {show(state)}"


@dataclass(frozen=True, slots=True)
class StringKv:
    """A map of strings: ``get``, ``put`` and ``append`` per key; an absent key is the empty string."""

    start: str = ""
    name: str = "string-kv"
    by_key: bool = True

    def initial(self) -> State:
        """The state before the first operation."""
        return self.start

    def effect(self, operation: Operation) -> Effect:
        """See `Effect`."""
        if operation.f in _READS:
            return Effect.PURE
        return Effect.OVERWRITE if operation.f in _WRITES else Effect.BLIND

    def step(self, state: str, operation: Operation, /) -> State | Inconsistent:
        """See `Model.step`."""
        f, argument = operation.f, operation.argument
        if f in _READS:
            result = "" if operation.result is None else operation.result
            if result == state:
                return state
            got, held = show_apart(result, state)
            return Inconsistent(f"got {got} while the value was {held}")
        if not isinstance(argument, str):
            return _MISFIT
        return argument if f in _WRITES else state + argument

    def reaches(self, state: str, operation: Operation) -> bool:
        """A string grows at its end until something is put in its place."""
        if operation.f not in _READS:
            return True
        result = "" if operation.result is None else operation.result
        return isinstance(result, str) and result.startswith(state)

    def misfit(self, operation: Operation) -> str | None:
        """See the function `misfit`."""
        if operation.f in _READS:
            return None
        if operation.f not in _WRITES and operation.f != "append":
            return _unknown_f(self.name, operation, "get, put, append")
        if isinstance(operation.argument, str):
            return None
        return f"{operation.f} needs a string, not {show(operation.argument)}"


_NO_VALUES = Map()


#: The initial value of a key of which nobody said what it is.
ANYTHING = ("anything",)


@dataclass(frozen=True, slots=True)
class MultiRegister:
    """Registers read and written in transactions: ``[["read", key, value], ["write", key, value], ...]``.

    A read of nil says nothing, unless `strict_nil`. The keys are one object: a transaction may touch several of them.
    Where operations have a key as well, that of a group, each group is an object of its own. Where no initial value is
    given, nobody knows what a key held at first, and the first read of it settles that.

    Attributes:
        start: initial values by key; ``default`` for a key that is not in it.
        default: see ``start``; `ANYTHING` where it is not known.
        strict_nil: an ok read of nil found nil.
    """

    start: Map = _NO_VALUES
    default: Hashable = None
    name: str = "multi-register"
    strict_nil: bool = False

    @property
    def by_key(self) -> bool:
        """Each group is an object of its own."""
        return True

    def initial(self) -> State:
        """The state before the first operation."""
        return self.start

    def effect(self, operation: Operation) -> Effect:
        """See `Effect`."""
        steps = _transaction(operation)
        settles = self.default is ANYTHING  # then even a read may change what is known of a key
        if not settles and steps is not None and all(_plain(step[0]) in {"read", "r"} for step in steps):
            return Effect.PURE
        return Effect.GENERAL

    def step(self, state: Map, operation: Operation, /) -> State | Inconsistent:
        """See `Model.step`."""
        steps = _transaction(operation)
        if steps is None:
            return _MISFIT
        values = dict(state)
        for what, raw_key, value in steps:
            key = _plain(raw_key)
            if _plain(what) in {"write", "w"}:
                values[key] = value
            elif value is None and not (self.strict_nil and operation.status == "ok"):
                continue
            elif values.get(key, self.default) is ANYTHING:
                values[key] = value
            elif values.get(key, self.default) != value:
                return Inconsistent(
                    _holds(values.get(key, self.default), f"read {show(value)} of {show(key)}")
                )
        return Map(sorted(values.items(), key=lambda pair: show(pair[0])))

    def misfit(self, operation: Operation) -> str | None:
        """See the function `misfit`."""
        steps = _transaction(operation)
        if steps is not None and all(_plain(step[0]) in {"read", "r", "write", "w"} for step in steps):
            return None
        wrong = operation.result if operation.status == "ok" else operation.argument
        return (
            f"{operation.f} needs [[read, key, value], [write, key, value], ...], not {show(wrong, 60)} "
            "(transactions of append and r are for --checker list-append)"
        )


def _transaction(operation: Operation) -> tuple[tuple[Hashable, Hashable, Hashable], ...] | None:
    """The steps of a transaction with the values it saw where it completed, None where it is none."""
    steps = operation.result if operation.status == "ok" else operation.argument
    if not isinstance(steps, tuple) or not all(isinstance(step, tuple) and len(step) == 3 for step in steps):
        return None
    return steps


def _plain(word: Hashable) -> Hashable:
    """A keyword without its colon: ``:read`` in EDN is ``read`` elsewhere."""
    return word.removeprefix(":") if isinstance(word, str) else word


def _register(name: str, **variant: bool) -> Callable[[Any], Model]:
    return lambda initial: Register(name, freeze(initial), **variant)


def _string_kv(initial: Any) -> Model:
    if initial is not None and not isinstance(initial, str):
        raise ValueError(f"initial value {show(freeze(initial))} of string-kv is not a string: give a string")
    return StringKv(initial or "")


def _multi_register(initial: Any) -> Model:
    if not isinstance(initial, Mapping):
        return MultiRegister(default=ANYTHING if initial is None else freeze(initial))
    pairs = [(_plain(freeze(key)), freeze(value)) for key, value in initial.items()]
    return MultiRegister(start=Map(sorted(pairs, key=lambda pair: show(pair[0]))))


#: Models by name: each makes the model from an initial value (None: the model's own).
MODELS: dict[str, Callable[[Any], Model]] = {
    "cas-register": _register("cas-register", cas=True),
    "etcd-register": _register("etcd-register", cas=True, strict_nil=True, uses_mismatch=True),
    "kv": _register("kv", cas=True, strict_nil=True, uses_mismatch=True, delete=True),
    "multi-register": _multi_register,
    "register": _register("register"),
    "string-kv": _string_kv,
    **OBJECTS,
    **REVISION_MODELS,
}


def model_by_name(name: str, initial: Any = None) -> Model:
    """The model of that name.

    Args:
        name: one of `MODELS`.
        initial: the object's value before the history, as JSON; None for the model's own.

    Raises:
        ValueError: for an unknown name, naming the known ones.

    >>> model_by_name("cas-register", initial=0).initial()
    0
    >>> model_by_name("regster")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: unknown model 'regster': did you mean 'register'? Known models: ...
    """
    make = MODELS.get(name)
    if make is None:
        import difflib  # noqa: PLC0415  (only for the message)

        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown model {name!r}: {hint}Known models: {', '.join(sorted(MODELS))}")
    return make(initial)


_MODEL_BY_FS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"read", "write"}), "register"),
    (frozenset({"read", "write", "cas"}), "cas-register"),
    (frozenset({"get", "put", "append"}), "string-kv"),
    (frozenset({"get", "put", "read", "write", "cas", "delete"}), "kv"),
    (frozenset({"txn"}), "multi-register"),
    (frozenset({"enqueue", "dequeue"}), "fifo-queue"),
    (frozenset({"push", "pop"}), "stack"),
    (frozenset({"acquire", "release"}), "mutex"),
    (frozenset({"acquire", "renew", "release"}), "lease"),
    (frozenset({"read", "append"}), "append-list"),
    (frozenset({"read", "add", "remove"}), "set"),
    (frozenset({"read", "add", "subtract"}), "counter"),
)


def default_model(history: History) -> tuple[str, str]:
    """The name of the model to check a history with when the user named none, and why, in a sentence.

    Raises:
        HistoryError: where nothing in the history tells.
    """
    if history.model is not None:
        return history.model, f"model {history.model}: the history's header names it"
    lines: Any = history.lines
    fs = sorted(
        lines.client_fs()
        if hasattr(lines, "client_fs")
        else {op.f for op in history.lines if type(op.process) is int}
    )
    name = next((name for known, name in _MODEL_BY_FS if fs and known.issuperset(fs)), None)
    if name is None:
        where = f"{history.source}: " if history.source else ""
        if nobody_asked(history) is not None:
            return "register", ""  # of any model the answer is that nothing was checked
        there = ", ".join(fs) or "(none)"
        known_names = ", ".join(sorted(MODELS))
        raise HistoryError(f"{where}no model fits the operations {there}: name one of {known_names}")
    nil = ""
    if name in {"register", "cas-register"}:
        # Knossos' histories, which are EDN, take a nil read for one that says nothing.
        name = name if history.format == "edn" else "etcd-register"
        nil = "; an ok read of null says nothing" if history.format == "edn" else "; a null read means absent"
    if name == "set" and not _reads_lists(history):
        name = "counter"
    return name, f"model {name}: chosen because the history has {', '.join(fs)}{nil}; --model overrides"


def _reads_lists(history: History) -> bool:
    reads = (op.value for op in history.lines if op.f == "read" and op.type == "ok" and op.value is not None)
    return isinstance(next(reads, ()), list | tuple | set | frozenset)
