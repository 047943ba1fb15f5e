"""The virtual asyncio world: connections, crashes, clocks and chance, and what it refuses."""

import asyncio
import datetime as dt
import os
import random
import socket
import threading
import time
import uuid

import pytest

from harness.sim.entropy import EPOCH_S, SimRefused
from harness.sim.loop import SimDeadlock
from harness.sim.world import World
from nemesis.target import HEALTHY, LinkRule, Ruleset

CUT = Ruleset({("n1", "test"): LinkRule(blocked=True), ("test", "n1"): LinkRule(blocked=True)})


async def echo():
    async def on_client(reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(on_client, port=80)
    await server.serve_forever()


def world_with(program=echo, seed=1):
    world = World(seed)
    world.host("n1", program)
    return world


async def exchange(data, node="n1"):
    reader, writer = await asyncio.open_connection(node, 80)
    try:
        writer.write(data)
        return await reader.readexactly(len(data))
    finally:
        writer.close()


def test_bytes_come_back_in_order_and_whole_over_a_bad_link():
    world = world_with()
    bad = LinkRule(loss=0.3, delay_ms=5, jitter_ms=50)
    data = bytes(i % 251 for i in range(200_000))

    async def test():
        world.network.set_rules(Ruleset({("n1", "test"): bad, ("test", "n1"): bad}))
        reader, writer = await asyncio.open_connection("n1", 80)
        got = b""

        async def read():
            nonlocal got
            while len(got) < len(data):
                got += await reader.read(5000)

        reading = asyncio.ensure_future(read())
        for at in range(0, len(data), 7_000):
            writer.write(data[at : at + 7_000])
            await writer.drain()
        await reading
        writer.close()
        return got

    assert world.run(test) == data


def test_a_partition_delays_bytes_and_loses_none():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.network.set_rules(CUT)
        writer.write(b"one")
        await asyncio.sleep(5)
        world.network.set_rules(HEALTHY)
        writer.write(b"two")
        answer = await reader.readexactly(6)
        writer.close()
        return answer, asyncio.get_running_loop().time()

    answer, at_s = world.run(test)
    assert answer == b"onetwo"
    assert 5 < at_s < 15


def test_a_partition_that_does_not_end_breaks_the_connection_of_the_sender():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.network.set_rules(CUT)
        writer.write(b"one")
        with pytest.raises(TimeoutError):
            await reader.read()
        writer.close()
        return asyncio.get_running_loop().time()

    assert 60 <= world.run(test) < 70


def test_a_killed_process_resets_its_connections():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.hosts["n1"].kill()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await exchange(b"x")
        world.hosts["n1"].start()
        await asyncio.sleep(0.01)
        return await exchange(b"again")

    assert world.run(test) == b"again"


@pytest.mark.parametrize("how", ["abort", "die"])
def test_a_connection_that_is_broken_before_its_client_speaks_through_it_is_told(how):
    async def server():
        async def on_client(_reader, writer):
            writer.transport.abort() if how == "abort" else world.hosts["n1"].kill()

        await (await asyncio.start_server(on_client, port=80)).serve_forever()

    async def test():
        await asyncio.sleep(0.1)
        reader, _ = await asyncio.open_connection("n1", 80)
        with pytest.raises(ConnectionResetError):
            await reader.read()

    for seed in range(30):  # whichever is there first
        world = world_with(server, seed=seed)
        world.run(test)


def test_a_death_behind_a_partition_is_noticed_only_by_who_sends():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.network.set_rules(CUT)
        world.hosts["n1"].kill()
        world.network.set_rules(HEALTHY)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 30)
        writer.write(b"anybody?")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()

    world.run(test)


def test_a_killed_program_runs_nothing_more_and_only_its_storage_is_left():
    steps = []

    async def program():
        host = world.hosts["n1"]
        steps.append(("starts", dict(host.storage)))
        try:
            host.storage["kept"] = True
            await asyncio.sleep(1)
            steps.append("too late")
        finally:
            if not dead:
                steps.append("cleanup")

    dead = []
    world = world_with(program)

    async def test():
        await asyncio.sleep(0.5)
        dead.append(True)
        world.hosts["n1"].kill()
        world.hosts["n1"].start()
        await asyncio.sleep(0.1)

    world.run(test)
    assert steps == [("starts", {}), ("starts", {"kept": True})]


