"""One node as a finite automaton: the real core, asked once for each of its states and each event.

Theory of operation
    A core is a function of its inputs, so what it does is a table: (state, event) -> (state, messages, ...).
    `Automaton` fills the table on demand. A state is rebuilt from the few values that matter, the event happens,
    the disk finishes, and what came of it is kept. The states of a whole cluster are then tuples of small
    numbers, and of millions of them most cost a look into the table.

    Clocks are left out: time stands still, and a timeout is an event like others. So CheckQuorum, stickiness and
    leases, which rest on clocks, are switched off; `raft.explore.clocks` is the automaton that has them.

    A crash may come before the disk has finished: then only what does not wait for the disk was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple

from raft.core import (
    AppendEntries,
    Candidate,
    Config,
    Core,
    Entry,
    EntryKind,
    HardState,
    Leader,
    Message,
    Options,
    PreCandidate,
    RequestVote,
    Saved,
    replay,
)
from raft.core.progress import Progress
from raft.core.records import Record, SaveEntries, SaveHardState
from raft.core.roles import ReadRound

_ROLES: dict[str, type[Any]] = {"candidate": Candidate, "pre-candidate": PreCandidate}
NOTHING = -1  # stands for a message where there is none
Durable = tuple[HardState, tuple[Entry, ...]]


class Ages(NamedTuple):
    """What a node's clock has to do with, as differences to now."""

    heard: int  # since the leader was last heard of, as far as it matters
    lease: int  # how long a leader's still lasts
    sent: tuple[tuple[int, int], ...]  # of a leader's rounds that are not confirmed: seq, since when


class NodeState(NamedTuple):
    """All of a node that decides what it may do."""

    role: str
    term: int
    voted_for: str | None
    entries: tuple[Entry, ...]
    commit_index: int
    granted: tuple[str, ...]  # a candidate's
    configs: tuple[tuple[int, Config], ...]
    durable: Durable
    progress: tuple[tuple[Any, ...], ...] = ()  # a leader's: name, match, next, probing, read_seq
    read_seq: int = 0
    read_rounds: tuple[ReadRound, ...] = ()
    waiting_reads: tuple[int, ...] = ()
    clock: Ages | None = None  # where there are clocks


class Crashed(NamedTuple):
    """What an event did to a node that crashed before its disk had finished, and to the world."""

    node: int
    sent: tuple[int, ...]
    committed: tuple[Entry, ...]


class Outcome(NamedTuple):
    """What an event did to a node. Numbers are those of the automaton's tables."""

    node: int
    sent: tuple[int, ...]
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()  # what a read had to see, and what it saw
    crashed: Crashed | None = None
    wrong: str | None = None  # a property of one node alone that does not hold
    nothing: bool = False  # it left everything as it was


