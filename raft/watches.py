"""Clients that wait for changes of keys.

Theory of operation
    A `Watch` names the last revision that its client has seen, so that nothing rests on who waits where: a
    client whose node died asks another one, and misses nothing and sees nothing twice. Here are only those
    for whom nothing has happened yet. They are looked at after each group of applied entries, and answered
    with nothing when their time is over.
"""

from __future__ import annotations

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
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, watch: Watch, reply: Reply) -> None:
        """Answers a watch, now or when there is something to tell."""
        after = self._machine.keys.revision if watch.after is None else watch.after
        answer = self._machine.events(watch, after)
        if _is_news(answer) or watch.wait_ms <= 0:
            reply(answer)
            return
        if len(self._waiting) >= self._waiting_max:
            reply(Refused("too many watches are waiting"))
            return
        self._count += 1
        number = self._count
        waiting = self._waiting[number] = _Waiting(watch, after, reply)
        waiting.timer = self._host.call_later(watch.wait_ms * 1000, self._on_timer, number)

    def notify(self) -> None:
        """Tells those for whom something has happened."""
        for number, waiting in list(self._waiting.items()):
            answer = self._machine.events(waiting.watch, waiting.after)
            if _is_news(answer):
                self._answer(number, answer)
            elif isinstance(
                answer, Done
            ):  # it has seen all up to here: this need not be looked at again, and may be forgotten
                waiting.after = answer.value["revision"]

    def forget(self, reply: Reply) -> None:
        """Whoever would have been told so is gone."""
        for number, waiting in self._waiting.items():
            if waiting.reply == reply:
                del self._waiting[number]
                if waiting.timer is not None:
                    waiting.timer.cancel()
                return

    def _on_timer(self, number: int) -> None:
        waiting = self._waiting.get(number)
        if waiting is not None:
            self._answer(number, self._machine.events(waiting.watch, waiting.after))

    def _answer(self, number: int, answer: Done | Compacted) -> None:
        waiting = self._waiting.pop(number)
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.reply(answer)


def _is_news(answer: Done | Compacted) -> bool:
    return isinstance(answer, Compacted) or bool(answer.value["events"])
