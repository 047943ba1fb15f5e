"""The asyncio event loop of a `World`: `SimLoop`, with connections, servers, datagrams, names and an inline executor.

Rules of this module
    1. A callback runs only if its process is alive and not paused (`World.admit`).
    2. `run_in_executor` (and so `asyncio.to_thread`) runs the function at once, in the loop: it must not wait, and
       takes as long as what it asks of the host's disk.
    3. What is not simulated raises `SimRefused`, which names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import functools
import itertools
import socket
import weakref
from collections.abc import Callable
from heapq import heappush
from typing import TYPE_CHECKING, Any, NoReturn

from harness.sim.entropy import SimRefused, SimSocket
from harness.sim.files import SimFiles
from harness.sim.loop import NEVER_US, US_PER_S, SimDeadlock, SimLoop, where
from harness.sim.streams import (
    CONNECT_TIMEOUT_US,
    RETRY_US_MIN,
    Address,
    DatagramEndpoint,
    Endpoint,
    Server,
    blocked,
    connected,
    transit_us,
)
from harness.sim.trouble import Crashed

if TYPE_CHECKING:
    from harness.sim.world import World
    from harness.sim.world_host import Host

_MASK = (1 << 60) - 1


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is its number, so that sets of futures are walked in the same order in each run."""

    _loop: WorldLoop

    def __hash__(self) -> int:
        return _number(self)


class SimTask(asyncio.Task[Any]):
    """A task whose hash is its number, as above: asyncio itself keeps tasks in sets."""

    def __hash__(self) -> int:
        return _number(self)


def _number(future: Any) -> int:
    try:
        number: int = future.splitbrain_number
    except AttributeError:
        number = future.splitbrain_number = future.get_loop().next_number()
    return number


