"""Time and chance, virtual for each node while a simulation runs; the real ones are put back after it.

Rules of this module
    1. While `virtual` is in force, the clocks of `time`, the functions of `random`, `os.urandom`, `uuid`, `secrets` and
       the name of the host answer from the simulation: clocks from virtual time (wall clocks with the node's skew),
       chance from the node's own stream.
    2. What was imported by name (`from random import random as dice`) is found in the loaded modules and replaced too,
       but not in this project's own. In the standard library it is replaced under its own name only: threads that are
       none of the simulation wait there by the real clock.
    3. Each replacement is one function for ever, which asks whose turn it is: a module that is loaded in the middle of
       a run, and keeps what it imported, has the real thing after it and the virtual one in the next.
    4. Threads, processes, blocking sleeps and waits, selects, look-ups, sockets, and what would end or interrupt the
       simulator itself are refused with a sentence that says what to do instead. Handlers of signals are taken and
       never called.
    5. `datetime.now` and `utcnow` are methods of a class that cannot be set like others: they are put into its
       dictionary. Local time is UTC. `date.today` asks `time.time`, and so is virtual by itself.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import ctypes
import datetime as dt
import functools
import gc
import os
import random
import select
import selectors
import signal
import socket
import subprocess
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
    "paretovariate", "weibullvariate", "getrandbits", "randbytes", "binomialvariate",
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

    def host_name(self) -> str:
        """The node's name."""

    def handlers(self) -> dict[int, Any]:
        """The signal handlers of the process that runs now."""


class _Turn:
    """Whose time and chance it is now: a simulation's, or with None the real world's."""

    source: Source | None = None
    thread: int | None = None  # that of the simulation


@contextlib.contextmanager
def virtual(source: Source) -> Iterator[None]:
    """Replace, run, put back."""
    replaced: list[tuple[Any, str, Any]] = []
    state = random.getstate()
    dates = _put_into(dt.datetime, _date_clocks(source))
    before, _Turn.source = _Turn.source, source
    thread_before, _Turn.thread = _Turn.thread, threading.get_ident()
    zone = _set_zone("UTC")
    try:
        table = _table()
        for owner, name, new in (*table, *_others(source)):
            old = getattr(owner, name)
            replaced.append((owner, name, old))
            setattr(owner, name, new)
        replaced += _replace_imported(table)
        yield
    finally:
        for owner, name, old in reversed(replaced):
            setattr(owner, name, old)
        _put_into(dt.datetime, dates)
        _Turn.source, _Turn.thread = before, thread_before
        _set_zone(zone)
        random.setstate(state)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """What is imported meanwhile may keep functions, as default arguments too: in a run they are virtual."""
    table = [(owner, name, new, getattr(owner, name)) for owner, name, new in _table()]
    for owner, name, new, _ in table:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, _, old in table:
            setattr(owner, name, old)


@functools.cache
def _table() -> tuple[tuple[Any, str, Callable[..., Any]], ...]:
    """Functions of modules, and what takes their place."""
    found = [*_clocks(), *_refused()]
    found += [(random, name, _of_node(name)) for name in RANDOM_NAMES if hasattr(random, name)]
    found.append((random, "_urandom", _randbytes))
    found += [(os, name, _randbytes) for name in ("urandom", "getrandom") if hasattr(os, name)]
    found += [(socket, name, _host_name) for name in ("gethostname", "getfqdn")]
    found += [(owner, "as_completed", _as_completed) for owner in (asyncio.tasks, asyncio)]
    found += [(owner, "new_event_loop", _refuse_loop) for owner in (asyncio.events, asyncio)]
    return tuple((owner, name, _by_turn(getattr(owner, name), new)) for owner, name, new in found)


