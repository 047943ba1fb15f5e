"""The few operations of a register with values written once in which `checkers.zones` found a clash.

Rules of this module
    1. A part of a history in which every value that somebody saw has its writer is linearizable if the
       whole is: take a linearization of the whole and leave the rest out. So a part that is impossible
       proves that the whole is.
    2. Where a chain of cas is longer than `CHAIN_MAX` there is no such part here.
"""

from __future__ import annotations

from collections.abc import Sequence

from checkers.history import Operation
from checkers.models import Model
from checkers.registers import RegisterColumns, columns_of, solve
from checkers.zones import CAS, DIFFERS, VIOLATION

#: Longer chains of cas are not cut out.
CHAIN_MAX = 200


def clashing(operations: Sequence[Operation], model: Model) -> list[Operation]:
    """The operations on the values of the blocks that clash; none where no small part is impossible.

    Args:
        operations: those of one key, in the order of calls.
        model: a register.
    """
    columns = columns_of({None: operations}, model)
    if columns is None:
        return []
    solution = solve(columns)
    if solution.status[0] != VIOLATION:
        return []
    values = _connected(columns, {value for value in solution.clash[1:3] if value >= 0})
    if len(values) > CHAIN_MAX:
        return []
    return [
        operations[columns.origin[place]]
        for place in range(len(columns.f))
        if columns.f[place] != DIFFERS
        and (columns.a[place] in values or (columns.f[place] == CAS and columns.b[place] in values))
    ]


def _connected(columns: RegisterColumns, values: set[int]) -> set[int]:
    """The values connected to these by cas, up to some more than `CHAIN_MAX`."""
    near: dict[int, list[int]] = {}
    for place, what in enumerate(columns.f):
        if what == CAS:
            near.setdefault(columns.a[place], []).append(columns.b[place])
            near.setdefault(columns.b[place], []).append(columns.a[place])
    found = set(values)
    todo = sorted(values)
    while todo and len(found) <= CHAIN_MAX:
        others = [other for other in near.get(todo.pop(), ()) if other not in found]
        found.update(others)
        todo += others
    return found
