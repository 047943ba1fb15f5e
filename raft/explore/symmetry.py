"""Renamings of the nodes, as tables from number to number that fill on demand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import msgspec

from raft.core import AppendEntries, Config, Entry, EntryKind, HardState, Message
from raft.explore.model import NOTHING, Automaton, NodeState, Table
from raft.explore.properties import Committed


class Renaming:
    """One way to call the nodes otherwise. `order[new]` is the position of the node that moves to `new`."""

    def __init__(
        self, automaton: Automaton, worlds: Table, order: tuple[int, ...], kept_per_link: int
    ) -> None:
        self._automaton = automaton
        self._values = worlds
        self._order = order
        self._names = {automaton.names[old]: automaton.names[new] for new, old in enumerate(order)}
        links = list(permutations(range(len(order)), 2))
        places = [links.index((order[src], order[dst])) for src, dst in links]
        self._slots = [place * kept_per_link + at for place in places for at in range(kept_per_link)]
        self._nodes: dict[int, int] = {}
        self._messages: dict[int, int] = {NOTHING: NOTHING}
        self._worlds: dict[int, int] = {}

    def nodes(self, nodes: tuple[int, ...]) -> list[int]:
        """The nodes, in the order of their new names."""
        table = self._nodes
        try:
            return [table[nodes[old]] for old in self._order]
        except KeyError:
            known = self._automaton.nodes
            for node in nodes:
                if node not in table:
                    table[node] = known.number(_rename_node(known.values[node], self._names))
            return self.nodes(nodes)

    def messages(self, under_way: tuple[int, ...]) -> list[int]:
        """The messages, in the order of the new links."""
        table = self._messages
        try:
            return [table[under_way[slot]] for slot in self._slots]
        except KeyError:
            automaton = self._automaton
            for message in under_way:
                if message not in table:
                    renamed = _rename_message(automaton.messages.values[message], self._names)
                    table[message] = automaton.number(renamed)
            return self.messages(under_way)

    def world(self, world: int) -> int:
        """What has happened, under the new names."""
        found = self._worlds.get(world)
        if found is None:
            value = self._values.values[world]
            entries = rename_entries(tuple(one.entry for one in value.committed), self._names)
            terms = [one.term for one in value.committed]
            committed = tuple(map(Committed, entries, terms))
            led = tuple(sorted((term, self._names[name]) for term, name in value.led))
            found = self._worlds[world] = self._values.number(value._replace(committed=committed, led=led))
        return found


def _rename_node(state: NodeState, names: dict[str, str]) -> NodeState:
    """The same state of the node that is called otherwise."""
    hard_state, entries = state.durable
    return state._replace(
        voted_for=names.get(state.voted_for or ""),
        entries=rename_entries(state.entries, names),
        granted=tuple(sorted(names[name] for name in state.granted)),
        progress=tuple(sorted((names[name], *rest) for name, *rest in state.progress)),
        configs=tuple((index, _rename_config(config, names)) for index, config in state.configs),
        durable=(
            HardState(hard_state.term, names.get(hard_state.voted_for or "")),
            rename_entries(entries, names),
        ),
    )


def _rename_message(message: Message, names: dict[str, str]) -> Message:
    """The same message between nodes that are called otherwise."""
    changes: dict[str, Any] = {"src": names[message.src], "dst": names[message.dst]}
    if isinstance(message, AppendEntries):
        changes["entries"] = rename_entries(message.entries, names)
    return msgspec.structs.replace(message, **changes)


def rename_entries(entries: tuple[Entry, ...], names: dict[str, str]) -> tuple[Entry, ...]:
    """The same entries: memberships name nodes."""
    if not any(entry.kind is EntryKind.CONFIG for entry in entries):
        return entries
    return tuple(
        msgspec.structs.replace(entry, data=_rename_data(entry.data, names))
        if entry.kind is EntryKind.CONFIG
        else entry
        for entry in entries
    )


def _rename_data(data: bytes, names: dict[str, str]) -> bytes:
    return msgspec.json.encode(_rename_config(msgspec.json.decode(data, type=Config), names))


def _rename_config(config: Config, names: dict[str, str]) -> Config:
    parts = (config.voters, config.outgoing, config.learners)
    voters, outgoing, learners = (tuple(sorted(names[name] for name in part)) for part in parts)
    return Config(voters, outgoing, learners)
