"""One machine of a `World`: a program that is killed, paused, slowed and crashed, on files that outlive it.

Theory of operation
    Every callback of a process passes `admit` while its host is `held`: paused, slow, or busy with a disk that its
    program waits for without an executor. What cannot run yet is kept in order and run in order. A slow process takes
    `EVENT_US` times (factor - 1) for each callback.

    A process that reaches its crash point ends there, with all its connections, and its disk is as the disk was when
    what it had asked for was done: a sync that it never learned of has happened.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from harness.errors import InternalError
from harness.sim.clock import SimClock
from harness.sim.entropy import SimRefused
from harness.sim.files import SimFiles
from harness.sim.streams import DatagramEndpoint, Endpoint
from harness.sim.trouble import Crashed
from nemesis.target import CrashPoint

if TYPE_CHECKING:
    from harness.sim.world import World

Program = Callable[[], Coroutine[Any, Any, Any]]
INBOX_MAX = 100_000
EPHEMERAL_PORT = 49_152
EVENT_US = 100  # what a callback costs a process at its own pace; only counted on a slow host
FOREVER_US = 1 << 62

current_process: contextvars.ContextVar[SimProcess] = contextvars.ContextVar("splitbrain_process")


class SimProcess:
    """One life of a host's program."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.alive = True
        self.inbox: deque[asyncio.Handle] = deque()  # what waits while it is paused
        self.endpoints: dict[Endpoint, None] = {}
        self.main: asyncio.Task[Any] | None = None
        self.handlers: dict[int, Any] = {}  # of signals, none of which ever comes


