"""Every order of events of a small cluster, by breadth-first search over the real core.

Theory of operation
    A state of the search is the states of all nodes, what their disks hold, and the messages under way. From
    a state, the explorer takes every step that could come next: a message arrives (or is lost, or arrives and
    stays under way, as if it had been sent twice), a node's election timeout passes, a client writes, a node
    crashes and starts again from its disk. The core is a function of its inputs, so a state is rebuilt from
    the few values that matter, and two paths to one state are searched once. Invariants are checked in every
    state. The first violation found has the shortest path to it, which is the counter-example.

    The bounds are what makes it finish: so many terms, so many entries, so many crashes. Within them the
    search is complete, for disks that are instant: nothing is ever under way to a disk.

    Nodes are interchangeable except for their names: of the states that differ by a renaming only one is
    searched.

>>> from raft.explore import Bounds, explore
>>> explore(Bounds(nodes=2, term_max=1, writes=0, crashes=0)).violation is None
True
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, NamedTuple

import msgspec

from raft.bugs import assemble
from raft.core import (
    AppendEntries,
    Candidate,
    Core,
    Entry,
    HardState,
    Leader,
    Message,
    Options,
    RequestVote,
    Saved,
    replay,
)
from raft.core.progress import Progress
from raft.core.records import Record, SaveEntries, SaveHardState

_OPTIONS = Options(pre_vote=False, check_quorum=False, snapshot_entries=1 << 30)
_LEADER, _CANDIDATE = "leader", "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far the search goes."""

    nodes: int = 3
    term_max: int = 2
    writes: int = 1
    crashes: int = 1
    under_way_max: int = 4  # messages; when there are more, the oldest are lost
    duplicates: bool = False
    states_max: int = 2_000_000
    seconds_max: float = 600.0


class _NodeState(NamedTuple):
    """All of a node that matters; hashable."""

    role: str
    term: int
    voted_for: str | None
    entries: tuple[Entry, ...]
    commit_index: int
    granted: tuple[str, ...]
    progress: tuple[tuple[int, int, bool], ...]  # match, next, probing; in the order of names
    durable: tuple[HardState, tuple[Entry, ...]]


class _State(NamedTuple):
    nodes: tuple[_NodeState, ...]
    under_way: tuple[Message, ...]
    writes: int
    crashes: int
    committed: tuple[Entry, ...]  # everything that was ever committed anywhere


@dataclass(slots=True)
class Outcome:
    """What a search has found. `violation` is the sentence and the steps that lead to it."""

    states: int = 0
    steps: int = 0
    complete: bool = False
    violation: tuple[str, tuple[str, ...]] | None = None
    seconds: float = 0.0
    sights: dict[str, int] = field(default_factory=dict)  # states in which something worth reaching was so


def explore(bounds: Bounds, *, bug: str | None = None) -> Outcome:
    """Searches everything within the bounds, or until something is wrong."""
    return _Search(bounds, bug).run()


