"""The committed log of real nodes, on nodes that are feigned."""

import asyncio

import pytest

from harness.clusters.log_follower import LogFollower
from harness.systems.base import LoggedEntry, LogPart


class Nodes:
    """Each has entries of its own, from an offset on; as service and as what is asked."""

    def __init__(self, **logs):
        self.logs = logs
        self.offsets = dict.fromkeys(logs, 0)
        self.now_ns = 0

    def log_call(self, after):
        return after

    async def ask(self, node, after):
        if node not in self.logs:
            return None
        after = max(after, self.offsets[node])
        self.now_ns += 1
        return LogPart(after, len(self.logs[node]), self.logs[node][after : after + 2])

    def log_part(self, part):
        return part

    def follower(self, *nodes):
        return LogFollower(self, nodes, self.ask, lambda: self.now_ns)


def entries(*requests, term=1):
    return [LoggedEntry(place, term, request) for place, request in enumerate(requests, 1)]


def committed(follower, leader="n1", term=1):
    return asyncio.run(follower.committed(leader, term))


A, B = ("c1", 1), ("c2", 1)


def test_a_request_is_committed_at_its_first_entry_when_it_was_first_told_of():
    nodes = Nodes(n1=entries(None, A, B, A, None))
    follower = nodes.follower("n1")
    assert committed(follower) == {A: (2, 1), B: (3, 2)}
    assert committed(follower) == {A: (2, 1), B: (3, 2)}, "asked twice, the times stay"


def test_entries_that_one_node_has_forgotten_are_known_from_another():
    nodes = Nodes(n1=entries(None, A, B), n2=entries(None, A, B))
    follower = nodes.follower("n2", "n1")

    async def followed():
        task = asyncio.create_task(follower.follow())
        for _ in range(10):  # rounds of the loop, however long each takes
            await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(followed())
    nodes.offsets["n1"] = 2
    assert committed(follower) == {A: (2, 1), B: (3, 2)}


@pytest.mark.parametrize(
    ("broken", "asked", "says"),
    [
        (lambda nodes: nodes.offsets.update(n1=1), {}, "entry 1 of the log was compacted before it was seen"),
        (lambda nodes: nodes.logs.clear(), {}, "n1, who led at the end of the run, did not answer"),
        (lambda nodes: None, {"leader": None}, "no node led"),
        (lambda nodes: None, {"term": 2}, "committed nothing of its own term"),
    ],
)
def test_a_log_that_may_not_be_whole_is_not_believed(broken, asked, says):
    nodes = Nodes(n1=entries(None, A))
    broken(nodes)
    assert says in committed(nodes.follower("n1"), **asked)


def test_nodes_that_tell_different_logs_are_not_believed():
    nodes = Nodes(n1=entries(None, A, A), n2=entries(None, B, A))
    follower = nodes.follower("n2", "n1")
    assert committed(follower, "n2") == {B: (2, 1), A: (3, 2)}
    assert "two nodes told of different entries 2" in committed(follower, "n1")
