"""Nothing real leaks into a simulation: clocks, chance, names and processes, however a program has imported them."""

import _thread
import asyncio
import importlib
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
from concurrent.futures import Future
from datetime import UTC, date, datetime

import pytest

from harness.sim.entropy import EPOCH_S, SimRefused
from harness.sim.world import World

MODULE = """
import os, random, socket, time
from os import getrandom, urandom as noise
from random import choice, random as dice
from time import gmtime, localtime as here, time as now

def chance():
    return dice(), choice(range(10**9)), noise(4), getrandom(4), os.urandom(4), random.SystemRandom().random()

def clocks():
    at = [gmtime(), here(), time.gmtime(), time.localtime(), gmtime(86_400), here(86_400)]
    texts = [time.ctime(), time.asctime(), time.strftime("%Y-%m-%d %H:%M:%S"), time.ctime(0), time.asctime(gmtime(0))]
    wall = [now(), time.time_ns(), time.clock_gettime(time.CLOCK_REALTIME)]
    passed = [time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.thread_time_ns(), time.process_time()]
    return [tuple(one) for one in at], texts, wall, passed

def names():
    return socket.gethostname(), socket.getfqdn()
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    """Imports the program of a user."""
    (tmp_path / "users_own.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_own", raising=False)
    yield lambda: importlib.import_module("users_own")
    sys.modules.pop("users_own", None)


def run(program, *, seconds=1.0):
    async def test():
        await asyncio.sleep(seconds)

    world = World(3)
    world.host("n1", program)
    world.run(test)


@pytest.mark.parametrize("first", ["before", "in the run"])
def test_what_was_imported_by_any_name_is_virtual(users, first):
    if first == "before":
        users()
    seen = []

    async def program():
        own = users()  # in the first run, perhaps for the first time: it keeps what it finds there
        await asyncio.sleep(0.5)
        seen.append((own.chance(), own.clocks(), own.names()))

    run(program)
    run(program)
    assert seen[0] == seen[1]
    _, (at, texts, wall, passed), names = seen[0]
    began, second = tuple(time.gmtime(EPOCH_S)), tuple(time.gmtime(86_400))
    assert at == [began] * 4 + [second] * 2
    assert texts[:3] == ["Tue Nov 14 22:13:20 2023"] * 2 + ["2023-11-14 22:13:20"]
    assert texts[3:] == ["Thu Jan  1 00:00:00 1970"] * 2
    assert wall == [EPOCH_S + 0.5, EPOCH_S * 10**9 + 500_000_000, EPOCH_S + 0.5]
    assert passed == [500_000_000, 500_000_000, 0.5]
    assert names == ("n1", "n1")
    assert users().clocks()[2][0] > EPOCH_S + 86_400  # the real ones are back
    assert users().chance() != users().chance()
    assert users().names()[0] == socket.gethostname()


def test_the_standard_librarys_own_clocks_stay_real():
    """Threads that are none of the simulation wait by them."""
    import queue  # noqa: PLC0415 - it has `from time import monotonic as time`

    real, seen = queue.time, []

    async def program():
        seen.append(queue.time)

    run(program)
    assert seen == [real]


def test_everything_is_as_it_was():
    def look():
        names = ("time", "gmtime", "sleep", "process_time", "strftime")
        found = [getattr(time, name) for name in names]
        found += [signal.getsignal(signal.SIGTERM), signal.signal, os.kill, os.environ.get("TZ"), time.tzname]
        found += [os.urandom, os.fork, random._urandom, random.choice, socket.gethostname, socket.getaddrinfo]
        return [*found, subprocess.Popen.__init__, _thread.start_new_thread, random.getstate()]

    async def program():
        signal.signal(signal.SIGTERM, lambda *_: None)

    before = look()
    run(program)
    assert look() == before


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: subprocess.run(["true"], check=True), "a process was started"),
        (lambda: os.system("true"), "a process was started"),
        (lambda: os.fork(), "a process was started"),  # noqa: PLW0108 - looked up in the run
        (lambda: _thread.start_new_thread(print, ()), "only one"),
        (lambda: socket.getaddrinfo("n1", 80), r"socket\.getaddrinfo asks the real world; use"),
        (lambda: socket.gethostbyname("n1"), r"socket\.gethostbyname asks"),
        (lambda: socket.socketpair(), r"socket\.socketpair is not simulated"),  # noqa: PLW0108 - likewise
        (lambda: os.kill(os.getpid(), 0), r"os\.kill would strike the simulator"),
        (lambda: os._exit(0), r"os\._exit would strike the simulator"),
        (lambda: signal.raise_signal(0), r"signal\.raise_signal would strike the simulator"),
        (lambda: signal.setitimer(signal.ITIMER_REAL, 0), r"signal\.setitimer would strike the simulator"),
        (lambda: threading.Event().wait(0), "a wait for another thread"),
        (lambda: Future().result(0.1), "a wait for another thread"),
        (lambda: select.select([], [], [], 0), r"select\.select waits for files of the real world"),
        (lambda: select.poll(), r"select\.poll waits"),  # noqa: PLW0108 - likewise
        (lambda: select.epoll(), r"select\.epoll waits"),  # noqa: PLW0108 - likewise
        (lambda: selectors.DefaultSelector().select(0), "selectors waits"),
        (lambda: selectors.PollSelector().select(0), "selectors waits"),
        (lambda: asyncio.new_event_loop(), "a second event loop"),  # noqa: PLW0108 - likewise
    ],
)
def test_what_leads_out_is_refused(what, says):
    async def program():
        what()

    with pytest.raises(SimRefused, match=says):
        run(program)


def test_a_thread_that_is_none_of_the_simulation_waits_for_its_files():
    go, seen = threading.Event(), []

    def wait():
        go.wait()
        seen.append(select.select([], [], [], 0))
        seen.append(select.poll().poll(0))
        with selectors.DefaultSelector() as selector:
            seen.append(selector.select(0))

    thread = threading.Thread(target=wait)
    thread.start()

    async def program():
        go.set()
        thread.join()

    run(program)
    assert seen == [([], [], []), [], []]


def test_each_life_of_a_program_has_signal_handlers_of_its_own():
    seen = []

    async def program():
        seen.append(signal.getsignal(signal.SIGTERM))
        seen.append(signal.signal(signal.SIGTERM, signal.SIG_IGN))
        seen.append(signal.signal(signal.SIGTERM, print))
        with pytest.raises(TypeError, match="signal handler must be"):
            signal.signal(signal.SIGTERM, "no handler")
        assert signal.getsignal(signal.SIGTERM) is print

    run(program)
    assert seen == [signal.SIG_DFL, signal.SIG_DFL, signal.SIG_IGN]


@pytest.mark.parametrize("zone", ["America/New_York", "UTC", None])
def test_local_time_is_utc_whatever_the_zone_of_the_machine(monkeypatch, zone):
    if zone is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", zone)
    time.tzset()
    before = time.localtime(0)
    seen = []

    async def program():
        now = datetime.now()  # noqa: DTZ005 - what a program does
        seen.append((now.timestamp(), time.time(), time.mktime(time.localtime())))
        seen.append((datetime.fromtimestamp(time.time()), datetime.today(), now))  # noqa: DTZ002, DTZ006
        seen.append((now.astimezone(), datetime.now(UTC), now.replace(tzinfo=UTC)))
        seen.append((date.today(), now.date(), now.date()))  # noqa: DTZ011

    run(program)
    assert [len(set(one)) for one in seen] == [1] * 4
    assert (os.environ.get("TZ"), time.localtime(0)) == (zone, before)
    monkeypatch.undo()
    time.tzset()


def test_a_program_that_waits_for_its_clock_without_letting_time_pass_is_refused(monkeypatch):
    monkeypatch.setattr("harness.sim.world.LOOKS_MAX", 100)

    async def program():
        for _ in range(3):
            for _ in range(50):
                time.monotonic()
            await asyncio.sleep(0.1)
        last_ns = time.time_ns()
        while time.time_ns() <= last_ns:
            pass

    with pytest.raises(SimRefused, match="n1 looked at its clock 100 times in one instant"):
        run(program)


def test_more_than_a_paused_process_can_keep_is_told_and_not_dropped(monkeypatch):
    monkeypatch.setattr("harness.sim.world_host.INBOX_MAX", 10)
    world = World(1)

    async def server():
        async def on_client(reader, _writer):
            while await reader.read(100):
                pass

        await (await asyncio.start_server(on_client, port=80)).serve_forever()

    async def test():
        _, writer = await asyncio.open_connection("n1", 80)
        await asyncio.sleep(1)
        world.hosts["n1"].pause()
        for _ in range(30):
            writer.write(b"x")
            await asyncio.sleep(0.1)

    world.host("n1", server)
    with pytest.raises(Exception, match="more than 10 callbacks wait for n1, which is paused or slow"):
        world.run(test)


def test_a_program_that_cannot_begin_is_one_that_raised():
    async def test():
        await asyncio.sleep(1)

    world = World(1)
    world.host("n1", lambda: None)
    world.run(test)
    assert world.hosts["n1"].exits[0].startswith("raised TypeError(")
