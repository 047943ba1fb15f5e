"""Proof that faults bite: what a probe finds after an injection, and what is left of it before the heal.

Rules of this module
    1. A fault is looked at without the help of the system under test: by its machine, its operating system, its disk.
    2. Three answers. `proved`: the probe found what was asked for. `refuted`: it found the opposite, so the fault was
       not in force; such a run is not valid. `unproved`: nothing was found either way, and why.
    3. A probe says nothing about one fault alone: what it finds is compared with what all faults in force together
       ask for, and is not held against a fault if they have changed meanwhile.
    4. Of many links only some are probed, the same ones each time.

>>> merge([Evidence("proved", ("n1 is down",)), Evidence("unproved", ("n2 was not looked at",))]).verdict
'proved'
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from nemesis import aspects
from nemesis.effects import Effect
from nemesis.nemesis import Nemesis
from nemesis.target import (
    BYTES_LOST,
    HEALTHY_DISK,
    POWER_LOSSES,
    ClockRule,
    Link,
    LinkProbe,
    LinkRule,
    MembershipTarget,
    ProbeTarget,
    Target,
)

Verdict = Literal["proved", "refuted", "unproved"]

LINKS_PROBED_MAX = 3
PROBES_OF_CHANCE = 20
PROBES_OF_DELAY = 3
DELAY_SHARE_MIN = 0.9
CLOCK_TOLERANCE_MS = 50.0
LAST_LOOK_S_MAX = 0.6
STATE_LOOKS_MAX, STATE_PAUSE_S = 40, 0.02  # a sync on a busy disk takes that long
PACKETS_PER_PROBE = 3  # one on each way, and one more that was sent again
CLOCK_SAMPLES_MAX = 20
LINES_MAX = 8


class Evidence(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        verdict: see the module.
        lines: what was found, a sentence each.
    """

    verdict: Verdict
    lines: tuple[str, ...] = ()


NOTHING = Evidence("unproved")


def merge(found: Iterable[Evidence]) -> Evidence:
    """All together: refuted if any is, else proved if any is; what decided comes first."""
    parts = list(found)
    verdicts = {part.verdict for part in parts}
    verdict: Verdict = "unproved"
    if "refuted" in verdicts:
        verdict = "refuted"
    elif "proved" in verdicts:
        verdict = "proved"
    deciding_first = sorted(parts, key=lambda part: part.verdict != verdict)
    lines = [line for part in deciding_first for line in part.lines]
    return Evidence(verdict, tuple(dict.fromkeys(lines))[:LINES_MAX])


@dataclass(slots=True)
class Begun:
    """What is remembered from the injection to the heal.

    Attributes:
        effect: what was injected.
        at_ms: when.
        found: by probes right after it.
        troubles: of each node, as they were.
        met: by each link, as they were.
        probing: what is still looked at.
        probes_sent: how many packets of our own may have met it.
    """

    effect: Effect
    at_ms: float
    found: list[Evidence] = field(default_factory=list)
    troubles: dict[str, Mapping[str, int]] = field(default_factory=dict)
    met: Mapping[Link, int] = field(default_factory=dict)
    probing: asyncio.Task[None] | None = None
    probes_sent: int = 0


Look = Callable[[ProbeTarget], Awaitable[Evidence]]


