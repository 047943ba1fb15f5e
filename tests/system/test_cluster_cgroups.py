"""Limits of nodes by control groups, and their removal."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from harness import config, plan
from harness.clusters import cgroups, local
from harness.clusters.cgroups import Groups, Limits
from harness.errors import SetupError
from harness.systems.raft_service import RaftService

pytestmark = [pytest.mark.system]


def run(argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def ours():
    return [path for place in ("", "*/") for path in cgroups.ROOT.glob(f"{place}{cgroups.PREFIX}*-node")]


@pytest.fixture
def groups():
    try:
        made = Groups(("node",), Limits(0.25, 48))
    except SetupError as error:
        pytest.skip(str(error))
    yield made
    made.remove()
    assert ours() == []


def test_a_process_enters_its_group_and_is_limited(groups):
    said = run(groups.command("node", ["cat", "/proc/self/cgroup"]))
    assert f"splitbrain-{os.getpid()}-node" in said.stdout
    greedy = [sys.executable, "-c", "x = bytearray(200 << 20); print('got it')"]
    done = run(groups.command("node", greedy))
    assert (done.returncode, done.stdout) == (-9, ""), "the kernel killed it"
    modest = [sys.executable, "-c", "x = bytearray(5 << 20); print('got it')"]
    assert run(groups.command("node", modest)).stdout == "got it\n"


def test_what_a_killed_run_left_is_swept(groups):
    for path in ours():
        path.with_name(f"splitbrain-{2**22 + 1}-node").mkdir()
    removed = cgroups.sweep()
    assert len(removed) == len(ours()) > 0
    assert str(os.getpid()) not in "".join(removed), "what is in use is left alone"


def test_a_node_that_its_limit_kills_is_told_with_the_limit(groups, tmp_path):
    settings = {"cluster": "local", "nodes": 3, "faults": [], "time_limit_s": 5.0, "node_memory_mb": 16}
    drawn = plan.draw(config.load(None, settings), 1)
    # With the least that a user can ask for it sometimes lives: pages that others have read already cost it nothing.
    too_little = msgspec.structs.replace(drawn.config, node_memory_mb=4)
    cluster = local.LocalCluster(msgspec.structs.replace(drawn, config=too_little), RaftService(), tmp_path)

    async def open_and_close():
        await cluster.open()
        await cluster.close()

    with pytest.raises(SetupError, match="each node has no more than --node-memory 4 megabytes"):
        cluster.run(open_and_close)


def test_without_limits_nothing_is_made():
    nothing = Groups(("node",), Limits())
    assert nothing.command("node", ["true"]) == ["true"]
    assert ours() == []


def test_where_groups_cannot_be_made_it_is_said(monkeypatch):
    monkeypatch.setattr(cgroups, "ROOT", Path("/proc"))
    with pytest.raises(SetupError, match=r"limits for nodes: /proc/cpu.*leave --node-cpus"):
        Groups(("node",), Limits(cpus=1))
