"""A run as one picture: how long each operation took, how many ended in which way, and which faults were in force.

Rules of this module
    1. What comes out is text, the same for the same run: an SVG file that needs no script, font or other file.
    2. The times of a fault are shaded in the colour of its package (`nemesis.kinds.FaultKind.shade`); a package has a
       row of its own above, so that faults that overlap can be told apart.
    3. Of more operations than `POINTS_MAX` every so manyth is drawn, and the picture says so; counts are of all.
    4. An operation whose outcome nobody knows is drawn where it was given up, or at the top if it never was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from checkers.formats import read_history
from harness import store
from harness.effect import NEVER_NS, Span, spans_of
from harness.errors import SetupError
from nemesis.kinds import FAULTS

POINTS_MAX = 20_000
SHADE_OF_OTHERS = "#dddddd"  # faults of a plan by hand, of no package
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "ok": ("#2c6fbb", "ok"),
    "info": ("#e08a00", "unknown"),
    "fail": ("#c2185b", "failed"),
}
WIDTH, LEFT, RIGHT = 1180.0, 170.0, 20.0
ROW, TITLE, GAP = 15.0, 34.0, 34.0
LATENCY_HEIGHT, RATE_HEIGHT = 260.0, 120.0
TICKS_X = 10
MS_FLOOR = 0.1
NS_PER_S, NS_PER_MS = 1e9, 1e6


class Band(NamedTuple):
    """When a fault was in force."""

    package: str
    start_s: float
    stop_s: float
    text: str

    @property
    def shade(self) -> str:
        """Its package's colour."""
        return FAULTS[self.package].shade if self.package in FAULTS else SHADE_OF_OTHERS


def package_of(event: Mapping[str, Any]) -> str:
    """The package that a fault was drawn from: its events are named after it.

    >>> package_of({"id": "kill-leader-12", "kind": "kill"}), package_of({"id": "odd", "kind": "partition"})
    ('kill-leader', 'partition')
    """
    name = str(event["id"])
    while name and name not in FAULTS:
        name = name.rpartition("-")[0]
    return name or str(event["kind"])


def bands_of(events: Sequence[Mapping[str, Any]], end_s: float) -> list[Band]:
    """Those faults of a result that were in force; one that was never healed lasts to the end."""
    return [
        Band(
            package_of(event),
            event["start_s"],
            end_s if event["stop_s"] is None else event["stop_s"],
            f"{event['description']} ({event['proof']})",
        )
        for event in events
        if event["start_s"] is not None and "set_off" not in event
    ]


def draw(title: str, spans: Sequence[Span], events: Sequence[Mapping[str, Any]]) -> str:
    """The picture."""
    ends = [span.completed_ns for span in spans if span.completed_ns < NEVER_NS]
    last_ns = max([*ends, *(span.invoked_ns for span in spans)], default=0)
    known = [event[name] for event in events for name in ("start_s", "stop_s") if event[name] is not None]
    end_s = max([last_ns / NS_PER_S, *known, 0.001])
    return "\n".join(_Picture(title, spans, bands_of(events, end_s), end_s).parts()) + "\n"


