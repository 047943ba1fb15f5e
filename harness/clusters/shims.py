"""The files that steer what is in front of a node's C library: its clock and its disk.

Rules of this module
    1. The library of a kind is put in front of nodes only where the plan has such a fault.
    2. A file is changed in place: the node maps it, and follows from its next call on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness.plan import Plan
from nemesis import backend as backends
from nemesis import clock, disk, power
from nemesis.target import HEALTHY_DISK, ClockRule, CrashPoint, DiskRule

KINDS = ("clock", "disk")
# Of the names of what faults need (`nemesis.abilities`).
PREFIXES: Mapping[str, tuple[str, ...]] = {"clock": ("clock",), "disk": ("disk", "crash-")}
LOSING = "disk-lose-unsynced"
SYNCED = "synced"  # a file in which the library notes what was synced


def _wanted(plan: Plan) -> set[str]:
    return {name for event in plan.faults for name in backends.needs(event.fault, plan.nodes)}


def needed(plan: Plan) -> tuple[str, ...]:
    """The kinds that the plan's faults need."""
    wanted = _wanted(plan)
    return tuple(kind for kind in KINDS if any(name.startswith(PREFIXES[kind]) for name in wanted))


def loses_power(plan: Plan) -> bool:
    """Whether machines lose power in the plan, so that it must be known what was synced."""
    return LOSING in _wanted(plan)


def file_of(node: str, kind: str) -> str:
    """What the file of a node is called."""
    return f"{node}.{kind}"


Publish = Callable[[Path], Awaitable[None]]


class ShimFiles:
    """The files of all nodes, healthy at first, in a directory of this machine.

    Args:
        directory: where they are.
        nodes: whose.
        publish: brings a changed file to where the node sees it, if that is not here.
    """

    def __init__(self, directory: Path, nodes: Sequence[str], publish: Publish | None = None) -> None:
        self.directory = directory
        self._publish = publish
        for node in nodes:
            clock.write_offset(directory / file_of(node, "clock"), 0)
            disk.write_rule(directory / file_of(node, "disk"), HEALTHY_DISK)
            # The library counts in it what it does, as whatever user the node runs.
            (directory / file_of(node, "disk")).chmod(0o666)
            self.synced(node).touch()
            self.synced(node).chmod(0o666)

    def synced(self, node: str) -> Path:
        """Where is noted what the node synced, if it is noted here."""
        return self.directory / file_of(node, SYNCED)

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Make the node's clocks exactly this."""
        file = self.directory / file_of(node, "clock")
        clock.write_rule(file, rule)
        await self._tell(file)

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""
        file = self.directory / file_of(node, "disk")
        disk.write_rule(file, rule)
        await self._tell(file)

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """Let the node die when it next gets there."""
        file = self.directory / file_of(node, "disk")
        disk.write_crash_point(file, point)
        await self._tell(file)

    def struck(self, node: str) -> Mapping[str, int]:
        """How often what is wrong with the disk struck, as far as the file here knows."""
        return disk.read_struck(self.directory / file_of(node, "disk"))

    async def _tell(self, file: Path) -> None:
        if self._publish is not None:
            await self._publish(file)


def environment(
    kinds: Sequence[str],
    libraries: Mapping[str, PurePosixPath],
    files: PurePosixPath,
    node: str,
    data: Path,
    *,
    notes_synced: bool = False,
) -> dict[str, str]:
    """What a node is started with, so that it follows its files; paths are those on its own machine.

    Args:
        kinds: of library.
        libraries: where they are.
        files: where the node's files are.
        node: its name.
        data: what its disk is.
        notes_synced: whether it must be known what was synced.
    """
    if not kinds:
        return {}
    variables = {"LD_PRELOAD": ":".join(str(libraries[kind]) for kind in kinds)}
    if "clock" in kinds:
        variables |= clock.environment(Path(files / file_of(node, "clock")))
    if "disk" in kinds:
        variables |= disk.environment(Path(files / file_of(node, "disk")), data)
    if notes_synced:
        variables |= power.environment(Path(files / file_of(node, SYNCED)))
    return variables
