"""The virtual-time loop: order, time, deadlock, interruption."""

from __future__ import annotations

import asyncio

import pytest

from harness.errors import InternalError, Interrupted
from harness.sim.loop import SimDeadlock, SimLoop, run


def test_time_jumps_and_nothing_waits():
    """An hour of sleep takes no time, and the clock reads an hour."""
    loop = SimLoop()

    async def main():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run(main(), loop) == 3600.0


def test_callbacks_run_in_order_of_time_then_of_scheduling():
    """Equal times keep the order in which they were set."""
    loop = SimLoop()
    seen: list[str] = []
    loop.schedule(20, seen.append, "late")
    loop.schedule(10, seen.append, "first")
    loop.schedule(10, seen.append, "second")
    loop.run_forever()
    assert seen == ["first", "second", "late"]
    assert loop.now_us == 20


def test_a_cancelled_timer_does_not_run():
    """Cancelled before its time, a call is forgotten."""
    loop = SimLoop()
    seen: list[int] = []
    loop.schedule(5, seen.append, 1).cancel()
    loop.schedule(6, seen.append, 2)
    loop.run_forever()
    assert seen == [2]


def test_asyncio_timeouts_work():
    """asyncio.timeout and wait_for use the virtual clock."""
    loop = SimLoop()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.sleep(10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), timeout=1.5)
        return loop.now_us

    assert run(main(), loop) == 4_000_000


def test_deadlock_names_the_task():
    """A program that waits for ever is reported, not waited for."""
    loop = SimLoop()

    async def waits_for_ever():
        await loop.create_future()

    with pytest.raises(SimDeadlock, match=r"1 tasks wait: .*waits_for_ever at test_harness_sim_loop.py:\d+"):
        run(waits_for_ever(), loop)


def test_interrupt_ends_between_callbacks():
    """The flag ends the run before the next callback."""
    loop = SimLoop()
    seen: list[int] = []
    loop.schedule(1, loop.interrupt)
    loop.schedule(2, seen.append, 1)

    async def main():
        await asyncio.sleep(1)

    with pytest.raises(Interrupted):
        run(main(), loop)
    assert seen == []


def test_an_exception_in_a_callback_ends_the_run():
    """A bug in the simulated program is not swallowed."""
    loop = SimLoop()

    def broken():
        raise ZeroDivisionError

    loop.call_later(0.1, broken)

    async def main():
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        run(main(), loop)


def test_endless_programs_hit_the_bound():
    """A program that schedules itself for ever ends with a sentence."""
    loop = SimLoop(max_events=1000)

    def again():
        loop.schedule(1, again)

    again()

    async def main():
        await asyncio.sleep(1e6)

    with pytest.raises(InternalError, match="1000 callbacks"):
        run(main(), loop)


def test_real_io_is_refused():
    """What needs a real socket or thread says so."""
    loop = SimLoop()

    async def main():
        await asyncio.to_thread(print)

    with pytest.raises(NotImplementedError):
        run(main(), loop)
