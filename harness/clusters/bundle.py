"""What a node is made of, for a machine that has nothing but Python: code, wheels, and libraries for faults.

Rules of this module
    1. Code is copied from where it is installed, so that what is tested is what is here.
    2. Wheels are fetched here, since nodes often reach no package index. They are for the Python and the machine of
       the node, not for those of the harness. A wheel of a library is a plain archive: no pip is needed to unpack it.
    3. The libraries that shift clocks and break disks are compiled here, and tried there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from harness.errors import SetupError
from nemesis import shim

PACKAGES = ("raft", "nemesis")
NEEDED = ("msgspec>=0.19,<1",)  # what a node imports beside our own packages
SHIMS = "shims"  # the directory of the libraries
FETCH_TIMEOUT_S = 300


def digest() -> str:
    """What a node is made of now; something that was built from other code would be tested in its place."""
    sum_ = hashlib.sha256()
    for package in PACKAGES:
        root = _where(package)
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".c"):
                sum_.update(f"{package}/{path.relative_to(root)}\0".encode() + path.read_bytes())
    return sum_.hexdigest()


def _where(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None, "our own packages are installed"
    assert found.origin is not None, "and are no namespace packages"
    return Path(found.origin).parent


def fill(directory: Path, python: str, machine: str, kinds: Iterable[str]) -> list[str]:
    """Put everything into a directory, to be named in PYTHONPATH; returns the kinds of library that could be built.

    Args:
        directory: an empty one.
        python: version of the node's Python, such as `3.11`.
        machine: architecture of the node, such as `x86_64`.
        kinds: libraries wanted.

    Raises:
        SetupError: a wheel cannot be had.
    """
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
        shutil.copytree(_where(package), directory / package, ignore=ignored)
    wheels = directory / "wheels"
    wheels.mkdir()
    _pip(
        "download", "--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp",
        "--platform", f"manylinux2014_{machine}", "--dest", str(wheels), *NEEDED,
    )  # fmt: skip
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(directory)
    shutil.rmtree(wheels)
    (directory / SHIMS).mkdir()
    built = []
    for kind in kinds:
        with contextlib.suppress(shim.ShimError):  # who needs it says what is missing
            shim.build(kind, directory / SHIMS)
            built.append(kind)
    return built


def _pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=FETCH_TIMEOUT_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise SetupError(
            f"pip {arguments[0]} took more than {FETCH_TIMEOUT_S} s; check the package index"
        ) from None
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise SetupError(f"pip {arguments[0]} failed: {words[0]}; check that pip reaches a package index")
