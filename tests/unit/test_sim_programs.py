"""What programs do, run unchanged in a `World`: exits, endless waits, names of tasks, options of sockets."""

import asyncio
import math
import socket
import sys

import pytest

from harness.sim.entropy import SimRefused
from harness.sim.loop import SimDeadlock, SimLoop, run
from harness.sim.world import World


@pytest.mark.parametrize(
    ("code", "says"), [(0, "exited"), (None, "exited"), (3, "exited with 3"), ("no", "exited with 'no'")]
)
@pytest.mark.parametrize("where", ["program", "task", "callback", "slow", "start"])
def test_a_program_that_calls_exit_ends_itself_and_nothing_else(code, says, where):
    world, after = World(seed=1), []

    def start():
        if where == "start":
            sys.exit(code)
        return program()

    async def leave():
        sys.exit(code)

    async def program():
        asyncio.get_running_loop().call_later(2, after.append, "the process is not over")
        if where in ("program", "slow"):
            await leave()
        elif where == "task":
            asyncio.ensure_future(leave())  # noqa: RUF006 - it ends the process
        else:
            asyncio.get_running_loop().call_soon(sys.exit, code)
        await asyncio.sleep(5)

    async def test():
        await asyncio.sleep(3)
        return world.hosts["n1"].process

    host = world.host("n1", start)
    if where == "slow":
        host.set_slowness(5)
    assert world.run(test) is None
    assert (host.exits, after) == ([says], [])


def test_a_test_that_calls_exit_ends_with_that():
    async def test():
        sys.exit(3)

    with pytest.raises(SystemExit):
        World(seed=1).run(test)


def test_a_program_that_goes_round_without_letting_time_pass_is_a_deadlock(monkeypatch):
    monkeypatch.setattr("harness.sim.loop.SPINS_MAX", 100)

    async def rounds(count):
        for _ in range(count):
            await asyncio.sleep(0)

    async def test():
        for _ in range(5):
            await rounds(50)
            await asyncio.sleep(1)
        await rounds(1000)

    with pytest.raises(SimDeadlock, match=r"100 callbacks ran at 5\.0.* no time passed.*on test .*in rounds"):
        World(seed=1).run(test)


def test_tasks_are_numbered_anew_in_each_world():
    async def test():
        tasks = [asyncio.create_task(asyncio.sleep(0), name=name) for name in (None, "mine", None)]
        await asyncio.gather(*tasks)
        return [task.get_name() for task in (asyncio.current_task(), *tasks)]

    assert World(seed=1).run(test) == World(seed=1).run(test) == ["Task-1", "Task-2", "mine", "Task-4"]


def test_to_sleep_for_ever_is_no_timer():
    async def test():
        sleeper = asyncio.create_task(asyncio.sleep(math.inf))
        async with asyncio.timeout(math.inf):
            await asyncio.wait_for(asyncio.sleep(1), math.inf)
        sleeper.cancel()
        await asyncio.sleep(-math.inf)
        return asyncio.get_running_loop().time()

    assert World(seed=1).run(test) == 1.0
    assert run(test(), SimLoop()) == 1.0
    with pytest.raises(SimDeadlock):
        run(asyncio.sleep(math.inf), SimLoop())


def test_a_transport_tells_its_socket_as_far_as_programs_set_options():
    seen = []

    async def server():
        async def on_client(_reader, writer):
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            seen.append((sock.family, sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            seen.append((sock.getsockname(), sock.getpeername()))
            writer.close()

        listening = await asyncio.start_server(on_client, port=80)
        seen.append(listening.sockets[0].getsockname())
        await listening.serve_forever()

    async def test():
        _, writer = await asyncio.open_connection("n1", 80)
        await asyncio.sleep(1)
        sock = writer.get_extra_info("socket")
        writer.close()
        return sock.getpeername(), sock.getsockname()

    world = World(seed=1)
    world.host("n1", server)
    theirs, mine = world.run(test)
    assert seen == [theirs, (socket.AF_INET, 1), (theirs, mine)]


def test_a_datagram_socket_of_ones_own_has_the_port_that_it_was_bound_to():
    async def test():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("0.0.0.0", 77))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, sock=sock
        )
        return transport.get_extra_info("socket").getsockname()[1]

    assert World(seed=1).run(test) == 77


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.sock_recv(None, 1),
        lambda loop: loop.sock_sendall(None, b""),
        lambda loop: loop.connect_read_pipe(None, None),
        lambda loop: loop.connect_write_pipe(None, None),
        lambda loop: loop.sendfile(None, None),
    ],
)
def test_what_the_loop_cannot_do_is_refused(call):
    async def test():
        await call(asyncio.get_running_loop())

    with pytest.raises(SimRefused):
        World(seed=1).run(test)
