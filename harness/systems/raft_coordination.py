"""Contracts of what clients coordinate by: locks, leases, watches, logs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from harness.systems.base import Outcome
from harness.systems.raft_session import Contract, Session, did_nothing, telling
from raft import api

LOCKED_PAUSE_S = 0.02
POLLED_MAX = 32  # messages of one log that a poll gives at most
WATCHED = "watched/"


# -- locks -----------------------------------------------------------------------------------------------------


async def acquire(session: Session, key: Any, _value: Any) -> Outcome:
    """Write one's name where there is none."""
    return telling(await session.ask(api.Txn((("w", key, session.client_id),), ((key, None),))), None)


async def release(session: Session, key: Any, _value: Any) -> Outcome:
    """Remove one's own name."""
    return telling(await session.ask(api.Txn((("w", key, None),), ((key, session.client_id),))), None)


async def locked_add(session: Session, key: Any, value: Any) -> Outcome:
    """Take the lock, read the set, write it back with the element, give the lock back."""
    lock = f"{key}/lock"
    name, outcome = await _locked(session, lock)
    if not name:
        return did_nothing(outcome)
    seen = await session.ask(api.Get(key))
    if seen.type != "ok":
        return did_nothing(seen)
    write = api.Put(key, [*(seen.value or []), value])
    if session.settings["fencing"]:
        # Whoever takes the lock after its lease has ended writes another name into it.
        outcome = await session.ask(api.If((api.Compare(lock, "value", "=", name),), (write,)))
        if outcome.type == "ok" and not outcome.value["succeeded"]:
            return Outcome("fail", error="fenced", node=outcome.node)
    else:
        outcome = await session.ask(write)
    await session.ask(api.Revoke(name))
    return telling(outcome, None)


async def _locked(session: Session, lock: str) -> tuple[str, Outcome]:
    """The name under which the lock is held, "" where it was not to be had in time."""
    while True:
        number = session.state["leases"] = session.state.get("leases", 0) + 1
        name = f"{session.client_id}-{number}"
        outcome = await session.ask(api.Grant(session.settings["ttl_ms"], name))
        if outcome.type != "ok":
            return "", outcome
        free = api.Compare(lock, "create", "=", 0)
        outcome = await session.ask(api.If((free,), (api.Put(lock, name, name),)))
        if outcome.type == "ok" and outcome.value["succeeded"]:
            return name, outcome
        if outcome.type != "ok" and outcome.error != "expired":
            return "", outcome
        await asyncio.sleep(LOCKED_PAUSE_S)


async def read_set(session: Session, key: Any, _value: Any) -> Outcome:
    """All elements."""
    outcome = await session.ask(api.Get(key))
    return telling(outcome, outcome.value or []) if outcome.type == "ok" else outcome


# -- leases ----------------------------------------------------------------------------------------------------


async def hold(session: Session, key: Any, _value: Any) -> Outcome:
    """A new lease, and the key with it."""
    number = session.state["leases"] = session.state.get("leases", 0) + 1
    name = f"{session.client_id}-{number}"
    granted = await session.ask(api.Grant(session.settings["ttl_ms"], name))
    if granted.type != "ok":
        return did_nothing(granted)
    outcome = await session.ask(api.Put(key, name, name))
    if outcome.type == "ok":
        session.state["lease"] = name
    return telling(outcome, name)


async def renew(session: Session, _key: Any, _value: Any) -> Outcome:
    """Keep one's lease alive."""
    name = session.state.get("lease")
    if name is None:
        return Outcome("fail", error="no-lease")
    return telling(await session.ask(api.KeepAlive(name)), name)


async def drop(session: Session, _key: Any, _value: Any) -> Outcome:
    """Give one's lease back."""
    name = session.state.pop("lease", None)
    if name is None:
        return Outcome("fail", error="no-lease")
    return telling(await session.ask(api.Revoke(name)), name)


async def look(session: Session, key: Any, _value: Any) -> Outcome:
    """The lease that the key is there with."""
    return await session.ask(api.Get(key))


# -- watches ---------------------------------------------------------------------------------------------------


async def write_watched(session: Session, key: Any, value: Any) -> Outcome:
    """A change to be seen, and its revision."""
    outcome = await session.ask(api.If((), (api.Put(key, value), api.Get(key, detail=True))))
    if outcome.type != "ok":
        return telling(outcome, None)
    return telling(outcome, [value, outcome.value["results"][1]["mod_revision"]])


async def watch(session: Session, _key: Any, value: Any) -> Outcome:
    """What has changed since this process looked last; since the beginning where the value says so."""
    after = 0 if value == 0 else session.state.get("after")
    outcome = await _watch(session, after)
    if outcome.error == "compacted":
        after = outcome.value
        outcome = await _watch(session, after)
    if outcome.type != "ok":
        return did_nothing(outcome)
    upto = outcome.value["revision"]
    session.state["after"] = upto
    events = [[event["mod_revision"], event["key"], event.get("value")] for event in outcome.value["events"]]
    return telling(outcome, {"from": upto if after is None else after, "to": upto, "events": events})


