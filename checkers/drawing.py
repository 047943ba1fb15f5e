"""A counterexample as a picture: operations over time, and who must come before whom.

Rules of this module
    1. What comes out is text, the same for the same figure: an SVG element that stands alone or inside a page (no
       script, no style sheet, no identifiers), or a graph in the DOT language.
    2. It draws what `checkers.explain` found and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

#: The node of the value that was there before.
START = -1

_LANE, _BOX, _LEFT, _TOP, _UNIT_MIN, _UNIT_MAX, _CHAR, _WIDTH_MAX = 62, 22, 118, 46, 34, 170, 7.3, 1600
_COLOURS = {"real time": "#777777", "saw": "#1f6fb4", "forced": "#c0392b", "start": "#777777"}
_BOX_COLOURS = {"ok": "#e3eef8", "info": "#f6e7c8", "mismatch": "#eee3f3"}
_CAPTIONS = {
    "real time": "returned before the other was called",
    "saw": "wrote what the other saw",
    "forced": "follows from the others",
}


@dataclass(frozen=True, slots=True)
class Box:
    """An operation: its `Operation.invoke_index`, and what is shown of it."""

    index: int
    process: str
    text: str
    status: str
    call: int
    ret: int | None


@dataclass(frozen=True, slots=True)
class Arrow:
    """``before`` must come before ``after``; ``kind`` is ``real time``, ``saw``, ``forced`` or ``start``."""

    before: int
    after: int
    kind: str
    text: str
    in_circle: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A counterexample.

    Attributes:
        title: what it is of.
        start: what the object held before these operations.
        boxes: the operations, by their calls.
        arrows: who must come before whom; a circle of them, and what it rests on. None where the search tells why.
        endings: where every order that is left gets stuck, a sentence each.
    """

    title: str
    start: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...] = ()
    endings: tuple[str, ...] = ()


def dot(figure: Figure) -> str:
    """The figure in the DOT language, for Graphviz."""
    lines = ["digraph counterexample {", "  rankdir=LR; node [shape=box, fontname=monospace];"]
    lines.append(f"  label={_quoted(figure.title)};")
    if any(START in {arrow.before, arrow.after} for arrow in figure.arrows):
        lines.append(f"  start [shape=ellipse, label={_quoted(figure.start)}];")
    lines += [
        f"  {_node(box.index)} [label={_quoted(f'[{box.index}] process {box.process}')}+{_quoted(': ' + box.text)}];"
        for box in figure.boxes
    ]
    for arrow in figure.arrows:
        width = 2 if arrow.in_circle else 1
        style = "dashed" if arrow.kind == "real time" else "solid"
        look = f"color={_quoted(_COLOURS[arrow.kind])}, penwidth={width}, style={style}, tooltip={_quoted(arrow.text)}"
        lines.append(f"  {_node(arrow.before)} -> {_node(arrow.after)} [{look}];")
    return "\n".join([*lines, "}", ""])


def _node(index: int) -> str:
    return "start" if index == START else f"n{index}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def svg(figure: Figure) -> str:
    """The figure as one SVG element."""
    return "".join(_Picture(figure).parts())


