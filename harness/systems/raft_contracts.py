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

from collections.abc import Mapping
from typing import Any

from harness.errors import ConfigError
from harness.systems.base import Outcome
from harness.systems.raft_coordination import COORDINATION
from harness.systems.raft_session import Contract, Session, change, did_nothing, one, telling
from raft import api

REGISTER: Contract = {
    "read": one(lambda key, _value: api.Get(key)),
    "write": one(api.Put),
    "cas": one(lambda key, value: api.Cas(key, value[0], value[1])),
    "delete": one(lambda key, _value: api.Delete(key)),
}


async def transact(session: Session, _key: Any, ops: Any) -> Outcome:
    """A transaction through the log; a single read as the read that it is, which takes another way."""
    if len(ops) == 1 and ops[0][0] == "r":
        outcome = await session.ask(api.Get(ops[0][1]))
        return telling(outcome, [["r", ops[0][1], outcome.value]]) if outcome.type == "ok" else outcome
    return await session.ask(api.Txn(tuple((f, key, value) for f, key, value in ops)))


TRANSACTIONS: Contract = {"txn": transact}


# -- collections -----------------------------------------------------------------------------------------------


async def read_list(session: Session, key: Any, _value: Any) -> Outcome:
    """All elements; an absent list is empty."""
    outcome = await session.ask(api.Get(key))
    return telling(outcome, outcome.value or []) if outcome.type == "ok" else outcome


async def put_in(session: Session, key: Any, value: Any) -> Outcome:
    """An element more, at the end."""
    outcome = await session.ask(api.Txn((("append", key, value),)))
    return telling(outcome, None)


async def take_first(session: Session, key: Any, _value: Any) -> Outcome:
    """The first element; None where there is none."""
    return await change(session, key, lambda held: (held[1:], held[0]) if held else (held, None))


async def take_all(session: Session, key: Any, _value: Any) -> Outcome:
    """All elements."""
    return await change(session, key, lambda held: ([], held or []) if held else (held, []))


SETS: Contract = {"add": put_in, "read": read_list}
QUEUES: Contract = {"enqueue": put_in, "dequeue": take_first, "drain": take_all}


# -- numbers ---------------------------------------------------------------------------------------------------


async def read_bank(session: Session, key: Any, _value: Any) -> Outcome:
    """All balances at one point in time."""
    names = [f"{key}/{number}" for number in range(session.settings["accounts"])]
    outcome = await session.ask(api.Txn(tuple(("r", name, None) for name in names)))
    if outcome.type != "ok":
        return did_nothing(outcome)
    first = session.settings["balance"]
    held = [first if value is None else value for _, _, value in outcome.value]
    return telling(outcome, {str(number): balance for number, balance in enumerate(held)})


async def transfer(session: Session, key: Any, value: Any) -> Outcome:
    """From one account to another, if there is as much; both at once, if neither was changed meanwhile."""
    payer, payee = f"{key}/{value['from']}", f"{key}/{value['to']}"
    first = session.settings["balance"]
    while True:
        seen = await session.ask(api.Txn((("r", payer, None), ("r", payee, None))))
        if seen.type != "ok":
            return did_nothing(seen)
        (_, _, has), (_, _, gets) = seen.value
        left = (first if has is None else has) - value["amount"]
        if left < 0:
            return Outcome("fail", error="insufficient", node=seen.node)
        writes = (("w", payer, left), ("w", payee, (first if gets is None else gets) + value["amount"]))
        outcome = await session.ask(api.Txn(writes, ((payer, has), (payee, gets))))
        if outcome.error != "mismatch":
            return telling(outcome, None)


async def add_number(session: Session, key: Any, value: Any) -> Outcome:
    """So much more."""
    outcome = await change(session, key, lambda held: ((held or 0) + value, None))
    return telling(outcome, None)


async def read_number(session: Session, key: Any, _value: Any) -> Outcome:
    """The number; an absent one is 0."""
    outcome = await session.ask(api.Get(key))
    return telling(outcome, outcome.value or 0) if outcome.type == "ok" else outcome


async def next_id(session: Session, key: Any, _value: Any) -> Outcome:
    """One more than the last identifier of the sequence `key`."""
    return await change(session, f"last-id/{key}", lambda held: ((held or 0) + 1, (held or 0) + 1))


BANK: Contract = {"read": read_bank, "transfer": transfer}
COUNTER: Contract = {"add": add_number, "read": read_number}


# -- groups ----------------------------------------------------------------------------------------------------


async def write_member(session: Session, key: Any, value: Any) -> Outcome:
    """One member of a group, as a key of its own."""
    return telling(await session.ask(api.Put(f"{key}/{value}", value)), None)


async def read_members(session: Session, key: Any, _value: Any) -> Outcome:
    """All members of a group at one point in time."""
    outcome = await session.ask(api.Range(f"{key}/", api.prefix_end(f"{key}/")))
    if outcome.type != "ok":
        return outcome
    return telling(outcome, [value for _, value in outcome.value])


async def insert_row(session: Session, key: Any, row: Any) -> Outcome:
    """A row, if neither of the two that exclude each other is there."""
    guards = ((f"{key}/a", None), (f"{key}/b", None))
    return telling(await session.ask(api.Txn((("w", f"{key}/{row}", 1),), guards)), None)


async def group_txn(session: Session, key: Any, ops: Any) -> Outcome:
    """A transaction on the registers of one group."""
    outcome = await session.ask(api.Txn(tuple((f, f"{key}/{name}", value) for f, name, value in ops)))
    if outcome.type != "ok":
        return outcome
    return telling(outcome, [[f, name.removeprefix(f"{key}/"), value] for f, name, value in outcome.value])


MEMBERS: Contract = {"write": write_member, "read": read_members}

CONTRACTS: Mapping[str, Contract] = {
    "register": REGISTER,
    "membership": REGISTER,
    "set": SETS,
    "set-full": SETS,
    "append": TRANSACTIONS,
    "wr": TRANSACTIONS,
    "bank": BANK,
    "counter": COUNTER,
    "unique-ids": {"generate": next_id},
    "queue": QUEUES,
    "total-queue": QUEUES,
    "session": {"append": put_in, "read": read_list},
    "causal": REGISTER,
    "causal-reverse": MEMBERS,
    "long-fork": MEMBERS,
    "g2": {"insert": insert_row},
    "multi-register": {"txn": group_txn},
    **COORDINATION,
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
