"""The slow, obvious reference for linearizability: tests hold the fast checkers against it.

Rules of this module
    1. No reduction, no cleverness, nothing shared with the fast path but the model.
    2. For small histories only: it refuses more than `OPERATIONS_MAX` operations of one object.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from checkers.effects import Inconsistent
from checkers.history import Operation
from checkers.models import Model, by_key, uses_mismatch

OPERATIONS_MAX = 24


def is_linearizable(operations: Sequence[Operation], model: Model) -> bool:
    """Whether some order of the operations is allowed by the model and keeps real-time order.

    Every ``ok`` (and ``mismatch``) operation must be in the order, an ``info`` operation may be; one that
    returned before another was called comes before it. (Herlihy and Wing 1990; the search is Wing and
    Gong's, with memory.)

    Raises:
        ValueError: for more than `OPERATIONS_MAX` operations of one object.
    """
    groups: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        if operation.status != "mismatch" or uses_mismatch(model):
            groups.setdefault(operation.key if by_key(model) else None, []).append(operation)
    return all(_one_object(group, model) for group in groups.values())


def _one_object(operations: Sequence[Operation], model: Model) -> bool:
    if len(operations) > OPERATIONS_MAX:
        raise ValueError(
            f"{len(operations)} operations are too many for the oracle: it takes {OPERATIONS_MAX}"
        )
    required = sum(1 << place for place, operation in enumerate(operations) if operation.ret is not None)
    seen: set[tuple[int, Hashable]] = set()
    todo: list[tuple[int, Hashable]] = [(0, model.initial())]
    while todo:
        done, state = todo.pop()
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if done & required == required:
            return True
        waiting = [place for place in range(len(operations)) if not done >> place & 1]
        returns = [ret for ret in (operations[place].ret for place in waiting) if ret is not None]
        first_return = min(returns)
        for place in waiting:
            if operations[place].call < first_return:
                after = model.step(state, operations[place])
                if not isinstance(after, Inconsistent):
                    todo.append((done | 1 << place, after))
    return False
