"""Verdicts: what a checker concluded, from what, and what it could not conclude.

Rules of this module
    1. A verdict is ``valid``, ``invalid`` or ``unknown``; several merge to the worst, where ``invalid`` is
       worse than ``unknown`` and ``unknown`` worse than ``valid``. Unknown is never a pass.
    2. The same history gives the same text. Nothing here depends on time, on hash seeds or on paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from checkers.drawing import Figure

Validity = Literal["valid", "invalid", "unknown"]

#: From best to worst.
VALIDITIES: tuple[Validity, ...] = ("valid", "unknown", "invalid")
_JSON: dict[Validity, bool | str] = {"valid": True, "unknown": "unknown", "invalid": False}
_KEYS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one checker, or several merged, concluded.

    Attributes:
        valid: ``valid``, ``invalid`` or ``unknown``.
        checker: what was checked, e.g. ``linearizable``.
        model: name of the model, ``""`` where there is none.
        algorithm: what decided, e.g. ``wgl-dfs``; several joined by ``+``.
        operations: how many operations were checked.
        keys: how many objects they were of.
        configurations: how many configurations the search went through, 0 where there was none.
        cause: for ``unknown``, a sentence that says why, how far it got, and what to change.
        failing_keys: the keys that are invalid, as JSON text, in the order of their first operation.
        unknown_keys: the keys that could not be decided.
        evidence: for ``invalid``, the counterexample, at most 20 lines.
        at: for ``invalid``, `Op.index` of the completion by which each finding shows, in order; what came after
            the first is not needed to see that the history is wrong.
        anomalies: how often each anomaly was found, of checkers that name them; allowed ones too.
        violated: the weakest consistency models that the anomalies rule out; `also_violated` are the stronger ones.
        notes: sentences about what was left out or chosen on the user's behalf.
        parts: the verdicts that were merged into this one.
        figure: for ``invalid``, the counterexample as a picture (`checkers.drawing`), if there is one.
    """

    valid: Validity
    checker: str = "linearizable"
    model: str = ""
    algorithm: str = ""
    operations: int = 0
    keys: int = 0
    configurations: int = 0
    cause: str | None = None
    failing_keys: tuple[str, ...] = ()
    unknown_keys: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    at: tuple[int, ...] = ()
    anomalies: Mapping[str, int] = field(default_factory=dict)
    violated: tuple[str, ...] = ()
    also_violated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple[Verdict, ...] = field(default=(), repr=False)
    figure: Figure | None = field(default=None, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A plain dict; ``valid`` is true, false or ``"unknown"``, and what is empty is left out.

        >>> Verdict(valid="unknown", cause="ran out of seconds").to_json()
        {'valid': 'unknown', 'checker': 'linearizable', 'operations': 0, 'cause': 'ran out of seconds'}
        """
        out: dict[str, Any] = {"valid": _JSON[self.valid], "checker": self.checker}
        if self.model:
            out |= {"model": self.model, "algorithm": self.algorithm}
        out["operations"] = self.operations
        for name in ("keys", "configurations", "cause"):
            if getattr(self, name):
                out[name] = getattr(self, name)
        if self.anomalies:
            out["anomalies"] = dict(self.anomalies)
        for name in ("failing_keys", "unknown_keys", "violated", "also_violated", "evidence", "at", "notes"):
            if getattr(self, name):
                out[name] = list(getattr(self, name))
        if self.parts:
            out["parts"] = [part.to_json() for part in self.parts]
        return out

    def lines(self) -> list[str]:
        """The verdict as text for people: a headline, what it rests on, the counterexample, the notes."""
        if self.parts:
            return [f"{self.valid}: {self.checker}", *(f"  {line}" for p in self.parts for line in p.lines())]
        words = {"valid": "", "invalid": "not ", "unknown": "perhaps "}
        subject = f"{words[self.valid]}{self.checker}"
        if self.model:
            keys = f" on {self.keys} keys" if self.keys > 1 else ""
            by = f", {self.algorithm}" if self.algorithm else ""
            subject += f" with model {self.model}: {self.operations} operations{keys}{by}"
        else:
            subject = f"{self.checker}, {self.operations} operations"
        out = [f"{self.valid}: {subject}"]
        if self.cause:
            out.append(f"  {self.cause}")
        out += [
            f"  {what} keys ({len(keys)}): "
            f"{', '.join(keys[:_KEYS_SHOWN])}{', ...' if len(keys) > _KEYS_SHOWN else ''}"
            for what, keys in (("failing", self.failing_keys), ("undecided", self.unknown_keys))
            if len(keys) > 1
        ]
        out += [f"  {line}" for line in self.evidence]
        out += [f"  note: {note}" for note in self.notes]
        return out


def worst(validities: Iterable[Validity]) -> Validity:
    """The worst of them by rule 1; ``valid`` of none.

    >>> worst(["valid", "unknown", "invalid", "valid"])
    'invalid'
    """
    return VALIDITIES[max((VALIDITIES.index(validity) for validity in validities), default=0)]


def merge(verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict for several checks of one history; the parts are kept.

    Raises:
        ValueError: for no verdicts at all, since a check that did not happen is no pass.
    """
    parts = tuple(verdicts)
    if not parts:
        raise ValueError("there are no verdicts to merge: run at least one checker")
    if len(parts) == 1:
        return parts[0]
    return Verdict(
        valid=worst(part.valid for part in parts),
        checker=" and ".join(part.checker for part in parts),
        operations=max(part.operations for part in parts),
        parts=parts,
    )


def with_notes(verdict: Verdict, notes: Iterable[str]) -> Verdict:
    """The verdict with these notes put before its own."""
    return replace(verdict, notes=(*notes, *verdict.notes))