class Prover:
    """Looks at what one nemesis does to its target."""

    def __init__(self, target: Target, nemesis: Nemesis, now_ms: Callable[[], float]) -> None:
        self._target = target
        self._probes = target if isinstance(target, ProbeTarget) else None
        self._nemesis = nemesis
        self._now_ms = now_ms

    def begin(self, effect: Effect) -> Begun:
        """Look at a fault that was just injected, in the background."""
        begun = Begun(effect, self._now_ms())
        if self._probes:
            begun.probing = asyncio.get_running_loop().create_task(self._probe(self._probes, begun))
        return begun

    async def before_heal(self, begun: Begun) -> None:
        """Look at what will be gone once the fault heals, for a moment."""
        if self._probes is None:
            return
        if begun.probing is not None:
            begun.probing.cancel()
            await asyncio.gather(begun.probing, return_exceptions=True)
        looks = self._last_looks(begun)
        try:
            async with asyncio.timeout(LAST_LOOK_S_MAX):
                for look in looks:
                    begun.found.append(await self._safely(look))
        except TimeoutError:
            begun.found.append(Evidence("unproved", ("the last look took too long",)))

    async def after_heal(self, begun: Begun) -> Evidence:
        """Count what the fault did; all that was found."""
        if self._probes is None:
            return Evidence("unproved", ("this cluster cannot be probed",))
        if begun.effect.rules.links:
            begun.found.append(await self._safely(lambda probes: self._met(probes, begun)))
        for node, before in begun.troubles.items():
            begun.found.append(await self._safely(functools.partial(_troubled, node, before)))
        return merge(begun.found)

    async def _probe(self, probes: ProbeTarget, begun: Begun) -> None:
        effect = begun.effect
        for node in (*effect.disks, *effect.slowed):
            begun.troubles[node] = await probes.probe_troubles(node)
        if effect.rules.links:
            begun.met = await probes.probe_met()
        for link in _some(tuple(effect.rules.links)):
            begun.found.append(await self._safely(functools.partial(self._link, link=link, begun=begun)))
        for node in _losing(effect):
            begun.found.append(_lost(node, begun.troubles[node]))
        for asked, nodes in (("down", effect.killed), ("paused", effect.paused)):
            for node in nodes:
                found = await self._safely(functools.partial(self._process, node=node, asked=asked))
                if node in effect.damages and found.verdict == "proved":
                    found = NOTHING  # a process that is gone has no damaged disk yet: the injection says what it did
                begun.found.append(found)
        for node, rule in effect.clocks.items():
            begun.found.append(await self._safely(functools.partial(self._clock, node=node, rule=rule)))

    async def _safely(self, look: Look) -> Evidence:
        assert self._probes is not None, "nobody looks without probes"
        try:
            return await look(self._probes)
        except Exception as error:  # noqa: BLE001 - a probe that fails proves nothing, and ends nothing
            return Evidence("unproved", (f"a probe failed: {str(error) or type(error).__name__}",))

    # -- links ------------------------------------------------------------------------------------------------

    async def _link(self, probes: ProbeTarget, *, link: Link, begun: Begun) -> Evidence:
        src, dst = link
        rules, was_written = self._nemesis.rules.links, self._nemesis.is_network_written
        there, back = rules.get((src, dst), LinkRule()), rules.get((dst, src), LinkRule())
        count = _probes_for(there, back)
        begun.probes_sent += count
        found = await probes.probe_link(src, dst, count)
        if self._nemesis.rules.links != rules or not (was_written and self._nemesis.is_network_written):
            return Evidence("unproved", (f"{src}->{dst}: the network changed while it was probed",))
        return judge_link(f"{src}->{dst}", there, back, found)

    # -- processes and clocks ---------------------------------------------------------------------------------

    async def _process(self, probes: ProbeTarget, *, node: str, asked: str) -> Evidence:
        for _ in range(STATE_LOOKS_MAX):
            state = await probes.probe_process(node)
            if state == asked or (state == "down" and asked == "paused"):
                return Evidence("proved", (f"{node} is {state}",))
            if not self._nemesis.holds(node):
                return Evidence("unproved", (f"{node} was released while it was looked at",))
            await asyncio.sleep(STATE_PAUSE_S)  # a process in a system call stops when that ends
        return Evidence("refuted", (f"{node} is to be {asked} and is {state}",))

    async def _clock(self, probes: ProbeTarget, *, node: str, rule: ClockRule) -> Evidence:
        wanted: ClockRule = self._nemesis.wanted(aspects.CLOCK, node)
        ahead_ms = await probes.probe_clock(node)
        if rule.strobe_period_ms:
            return await self._strobe(probes, node, wanted, ahead_ms)
        if not rule.offset_ms:
            return NOTHING  # a drift shows with time
        off_ms = abs(ahead_ms - wanted.offset_ms)
        line = f"the clock of {node} is ahead by {ahead_ms:g} ms"
        if off_ms <= CLOCK_TOLERANCE_MS or wanted.drift_ppm or wanted.strobe_period_ms:
            return Evidence("proved", (line,))
        if self._nemesis.wanted(aspects.CLOCK, node) != wanted:
            return NOTHING
        return Evidence("refuted", (f"{line}, and should be by {wanted.offset_ms:g} ms",))

    async def _strobe(self, probes: ProbeTarget, node: str, wanted: ClockRule, first_ms: float) -> Evidence:
        """Looks until the clock has jumped."""
        pause_s = wanted.strobe_period_ms / 1000 / 2.7
        for _ in range(CLOCK_SAMPLES_MAX):
            await asyncio.sleep(pause_s)
            jump_ms = abs(await probes.probe_clock(node) - first_ms)
            if jump_ms >= DELAY_SHARE_MIN * abs(wanted.strobe_ms):
                return Evidence("proved", (f"the clock of {node} jumped by {jump_ms:g} ms",))
        return Evidence("unproved", (f"the clock of {node} was not seen to jump",))

    # -- what it did ------------------------------------------------------------------------------------------

    def _last_looks(self, begun: Begun) -> Iterator[Look]:
        effect = begun.effect
        if not begun.found:  # a short one
            for asked, nodes in (("down", effect.killed), ("paused", effect.paused)):
                for node in [one for one in nodes if one not in effect.damages][:1]:
                    yield functools.partial(self._process, node=node, asked=asked)
            for node in _losing(effect)[:1]:
                yield functools.partial(_look_at_loss, node)
        for node in effect.crash_points:
            yield functools.partial(_crashed, node)
        for node, rule in effect.clocks.items():
            if rule.drift_ppm:
                yield functools.partial(self._drift, node=node, rule=rule, begun=begun)
        if effect.removed or effect.transfer_to is not None:
            yield lambda _: self._membership(effect)

    async def _met(self, probes: ProbeTarget, begun: Begun) -> Evidence:
        now = await probes.probe_met()
        met = sum(max(0, now.get(link, 0) - begun.met.get(link, 0)) for link in begun.effect.rules.links)
        if met > PACKETS_PER_PROBE * begun.probes_sent:
            return Evidence("proved", (f"{met} packets met it",))
        return Evidence("unproved", (f"{met} packets met it, probes among them",))

    async def _drift(self, probes: ProbeTarget, *, node: str, rule: ClockRule, begun: Begun) -> Evidence:
        gained_ms = await probes.probe_clock(node) - self._nemesis.wanted(aspects.CLOCK, node).offset_ms
        asked_ms = (self._now_ms() - begun.at_ms) * rule.drift_ppm / 1_000_000
        is_seen = abs(asked_ms) >= 0.2 and gained_ms * asked_ms > 0
        line = f"the clock of {node} gained {gained_ms:.1f} ms, {asked_ms:.1f} ms were asked for"
        return Evidence("proved" if is_seen else "unproved", (line,))

    async def _membership(self, effect: Effect) -> Evidence:
        if effect.transfer_to is not None:
            leader = await self._target.leader()
            verdict: Verdict = "proved" if leader == effect.transfer_to else "unproved"
            return Evidence(verdict, (f"{leader or 'nobody'} leads",))
        assert isinstance(self._target, MembershipTarget), "only such a target removes members"
        view = await self._target.members()
        if view is None:
            return Evidence("unproved", ("nobody leads, so nobody says who the members are",))
        is_out = not set(effect.removed) & set(view.voters)
        return Evidence("proved" if is_out else "unproved", (f"the voters are {' '.join(view.voters)}",))


