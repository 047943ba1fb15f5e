"""The kernels compiled: numpy and numba, where they are installed (``pip install 'splitbrain[fast]'``).

Rules of this module
    1. Nothing imports it before the work is worth it: importing numba takes half a second, and compiling
       the kernels for the first time some seconds more; the result is cached on disk.
    2. It holds no algorithm, only ways to run those of other modules.
    3. Whoever compiles says so before, part by part, through `announce`.

Theory of operation
    numba keeps compiled code by the file of the function and its time of change, and does not notice that a
    function of another file, which it has compiled in, has changed. So the cache has a folder of its own for each
    state of all kernels together: its name holds a digest of their text, of numba's version and of the processor.
    It lies below ``NUMBA_CACHE_DIR`` where that is set, else below the user's folder for caches, else (a user without
    a home) beside this file; where nothing can be written, in a folder that goes with the process. A part that was
    compiled leaves a mark there, so that one can know without importing numba whether a part is ready.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

#: Files whose functions are compiled.
_KERNEL_FILES = (
    "zones.py",
    "intervals.py",
    "kernels.py",
    "kernel_rows.py",
    "kernel_orders.py",
    "kernel_replay.py",
    "kernel_lines.py",
)
#: What is compiled together, with about how many seconds that takes.
PARTS = {"zones": 6, "expand": 10, "deep": 8, "levelwise": 6, "replay": 3, "lines": 6}
_FOLDERS_KEPT = 4

#: Called with a sentence before something is compiled; a command line sets it to print.
announce: Callable[[str], None] = lambda _sentence: None  # noqa: E731


@cache
def installed() -> bool:
    """Whether numpy and numba can be imported, and may be: ``SPLITBRAIN_NO_NUMBA`` forbids it."""
    if os.environ.get("SPLITBRAIN_NO_NUMBA"):
        return False
    return all(importlib.util.find_spec(name) is not None for name in ("numpy", "numba"))


def loaded(part: str) -> bool:
    """Whether using the part costs next to nothing: it was used, or another one was and it must only be loaded.

    Most of what the first part takes to load is the import of numba.
    """
    return part in _used or (bool(_used) and warm(part))


def used(*parts: str) -> bool:
    """Whether this process has used all these parts, so that the next use costs nothing."""
    return _used.issuperset(parts)


_used: set[str] = set()
_warm: set[str] = set()


def warm(part: str = "deep") -> bool:
    """Whether the part was compiled before on this machine, as far as the cache on disk tells."""
    if part not in _warm and installed() and (_folder() / f"{part}.ready").exists():
        _warm.add(part)
    return part in _used or part in _warm


def by_readiness(part: str, cold: int, warm_: int, loaded_: int) -> int:
    """A number by whether the part must be compiled, must be loaded, or is there."""
    return loaded_ if loaded(part) else warm_ if warm(part) else cold


def warm_up() -> bool:
    """Compiles everything that is not yet in the cache on disk, half a minute or so.

    Returns:
        False where numpy and numba are not installed, and so nothing can be compiled.
    """
    if not installed():
        return False
    for part in PARTS:
        prepare(part)
    return True


def prepare(part: str) -> None:
    """Loads a part from the cache, or compiles it, after saying so."""
    if part in _used:
        return
    ready = _folder() / f"{part}.ready"
    if not ready.exists():
        announce(f"compiling the {part} kernels, once on this machine: about {PARTS[part]} s")
    began_s = time.monotonic()
    try:
        with _own_cache():
            _PREPARE[part]()
    except ImportError:  # a numba that does not go with the numpy there is: what was kept is not to blame
        raise
    except Exception:  # noqa: BLE001  (whatever pickle says of a file that a crash or a full disk cut off)
        # Code that is kept and cannot be read would fail for ever; if that was not it, this fails again.
        announce(
            f"the {part} kernels that were kept cannot be used: compiling them again, about {PARTS[part]} s"
        )
        _forget_all()
        with _own_cache():
            _PREPARE[part]()
    _used.add(part)
    if not ready.exists():
        announce(f"compiled the {part} kernels in {time.monotonic() - began_s:.1f} s")
        try:
            ready.touch()
        except OSError:  # a cache that cannot be written only means compiling again
            return
        _forget_old()


def _prepare_zones() -> None:
    from checkers.intervals import refute  # noqa: PLC0415
    from checkers.registers import solve, tiny_columns  # noqa: PLC0415

    backend = Compiled()
    columns = tiny_columns(backend)
    refute(columns, solve(columns, backend).status, backend)


def _prepare_expand() -> None:
    from checkers.compiled_search import expand_tiny  # noqa: PLC0415

    expand_tiny()


def _prepare_deep() -> None:
    from checkers.compiled_search import run_tiny  # noqa: PLC0415

    run_tiny("dfs")


def _prepare_levelwise() -> None:
    from checkers.compiled_search import run_tiny  # noqa: PLC0415

    run_tiny("bfs")


def _prepare_replay() -> None:
    from checkers.compiled_search import replay_tiny  # noqa: PLC0415

    replay_tiny()


def _prepare_lines() -> None:
    from checkers.line_columns import scan_tiny  # noqa: PLC0415

    scan_tiny()


_PREPARE: dict[str, Callable[[], None]] = {
    "zones": _prepare_zones,
    "expand": _prepare_expand,
    "deep": _prepare_deep,
    "levelwise": _prepare_levelwise,
    "replay": _prepare_replay,
    "lines": _prepare_lines,
}


@cache
def _folder() -> Path:
    """Where compiled code of these very kernels is kept."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for name in _KERNEL_FILES:
        file = here / name
        digest.update(file.read_bytes() if file.exists() else b"")
    for package in ("numba", "numpy", "llvmlite"):
        try:
            digest.update(version(package).encode())
        except PackageNotFoundError:
            continue
    digest.update(f"{platform.python_version()} {platform.machine()} {here}".encode())
    return _base() / "splitbrain" / f"kernels-{digest.hexdigest()[:16]}"


