"""What a step of a model answers, and what an operation can do to a state.

Rules of this module
    1. `checkers.models` and `checkers.objects` share these; users take them from `checkers`.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass

State = Hashable


@dataclass(frozen=True, slots=True)
class Inconsistent:
    """A correct object would not have completed the operation so; ``reason`` says why in a clause."""

    reason: str


class Effect(enum.Enum):
    """What an operation can do to the state, whatever the state is.

    Attributes:
        PURE: never changes the state (a read). May be impossible in a state.
        OVERWRITE: possible in every state, and the new state does not depend on the old one (a write).
        BLIND: possible in every state, and its answer says nothing of the state (an append).
        GENERAL: anything else.
    """

    PURE = "pure"
    OVERWRITE = "overwrite"
    BLIND = "blind"
    GENERAL = "general"
