"""What becomes of a user's scenario: the verdict on whatever its test and its programs do."""

import asyncio
import sys

import pytest

from harness.errors import ConfigError
from harness.sim import scenario as scenarios


def ran(program, test, **options):
    def scenario(sim):
        sim.node("n1", program)
        return test

    return scenarios.run(scenario, 1, **options)


async def idle(_host):
    await asyncio.sleep(1000)


async def a_second():
    await asyncio.sleep(1)


class Own(BaseException):
    """Not caught by `except Exception`."""


@pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit(3), asyncio.CancelledError(), Own("x"), KeyError("x")]
)
def test_whatever_the_test_raises_is_a_failure(error):
    async def test():
        raise error

    found = ran(idle, test)
    assert found.valid == "invalid"
    assert found.lines[0].startswith(f"the test failed: {type(error).__name__}: ")


def test_a_program_that_exits_is_a_note_and_no_verdict():
    async def program(_host):
        sys.exit(3)

    found = ran(program, a_second)
    assert (found.valid, found.notes) == ("valid", ("n1 exited with 3",))


def test_a_factory_that_exits_is_a_mistake():
    with pytest.raises(ConfigError, match="the scenario raised SystemExit: 2"):
        scenarios.run(lambda _sim: sys.exit(2), 1)


def test_nothing_is_started_again_where_there_are_no_faults():
    lives = []

    async def program(_host):
        lives.append("begun")

    found = ran(program, a_second)
    assert (lives, found.notes) == (["begun"], ("n1 exited",))


def test_what_the_simulator_cannot_keep_is_no_verdict_on_the_program(monkeypatch):
    monkeypatch.setattr("harness.sim.world_host.INBOX_MAX", 10)

    def scenario(sim):
        async def program(_host):
            while True:
                asyncio.get_running_loop().call_later(0.1, print)
                asyncio.get_running_loop().call_soon(sim.world.hosts["n1"].pause)
                for _ in range(20):
                    asyncio.get_running_loop().call_later(0.2, str)
                await asyncio.sleep(1)

        sim.node("n1", program)
        return a_second

    found = scenarios.run(scenario, 1)
    assert found.valid == "unknown"
    assert found.lines[0].startswith("the run was given up: more than 10 callbacks wait for n1")
