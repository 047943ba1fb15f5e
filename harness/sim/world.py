r"""A world of simulated hosts for anybody's asyncio programs: names, addresses, connections, clocks, power cuts.

Theory of operation
    Each host runs one program, an async function. Its tasks and callbacks carry their process in a context variable,
    which asyncio hands on from task to task; the loop looks at it before each callback: those of a dead process are
    dropped, those of a paused one wait. So killing a process needs no help from the program, no `finally` block of
    it runs, and what it had not stored in `Host.storage` is gone, as after a power cut.

    Faults are the nemesis' (`nemesis.target.Target`): `World` is a cluster as the nemesis sees it.

Rules of this module
    1. One seed fixes the world: links, nodes and the test draw from named streams; equal times run in the order in
       which they were scheduled.
    2. What is not simulated (threads, subprocesses, signals, TLS, Unix sockets) is refused by name.
    3. A program that ends or raises is a process that has exited: it is recorded, and not an error of the world.

>>> async def server():
...     async def on_client(reader, writer):
...         writer.write(b"hello " + await reader.readline())
...         writer.close()
...     await (await asyncio.start_server(on_client, port=80)).serve_forever()
>>> async def test():
...     reader, writer = await asyncio.open_connection("n1", 80)
...     writer.write(b"world!\n")
...     answer = await reader.read()
...     writer.close()
...     return answer
>>> world = World(seed=1)
>>> _ = world.host("n1", server)
>>> world.run(test)
b'hello world!\n'
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from harness.seeds import Streams
from harness.sim import entropy
from harness.sim.clock import SimClock
from harness.sim.entropy import SimRefused
from harness.sim.loop import US_PER_S
from harness.sim.network import NetworkParams, SimNetwork
from harness.sim.streams import Endpoint
from harness.sim.world_host import Host, Program, SimProcess, current_process
from harness.sim.world_loop import WorldLoop
from nemesis.target import ClockRule, CrashPoint, Damage, DiskRule, Ruleset

T = TypeVar("T")

UNCAUGHT_MAX = 1000
LOOKS_MAX = 2_000_000  # at the clocks in one instant, of all programs
TEST = "test"


class World:
    """See the module. Satisfies `nemesis.target.Target`.

    Attributes:
        uncaught: what asyncio would have logged of tasks and callbacks, for each as (host, message).
    """

    def __init__(self, seed: int, params: NetworkParams | None = None) -> None:
        self.streams = Streams(seed)
        # What the abstract loop asks for beyond these is refused on purpose.
        self.loop = WorldLoop(self)  # type: ignore[abstract]
        self.network = SimNetwork(self.loop, self.streams, params or NetworkParams())
        self.hosts: dict[str, Host] = {}
        self.uncaught: list[tuple[str, str]] = []
        self.clocks_agree = True  # no monotonic clock has ever been wrong
        self._test = self._add(TEST, None)
        self._outside = SimProcess(self._test)

    def host(self, name: str, program: Program) -> Host:
        """Add a host that runs the program; it starts with the world."""
        if name in self.hosts:
            raise ValueError(f"there are two hosts named {name!r}; give each its own name")
        return self._add(name, program)

    def _add(self, name: str, program: Program | None) -> Host:
        number = len(self.hosts)
        host = Host(self, name, f"10.0.{number // 250}.{number % 250 + 1}", program)
        self.hosts[name] = host
        return host

    def run(self, test: Callable[[], Coroutine[Any, Any, T]], *, limit_s: float = 3600.0) -> T:
        """Start all hosts, run the test on the host ``test``, end the world; its result or its exception.

        Raises:
            SimDeadlock: the test waits for something that can never happen, or is not over after `limit_s`.
            SimRefused: a program asked for something real.
        """
        process = self._test.process = SimProcess(self._test)
        with self.virtual():
            try:
                for host in self.hosts.values():
                    host.start()
                self.loop.limit(limit_s)
                return self._test.context(process).run(self.loop.run_until_complete, test())
            finally:
                for host in self.hosts.values():
                    host.kill()
                self.loop.close()

    def virtual(self) -> contextlib.AbstractContextManager[None]:
        """Time and chance of this world, for what is done before it runs."""
        return entropy.virtual(_Source(self))

    def current(self) -> SimProcess:
        """The process that runs now."""
        return current_process.get(self._outside)

    def host_at(self, name: str | None, near: Host) -> Host | None:
        """The host of that name or address, as seen from another."""
        if name in (None, "", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"):  # noqa: S104 - names, not a bind
            return near
        assert name is not None, "excluded above"
        found = self.hosts.get(name)
        return found or next((host for host in self.hosts.values() if host.address == name), None)

    # -- the nemesis' side ------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all hosts but the test's."""
        return [name for name in self.hosts if name != TEST]

    async def leader(self) -> str | None:
        """Nobody knows: the drawn nodes stand."""
        return None

    async def set_network(self, rules: Ruleset) -> None:
        """Replace all rules."""
        self.network.set_rules(rules)

    async def kill(self, node: str) -> None:
        """See `Host.kill`."""
        self.hosts[node].kill()

    async def start(self, node: str) -> None:
        """See `Host.start`."""
        self.hosts[node].start()

    async def pause(self, node: str) -> None:
        """See `Host.pause`."""
        self.hosts[node].pause()

    async def resume(self, node: str) -> None:
        """See `Host.resume`."""
        self.hosts[node].resume()

    async def set_clock(self, node: str, rule: ClockRule) -> None:
        """Make the clocks of a host exactly this."""
        self.hosts[node].clock.set_rule(rule)
        self.clocks_agree = self.clocks_agree and self.hosts[node].clock.rate == 1.0

    async def set_disk(self, node: str, rule: DiskRule) -> None:
        """Make the disk of a host exactly this."""
        self.hosts[node].files.set_rule(rule)

    async def damage_disk(self, node: str, damage: Damage) -> str:
        """Damage the disk of a host on which nothing runs."""
        return self.hosts[node].files.damage(damage)

    async def set_slowness(self, node: str, factor: float) -> None:
        """See `Host.set_slowness`."""
        self.hosts[node].set_slowness(factor)

    async def set_crash_point(self, node: str, point: CrashPoint | None) -> None:
        """See `Host.crash_point`."""
        self.hosts[node].crash_point = point

    def reset_connections(self, a: str, b: str) -> None:
        """Break all connections between two hosts; both ends see it at once."""
        for endpoint in self._between(a, b):
            endpoint.reset(ConnectionResetError(104, "Connection reset by peer"))

    def half_open(self, a: str, b: str) -> None:
        """Break the ends at `b` of all connections with `a`, which notices when it next sends."""
        for endpoint in self._between(a, b):
            if endpoint.host == b:
                endpoint.reset(ConnectionResetError(104, "Connection reset by peer"))

    def _between(self, a: str, b: str) -> list[Endpoint]:
        found: list[Endpoint] = []
        for here, there in ((a, b), (b, a)):
            process = self.hosts[here].process
            found += (
                [end for end in process.endpoints if end.peer.host == there] if process is not None else []
            )
        return found

    # -- the loop's side --------------------------------------------------------------------------------------

    def admit(self, handle: asyncio.Handle) -> bool:
        """Whether a callback may run now; one of a paused or busy process is kept for later."""
        process = handle._context.get(current_process)  # type: ignore[attr-defined]  # noqa: SLF001 - handles have no other way
        if process is None:
            return True
        return process.alive and (not process.host.held or process.host.admit(process, handle))

    def exit(self, handle: asyncio.Handle, error: SystemExit) -> None:
        """A callback has called `sys.exit`: its process ends; where that is the test's, it is what the test raised."""
        process = handle._context.get(current_process)  # type: ignore[attr-defined]  # noqa: SLF001 - see above
        if process is None or process.host is self._test:
            raise error
        process.host.exit(process, error.code)

    def log(self, message: str) -> None:
        """What asyncio would log."""
        if len(self.uncaught) < UNCAUGHT_MAX:
            self.uncaught.append((self.current().host.name, message))


class _Source:
    """Time and chance of the node that runs now."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked_at_us = 0
        self._looks = 0

    def monotonic_us(self) -> int:
        return self._looked().mono_us()

    def wall_us(self) -> int:
        return self._looked().wall_us()

    def _looked(self) -> SimClock:
        """The clock that is looked at; who waits for it to move on without an `await` would wait for ever."""
        now_us = self._world.loop.now_us
        if now_us != self._looked_at_us:
            self._looked_at_us, self._looks = now_us, 0
        self._looks += 1
        if self._looks > LOOKS_MAX:
            raise SimRefused(
                f"{self._world.current().host.name} looked at its clock {LOOKS_MAX} times in one instant, and no time "
                "passes in the simulator while a program computes; use await asyncio.sleep to wait"
            )
        return self._world.current().host.clock

    def rng(self) -> random.Random:
        return self._world.current().host.rng

    def host_name(self) -> str:
        return self._world.current().host.name

    def handlers(self) -> dict[int, Any]:
        return self._world.current().handlers


def virtual_seconds(world: World) -> float:
    """Virtual seconds since the start of the world."""
    return world.loop.now_us / US_PER_S