class _Picture:
    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        lanes = dict.fromkeys(box.process for box in figure.boxes)
        self.lanes = {process: number for number, process in enumerate(lanes)}
        moments = sorted({n for box in figure.boxes for n in (box.call, box.ret) if n is not None})
        self.rank = {moment: number for number, moment in enumerate(moments)}
        self.end = len(moments)
        wanted = [len(box.text) * _CHAR / (self._ret(box) - self.rank[box.call]) for box in figure.boxes]
        room = (_WIDTH_MAX - _LEFT) / max(1, self.end)
        self.unit = min(_UNIT_MAX, max([_UNIT_MIN, *wanted]), max(_UNIT_MIN, room))
        self.places = {box.index: self._place(box) for box in figure.boxes}
        self.floor = _TOP + _LANE * max(1, len(self.lanes))

    def _ret(self, box: Box) -> int:
        return self.end if box.ret is None else self.rank[box.ret]

    def _place(self, box: Box) -> tuple[float, float, float]:
        """Left, right and middle height of a box."""
        y = _TOP + _LANE * self.lanes[box.process] + _LANE / 2
        return _LEFT + self.unit * self.rank[box.call], _LEFT + self.unit * self._ret(box), y

    def parts(self) -> Iterator[str]:
        """The elements, from back to front."""
        kinds = [kind for kind in _CAPTIONS if any(arrow.kind == kind for arrow in self.figure.arrows)]
        below = [*self.figure.endings]
        width = _LEFT + self.unit * self.end + 40
        width = max(width, 760, _LEFT + 20 + _CHAR * max([0, *map(len, below), len(self.figure.title)]))
        height = self.floor + 24 + 18 * (len(below) + len(kinds))
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="monospace" font-size="12" role="img">'
        )
        yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
        yield _text(12, 22, self.figure.title, weight="bold")
        for process, lane in self.lanes.items():
            y = _TOP + _LANE * lane + _LANE / 2
            yield _text(12, y + 4, f"process {process}")
            yield f'<line x1="{_LEFT - 8}" y1="{y:.0f}" x2="{width - 12:.0f}" y2="{y:.0f}" stroke="#dddddd"/>'
        for box in self.figure.boxes:
            yield from self._box(box)
        for number, arrow in enumerate(self.figure.arrows):
            yield from self._arrow(arrow, number)
        y = self.floor + 18
        for kind in kinds:
            yield f'<line x1="14" y1="{y - 4}" x2="44" y2="{y - 4}" stroke="{_COLOURS[kind]}" stroke-width="2"/>'
            yield _text(52, y, f"{kind}: {_CAPTIONS[kind]}")
            y += 18
        for line in below:
            yield _text(12, y, line)
            y += 18
        yield "</svg>"

    def _box(self, box: Box) -> Iterator[str]:
        left, right, y = self.places[box.index]
        fill = _BOX_COLOURS.get(box.status, "#ffffff")
        dashed = ' stroke-dasharray="4 3"' if box.ret is None else ""
        yield (
            f'<rect x="{left:.0f}" y="{y - _BOX / 2:.0f}" width="{right - left:.0f}" height="{_BOX}" rx="4" '
            f'fill="{fill}" stroke="#446688"{dashed}><title>{escape(f"[{box.index}] {box.text}")}</title></rect>'
        )
        fits = max(3, int((right - left - 8) / _CHAR))
        shown = box.text if len(box.text) <= fits else box.text[: fits - 1] + "\u2026"
        yield _text(left + 4, y + 4, shown)
        yield _text(left, y - _BOX / 2 - 4, f"[{box.index}]", colour="#666666")

    def _arrow(self, arrow: Arrow, number: int) -> Iterator[str]:
        x1, y1, x2, y2 = self._ends(arrow)
        colour, width = _COLOURS[arrow.kind], 2.2 if arrow.in_circle else 1.2
        dashed = ' stroke-dasharray="5 4"' if arrow.kind in {"real time", "start"} else ""
        # Arrows between the same lanes bend by different amounts, so that they do not hide each other.
        bend = (18 + 9 * (number % 3)) * (1 if x2 >= x1 else -1)
        middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2 + (bend if abs(y1 - y2) < 1 else 0)
        if abs(y1 - y2) >= 1:
            middle_x += bend
        yield (
            f'<path d="M {x1:.0f} {y1:.0f} Q {middle_x:.0f} {middle_y:.0f} {x2:.0f} {y2:.0f}" fill="none" '
            f'stroke="{colour}" stroke-width="{width}"{dashed}><title>{escape(arrow.text)}</title></path>'
        )
        yield _head(x2, y2, x2 - middle_x, y2 - middle_y, colour)

    def _ends(self, arrow: Arrow) -> tuple[float, float, float, float]:
        left, right, y2 = self.places[arrow.after]
        if arrow.before == START:
            return _LEFT - 14, _TOP, left, y2 - _BOX / 4
        first_left, first_right, y1 = self.places[arrow.before]
        if arrow.kind == "real time":
            return first_right, y1, left, y2
        down = 1 if y2 > y1 else -1 if y2 < y1 else 0
        x1, x2 = (first_left + first_right) / 2, (left + right) / 2
        if down == 0:
            return x1, y1 + _BOX / 2, x2, y2 + _BOX / 2
        return x1, y1 + down * _BOX / 2, x2, y2 - down * _BOX / 2


def _text(x: float, y: float, text: str, *, weight: str = "normal", colour: str = "#222222") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _head(x: float, y: float, dx: float, dy: float, colour: str) -> str:
    """The head of an arrow that comes from that direction."""
    size = max(1e-6, (dx * dx + dy * dy) ** 0.5)
    ux, uy = dx / size, dy / size
    back_x, back_y = x - 9 * ux, y - 9 * uy
    points = f"{x:.1f},{y:.1f} {back_x - 4 * uy:.1f},{back_y + 4 * ux:.1f} {back_x + 4 * uy:.1f},{back_y - 4 * ux:.1f}"
    return f'<polygon points="{points}" fill="{colour}"/>'
