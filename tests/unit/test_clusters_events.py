"""Logs of nodes become events on the clock of the run."""

import json

from harness.clusters import events
from harness.systems.raft_service import RaftService


def line(mono_ns, event, **fields):
    return (
        json.dumps({"ts": "x", "mono_ns": mono_ns, "level": "info", "node": "?", "event": event, **fields})
        + "\n"
    )


def test_events_of_machines_with_clocks_of_their_own_are_in_order(tmp_path):
    (tmp_path / "n1.log").write_text(
        line(1_500_000_000, "leader", term=2)
        + "Traceback (most recent call last):\n{}\n[1]\n"
        + line(4_000_000_000, "deposed")
    )
    (tmp_path / "n2.log").write_text(line(902_000_000_000, "candidate", term=3))
    assert (
        events.write(tmp_path, RaftService(), 1_000_000_000, {"n1": 0, "n2": 900_000_000_000, "n3": 0}) == 3
    )
    rows = [json.loads(row) for row in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert rows == [
        {"at_s": 0.5, "node": "n1", "event": "leader", "term": 2},
        {"at_s": 1.0, "node": "n2", "event": "candidate", "term": 3},
        {"at_s": 3.0, "node": "n1", "event": "deposed"},
    ]


def test_two_leaders_of_one_term_are_told(tmp_path):
    def told(*rows):
        lines = [
            json.dumps({"at_s": at_s, "node": node, "event": "leader", "term": term})
            for at_s, node, term in rows
        ]
        (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
        return events.two_leaders(tmp_path)

    assert events.two_leaders(tmp_path) is None
    assert told((0.1, "n1", 1), (0.5, "n2", 2), (0.7, "n2", 2)) == []
    assert told((0.1, "n1", 1), (0.5, "n2", 2), (0.75, "n3", 2), (1, "n1", 4), (2, "n2", 4)) == [
        "Election Safety: term 2 had 2 leaders: n2 from 0.500 s, n3 from 0.750 s; so had 1 other terms"
    ]
    (tmp_path / "events.jsonl").write_text('{"at_s": 1, "node": "n1", "event": "started"}\n')
    assert events.two_leaders(tmp_path) is None, "nobody told who led"
