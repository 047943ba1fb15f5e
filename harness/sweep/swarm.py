"""Swarm testing (Groce and others 2012): each seed its own mix of faults and rates.

A run with every kind of fault seldom shows what a run with only one of them does: kills reset what a long partition
would have brought about. So each kind is left out with probability one half, and the load is drawn too.

>>> from harness.config import Config
>>> swarmed(Config(), 1) == swarmed(Config(), 1)
True
>>> len({swarmed(Config(), seed).faults for seed in range(40)}) > 10
True
"""

from __future__ import annotations

import msgspec

from harness.config import DEFAULT_FAULTS, Config
from harness.seeds import Streams, pick

MIX = ("partition", "latency", "kill", "pause", "loss", "duplicate")
RATE_FACTORS = (0.25, 0.5, 1.0, 1.0, 2.0)
CONCURRENCY_FACTORS = (0.5, 1.0, 1.0, 2.0)
KEYS = (1, 2, 5, 10)


def swarmed(config: Config, seed: int) -> Config:
    """The configuration of this seed; kinds of fault that the user has named are the ones that are mixed."""
    rng = Streams(seed).stream("swarm")
    mix = config.faults if config.faults != DEFAULT_FAULTS else MIX
    faults = tuple(kind for kind in mix if rng.random() < 0.5)
    if mix and not faults:
        faults = (pick(rng, mix),)
    return msgspec.structs.replace(
        config,
        faults=faults,
        rate_hz=config.rate_hz * pick(rng, RATE_FACTORS),
        concurrency=max(1, int(config.concurrency * pick(rng, CONCURRENCY_FACTORS))),
        keys=pick(rng, KEYS),
    )