async def _crashed(node: str, probes: ProbeTarget) -> Evidence:
    if await probes.probe_process(node) == "down":
        return Evidence("proved", (f"{node} is down: it got to its crash point, or died before",))
    return Evidence("unproved", (f"{node} did not get to its crash point",))


def _losing(effect: Effect) -> list[str]:
    """Nodes that lose power by it."""
    return [node for node in effect.killed if effect.disks.get(node, HEALTHY_DISK).lose_unsynced]


async def _look_at_loss(node: str, probes: ProbeTarget) -> Evidence:
    return _lost(node, await probes.probe_troubles(node))


def _lost(node: str, troubles: Mapping[str, int]) -> Evidence:
    """What is known of what went with the power; the fault is proved by the process that is gone."""
    if not troubles.get(POWER_LOSSES):
        return NOTHING
    line = f"{node} lost power {troubles[POWER_LOSSES]} times so far, and {troubles[BYTES_LOST]} unsynced bytes with it"
    return Evidence("unproved", (line,))


async def _troubled(node: str, before: Mapping[str, int], probes: ProbeTarget) -> Evidence:
    now = await probes.probe_troubles(node)
    grown = {name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)}
    if not grown:
        return Evidence("unproved", (f"{node} did nothing that it would have troubled",))
    shown = ", ".join(f"{name} {count}" for name, count in grown.items())
    return Evidence("proved", (f"{node}: {shown}",))


