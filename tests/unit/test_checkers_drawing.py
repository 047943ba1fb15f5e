"""Counterexamples as pictures: sound text, everything in it, and the same each time."""

import random
from xml.etree import ElementTree as ET

import pytest

from checkers import History, Op, check_linearizable, drawing
from checkers.drawing import Arrow, Box, Figure
from harness.cli import main


def stale(key="x"):
    rows = [(0, "write", 1), (0, "write", 2), (1, "read", 1)]
    lines = []
    for process, f, value in rows:
        lines.append(
            Op(len(lines), len(lines) + 1, process, "invoke", f, key, None if f == "read" else value)
        )
        lines.append(Op(len(lines), len(lines) + 1, process, "ok", f, key, value))
    return lines


def test_the_circle_is_drawn():
    """Each operation is a box in the lane of its process; each step of the circle is an arrow."""
    figure = check_linearizable(stale(), "register").figure
    assert [box.text for box in figure.boxes] == ["write 1", "write 2", "read -> 1"]
    assert {(arrow.before, arrow.after, arrow.kind) for arrow in figure.arrows if arrow.in_circle} == {
        (2, 4, "real time"),
        (4, 2, "forced"),
    }
    text = drawing.svg(figure)
    root = ET.fromstring(text)
    said = "".join(root.itertext())
    for word in ("write 1", "read -> 1", "process 1", "which is a circle"):
        assert word in said
    assert text == drawing.svg(check_linearizable(stale(), "register").figure)
    assert "n4 -> n2" in drawing.dot(figure)


def test_a_dead_end_is_told_below():
    """Where there is no circle the picture says where every order gets stuck."""
    rows = [("enqueue", 1, 1), ("enqueue", 2, 2), ("dequeue", None, 2)]
    lines = []
    for f, value, result in rows:
        lines += [
            Op(len(lines), 0, 0, "invoke", f, None, value),
            Op(len(lines) + 1, 0, 0, "ok", f, None, result),
        ]
    figure = check_linearizable(History.of(lines), "fifo-queue").figure
    assert not figure.arrows
    assert any("got 2 while there was 1" in line for line in figure.endings)
    ET.fromstring(drawing.svg(figure))


@pytest.mark.parametrize(
    ("model", "algorithm"), [("register", "intervals"), ("revision-register", "revisions")]
)
def test_what_is_found_without_a_search_is_drawn(model, algorithm):
    """Answers that are impossible by themselves, and what revisions contradict."""
    rows = [("write", 1, 1), ("write", 1, 2), ("write", 2, 3), ("read", 1, 1)]
    lines = []
    for f, value, revision in rows:
        lines += [
            Op(len(lines), len(lines) + 1, 0, "invoke", f, "x", None if f == "read" else value),
            Op(len(lines) + 1, len(lines) + 2, 0, "ok", f, "x", value, revision=revision),
        ]
    verdict = check_linearizable(History.of(lines), model)
    assert (verdict.valid, verdict.algorithm) == ("invalid", algorithm)
    said = "".join(ET.fromstring(drawing.svg(verdict.figure)).itertext())
    assert [line for line in verdict.evidence if "because" in line and line.strip() not in said] == []
    assert "read -> 1" in said
    assert "read -> 1" in drawing.dot(verdict.figure)


@pytest.mark.parametrize("seed", range(40))
def test_any_figure_is_sound(seed):
    """Odd texts, lost operations, arrows in all directions: always well formed, and nothing left of the edge."""
    rng = random.Random(seed)
    boxes = []
    for n in range(rng.randint(1, 12)):
        call = rng.randrange(50) * 2
        ret = None if rng.random() < 0.2 else call + 1 + 2 * rng.randrange(20)
        text = rng.choice(('write "<&>"', "read -> " + "x" * 60, "cas 1 to 2"))
        boxes.append(Box(n, rng.choice("0123"), text, rng.choice(("ok", "info", "mismatch")), call, ret))
    kinds = ("real time", "saw", "forced", "start")
    places = [drawing.START, *(box.index for box in boxes)]
    arrows = tuple(
        Arrow(
            rng.choice(places), rng.choice(places[1:]), rng.choice(kinds), "<because>", in_circle=n % 2 == 0
        )
        for n in range(rng.randint(0, 8))
    )
    figure = Figure('key "<x>"', "held 0", tuple(boxes), arrows, ("it got stuck",))
    root = ET.fromstring(drawing.svg(figure))
    assert all(
        float(rect.get("width")) > 0 and float(rect.get("x", "0")) >= 0
        for rect in root.iter()
        if rect.tag.endswith("rect")
    )
    assert drawing.dot(figure).count("->") >= len(arrows)


def test_the_command_draws(tmp_path, capsys):
    """To a file of either kind; other names are refused before anything is checked."""
    from checkers import encode_op  # noqa: PLC0415

    history = tmp_path / "history.jsonl"
    history.write_bytes(b"".join(map(encode_op, stale())))
    for name in ("why.svg", "why.dot"):
        assert main(["check", str(history), "--model", "register", "--drawing", str(tmp_path / name)]) == 1
        assert (tmp_path / name).stat().st_size > 200
    assert main(["check", str(history), "--model", "register", "--drawing", str(tmp_path / "why.png")]) == 254
    assert "neither .svg nor .dot" in capsys.readouterr().err