def test_a_paused_process_answers_when_it_runs_on():
    world = world_with()

    async def test():
        reader, writer = await asyncio.open_connection("n1", 80)
        world.hosts["n1"].pause()
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 3)
        world.hosts["n1"].resume()
        answer = await reader.readexactly(1)
        writer.close()
        return answer

    assert world.run(test) == b"x"


def test_a_reader_that_does_not_read_makes_the_writer_wait():
    async def deaf():
        async def on_client(_reader, _writer):
            await asyncio.sleep(1000)

        await (await asyncio.start_server(on_client, port=80, limit=1000)).serve_forever()

    world = world_with(deaf)

    async def test():
        _, writer = await asyncio.open_connection("n1", 80)
        writer.write(b"x" * 1_000_000)
        writer.write(b"x" * 1_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 10)
        writer.transport.abort()

    world.run(test)


def test_datagrams_arrive_once_twice_or_never():
    got = []

    async def sink():
        class Sink(asyncio.DatagramProtocol):
            def datagram_received(self, data, addr):
                got.append((data, addr))

        await asyncio.get_running_loop().create_datagram_endpoint(Sink, local_addr=("0.0.0.0", 9))
        await asyncio.Event().wait()

    world = world_with(sink)

    async def test():
        loop = asyncio.get_running_loop()
        lossy = LinkRule(loss=0.5, duplicate=0.2)
        world.network.set_rules(Ruleset({("test", "n1"): lossy}))
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=("n1", 9))
        for i in range(100):
            transport.sendto(b"%d" % i)
            await asyncio.sleep(0.01)
        transport.close()

    world.run(test)
    assert 30 < len({data for data, _ in got}) < 80
    assert len(got) > len({data for data, _ in got})
    assert all(addr[0] == world.hosts["test"].address for _, addr in got)


def test_clocks_and_chance_are_virtual_and_the_real_ones_come_back():
    seen = {}

    async def program():
        seen["n1"] = (random.random(), os.urandom(4), uuid.uuid4(), random.Random().random())
        seen["wall"] = time.time()

    world = world_with(program, seed=3)
    world.hosts["n1"].skew_us = 5_000_000
    before = (time.time, random.random, os.urandom, socket.socket, threading.Thread.start, random.getstate())

    async def test():
        started = time.monotonic()
        await asyncio.sleep(100)
        return time.monotonic() - started, time.time(), random.random()

    passed_s, wall_s, number = world.run(test)
    assert passed_s == pytest.approx(100)
    assert wall_s == EPOCH_S + 100
    assert seen["wall"] == EPOCH_S + 5
    assert number != seen["n1"][0]
    after = (time.time, random.random, os.urandom, socket.socket, threading.Thread.start, random.getstate())
    assert after == before
    first = dict(seen)
    other = world_with(program, seed=3)
    other.hosts["n1"].skew_us = 5_000_000
    other.run(test)
    assert seen == first


def test_dates_are_virtual_too_and_the_real_ones_come_back():
    seen = []

    async def test():
        await asyncio.sleep(90)
        naive, today = dt.datetime.now(), dt.date.today()  # noqa: DTZ005, DTZ011 - programs do that
        seen.append((naive, dt.datetime.now(dt.UTC), today))

    before = dt.datetime.now(dt.UTC)
    World(1).run(test)
    began = dt.datetime.fromtimestamp(EPOCH_S + 90, dt.UTC)
    assert seen == [(began.replace(tzinfo=None), began, began.date())]
    assert dt.datetime.now(dt.UTC) - before < dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: threading.Thread(target=print).start(), "only one"),
        (lambda: time.sleep(1), "asyncio.sleep"),
        (lambda: socket.socket().connect(("n1", 80)), "socket.connect is not simulated"),
    ],
)
def test_what_is_real_is_refused_and_says_what_to_do(what, says):
    async def program():
        what()

    async def test():
        await asyncio.sleep(1)

    with pytest.raises(SimRefused, match=says):
        world_with(program).run(test)