def _by_turn(real: Callable[..., Any], new: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def call(*args: Any, **kwargs: Any) -> Any:
        source = _Turn.source
        return real(*args, **kwargs) if source is None else new(source, *args, **kwargs)

    return call


def _others(source: Source) -> Iterator[tuple[Any, str, Any]]:
    """What is no function of a module, or cannot be taken by name."""
    yield random.Random, "seed", _seeding(source)
    yield uuid, "_generate_time_safe", None
    yield uuid, "_node", 0x5B_00_00_00_00_01
    yield uuid, "_last_timestamp", None
    yield threading.Thread, "start", _refuse_thread
    yield threading.Condition, "wait", _waiting(threading.get_ident())
    yield subprocess.Popen, "__init__", _refuse_process
    yield socket, "socket", SimSocket
    for name in ("SelectSelector", "_PollLikeSelector", "EpollSelector", "KqueueSelector"):
        if hasattr(selectors, name):
            owner = getattr(selectors, name)
            yield owner, "select", _by_turn(owner.select, _selecting("selectors", owner.select))


# -- time ------------------------------------------------------------------------------------------------------


def _clocks() -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        yield time, name, lambda source: source.monotonic_us() / 1e6
        yield time, f"{name}_ns", lambda source: source.monotonic_us() * 1000
    yield time, "time", _wall_s
    yield time, "time_ns", _wall_ns
    if hasattr(time, "clock_gettime"):
        yield time, "clock_gettime", lambda source, clock: _clock_ns(source, clock) / 1e9
        yield time, "clock_gettime_ns", _clock_ns
    for name in ("gmtime", "localtime"):
        yield time, name, _broken_down
    yield time, "ctime", lambda source, seconds=None: _asctime(_broken_down(source, seconds))
    yield time, "asctime", lambda source, at=None: _asctime(_broken_down(source) if at is None else at)
    yield (
        time,
        "strftime",
        lambda source, text, at=None: _strftime(text, _broken_down(source) if at is None else at),
    )
    yield time, "sleep", _refuse_sleep


_gmtime, _asctime, _strftime = time.gmtime, time.asctime, time.strftime


def _wall_s(source: Source) -> float:
    return EPOCH_S + source.wall_us() / 1e6


def _wall_ns(source: Source) -> int:
    return EPOCH_S * 10**9 + source.wall_us() * 1000


def _clock_ns(source: Source, clock: int) -> int:
    return _wall_ns(source) if clock == time.CLOCK_REALTIME else source.monotonic_us() * 1000


def _broken_down(source: Source, seconds: float | None = None) -> time.struct_time:
    return _gmtime(_wall_s(source) if seconds is None else seconds)


def _date_clocks(source: Source) -> dict[str, Any]:
    def now(cls: type[dt.datetime], tz: dt.tzinfo | None = None) -> dt.datetime:
        at = cls.fromtimestamp(_wall_s(source), tz or dt.UTC)
        return at if tz is not None else at.replace(tzinfo=None)

    return {"now": classmethod(now), "utcnow": classmethod(now)}


def _set_zone(zone: str | None) -> str | None:
    """Methods of dates written in C ask the C library for the local time; the zone that was set before."""
    before = os.environ.get("TZ")
    if zone != before:
        if zone is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = zone
        time.tzset()
    return before


def _put_into(owner: type, new: Mapping[str, Any]) -> dict[str, Any]:
    """Replace methods of a class written in C; what was there before."""
    names = gc.get_referents(owner.__dict__)[0]  # the dictionary behind the read-only view
    old = {name: names[name] for name in new}
    names.update(new)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(owner))  # forget what was looked up before
    return old


# -- names that were imported ----------------------------------------------------------------------------------


def _replace_imported(table: tuple[tuple[Any, str, Callable[..., Any]], ...]) -> list[tuple[Any, str, Any]]:
    """Where a function was imported by name, replace it there; what was where."""
    new_of = {id(new.__wrapped__): (name, new) for _, name, new in table}  # type: ignore[attr-defined]
    new_of[id(_real_socket)] = ("socket", SimSocket)
    found: list[tuple[Any, str, Any]] = []
    for module_name, module in list(sys.modules.items()):
        here = getattr(module, "__dict__", {})
        known, count, aliases = _aliases_in.get(module_name, (None, 0, ()))
        if known is not module or count != len(
            here
        ):  # a module of as many names has the same ones, mostly for ever
            aliases = tuple(_aliases(module_name, here, new_of))
            _aliases_in[module_name] = module, len(here), aliases
        for alias in aliases:
            if id(here.get(alias)) in new_of:
                found.append((module, alias, here[alias]))
                setattr(module, alias, new_of[id(here[alias])][1])
    return found


def _aliases(
    module_name: str, here: Mapping[str, Any], new_of: Mapping[int, tuple[str, Any]]
) -> Iterator[str]:
    """The names under which a module has functions that are to be replaced."""
    top = module_name.partition(".")[0]
    if top not in OWN and top != "importlib":
        is_standard = top in sys.stdlib_module_names
        for alias, value in list(here.items()):
            if id(value) in new_of and (alias == new_of[id(value)][0] or not is_standard):
                yield alias


_aliases_in: dict[str, tuple[Any, int, tuple[str, ...]]] = {}
_real_socket = socket.socket


# -- chance ----------------------------------------------------------------------------------------------------


def _of_node(name: str) -> Callable[..., Any]:
    def call(source: Source, *args: Any, **kwargs: Any) -> Any:
        return getattr(source.rng(), name)(*args, **kwargs)

    return call


_real_as_completed = asyncio.as_completed


