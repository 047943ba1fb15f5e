"""A model of your own in ten lines: a register that only grows, checked against two histories.

A model is a class with a name, an initial state and a pure `step`; states must be hashable. Run it with
`python examples/own_model.py`: it prints a valid and an invalid verdict.
"""

from __future__ import annotations

from typing import Any

from checkers import Inconsistent, Op, check_linearizable
from checkers.history import Operation


class MaxRegister:
    """`write x` raises the register to x if x is larger; `read` returns the largest value so far."""

    name = "max-register"

    def initial(self) -> int:
        """Before the first write."""
        return 0

    def step(self, state: int, operation: Operation) -> int | Inconsistent:
        """The next state, or why the operation is impossible in this one."""
        if operation.f == "write":
            return max(state, int(str(operation.argument)))
        if operation.result == state:
            return state
        return Inconsistent(f"read {operation.result} while the largest value was {state}")


def history(*rows: tuple[int, Any, str, Any]) -> list[Op]:
    """Lines from (process, type, f, value), a millisecond apart."""
    return [Op(i, i * 1_000_000, p, t, f, value=v) for i, (p, t, f, v) in enumerate(rows)]


GOOD = history(
    (0, "invoke", "write", 5), (0, "ok", "write", 5),
    (0, "invoke", "write", 3), (0, "ok", "write", 3),
    (1, "invoke", "read", None), (1, "ok", "read", 5),
)  # fmt: skip
BAD = history(
    (0, "invoke", "write", 5), (0, "ok", "write", 5),
    (0, "invoke", "write", 3), (0, "ok", "write", 3),
    (1, "invoke", "read", None), (1, "ok", "read", 3),
)  # fmt: skip

if __name__ == "__main__":
    for ops in (GOOD, BAD):
        print(*check_linearizable(ops, MaxRegister()).lines(), sep="\n")
        print()