class Host:
    """One machine.

    Attributes:
        name, address: how others reach it.
        storage: what outlives the process, at once and for certain.
        files: its disk, which outlives the process as a disk does.
        clock: its clocks.
        exits: how each life of its program ended.
        crash_point: where the program is to die, once.
        held: its callbacks have to ask `admit`.
        on_end: is told how a life of its program ended.
        waited: how often a callback waited for a slow program.
    """

    def __init__(self, world: World, name: str, address: str, program: Program | None) -> None:
        self.name = name
        self.address = address
        self.storage: dict[str, Any] = {}
        self.files = SimFiles(world.loop, world.streams.dice(f"disk/{name}", world.loop))
        self.files.blocks = self._wait_for_disk
        self.files.reached = self.reached
        self.clock = SimClock(world.loop)
        self.exits: list[str] = []
        self.crash_point: CrashPoint | None = None
        self.held = False
        self.on_end: Callable[[str], None] = self.exits.append
        self.waited = 0
        self.ports: dict[int, Any] = {}
        self.datagram_ports: dict[int, DatagramEndpoint] = {}
        self.process: SimProcess | None = None
        self.paused = False
        self.rng = world.streams.stream(f"node/{name}")
        self._world = world
        self._program = program
        self._event_us = 0
        self._busy_until_us = 0
        self._draining = False
        self._free_ports = itertools.count(EPHEMERAL_PORT)
        world.network.attach(name, self._on_datagram)

    def free_port(self) -> int:
        """A port that nobody listens on."""
        return next(port for port in self._free_ports if port not in self.ports)

    @property
    def skew_us(self) -> int:
        """How far its wall clock is ahead, faults aside."""
        return self.clock.skew_us

    @skew_us.setter
    def skew_us(self, skew_us: int) -> None:
        self.clock.skew_us = skew_us

    def start(self) -> None:
        """Start the program, unless it runs."""
        if self.process is None and self._program is not None:
            self.process = SimProcess(self)
            self._world.loop.call_soon(self._main, context=self.context(self.process))

    def context(self, process: SimProcess) -> contextvars.Context:
        """A context in which everything belongs to the process."""
        context = contextvars.copy_context()
        context.run(current_process.set, process)
        return context

    def _main(self) -> None:
        process = self.process
        assert process is not None, "started"
        assert self._program is not None, "only hosts with a program are started"
        try:
            process.main = asyncio.ensure_future(self._program())
        except SimRefused:
            raise
        except Exception as error:  # noqa: BLE001 - as if the program had begun and raised
            self._end(f"raised {error!r}")
        else:
            process.main.add_done_callback(self._exited)

    def _exited(self, task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, SimRefused):
            self._world.loop.fail(error)
        self._end("exited" if error is None else f"raised {error!r}")

    def exit(self, process: SimProcess, code: Any) -> None:
        """The process has called `sys.exit`."""
        if process is self.process:
            self._end("exited" if code in (None, 0) else f"exited with {code!r}")

    def kill(self) -> None:
        """SIGKILL and power loss in one; only `storage` and what is durable of `files` is left."""
        self._end("killed")

    def reached(self, point: CrashPoint) -> None:
        """The program is at this point of what it does; it may be its last.

        Raises:
            Crashed: it is.
        """
        if self.crash_point == point and self.process is not None:
            self.crash_point = None
            self._end(f"crashed {point}", self.files.end_us)
            raise Crashed(point)

    def _end(self, how: str, at_us: int | None = None) -> None:
        process, self.process, self.paused = self.process, None, False
        if process is None:
            return
        self.on_end(how)
        process.alive = False
        process.inbox.clear()
        self._busy_until_us = 0
        self.held = self._event_us > 0
        self.ports.clear()
        self.datagram_ports.clear()
        for endpoint in list(process.endpoints):
            endpoint.die()
        process.endpoints.clear()
        self.files.crash(at_us)

    # -- who may run when -------------------------------------------------------------------------------------

    def pause(self) -> None:
        """SIGSTOP."""
        if self.process is not None:
            self.paused = self.held = True

    def resume(self) -> None:
        """SIGCONT: what has waited runs, in order."""
        if self.paused:
            self.paused = False
            self._drain_in(0)

    def set_slowness(self, factor: float) -> None:
        """Let the program take `factor` times as long for each callback; 1 is its own pace."""
        self._event_us = round(EVENT_US * (factor - 1.0)) if factor > 1.0 else 0
        self.held = True
        self._drain_in(0)

    def admit(self, process: SimProcess, handle: asyncio.Handle) -> bool:
        """Whether a callback may run now, on a host that is held; if not, it is kept."""
        now_us = self._world.loop.now_us
        if not (self.paused or process.inbox or now_us < self._busy_until_us):
            self._busy_until_us = now_us + self._event_us
            return True
        process.inbox.append(handle)
        if len(process.inbox) > INBOX_MAX:  # bytes of a connection must not be missing silently
            self._world.loop.fail(
                InternalError(
                    f"more than {INBOX_MAX} callbacks wait for {self.name}, which is paused or slow"
                )
            )
        self.waited += not self.paused
        if not self.paused:
            self._drain_in(self._busy_until_us - now_us)
        return False

    def _drain_in(self, wait_us: int) -> None:
        if not self._draining and wait_us < FOREVER_US // 2:
            self._draining = True
            self._world.loop.post(wait_us, self._drain)

    def _drain(self) -> None:
        """Run what waits, as fast as the process is."""
        self._draining = False
        loop = self._world.loop
        while not self.paused:
            process = self.process
            if process is None or not process.inbox:
                self.held = self._event_us > 0 or self._busy_until_us > loop.now_us
                return
            if self._busy_until_us > loop.now_us:
                self._drain_in(self._busy_until_us - loop.now_us)
                return
            self._busy_until_us = loop.now_us + self._event_us
            loop.run_handle(process.inbox.popleft())

    def _wait_for_disk(self) -> None:
        """The program asked the disk for something, without an executor: it stands still until that is done."""
        self.held = True
        end_us = self.files.end_us
        self._busy_until_us = FOREVER_US if end_us is None else end_us
        if end_us is None:
            self.files.when_unstalled(self._disk_goes_on)

    def _disk_goes_on(self) -> None:
        self._wait_for_disk()
        self._drain_in(self._busy_until_us - self._world.loop.now_us)

    def _on_datagram(self, src: str, message: Any) -> None:
        local, port, data = message
        endpoint = self.datagram_ports.get(port)
        if endpoint is not None:
            endpoint.receive((self._world.hosts[src].address, local[1]), data)
