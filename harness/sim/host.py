"""One simulated machine: a process on a disk, a clock and links; killed, started, paused, resumed.

Theory of operation
    A host runs at most one process at a time, made by a factory at each start; the disk outlives it. Everything
    that reaches the process (messages, requests, timers, finished syncs) passes through `_run`:
    - of a process that was killed: dropped (each process has an incarnation number, and a late event carries it);
    - of a paused one: queued, as the kernel queues bytes for a stopped process, and run in order at `resume`;
    - of a slow one: each keeps the process busy for a while, and what comes meanwhile is queued;
    - otherwise: called at once. An exception that the process does not catch ends it, as it would end a real one:
      the host is dead until it is started again, and the panic is kept for the results.

    A process can be made to die at a crash point: what it does calls `reached`, and there it ends (`Crashed`).
"""

from __future__ import annotations

import functools
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from harness.seeds import HasRandom
from harness.sim.clock import SimClock
from harness.sim.disk import SimDisk
from harness.sim.loop import US_PER_S, SimLoop
from harness.sim.network import SimNetwork
from harness.sim.trouble import Crashed, DiskError, eio
from nemesis.target import ClockRule, CrashPoint

INBOX_MAX = (
    100_000  # events that pile up on a paused host; what comes after that is dropped, as a full queue does
)


ENDS = (Exception, Crashed)  # what ends a process that does not catch it
EVENT_US = 100  # what an event costs a process at its own pace; only counted on a slow host

Observer = Callable[..., None]  # (event, **fields)


class Process(Protocol):
    """What runs on a host: a node of the system under test."""

    def start(self) -> None:
        """Called once, on a disk as the last process left it."""

    def on_message(self, src: str, message: Any) -> None:
        """A message from another node."""

    def on_request(self, request: Any, reply: Callable[[Any], None]) -> None:
        """A client's request; `reply` may be called later, at most once."""

    def leader_term(self) -> int | None:
        """The term in which this node thinks that it leads, or None."""


class Exchange(Protocol):
    """A request of a client that is under way."""

    def lost(self) -> None:
        """The process has died; called at most once."""

    def __hash__(self) -> int: ...


