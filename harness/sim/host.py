"""One simulated machine: a process on a disk, a clock and links; killed, started, paused, resumed.

Theory of operation
    A host runs at most one process at a time, made by a factory at each start; the disk outlives it. Everything
    that reaches the process (messages, requests, timers, finished syncs) passes through `_run`:
    - of a process that was killed: dropped (each process has an incarnation number, and a late event carries it);
    - of a paused one: queued, as the kernel queues bytes for a stopped process, and run in order at `resume`;
    - otherwise: called at once. An exception that the process does not catch ends it, as it would end a real one:
      the host is dead until it is started again, and the panic is kept for the results.
"""

from __future__ import annotations

import errno
import random
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from harness.sim.disk import DiskError, SimDisk
from harness.sim.loop import US_PER_S, SimLoop
from harness.sim.network import SimNetwork

INBOX_MAX = (
    100_000  # events that pile up on a paused host; what comes after that is dropped, as a full queue does
)


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
        if self.callback is None or self.incarnation != host.incarnation:
            return
        if host.paused:
            host.queue(self.fire)
        else:
            host.guard(self.callback, *self.args)


def _raise_eio() -> None:
    raise DiskError(errno.EIO, "the simulated disk failed to sync")


class SimHost:
    """See the module. Satisfies the Host protocol that nodes are written against, given their storage."""

    def __init__(
        self,
        name: str,
        *,
        loop: SimLoop,
        network: SimNetwork,
        disk: SimDisk,
        rng: random.Random,
        factory: Callable[[SimHost], Process],
    ) -> None:
        self.name = name
        self.loop = loop
        self.disk = disk
        self.incarnation = 0
        self.paused = False
        self.process: Process | None = None
        self._network = network
        self._factory = factory
        self.panics: list[str] = []
        self.disk_deaths = 0
        self.wall_offset_us = 0
        self._inbox: deque[Callable[[], None]] = deque()
        self._on_death: list[Callable[[], None]] = []
        self.random = rng.random
        self.storage: Any = None  # set by the system: its way of keeping records on the disk
        self.observer: Observer | None = None  # who wants to be told what happens here; never changes it
        network.attach(name, self._on_message)

    # -- what the process sees --------------------------------------------------------------------------------

    def now_us(self) -> int:
        """Monotonic microseconds."""
        return self.loop.now_us

    def wall_us(self) -> int:
        """The wall clock, which faults may shift; the monotonic one never jumps."""
        return self.loop.now_us + self.wall_offset_us

    def call_later(self, delay_us: int, callback: Callable[..., None], *args: Any) -> HostTimer:
        """Call back once, unless the process dies first."""
        timer = HostTimer(self, self.incarnation, callback, args)
        self.loop.schedule(delay_us, timer.fire)
        return timer

    def send(self, dst: str, message: Any) -> None:
        """Send a message to another node."""
        self._network.send(self.name, dst, message)

    def sync(self, done: Callable[[], None]) -> None:
        """Sync the disk; `done` runs when the process runs."""
        failed = HostTimer(self, self.incarnation, _raise_eio, ())
        self.disk.sync(HostTimer(self, self.incarnation, done, ()).fire, failed.fire)

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
        self.incarnation += 1
        self._inbox.clear()
        records = len(self.disk.read())
        self.disk.crash()
        if self.observer is not None:
            self.observer("killed", unsynced_lost=records - len(self.disk.read()))
        on_death, self._on_death = self._on_death, []
        for callback in on_death:
            callback()

    def pause(self) -> None:
        """Stop the process; a dead one cannot be paused."""
        self.paused = self.process is not None

    def resume(self) -> None:
        """Let the process run on; what has piled up is run first, in order."""
        if not self.paused:
            return
        self.paused = False
        waiting, self._inbox = self._inbox, deque()
        incarnation = self.incarnation
        while waiting and self.incarnation == incarnation:
            waiting.popleft()()

    def guard(self, call: Callable[..., None], *args: Any) -> None:
        """Run code of the process; an exception is the end of the process."""
        try:
            call(*args)
        except DiskError:
            self.disk_deaths += 1  # asked for: a program that cannot write should stop
            self.kill()
        except Exception as error:  # noqa: BLE001 - whatever it dies of
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.panics.append(
                f"{self.name} died of {error!r} at {self.loop.now_us / US_PER_S:.3f} s in {place.name}, line "
                f"{place.lineno} of {place.filename.rpartition('/')[2]}"
            )
            self.kill()

    def queue(self, event: Callable[[], None]) -> None:
        """Keep an event until the process runs on."""
        if len(self._inbox) < INBOX_MAX:
            self._inbox.append(event)

    def on_death(self, callback: Callable[[], None]) -> None:
        """Call back when the process that runs now is killed."""
        self._on_death.append(callback)
        if len(self._on_death) > INBOX_MAX:
            del self._on_death[: INBOX_MAX // 2]

    def _on_message(self, src: str, message: Any) -> None:
        process = self.process
        if process is None:
            return
        if self.paused:
            self.queue(lambda: self.guard(process.on_message, src, message))
        else:
            self.guard(process.on_message, src, message)

    def deliver_request(self, request: Any, reply: Callable[[Any], None]) -> None:
        """A client's request has arrived; the caller has looked at `alive`."""
        process = self.process
        if process is None:
            return
        if self.observer is not None:
            self.observer("request", request=request)
            reply = _told(self.observer, reply)
        if self.paused:
            self.queue(lambda: self.guard(process.on_request, request, reply))
        else:
            self.guard(process.on_request, request, reply)


def _told(observer: Observer, reply: Callable[[Any], None]) -> Callable[[Any], None]:
    def tell(response: Any) -> None:
        observer("reply", response=response)
        reply(response)

    return tell
