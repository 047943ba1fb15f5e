"""The client of the reference system: in which session it writes."""

import asyncio

from harness.config import Config
from harness.plan import draw
from harness.shrink.attempt import attempt
from harness.systems.base import ClientOptions
from harness.systems.raft import RaftClient
from raft import api


class Store:
    """A transport to a store that ends each session after so many writes."""

    def __init__(self, writes=1_000):
        self.asked = []
        self._writes = writes
        self._opened = {}

    async def request(self, _node, request, _timeout_s):
        self.asked.append((request.client, type(request.command)))
        if isinstance(request.command, api.OpenSession):
            name = f"@{len(self._opened) + 1}"
            self._opened[name] = self._writes
            return api.Done({"session": name, "ttl_ms": request.command.ttl_ms})
        if request.client in self._opened and not isinstance(request.command, api.Get):
            self._opened[request.client] -= 1
            if self._opened[request.client] < 0:
                return api.Expired("session", request.client)
        return api.Done(None)

    async def close(self):
        pass


def perform(store, *fs, **options):
    client = RaftClient(store, ("n1",), "n1", "c0", ClientOptions(**options))

    async def all_of_them():
        return [await client.invoke(f, "k", 1) for f in fs]

    return asyncio.run(all_of_them())


def test_by_default_nothing_is_opened():
    store = Store()
    perform(store, "write", "read")
    assert store.asked == [("c0", api.Put), ("c0", api.Get)]


def test_a_session_with_a_life_time_is_opened_before_the_first_write_and_kept():
    store = Store()
    outcomes = perform(store, "read", "write", "write", session_ttl_ms=500)
    assert [outcome.type for outcome in outcomes] == ["ok"] * 3
    assert store.asked == [("c0", api.Get), ("c0", api.OpenSession), ("@1", api.Put), ("@1", api.Put)]


def test_when_it_has_ended_the_write_fails_and_the_next_opens_another():
    store = Store(writes=1)
    outcomes = perform(store, "write", "write", "write", session_ttl_ms=500)
    assert [(outcome.type, outcome.error) for outcome in outcomes] == [
        ("ok", None),
        ("fail", "expired"),
        ("ok", None),
    ]
    assert [client for client, _ in store.asked] == ["c0", "@1", "@1", "c0", "@2"]


def sessions(bug, seed):
    config = Config(nodes=3, time_limit_s=5.0, rate_hz=20.0, session_ttl_ms=500, bug=bug)
    return attempt(draw(config, seed))


def test_sessions_that_each_node_ends_by_itself_lose_writes_and_replicated_ones_do_not():
    seed = next(seed for seed in range(40) if sessions("session-expiry-not-replicated", seed).violations)
    right = sessions(None, seed)
    assert (right.error, right.violations) == (None, ())
    assert any(op.error == "expired" for op in right.ops)
