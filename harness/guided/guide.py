"""A guided search as part of a sweep: plans by number, and a corpus that outlives the sweep.

Rules of this module
    1. What goes into the corpus is appended to a file beside the results, a line an entry, and read again when the
       sweep is resumed. A torn last line is left out.
    2. The order in which results come in depends on the workers, and so does what is tried next: a guided sweep does
       not repeat itself. Every failure is stored with its plan, and that one does.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from harness.config import Config
from harness.errors import SetupError
from harness.guided.corpus import Corpus, Entry
from harness.plan import Plan

SUFFIX = ".corpus.jsonl"


class Guide:
    """Gives out plans, and learns from what they reached."""

    def __init__(self, config: Config, first: int, results: Path, *, swarm: bool) -> None:
        self.path = results.with_suffix(SUFFIX)
        stored = _read(self.path)
        self._corpus = Corpus(config, first + len(stored), swarm=swarm)
        self._under_way: dict[int, Plan] = {}
        for entry in stored:
            self._corpus.learn(entry.plan, entry.features)

    @property
    def reached(self) -> int:
        """How many features were reached."""
        return self._corpus.reached

    def plan(self, number: int) -> Plan:
        """What to run next."""
        plan = self._under_way[number] = self._corpus.next()
        return plan

    def learn(self, number: int, features: tuple[int, ...]) -> int:
        """How many of the features are new; if any is, the plan of that number is kept."""
        plan = self._under_way.pop(number)
        new = self._corpus.learn(plan, features)
        if new:
            self._append(Entry(plan, features))
        return new

    def _append(self, entry: Entry) -> None:
        try:
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            raise SetupError(f"corpus {self.path}: {error.strerror}; the results so far are kept") from None


def _read(path: Path) -> list[Entry]:
    entries = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                entries.append(msgspec.json.decode(line, type=Entry))
    return entries
