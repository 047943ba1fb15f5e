"""The kernels compiled: numpy and numba, where they are installed (``pip install 'splitbrain[fast]'``).

Rules of this module
    1. Nothing imports it before the work is worth it: importing numba takes half a second, and compiling
       the kernels for the first time some seconds more; the result is cached on disk.
    2. It holds no algorithm, only ways to run those of other modules.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any


@cache
def installed() -> bool:
    """Whether numpy and numba can be imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "numba"))


def warm() -> bool:
    """Whether the searches were compiled before on this machine, as far as their cache on disk tells."""
    folders = [Path(__file__).parent / "__pycache__"]
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        folders.append(Path(chosen))
    return any(folder.is_dir() and any(folder.rglob("kernel_orders.dfs*.nbi")) for folder in folders)


def warm_up() -> bool:
    """Compiles everything that is not yet in the cache on disk, half a minute or so.

    Returns:
        False where numpy and numba are not installed, and so nothing can be compiled.
    """
    if not installed():
        return False
    from checkers.compiled_search import ready  # noqa: PLC0415  (rule 1)
    from checkers.registers import solve, tiny_columns  # noqa: PLC0415

    ready()
    backend = Compiled()
    solve(tiny_columns(backend), backend)
    return True


@cache
def compiled(module: ModuleType, name: str) -> Callable[..., Any]:
    """The function of a module, compiled by numba; the cache on disk lives beside the module."""
    import numba  # noqa: PLC0415  (rule 1)

    kernel: Callable[..., Any] = numba.njit(cache=True, nogil=True)(getattr(module, name))
    return kernel


class Compiled:
    """`checkers.registers.Backend` on arrays of int64."""

    def __init__(self) -> None:
        import numpy  # noqa: ICN001, PLC0415  (rule 1; the short name would hide that it is not global)

        self.np = numpy

    def kernel(self, name: str) -> Callable[..., int]:
        """See `Backend`."""
        from checkers import zones  # noqa: PLC0415

        return compiled(zones, name)

    def full(self, count: int, value: int) -> Any:
        """See `Backend`."""
        return self.np.full(count, value, self.np.int64)

    def copy(self, column: Any) -> Any:
        """See `Backend`."""
        return self.np.array(column, self.np.int64)

    def take(self, column: Any, places: Any) -> Any:
        """See `Backend`."""
        return column[places]

    def sort(self, *columns: Any) -> Any:
        """See `Backend`."""
        if len(columns) == 1:
            column = columns[0]
            if len(column) < 2 or bool((column[1:] >= column[:-1]).all()):
                return self.np.arange(len(column))
            return self.np.argsort(column, kind="stable")
        return self.np.lexsort(columns[::-1])

    def where(self, column: Any, value: int) -> Any:
        """See `Backend`."""
        return self.np.flatnonzero(column == value)

    def starts(self, counts: Any) -> Any:
        """See `Backend`."""
        return self.np.concatenate(([0], self.np.cumsum(counts)))

    def smaller(self, one: Any, other: Any, count: int) -> Any:
        """See `Backend`."""
        return self.np.minimum(one[:count], other[:count])

    def tally(self, column: Any, size: int) -> Any:
        """See `Backend`."""
        return self.np.bincount(column, minlength=size)

    def join(self, one: Any, other: Any) -> Any:
        """See `Backend`."""
        return self.np.concatenate((one, other))

    def places(self, column: Any) -> Any:
        """See `Backend`."""
        inverse = self.np.empty(len(column), self.np.int64)
        inverse[column] = self.np.arange(len(column))
        return inverse
