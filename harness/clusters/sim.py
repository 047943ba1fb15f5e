"""The simulated cluster: nodes of the system on virtual time, fixed by the plan's seed.

Clients reach nodes over links of their own: a short delay each way, drawn from the stream ``client``, and no
faults, so that a cut-off node still answers its clients (which is how stale reads are seen). A request to a dead
node is refused; requests that a killed node had not answered are lost; those to a paused one wait in its queue,
and may still be executed long after the client has given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from harness.clusters.sim_nemesis import SimNemesisSide
from harness.plan import Plan
from harness.seeds import Streams
from harness.sim import loop as sim_loop
from harness.sim.disk import SimDisk
from harness.sim.host import SimHost
from harness.sim.network import SimNetwork
from harness.systems.base import CommittedRequests, System
from harness.transport import Lost, NotSent
from nemesis.target import ClockRule, CrashPoint, Damage, DiskRule, Ruleset

T = TypeVar("T")

READY_TIMEOUT_S = 5.0
READY_POLL_S = 0.01
CLIENT_DELAY_MIN_US = 50
CLIENT_DELAY_MEAN_US = 150
BEGUN_MAX = 8  # requests of one transport, before it looks which are answered


class SimCluster(SimNemesisSide[SimHost]):
    """See the module; one instance serves one run."""

    kind = "sim"

    def __init__(self, plan: Plan, system: System) -> None:
        streams = Streams(plan.seed)
        # What the abstract loop asks for beyond time and callbacks is refused on purpose.
        self.loop = sim_loop.SimLoop()  # type: ignore[abstract]
        self.network = SimNetwork(self.loop, streams, plan.network)
        self._nodes = tuple(plan.nodes)
        self._client_rng = streams.dice("client", self.loop)
        self._watch = system.watch(lambda: self.loop.now_us)
        self.hosts = {
            name: SimHost(
                name,
                loop=self.loop,
                network=self.network,
                disk=SimDisk(self.loop, streams.dice(f"disk/{name}", self.loop), plan.disk),
                rng=streams.dice(f"node/{name}", self.loop),
                factory=lambda host: system.sim_process(host, self._nodes, plan.config.bug, self._watch),
            )
            for name in self._nodes
        }
        self._opened_us = 0

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes."""
        return self._nodes

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end on virtual time."""
        return sim_loop.run(main(), self.loop)

    def interrupt(self) -> None:
        """End the run before the next callback."""
        self.loop.interrupt()

    async def open(self) -> None:
        """Start all nodes; wait until one leads, but no longer than `READY_TIMEOUT_S` (a bug may prevent it)."""
        for host in self.hosts.values():
            host.start()
        for _ in range(int(READY_TIMEOUT_S / READY_POLL_S)):
            if await self.leader() is not None:
                break
            await asyncio.sleep(READY_POLL_S)
        self._opened_us = self.loop.now_us

    async def close(self) -> None:
        """Kill all nodes."""
        for host in self.hosts.values():
            host.kill()

    def now_ns(self) -> int:
        """Virtual nanoseconds since the cluster was opened."""
        return (self.loop.now_us - self._opened_us) * 1000

    def transport(self) -> SimTransport:
        """The clients' links."""
        return SimTransport(self)

    def deaths(self) -> list[str]:
        """Uncaught exceptions of nodes."""
        return [panic for host in self.hosts.values() for panic in host.panics]

    def violations(self) -> list[str]:
        """Invariants of the system that its nodes broke."""
        return self._watch.violations

    def violated_ns(self) -> int | None:
        """When the first of them was seen, on the run's clock; None where there is none."""
        seen_us = self._watch.violated_us
        return None if seen_us is None else (seen_us - self._opened_us) * 1000

    def end_when_violated(self) -> None:
        """End the run at the very moment at which an invariant is broken, as if it had been interrupted."""
        self._watch.on_violated = self.loop.interrupt

    async def committed(self, leader: str | None) -> CommittedRequests | str:
        """What is in the committed log, with times of the run."""
        log = self._watch.committed(self.hosts[leader].process if leader is not None else None)
        if isinstance(log, str):
            return log
        return {request: (index, (at_us - self._opened_us) * 1000) for request, (index, at_us) in log.items()}

    def facts(self) -> dict[str, Any]:
        """Counts of messages and events."""
        network = self.network
        return {
            "messages_sent": network.sent,
            "messages_lost": network.lost,
            "messages_duplicated": network.duplicated,
            "nodes_stopped_by_their_disk": sum(host.disk_deaths for host in self.hosts.values()),
            "crash_points_reached": sum(host.crashes for host in self.hosts.values()),
            "sim_events": self.loop.events_run,
            "trace_sha256": self.loop.trace_sha256,
        }

    # -- the nemesis' side ------------------------------------------------------------------------------------

    async def leader(self) -> str | None:
        """The node that leads in the highest term, of those that think they lead."""
        best: tuple[int, str] | None = None
        for name, host in self.hosts.items():
            term = host.process.leader_term() if host.process is not None else None
            if term is not None and (best is None or term > best[0]):
                best = (term, name)
        return best[1] if best is not None else None

    async def set_network(self, rules: Ruleset) -> None:
        """Replace all rules."""
        self.network.set_rules(rules)

    async def kill(self, node: str) -> None:
        """SIGKILL and power loss in one: what was not synced may be gone."""
        self.hosts[node].kill()

    async def start(self, node: str) -> None:
        """Start the node's process on its disk."""
        self.hosts[node].start()

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        self.hosts[node].pause()

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        self.hosts[node].resume()

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Make the node's clocks exactly this; the monotonic one never jumps."""
        self.hosts[node].set_clock(rule)

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the node's disk exactly this."""
        self.hosts[node].disk.set_rule(rule)

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage the disk of a node that is down."""
        return self.hosts[node].disk.damage(damage)

    async def set_slowness(self, node: str, factor: float) -> None:
        """Let the node take so many times as long for each event."""
        self.hosts[node].set_slowness(factor)

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """Let the node die when it next gets there, once."""
        self.hosts[node].crash_point = point

    def client_delay_us(self) -> int:
        """One way between a client and a node."""
        return CLIENT_DELAY_MIN_US + int(self._client_rng.skewed(CLIENT_DELAY_MEAN_US))


class SimTransport:
    """Requests as values over the clients' links."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._begun: list[_Exchange] = []  # the last ones, and all that have no answer
        self._timer_us = 0  # when it fires, or 0; like a node's, it is set anew when it fires too early

    def request(self, node: str, request: Any, timeout_s: float) -> asyncio.Future[Any]:
        """A future of the answer; see `harness.transport`."""
        cluster = self._cluster
        loop = cluster.loop
        until_us = loop.now_us + round(timeout_s * 1_000_000)
        exchange = _Exchange(cluster, cluster.hosts[node], until_us)
        loop.post(cluster.client_delay_us(), exchange.arrive, request)
        if len(self._begun) >= BEGUN_MAX:
            self._forget_answered()
        self._begun.append(exchange)
        if not self._timer_us or until_us < self._timer_us:
            self._set_timer(until_us)
        return exchange.answer

    def _set_timer(self, at_us: int) -> None:
        self._timer_us = at_us
        self._cluster.loop.post(at_us - self._cluster.loop.now_us, self._on_timer, at_us)

    def _on_timer(self, at_us: int) -> None:
        """Whoever has waited long enough waits no longer."""
        if at_us != self._timer_us:
            return  # one for an earlier time has taken its place
        self._timer_us = 0
        for exchange in self._begun:
            if exchange.until_us <= at_us:
                exchange.expire()
        self._forget_answered()
        if self._begun:
            self._set_timer(min(exchange.until_us for exchange in self._begun))

    def _forget_answered(self) -> None:
        self._begun = [exchange for exchange in self._begun if not exchange.answer.done()]

    async def close(self) -> None:
        """Nothing is kept open between requests."""


