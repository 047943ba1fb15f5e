"""The runner: what a run may not leave out, whatever happens to it."""

import pytest

from harness import plan as plans
from harness import runner, systems
from harness.clusters import make_cluster
from harness.config import Config
from harness.injector import Injector
from harness.progress import QuietProgress
from harness.shrink.attempt import MemoryRecorder


def test_what_cannot_be_healed_does_not_keep_the_nodes_alive(monkeypatch):
    """A change of membership that was given up cancelled the second healing, and nobody closed the cluster."""
    plan = plans.draw(Config(time_limit_s=1.0), seed=1)
    system = systems.by_name("raft")
    cluster = make_cluster(plan, system)
    closed = []
    close = cluster.close

    async def close_and_tell():
        closed.append(True)
        await close()

    async def heal_all(_):
        raise RuntimeError("no way")

    monkeypatch.setattr(cluster, "close", close_and_tell)
    monkeypatch.setattr(Injector, "heal_all", heal_all)
    with pytest.raises(RuntimeError, match="no way"):
        runner.run(plan, cluster, system, MemoryRecorder(cluster.now_ns), QuietProgress())
    assert closed == [True]