async def _watch(session: Session, after: int | None) -> Outcome:
    wait_ms = 0 if after is None else session.settings["wait_ms"]
    return await session.ask(api.Watch(WATCHED, api.prefix_end(WATCHED), after, wait_ms, 10_000))


# -- logs ------------------------------------------------------------------------------------------------------


async def send(session: Session, key: Any, value: Any) -> Outcome:
    """One message at the end of a log."""
    outcome = await _send_all(session, [(key, value)])
    return telling(outcome, [outcome.value[0], value]) if outcome.type == "ok" else outcome


async def poll(session: Session, _key: Any, keys: Any) -> Outcome:
    """The next messages of the logs that the process is assigned to; of `keys` if to none yet."""
    if keys and "assigned" not in session.state:
        session.state["assigned"] = list(keys)
    positions: dict[str, int] = dict(session.state.get("positions", {}))
    outcome = await _poll(session, positions)
    if outcome.type == "ok":
        session.state["positions"] = positions
    return outcome


async def log_txn(session: Session, _key: Any, mops: Any) -> Outcome:
    """Sends and polls: what is polled is read as it comes, what is sent is sent at the end, all or none."""
    positions: dict[str, int] = dict(session.state.get("positions", {}))
    done: list[Any] = []
    sends: list[tuple[Any, Any]] = []
    for mop in mops:
        if mop[0] == "send":
            sends.append((mop[1], mop[2]))
            done.append(["send", mop[1], mop[2]])
            continue
        polled = await _poll(session, positions)
        if polled.type != "ok":
            return did_nothing(polled)
        done.append(["poll", polled.value])
    outcome = await _send_all(session, sends) if sends else Outcome("ok", value=[])
    if outcome.type != "ok":
        return outcome
    session.state["positions"] = positions
    offsets = iter(outcome.value)
    told = [["send", m[1], [next(offsets), m[2]]] if m[0] == "send" else m for m in done]
    return telling(outcome, told)


async def assign(session: Session, _key: Any, value: Any) -> Outcome:
    """From now on these logs, from where the process was; as ``{"keys": [...]}`` from the beginning, and all."""
    if isinstance(value, Mapping):
        session.state["assigned"] = list(value["keys"])
        session.state["positions"] = {}
        session.state["most"] = 10_000
    else:
        session.state["assigned"] = list(value)
    return Outcome("ok")


async def _poll(session: Session, positions: dict[str, int]) -> Outcome:
    """The next messages of all assigned logs, one log after the other; moves the positions."""
    messages: dict[str, list[list[Any]]] = {}
    outcome = Outcome("ok")
    for key in session.state.get("assigned", ()):
        start = f"log/{key}/m{positions.get(key, 0):08d}"
        end = api.prefix_end(f"log/{key}/m")
        outcome = await session.ask(api.Range(start, end, session.state.get("most", POLLED_MAX)))
        if outcome.type != "ok":
            return did_nothing(outcome)
        found = [[int(name[-8:]), value] for name, value in outcome.value]
        if found:
            messages[key] = found
            positions[key] = found[-1][0] + 1
    return telling(outcome, messages)


async def _send_all(session: Session, sends: list[tuple[Any, Any]]) -> Outcome:
    """Messages at the ends of their logs, all or none; answers their offsets."""
    names = {key: f"log/{key}/next" for key, _ in sends}
    while True:
        seen = await session.ask(api.Txn(tuple(("r", name, None) for name in names.values())))
        if seen.type != "ok":
            return did_nothing(seen)
        held = {name: value for _, name, value in seen.value}
        following = {name: value or 0 for name, value in held.items()}
        offsets: list[int] = []
        writes: list[tuple[str, str, Any]] = []
        for key, value in sends:
            offset = following[names[key]]
            following[names[key]] += 1
            offsets.append(offset)
            writes.append(("w", f"log/{key}/m{offset:08d}", value))
        writes += [("w", name, offset) for name, offset in following.items()]
        outcome = await session.ask(api.Txn(tuple(writes), tuple(held.items())))
        if outcome.type == "ok":
            return telling(outcome, offsets)
        if outcome.error != "mismatch":
            return telling(outcome, None)


COORDINATION: Mapping[str, Contract] = {
    "lock": {"acquire": acquire, "release": release},
    "lock-set": {"add": locked_add, "read": read_set},
    "lease": {"hold": hold, "renew": renew, "drop": drop, "look": look},
    "watch": {"write": write_watched, "watch": watch},
    "log": {"send": send, "poll": poll, "txn": log_txn, "assign": assign},
}
