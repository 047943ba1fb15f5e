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
import contextvars
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from harness.seeds import Streams
from harness.sim import entropy
from harness.sim.loop import US_PER_S
from harness.sim.network import NetworkParams, SimNetwork
from harness.sim.streams import DatagramEndpoint, Endpoint
from harness.sim.world_loop import WorldLoop
from nemesis.target import ClockRule, Ruleset

T = TypeVar("T")

Program = Callable[[], Coroutine[Any, Any, Any]]
INBOX_MAX = 100_000
EPHEMERAL_PORT = 49_152
UNCAUGHT_MAX = 1000
TEST = "test"

_process: contextvars.ContextVar[SimProcess] = contextvars.ContextVar("splitbrain_process")


class SimProcess:
    """One life of a host's program."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.alive = True
        self.inbox: deque[asyncio.Handle] = deque()  # what waits while it is paused
        self.endpoints: dict[Endpoint, None] = {}
        self.main: asyncio.Task[Any] | None = None


class Host:
    """One machine.

    Attributes:
        name, address: how others reach it.
        storage: what outlives the process; everything else of a program is gone when it is killed.
        skew_us: how far its wall clock is ahead.
        exits: how each life of its program ended.
    """

    def __init__(self, world: World, name: str, address: str, program: Program | None) -> None:
        self.name = name
        self.address = address
        self.storage: dict[str, Any] = {}
        self.skew_us = 0
        self.exits: list[str] = []
        self.ports: dict[int, Any] = {}
        self.datagram_ports: dict[int, DatagramEndpoint] = {}
        self.process: SimProcess | None = None
        self.paused = False
        self.rng = world.streams.stream(f"node/{name}")
        self._world = world
        self._program = program
        self._free_ports = itertools.count(EPHEMERAL_PORT)
        world.network.attach(name, self._on_datagram)

    def free_port(self) -> int:
        """A port that nobody listens on."""
        return next(port for port in self._free_ports if port not in self.ports)

    def start(self) -> None:
        """Start the program, unless it runs."""
        if self.process is None and self._program is not None:
            self.process = SimProcess(self)
            self._world.loop.call_soon(self._main, context=self.context(self.process))

    def context(self, process: SimProcess) -> contextvars.Context:
        """A context in which everything belongs to the process."""
        context = contextvars.copy_context()
        context.run(_process.set, process)
        return context

    def _main(self) -> None:
        process = self.process
        assert process is not None, "started"
        assert self._program is not None, "only hosts with a program are started"
        process.main = asyncio.ensure_future(self._program())
        process.main.add_done_callback(self._exited)

    def _exited(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, entropy.SimRefused):
            self._world.loop.fail(error)
        self._end("exited" if error is None else f"raised {error!r}")

    def kill(self) -> None:
        """SIGKILL and power loss in one; only `storage` is left."""
        self._end("killed")

    def _end(self, how: str) -> None:
        process, self.process, self.paused = self.process, None, False
        if process is None:
            return
        self.exits.append(how)
        process.alive = False
        process.inbox.clear()
        self.ports.clear()
        self.datagram_ports.clear()
        for endpoint in list(process.endpoints):
            endpoint.die()
        process.endpoints.clear()

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = self.process is not None

    def resume(self) -> None:
        """SIGCONT: what has waited runs, in order."""
        self.paused = False
        if self.process is not None:
            for handle in self.process.inbox:
                self._world.loop.again(handle)
            self.process.inbox.clear()

    def _on_datagram(self, src: str, message: Any) -> None:
        local, port, data = message
        endpoint = self.datagram_ports.get(port)
        if endpoint is not None:
            endpoint.receive((self._world.hosts[src].address, local[1]), data)


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
        self.facts: dict[str, Any] = {}
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
        with entropy.virtual(_Source(self)):
            try:
                for host in self.hosts.values():
                    host.start()
                self.loop.limit(limit_s)
                return self._test.context(process).run(self.loop.run_until_complete, test())
            finally:
                for host in self.hosts.values():
                    host.kill()
                self.loop.close()

    def current(self) -> SimProcess:
        """The process that runs now."""
        return _process.get(self._outside)

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
        """Shift the wall clock of a host."""
        self.hosts[node].skew_us = round(rule.offset_ms * 1000)

    # -- the loop's side --------------------------------------------------------------------------------------

    def admit(self, handle: asyncio.Handle) -> bool:
        """Whether a callback may run now; one of a paused process is kept for later."""
        process = handle._context.get(_process)  # type: ignore[attr-defined]  # noqa: SLF001 - handles have no other way
        if process is None:
            return True
        if not process.alive:
            return False
        if process.host.paused:
            if len(process.inbox) < INBOX_MAX:
                process.inbox.append(handle)
            return False
        return True

    def log(self, message: str) -> None:
        """What asyncio would log."""
        if len(self.uncaught) < UNCAUGHT_MAX:
            self.uncaught.append((self.current().host.name, message))


class _Source:
    """Time and chance of the node that runs now."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic_us(self) -> int:
        return self._world.loop.now_us

    def wall_us(self) -> int:
        return self._world.loop.now_us + self._world.current().host.skew_us

    def rng(self) -> random.Random:
        return self._world.current().host.rng


def virtual_seconds(world: World) -> float:
    """Virtual seconds since the start of the world."""
    return world.loop.now_us / US_PER_S
