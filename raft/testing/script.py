r"""Scenarios as text: a few commands, and what the nodes do because of them.

A script is read and written by people. Lines that begin with `#` say what it shows; lines that begin with `>`
are commands; all other lines are what came of them, and `play` writes them anew. Nothing happens that no
command asks for: there is no clock but `campaign` and `heartbeat`, no network but `deliver` and `drop`, no
disk but `sync`.

    > options pre_vote=no               before `nodes`; any of `raft.core.Options`, and `bug=name`
    > nodes a b c                       fresh nodes; `a=1,1,2` gives terms of the entries a log begins with
    > campaign a                        its election timeout passes
    > heartbeat a                       its heartbeat timeout passes
    > propose a x                       a command for the log
    > read a r1                         a linearizable read
    > sync a                            its disk finishes; held messages leave
    > deliver a->b                      what is under way from a to b arrives; `*` stands for any node
    > drop a->*                         and this is lost
    > settle a b                        sync and deliver among these until nothing happens (default: all)
    > crash a / restart a               what is not synced is lost
    > transfer a b / config a voters=b,c learners=d / compact a 3
    > log / status                      all logs, terms of entries, `|` after the last committed; all nodes

>>> print(play("> nodes a\n> campaign a\n> sync a\n"))
> nodes a
> campaign a
a: pre-candidate of term 0
a: candidate of term 1
> sync a
a: leader of term 1
<BLANKLINE>
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raft.bugs import assemble
from raft.core import (
    AppendEntries,
    AppendReply,
    Core,
    Entry,
    EntryKind,
    HardState,
    InstallSnapshot,
    Message,
    Options,
    Record,
    RequestVote,
    Saved,
    SnapshotReply,
    VoteReply,
    replay,
)
from raft.core.records import SaveEntries, SaveHardState


class ScriptError(ValueError):
    """A command that makes no sense; the message quotes it."""


class _Actor:
    """One node with its disk."""

    def __init__(self, name: str, records: list[Record]) -> None:
        self.name = name
        self.durable = records
        self.unsynced: list[Record] = []
        self.held: list[Message] = []
        self.core: Core | None = None


class Script:
    """The state of a scenario."""

    def __init__(self) -> None:
        self.actors: dict[str, _Actor] = {}
        self.under_way: list[Message] = []
        self.lines: list[str] = []
        self._options: dict[str, Any] = {}
        self._core_class: type[Core] = Core
        self._seen: dict[str, tuple[Any, ...]] = {}

    def run(self, command: str) -> list[str]:
        """Does one command; returns what came of it."""
        self.lines = []
        verb, *arguments = command.split()
        action: Callable[..., None] | None = getattr(self, f"do_{verb}", None)
        if action is None:
            raise ScriptError(f"there is no command {command!r}")
        action(*arguments)
        return self.lines

    # -- commands ----------------------------------------------------------------------------------

    def do_options(self, *settings: str) -> None:
        """Options of all nodes, and bugs."""
        for setting in settings:
            name, _, value = setting.partition("=")
            if name == "bug":
                self._core_class = assemble([value]).core_class
            else:
                self._options[name] = value == "yes" if value in ("yes", "no") else int(value)

    def do_nodes(self, *names: str) -> None:
        """The members, and what their logs begin with."""
        for text in names:
            name, _, terms = text.partition("=")
            numbers = [int(term) for term in terms.split(",") if term]
            entries = tuple(Entry(at, term, EntryKind.COMMAND) for at, term in enumerate(numbers, 1))
            records: list[Record] = (
                [SaveHardState(numbers[-1], None), SaveEntries(entries)] if numbers else []
            )
            self.actors[name] = _Actor(name, records)
        for name in self.actors:
            self._start(name)

    def do_campaign(self, name: str) -> None:
        """The election timeout passes; the own vote still waits for the disk."""
        core = self._core(name)
        core.tick(max(core.deadline_us, core.election_us))
        self._collect(name)

    def do_heartbeat(self, name: str) -> None:
        """The heartbeat timeout passes."""
        core = self._core(name)
        core.tick(core.heartbeat_us)
        self._collect(name)

    def do_propose(self, name: str, data: str) -> None:
        """A command."""
        index = self._core(name).propose(data.encode(), self._core(name).now_us)
        self._say(f"{name}: {'is not the leader' if index is None else f'appended as {index}'}")
        self._collect(name)

    def do_read(self, name: str, context: str) -> None:
        """A linearizable read."""
        if not self._core(name).read(context, self._core(name).now_us):
            self._say(f"{name}: is not the leader")
        self._collect(name)

    def do_transfer(self, name: str, target: str) -> None:
        """Hands leadership over."""
        if not self._core(name).transfer(target, self._core(name).now_us):
            self._say(f"{name}: cannot")
        self._collect(name)

    def do_config(self, name: str, *settings: str) -> None:
        """Changes the membership."""
        wanted = dict(setting.split("=") for setting in settings)
        voters, learners = (
            [n for n in wanted.get(key, "").split(",") if n] for key in ("voters", "learners")
        )
        outcome = self._core(name).change_config(voters, learners, now_us=self._core(name).now_us)
        self._say(f"{name}: {outcome if isinstance(outcome, str) else f'appended as {outcome}'}")
        self._collect(name)

    def do_compact(self, name: str, index: str) -> None:
        """Takes a snapshot."""
        self._core(name).compact(int(index), b"snapshot")
        self._collect(name)

    def do_sync(self, *names: str) -> None:
        """The disk finishes."""
        for name in names or tuple(self.actors):
            actor = self.actors[name]
            actor.durable += actor.unsynced
            actor.unsynced = []
            held, actor.held = actor.held, []
            for message in held:
                self._leave(name, message)
            self._collect(name)

    def do_deliver(self, *links: str) -> None:
        """Messages arrive, in the order in which they were sent."""
        for message in self._take(links or ("*->*",)):
            actor = self.actors.get(message.dst)
            if actor is not None and actor.core is not None:
                self._say(f"{message.src}->{message.dst}: {describe(message)}")
                actor.core.step(message, actor.core.now_us)
                self._collect(message.dst)

    def do_drop(self, *links: str) -> None:
        """Messages are lost."""
        for message in self._take(links):
            self._say(f"{message.src}->{message.dst}: lost: {describe(message)}")

    def do_settle(self, *names: str) -> None:
        """Syncs and delivers among these nodes until nothing is left to do; what goes to others is lost."""
        group = names or tuple(self.actors)
        links = tuple(f"{a}->{b}" for a in group for b in group if a != b)
        for _ in range(100):
            busy = any(self.actors[name].held or self.actors[name].unsynced for name in group)
            if not busy and not any(f"{m.src}->{m.dst}" in links for m in self.under_way):
                break
            self.do_sync(*(name for name in group if self.actors[name].core is not None))
            self.do_deliver(*links)
        self.under_way = [message for message in self.under_way if message.src not in group]

    def do_crash(self, *names: str) -> None:
        """Loses memory, and what was not synced."""
        for name in names:
            actor = self.actors[name]
            actor.core, actor.unsynced, actor.held = None, [], []
            self._seen.pop(name, None)

    def do_restart(self, *names: str) -> None:
        """Starts again from the disk."""
        for name in names:
            self.do_crash(name)
            self._start(name)

    def do_log(self, *names: str) -> None:
        """The terms of all entries."""
        for name in names or tuple(self.actors):
            core = self._core(name)
            shown = [f"..{core.log.offset}"] if core.log.offset else []
            for entry in core.log.entries:
                mark = "" if entry.kind is EntryKind.COMMAND else entry.kind.name[0].lower()
                shown.append(f"{entry.term}{mark}" + (" |" if entry.index == core.commit_index else ""))
            self._say(f"{name}: {' '.join(shown) or 'empty'}")

    def do_status(self, *names: str) -> None:
        """Role, term, vote, and membership."""
        for name in names or tuple(self.actors):
            core = self.actors[name].core
            if core is None:
                self._say(f"{name}: down")
                continue
            config = f"voters {','.join(core.voters)}"
            config += f" outgoing {','.join(core.config.outgoing)}" if core.config.outgoing else ""
            config += f" learners {','.join(core.config.learners)}" if core.config.learners else ""
            self._say(
                f"{name}: {core.role.name} of term {core.term}, voted {core.voted_for}, "
                f"leader {core.leader}, commit {core.commit_index}, {config}"
            )

    # -- below -------------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _core(self, name: str) -> Core:
        core = self.actors[name].core if name in self.actors else None
        if core is None:
            raise ScriptError(f"{name} does not run")
        return core

    def _start(self, name: str) -> None:
        actor = self.actors[name]
        saved = replay(actor.durable) if actor.durable else Saved(HardState())
        options = Options(**self._options)
        members = tuple(self.actors)
        actor.core = self._core_class(name, members, saved, random=lambda: 0.5, now_us=0, options=options)
        self._seen[name] = (actor.core.role.name, actor.core.term)

    def _take(self, links: tuple[str, ...]) -> list[Message]:
        pairs = [link.partition("->")[::2] for link in links]
        taken = [m for m in self.under_way if any(a in ("*", m.src) and b in ("*", m.dst) for a, b in pairs)]
        self.under_way = [message for message in self.under_way if not any(message is m for m in taken)]
        return taken

    def _leave(self, name: str, message: Message) -> None:
        core = self._core(name)
        if message.dst == name:
            core.step(message, core.now_us)
            self._note_role(name)
        else:
            self.under_way.append(message)

    def _collect(self, name: str) -> None:
        """Takes what the core has produced, and says what changed."""
        actor, core = self.actors[name], self._core(name)
        self._note_role(name)
        while (ready := core.ready()) is not None:
            actor.unsynced += ready.records
            if actor.unsynced:
                actor.held += ready.held
            else:
                for message in ready.held:
                    self._leave(name, message)
            for message in ready.messages:
                self._leave(name, message)
            self._note_role(name)
            if ready.committed:
                self._say(f"{name}: committed {ready.committed[0].index}..{ready.committed[-1].index}")
            for context, index in ready.reads:
                self._say(f"{name}: read {context} may be answered at {index}")
            if ready.snapshot is not None:
                self._say(f"{name}: restored the snapshot at {ready.snapshot.index}")

    def _note_role(self, name: str) -> None:
        core = self._core(name)
        seen = (core.role.name, core.term)
        if seen != self._seen[name]:
            self._seen[name] = seen
            self._say(f"{name}: {core.role.name} of term {core.term}")


def describe(message: Message) -> str:  # noqa: PLR0911 - one for each kind
    """A message in few words."""
    match message:
        case RequestVote():
            kind = "PreVote" if message.pre else "RequestVote"
            return f"{kind} term {message.term}, last {message.last_index} of term {message.last_term}"
        case VoteReply():
            kind = "pre-vote" if message.pre else "vote"
            return f"{kind} {'granted' if message.granted else 'refused'} in term {message.term}"
        case AppendEntries():
            terms = ",".join(str(entry.term) for entry in message.entries)
            body = f"entries {terms} after" if terms else "heartbeat at"
            read = f", read {message.read_seq}" if message.read_seq else ""
            at = f"{message.prev_index} of term {message.prev_term}"
            return f"Append term {message.term}, {body} {at}, commit {message.commit_index}{read}"
        case AppendReply():
            read = f", read {message.read_seq}" if message.read_seq else ""
            if message.ok:
                return f"has {message.index} in term {message.term}{read}"
            hint = f"try {message.hint_index} of term {message.hint_term}"
            return f"lacks {message.index} in term {message.term}, {hint}{read}"
        case InstallSnapshot():
            return (
                f"Snapshot term {message.term}, at {message.index}, bytes {message.offset}..of {message.size}"
            )
        case SnapshotReply():
            return f"has {message.received} bytes of the snapshot at {message.index}"
        case _:
            return f"{type(message).__name__} term {message.term}"


def play(text: str) -> str:
    """Runs a script, and returns it with what really came of each command."""
    script = Script()
    out: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            out += [line, *script.run(line[2:])]
        elif line.startswith("#") or not line.strip():
            out.append(line)
    return "\n".join(out) + "\n"
