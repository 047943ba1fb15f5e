"""Simulated links between hosts, carrying messages as values.

Theory of operation
    Each direction of each link has a random stream of its own, so that what happens on one link never shifts
    another. A message draws its delay when it is sent; later messages may draw shorter ones and overtake it. The
    state of the network is desired state (`nemesis.target.Ruleset`): `set_rules` replaces the whole of it. A link
    that is blocked when a message is sent, or when it would arrive, loses the message: a partition cuts what is
    in flight too, as dropping the queues of a real link does.

    A link with a rate sends one message after the other; what would wait longer than `QUEUE_MAX_US` is dropped.

    Clients reach nodes over links of their own, which no fault touches: what a partition cuts is the cluster.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from harness.seeds import Streams, skewed
from harness.sim.loop import SimLoop
from nemesis.target import HEALTHY, LinkRule, Ruleset

RETRANSMIT_US = 200_000  # Linux's shortest retransmission time-out; it doubles each time
RETRANSMISSIONS_MAX = 8
HEADERS_BYTES = 66  # Ethernet, IP and TCP around a small message
QUEUE_MAX_US = 2_000_000  # a slow link drops what would wait longer


class NetworkParams(msgspec.Struct, frozen=True):
    """A healthy link: delay is `delay_min_us` plus a skewed delay of mean `delay_mean_us`."""

    delay_min_us: int = 150
    delay_mean_us: int = 350
    loss: float = 0.001
    duplicate: float = 0.001


class SimNetwork:
    """All links of one cluster.

    Attributes:
        sent, lost, duplicated: counts of messages since the start.
    """

    def __init__(self, loop: SimLoop, streams: Streams, params: NetworkParams) -> None:
        self._loop = loop
        self._streams = streams
        self._params = params
        self._rules = HEALTHY
        self._receivers: dict[str, Callable[[str, Any], None]] = {}
        self._rngs: dict[tuple[str, str], random.Random] = {}
        self.observer: Callable[[str, str, Any], None] | None = (
            None  # is told src, dst and message of what is lost
        )
        self._busy_until_us: dict[tuple[str, str], int] = {}
        self.sent = 0
        self.lost = 0
        self.duplicated = 0

    def attach(self, name: str, receive: Callable[[str, Any], None]) -> None:
        """Register a host: `receive(src, message)` is called for what reaches it."""
        self._receivers[name] = receive

    def set_rules(self, rules: Ruleset) -> None:
        """Make the network exactly this."""
        self._rules = rules

    def blocked(self, src: str, dst: str) -> bool:
        """Whether nothing passes from src to dst now."""
        rule = self._rules.links.get((src, dst))
        return rule is not None and rule.blocked

    def transit_us(self, src: str, dst: str, size_bytes: int = 0) -> int:
        """How long a segment takes that is sent again until it is not lost; for streams of bytes."""
        link = (src, dst)
        rng = self._rng(link)
        rule = self._rules.links.get(link)
        loss = self._params.loss
        total_us, again_us = self._delay_us(rng, rule), RETRANSMIT_US
        if rule is not None:
            loss = 1.0 - (1.0 - loss) * (1.0 - rule.loss) * (1.0 - rule.corrupt)
            if rule.rate_kbit:
                total_us += int((size_bytes + HEADERS_BYTES) * 8 * 1000 / rule.rate_kbit)
        self.sent += 1
        for _ in range(RETRANSMISSIONS_MAX):
            if rng.random() >= loss:
                break
            self.lost += 1
            total_us += again_us
            again_us *= 2
        return total_us

    def _rng(self, link: tuple[str, str]) -> random.Random:
        rng = self._rngs.get(link)
        if rng is None:
            rng = self._rngs[link] = self._streams.stream(f"network/{link[0]}->{link[1]}")
        return rng

    def send(self, src: str, dst: str, message: Any) -> None:
        """Send a message; it arrives once, twice or never."""
        self.sent += 1
        link = (src, dst)
        rng = self._rng(link)
        rule = self._rules.links.get(link)
        params = self._params
        fate = rng.random()
        if rule is None:
            loss, duplicate = params.loss, params.duplicate
        else:
            # A corrupted message fails its checksum: for the receiver it is a lost one.
            healthy = (1.0 - params.loss) * (1.0 - rule.loss) * (1.0 - rule.corrupt)
            loss = 1.0 if rule.blocked else 1.0 - healthy
            duplicate = 1.0 - (1.0 - params.duplicate) * (1.0 - rule.duplicate)
        if fate < loss:
            self._lose(link, message)
            return
        queued_us = self._queue_us(link, rule, message) if rule is not None and rule.rate_kbit else 0
        if queued_us > QUEUE_MAX_US:
            self._lose(link, message)
            return
        self._loop.schedule(queued_us + self._delay_us(rng, rule), self._arrive, link, message)
        if duplicate > 0 and rng.random() < duplicate:
            self.duplicated += 1
            self._loop.schedule(queued_us + self._delay_us(rng, rule), self._arrive, link, message)

    def _delay_us(self, rng: random.Random, rule: LinkRule | None) -> int:
        params = self._params
        delay_us = params.delay_min_us + skewed(rng, params.delay_mean_us)
        if rule is not None and (rule.delay_ms or rule.jitter_ms):
            extra_us = 1000.0 * (rule.delay_ms + rule.jitter_ms * rng.random())
            if not (rule.reorder and rng.random() < rule.reorder):
                delay_us += extra_us
        return int(delay_us)

    def _queue_us(self, link: tuple[str, str], rule: LinkRule, message: Any) -> int:
        """How long the message waits for its turn on a slow link, and takes to get onto it."""
        size_bytes = len(msgspec.msgpack.encode(message)) + HEADERS_BYTES
        now_us = self._loop.now_us
        free_us = max(now_us, self._busy_until_us.get(link, 0))
        done_us = free_us + int(size_bytes * 8 * 1000 / rule.rate_kbit)
        if done_us - now_us <= QUEUE_MAX_US:
            self._busy_until_us[link] = done_us
        return done_us - now_us

    def _arrive(self, link: tuple[str, str], message: Any) -> None:
        rule = self._rules.links.get(link)
        if rule is not None and rule.blocked:
            self._lose(link, message)
            return
        self._receivers[link[1]](link[0], message)

    def _lose(self, link: tuple[str, str], message: Any) -> None:
        self.lost += 1
        if self.observer is not None:
            self.observer(*link, message)
