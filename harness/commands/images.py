"""`splitbrain images build`: the image in which `--cluster docker` runs its nodes.

Wheels are fetched here, outside the build, and copied into it: a build often reaches no package index, and must
not depend on one. They are for the Python and the machine of the image, not for those of the harness.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
from harness.clusters import docker
from harness.errors import SetupError

NAME = "images"
HELP = "build the image for the nodes of --cluster docker"

SOURCES = Path(harness.__file__).parent.parent
PACKAGES = ("raft", "nemesis", "checkers", "harness")
IMAGE_PYTHON = "3.11"
NEEDED = ("msgspec>=0.19,<1",)  # what a node imports beside our own packages
FETCH_TIMEOUT_S = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The one action, and its options."""
    parser.add_argument("action", choices=("build",), help="build the image")
    parser.add_argument(
        "--base", metavar="IMAGE", default=f"python:{IMAGE_PYTHON}-slim",
        help=f"image with Python {IMAGE_PYTHON}; docker/make-base makes one without a registry (default %(default)s)",
    )  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Fetch, build, name the image."""
    dockerfile = SOURCES / "docker" / "Dockerfile"
    if not dockerfile.exists():
        raise SetupError(f"{dockerfile} not found; build images from a checkout of the project")
    with tempfile.TemporaryDirectory(prefix="sb-image-") as name:
        context = Path(name)
        shutil.copy(dockerfile, context)
        (context / "wheels").mkdir()
        _pip("wheel", "--no-deps", "--wheel-dir", str(context / "wheels"), str(_copy_sources(context)))
        _pip(
            "download", "--no-deps", "--only-binary=:all:", "--python-version", IMAGE_PYTHON,
            "--implementation", "cp", "--platform", f"manylinux2014_{platform.machine()}",
            "--dest", str(context / "wheels"), *NEEDED,
        )  # fmt: skip
        shutil.rmtree(context / "source")
        tag = docker.build_image(context, args.base)
    sys.stdout.write(f"built {tag} on {args.base}\n")
    return 0


def _copy_sources(context: Path) -> Path:
    """A copy to build the wheel from: building in the checkout would leave files there, and take old ones in."""
    copy = context / "source"
    copy.mkdir()
    for package in PACKAGES:
        shutil.copytree(
            SOURCES / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCES / file, copy)
    return copy


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
