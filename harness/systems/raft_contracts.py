"""What the operations of each workload mean to the reference system.

Theory of operation
    A contract maps the name of an operation to a procedure that asks one or several commands of the store, and says
    how the operation ended. One command that the store performs at one point in time is enough for most. What has to
    look before it acts (a dequeue, a transfer) reads first, and then writes under guards that what it has read still
    holds; where a guard fails, somebody else was faster, and it looks again.

Rules of this module
    1. Only a command that writes can make an operation ``info``: as long as a procedure has only read, or has been
       refused by a guard, the operation certainly did nothing, and running out of time is a ``fail``.
    2. An operation of many commands has the time of one: a procedure looks at no clock but through `Session.ask`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from harness.errors import ConfigError
from harness.systems.base import Outcome
from raft import api


class Session(Protocol):
    """What a procedure has to work with.

    Attributes:
        settings: the workload's options.
        state: what the client keeps from one operation to the next, for as long as its process lives.
    """

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


REGISTER: Contract = {
    "read": one(lambda key, _value: api.Get(key)),
    "write": one(api.Put),
    "cas": one(lambda key, value: api.Cas(key, value[0], value[1])),
    "delete": one(lambda key, _value: api.Delete(key)),
}

CONTRACTS: Mapping[str, Contract] = {"register": REGISTER}


def contract_of(workload: str) -> Contract:
    """The contract for that workload.

    Raises:
        ConfigError: the system cannot serve it.
    """
    try:
        return CONTRACTS[workload]
    except KeyError:
        raise ConfigError(
            f"the system raft has no contract for the workload {workload!r}; it has: {', '.join(CONTRACTS)}"
        ) from None
