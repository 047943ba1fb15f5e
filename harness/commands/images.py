"""`splitbrain images build`: the images in which `--cluster docker` runs its nodes and the load balancer."""

from __future__ import annotations

import argparse
import sys

from harness.clusters import images

NAME = "images"
HELP = "build the images for --cluster docker: a node, and the load balancer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The one action, and its options."""
    parser.add_argument("action", choices=("build",), help="build the images")
    parser.add_argument(
        "--base",
        metavar="IMAGE",
        help=f"image with Python {images.IMAGE_PYTHON} to build on (default: {images.BASE} where docker/make-base "
        f"made it, else {images.REGISTRY_BASE}, else what docker/make-base makes now)",
    )


def main(args: argparse.Namespace) -> int:
    """Build, and name what was built."""
    images.build_all(args.base, lambda line: print(line, file=sys.stdout, flush=True))  # noqa: T201 - the output
    return 0
