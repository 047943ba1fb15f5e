"""Simulated links between hosts, carrying messages as values.

Theory of operation
    Each direction of each link has dice of its own, and they depend on the moment of sending: what happens on one
    link never shifts another, and a message more or less never shifts those at other times. A message draws its
    delay when it is sent; later messages may draw shorter ones and overtake it. The state of the network is desired
    state (`nemesis.target.Ruleset`): `set_rules` replaces the whole of it. A link that is blocked when a message is
    sent, or when it would arrive, loses the message: a partition cuts what is in flight too, as dropping the queues
    of a real link does.

    A link with a rate sends one message after the other; what would wait longer than `QUEUE_MAX_US` is dropped. A
    link that was blocked comes back slowly where the parameters say so: whoever waited with growing pauses does not
    notice at once. A reset takes everything with it that is under way between the two, both ways.

    Correlated delays and losses remember the message before them; nothing else here has a memory.

    Clients reach nodes over links of their own, which no fault touches: what a partition cuts is the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from harness.seeds import Dice, HasRandom, Streams
from harness.sim.loop import SimLoop
from nemesis.target import HEALTHY, LinkRule, Ruleset

RETRANSMIT_US = 200_000  # Linux's shortest retransmission time-out; it doubles each time
RETRANSMISSIONS_MAX = 8
HEADERS_BYTES = 66  # Ethernet, IP and TCP around a small message
QUEUE_MAX_US = 2_000_000  # a slow link drops what would wait longer


class LinkParams(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One direction of a healthy link that is not like the others; what is None is as on the others."""

    delay_min_us: int | None = None
    delay_mean_us: int | None = None
    loss: float | None = None
    duplicate: float | None = None
    rate_kbit: float = 0.0


class NetworkParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A healthy network: the delay of a link is `delay_min_us` plus a skewed delay of mean `delay_mean_us`.

    Attributes:
        slow_start_ms: a link that was blocked needs so long until it is as fast as before.
        links: what is different on some links, by ``n1->n2``.
    """

    delay_min_us: int = 150
    delay_mean_us: int = 350
    loss: float = 0.001
    duplicate: float = 0.001
    slow_start_ms: float = 0.0
    links: dict[str, LinkParams] = {}


class _Link:
    """One direction of one link."""

    __slots__ = (
        "busy_until_us", "delay_mean_us", "delay_min_us", "dst", "duplicate", "healed_us", "last_jitter", "loss",
        "own_duplicate", "own_loss", "own_rate_kbit", "rate_kbit", "resets", "rng", "rule", "src", "was_lost",
    )  # fmt: skip

    def __init__(self, src: str, dst: str, rng: Dice, params: NetworkParams) -> None:
        self.src, self.dst, self.rng = src, dst, rng
        own = params.links.get(f"{src}->{dst}", LinkParams())
        self.delay_min_us = params.delay_min_us if own.delay_min_us is None else own.delay_min_us
        self.delay_mean_us = params.delay_mean_us if own.delay_mean_us is None else own.delay_mean_us
        self.own_loss = params.loss if own.loss is None else own.loss
        self.own_duplicate = params.duplicate if own.duplicate is None else own.duplicate
        self.own_rate_kbit = own.rate_kbit
        self.busy_until_us = 0
        self.healed_us: int | None = None
        self.last_jitter = 0.0
        self.was_lost = False
        self.resets = 0
        self.set_rule(None)

    def set_rule(self, rule: LinkRule | None) -> None:
        """What is wrong with it, and what follows from that."""
        self.rule = rule
        self.loss, self.duplicate, self.rate_kbit = self.own_loss, self.own_duplicate, self.own_rate_kbit
        if rule is not None:
            # A corrupted message fails its checksum: for the receiver it is a lost one.
            healthy = (1.0 - self.own_loss) * (1.0 - rule.loss) * (1.0 - rule.corrupt)
            self.loss = 1.0 if rule.blocked else 1.0 - healthy
            self.duplicate = 1.0 - (1.0 - self.own_duplicate) * (1.0 - rule.duplicate)
            self.rate_kbit = min(filter(None, (rule.rate_kbit, self.own_rate_kbit)), default=0.0)


class SimNetwork:
    """All links of one cluster.

    Attributes:
        sent, lost, duplicated: counts of messages since the start.
        observer: is told source, destination and message of what is lost.
    """

    def __init__(self, loop: SimLoop, streams: Streams, params: NetworkParams) -> None:
        self._loop = loop
        self._streams = streams
        self._params = params
        self._rules = HEALTHY
        self._receivers: dict[str, Callable[[str, Any], None]] = {}
        self._links: dict[tuple[str, str], _Link] = {}
        self._probes: dict[str, _Link] = {}
        self._met: dict[tuple[str, str], int] = {}
        self.observer: Callable[[str, str, Any], None] | None = None
        self.sent = 0
        self.lost = 0
        self.duplicated = 0

    def attach(self, name: str, receive: Callable[[str, Any], None]) -> None:
        """Register a host: `receive(src, message)` is called for what reaches it."""
        self._receivers[name] = receive

    def set_rules(self, rules: Ruleset) -> None:
        """Make the network exactly this."""
        self._rules = rules
        for ends, link in self._links.items():
            was_blocked = link.rule is not None and link.rule.blocked
            link.set_rule(rules.links.get(ends))
            if was_blocked and not self.blocked(*ends) and self._params.slow_start_ms:
                link.healed_us = self._loop.now_us

    def blocked(self, src: str, dst: str) -> bool:
        """Whether nothing passes from src to dst now."""
        rule = self._rules.links.get((src, dst))
        return rule is not None and rule.blocked

    def _link(self, src: str, dst: str) -> _Link:
        link = self._links.get((src, dst))
        if link is None:
            dice = self._streams.dice(f"network/{src}->{dst}", self._loop)
            link = self._links[src, dst] = _Link(src, dst, dice, self._params)
            link.set_rule(self._rules.links.get((src, dst)))
        return link

    # -- streams of bytes -------------------------------------------------------------------------------------

    def transit_us(self, src: str, dst: str, size_bytes: int = 0) -> int:
        """How long a segment takes that is sent again until it is not lost; for streams of bytes."""
        link = self._link(src, dst)
        rng, rule = link.rng, link.rule
        loss = link.own_loss if rule is not None and rule.blocked else link.loss
        total_us, again_us = self._delay_us(link), RETRANSMIT_US
        if link.rate_kbit:
            total_us += self._queue_us(link, size_bytes + HEADERS_BYTES, None)
        self.sent += 1
        if rule is not None:
            self._met[src, dst] = self._met.get((src, dst), 0) + 1
        for _ in range(RETRANSMISSIONS_MAX):
            if rng.random() >= loss:
                break
            self.lost += 1
            total_us += again_us
            again_us *= 2
        return total_us

    def resets(self, src: str, dst: str) -> bool:
        """Whether what is sent now breaks the connection that carries it."""
        link = self._link(src, dst)
        return link.rule is not None and link.rule.reset > 0 and link.rng.random() < link.rule.reset

    # -- messages ---------------------------------------------------------------------------------------------

    def send(self, src: str, dst: str, message: Any) -> None:
        """Send a message; it arrives once, twice or never."""
        self.sent += 1
        link = self._links.get((src, dst)) or self._link(src, dst)
        random = link.rng.random
        lost = random() < link.loss
        queued_us = 0
        rule = link.rule
        if rule is not None or link.rate_kbit:
            if rule is not None:
                self._met[src, dst] = self._met.get((src, dst), 0) + 1
                lost = self._fate(link, rule, lost=lost)
            if link.rate_kbit and not lost:
                size_bytes = len(msgspec.msgpack.encode(message)) + HEADERS_BYTES
                queued_us = self._queue_us(link, size_bytes, QUEUE_MAX_US)
        if lost or queued_us > QUEUE_MAX_US:
            self._lose(link, message)
            return
        post = self._loop.post
        post(queued_us + self._delay_us(link), self._arrive, link, message, link.resets)
        if link.duplicate > 0 and random() < link.duplicate:
            self.duplicated += 1
            post(queued_us + self._delay_us(link), self._arrive, link, message, link.resets)

    def _fate(self, link: _Link, rule: LinkRule, *, lost: bool) -> bool:
        """Whether a message is lost on a link with which something is wrong."""
        if rule.loss_correlation and not rule.blocked:
            if link.rng.random() < rule.loss_correlation:
                lost = link.was_lost
            link.was_lost = lost
        if rule.reset and not lost and link.rng.random() < rule.reset:
            self.cut_in_flight(link.src, link.dst)
            return True
        return lost

    def cut_in_flight(self, a: str, b: str) -> None:
        """Lose all that is under way between two hosts, both ways."""
        self._link(a, b).resets += 1
        self._link(b, a).resets += 1

    def _delay_us(self, link: _Link) -> int:
        rng, rule = link.rng, link.rule
        delay_us = link.delay_min_us + rng.skewed(link.delay_mean_us)
        if rule is None and link.healed_us is None:
            return int(delay_us)
        if rule is not None and (rule.delay_ms or rule.jitter_ms):
            extra_us = 1000.0 * (rule.delay_ms + _jitter_ms(link, rule, rng))
            if not (rule.reorder and rng.random() < rule.reorder):
                delay_us += extra_us
        if link.healed_us is not None:
            delay_us += self._slow_start_us(link, link.healed_us)
        return int(delay_us)

    def _slow_start_us(self, link: _Link, healed_us: int) -> float:
        left_us = self._params.slow_start_ms * 1000 - (self._loop.now_us - healed_us)
        if left_us <= 0:
            link.healed_us = None
            return 0.0
        return left_us * link.rng.random()

    def _queue_us(self, link: _Link, size_bytes: int, limit_us: int | None) -> int:
        """How long so many bytes wait for their turn on a slow link, and take to get onto it."""
        now_us = self._loop.now_us
        done_us = max(now_us, link.busy_until_us) + int(size_bytes * 8 * 1000 / link.rate_kbit)
        if limit_us is None or done_us - now_us <= limit_us:
            link.busy_until_us = done_us
        return done_us - now_us

    def _arrive(self, link: _Link, message: Any, resets: int) -> None:
        rule = link.rule
        if (rule is not None and rule.blocked) or resets != link.resets:
            self._lose(link, message)
            return
        self._receivers[link.dst](link.src, message)

    def probe_us(self, src: str, dst: str) -> int | None:
        """How long a probe takes from one host to another and back; None where it is lost. No draw of the run moves."""
        total_us = 0
        for ends in ((src, dst), (dst, src)):
            name = f"{ends[0]}->{ends[1]}"
            link = self._probes.get(name)
            if link is None:
                dice = self._streams.dice(f"probe/{name}", self._loop)
                link = self._probes[name] = _Link(*ends, dice, self._params)
            link.set_rule(self._rules.links.get(ends))
            rule = link.rule
            breaks = rule is not None and rule.reset > 0 and link.rng.random() < rule.reset
            if breaks or link.rng.random() < link.loss:
                return None
            total_us += self._delay_us(link)
        return total_us

    @property
    def met(self) -> Mapping[tuple[str, str], int]:
        """How many messages each link was given while something was wrong with it."""
        return dict(self._met)

    def _lose(self, link: _Link, message: Any) -> None:
        self.lost += 1
        if self.observer is not None:
            self.observer(link.src, link.dst, message)


def _jitter_ms(link: _Link, rule: LinkRule, rng: HasRandom) -> float:
    """Uniform in [0, jitter], or another distribution of mean jitter / 2 and standard deviation jitter / 4."""
    uniform = rule.distribution == "uniform"
    share = rng.random() if uniform else max(0.0, 0.5 + 0.25 * _standard(rule.distribution, rng))
    if rule.delay_correlation:
        share = link.last_jitter = (
            rule.delay_correlation * link.last_jitter + (1.0 - rule.delay_correlation) * share
        )
    return rule.jitter_ms * share


def _standard(distribution: str, rng: HasRandom) -> float:
    """A number of mean 0 and standard deviation 1.

    Built from what IEEE 754 rounds alike everywhere: a sum of twelve for the normal distribution, a fourth root for
    Pareto's with shape 4, and for netem's "paretonormal" a quarter of the one and three of the other.
    """
    normal = sum(rng.random() for _ in range(12)) - 6.0 if distribution != "pareto" else 0.0
    if distribution == "normal":
        return normal
    u = 1.0 - rng.random()
    pareto = (1.0 / math.sqrt(math.sqrt(u)) - 4.0 / 3.0) / 0.4714045207910317
    return pareto if distribution == "pareto" else 0.75 * pareto + 0.25 * normal
