"""`splitbrain plot RUN_DIR`: draw a stored run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from harness import plot, store
from harness.errors import ConfigError

NAME = "plot"
HELP = "draw a stored run: latencies and rates over time, shaded by the faults in force (SVG)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="directory of a stored run")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"where to draw it (default {store.PLOT} in the run's directory)",
    )


def main(args: argparse.Namespace) -> int:
    """Draw it, and say where."""
    file: Path = args.output or args.run_dir / store.PLOT
    plot.save(args.run_dir, _results(args.run_dir / store.RESULTS), file)
    sys.stdout.write(f"{file}\n")
    return 0


def _results(file: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(
            f"run {file.parent}: {file.name}: {error.strerror}; give the directory of a run"
        ) from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{file}: {error}; it is not the result of a run") from None
