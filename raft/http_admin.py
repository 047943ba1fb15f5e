"""What operators see and do: status, members, leadership, metrics, the committed log."""

from __future__ import annotations

import itertools
import resource
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import msgspec

from raft.core import EntryKind, Leader
from raft.core.progress import Progress
from raft.http1 import Answer, Call
from raft.http_calls import as_json, error, number
from raft.settings import parse_member

if TYPE_CHECKING:
    from raft.http import HttpFront

_LOG_ENTRIES_MAX = 1_000
_decode = msgspec.json.Decoder().decode
LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class _TransferBody(msgspec.Struct, forbid_unknown_fields=True):
    to: str | None = None


class _MembersBody(msgspec.Struct, forbid_unknown_fields=True):
    """Either the whole membership, or one change of it."""

    voters: list[str] | None = None
    learners: list[str] = []
    add: str | None = None
    address: str | None = None  # of who is added: "host:port,host:port", for peers and for clients
    promote: str | None = None
    remove: str | None = None


class Latencies:
    """How long requests took, as a histogram."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


class Admin:
    """Answers operators on behalf of one server."""

    def __init__(self, front: HttpFront) -> None:
        self._front = front
        self._server = front.server

    # -- looking -----------------------------------------------------------------------------------

    def on_health(self, _call: Call) -> Answer:
        """Healthy means: there is a leader, so requests can be served, here or there."""
        leader = self._server.node.core.leader
        return as_json(200 if leader else 503, {"healthy": leader is not None})

    def on_leader(self, _call: Call) -> Answer:
        """What a load balancer probes: 200 on the leader, and nowhere else."""
        core = self._server.node.core
        leads = isinstance(core.role, Leader) and core.role.transfer_to is None
        return as_json(200 if leads else 503, {"leader": core.leader, "url": self._front.url_of(core.leader)})

    def on_status(self, _call: Call) -> Answer:
        """The node as it sees itself, and on the leader, each other member as the leader sees it."""
        node = self._server.node
        core = node.core
        status: dict[str, Any] = {
            **node.status()._asdict(),
            "config": {
                "voters": core.voters,
                "outgoing": core.config.outgoing,
                "learners": core.config.learners,
                "is_changing": core.is_changing_config,
            },
            "snapshot_index": core.snapshot.index if core.snapshot else 0,
            "first_index": core.log.offset + 1,
            "clock_us": node.machine.clock_us,
        }
        if isinstance(core.role, Leader):
            status["peers"] = {name: self._peer(name, core.role.progress[name]) for name in core.peers}
            status["transfer_to"] = core.role.transfer_to
        return as_json(200, status)

    def _peer(self, name: str, progress: Progress) -> dict[str, Any]:
        connection = self._server.peers.get(name)
        return {
            "state": progress.state,
            "match_index": progress.match_index,
            "next_index": progress.next_index,
            "behind": self._server.node.core.log.last_index - progress.match_index,
            "inflight": progress.inflight,
            "inflight_bytes": progress.inflight_bytes,
            "snapshot_offset": progress.snapshot_offset if progress.snapshot is not None else None,
            "heard_ms_ago": (self._server.now_us() - progress.heard_us) // 1000,
            "connected": connection is not None and connection.connected,
        }

    def on_log(self, call: Call) -> Answer:
        """Committed entries after an index, as far as they are not compacted, as a tester wants to see them."""
        core = self._server.node.core
        after = max(number(call, "after", 0), core.log.offset)
        last = min(core.commit_index, after + min(number(call, "limit", _LOG_ENTRIES_MAX), _LOG_ENTRIES_MAX))
        entries = [
            {
                "index": entry.index,
                "term": entry.term,
                "kind": entry.kind.name.lower(),
                "request": _decode(entry.data) if entry.kind is EntryKind.COMMAND else None,
            }
            for entry in (core.log.slice(after + 1, last) if last > after else ())
        ]
        return as_json(200, {"after": after, "commit_index": core.commit_index, "entries": entries})

    # -- members -----------------------------------------------------------------------------------

    def on_members(self, _call: Call) -> Answer:
        """Who belongs to the cluster."""
        core = self._server.node.core
        found = []
        for name in core.config.members:
            member = self._server.member(name)
            found.append(
                {
                    "name": name,
                    "role": "voter"
                    if name in core.voters
                    else "learner"
                    if name in core.config.learners
                    else "leaving",
                    "peers": f"{member.peers.host}:{member.peers.port}" if member else None,
                    "clients": f"{member.clients.host}:{member.clients.port}" if member else None,
                    "leads": name == core.leader,
                }
            )
        return as_json(200, {"members": found, "joint": bool(core.config.outgoing)})

    def on_change_members(self, call: Call) -> Answer:
        """Begins a change of membership."""
        wanted = msgspec.json.decode(call.body, type=_MembersBody)
        node = self._server.node
        if not isinstance(node.core.role, Leader):
            return self._front.redirect(node.core.leader, call)
        goal = self._goal(wanted)
        if isinstance(goal, str):
            return error(400, goal)
        outcome = node.change_config(*goal)
        return error(409, outcome) if isinstance(outcome, str) else as_json(202, {"index": outcome})

    def _goal(self, wanted: _MembersBody) -> tuple[list[str], list[str], list[tuple[str, str]]] | str:
        """The membership that is asked for, or what is wrong with the question."""
        changes = [one for one in (wanted.add, wanted.promote, wanted.remove) if one is not None]
        if len(changes) + (wanted.voters is not None) != 1:
            return "say one of voters (with learners), add, promote or remove"
        config = self._server.node.core.config
        voters, learners = list(config.voters), list(config.learners)
        if wanted.voters is not None:
            voters, learners = wanted.voters, wanted.learners
        elif wanted.remove is not None:
            if wanted.remove not in (*voters, *learners):
                return f"{wanted.remove!r} is no member"
            voters = [name for name in voters if name != wanted.remove]
            learners = [name for name in learners if name != wanted.remove]
        else:
            refusal = self._admit(wanted, voters, learners)
            if refusal is not None:
                return refusal
        addresses = []
        if wanted.add is not None and wanted.address is not None:
            found = parse_member(f"{wanted.add}={wanted.address}")
            if not (found.peers.port and found.clients.port):
                return f"address {wanted.address!r} has the port 0, where nobody can be reached"
            addresses.append((wanted.add, wanted.address))
        told = {name for name, _ in addresses}
        strangers = sorted(name for name in {*voters, *learners} - told if self._server.member(name) is None)
        if strangers:
            return (
                f"nobody has told this server where {', '.join(strangers)} is: say it as address "
                '"host:port,host:port" (peers, then clients), or give it as a --member'
            )
        return voters, learners, addresses

    def _admit(self, wanted: _MembersBody, voters: list[str], learners: list[str]) -> str | None:
        """A new member learns first, and votes once it has caught up and is promoted."""
        if wanted.add is not None:
            if wanted.add in (*voters, *learners):
                return f"{wanted.add!r} is a member already"
            learners.append(wanted.add)
        elif wanted.promote is not None:
            if wanted.promote not in learners:
                return f"{wanted.promote!r} is no learner"
            learners.remove(wanted.promote)
            voters.append(wanted.promote)
        return None

    def on_transfer(self, call: Call) -> Answer:
        """Hands leadership over."""
        target = msgspec.json.decode(call.body or b"{}", type=_TransferBody).to
        node = self._server.node
        if not isinstance(node.core.role, Leader):
            return self._front.redirect(node.core.leader, call)
        if not node.transfer(target):
            goal = (
                "anybody: there is no other voter" if target is None else f"{target!r}: it is no other voter"
            )
            return error(409, f"leadership cannot go to {goal}")
        return as_json(202, {"to": target})

    # -- metrics -----------------------------------------------------------------------------------

    def on_metrics(self, _call: Call) -> Answer:
        """Everything countable, in Prometheus' text format."""
        lines = [*self._gauges(), *self._counters(), *self._per_peer(), *self._latencies()]
        text = "".join(f"{line}\n" for line in lines)
        return Answer(200, text.encode(), (("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),))

    def _gauges(self) -> list[str]:
        node = self._server.node
        core, machine = node.core, node.machine
        values = {
            "raft_term": (core.term, "Current term."),
            "raft_is_leader": (int(isinstance(core.role, Leader)), "1 where this server leads."),
            "raft_has_leader": (int(core.leader is not None), "1 where this server knows a leader."),
            "raft_commit_index": (core.commit_index, "Last entry known to be committed."),
            "raft_applied_index": (node.applied_index, "Last entry applied to the store."),
            "raft_last_index": (core.log.last_index, "Last entry of the log."),
            "raft_log_entries": (len(core.log.entries), "Entries of the log in memory."),
            "raft_snapshot_index": (
                core.snapshot.index if core.snapshot else 0,
                "Entry the snapshot ends with.",
            ),
            "raft_snapshot_bytes": (len(core.snapshot.data) if core.snapshot else 0, "Size of the snapshot."),
            "raft_voters": (len(core.voters), "Members that vote."),
            "raft_store_revision": (machine.keys.revision, "Changes of the store since its beginning."),
            "raft_store_keys": (len(machine.keys.records), "Keys in the store."),
            "raft_leases": (len(machine.leases.leases), "Leases that are alive."),
            "raft_watches": (len(node.watches), "Clients that wait for a change."),
            "raft_peer_connections": (
                len(self._server.guests),
                "Connections that other servers have dialled.",
            ),
            "raft_connections": (len(self._front.http1.connections), "Connections of clients."),
            "process_max_resident_memory_bytes": (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "Largest resident memory so far.",
            ),
        }
        return [
            line for name, (value, text) in values.items() for line in _metric(name, "gauge", text, value)
        ]

    def _counters(self) -> list[str]:
        server = self._server
        values = {
            "raft_syncs_total": (server.storage.syncs, "Syncs of the log."),
            "raft_sync_seconds_total": (server.storage.sync_seconds, "Time they took."),
            "raft_messages_received_total": (server.received, "Messages of other servers."),
            "raft_leader_changes_total": (server.leader_changes, "How often another leader was seen."),
            "raft_elections_total": (server.elections, "Elections that this server has called."),
        }
        lines = [
            line for name, (value, text) in values.items() for line in _metric(name, "counter", text, value)
        ]
        lines += _head("raft_answers_total", "counter", "Answers to clients, by kind.")
        answered = sorted(self._front.answered.items())
        return lines + [f'raft_answers_total{{kind="{kind}"}} {count}' for kind, count in answered]

    def _per_peer(self) -> list[str]:
        core = self._server.node.core
        lines = []
        for what, text in (("sent", "Messages sent."), ("dropped", "Messages dropped unsent.")):
            lines += _head(f"raft_messages_{what}_total", "counter", text)
            for name, peer in self._server.peers.items():
                lines.append(f'raft_messages_{what}_total{{peer="{_label(name)}"}} {getattr(peer, what)}')
        if isinstance(core.role, Leader):
            lines += _head("raft_peer_match_index", "gauge", "Last entry known to be on the peer's disk.")
            for name in core.peers:
                match_index = core.role.progress[name].match_index
                lines.append(f'raft_peer_match_index{{peer="{_label(name)}"}} {match_index}')
        return lines

    def _latencies(self) -> list[str]:
        latencies = self._front.latencies
        name = "raft_request_seconds"
        lines = _head(name, "histogram", "Time from a client's request to its answer.")
        bounds = [f"{bound:g}" for bound in LATENCY_BOUNDS_S]
        for bound, count in zip([*bounds, "+Inf"], itertools.accumulate(latencies.counts), strict=True):
            lines.append(f'{name}_bucket{{le="{bound}"}} {count}')
        return [*lines, f"{name}_sum {latencies.sum_s:.6f}", f"{name}_count {sum(latencies.counts)}"]


def _label(text: str) -> str:
    """A value as it stands between quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _metric(name: str, kind: str, text: str, value: float) -> list[str]:
    return [*_head(name, kind, text), f"{name} {value}"]
