"""Time and chance, virtual for each node while a simulation runs; the real ones are put back after it.

Rules of this module
    1. While `virtual` is in force, the clocks of `time`, the functions of `random`, `os.urandom`, `uuid` and
       `secrets` answer from the simulation: clocks from virtual time (wall clocks with the node's skew), chance from
       the node's own stream.
    2. What was imported by name (`from time import monotonic`) is found in the loaded modules and replaced too, but
       not in this project's own.
    3. Threads, blocking sleeps and real sockets are refused with a sentence that says what to do instead.
    4. `datetime.now` and `utcnow` are methods of a class that cannot be set like others: they are put into its
       dictionary. Local time is UTC. `date.today` asks `time.time`, and so is virtual by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import gc
import os
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

from harness.errors import ConfigError

EPOCH_S = 1_700_000_000  # what `time.time()` says at the start of a simulation
OWN = ("harness", "checkers", "nemesis", "raft")
RANDOM_NAMES = (
    "random", "uniform", "triangular", "randint", "choice", "randrange", "sample", "shuffle", "choices",
    "normalvariate", "lognormvariate", "expovariate", "vonmisesvariate", "gammavariate", "gauss", "betavariate",
    "paretovariate", "weibullvariate", "getrandbits", "randbytes",
)  # fmt: skip


class SimRefused(ConfigError):
    """The simulated program asked for something real."""


class Source(Protocol):
    """Where virtual time and chance come from: the world, for the node that runs now."""

    def monotonic_us(self) -> int:
        """Virtual time."""

    def wall_us(self) -> int:
        """Virtual time with the clock skew of the node."""

    def rng(self) -> random.Random:
        """The node's stream."""


@contextlib.contextmanager
def virtual(source: Source) -> Iterator[None]:
    """Replace, run, put back."""
    replaced: list[tuple[Any, str, Any]] = []
    state = random.getstate()
    dates = _put_into(dt.datetime, _date_clocks(source))
    try:
        for owner, name, new in _replacements(source):
            old = getattr(owner, name)
            replaced.append((owner, name, old))
            setattr(owner, name, new)
            if owner is time:
                replaced += _replace_imported(name, old, new)
        yield
    finally:
        for owner, name, old in reversed(replaced):
            setattr(owner, name, old)
        _put_into(dt.datetime, dates)
        random.setstate(state)


def _replacements(source: Source) -> Iterator[tuple[Any, str, Any]]:
    yield from _clocks(source)
    for name in RANDOM_NAMES:
        yield random, name, _of_node(source, name)

    def urandom(count: int) -> bytes:
        return source.rng().randbytes(count)

    yield os, "urandom", urandom
    yield random, "_urandom", urandom
    yield random.Random, "seed", _seeding(source)
    yield uuid, "_generate_time_safe", None
    yield uuid, "_node", 0x5B_00_00_00_00_01
    yield uuid, "_last_timestamp", None
    yield threading.Thread, "start", _refuse_thread
    yield socket, "socket", SimSocket


def _clocks(source: Source) -> Iterator[tuple[Any, str, Any]]:
    for name in ("monotonic", "perf_counter"):
        yield time, name, lambda: source.monotonic_us() / 1e6
        yield time, f"{name}_ns", lambda: source.monotonic_us() * 1000
    yield time, "time", lambda: EPOCH_S + source.wall_us() / 1e6
    yield time, "time_ns", lambda: EPOCH_S * 10**9 + source.wall_us() * 1000
    yield time, "sleep", _refuse_sleep


def _date_clocks(source: Source) -> dict[str, Any]:
    def now(cls: type[dt.datetime], tz: dt.tzinfo | None = None) -> dt.datetime:
        at = cls.fromtimestamp(EPOCH_S + source.wall_us() / 1e6, tz or dt.UTC)
        return at if tz is not None else at.replace(tzinfo=None)

    return {"now": classmethod(now), "utcnow": classmethod(now)}


def _put_into(owner: type, new: Mapping[str, Any]) -> dict[str, Any]:
    """Replace methods of a class written in C; what was there before."""
    names = gc.get_referents(owner.__dict__)[0]  # the dictionary behind the read-only view
    old = {name: names[name] for name in new}
    names.update(new)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))  # forget what was looked up before
    return old


def _replace_imported(name: str, old: Any, new: Any) -> list[tuple[Any, str, Any]]:
    """Where a clock was imported by name, replace it there."""
    found: list[tuple[Any, str, Any]] = []
    for module_name, module in list(sys.modules.items()):
        own = module_name.split(".")[0] in OWN or module_name.startswith("importlib")
        if module is time or own or not hasattr(module, "__dict__"):
            continue
        if vars(module).get(name) is old:
            found.append((module, name, old))
            setattr(module, name, new)
    return found


def _of_node(source: Source, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(source.rng(), name)(*args, **kwargs)

    return call


def _seeding(source: Source) -> Callable[..., None]:
    original = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        """`random.Random()` without a seed takes one from the node's stream instead of the real world."""
        original(self, a if a is not None else source.rng().getrandbits(64), version)

    return seed


def _refuse_thread(_self: threading.Thread) -> NoReturn:
    raise SimRefused(
        "a thread was started in the simulator, which has only one; use asyncio.to_thread or a task"
    )


def _refuse_sleep(seconds: float) -> NoReturn:
    raise SimRefused(
        f"time.sleep({seconds:g}) would stop the whole simulated world; use await asyncio.sleep({seconds:g})"
    )


class SimSocket:
    """A socket as far as asyncio programs make them themselves: to hand them to the loop.

    Anything that would block or reach the real network is refused.
    """

    def __init__(self, family: int = 2, type: int = 1, proto: int = 0, fileno: int | None = None) -> None:  # noqa: A002
        del fileno
        self.family = family
        self.type = type
        self.proto = proto
        self.endpoint: Any = None  # set by `loop.sock_connect`
        self.bound: tuple[str, int] | None = None
        self._options: dict[Any, Any] = {}

    def setblocking(self, _flag: bool) -> None:  # noqa: FBT001 - the socket's signature
        """Nothing: no call on it blocks."""

    def settimeout(self, _timeout: float | None) -> None:
        """Nothing: no call on it blocks."""

    def setsockopt(self, *args: Any) -> None:
        """Remembered and without effect."""
        self._options[args[:2]] = args[2]

    def getsockopt(self, *args: Any) -> Any:
        """What was set."""
        return self._options.get(args[:2], 0)

    def bind(self, address: tuple[str, int]) -> None:
        """The address to listen on, or to connect from."""
        self.bound = address

    def getsockname(self) -> Any:
        """The address of this end."""
        return self.endpoint.get_extra_info("sockname") if self.endpoint is not None else self.bound

    def getpeername(self) -> Any:
        """The address of the other end."""
        return self.endpoint.get_extra_info("peername") if self.endpoint is not None else None

    def fileno(self) -> int:
        """There is no file behind it."""
        return -1

    def close(self) -> None:
        """Close the connection if no protocol has taken it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise SimRefused(
            f"socket.{name} is not simulated; use asyncio.open_connection and asyncio.start_server in the simulator"
        )
