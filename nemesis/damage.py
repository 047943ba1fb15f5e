"""Damage to what lies on a disk: bits turned around, ends cut off.

Rules of this module
    1. Every choice is in the `Damage`; which byte of which file that is follows from the files as they are found, in
       the order of their names.
    2. Only regular files below one directory are touched, and none is made or removed.
    3. Zeros at the end of a file are room that was made ahead: it ends before them, or damage would do none.

`python -m nemesis.damage DIRECTORY DAMAGE` does it where the files are; the damage is JSON.

>>> import tempfile
>>> directory = Path(tempfile.mkdtemp())
>>> _ = (directory / "a.log").write_bytes(b"abc"), (directory / "b.log").write_bytes(b"def")
>>> inflict(directory, Damage("bit-flip", 1, (0.5,)))
'bit 0 of byte 0 of b.log'
>>> inflict(directory, Damage("truncate", 2, path="a*"))
'a.log cut from 3 to 1 bytes'
>>> _ = (directory / "b.log").write_bytes(b"eef" + bytes(100))
>>> inflict(directory, Damage("truncate", 1, path="b*"))
'b.log cut from 3 to 2 bytes'
>>> (directory / "a.log").read_bytes(), (directory / "b.log").read_bytes()
(b'a', b'ee')
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec

from nemesis.target import Damage


class NothingToDamageError(RuntimeError):
    """There is no such file, or nothing in it."""


def written_bytes(file: Path) -> int:
    """How long a file is without the zeros at its end."""
    return len(file.read_bytes().rstrip(b"\0"))


def inflict(directory: Path, damage: Damage) -> str:
    """Damages files below a directory; says what was damaged.

    Raises:
        NothingToDamageError: there was nothing.
        OSError: a file could not be changed.
    """
    pattern = damage.path or "*"
    found = [file for file in sorted(directory.rglob(pattern)) if file.is_file() and not file.is_symlink()]
    sizes = {file: written_bytes(file) for file in found}
    files = [file for file in found if sizes[file]]
    if not files:
        raise NothingToDamageError(f"no file {pattern} with anything in it below {directory.name}")
    if damage.kind == "truncate":
        last = max(files, key=lambda file: (file.stat().st_mtime_ns, file))
        left = max(0, sizes[last] - damage.amount)
        os.truncate(last, left)
        return f"{last.relative_to(directory)} cut from {sizes[last]} to {left} bytes"
    total_bits = 8 * sum(sizes[file] for file in files)
    return ", ".join(
        _flip(files, sizes, int(place * total_bits), directory) for place in damage.places[: damage.amount]
    )


def _flip(files: list[Path], sizes: dict[Path, int], bit: int, directory: Path) -> str:
    for file in files:
        if bit < 8 * sizes[file]:
            break
        bit -= 8 * sizes[file]
    with file.open("r+b") as opened:
        opened.seek(bit // 8)
        byte = opened.read(1)[0]
        opened.seek(bit // 8)
        opened.write(bytes((byte ^ 1 << bit % 8,)))
    return f"bit {bit % 8} of byte {bit // 8} of {file.relative_to(directory)}"


def argv(directory: Path, damage: Damage) -> list[str]:
    """The command line that inflicts it on another machine."""
    return ["python3", "-m", "nemesis.damage", str(directory), msgspec.json.encode(damage).decode()]


def main(arguments: list[str]) -> int:
    """Inflict, and say what was damaged."""
    directory, damage = arguments
    try:
        said = inflict(Path(directory), msgspec.json.decode(damage, type=Damage))
    except (NothingToDamageError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
