"""What a person sees while a run goes on; plain lines where the output is not a terminal.

This is the only place of a run that looks at a real clock, and nothing of the run depends on it.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.plan import Plan
from harness.recorder import Recorder

PLAIN_INTERVAL_S = 5.0  # wall seconds between plain lines
FAULTS_SHOWN = 4


class QuietProgress:
    """Says nothing."""

    def update(self, now_s: float, recorder: Recorder, faults_in_force: list[str]) -> None:
        """Nothing."""


class PlainProgress:
    """A line every few seconds of wall time."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._last_s = time.monotonic()

    def update(self, now_s: float, recorder: Recorder, faults_in_force: list[str]) -> None:
        """Print a line if the last one is old enough."""
        if time.monotonic() - self._last_s < PLAIN_INTERVAL_S:
            return
        self._last_s = time.monotonic()
        faults = "; ".join(faults_in_force[:FAULTS_SHOWN]) or "none"
        self._console.print(
            f"{now_s:7.1f} s of {self._plan.config.time_limit_s:g} s  {_counts(recorder)}  faults in force: {faults}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


class LiveProgress:
    """A bar, counts and the faults in force, redrawn in place; a context manager."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._plan = plan
        self._unit = " simulated" if plan.config.cluster == "sim" else ""
        self._live = Live(console=console, refresh_per_second=10, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, now_s: float, recorder: Recorder, faults_in_force: list[str]) -> None:
        """Redraw, as often as the terminal is refreshed."""
        limit_s = self._plan.config.time_limit_s
        table = Table.grid(padding=(0, 1))
        table.add_row(
            Text(f"seed {self._plan.seed}", style="bold"),
            ProgressBar(total=limit_s, completed=min(now_s, limit_s), width=30),
            f"{min(now_s, limit_s):.1f} / {limit_s:g} s{self._unit}"
            if now_s <= limit_s
            else "healed; final reads",
            _counts(recorder),
        )
        faults: list[Text] = [
            Text(f"  fault: {fault}", style="red") for fault in faults_in_force[:FAULTS_SHOWN]
        ]
        more = len(faults_in_force) - FAULTS_SHOWN
        if more > 0:
            faults.append(Text(f"  and {more} more", style="red"))
        faults += [Text("") for _ in range(FAULTS_SHOWN - len(faults))]  # keeps the picture from jumping
        self._live.update(Group(table, *faults))


def _counts(recorder: Recorder) -> str:
    return (
        f"{len(recorder.ops)} lines: {recorder.count('ok')} ok, {recorder.count('fail')} fail, "
        f"{recorder.count('info')} info"
    )
