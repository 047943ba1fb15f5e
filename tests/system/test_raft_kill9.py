"""Three processes on loopback, `kill -9` of the leader again and again under load, and a judged history."""

import asyncio
import itertools
import signal
import time

import msgspec
import pytest

from harness import judge
from harness import plan as plans
from harness.clusters.http import Connection, HttpTransport
from harness.config import Config
from harness.recorder import Recorder
from harness.runner import run
from harness.systems import by_name
from nemesis.faults import Kill
from nemesis.schedule import FaultEvent
from raft.testing.processes import Processes, running

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(400)]

ROUNDS = 5
ROUND_MS = 4_000
DOWN_MS = 1_500


class Loopback:
    """The harness' cluster on `raft.testing.processes`: no namespaces, so nothing but kills."""

    kind = "loopback"

    def __init__(self, processes, service):
        self._processes: Processes = processes
        self._service = service
        self._opened_ns = time.monotonic_ns()
        self._transports = set()
        self.downtimes_s = []

    @property
    def nodes(self):
        return self._processes.names

    def run(self, main):
        return asyncio.run(main())

    async def open(self):
        await asyncio.to_thread(self._processes.leader)
        self._opened_ns = time.monotonic_ns()

    async def close(self):
        for transport in self._transports:
            transport.drop()
        await asyncio.sleep(0)  # lets them go

    def transport(self):
        transport = HttpTransport(self._dial, self._service, lambda _: None)
        self._transports.add(transport)
        return transport

    async def _dial(self, node):
        return Connection(*await asyncio.open_connection("127.0.0.1", self._processes.clients[node]))

    def now_ns(self):
        return time.monotonic_ns() - self._opened_ns

    def interrupt(self):
        pass

    def deaths(self):
        return [f"{name} died" for name, p in self._processes.running.items() if p.poll() is not None]

    def violations(self):
        return None

    def facts(self):
        return {"downtimes_s": self.downtimes_s}

    async def leader(self):
        return await asyncio.to_thread(self._leads)

    def _leads(self):
        best = None
        for name in list(self._processes.running):
            try:
                status = self._processes.call(name, "GET", "/status").body
            except OSError:
                continue
            if status["role"] == "leader" and (best is None or status["term"] > best[0]):
                best = (status["term"], name)
        return best[1] if best else None

    async def set_network(self, rules):
        pass

    async def kill(self, node):
        """With all three up, so that two are left to elect a leader."""
        await asyncio.to_thread(self._processes.leader)
        victim = await self.leader()
        await asyncio.to_thread(self._processes.kill, victim)
        began = time.monotonic()
        while await self.leader() is None:
            await asyncio.sleep(0.005)
            assert time.monotonic() - began < 60, "no new leader within a minute"
        self.downtimes_s.append(round(time.monotonic() - began, 3))

    async def start(self, _node):
        for name in self.nodes:
            self._processes.start(name)

    async def pause(self, node):
        self._processes.running[node].send_signal(signal.SIGSTOP)

    async def resume(self, node):
        self._processes.running[node].send_signal(signal.SIGCONT)


class Quiet:
    def update(self, *_):
        pass


def test_five_times_kill_9_of_the_leader_under_load(tmp_path, capsys):
    """The register workload is judged valid, and nothing that was acknowledged is lost."""
    config = Config(
        nodes=3, concurrency=10, rate_hz=100, time_limit_s=(ROUNDS + 1) * ROUND_MS / 1000, faults=(), seed=5,
        op_timeout_ms=3000,
    )  # fmt: skip
    plan = plans.draw(config)
    kills = tuple(
        FaultEvent(
            id=f"kill-{number}",
            start_ms=number * ROUND_MS,
            stop_ms=number * ROUND_MS + DOWN_MS,
            fault=Kill(aim="leader", nodes=("n1",)),
        )
        for number in range(1, ROUNDS + 1)
    )
    plan = msgspec.structs.replace(plan, faults=kills)
    system = by_name("raft")
    with running(tmp_path, 3, "--snapshot-entries", "200") as processes:
        cluster = Loopback(processes, system.service)
        recorder = Recorder(tmp_path / "history.jsonl", model="etcd-register", now_ns=cluster.now_ns)
        record = run(plan, cluster, system, recorder, Quiet())
        recorder.close()
    checks = judge.judge(recorder.ops, plan.config, recorder, record)
    assert [(check.name, check.valid) for check in checks if check.valid != "valid"] == [], checks
    assert len(cluster.downtimes_s) == ROUNDS
    assert sum(fault.started_ns is not None for fault in record.faults) == ROUNDS
    # A busy machine does not come to all that is asked for, but to something after each kill.
    kills_ns = sorted(fault.started_ns for fault in record.faults)
    for since_ns, until_ns in itertools.pairwise([0, *kills_ns, float("inf")]):
        assert sum(op.type == "ok" and since_ns < op.time_ns < until_ns for op in recorder.ops) > 5
    assert recorder.count("ok") > 200
    ok, info = recorder.count("ok"), recorder.count("info")
    with capsys.disabled():
        print(f"\n{ok} ok, {info} info; seconds without a leader: {cluster.downtimes_s}")
