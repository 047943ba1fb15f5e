"""The images that `--cluster docker` runs: that of a node, and that of the load balancer.

Rules of this module
    1. Wheels are fetched here, outside the build, and copied into it: a build often reaches no package index, and must
       not depend on one. They are for the Python and the machine of the image, not for those of the harness.
    2. The node's code is copied from where it is installed, so that what is tested is what is here. Its digest is a
       label of the image: one that was built from other code is built again.
    3. The base is what `--base` names; else the one that docker/make-base made before; else the one of the Dockerfile,
       from a registry; and where none can be reached, one that docker/make-base makes now, which is said.
    4. The libraries that shift clocks and break disks are compiled here and tried in the build.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import harness
from harness.clusters.docker_box import engine, short
from harness.clusters.shims import KINDS
from harness.errors import SetupError
from nemesis import shim

IMAGE, LB_IMAGE = "splitbrain-node", "splitbrain-lb"
SOURCES_LABEL, SHIMS_LABEL = "splitbrain.sources", "splitbrain.shims"
BASE, REGISTRY_BASE = "splitbrain-base", "python:3.11-slim"
ROOT = PurePosixPath("/opt/splitbrain")
PACKAGES = ("raft", "nemesis")
IMAGE_PYTHON = "3.11"
NEEDED = ("msgspec>=0.19,<1",)  # what a node imports beside our own packages
FETCH_TIMEOUT_S = 300
BASE_TIMEOUT_S = 900

Say = Callable[[str], None]


def recipes() -> Path:
    """The folder `docker/` of the project: in a checkout beside the packages, else where pip put it.

    Raises:
        SetupError: it is in neither place.
    """
    places = (Path(harness.__file__).parent.parent / "docker", Path(sys.prefix, "share/splitbrain/docker"))
    for place in places:
        if (place / "Dockerfile").exists():
            return place
    raise SetupError(f"{places[0] / 'Dockerfile'} not found; build images from a checkout of the project")


def library(kind: str) -> PurePosixPath:
    """Where the library of a kind lies in the image."""
    return ROOT / "shims" / f"libsb{kind}.so"


def sources_digest() -> str:
    """What a node is made of now; an image that was built from other code would be tested in its place."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = _where(package)
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".c"):
                digest.update(f"{package}/{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _where(package: str) -> Path:
    found = importlib.util.find_spec(package)
    assert found is not None, "our own packages are installed"
    assert found.origin is not None, "and are no namespace packages"
    return Path(found.origin).parent


def problem(client: Any, image: str = IMAGE) -> str | None:
    """Why an image cannot be used as it is; None where it can."""
    try:
        labels = client.images.get(image).labels
    except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
        return f"no image {image} ({short(error)})"
    if image == IMAGE and labels.get(SOURCES_LABEL) != sources_digest():
        return f"image {image} was built from other code than this"
    return None


def shims_of(client: Any) -> tuple[str, ...]:
    """The kinds of library in the image of a node."""
    return tuple(client.images.get(IMAGE).labels.get(SHIMS_LABEL, "").split())


def ensure(client: Any, say: Say, *, balancer: bool = False) -> None:
    """Build what is missing or old.

    Raises:
        SetupError: it cannot be built.
    """
    for image in (IMAGE, LB_IMAGE)[: 1 + balancer]:
        if (why := problem(client, image)) is not None:
            say(f"{why}; building it")
            build(client, image, find_base(client, None, say))


def find_base(client: Any, wanted: str | None, say: Say) -> str:
    """The image to build on; see rule 3.

    Raises:
        SetupError: none can be had.
    """
    if wanted is not None:
        return wanted
    if client.images.list(name=BASE):
        return BASE
    try:
        client.images.pull(*REGISTRY_BASE.split(":"))
    except Exception as error:  # noqa: BLE001 - as above
        say(f"no {REGISTRY_BASE} from a registry ({short(error)}); making {BASE} of Debian packages instead")
        _make_base()
        return BASE
    return REGISTRY_BASE


def _make_base() -> None:
    argv = [str(recipes() / "make-base"), BASE]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=BASE_TIMEOUT_S)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"image {BASE}: {error}; make it by hand with docker/make-base") from None
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["docker/make-base failed"]
        raise SetupError(f"image {BASE}: {words[0]}")


def build(client: Any, image: str, base: str) -> None:
    """Build an image on a base.

    Raises:
        SetupError: the build failed; with the engine's last words.
    """
    before = client.images.list(name=image)
    labels = {SOURCES_LABEL: sources_digest()}
    with _context(image, labels) as context:
        try:
            built, _ = client.images.build(
                path=str(context), tag=image, buildargs={"BASE": base}, labels=labels, rm=True, forcerm=True
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise SetupError(
                f"image {image}: {_why(error)}; where no registry is reachable make a base with docker/make-base "
                "and give it with --base"
            ) from None
    for old in before:
        if old.id != built.id:
            with contextlib.suppress(Exception):  # in use by a run that goes on
                client.images.remove(old.id)


def _why(error: Exception) -> str:
    """The engine's reason, with the last words of the step that failed."""
    said = [str(part.get("stream", "")).strip() for part in getattr(error, "build_log", None) or ()]
    words = [
        line for line in said if line and not line.startswith(("Step ", "--->", "Removing", "Successfully"))
    ]
    return " / ".join([short(error), *words[-2:]])


@contextlib.contextmanager
def _context(image: str, labels: dict[str, str]) -> Iterator[Path]:
    """A directory with all that a build needs."""
    with tempfile.TemporaryDirectory(prefix="sb-image-") as name:
        context = Path(name)
        if image == IMAGE:
            shutil.copy(recipes() / "Dockerfile", context / "Dockerfile")
            labels[SHIMS_LABEL] = " ".join(_fill(context))
        else:
            shutil.copy(recipes() / "Dockerfile.lb", context / "Dockerfile")
            shutil.copy(recipes() / "haproxy.cfg", context)
        yield context


def _fill(context: Path) -> list[str]:
    """Code, wheels and libraries; returns the kinds of library that could be compiled."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.c")
        shutil.copytree(_where(package), context / "packages" / package, ignore=ignored)
    (context / "wheels").mkdir()
    _pip(
        "download", "--no-deps", "--only-binary=:all:", "--python-version", IMAGE_PYTHON, "--implementation", "cp",
        "--platform", f"manylinux2014_{platform.machine()}", "--dest", str(context / "wheels"), *NEEDED,
    )  # fmt: skip
    (context / "packages" / "shims").mkdir()
    kinds = []
    for kind in KINDS:
        with contextlib.suppress(shim.ShimError):  # an image without them; `check` says what is missing
            shim.build(kind, context / "packages" / "shims")
            kinds.append(kind)
    return kinds


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


def build_all(base: str | None, say: Say) -> list[str]:
    """Build both images; returns their names."""
    with contextlib.closing(engine()) as client:
        on = find_base(client, base, say)
        for image in (IMAGE, LB_IMAGE):
            build(client, image, on)
            say(f"built {image} on {on}, {client.images.get(image).attrs['Size'] >> 20} MB")
    return [IMAGE, LB_IMAGE]