class _Picture:
    def __init__(self, title: str, spans: Sequence[Span], bands: Sequence[Band], end_s: float) -> None:
        self.title = title
        self.spans = spans
        self.bands = bands
        self.end_s = end_s
        self.packages = list(dict.fromkeys(band.package for band in bands))
        self.rows_top = TITLE + 8
        self.latency_top = self.rows_top + ROW * len(self.packages) + 14
        self.latency_floor = self.latency_top + LATENCY_HEIGHT
        self.rate_top = self.latency_floor + GAP
        self.rate_floor = self.rate_top + RATE_HEIGHT
        took_ms = [
            (span.completed_ns - span.invoked_ns) / NS_PER_MS
            for span in spans
            if span.completed_ns < NEVER_NS
        ]
        self.lowest = math.floor(math.log10(max(MS_FLOOR, min(took_ms, default=1.0))))
        self.highest = max(self.lowest + 1, math.ceil(math.log10(max(MS_FLOOR, *took_ms, 1.0))))

    def x(self, at_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * at_s / self.end_s

    def y_of_ms(self, took_ms: float) -> float:
        share = (math.log10(max(took_ms, 10.0**self.lowest)) - self.lowest) / (self.highest - self.lowest)
        return self.latency_floor - LATENCY_HEIGHT * share

    def parts(self) -> Iterator[str]:
        height = self.rate_floor + 44
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" '
            f'height="{height:.0f}" font-family="sans-serif" font-size="11" role="img">'
        )
        yield f'<rect width="{WIDTH:.0f}" height="{height:.0f}" fill="#ffffff"/>'
        yield _text(12, 20, self.title, weight="bold")
        yield from self._shading()
        yield from self._axes()
        yield from self._points()
        yield from self._rates()
        yield from self._legend()
        yield "</svg>"

    def _shading(self) -> Iterator[str]:
        for row, package in enumerate(self.packages):
            yield _text(LEFT - 8, self.rows_top + ROW * row + 11, package, anchor="end")
        for band in self.bands:
            left, width = self.x(band.start_s), max(1.0, self.x(band.stop_s) - self.x(band.start_s))
            top = self.rows_top + ROW * self.packages.index(band.package)
            says = f"{band.text}, {band.start_s:g} to {band.stop_s:g} s"
            at = f'x="{left:.1f}" width="{width:.1f}" fill="{band.shade}"'
            for y, tall in ((self.latency_top, LATENCY_HEIGHT), (self.rate_top, RATE_HEIGHT)):
                yield f'<rect {at} y="{y:.0f}" height="{tall:.0f}" fill-opacity="0.35"/>'
            yield (
                f'<rect {at} y="{top + 1:.0f}" height="{ROW - 3:.0f}" stroke="#666666" stroke-width="0.5">'
                f"<title>{escape(says)}</title></rect>"
            )

    def _axes(self) -> Iterator[str]:
        for power in range(self.lowest, self.highest + 1):
            y = self.y_of_ms(10.0**power)
            yield _line(LEFT, y, WIDTH - RIGHT, y)
            yield _text(LEFT - 8, y + 4, f"{10.0**power:g} ms", anchor="end")
        step_s = _round_step(self.end_s / TICKS_X)
        for number in range(int(self.end_s / step_s) + 1):
            x = self.x(number * step_s)
            yield _line(x, self.latency_top, x, self.latency_floor)
            yield _line(x, self.rate_top, x, self.rate_floor)
            yield _text(x, self.rate_floor + 14, f"{number * step_s:g} s", anchor="middle")
        yield _text(12, self.latency_top + 12, "latency")
        yield _text(12, self.rate_top + 12, "ended per second")

    def _points(self) -> Iterator[str]:
        every = -(-len(self.spans) // POINTS_MAX) or 1
        for outcome, (colour, _) in OUTCOMES.items():
            dots = [
                f"M{self.x(span.invoked_ns / NS_PER_S):.1f},{self._y_of(span):.1f}h0"
                for span in self.spans[::every]
                if span.outcome == outcome
            ]
            if dots:
                yield (
                    f'<path class="{outcome}" d="{"".join(dots)}" stroke="{colour}" stroke-width="2.6" '
                    'stroke-linecap="round" stroke-opacity="0.75" fill="none"/>'
                )
        if every > 1:
            yield _text(WIDTH - RIGHT, 20, f"one operation in {every} is drawn", anchor="end")

    def _y_of(self, span: Span) -> float:
        if span.completed_ns >= NEVER_NS:
            return self.latency_top
        return self.y_of_ms((span.completed_ns - span.invoked_ns) / NS_PER_MS)

    def _rates(self) -> Iterator[str]:
        slots = max(1, math.ceil(self.end_s))
        counts = {outcome: [0] * slots for outcome in OUTCOMES}
        for span in self.spans:
            if span.completed_ns < NEVER_NS:
                counts[span.outcome][min(slots - 1, int(span.completed_ns / NS_PER_S))] += 1
        most = max(1, *(max(numbers) for numbers in counts.values()))
        yield _text(LEFT - 8, self.rate_top + 4, f"{most}", anchor="end")
        yield _text(LEFT - 8, self.rate_floor + 4, "0", anchor="end")
        for outcome, numbers in counts.items():
            places = " ".join(
                f"{self.x(min(self.end_s, second + 0.5)):.1f},{self.rate_floor - RATE_HEIGHT * number / most:.1f}"
                for second, number in enumerate(numbers)
            )
            colour = OUTCOMES[outcome][0]
            yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.6"/>'

    def _legend(self) -> Iterator[str]:
        x, y = LEFT, self.rate_floor + 34
        for outcome, (colour, name) in OUTCOMES.items():
            count = sum(span.outcome == outcome for span in self.spans)
            yield f'<circle cx="{x + 4:.0f}" cy="{y - 4:.0f}" r="4" fill="{colour}"/>'
            yield _text(x + 14, y, f"{name}: {count}")
            x += 130


def _round_step(step: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten.

    >>> _round_step(6.3), _round_step(0.3), _round_step(12)
    (10.0, 0.5, 20.0)
    """
    unit = 10.0 ** math.floor(math.log10(step))
    return next(unit * times for times in (1, 2, 5, 10) if unit * times >= step)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#cccccc" stroke-width="0.6"/>'
    )


def _text(x: float, y: float, text: str, *, weight: str = "normal", anchor: str = "start") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}" text-anchor="{anchor}" fill="#222222">'
        f"{escape(text)}</text>"
    )


def save(run_dir: Path, result: Mapping[str, Any], file: Path) -> None:
    """Draw the run with this result.

    Raises:
        SetupError: the file cannot be written.
    """
    picture = of_run(run_dir / store.HISTORY, result)
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"plot {file}: cannot be written ({error.strerror}); choose another place") from None


def of_run(history: Path, result: Mapping[str, Any]) -> str:
    """The picture of a stored run."""
    verdict = {True: "valid", False: "invalid"}.get(result["valid"], "unknown")
    bug = f", bug {result['bug']}" if result["bug"] else ""
    title = (
        f"{result['system']} on {result['cluster']}, workload {result['workload']}, seed {result['seed']}{bug}: "
        f"{verdict}, {result['ops']} operations, {result['faults']} faults"
    )
    return draw(title, spans_of(read_history(history).lines), result["fault_events"])
