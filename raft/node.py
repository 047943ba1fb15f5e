"""A Raft server: the protocol core, the state machine and the clients, joined on a host.

Theory of operation
    Every event (a message, a request, a timer, a finished sync) ends in `_turn`, which takes the core's
    `Ready` until there is none and acts on it in the one legal order: send, write, sync, send what was held
    for the sync, apply, answer. There is one sync under way at a time; what is written meanwhile is covered
    by the next one, so a slow disk makes larger groups, not longer queues.

    There is one timer. It is armed for the core's deadline and left alone when the deadline moves further
    away, as it does with every heartbeat a follower gets: when it fires early it is armed again for the rest.

    A write is answered when an entry is applied at the index it was given: with the machine's answer if the
    entry is of the term it was proposed in, and otherwise with NotLeader, for then a committed entry has
    taken its place for ever. A node that stops being the leader answers Unknown to the writes, and NotLeader
    to the reads, that are still open: its log may yet be committed by another leader, or overwritten.

    Leases and sessions end by entries. When the next one is due, the leader proposes an entry that carries the
    cluster's time, and every node ends it when that entry is applied. Watches are answered by any node.

Traces
    `observer(event, **fields)`, if given, is told of:
    started(term, last_index), follower(term, leader), candidate(term), leader(term, last_index),
    pre-candidate(term), truncated(index), committed(first, last), snapshot(index), receiving(index, size_bytes),
    restored(index), configured(voters, outgoing, learners), stopped(reason).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

from raft.api import READS, NotLeader, Query, Refused, Reply, Request, Unknown, Watch
from raft.clock import ClusterClock
from raft.core import (
    Config,
    Core,
    Entry,
    EntryKind,
    InstallSnapshot,
    Leader,
    Message,
    Options,
    Ready,
    Record,
    SaveSnapshot,
    Snapshot,
    TruncateFrom,
)
from raft.host import Host, Timer
from raft.kv import KeyValue, encode_clock, encode_command, needs_clock
from raft.watches import Watches

DEFAULTS = Options()


class Status(NamedTuple):
    """A node as it sees itself."""

    name: str
    role: str
    term: int
    leader: str | None
    voted_for: str | None
    commit_index: int
    applied_index: int
    last_index: int
    revision: int


class _Proposal(NamedTuple):
    term: int
    reply: Reply


class _Read(NamedTuple):
    command: Query
    reply: Reply
    asked_us: int


class Node:
    """One server. Build it, `start` it, and feed it messages and requests; a crashed node is simply dropped.

    `core_class`, `machine_class` and `forced_options` are what a seeded bug sets (see `raft.bugs`).
    """

    core_class: ClassVar[type[Core]] = Core
    machine_class: ClassVar[type[KeyValue]] = KeyValue
    forced_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        name: str,
        peers: Sequence[str],
        host: Host,
        options: Options = DEFAULTS,
        observer: Callable[..., None] | None = None,
        *,
        joining: bool = False,
    ) -> None:
        self.name = name
        self.members = () if joining else tuple(sorted({*peers, name}))
        self.host = host
        self.options = options = replace(options, **self.forced_options) if self.forced_options else options
        self.observer = observer
        self.machine = self.machine_class(
            options.sessions_max,
            options.leases_max,
            options.watch_events_max,
            options.watch_events_bytes_max,
        )
        self.clock = ClusterClock(host.now_us())
        self.watches = Watches(host, self.machine, options.watches_max)
        self.applied_index = 0
        self._log_bytes = 0  # of the entries that were applied since the last snapshot
        self.stopped = False
        self.core: Core

        self._proposals: dict[int, _Proposal] = {}
        self._reads: dict[int, _Read] = {}
        self._read_count = 0
        self._held: deque[tuple[int, Sequence[Message]]] = deque()
        self._written = 0  # batches given to the storage, and how many of them are durable
        self._durable = 0
        self._syncing = False
        self._in_turn = False
        self._timer: Timer | None = None
        self._timer_us = 0
        self._end_timer: Timer | None = None  # for what ends by the cluster's clock
        self._end_timer_us = 0
        self._ends_moved = False  # when the next thing ends, or whose business it is, may have changed
        self._seen: tuple[str, int, str | None] = ("follower", 0, None)
        self._seen_role: object = None
        self._seen_config: Config | None = None

    # -- events ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Loads what the disk holds and begins as a follower."""
        host = self.host
        self.core = self.core_class(
            self.name,
            self.members,
            host.storage.load(),
            random=host.random,
            now_us=host.now_us(),
            options=self.options,
        )
        if self.core.snapshot is not None:
            self._restore(self.core.snapshot)
        self._seen = (self.core.role.name, self.core.term, None)
        self._seen_config = self.core.config
        if self.observer:
            self.observer("started", term=self.core.term, last_index=self.core.log.last_index)
        self._turn()

    def stop(self, reason: str = "asked to") -> None:
        """Ends the node's part: it ignores everything from now on. Nothing is flushed, as in a crash."""
        self.stopped = True
        for timer in (self._timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        if self.observer:
            self.observer("stopped", reason=reason)

    def on_message(self, message: Message) -> None:
        """Takes a message from another node."""
        if not self.stopped:
            if self.observer and isinstance(message, InstallSnapshot):
                self._trace_chunk(message)
            self.core.step(message, self.host.now_us())
            self._turn()

    def on_request(self, request: Request, reply: Reply) -> None:
        """Takes a client's request; `reply` is called once, now or later, unless the node stops before."""
        if self.stopped:
            return
        if isinstance(request.command, READS):
            self._read(request.command, reply)
        elif isinstance(request.command, Watch):
            self.watches.add(request.command, reply)
        elif isinstance(self.core.role, Leader):
            self._propose(request, reply)
        else:
            reply(NotLeader(self.core.leader))

    def transfer(self, target: str | None = None) -> bool:
        """Hands leadership to a voter, by default one that answers and has the most of the log; False if it cannot."""
        role = self.core.role
        if not isinstance(role, Leader):
            return False
        if target is None:
            others = {name: role.progress[name] for name in self.core.voters if name != self.name}
            since_us = self.host.now_us() - self.options.election_timeout_us_max
            order = {name: (one.heard_us >= since_us, one.match_index) for name, one in others.items()}
            target = max(order, key=order.__getitem__, default=self.name)
        done = self.core.transfer(target, self.host.now_us())
        self._turn()
        return done

    def change_config(
        self,
        voters: Sequence[str],
        learners: Sequence[str] = (),
        addresses: Sequence[tuple[str, str]] = (),
    ) -> int | str:
        """Begins a change of membership; the index of its first entry, or why not."""
        outcome = self.core.change_config(voters, learners, addresses, now_us=self.host.now_us())
        self._turn()
        return outcome

    def status(self) -> Status:
        """The node's view of itself."""
        core = self.core
        return Status(
            self.name,
            core.role.name,
            core.term,
            core.leader,
            core.voted_for,
            core.commit_index,
            self.applied_index,
            core.log.last_index,
            self.machine.keys.revision,
        )

    # -- requests ----------------------------------------------------------------------------------

    def _read(self, command: Query, reply: Reply) -> None:
        if len(self._reads) >= self.options.pending_reads_max:
            reply(Refused("too many reads are waiting"))
            return
        now_us = self.host.now_us()
        self._read_count += 1
        if not self.core.read(self._read_count, now_us):
            reply(NotLeader(self.core.leader))
            return
        self._reads[self._read_count] = _Read(command, reply, now_us)
        self._turn()

    def _propose(self, request: Request, reply: Reply) -> None:
        core = self.core
        if core.is_full:
            reply(Refused("too many writes are waiting"))
            return
        clock_us = self._cluster_us() if needs_clock(request) else 0
        index = core.propose(encode_command(request, clock_us), self.host.now_us())
        if index is None:
            reply(Refused("leadership is being handed over"))
            return
        self._proposals[index] = _Proposal(core.term, reply)
        self._turn()

    # -- the turn ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Acts on everything the core has produced, until it has nothing more to say."""
        if self._in_turn:
            return  # a sync that finished at once: the turn that started it goes on
        self._in_turn = True
        core = self.core
        has_moved = self._timer is None or self._ends_moved
        try:
            while True:
                ready = core.ready()
                if ready is not None:
                    self._act(ready)
                    has_moved = True
                elif self._durable == self._written or not self._sync():
                    break
        finally:
            self._in_turn = False
        if has_moved or core.role is not self._seen_role or core.term != self._seen[1]:
            self._finish_turn()

    def _act(self, ready: Ready) -> None:
        if ready.messages:
            self._deliver(ready.messages)
        if ready.records:
            self._write(ready.records)
        if ready.held:
            self._hold(ready.held)
        if ready.snapshot is not None:
            self._restore(ready.snapshot)
        if ready.committed:
            self._apply(ready.committed)
        for context, _ in ready.reads:
            self._answer_read(context)

    def _finish_turn(self) -> None:
        """Notes what has become of the node, and when to look again."""
        core = self.core
        if core.config is not self._seen_config:
            self._note_config(core.config)
        if core.role is not self._seen_role or core.term != self._seen[1] or core.leader != self._seen[2]:
            self._note_role()
        if self._timer is None or core.deadline_us < self._timer_us:
            self._arm_timer()
        if self._ends_moved:
            self._ends_moved = False
            self._arm_end_timer()

    def _deliver(self, messages: Sequence[Message]) -> None:
        send, name = self.host.send, self.name
        for message in messages:
            if message.dst == name:
                self.core.step(message, self.host.now_us())
            else:
                send(message.dst, message)

    def _write(self, records: Sequence[Record]) -> None:
        if self.observer:
            for record in records:
                if isinstance(record, TruncateFrom):
                    self.observer("truncated", index=record.index)
                elif isinstance(record, SaveSnapshot) and record.snapshot.index <= self.applied_index:
                    self.observer("snapshot", index=record.snapshot.index)
        self.host.storage.write(records)
        self._written += 1

    def _hold(self, messages: Sequence[Message]) -> None:
        """Keeps messages until all that was written before them is durable."""
        if self._durable == self._written:
            self._deliver(messages)
        else:
            self._held.append((self._written, messages))

    def _sync(self) -> bool:
        """Starts a sync of what was written; says whether it is finished already and there may be more to do."""
        if self._syncing:
            return False
        self._syncing = True
        self.host.storage.sync(partial(self._on_synced, self._written))
        return not self._syncing

    def _on_synced(self, written: int) -> None:
        """All batches up to `written` are durable: what was held for them may go."""
        if self.stopped:
            return
        self._syncing = False
        self._durable = written
        while self._held and self._held[0][0] <= written:
            self._deliver(self._held.popleft()[1])
        self._turn()

    def _apply(self, entries: Sequence[Entry]) -> None:
        if self.observer:
            self.observer("committed", first=entries[0].index, last=entries[-1].index)
        for entry in entries:
            self._log_bytes += len(entry.data)
            answer = self.machine.apply(entry.data) if entry.kind is EntryKind.COMMAND else None
            self.applied_index = entry.index
            proposal = self._proposals.pop(entry.index, None) if self._proposals else None
            if proposal is None:
                continue
            if proposal.term == entry.term and answer is not None:
                proposal.reply(answer)
            else:
                proposal.reply(NotLeader(self.core.leader))
        self._applied()
        if self._snapshot_is_due():
            self._log_bytes = 0
            self.core.compact(self.applied_index, self.machine.snapshot())

    def _applied(self) -> None:
        """What follows from a state that has moved on."""
        self._ends_moved = True
        if self.machine.clock_us:
            self.clock.applied(self.machine.clock_us, self.host.now_us())
        if self.watches:
            self.watches.notify()

    def _snapshot_is_due(self) -> bool:
        last = self.core.snapshot
        covered, size = (last.index, len(last.data)) if last is not None else (0, 0)
        if self.applied_index - covered >= self.options.snapshot_entries:
            return True
        return self._log_bytes >= max(self.options.snapshot_log_bytes, size)

    def _restore(self, snapshot: Snapshot) -> None:
        """Takes over a snapshot's state; it is never older than what was applied."""
        self.machine.restore(snapshot.data)
        self.applied_index, self._log_bytes = snapshot.index, 0
        self._applied()
        if self.observer:
            self.observer("restored", index=snapshot.index)

    def _answer_read(self, context: int) -> None:
        """Answers a read; the core hands it out only after the entries it must see."""
        read = self._reads.pop(context, None)
        if read is not None:
            clock_us = self.clock.read(self.host.now_us()) if self.machine.clock_us else 0
            read.reply(self.machine.query(read.command, clock_us))

    # -- what ends by time -------------------------------------------------------------------------

    def _cluster_us(self) -> int:
        """The cluster's time, on the leader."""
        now_us = self.host.now_us()
        self.clock.lead(self.core.term, self.machine.clock_us, now_us)
        return self.clock.read(now_us)

    def _may_end_things(self) -> bool:
        """Whether it is this node's business to see what is due."""
        return isinstance(self.core.role, Leader)

    def _arm_end_timer(self) -> None:
        due_us = self.machine.next_end_us
        if due_us is None or not self._may_end_things():
            return
        if self._end_timer is not None:
            if self._end_timer_us <= due_us:
                return
            self._end_timer.cancel()
        self._end_timer_us = due_us
        delay_us = max(0, due_us - self._cluster_us())
        self._end_timer = self.host.call_later(delay_us, self._on_end_timer)

    def _on_end_timer(self) -> None:
        """Something may be due: the timer does not know of what was kept alive in the meantime."""
        self._end_timer = None
        self._ends_moved = True
        due_us = self.machine.next_end_us
        if self.stopped or due_us is None or not self._may_end_things():
            return
        clock_us = self._cluster_us()
        if clock_us >= due_us:
            self._end_what_is_due(clock_us)
            # Long enough for the entry to be applied; if it is not, it is proposed once more.
            self._end_timer_us = 0
            self._end_timer = self.host.call_later(self.options.heartbeat_us, self._on_end_timer)
        self._turn()

    def _end_what_is_due(self, clock_us: int) -> None:
        if not self.core.is_full:
            self.core.propose(encode_clock(clock_us), self.host.now_us())

    # -- role and timer ----------------------------------------------------------------------------

    def _note_role(self) -> None:
        core = self.core
        before, seen = self._seen, (core.role.name, core.term, core.leader)
        self._seen_role = core.role
        self._ends_moved = True
        if seen == before:
            return
        deposed = before[0] == "leader" and before[:2] != seen[:2]
        self._seen = seen
        if deposed or self._reads:
            self._give_up_requests()
        if self.observer:
            self._trace_role()

    def _give_up_requests(self) -> None:
        """Answers what was open when leadership ended: see the theory of operation."""
        leader = self.core.leader
        proposals, self._proposals = self._proposals, {}
        reads, self._reads = self._reads, {}
        for proposal in proposals.values():
            proposal.reply(self._answer_abandoned())
        for read in reads.values():
            read.reply(NotLeader(leader))

    def _answer_abandoned(self) -> Any:
        """What a writer is told when its entry is in the log and this node no longer decides about it."""
        return Unknown("the leader stepped down before it knew whether the entry is committed")

    def _note_config(self, config: Config) -> None:
        if self.observer and config != self._seen_config:
            self.observer(
                "configured", voters=config.voters, outgoing=config.outgoing, learners=config.learners
            )
        self._seen_config = config

    def _trace_chunk(self, chunk: InstallSnapshot) -> None:
        """Tells of the first part of a snapshot that is news."""
        assert self.observer is not None
        if chunk.offset == 0 and chunk.index > self.core.commit_index:
            self.observer("receiving", index=chunk.index, size_bytes=chunk.size)

    def _trace_role(self) -> None:
        core = self.core
        assert self.observer is not None
        if isinstance(core.role, Leader):
            self.observer("leader", term=core.term, last_index=core.log.last_index)
        else:
            self.observer(core.role.name, term=core.term, leader=core.leader)

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_us = deadline_us = self.core.deadline_us
        self._timer = self.host.call_later(max(0, deadline_us - self.host.now_us()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.stopped:
            return
        now_us = self.host.now_us()
        if self._reads and not isinstance(self.core.role, Leader):
            self._expire_reads(now_us)
        self.core.tick(now_us)
        self._turn()

    def _expire_reads(self, now_us: int) -> None:
        """Gives up on reads that a follower has asked its leader about, and got no answer."""
        limit_us = now_us - self.options.election_timeout_us_max
        late = [number for number, read in self._reads.items() if read.asked_us < limit_us]
        for number in late:
            self._reads.pop(number).reply(Refused("the leader did not answer this follower"))
