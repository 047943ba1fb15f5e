"""The images that `--cluster docker` runs: that of a node, and that of the load balancer.

Rules of this module
    1. Nothing is fetched in a build, which often reaches no package index: `bundle` brings what a node is made of.
    2. The image of a node is tagged by the digest of the code that it holds, so that a run gets its own code, whatever
       another checkout builds meanwhile; `latest` is for people. The last `KEPT` are kept.
    3. The base is what `--base` names; else the one that docker/make-base made before; else the one of the Dockerfile,
       from a registry; and where none can be reached, one that docker/make-base makes now, which is said.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import harness
from harness.clusters import bundle, scratch
from harness.clusters.docker_box import engine, short
from harness.clusters.shims import KINDS
from harness.errors import SetupError

IMAGE, LB_IMAGE = "splitbrain-node", "splitbrain-lb"
NAME_LABEL, SHIMS_LABEL = "splitbrain.image", "splitbrain.shims"
TAG_LENGTH = 12
KEPT = 6
BASE, REGISTRY_BASE = "splitbrain-base", "python:3.11-slim"
ROOT = PurePosixPath("/opt/splitbrain")
IMAGE_PYTHON = "3.11"
BASE_TIMEOUT_S = 900
IN_DATA = "share/splitbrain/docker"  # beside the packages only after `pip install --target`

Say = Callable[[str], None]


def recipes() -> Path:
    """The folder `docker/` of the project: in a checkout beside the packages, else where pip put it.

    Raises:
        SetupError: it is in neither place.
    """
    packages = Path(harness.__file__).parent.parent
    in_checkout = packages / "docker"
    for place in (in_checkout, packages / IN_DATA, *_installed()):
        if (place / "Dockerfile").exists():
            return place
    raise SetupError(
        f"{in_checkout / 'Dockerfile'} not found, and pip installed none; build images from a checkout of the project"
    )


def _installed() -> Iterator[Path]:
    """Where pip put it, which depends on how it was called."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("splitbrain") or ():
            if file.parts[-3:] == ("splitbrain", "docker", "Dockerfile"):
                yield Path(str(file.locate())).resolve().parent


def library(kind: str) -> PurePosixPath:
    """Where the library of a kind lies in the image."""
    return ROOT / bundle.SHIMS / f"libsb{kind}.so"


@functools.cache
def node_image() -> str:
    """The image of a node that holds the code which is installed here, made as it is made here."""
    made_of = bundle.digest().encode() + (recipes() / "Dockerfile").read_bytes()
    return f"{IMAGE}:{hashlib.sha256(made_of).hexdigest()[:TAG_LENGTH]}"


def problem(client: Any, image: str | None = None) -> str | None:
    """Why an image (by default that of a node, of this code) cannot be used; None where it can."""
    wanted = image or node_image()
    try:
        client.images.get(wanted)
    except Exception as error:  # noqa: BLE001 - the SDK raises its own kinds, which we may not import
        if type(error).__name__ == "ImageNotFound":
            return f"no image {wanted}"
        return f"no image {wanted} ({short(error)})"
    return None


def shims_of(client: Any) -> tuple[str, ...]:
    """The kinds of library in the image of a node."""
    return tuple(client.images.get(node_image()).labels.get(SHIMS_LABEL, "").split())


def ensure(client: Any, say: Say, *, balancer: bool = False) -> None:
    """Build what is missing or old.

    Raises:
        SetupError: it cannot be built.
    """
    for image in (node_image(), LB_IMAGE)[: 1 + balancer]:
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
    argv = ["sh", str(recipes() / "make-base"), BASE]
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
    name = image.partition(":")[0]
    labels = {NAME_LABEL: name}
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
    built.tag(name, "latest")
    for old in sorted(client.images.list(name=name), key=lambda one: one.attrs["Created"])[:-KEPT]:
        with contextlib.suppress(Exception):  # in use by a run that goes on
            client.images.remove(old.id, force=True)
    client.images.prune(filters={"dangling": True, "label": f"{NAME_LABEL}={name}"})


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
    with scratch.passing("image") as name:
        context = Path(name)
        if image == node_image():
            shutil.copy(recipes() / "Dockerfile", context / "Dockerfile")
            kinds = bundle.fill(context / "packages", IMAGE_PYTHON, platform.machine(), KINDS)
            labels[SHIMS_LABEL] = " ".join(kinds)
        else:
            shutil.copy(recipes() / "Dockerfile.lb", context / "Dockerfile")
            shutil.copy(recipes() / "haproxy.cfg", context)
        yield context


def build_all(base: str | None, say: Say) -> list[str]:
    """Build both images; returns their names."""
    with contextlib.closing(engine()) as client:
        on = find_base(client, base, say)
        for image in (node_image(), LB_IMAGE):
            build(client, image, on)
            say(f"built {image} on {on}, {client.images.get(image).attrs['Size'] >> 20} MB")
    return [node_image(), LB_IMAGE]