def _base() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # no HOME, and a user that the system does not know, as in containers
        return Path(__file__).parent / "__pycache__"


@cache
def _own_folder() -> Any:
    """A folder that is removed when the process ends, with what can be read of ours."""
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    made = tempfile.TemporaryDirectory(prefix="splitbrain-kernels-")
    with suppress(OSError):  # numba takes kept code from folders only that it can write to
        shutil.copytree(_folder(), made.name, dirs_exist_ok=True)
    return made


def _place() -> Path:
    """Where numba can keep what it compiles: our folder, or one of this process alone."""
    import tempfile  # noqa: PLC0415

    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(_own_folder().name)
    return folder


@contextmanager
def _own_cache() -> Iterator[None]:
    """Numba keeps what is decorated within in our folder."""
    from numba.core import config as numba_config  # noqa: PLC0415  (rule 1)

    config: Any = numba_config

    before = config.CACHE_DIR
    config.CACHE_DIR = str(_place())
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _forget_all() -> None:
    """Removes what was kept, marks and all."""
    import shutil  # noqa: PLC0415

    shutil.rmtree(_place(), ignore_errors=True)


def _forget_old() -> None:
    """Removes what older kernels left."""
    import shutil  # noqa: PLC0415

    others = [path for path in _folder().parent.glob("kernels-*") if path != _folder()]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[_FOLDERS_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def kernels(name: str) -> ModuleType:
    """The module ``checkers.NAME`` of decorated kernels, whose compiled code goes into our folder."""
    with _own_cache():
        return importlib.import_module(f"checkers.{name}")


@cache
def compiled(kernel: Callable[..., int]) -> Callable[..., int]:
    """The function, compiled by numba."""
    import numba  # noqa: PLC0415  (rule 1)

    with _own_cache():
        made: Callable[..., int] = numba.njit(cache=True, nogil=True)(kernel)
    return made


class Compiled:
    """`checkers.registers.Backend` on arrays of int64."""

    def __init__(self) -> None:
        import numpy  # noqa: ICN001, PLC0415  (rule 1; the short name would hide that it is not global)

        self.np = numpy

    def kernel(self, kernel: Callable[..., int]) -> Callable[..., int]:
        """See `Backend`."""
        return compiled(kernel)

    def full(self, count: int, value: int) -> Any:
        """See `Backend`."""
        # Zeros come from the system, unwritten: a large column is then touched once, not twice.
        return self.np.full(count, value, self.np.int64) if value else self.np.zeros(count, self.np.int64)

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