class Table:
    """Values by number and numbers by value."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any) -> int:
        """The number of a value, which is a new one if the value is."""
        found = self._numbers.get(value)
        if found is None:
            found = self._numbers[value] = len(self.values)
            self.values.append(value)
        return found


class Automaton:
    """The core, asked."""

    now_us = 0  # always

    def __init__(self, core_class: type[Core], names: Sequence[str], options: Options) -> None:
        self.core_class = core_class
        self.names = tuple(names)
        self.options = options
        self.nodes = Table()
        self.messages = Table()
        self.dst: list[int] = []  # of each message, as a position
        self.link: list[int] = []  # and its link's
        self._links = list(permutations(names, 2))
        self._outcomes: dict[tuple[int, int, Any], Outcome] = {}

    def initial(self, at: int, terms: Sequence[int]) -> int:
        """The node at a position, with a log that begins with entries of these terms."""
        entries = tuple(Entry(at, term, EntryKind.COMMAND) for at, term in enumerate(terms, 1))
        durable = (HardState(terms[-1] if terms else 0), entries)
        return self._freeze(self._core(self.names[at], durable), durable)

    def react(self, at: int, node: int, event: Any) -> Outcome:
        """What comes of an event: the number of a message, or a word, or a word and its argument."""
        key = (at, node, event)
        found = self._outcomes.get(key)
        if found is None:
            found = self._ask(at, node, event)
            nothing = found.node == node and not (found.sent or found.committed or found.reads or found.wrong)
            found = self._outcomes[key] = found._replace(nothing=nothing)
        return found

    # -- one question ------------------------------------------------------------------------------

    def _ask(self, at: int, node: int, event: Any) -> Outcome:
        name, before = self.names[at], self.nodes.values[node]
        if event == "crash":
            return Outcome(self._freeze(self._core(name, before.durable), before.durable), ())
        core = self._revive(before, name)
        try:
            self._happen(core, event)
            return self._settle(core, before)
        except AssertionError as error:
            return Outcome(node, (), wrong=f"the core stopped: {error}")

    def _happen(self, core: Core, event: Any) -> None:
        match event:
            case int():
                core.step(self.messages.values[event], self.now_us)
            case "campaign":
                core.now_us = core.election_us
                core._on_election_timeout()  # noqa: SLF001 - the explorer is the core's twin
                core.now_us = self.now_us
            case "heartbeat":
                core._send_heartbeats()  # noqa: SLF001
            case ("write", data):
                core.propose(data, self.now_us)
            case ("read", required):
                core.read(required, self.now_us)
            case ("change", voters):
                core.change_config(voters, now_us=self.now_us)

    def _settle(self, core: Core, before: NodeState) -> Outcome:
        """Lets the disk finish, and what waits for it happen; keeps what had happened before it did."""
        sent: list[Message] = []
        records: list[Record] = []
        committed: list[Entry] = []
        reads: list[tuple[int, int]] = []
        early: tuple[list[Message], list[Entry]] | None = None  # set once something has waited for the disk
        while (ready := core.ready()) is not None:
            records += ready.records
            committed += ready.committed
            reads += ready.reads
            for message in ready.messages:
                _pass_on(core, message, sent)
            if records and ready.held and early is None:
                early = (list(sent), list(committed))
            for message in ready.held:
                _pass_on(core, message, sent)
        durable = _after(before.durable, records)
        after = self._freeze(core, durable)
        crashed = None
        if records:
            again = self._freeze(self._core(core.name, before.durable), before.durable)
            messages, entries = early or (sent, committed)
            crashed = Crashed(again, self._numbers(messages), tuple(entries))
        return Outcome(
            after,
            self._numbers(sent),
            tuple(committed),
            tuple(reads),
            crashed,
            _wrong(before, self.nodes.values[after]),
        )

    def _numbers(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(self.number, messages)))

    def number(self, message: Message) -> int:
        """The number of a message."""
        number = self.messages.number(message)
        if number == len(self.dst):
            self.dst.append(self.names.index(message.dst))
            self.link.append(self._links.index((message.src, message.dst)))
        return number

    @property
    def reactions(self) -> int:
        """How many questions the core was asked."""
        return len(self._outcomes)

    # -- cores and their states --------------------------------------------------------------------

    def _core(self, name: str, durable: Durable) -> Core:
        saved = Saved(*durable)
        return self.core_class(
            name, self.names, saved, random=lambda: 0.0, now_us=self.now_us, options=self.options
        )

    def _revive(self, state: NodeState, name: str) -> Core:
        """A core in this state; what is left out (timers, who leads) decides nothing that could go wrong."""
        core = self._core(name, (HardState(state.term, state.voted_for), state.entries))
        core.term, core.voted_for = state.term, state.voted_for
        core.commit_index = core._committed_out = state.commit_index  # noqa: SLF001
        core._configs = list(state.configs)  # noqa: SLF001
        core._adopt_config()  # noqa: SLF001
        if state.role == "leader":
            leader = Leader({name: _progress(*values) for name, *values in state.progress})
            leader.read_seq = state.read_seq
            leader.read_rounds.extend(state.read_rounds)
            leader.waiting_reads = list(state.waiting_reads)
            core.role, core.leader = leader, name
        elif state.role != "follower":
            core.role = _ROLES[state.role](granted=list(state.granted))
        return core

    def _freeze(self, core: Core, durable: Durable) -> int:
        role = core.role
        state = NodeState(
            role.name,
            core.term,
            core.voted_for,
            tuple(core.log.entries),
            core.commit_index,
            tuple(sorted(role.granted)) if isinstance(role, Candidate) else (),
            configs=tuple(core._configs),  # noqa: SLF001
            durable=durable,
        )
        if isinstance(role, Leader):
            state = state._replace(
                progress=tuple(
                    (name, one.match_index, one.next_index, one.probing, one.read_seq)
                    for name, one in sorted(role.progress.items())
                ),
                read_seq=role.read_seq,
                read_rounds=tuple(role.read_rounds),
                waiting_reads=tuple(role.waiting_reads),
            )
        return self.nodes.number(state._replace(clock=self._ages(core)))

    def _ages(self, core: Core) -> Ages | None:
        """Nothing here rests on clocks."""
        del core
        return None

    def may_campaign(self, state: NodeState) -> bool:
        """Whether a node's election timeout may have passed."""
        return state.role != "leader"


def _pass_on(core: Core, message: Message, sent: list[Message]) -> None:
    if message.dst == core.name:
        core.step(message, core.now_us)
    else:
        sent.append(message)


def _progress(match_index: int, next_index: int, probing: bool, read_seq: int) -> Progress:  # noqa: FBT001 - fields of a tuple
    progress = Progress(next_index)
    progress.match_index, progress.probing, progress.read_seq = match_index, probing, read_seq
    return progress


def _after(durable: Durable, records: Sequence[Record]) -> Durable:
    if not records:
        return durable
    hard_state, entries = durable
    head: list[Record] = [SaveHardState(hard_state.term, hard_state.voted_for), SaveEntries(entries)]
    saved = replay([*head, *records])
    return (saved.hard_state, saved.entries)


def _wrong(before: NodeState, after: NodeState) -> str | None:
    """What one step of one node may not do, whatever the others do."""
    same_term = after.term == before.term
    leads_on = before.role == after.role == "leader" and same_term
    changes = sum(entry.kind is EntryKind.CONFIG for entry in after.entries)
    rules = (
        (after.term >= before.term, "Monotonic term: it fell"),
        (
            not same_term or before.voted_for in (None, after.voted_for),
            "Monotonic vote: it changed in its term",
        ),
        (after.commit_index >= before.commit_index, "Monotonic commit: the index fell"),
        (after.commit_index <= len(after.entries), "Monotonic commit: it lies beyond the end of the log"),
        (
            not leads_on or after.entries[: len(before.entries)] == before.entries,
            "Leader Append-Only: a leader changed its own log",
        ),
        (len(after.configs) == changes + 1, "Membership: the one in force is not the latest in the log"),
    )
    return next((rule for holds, rule in rules if not holds), None)


def describe(message: Message) -> str:
    """A message in few words."""
    what = type(message).__name__
    if isinstance(message, AppendEntries):
        what += f" of {len(message.entries)} after {message.prev_index}, commit {message.commit_index},"
    elif isinstance(message, RequestVote):
        what += f" with {message.last_index} entries"
    return f"{what} {message.src}->{message.dst} (term {message.term})"
