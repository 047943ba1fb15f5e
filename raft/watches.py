"""Clients that wait for changes of keys.

Theory of operation
    A `Watch` names the last revision that its client has seen, so that nothing rests on who waits where: a
    client whose node died asks another one, and misses nothing and sees nothing twice. Here are only those
    for whom nothing has happened yet. After each group of applied entries those are looked at whose keys have
    changed. Who is not has seen all up to there: it costs nothing, and what is forgotten meanwhile was not its own.
    Whoever's time is over is answered with nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from raft.api import Compacted, Done, Refused, Reply, Watch
from raft.host import Host, Timer
from raft.kv import KeyValue


class _Waiting:
    __slots__ = ("after", "reply", "timer", "watch")

    def __init__(self, watch: Watch, after: int, reply: Reply) -> None:
        self.watch = watch
        self.after = after
        self.reply = reply
        self.timer: Timer | None = None


class Watches:
    """Those who wait on one node."""

    def __init__(self, host: Host, machine: KeyValue, waiting_max: int) -> None:
        self._host = host
        self._machine = machine
        self._waiting_max = waiting_max
        self._waiting: dict[int, _Waiting] = {}
        self._of_key: dict[str, dict[int, None]] = {}  # who waits for one key
        self._of_ranges: dict[int, None] = {}
        self._seen = 0  # the revision up to which all who wait have seen what there was for them
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, watch: Watch, reply: Reply) -> None:
        """Answers a watch, now or when there is something to tell."""
        revision = self._machine.keys.revision
        after = revision if watch.after is None else watch.after
        answer = self._machine.events(watch, after)
        if _is_news(answer) or watch.wait_ms <= 0:
            reply(answer)
            return
        if len(self._waiting) >= self._waiting_max:
            reply(Refused("too many watches are waiting"))
            return
        self._seen = revision  # those who wait already were told of it, if there are any
        self._count += 1
        number = self._count
        waiting = self._waiting[number] = _Waiting(watch, after, reply)
        self._fellows(watch)[number] = None
        waiting.timer = self._host.call_later(watch.wait_ms * 1000, self._on_timer, number)

    def notify(self) -> None:
        """Tells those for whom something has happened."""
        concerned, seen = self._concerned(), self._seen
        self._seen = self._machine.keys.revision  # now, for who is told may ask for what follows at once
        for number in concerned:
            waiting = self._waiting.get(number)  # whose client may just have gone
            if waiting is None:
                continue
            answer = self._news(waiting, seen)
            if _is_news(answer):
                self._answer(number, answer)

    def forget(self, reply: Reply) -> None:
        """Whoever would have been told so is gone."""
        number = next((number for number, one in self._waiting.items() if one.reply == reply), None)
        if number is not None:
            self._take(number)

    def _concerned(self) -> list[int]:
        """Who waits for a key that has changed, in the order in which they came; all where nobody knows."""
        changed = self._machine.keys.changed_since(self._seen)
        if changed is None:
            return list(self._waiting)
        found = [number for key in changed for number in self._of_key.get(key, ())]
        found += [number for number in self._of_ranges if _has_any(self._waiting[number].watch, changed)]
        return sorted(found)

    def _news(self, waiting: _Waiting, seen: int) -> Done | Compacted:
        return self._machine.events(waiting.watch, max(waiting.after, seen))

    def _on_timer(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None:
            self._answer(number, self._news(waiting, self._seen))

    def _answer(self, number: int, answer: Done | Compacted) -> None:
        self._take(number).reply(answer)

    def _take(self, number: int) -> _Waiting:
        waiting = self._waiting.pop(number)
        fellows = self._fellows(waiting.watch)
        del fellows[number]
        if not fellows and waiting.watch.end is None:
            del self._of_key[waiting.watch.key]
        if waiting.timer is not None:
            waiting.timer.cancel()
        return waiting

    def _fellows(self, watch: Watch) -> dict[int, None]:
        return self._of_key.setdefault(watch.key, {}) if watch.end is None else self._of_ranges


def _has_any(watch: Watch, keys: Collection[str]) -> bool:
    """Whether one of the keys is in the range of a watch."""
    end = watch.end
    return any(watch.key <= key and (not end or key < end) for key in keys)


def _is_news(answer: Done | Compacted) -> bool:
    return isinstance(answer, Compacted) or bool(answer.value["events"])
