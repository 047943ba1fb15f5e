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

TRANSACTIONS: Contract = {
    "txn": one(lambda _key, ops: api.Txn(tuple((f, key, value) for f, key, value in ops))),
}


# -- collections -----------------------------------------------------------------------------------------------


async def read_list(session: Session, key: Any, _value: Any) -> Outcome:
    """All elements; an absent list is empty."""
    outcome = await session.ask(api.Get(key))
    return _with(outcome, outcome.value or []) if outcome.type == "ok" else outcome


async def put_in(session: Session, key: Any, value: Any) -> Outcome:
    """An element more, at the end."""
    outcome = await session.ask(api.Txn((("append", key, value),)))
    return _with(outcome, None)


async def take_first(session: Session, key: Any, _value: Any) -> Outcome:
    """The first element; None where there is none."""
    return await change(session, key, lambda held: (held[1:], held[0]) if held else (held, None))


async def take_all(session: Session, key: Any, _value: Any) -> Outcome:
    """All elements."""
    return await change(session, key, lambda held: ([], held or []) if held else (held, []))


async def change(session: Session, key: Any, compute: Callable[[Any], tuple[Any, Any]]) -> Outcome:
    """Read a key, write what `compute` makes of it if it still holds that, and answer what `compute` says."""
    while True:
        seen = await session.ask(api.Get(key))
        if seen.type != "ok":
            return _did_nothing(seen)
        new, answer = compute(seen.value)
        if new == seen.value:
            return _with(seen, answer)
        outcome = await session.ask(api.Txn((("w", key, new),), ((key, seen.value),)))
        if outcome.error != "mismatch":
            return _with(outcome, answer)


def _did_nothing(outcome: Outcome) -> Outcome:
    """Nothing was written yet, so whatever became of a read, the operation did not happen."""
    return Outcome("fail", error=outcome.error, node=outcome.node)


def _with(outcome: Outcome, value: Any) -> Outcome:
    """The outcome with what was done, or tried."""
    told = value if outcome.type != "fail" else None
    return Outcome(outcome.type, value=told, error=outcome.error, node=outcome.node)


SETS: Contract = {"add": put_in, "read": read_list}
QUEUES: Contract = {"enqueue": put_in, "dequeue": take_first, "drain": take_all}


# -- numbers ---------------------------------------------------------------------------------------------------


async def read_bank(session: Session, key: Any, _value: Any) -> Outcome:
    """All balances at one point in time."""
    names = [f"{key}/{number}" for number in range(session.settings["accounts"])]
    outcome = await session.ask(api.Txn(tuple(("r", name, None) for name in names)))
    if outcome.type != "ok":
        return _did_nothing(outcome)
    first = session.settings["balance"]
    held = [first if value is None else value for _, _, value in outcome.value]
    return _with(outcome, {str(number): balance for number, balance in enumerate(held)})


async def transfer(session: Session, key: Any, value: Any) -> Outcome:
    """From one account to another, if there is as much; both at once, if neither was changed meanwhile."""
    payer, payee = f"{key}/{value['from']}", f"{key}/{value['to']}"
    first = session.settings["balance"]
    while True:
        seen = await session.ask(api.Txn((("r", payer, None), ("r", payee, None))))
        if seen.type != "ok":
            return _did_nothing(seen)
        (_, _, has), (_, _, gets) = seen.value
        left = (first if has is None else has) - value["amount"]
        if left < 0:
            return Outcome("fail", error="insufficient", node=seen.node)
        writes = (("w", payer, left), ("w", payee, (first if gets is None else gets) + value["amount"]))
        outcome = await session.ask(api.Txn(writes, ((payer, has), (payee, gets))))
        if outcome.error != "mismatch":
            return _with(outcome, None)


async def add_number(session: Session, key: Any, value: Any) -> Outcome:
    """So much more."""
    outcome = await change(session, key, lambda held: ((held or 0) + value, None))
    return _with(outcome, None)


async def read_number(session: Session, key: Any, _value: Any) -> Outcome:
    """The number; an absent one is 0."""
    outcome = await session.ask(api.Get(key))
    return _with(outcome, outcome.value or 0) if outcome.type == "ok" else outcome


async def next_id(session: Session, key: Any, _value: Any) -> Outcome:
    """One more than the last identifier of the sequence `key`."""
    return await change(session, f"last-id/{key}", lambda held: ((held or 0) + 1, (held or 0) + 1))


BANK: Contract = {"read": read_bank, "transfer": transfer}
COUNTER: Contract = {"add": add_number, "read": read_number}

CONTRACTS: Mapping[str, Contract] = {
    "register": REGISTER,
    "set": SETS,
    "set-full": SETS,
    "append": TRANSACTIONS,
    "wr": TRANSACTIONS,
    "bank": BANK,
    "counter": COUNTER,
    "unique-ids": {"generate": next_id},
    "queue": QUEUES,
    "total-queue": QUEUES,
}


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
