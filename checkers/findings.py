"""What a checker found, by name: how often, some examples, and the verdict that it adds up to."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from checkers.calls import Call, hashable
from checkers.values import show
from checkers.verdict import Verdict

EVIDENCE_LINES = 20
EXAMPLES_MAX = 3
_SHOWN = 8
_CHARS = 40


@dataclass(slots=True)
class Findings:
    """Counts by name, and of what is wrong the line at which it shows and a sentence.

    Attributes:
        counts: how often each was found, harmless things too.
        wrong: for what is wrong, examples: (line, sentence).
        at: lines at which something wrong shows.
    """

    counts: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    at: list[int] = field(default_factory=list)

    def count(self, name: str, number: int) -> None:
        """Something that is not wrong."""
        if number:
            self.counts[name] = self.counts.get(name, 0) + number

    def add(self, name: str, at: int, sentence: str, *, wrong: bool = True) -> None:
        """Something that shows at the line `at`."""
        self.count(name, 1)
        if wrong:
            self.at.append(at)
            self.wrong.setdefault(name, []).append((at, sentence))

    def several(self, name: str, elements: Sequence[Hashable], key: Hashable, at: int) -> None:
        """Elements of one key for which the same is wrong."""
        if elements:
            self.count(name, len(elements) - 1)
            of = f" of {some([key])}" if key is not None else ""
            self.add(name, at, f"{some(elements)}{of}")

    def seen(self, call: Call) -> list[Any] | None:
        """The elements that a read has seen, none where it found nothing; None, which is wrong, for what is no list."""
        if call.result is None:
            return []
        if isinstance(call.result, list | tuple | set | frozenset):
            return list(call.result)
        sentence = (
            f"{call.span} of process {call.process} was answered {show(hashable(call.result), 40)}, no list"
        )
        self.add("malformed", call.complete.index, sentence)
        return None

    def verdict(
        self, checker: str, operations: int, keys: int, cause: str, notes: Iterable[str] = ()
    ) -> Verdict:
        """Invalid for what is wrong; unknown where there is a cause for that; valid otherwise."""
        lines = [
            f"{name} ({self.counts[name]}): {sentence}"
            for name, found in self.wrong.items()
            for _, sentence in sorted(found)[:EXAMPLES_MAX]
        ]
        counted = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        return Verdict(
            valid="invalid" if lines else "unknown" if cause else "valid",
            checker=checker,
            operations=operations,
            keys=keys,
            cause=cause or None if not lines else None,
            evidence=tuple(lines[:EVIDENCE_LINES]),
            at=tuple(sorted(set(self.at))),
            anomalies={name: self.counts[name] for name in sorted(self.wrong)},
            notes=(*([counted] if counted else []), *notes),
        )


def some(elements: Sequence[Hashable]) -> str:
    """Some of the elements, as text.

    >>> some([3, "x", 7])
    '3, x, 7'
    """
    shown = [
        _word(element) if isinstance(element, str) else show(element, _CHARS) for element in elements[:_SHOWN]
    ]
    more = f" and {len(elements) - _SHOWN} more" if len(elements) > _SHOWN else ""
    return ", ".join(shown) + more


def _word(text: str) -> str:
    return text if len(text) <= _CHARS else text[: _CHARS - 3] + "..."