class _Exchange:
    """A request under way, and its answer."""

    __slots__ = ("answer", "cluster", "host", "until_us")

    def __init__(self, cluster: SimCluster, host: SimHost, until_us: int) -> None:
        self.cluster = cluster
        self.host = host
        self.until_us = until_us
        self.answer: asyncio.Future[Any] = asyncio.Future(loop=cluster.loop)

    def arrive(self, request: Any) -> None:
        """The request has reached the machine."""
        host = self.host
        if host.process is None:
            self._later(self._fail, NotSent(f"{host.name} refused the connection"))
            return
        if not self.answer.done():
            host.exchanges[self] = None
        host.deliver_request(request, self.reply)

    def reply(self, response: Any) -> None:
        """The process answers."""
        self._later(self._resolve, response)

    def lost(self) -> None:
        """The process has died."""
        if not self.answer.done():
            self._later(self._fail, Lost(f"{self.host.name} closed the connection"))

    def expire(self) -> None:
        """The client waits no longer."""
        if not self.answer.done():
            self._fail(TimeoutError())

    def _later(self, callback: Callable[[Any], None], value: Any) -> None:
        self.cluster.loop.post(self.cluster.client_delay_us(), callback, value)

    def _resolve(self, response: Any) -> None:
        if not self.answer.done():
            self.host.exchanges.pop(self, None)
            self.answer.set_result(response)

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.host.exchanges.pop(self, None)
            self.answer.set_exception(error)
