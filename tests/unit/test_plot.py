"""A run as a picture: every operation is there, and every fault in the colour of its package."""

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from harness import cli, plot
from harness.effect import NEVER_NS, Span
from nemesis.kinds import FAULTS

MS = 1_000_000
SVG = "{http://www.w3.org/2000/svg}"


def event(id_, start_s, stop_s, **more):
    told = {"id": id_, "kind": "partition", "description": "<n1 | n2>", "proof": "proved"}
    return told | {"start_s": start_s, "stop_s": stop_s} | more


def span(at_ms, took_ms, outcome):
    ended_ns = NEVER_NS if took_ms is None else int((at_ms + took_ms) * MS)
    return Span(0, at_ms * MS, ended_ns, outcome)


def rects(root, shade):
    return [rect for rect in root.iter(f"{SVG}rect") if rect.get("fill") == shade]


def test_every_package_has_a_colour_of_its_own():
    assert len({one.shade for one in FAULTS.values()}) == len(FAULTS)


def test_points_stand_where_they_belong_and_shades_cover_their_faults():
    spans = [span(0, 1, "ok"), span(5_000, 100, "fail"), span(9_000, 1_000, "ok"), span(2_500, None, "info")]
    events = [event("partition-leader-1", 2.5, 5.0), event("kill-2", 5.0, None), event("kill-3", None, None)]
    root = ET.fromstring(plot.draw("title", spans, events))
    points = {
        path.get("class"): re.findall(r"M([\d.]+),([\d.]+)", path.get("d"))
        for path in root.iter(f"{SVG}path")
    }
    assert {outcome: len(found) for outcome, found in points.items()} == {"ok": 2, "info": 1, "fail": 1}
    left, width = plot.LEFT, plot.WIDTH - plot.LEFT - plot.RIGHT
    assert [float(x) for x, _ in points["ok"]] == pytest.approx([left, left + 0.9 * width], abs=0.1)
    ok, fail = [float(y) for _, y in points["ok"]], float(points["fail"][0][1])
    assert ok[1] < fail < ok[0], "what takes longer stands higher"
    assert (ok[0] - fail) / (ok[0] - ok[1]) == pytest.approx(2 / 3, abs=0.01), "by decades"
    leader, *_ = rects(root, FAULTS["partition-leader"].shade)
    assert float(leader.get("x")) == pytest.approx(left + 0.25 * width, abs=0.1)
    assert float(leader.get("width")) == pytest.approx(0.25 * width, abs=0.1)
    kill, *others = rects(root, FAULTS["kill"].shade)
    assert len(others) == 2, "behind both curves, and in its row; what was not injected is nowhere"
    assert float(kill.get("x")) + float(kill.get("width")) == pytest.approx(left + width, abs=0.2), (
        "to the end"
    )
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"partition-leader", "kill", "ok: 2", "unknown: 1", "failed: 1"} <= set(texts)
    assert any("<n1 | n2> (proved)" in title.text for title in root.iter(f"{SVG}title"))


def test_faults_of_no_package_and_those_that_were_set_off():
    events = [
        event("odd", 1.0, 2.0),
        event("isolate-new-leader-1.2", 3.0, 4.0),
        event("x-1", 0.0, 9.0, set_off=2),
    ]
    bands = plot.bands_of(events, 9.0)
    assert [(band.package, band.start_s) for band in bands] == [
        ("partition", 1.0),
        ("isolate-new-leader", 3.0),
    ]
    strange = plot.Band("no such thing", 0, 1, "")
    assert strange.shade == plot.SHADE_OF_OTHERS


def test_a_run_without_operations_and_one_with_very_many():
    ET.fromstring(plot.draw("nothing", [], []))
    many = [span(n, 1, "ok") for n in range(plot.POINTS_MAX + 1)]
    text = plot.draw("many", many, [])
    assert Counter(text)["M"] <= plot.POINTS_MAX / 2 + 10
    assert "one operation in 2 is drawn" in text
    assert f"ok: {len(many)}" in text


def test_a_stored_run_is_drawn_and_what_is_none_is_refused(tmp_path, capsys):
    options = ("--time-limit", "5", "--seed", "1", "--store", str(tmp_path), "--json")
    assert cli.main(["run", *options]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    run_dir = tmp_path / "latest"
    drawn = (run_dir / "plot.svg").read_text()
    shown = [text.text for text in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert f"ok: {result['ok']}" in shown
    other = tmp_path / "other.svg"
    assert cli.main(["plot", str(run_dir), "--output", str(other)]) == 0
    assert other.read_text() == drawn
    assert cli.main(["plot", str(tmp_path / "nowhere")]) == 254
    assert "give the directory of a run" in capsys.readouterr().err
    assert cli.main(["plot", str(run_dir), "--output", str(tmp_path / "no" / "such.svg")]) == 255