def judge_link(name: str, there: LinkRule, back: LinkRule, found: LinkProbe) -> Evidence:
    """What probes say about rules on the way there and back.

    >>> judge_link("a->b", LinkRule(delay_ms=50), LinkRule(), LinkProbe(1, 1, (50.4,)))
    Evidence(verdict='proved', lines=('a->b: a round trip takes 50.4 ms',))
    >>> judge_link("a->b", LinkRule(blocked=True), LinkRule(), LinkProbe(1, 1, (0.4,))).verdict
    'refuted'
    """
    if there.blocked or back.blocked:
        if found.answered:
            return Evidence("refuted", (f"{name} is to be blocked, and a probe was answered",))
        return Evidence("proved", (f"{name}: a probe was not answered",))
    lost = found.sent - found.answered
    can_lose = any(rule.loss or rule.corrupt or rule.reset for rule in (there, back))
    if lost and can_lose:
        return Evidence("proved", (f"{name}: {lost} of {found.sent} probes were not answered",))
    asked_ms = there.delay_ms + back.delay_ms
    if asked_ms and found.rtt_ms and not (there.reorder or back.reorder):
        slowest_ms = max(found.rtt_ms)
        line = f"{name}: a round trip takes {slowest_ms:.1f} ms"
        if slowest_ms >= DELAY_SHARE_MIN * asked_ms:
            return Evidence("proved", (line,))
        if _is_certain(there) and _is_certain(back):
            return Evidence("refuted", (f"{line}, and should take {asked_ms:g} ms",))
    return NOTHING


def _is_certain(rule: LinkRule) -> bool:
    """Whether a delay is never less than what was asked."""
    return rule.distribution == "uniform"


def _probes_for(there: LinkRule, back: LinkRule) -> int:
    if there.blocked or back.blocked:
        return 1
    if any(rule.loss or rule.corrupt or rule.reset for rule in (there, back)):
        return PROBES_OF_CHANCE
    return PROBES_OF_DELAY


def _some(links: Sequence[Link]) -> Sequence[Link]:
    """The first, the last and those in between, as far as they are probed."""
    if len(links) <= LINKS_PROBED_MAX:
        return links
    step = (len(links) - 1) / (LINKS_PROBED_MAX - 1)
    return [links[round(number * step)] for number in range(LINKS_PROBED_MAX)]
