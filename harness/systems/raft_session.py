"""What contracts are made of: a client's session, and the steps that most operations consist of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from harness.systems.base import Outcome
from raft import api


class Session(Protocol):
    """What a procedure has to work with.

    Attributes:
        client_id: a name that no other client of the run has.
        settings: the workload's options.
        state: what the client keeps from one operation to the next, for as long as its process lives.
    """

    client_id: str
    settings: dict[str, Any]
    state: dict[str, Any]

    async def ask(self, command: api.Command) -> Outcome:
        """Try until the system answers or the operation's time runs out."""


Procedure = Callable[[Session, Any, Any], Awaitable[Outcome]]
Contract = Mapping[str, Procedure]


def one(make: Callable[[Any, Any], api.Command]) -> Procedure:
    """An operation that is one command."""

    def ask(session: Session, key: Any, value: Any) -> Awaitable[Outcome]:
        return session.ask(make(key, value))

    return ask


async def change(session: Session, key: Any, compute: Callable[[Any], tuple[Any, Any]]) -> Outcome:
    """Read a key, write what `compute` makes of it if it still holds that, and answer what `compute` says."""
    while True:
        seen = await session.ask(api.Get(key))
        if seen.type != "ok":
            return did_nothing(seen)
        new, answer = compute(seen.value)
        if new == seen.value:
            return telling(seen, answer)
        outcome = await session.ask(api.Txn((("w", key, new),), ((key, seen.value),)))
        if outcome.error != "mismatch":
            return telling(outcome, answer)


def did_nothing(outcome: Outcome) -> Outcome:
    """Nothing was written yet, so whatever became of a read, the operation did not happen."""
    return Outcome("fail", error=outcome.error, node=outcome.node)


def telling(outcome: Outcome, value: Any) -> Outcome:
    """The outcome with what was done, or tried."""
    told = value if outcome.type != "fail" else None
    return Outcome(outcome.type, value=told, error=outcome.error, node=outcome.node)
