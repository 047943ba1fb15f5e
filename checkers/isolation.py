"""Consistency models of transactions, by the anomalies that they rule out.

Theory of operation
    A model is the set of anomalies that no history of it has. One model is stronger than another if it rules out
    more, so the lattice of models need not be written down: it is the inclusion of these sets. The definitions are
    those of Adya (thesis, 1999), Berenson et al. (1995) for lost update, Cerone, Bernardi and Gotsman (2015) for
    snapshot isolation and its parallel form.

    read-uncommitted             no cycle of writes (G0)
    read-committed               no aborted, intermediate or circular information (G1a, G1b, G1c)
    read-atomic                  and a transaction sees its own writes (internal)
    cursor-stability             read-committed without lost updates
    consistent-view              read-committed without cycles of exactly one anti-dependency (G-single)
    parallel-snapshot-isolation  read-atomic without lost updates and G-single
    snapshot-isolation           and without cycles whose anti-dependencies are never adjacent (long forks)
    repeatable-read              no cycle at all, of dependencies through items
    serializable                 all of these

    Each also as ``strong-session-...``, where the order of each process counts too (cycles with edges "process"),
    and ``strong-...``, where real time counts. ``strict-serializable`` is the usual name of strong-serializable.

>>> forbids("strict-serializable") > forbids("serializable") > forbids("snapshot-isolation")
True
>>> violated(["G-single"])[0]
('consistent-view',)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from checkers.history import CheckerCallError

CYCLES = ("G0", "G1c", "G-single", "G-nonadjacent", "G2-item")
SUFFIXES = ("", "-process", "-realtime")

_RU = frozenset({"G0", "duplicate-elements", "unexpected-element", "cyclic-versions", "PL-1-cycle-exists"})
_RC = _RU | {"G1a", "G1b", "G1c", "incompatible-order", "dirty-update", "PL-2-cycle-exists"}
_RA = _RC | {"internal", "future-read"}
_CS = _RC | {"lost-update"}
_CV = _RC | {"G-single"}
_PSI = _RA | _CS | _CV
_SI = _PSI | {"G-nonadjacent"}
_RR = _CS | _CV | {"G-nonadjacent", "G2-item"}
_SER = _SI | _RR | {"PL-3-cycle-exists"}

_PLAIN: Mapping[str, frozenset[str]] = {
    "read-uncommitted": _RU,
    "read-committed": _RC,
    "read-atomic": _RA,
    "cursor-stability": _CS,
    "consistent-view": _CV,
    "parallel-snapshot-isolation": _PSI,
    "snapshot-isolation": _SI,
    "repeatable-read": _RR,
    "serializable": _SER,
}


def _with(anomalies: frozenset[str], suffixes: tuple[str, ...]) -> frozenset[str]:
    return anomalies | {one + suffix for one in anomalies if one in CYCLES for suffix in suffixes}


MODELS: Mapping[str, frozenset[str]] = {
    **_PLAIN,
    **{f"strong-session-{name}": _with(found, ("-process",)) for name, found in _PLAIN.items()},
    **{f"strong-{name}": _with(found, ("-process", "-realtime")) for name, found in _PLAIN.items()},
    "strong-serializable": _with(_SER, ("-process", "-realtime")) | {"PL-SS-cycle-exists"},
}
"""What each model rules out, the weaker ones first."""

ALIASES: Mapping[str, str] = {
    "strict-serializable": "strong-serializable",
    "PL-1": "read-uncommitted",
    "PL-2": "read-committed",
    "PL-2.99": "repeatable-read",
    "PL-3": "serializable",
    "PL-SI": "snapshot-isolation",
    "PL-SS": "strong-serializable",
    "monotonic-atomic-view": "read-atomic",
}


def forbids(model: str) -> frozenset[str]:
    """The anomalies that no history of the model has.

    Raises:
        CheckerCallError: there is no model of that name.

    >>> forbids("serialisable")
    Traceback (most recent call last):
    checkers.history.CheckerCallError: unknown consistency model 'serialisable'; did you mean 'serializable'?
    """
    name = ALIASES.get(model, model)
    if name not in MODELS:
        close = difflib.get_close_matches(model, [*MODELS, *ALIASES], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join([*_PLAIN, *ALIASES])}"
        raise CheckerCallError(f"unknown consistency model {model!r}; {hint}")
    return MODELS[name]


def violated(anomalies: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The weakest models that the anomalies rule out, and the other models ruled out with them."""
    found = set(anomalies)
    out = [name for name, ruled_out in MODELS.items() if found & ruled_out]
    weakest = [name for name in out if not any(MODELS[other] < MODELS[name] for other in out)]
    return tuple(map(_usual, weakest)), tuple(_usual(name) for name in out if name not in weakest)


def _usual(name: str) -> str:
    return "strict-serializable" if name == "strong-serializable" else name
