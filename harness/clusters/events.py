"""What the nodes said of themselves, on the clock of the run: `nodes/events.jsonl`, made of their logs.

Rules of this module
    1. Nodes stamp what they log with their monotonic clock, which no fault moves. On one machine all processes and
       the harness share it; of another machine's we know how far it is from ours, to half a round trip.
    2. A line that is no event (a traceback, a last word) stays in the log and is left out here.
    3. Nobody looks inside of real nodes, but they say when they lead, and in which term: two leaders of one term are
       against the first invariant of such protocols (Raft, figure 3: Election Safety), whatever clients saw of it.
    4. At most `EVENTS_MAX` events are taken, the first ones of each node.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.systems.base import Service

EVENTS_MAX = 200_000


def write(directory: Path, service: Service, opened_ns: int, ahead_ns: Mapping[str, int]) -> int:
    """Make the file from the logs beside it; returns how many events there are.

    Args:
        directory: of the nodes' logs, and of the file.
        service: which knows what a line of a log says.
        opened_ns: our monotonic clock at time 0 of the run.
        ahead_ns: for each node, how far its monotonic clock is ahead of ours.
    """
    rows: list[tuple[int, int, dict[str, Any]]] = []
    for node, ahead in ahead_ns.items():
        found = _events(directory / f"{node}.log", service)
        for number, (at_ns, event, fields) in enumerate(itertools.islice(found, EVENTS_MAX)):
            at_s = round((at_ns - ahead - opened_ns) / 1e9, 6)
            rows.append((at_ns - ahead, number, {"at_s": at_s, "node": node, "event": event, **fields}))
    rows.sort(key=lambda row: (row[0], row[2]["node"], row[1]))
    with (directory / "events.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for _, _, row in rows)
    return len(rows)


def _events(log: Path, service: Service) -> Iterator[tuple[int, str, dict[str, Any]]]:
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if (event := service.event(line)) is not None:
                    yield event
    except OSError:
        return


def two_leaders(directory: Path) -> list[str] | None:
    """A sentence on the first term that had two leaders, if one had, from the file; None where nobody told of any."""
    led: dict[int, dict[str, float]] = {}
    try:
        with (directory / "events.jsonl").open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if row["event"] == "leader" and isinstance(row.get("term"), int):
                    led.setdefault(row["term"], {}).setdefault(row["node"], row["at_s"])
    except OSError:
        return None
    for term, since_s in sorted(led.items()):
        if len(since_s) > 1:
            shown = ", ".join(f"{node} from {at_s:.3f} s" for node, at_s in since_s.items())
            more = sum(1 for others in led.values() if len(others) > 1) - 1
            return [
                f"Election Safety: term {term} had {len(since_s)} leaders: {shown}"
                + f"; so had {more} other terms" * (more > 0)
            ]
    return [] if led else None