def _as_completed(_source: Source, fs: Any, **kwargs: Any) -> Any:
    """Makes tasks of coroutines in the order given; asyncio does so in that of their addresses."""
    if not (asyncio.isfuture(fs) or asyncio.iscoroutine(fs)):
        fs = [asyncio.ensure_future(one) for one in dict.fromkeys(fs)]
    return _real_as_completed(fs, **kwargs)


def _randbytes(source: Source, count: int, flags: int = 0) -> bytes:
    del flags
    return source.rng().randbytes(count)


def _seeding(source: Source) -> Callable[..., None]:
    original = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        """`random.Random()` without a seed takes one from the node's stream instead of the real world."""
        original(self, a if a is not None else source.rng().getrandbits(64), version)

    return seed


# -- what is refused -------------------------------------------------------------------------------------------


def _refused() -> Iterator[tuple[Any, str, Callable[..., Any]]]:
    yield _thread, "start_new_thread", _refuse_thread
    for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system"):
        if hasattr(os, name):
            yield os, name, _refuse_process
    for name in ("_exit", "abort", "kill", "killpg"):
        yield os, name, functools.partial(_refuse_end, f"os.{name}")
    for name in (
        "raise_signal",
        "pthread_kill",
        "alarm",
        "setitimer",
        "pause",
        "sigwait",
        "sigwaitinfo",
        "sigtimedwait",
    ):
        if hasattr(signal, name):
            yield signal, name, functools.partial(_refuse_end, f"signal.{name}")
    for name in ("select", "poll", "epoll"):
        if hasattr(select, name):
            yield select, name, _selecting(f"select.{name}", getattr(select, name))
    yield signal, "signal", _take_handler
    yield signal, "getsignal", lambda source, number: source.handlers().get(number, signal.SIG_DFL)
    for name in ("socketpair", "create_server", "fromfd"):
        yield socket, name, functools.partial(_refuse_socket, name)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr", "getnameinfo"):
        yield socket, name, functools.partial(_refuse_look_up, name)


def _host_name(source: Source, name: str = "") -> str:
    return name or source.host_name()


def _refuse_thread(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise SimRefused(
        "a thread was started in the simulator, which has only one; use asyncio.to_thread or a task"
    )


def _refuse_process(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise SimRefused(
        "a process was started in the simulator, which has only one; put it behind a function that the test replaces"
    )


def _refuse_sleep(_source: Source, seconds: float) -> NoReturn:
    raise SimRefused(
        f"time.sleep({seconds:g}) would stop the whole simulated world; use await asyncio.sleep({seconds:g})"
    )


def _refuse_loop(*_args: Any) -> NoReturn:
    raise SimRefused("a second event loop cannot be made in the simulator; use the one that runs")


def _refuse_end(name: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise SimRefused(
        f"{name} would strike the simulator itself; end a program with sys.exit, or let the test kill its host"
    )


def _take_handler(source: Source, number: int, handler: Any) -> Any:
    if not callable(handler) and handler not in (signal.SIG_DFL, signal.SIG_IGN):
        raise TypeError("signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object")
    handlers = source.handlers()
    before, handlers[number] = handlers.get(number, signal.SIG_DFL), handler
    return before


def _waiting(simulating: int) -> Callable[..., bool]:
    real = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if threading.get_ident() != simulating:
            return real(self, timeout)
        raise SimRefused(
            "a wait for another thread (an event, a queue, a future's result) would last for ever in the simulator, "
            "which has only one; use what asyncio has for it"
        )

    return wait


def _selecting(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Refused to the simulation; other threads wait for their files as ever."""

    def call(_source: Source, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != _Turn.thread:
            return real(*args, **kwargs)
        raise SimRefused(
            f"{name} waits for files of the real world, and would stop the simulated one; use asyncio.open_connection, "
            "asyncio.start_server or asyncio.sleep in the simulator"
        )

    return call


def _refuse_socket(name: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise SimRefused(
        f"socket.{name} is not simulated; use asyncio.open_connection and asyncio.start_server in the simulator"
    )


def _refuse_look_up(name: str, *_args: Any, **_kwargs: Any) -> NoReturn:
    raise SimRefused(
        f"socket.{name} asks the real world; use the name itself, or the loop's getaddrinfo, in the simulator"
    )


class SimSocket:
    """A socket as far as asyncio programs make them themselves, to hand them to the loop, or ask a transport for one.

    Anything that would block or reach the real network is refused.
    """

    def __init__(
        self, family: int = 2, type: int = 1, proto: int = 0, fileno: int | None = None, *,  # noqa: A002
        endpoint: Any = None, bound: tuple[str, int] | None = None,
    ) -> None:  # fmt: skip
        del fileno
        self.family = family
        self.type = type
        self.proto = proto
        self.endpoint = endpoint  # set by `loop.sock_connect` too
        self.bound = bound
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
        _refuse_socket(name)