class HostTimer:
    """A timer of a process: it dies with the process and waits while the process is paused."""

    __slots__ = ("args", "callback", "host", "incarnation")

    def __init__(
        self, host: SimHost, incarnation: int, callback: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        self.host = host
        self.incarnation = incarnation
        self.callback: Callable[..., None] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Forget the call."""
        self.callback = None

    def fire(self) -> None:
        """The time has come."""
        host = self.host
        callback = self.callback
        if callback is None or self.incarnation != host.incarnation:
            return
        if host.held:
            host.hold(self.fire_held)
            return
        try:
            callback(*self.args)
        except ENDS as error:
            host.died_of(error)

    def fail(self) -> None:
        """What was waited for has failed."""
        self.callback = _raise_eio
        self.fire()

    def fire_held(self) -> None:
        """Its turn has come, after the host was held."""
        if self.callback is not None and self.incarnation == self.host.incarnation:
            self.host.guard(self.callback, *self.args)


def _raise_eio() -> None:
    raise eio("sync")


class SimHost:
    """See the module. Satisfies the Host protocol that nodes are written against, given their storage."""

    def __init__(
        self,
        name: str,
        *,
        loop: SimLoop,
        network: SimNetwork,
        disk: SimDisk,
        rng: HasRandom,
        factory: Callable[[SimHost], Process],
    ) -> None:
        self.name = name
        self.loop = loop
        self.disk = disk
        self.incarnation = 0
        self.paused = False
        self.held = False  # paused or slow: events wait for their turn
        self.process: Process | None = None
        self._factory = factory
        self.panics: list[str] = []
        self.disk_deaths = 0
        self.clock = SimClock(loop)
        self.crash_point: CrashPoint | None = None
        self.crashes = 0
        self._true_time = True  # its monotonic clock is right, as it mostly is
        self._event_us = 0
        self.waited = 0  # how often something waited for a slow process
        self._busy_until_us = 0
        self._draining = False
        self._inbox: deque[Callable[[], None]] = deque()
        self.exchanges: dict[Exchange, None] = {}  # requests that the process has not answered
        self.random = rng.random
        self.send = functools.partial(network.send, name)  # a message to another node
        self.storage: Any = None  # set by the system: its way of keeping records on the disk
        self.joins = (
            False  # its processes are new to the cluster: they know nobody before somebody tells them
        )
        self.observer: Observer | None = None  # who wants to be told what happens here; never changes it
        self.request_observer: Observer | None = None  # and of requests and replies, which are many
        network.attach(name, self._on_message)

    # -- what the process sees --------------------------------------------------------------------------------

    def now_us(self) -> int:
        """Monotonic microseconds."""
        return self.loop.now_us if self._true_time else self.clock.mono_us()

    def wall_us(self) -> int:
        """The wall clock, which faults may shift; the monotonic one never jumps."""
        return self.clock.wall_us()

    def call_later(self, delay_us: int, callback: Callable[..., None], *args: Any) -> HostTimer:
        """Call back once, unless the process dies first."""
        timer = HostTimer(self, self.incarnation, callback, args)
        if not self._true_time:
            delay_us = self.clock.true_delay_us(delay_us)
        self.loop.post(delay_us, timer.fire)
        return timer

    def sync(self, done: Callable[[], None]) -> None:
        """Sync the disk; `done` runs when the process runs."""
        if self.crash_point is not None:
            self.reached("before-sync")
            done = functools.partial(self._synced, done)
        timer = HostTimer(self, self.incarnation, done, ())
        self.disk.sync(timer.fire, timer.fail)

    def _synced(self, done: Callable[[], None]) -> None:
        self.reached("after-sync")
        done()

    def reached(self, point: CrashPoint) -> None:
        """The process is at this point of what it does; it may be its last.

        Raises:
            Crashed: it is.
        """
        if self.crash_point == point:
            self.crash_point = None
            raise Crashed(point)

    # -- what the world does to it ----------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether a process runs here, paused or not."""
        return self.process is not None

    def start(self) -> None:
        """Start a process on the disk; does nothing if one runs."""
        if self.process is None:
            self.incarnation += 1
            self.process = self._factory(self)
            self.guard(self.process.start)

    def kill(self) -> None:
        """The process is gone at once, with all that it had not synced; does nothing if none runs."""
        if self.process is None:
            return
        self.process = None
        self.paused = False
        self.held = self._event_us > 0
        self.incarnation += 1
        self._inbox.clear()
        records = len(self.disk.read())
        self.disk.crash()
        if self.observer is not None:
            self.observer("killed", unsynced_lost=records - len(self.disk.read()))
        exchanges, self.exchanges = self.exchanges, {}
        for exchange in exchanges:
            exchange.lost()

    def pause(self) -> None:
        """Stop the process; a dead one cannot be paused."""
        if self.process is not None:
            self.paused = self.held = True

    def resume(self) -> None:
        """Let the process run on; what has piled up is run first, in order."""
        if self.paused:
            self.paused = False
            if not self._draining:
                self._drain()

    def wipe(self) -> None:
        """Forget the disk, while no process runs; the next one joins as a new member."""
        self.disk.cut(0)
        self.joins = True

    def set_slowness(self, factor: float) -> None:
        """Let the process take `factor` times as long for each event; 1 is its own pace."""
        self._event_us = round(EVENT_US * (factor - 1.0)) if factor > 1.0 else 0
        self.held = self.paused or self._event_us > 0 or bool(self._inbox)

    def set_clock(self, rule: ClockRule) -> None:
        """Make the clocks exactly this."""
        self.clock.set_rule(rule)
        self._true_time = self._true_time and self.clock.rate == 1.0

    def hold(self, event: Callable[[], None]) -> None:
        """An event for a process that is paused or slow: it waits for its turn."""
        if len(self._inbox) < INBOX_MAX:
            self._inbox.append(event)
        if not self.paused and not self._draining:
            self._drain()

    def _drain(self) -> None:
        """Run what waits, as fast as the process is."""
        self._draining = True
        incarnation = self.incarnation
        while self._inbox and not self.paused and self.incarnation == incarnation:
            wait_us = self._busy_until_us - self.loop.now_us
            if self._event_us and wait_us > 0:
                self.waited += 1
                self.loop.post(wait_us, self._drain)
                return
            self._busy_until_us = self.loop.now_us + self._event_us
            self._inbox.popleft()()
        self._draining = False
        self.held = self.paused or self._event_us > 0

    def guard(self, call: Callable[..., None], *args: Any) -> None:
        """Run code of the process; an exception is the end of the process."""
        try:
            call(*args)
        except ENDS as error:
            self.died_of(error)

    def died_of(self, error: BaseException) -> None:
        """The process did not catch this."""
        if isinstance(error, Crashed):
            self.crashes += 1
            if self.observer is not None:
                self.observer("crashed")
        elif isinstance(error, DiskError):
            self.disk_deaths += 1  # asked for: a program that cannot write should stop
        else:
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.panics.append(
                f"{self.name} died of {error!r} at {self.loop.now_us / US_PER_S:.3f} s in {place.name}, line "
                f"{place.lineno} of {place.filename.rpartition('/')[2]}"
            )
        self.kill()

    def _on_message(self, src: str, message: Any) -> None:
        process = self.process
        if process is None:
            return
        if self.held:
            self.hold(lambda: self.guard(process.on_message, src, message))
            return
        try:
            process.on_message(src, message)
        except ENDS as error:
            self.died_of(error)

    def deliver_request(self, request: Any, reply: Callable[[Any], None]) -> None:
        """A client's request has arrived; the caller has looked at `alive`."""
        process = self.process
        if process is None:
            return
        if self.request_observer is not None:
            self.request_observer("request", request=request)
            reply = _told(self.request_observer, reply)
        if self.held:
            self.hold(lambda: self.guard(process.on_request, request, reply))
            return
        try:
            process.on_request(request, reply)
        except ENDS as error:
            self.died_of(error)


def _told(observer: Observer, reply: Callable[[Any], None]) -> Callable[[Any], None]:
    def tell(response: Any) -> None:
        observer("reply", response=response)
        reply(response)

    return tell