class _Search:
    def __init__(self, bounds: Bounds, bug: str | None) -> None:
        self.bounds = bounds
        self.names = tuple("abcdefg"[: bounds.nodes])
        self.core_class: type[Core] = assemble([bug] if bug else []).core_class
        self.renamings = [dict(zip(self.names, other, strict=True)) for other in permutations(self.names)]

    def run(self) -> Outcome:
        began = time.monotonic()
        outcome = Outcome()
        empty = _NodeState("follower", 0, None, (), 0, (), (), (HardState(), ()))
        first = _State((empty,) * len(self.names), (), 0, 0, ())
        seen = {self._canonical(first)}
        frontier: list[tuple[_State, Any]] = [(first, None)]
        while frontier:
            following: list[tuple[_State, Any]] = []
            for state, path in frontier:
                for step, after in self._steps(state):
                    outcome.steps += 1
                    key = self._canonical(after)
                    if key in seen:
                        continue
                    seen.add(key)
                    trail = (step, path)
                    wrong = _violation(after, self.names)
                    if wrong is not None:
                        outcome.violation = (wrong, tuple(reversed(list(_unwind(trail)))))
                        return self._finish(outcome, seen, began)
                    _note_sights(outcome.sights, after)
                    following.append((after, trail))
                if len(seen) > self.bounds.states_max or time.monotonic() - began > self.bounds.seconds_max:
                    return self._finish(outcome, seen, began)
            frontier = following
        outcome.complete = True
        return self._finish(outcome, seen, began)

    def _finish(self, outcome: Outcome, seen: set[Any], began: float) -> Outcome:
        outcome.states = len(seen)
        outcome.seconds = time.monotonic() - began
        return outcome

    # -- steps -------------------------------------------------------------------------------------

    def _steps(self, state: _State) -> Iterator[tuple[str, _State]]:
        for at, message in enumerate(state.under_way):
            rest = state.under_way[:at] + state.under_way[at + 1 :]
            yield f"{_short(message)} arrives", self._act(state, message.dst, rest, message)
            if self.bounds.duplicates:
                yield (
                    f"{_short(message)} arrives twice",
                    self._act(state, message.dst, state.under_way, message),
                )
            yield f"{_short(message)} is lost", state._replace(under_way=rest)
        for at, name in enumerate(self.names):
            node = state.nodes[at]
            if node.role != _LEADER and node.term < self.bounds.term_max:
                yield f"{name} campaigns", self._act(state, name, state.under_way, "campaign")
            if node.role == _LEADER:
                yield f"{name} sends a heartbeat", self._act(state, name, state.under_way, "heartbeat")
                if state.writes < self.bounds.writes:
                    written = state._replace(writes=state.writes + 1)
                    yield f"{name} takes a write", self._act(written, name, state.under_way, "write")
            if state.crashes < self.bounds.crashes and node.term:
                crashed = state._replace(crashes=state.crashes + 1)
                yield f"{name} crashes and restarts", self._act(crashed, name, state.under_way, "crash")

    def _act(self, state: _State, name: str, under_way: tuple[Message, ...], event: Any) -> _State:
        """Lets one thing happen at one node, and its disk and its answers be instant."""
        at = self.names.index(name)
        before = state.nodes[at]
        core = self._revive(before, name)
        if event == "campaign":
            core.tick(core.election_us)
        elif event == "heartbeat":
            core.tick(core.heartbeat_us)
        elif event == "write":
            core.propose(b"w%d" % state.writes, core.now_us)
        elif event == "crash":
            core = self._core(name, before.durable)
        else:
            core.step(event, core.now_us)
        sent, durable, committed = self._settle(core, before.durable)
        nodes = (*state.nodes[:at], self._freeze(core, durable), *state.nodes[at + 1 :])
        known = state.committed
        for entry in committed:
            if entry not in known:
                known = (*known, entry)
        messages = dict.fromkeys((*under_way, *sent))
        return state._replace(
            nodes=nodes, under_way=tuple(messages)[-self.bounds.under_way_max :], committed=known
        )

    def _settle(self, core: Core, durable: Any) -> tuple[list[Message], Any, list[Entry]]:
        sent: list[Message] = []
        records: list[Record] = []
        committed: list[Entry] = []
        while (ready := core.ready()) is not None:
            records += ready.records
            committed += ready.committed
            for message in (*ready.messages, *ready.held):
                if message.dst == core.name:
                    core.step(message, core.now_us)
                else:
                    sent.append(message)
        if records:
            hard_state, entries = durable
            head: list[Record] = [SaveHardState(hard_state.term, hard_state.voted_for), SaveEntries(entries)]
            saved = replay([*head, *records])
            durable = (saved.hard_state, saved.entries)
        return sent, durable, committed

    # -- cores and their states --------------------------------------------------------------------

    def _core(self, name: str, durable: tuple[HardState, tuple[Entry, ...]]) -> Core:
        saved = Saved(*durable)
        return self.core_class(name, self.names, saved, random=lambda: 0.0, now_us=0, options=_OPTIONS)

    def _revive(self, state: _NodeState, name: str) -> Core:
        """A core in this state; what is left out (timers, who leads) decides nothing that could go wrong."""
        core = self._core(name, (HardState(state.term, state.voted_for), state.entries))
        core.term, core.voted_for = state.term, state.voted_for
        core.commit_index = core._committed_out = state.commit_index  # noqa: SLF001 - the explorer is its twin
        if state.role == _CANDIDATE:
            core.role = Candidate(granted=list(state.granted))
        elif state.role == _LEADER:
            core.role = Leader({n: _progress(*p) for n, p in zip(self.names, state.progress, strict=True)})
            core.leader = name
        return core

    def _freeze(self, core: Core, durable: Any) -> _NodeState:
        role = core.role
        granted = tuple(sorted(role.granted)) if isinstance(role, Candidate) else ()
        progress: tuple[tuple[int, int, bool], ...] = ()
        if isinstance(role, Leader):
            members = [role.progress[name] for name in self.names]
            progress = tuple((p.match_index, p.next_index, p.probing) for p in members)
        name = _LEADER if isinstance(role, Leader) else _CANDIDATE if granted else "follower"
        entries = tuple(core.log.entries)
        return _NodeState(
            name, core.term, core.voted_for, entries, core.commit_index, granted, progress, durable
        )

    def _canonical(self, state: _State) -> bytes:
        """The same for all states that differ by names only."""
        return min(self._renamed(state, names) for names in self.renamings)

    def _renamed(self, state: _State, names: dict[str, str]) -> bytes:
        nodes = {}
        order = [self.names.index(old) for old in sorted(names, key=names.__getitem__)]
        for old, node in zip(self.names, state.nodes, strict=True):
            progress = tuple(node.progress[at] for at in order) if node.progress else ()
            hard_state, entries = node.durable
            nodes[names[old]] = (
                *node[:2], names.get(node.voted_for or ""), node.entries, node.commit_index,
                sorted(names[n] for n in node.granted), progress,
                hard_state.term, names.get(hard_state.voted_for or ""), entries,
            )  # fmt: skip
        under_way = sorted(
            msgspec.msgpack.encode(msgspec.structs.replace(m, src=names[m.src], dst=names[m.dst]))
            for m in state.under_way
        )
        return msgspec.msgpack.encode((sorted(nodes.items()), under_way, *state[2:]))