def test_a_subprocess_and_tls_are_refused():
    async def test():
        await asyncio.create_subprocess_exec("ls")

    async def tls():
        await asyncio.open_connection("n1", 80, ssl=True)

    with pytest.raises(SimRefused, match="subprocess"):
        world_with().run(test)
    with pytest.raises(SimRefused, match="TLS"):
        world_with().run(tls)


def test_a_function_for_a_thread_runs_at_once():
    async def test():
        return await asyncio.to_thread(lambda: threading.current_thread() is threading.main_thread())

    assert world_with().run(test) is True


def test_a_deadlock_is_reported_with_the_places_where_tasks_wait():
    async def stuck_in_the_middle():
        await asyncio.Event().wait()

    async def test():
        await stuck_in_the_middle()

    with pytest.raises(
        SimDeadlock,
        match=r"nothing is scheduled.*on test .*test_sim_world.py:\d+ in stuck_in_the_middle; on n1 echo",
    ):
        world_with().run(test)


def test_a_test_that_never_ends_is_reported_too():
    async def test():
        while True:  # noqa: ASYNC110
            await asyncio.sleep(1)

    with pytest.raises(SimDeadlock, match="not over after 50 virtual seconds"):
        world_with().run(test, limit_s=50)


def test_names_that_nobody_has_are_refused_with_those_that_there_are():
    async def test():
        await asyncio.open_connection("n7", 80)

    with pytest.raises(socket.gaierror, match=r"'n7'.*n1"):
        world_with().run(test)


def test_a_port_can_be_listened_on_once_and_again_after_a_restart():
    async def test():
        here = await asyncio.start_server(lambda _r, _w: None, port=5)
        with pytest.raises(OSError, match="in use"):
            await asyncio.start_server(lambda _r, _w: None, port=5)
        here.close()
        await asyncio.start_server(lambda _r, _w: None, port=5)

    world_with().run(test)


def test_what_a_program_raises_is_its_exit_and_not_an_error_of_the_world():
    async def program():
        await asyncio.sleep(1)
        raise ValueError("broken")

    world = world_with(program)

    async def test():
        await asyncio.sleep(2)

    world.run(test)
    assert world.hosts["n1"].exits == ["raised ValueError('broken')"]


def test_the_same_seed_gives_the_same_times_and_another_seed_others():
    def ends(seed):
        world = world_with(seed=seed)

        async def test():
            await asyncio.gather(*(exchange(b"x" * i) for i in range(1, 30)))
            return asyncio.get_running_loop().time()

        return world.run(test)

    assert ends(5) == ends(5) != ends(6)


def test_timers_of_equal_time_run_in_an_order_that_the_seed_draws():
    """Asyncio guarantees none; what `call_soon` was given keeps its order."""

    def order(seed):
        world, seen = World(seed), []

        async def test():
            loop = asyncio.get_running_loop()
            for i in range(8):
                loop.call_at(5.0, seen.append, i)
            for i in range(8):
                loop.call_soon(seen.append, str(i))
            await asyncio.sleep(6)

        world.run(test)
        return seen

    first = order(1)
    assert first[:8] == [str(i) for i in range(8)]
    assert sorted(first[8:]) == list(range(8)) != first[8:]
    assert order(1) == first
    assert order(2) != first


def test_sets_of_tasks_are_walked_in_the_same_order_each_time():
    async def test():
        tasks = [asyncio.ensure_future(asyncio.sleep(1)) for _ in range(100)]
        done, _ = await asyncio.wait(set(tasks))
        return [tasks.index(task) for task in done]

    assert World(1).run(test) == World(1).run(test)


def test_coroutines_become_tasks_in_the_order_given():
    async def number(of):
        await asyncio.sleep(0)
        return of

    async def test():
        return [await one for one in asyncio.as_completed([number(n) for n in range(30)])]

    seen = []
    for _ in range(5):
        world = world_with(seed=9)
        seen.append((world.run(test), world.loop.trace_sha256))
    assert seen == [seen[0]] * 5
    assert seen[0][0] == list(range(30))


def test_the_trace_tells_runs_apart():
    def trace(seed, extra=0):
        world = world_with(seed=seed)

        async def test():
            await exchange(b"x" * (10 + extra))

        world.run(test)
        return world.loop.trace_sha256

    assert trace(1) == trace(1)
    assert len({trace(1), trace(2)}) == 2
