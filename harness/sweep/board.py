"""What a sweep has found so far: counts, and failures grouped by signature; as a value, as lines, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.errors import Valid
from harness.sweep.one import Result

SEEDS_SHOWN = 6
GROUPS_SHOWN = 12
GROUPS_MAX = 500


@dataclass(slots=True)
class Found:
    """Failures of one kind."""

    signature: str
    valid: Valid
    count: int = 0
    seeds: list[int] = field(default_factory=list)
    run_dir: str | None = None


class Board:
    """Counts of results.

    Attributes:
        total: how many seeds there will be, None where nobody knows.
        resumed: how many of the results were there before.
        interrupted: somebody ended it before all seeds had run.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.resumed = 0
        self.interrupted = False
        self.count = 0
        self.ops = 0
        self.faults = 0
        self.sim_s = 0.0
        self.recovered_ms_max: float | None = None
        self.reached = 0
        self.groups: dict[str, Found] = {}
        self.by_verdict: dict[Valid, int] = {"valid": 0, "invalid": 0, "unknown": 0}

    def add(self, result: Result) -> None:
        """Count a result."""
        self.count += 1
        self.ops += result.ops
        self.faults += result.faults
        self.sim_s += result.sim_seconds
        self.by_verdict[result.valid] += 1
        self.reached += result.new_features
        if result.recovered_ms is not None:
            self.recovered_ms_max = max(result.recovered_ms, self.recovered_ms_max or 0.0)
        if not result.signature or (result.signature not in self.groups and len(self.groups) >= GROUPS_MAX):
            return
        group = self.groups.setdefault(result.signature, Found(result.signature, result.valid))
        group.count += 1
        if len(group.seeds) < SEEDS_SHOWN:
            group.seeds.append(result.seed)
        group.run_dir = group.run_dir or result.run_dir

    @property
    def worst(self) -> Valid:
        """The worst verdict; a sweep that was interrupted, or without any seed, is never valid."""
        for valid in ("invalid", "unknown"):
            if self.by_verdict[valid]:
                return valid
        return "valid" if self.count and not self.interrupted else "unknown"

    def per_minute(self, elapsed_s: float) -> float:
        """How many seeds run in a minute."""
        return (self.count - self.resumed) * 60 / elapsed_s if elapsed_s > 0 else 0.0

    def line(self, elapsed_s: float) -> str:
        """Where the sweep is, on one line."""
        of = f" of {self.total}" if self.total is not None else ""
        slowest = self.recovered_ms_max
        recovery = f", slowest recovery {slowest / 1000:.2f} s" if slowest is not None else ""
        return (
            f"{self.count}{of} seeds, {self.per_minute(elapsed_s):.0f} a minute, {self.faults} faults injected, "
            f"{self.ops} operations, {self.reached} states reached, "
            f"{self.by_verdict['invalid']} invalid, {self.by_verdict['unknown']} unknown{recovery}"
        )

    def sorted_groups(self) -> list[Found]:
        """Invalid ones first, then the more frequent first."""
        return sorted(self.groups.values(), key=lambda g: (g.valid != "invalid", -g.count, g.signature))

    def group_lines(self) -> list[str]:
        """A line a group, with what to type next."""
        lines = []
        for group in self.sorted_groups()[:GROUPS_SHOWN]:
            seeds = " ".join(map(str, group.seeds)) + (" ..." if group.count > len(group.seeds) else "")
            lines.append(f"{group.valid}: {group.count} x {group.signature}  (seeds {seeds})")
            if group.run_dir is not None:
                lines.append(f"    replay: splitbrain replay {group.run_dir}")
                lines.append(f"    shrink: splitbrain shrink {group.run_dir}")
        if len(self.groups) > GROUPS_SHOWN:
            lines.append(f"and {len(self.groups) - GROUPS_SHOWN} more kinds in the results file")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "seeds": self.count,
            "ops": self.ops,
            "faults": self.faults,
            "invalid": self.by_verdict["invalid"],
            "unknown": self.by_verdict["unknown"],
            "sim_seconds": round(self.sim_s, 3),
            "states_reached": self.reached,
            "recovered_ms_max": self.recovered_ms_max,
            "groups": [
                {
                    "signature": group.signature,
                    "valid": {"invalid": False}.get(group.valid, "unknown"),
                    "count": group.count,
                    "seeds": group.seeds,
                    "run_dir": group.run_dir,
                }
                for group in self.sorted_groups()
            ],
        }

    def picture(self, elapsed_s: float) -> Group:
        """The same for a terminal, redrawn in place."""
        table = Table(box=None, pad_edge=False)
        for column in ("verdict", "times", "what", "first seeds"):
            table.add_column(column)
        for group in self.sorted_groups()[:GROUPS_SHOWN]:
            style = "red" if group.valid == "invalid" else "yellow"
            row = (group.valid, str(group.count), group.signature, " ".join(map(str, group.seeds)))
            table.add_row(*(Text(cell, style=style) for cell in row))
        bar = ProgressBar(total=self.total or 1, completed=self.count if self.total else 0, width=40)
        return Group(bar, Text(self.line(elapsed_s)), *([table] if self.groups else []))