def _progress(match_index: int, next_index: int, probing: bool) -> Progress:  # noqa: FBT001 - a field of a tuple
    progress = Progress(next_index)
    progress.match_index, progress.probing = match_index, probing
    return progress


def _unwind(trail: Any) -> Iterator[str]:
    while trail is not None:
        step, trail = trail
        yield step


def _note_sights(sights: dict[str, int], state: _State) -> None:
    """Counts what a search should have come by, or its silence would mean nothing."""
    roles = [node.role for node in state.nodes]
    for sight, there in (
        ("a leader", _LEADER in roles),
        ("two leaders of different terms", roles.count(_LEADER) > 1),
        ("a committed entry", bool(state.committed)),
        ("logs that differ at an index", _differ(state.nodes)),
    ):
        if there:
            sights[sight] = sights.get(sight, 0) + 1


def _differ(nodes: Sequence[_NodeState]) -> bool:
    return any(
        a != b for one in nodes for other in nodes for a, b in zip(one.entries, other.entries, strict=False)
    )


def _violation(state: _State, names: Sequence[str]) -> str | None:
    """What of Figure 3 does not hold in a state."""
    leaders: dict[int, str] = {}
    for name, node in zip(names, state.nodes, strict=True):
        if node.role != _LEADER:
            continue
        if node.term in leaders:
            return f"Election Safety: {leaders[node.term]} and {name} both lead term {node.term}"
        leaders[node.term] = name
        for entry in state.committed:
            if entry.term < node.term and entry not in node.entries:
                return f"Leader Completeness: {name} leads term {node.term} without entry {entry.index}"
    by_index: dict[int, Entry] = {}
    for entry in state.committed:
        if by_index.setdefault(entry.index, entry) != entry:
            return f"State Machine Safety: two different entries were committed at index {entry.index}"
    return None


def _short(message: Message) -> str:
    what = type(message).__name__
    if isinstance(message, AppendEntries):
        what += f" of {len(message.entries)} after {message.prev_index}"
    elif isinstance(message, RequestVote):
        what += f" with {message.last_index} entries"
    return f"{what} {message.src}->{message.dst} (term {message.term})"


def main(argv: Sequence[str]) -> int:
    """`python -m raft.explore [bug]`: three nodes, two terms, one write, one crash."""
    bounds = replace(Bounds(), duplicates=True)
    outcome = explore(bounds, bug=argv[0] if argv else None)
    say = sys.stdout.write
    say(f"{outcome.states} states, {outcome.steps} steps, {outcome.seconds:.0f} s, ")
    say("all there are\n" if outcome.complete else "not all there are\n")
    for sight, count in sorted(outcome.sights.items()):
        say(f"  {count} with {sight}\n")
    if outcome.violation is not None:
        say(f"{outcome.violation[0]}\n" + "".join(f"  {step}\n" for step in outcome.violation[1]))
    return outcome.violation is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