class WorldLoop(SimLoop):
    """See the module."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._tie_key = int.from_bytes(world.streams.stream("loop").randbytes(8), "big")
        self._numbers = itertools.count()
        self.next_number = self._numbers.__next__
        self._task_numbers = itertools.count(1)
        self._host_of: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()

    def post(self, delay_us: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call back then, among all that is due at the same time in an order that the seed draws."""
        when_us = self.now_us + delay_us if delay_us > 0 else self.now_us
        self._seq = seq = self._seq + 1
        # Multiplicative hashing: the high bits are the order of ties, the low ones make it unique.
        tie = (self._tie_key + when_us * 0x9E3779B97F4A7C15 + seq * 0xD1B54A32D192ED03) & _MASK
        heappush(self._heap, (when_us, (tie >> 32 << 32) | (seq & 0xFFFFFFFF), callback, args))

    # -- callbacks of processes -------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run the callback in this instant, if its process can run."""
        handle = asyncio.Handle(callback, args, self, context)
        self.again(handle)
        return handle

    def again(self, handle: asyncio.Handle) -> None:
        """Run a handle in this instant, if its process can run."""
        self._ready.append((self._run_admitted, (handle,)))

    def _call_at_us(
        self,
        when_us: int,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when_us / US_PER_S, callback, args, self, context)
        if when_us >= NEVER_US:
            return handle
        true_us = when_us if self._world.clocks_agree else self._world.current().host.clock.true_us(when_us)
        self.post(true_us - self.now_us, self._run_admitted, handle)
        return handle

    def time(self) -> float:
        """Seconds on the monotonic clock of the host that runs now."""
        clocks_agree = self._world.clocks_agree
        return (self.now_us if clocks_agree else self._world.current().host.clock.mono_us()) / US_PER_S

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Any:
        """Run the callback when so much has passed on the clock of the host that runs now."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _run_admitted(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled() and self._world.admit(handle):
            try:
                handle._run()  # noqa: SLF001 - how every loop runs its handles
            except SystemExit as error:
                self._world.exit(handle, error)

    def run_handle(self, handle: asyncio.Handle) -> None:
        """Run a callback that waited for its turn."""
        if not handle.cancelled():
            try:
                handle._run()  # noqa: SLF001 - see above
            except SystemExit as error:
                self._world.exit(handle, error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio would log; only what was refused ends the world."""
        error = context.get("exception")
        if isinstance(error, Crashed):
            return
        if isinstance(error, SimRefused):
            self.fail(error)
        elif not self._closed:
            self._world.log(f"{context.get('message')}: {error!r}")

    # -- the end ----------------------------------------------------------------------------------------------

    def limit(self, seconds: float) -> None:
        """End the world with a report if it is not over by then."""
        self.post(round(seconds * US_PER_S), self._too_late, seconds)

    def _too_late(self, seconds: float) -> None:
        if self._heap:
            self.fail(SimDeadlock(f"not over after {seconds:g} virtual seconds; {self._waiting()}"))
        else:
            self.fail(SimDeadlock(f"deadlock: nothing is scheduled any more; {self._waiting()}"))

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        """A task of the process that runs now; asyncio would number those without a name by what ran before."""
        if name is None:
            name = f"Task-{next(self._task_numbers)}"
        task = SimTask(coro, loop=self, name=name, context=context)
        self._keep(task)
        self._host_of[task] = self._world.current().host.name
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return SimFuture(loop=self)

    def _describe(self, task: asyncio.Task[Any]) -> str:
        return f"on {self._host_of.get(task, '?')} {where(task)}"

    # -- names ------------------------------------------------------------------------------------------------

    async def getaddrinfo(self, host: Any, port: Any, **_options: Any) -> Any:
        """The address of a host of this world."""
        found = self._resolve(host)
        number = int(port or 0)
        return [(2, 1, 6, "", (found.address, number))]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """The address, as text."""
        del flags
        return str(sockaddr[0]), str(sockaddr[1])

    def _resolve(self, name: Any) -> Host:
        text = name.decode() if isinstance(name, bytes) else name
        found = self._world.host_at(text, self._world.current().host)
        if found is None:
            known = ", ".join(self._world.hosts)
            raise socket.gaierror(
                socket.EAI_NONAME,
                f"Name or service not known: {text!r}; the hosts of this world are {known}",
            )
        return found

    # -- connections ------------------------------------------------------------------------------------------

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Any, host: Any = None, port: int | None = None, *, ssl: Any = None,  # noqa: ARG002 - every host has one address
        sock: Any = None, **_options: Any,
    ) -> Server:  # fmt: skip
        """Listen on a port of the host that runs now."""
        if ssl is not None:
            raise SimRefused("TLS is not simulated; start the server without ssl in the simulator")
        if sock is not None:
            port = sock.bound[1] if sock.bound else 0
        here = self._world.current().host
        number = port or here.free_port()
        if number in here.ports:
            raise OSError(errno.EADDRINUSE, f"port {number} of {here.name} is in use")
        server = Server(self._world, (here.address, number), protocol_factory)
        here.ports[number] = server
        return server

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, ssl: Any = None, sock: Any = None,
        **_options: Any,
    ) -> tuple[Endpoint, Any]:  # fmt: skip
        """Connect to a port of a host."""
        if ssl:
            raise SimRefused("TLS is not simulated; connect without ssl in the simulator")
        endpoint = sock.endpoint if sock is not None else await self._connect(self._resolve(host), int(port))
        protocol = protocol_factory()
        endpoint.attach(protocol)
        return endpoint, protocol

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect a socket that a program made itself."""
        assert isinstance(sock, SimSocket), "real sockets cannot be made in the simulator"
        sock.endpoint = await self._connect(self._resolve(address[0]), int(address[1]))

    async def _connect(self, there: Host, port: int) -> Endpoint:
        """A handshake: one way and back, each as long as the link takes."""
        world, here = self._world, self._world.current().host
        await self._pass(here, there)
        server = there.ports.get(port)
        while (
            there.paused and server is not None
        ):  # its kernel would accept; the program does so when it runs on
            await asyncio.sleep(RETRY_US_MIN / US_PER_S)
            server = there.ports.get(port)
        if server is None:
            await self._pass(there, here)
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on port {port} of {there.name}")
        local: Address = (here.address, here.free_port())
        mine, theirs = connected(world, (here.name, local), (there.name, (there.address, port)))
        self.call_soon(server.take, theirs, context=server.context.copy())
        await self._pass(there, here)
        return mine

    async def _pass(self, src: Host, dst: Host) -> None:
        started_us = self.now_us
        await asyncio.sleep(transit_us(self._world, src.name, dst.name) / US_PER_S)
        while blocked(self._world, src.name, dst.name):
            if self.now_us - started_us > CONNECT_TIMEOUT_US:
                raise TimeoutError(errno.ETIMEDOUT, f"connecting {src.name} and {dst.name} timed out")
            await asyncio.sleep(RETRY_US_MIN / US_PER_S)

    async def create_datagram_endpoint(
        self, protocol_factory: Any, local_addr: Any = None, remote_addr: Any = None, *, sock: Any = None,
        **_options: Any,
    ) -> tuple[DatagramEndpoint, Any]:  # fmt: skip
        """A socket for datagrams on the host that runs now."""
        here = self._world.current().host
        if sock is not None:
            local_addr = sock.bound
        port = (local_addr[1] if local_addr else 0) or here.free_port()
        if port in here.datagram_ports:
            raise OSError(errno.EADDRINUSE, f"datagram port {port} of {here.name} is in use")
        remote = (self._resolve(remote_addr[0]).address, remote_addr[1]) if remote_addr else None
        protocol = protocol_factory()
        endpoint = DatagramEndpoint(self._world, (here.address, port), remote, protocol)
        protocol.connection_made(endpoint)
        return endpoint, protocol

    # -- what threads would do --------------------------------------------------------------------------------

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run the function now; its result is there in this instant, or when the disk is done with what it asked."""
        del executor
        future = self.create_future()
        files = self._world.current().host.files
        files.in_call, files.took_time = True, False
        try:
            settle = functools.partial(_resolve, future, func(*args))
        except Crashed:
            return future  # nobody will ever look at it
        except StopIteration as error:
            settle = functools.partial(_refuse, future, RuntimeError(repr(error)))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the future
            settle = functools.partial(_refuse, future, error)
        finally:
            files.in_call = False
        self._when_disk_is_done(files, settle)
        return future

    def _when_disk_is_done(self, files: SimFiles, settle: Callable[[], None]) -> None:
        end_us = files.end_us
        if end_us is None:
            files.when_unstalled(functools.partial(self._when_disk_is_done, files, settle))
        elif files.took_time and end_us > self.now_us:
            self.post(end_us - self.now_us, settle)
        else:
            settle()

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """There is one thread."""
        return self.call_soon(callback, *args, context=context)

    def set_default_executor(self, executor: Any) -> None:
        """There is none."""

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """No signal ever comes."""

    def remove_signal_handler(self, sig: int) -> bool:
        """None was added."""
        del sig
        return False

    def set_exception_handler(self, handler: Any) -> None:
        """What handlers would be told stands in `World.uncaught`."""

    def get_exception_handler(self) -> None:
        """None."""

    def set_task_factory(self, factory: Any) -> None:
        """Refused: tasks must be this loop's."""
        if factory is not None:
            raise SimRefused("task factories are not simulated; leave set_task_factory out in the simulator")

    def get_task_factory(self) -> None:
        """None."""

    def _refuse(self, what: str) -> NoReturn:
        raise SimRefused(
            f"{what} cannot run in the simulator; put it behind a function that the test replaces"
        )

    async def subprocess_exec(self, *args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse(f"a subprocess ({args[1] if len(args) > 1 else ''})")

    async def subprocess_shell(self, *args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse(f"a subprocess ({args[1] if len(args) > 1 else ''})")

    async def start_tls(self, *_args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse("TLS")

    async def create_unix_server(self, *_args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse("a Unix socket")

    async def create_unix_connection(self, *_args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse("a Unix socket")

    async def connect_read_pipe(self, *_args: Any) -> Any:
        """Refused."""
        self._refuse("reading from a pipe")

    async def connect_write_pipe(self, *_args: Any) -> Any:
        """Refused."""
        self._refuse("writing to a pipe")

    async def sendfile(self, *_args: Any, **_options: Any) -> Any:
        """Refused."""
        self._refuse("sendfile")

    def _refuse_socket_call(self, *_args: Any, **_options: Any) -> NoReturn:
        raise SimRefused(
            "the loop's calls for sockets are not simulated, but for sock_connect; use asyncio.open_connection, "
            "asyncio.start_server and create_datagram_endpoint in the simulator"
        )

    sock_accept = sock_recv = sock_recv_into = sock_recvfrom = sock_recvfrom_into = _refuse_socket_call
    sock_sendall = sock_sendfile = sock_sendto = connect_accepted_socket = _refuse_socket_call

    def add_reader(  # type: ignore[override]
        self, fd: Any, *_args: Any
    ) -> None:
        """Refused."""
        self._refuse(f"watching file descriptor {fd}")

    def add_writer(  # type: ignore[override]
        self, fd: Any, *_args: Any
    ) -> None:
        """Refused."""
        self._refuse(f"watching file descriptor {fd}")


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
