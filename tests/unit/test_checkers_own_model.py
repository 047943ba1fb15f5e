"""Models of users, and what can be wrong with them: never a pass, and always a sentence that says what to mend."""

import re
from dataclasses import dataclass

import pytest

from checkers import Effect, Inconsistent, Op, check_linearizable

ROWS = [("invoke", "write", 1), ("ok", "write", 1), ("invoke", "read", None), ("ok", "read", 1)]
FINE = [Op(n, n + 1, 0, kind, f, None, value) for n, (kind, f, value) in enumerate(ROWS)]


class Max:
    """The one of docs/models.md."""

    name = "max"

    def initial(self):
        return 0

    def step(self, state, operation):
        if operation.f == "write":
            return max(state, operation.argument)
        return state if operation.result == state else Inconsistent(f"the maximum is {state}")


def test_it_works_as_it_is():
    assert check_linearizable(FINE, Max()).valid == "valid"
    stale = [*FINE[:3], Op(3, 4, 0, "ok", "read", None, 0)]
    verdict = check_linearizable(stale, Max())
    assert verdict.valid == "invalid"
    assert any("the maximum is 1" in line for line in verdict.evidence)


class Plain:
    def __init__(self, value):
        self.value = value


@dataclass(frozen=True)
class Frozen:
    value: int


class Growing(list):
    def __hash__(self):
        return len(self)


def failing(_self, _state, _operation):
    raise KeyError("oops")


def forgetful(_self, state, operation):
    if operation.f == "write":
        max(state, operation.argument)


calls = iter(range(1_000))


def in_place(_self, state, _operation):
    state.append(1)
    return state


MISTAKES = {
    "a list": (
        list,
        lambda _self, state, operation: [*state, operation.argument],
        r"state \[\].* not hashable.*tuple",
    ),
    "a list later": (
        tuple,
        lambda _self, state, _operation: list(state),
        r"write 1 .*state \[\].* not hashable",
    ),
    "it fails": (int, failing, r"max failed at write 1 .*in the state 0 with KeyError: 'oops'"),
    "two arguments": (int, lambda _self, state: state, r"failed at write 1 .*TypeError"),
    "the class": (
        int,
        lambda _self, _state, _operation: Inconsistent,
        r"the class Inconsistent.*with a reason",
    ),
    "a bool": (
        int,
        lambda _self, _state, operation: operation.result == 1,
        r"returned True at write 1.*the next state",
    ),
    "porcupine's pair": (
        int,
        lambda _self, state, _operation: (True, state),
        r"returned \(True, 0\) at write 1",
    ),
    "a counter": (
        int,
        lambda _self, _state, _operation: next(calls),
        r"not pure: at write 1 .*answered 0, then 1",
    ),
    "identity": (
        lambda: Plain(0),
        lambda _self, _state, _operation: Plain(1),
        r"compare by identity.*frozen",
    ),
    "changed in place": (Growing, in_place, r"changed the state"),
}


@pytest.mark.parametrize(("initial", "step", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_unknown_and_told(initial, step, message):
    """With the operation, the state, and what to do."""
    made = type("Mistaken", (Max,), {"initial": lambda _self: initial(), "step": step})()
    verdict = check_linearizable(FINE, made)
    assert verdict.valid == "unknown"
    assert verdict.cause
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(verdict.cause)
    assert "splitbrain" not in verdict.cause


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ({"write": Effect.PURE}, r"says PURE, .* made it 1 at write 1"),
        ({"write": Effect.OVERWRITE}, r"says OVERWRITE, whose new state .* made it 1 and 2 at write 1"),
        (
            {"read": Effect.OVERWRITE},
            r"says OVERWRITE, which is possible in every state, but step is not at read",
        ),
    ],
)
def test_an_effect_that_is_not_so(says, message):
    """The searches rest on what a model says of its steps."""
    made = type("Said", (Max,), {"effect": lambda _self, operation: says.get(operation.f, Effect.GENERAL)})()
    rows = [("invoke", "write", 2), ("ok", "write", 2), *ROWS[:3], ("ok", "read", 2)]
    lines = [Op(n, n + 1, 0, kind, f, None, value) for n, (kind, f, value) in enumerate(rows)]
    assert check_linearizable(lines, Max()).valid == "valid"
    two = [Op(n, n + 1, n // 2, kind, f, None, value) for n, (kind, f, value) in enumerate(rows[:4])]
    both = [two[0], two[2], two[1], two[3]]  # one after the other, in either order
    overlapping = [Op(n, n + 1, op.process, op.type, op.f, None, op.value) for n, op in enumerate(both)]
    stale = [*lines[:-1], Op(5, 6, 0, "ok", "read", None, 1)]
    causes = [check_linearizable(history, made).cause or "" for history in (FINE, lines, overlapping, stale)]
    assert any(re.search(message, cause) for cause in causes), causes


@pytest.mark.parametrize("said", ["PURE", None])
def test_an_effect_that_is_none_is_said(said):
    """It is the model's fault, with what to mend."""
    made = type("Said", (Max,), {"effect": lambda _self, _operation: said})()
    cause = check_linearizable(FINE, made).cause or ""
    assert "(index 0): say one of checkers.effects.Effect" in cause


def test_a_step_that_forgets_to_return_is_noted():
    """None may be a state; so it is one, and the verdict says so."""
    made = type("Forgetful", (Max,), {"step": forgetful})()
    verdict = check_linearizable(FINE, made)
    assert any("returned None at write 1" in note for note in verdict.notes)
    assert not check_linearizable(FINE, Max()).notes


def test_states_that_are_values_are_fine():
    """Frozen classes, and booleans where the first state is one."""
    made = type(
        "Framed",
        (Max,),
        {
            "initial": lambda _self: Frozen(0),
            "step": lambda _self, _state, operation: Frozen(operation.argument or 1),
        },
    )()
    assert check_linearizable(FINE, made).valid == "valid"
    lock = type(
        "Lock", (Max,), {"initial": lambda _self: False, "step": lambda _self, state, _operation: not state}
    )()
    assert check_linearizable(FINE, lock).valid == "valid"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Max, r"Max is a class: give an object of it, Max\(\)"),
        (None, "None is no model: it has no name"),
        (type("Nameless", (), {"initial": int, "step": max})(), "it has no name.*docs/models.md"),
        (type("Stuck", (), {"name": "stuck", "initial": int})(), "it has no step"),
    ],
)
def test_what_is_no_model(model, message):
    """Said before anything is checked."""
    with pytest.raises(TypeError, match=message):
        check_linearizable(FINE, model)


@pytest.mark.parametrize(
    "history", ["history.jsonl", [1], None, [{"process": 0, "type": "invoke", "f": "read"}]]
)
def test_what_is_no_history(history):
    """The path of one, and whatever else has no lines."""
    with pytest.raises(TypeError, match=r"read_history\(path\)"):
        check_linearizable(history, "register")
