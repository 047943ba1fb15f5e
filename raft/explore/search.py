"""Every order of events of a small cluster, by breadth-first search over the real core.

Theory of operation
    A state of the search is the states of all nodes, the messages under way, and what has happened that the
    properties speak of: what was committed, who has led. From a state, the explorer takes every step that could come
    next: a message arrives, a node's election timeout passes, a leader sends heartbeats, a client writes or reads,
    an operator changes the membership, a node crashes, before its disk has finished or after; where there are clocks,
    time passes. The properties are
    checked in every state. The first violation has the shortest path to it, which is the counter-example.

    The network loses, repeats, delays and reorders: what was sent may arrive at any later time, any number of times,
    or never. A message therefore stays where it is after it has arrived, since a state with one more message under
    way can do all that the state without it can; so what is lost is what is never taken. Each link in each direction
    keeps the newest `kept_per_link` messages; older ones are lost for good.

    The bounds are what makes it finish: so many terms, writes, crashes, messages. Within them the search is complete.

    Nodes are interchangeable but for their names: of the states that differ by a renaming only one is searched.
    States that were seen are remembered by 64-bit hashes: among ten million, the chance that two share one, and a
    state is missed, is about three in a million.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, permutations
from typing import Any, NamedTuple, TypeAlias

from raft.bugs import assemble
from raft.core import Entry, Options
from raft.explore.bounds import Bounds
from raft.explore.clocks import FAST_TICKS, OPTIONS, ClockedAutomaton
from raft.explore.model import NOTHING, Automaton, NodeState, Outcome, Table, describe
from raft.explore.properties import Properties, World, sights, with_committed
from raft.explore.symmetry import Renaming

_PACE = 1 << 12  # states between two looks at the clock

State: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int]  # nodes, messages under way, world: by number
Trail: TypeAlias = "tuple[_Step, Trail] | None"


class _Step(NamedTuple):
    """What leads from one state to the next."""

    at: int
    event: Any
    crashes: bool = False


@dataclass(slots=True)
class Report:
    """What a search has found. `violation` is the sentence and the steps that lead to it."""

    states: int = 0
    steps: int = 0
    depth: int = 0
    complete: bool = False
    seconds: float = 0.0
    reactions: int = 0  # questions that the core itself was asked
    violation: tuple[str, tuple[str, ...]] | None = None
    sights: dict[str, int] = field(default_factory=dict)  # states in which something worth reaching was so


class _Found(Exception):
    """A step that leads to what must not be."""

    def __init__(self, wrong: str, step: _Step, trail: Trail) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.trail = (step, trail)


def explore(
    bounds: Bounds, *, bug: str | None = None, progress: Callable[[int, int, float], None] | None = None
) -> Report:
    """Searches everything within the bounds, or until something is wrong.

    `progress`, if given, is told depth, states and seconds after each level.
    """
    return Search(bounds, bug).run(progress)


class Search:
    """One search."""

    def __init__(self, bounds: Bounds, bug: str | None = None) -> None:
        self.bounds = bounds
        self.names = tuple("abcdefg"[: bounds.nodes])
        options = Options(pre_vote=bounds.pre_vote, check_quorum=False, snapshot_entries=1 << 30)
        core_class = assemble([bug] if bug else []).core_class
        self.clocks = ClockedAutomaton(core_class, self.names, OPTIONS) if bounds.passes else None
        self.automaton = self.clocks or Automaton(core_class, self.names, options)
        self.worlds = Table()
        self.properties = Properties(self.automaton.nodes, self.worlds)
        self._renamings = [
            Renaming(self.automaton, self.worlds, order, bounds.kept_per_link)
            for order in permutations(range(bounds.nodes))
        ]
        self._events: dict[tuple[int, int], list[tuple[Any, int]]] = {}
        self._remembered: dict[tuple[int, int, int, tuple[Entry, ...]], int] = {}
        self._sights: dict[tuple[int, ...], tuple[str, ...]] = {}

    def run(self, progress: Callable[[int, int, float], None] | None = None) -> Report:
        """Breadth first."""
        report, began = Report(), time.monotonic()
        frontier: list[tuple[State, Trail]] = [(self._first(), None)]
        seen = {self._fingerprint(frontier[0][0])}
        try:
            while frontier and not self._is_enough(seen, began):
                frontier = self._level(frontier, seen, report, began)
                report.depth += bool(frontier)
                if progress is not None:
                    progress(report.depth, len(seen), time.monotonic() - began)
            report.complete = not frontier
        except _Found as found:
            report.violation = (found.wrong, tuple(self._unwind(found.trail)))
        report.states = len(seen)
        report.seconds = time.monotonic() - began
        report.reactions = self.automaton.reactions
        return report

    def _level(
        self, frontier: list[tuple[State, Trail]], seen: set[int], report: Report, began: float
    ) -> list[tuple[State, Trail]]:
        """All states one step further; what is left of the level where the bounds of time or space are reached."""
        following: list[tuple[State, Trail]] = []
        met: set[State] = (
            set()
        )  # on this level, as they are: most steps lead to what was met, and cost no renaming
        for count, (state, trail) in enumerate(frontier):
            if not count % _PACE and self._is_enough(seen, began):
                return frontier[count:]
            for step, after in chain(self._steps(state, trail), self._passes(state)):
                report.steps += 1
                if after in met:
                    continue
                met.add(after)
                key = self._fingerprint(after)
                if key in seen:
                    continue
                seen.add(key)
                wrong = self.properties.violation(after[0], after[2])
                if wrong is not None:
                    raise _Found(wrong, step, trail)
                self._note_sights(report.sights, after)
                following.append((after, (step, trail)))
        return following

    def _is_enough(self, seen: set[int], began: float) -> bool:
        bounds = self.bounds
        return len(seen) > bounds.states_max or time.monotonic() - began > bounds.seconds_max

    def _first(self) -> State:
        size = self.bounds.nodes
        logs = self.bounds.logs or ((),) * size
        nodes = tuple(self.automaton.initial(at, terms) for at, terms in enumerate(logs))
        return (
            nodes,
            (NOTHING,) * (size * (size - 1) * self.bounds.kept_per_link),
            self.worlds.number(World()),
        )

    # -- steps -------------------------------------------------------------------------------------

    def _steps(self, state: State, trail: Trail) -> Iterator[tuple[_Step, State]]:
        nodes, under_way, world = state
        automaton = self.automaton
        for message in under_way:
            if message != NOTHING:
                at = automaton.dst[message]
                outcome = automaton.react(at, nodes[at], message)
                if not outcome.nothing:
                    yield from self._after(state, world, _Step(at, message), outcome, trail)
        for at, node in enumerate(nodes):
            key = (node, world)
            events = self._events.get(key)
            if events is None:
                events = self._events[key] = [
                    (event, self.worlds.number(changed))
                    for event, changed in self._may_happen(
                        automaton.nodes.values[node], self.worlds.values[world]
                    )
                ]
            for event, changed in events:
                outcome = automaton.react(at, node, event)
                if not outcome.nothing:
                    yield from self._after(state, changed, _Step(at, event), outcome, trail)

    def _passes(self, state: State) -> Iterator[tuple[_Step, State]]:
        """Time passes for all, and most slowly for one of them."""
        nodes, under_way, world = state
        value = self.worlds.values[world]
        if self.clocks is None or value.passes >= self.bounds.passes:
            return
        changed = self.worlds.number(value._replace(passes=value.passes + 1))
        for slow in range(len(nodes)):
            ticks = [self.bounds.slow_ticks if at == slow else FAST_TICKS for at in range(len(nodes))]
            later = tuple(map(self.clocks.later, range(len(nodes)), nodes, ticks))
            yield _Step(slow, "pass"), (later, under_way, changed)

    def _may_happen(self, node: NodeState, world: World) -> Iterator[tuple[Any, World]]:
        """What may happen to a node by itself, and what is counted of it."""
        bounds = self.bounds
        if node.role == "leader":
            if world.heartbeats < bounds.heartbeats:
                yield "heartbeat", world._replace(heartbeats=world.heartbeats + 1)
            if world.writes < bounds.writes:
                yield ("write", b"w%d" % world.writes), world._replace(writes=world.writes + 1)
            if world.reads < bounds.reads:
                required = max((one.entry.index for one in world.committed), default=0)
                yield ("read", required), world._replace(reads=world.reads + 1)
            if world.changes < len(bounds.changes):
                voters = bounds.changes[world.changes]
                yield ("change", voters), world._replace(changes=world.changes + 1)
        elif node.term < bounds.term_max and self.automaton.may_campaign(node):
            yield "campaign", world
        if world.crashes < bounds.crashes and node.term:
            yield "crash", world._replace(crashes=world.crashes + 1)

    def _after(
        self, state: State, world: int, step: _Step, outcome: Outcome, trail: Trail
    ) -> Iterator[tuple[_Step, State]]:
        """The state after an event at a node, and the one where the node crashes before its disk has finished."""
        nodes, under_way, _ = state
        at = step.at
        wrong = outcome.wrong or _wrong_reads(outcome)
        if wrong is not None:
            raise _Found(wrong, step, trail)
        after = self._remember(world, at, outcome.node, outcome.committed)
        yield (
            step,
            ((*nodes[:at], outcome.node, *nodes[at + 1 :]), self._send(under_way, outcome.sent), after),
        )
        crashed = outcome.crashed
        if crashed is not None and self.worlds.values[world].crashes < self.bounds.crashes:
            value = self.worlds.values[world]
            world = self.worlds.number(value._replace(crashes=value.crashes + 1))
            after = self._remember(world, at, crashed.node, crashed.committed)
            yield (
                step._replace(crashes=True),
                ((*nodes[:at], crashed.node, *nodes[at + 1 :]), self._send(under_way, crashed.sent), after),
            )

    def _send(self, under_way: tuple[int, ...], sent: tuple[int, ...]) -> tuple[int, ...]:
        """What is under way once these are too: each pushes the oldest off its link."""
        if not sent:
            return under_way
        after = list(under_way)
        kept = self.bounds.kept_per_link
        for message in sent:
            first = self.automaton.link[message] * kept
            if message not in after[first : first + kept]:
                after[first : first + kept] = (*after[first + 1 : first + kept], message)
        return tuple(after)

    def _remember(self, world: int, at: int, node: int, committed: tuple[Entry, ...]) -> int:
        """The world's number, with what is to be remembered of a node's new state."""
        key = (world, at, node, committed)
        found = self._remembered.get(key)
        if found is None:
            value: World = self.worlds.values[world]
            state: NodeState = self.automaton.nodes.values[node]
            if committed:
                value = value._replace(committed=with_committed(value.committed, committed, state.term))
            led = (state.term, self.names[at])
            if state.role == "leader" and led not in value.led:
                value = value._replace(led=tuple(sorted((*value.led, led))))
            found = self._remembered[key] = self.worlds.number(value)
        return found

    # -- what is told ------------------------------------------------------------------------------

    def _fingerprint(self, state: State) -> int:
        """A number that all states have that differ from this one by a renaming."""
        nodes, under_way, world = state
        renamed = [renaming.nodes(nodes) for renaming in self._renamings]
        least = min(renamed)
        return hash(
            min(
                (*least, *renaming.messages(under_way), renaming.world(world))
                for candidate, renaming in zip(renamed, self._renamings, strict=True)
                if candidate == least
            )
        )

    def _note_sights(self, counts: dict[str, int], state: State) -> None:
        nodes, _, world = state
        key = (*nodes, world)
        found = self._sights.get(key)
        if found is None:
            values = [self.automaton.nodes.values[node] for node in nodes]
            found = self._sights[key] = tuple(sights(values, self.worlds.values[world]))
        for sight in found:
            counts[sight] = counts.get(sight, 0) + 1

    def _unwind(self, trail: Trail) -> list[str]:
        """The steps of a trail, in order and in words."""
        steps: list[str] = []
        while trail is not None:
            step, trail = trail
            steps.insert(0, self._words(step))
        return steps

    def _words(self, step: _Step) -> str:
        name, event = self.names[step.at], step.event
        match event:
            case int():
                text = f"{describe(self.automaton.messages.values[event])} arrives"
            case "campaign":
                text = f"{name} campaigns"
            case "heartbeat":
                text = f"{name} sends heartbeats"
            case "pass":
                text = (
                    f"time passes, {self.bounds.slow_ticks} ticks for {name} and {FAST_TICKS} for the others"
                )
            case "crash":
                text = f"{name} crashes and restarts"
            case (what, argument):
                shown = argument.decode() if isinstance(argument, bytes) else argument
                text = f"{name} takes a {what} ({shown})"
        return f"{text}; {name} crashes before its disk has finished" if step.crashes else text


def _wrong_reads(outcome: Outcome) -> str | None:
    for required, index in outcome.reads:
        if index < required:
            return f"Linearizable reads: one saw {index} of {required} entries that had been acknowledged before it"
    return None
