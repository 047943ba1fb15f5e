"""Changes of membership: bring the cluster's own view of who belongs to it to what is wanted, and wait for it.

Rules of this module
    1. Desired state: who should belong. The driver asks for one step at a time, and for the next only when the view
       has settled: no change is under way, and the leader says so.
    2. A node that joins is a learner first, so that it catches up without holding up commits, then a voter.
    3. A node that is to be made anew forgets its disk only after it is out, as the cluster itself sees it.
    4. A leader that cannot be reached, or refuses, is asked again: a partition is no reason to give up. What has
       not settled `SETTLE_S_MAX` after everything else was healed is an error.

Theory of operation
    One task at a time, started by the first wish that differs from what is known, ends when the view is as wanted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from nemesis.target import Members, MembershipTarget

POLL_S = 0.1
SETTLE_S_MAX = 30.0


class MembershipDriver:
    """Brings one target to the wanted members.

    Attributes:
        steps: what was asked for and what came of it, in order, for the record.
    """

    def __init__(
        self,
        target: MembershipTarget,
        nodes: Sequence[str],
        make_anew: Callable[[str], Awaitable[None]],
    ) -> None:
        self.steps: list[str] = []
        self._target = target
        self._nodes = tuple(nodes)
        self._make_anew = make_anew
        self._wanted = self._nodes
        self._to_wipe: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._problem = ""

    def want(self, removed: Collection[str], wiped: Collection[str]) -> None:
        """All nodes but these should belong; those that are wiped are to come back as new ones."""
        wanted = tuple(node for node in self._nodes if node not in removed)
        newly_out = [node for node in self._wanted if node not in wanted]
        self._to_wipe |= {node for node in newly_out if node in wiped}
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._drive())

    async def settle(self) -> str:
        """Wait until everything is as wanted; says what is wrong if it is not in time."""
        if self._task is None:
            return ""
        await asyncio.wait([self._task], timeout=SETTLE_S_MAX)
        # Whoever awaited a task that was given up would be cancelled as well.
        task, self._task = self._task, None
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            return (
                f"the members did not become {' '.join(self._wanted)} in {SETTLE_S_MAX:g} s: {self._problem}"
            )
        error = None if task.cancelled() else task.exception()
        return _words(error) if error is not None else ""

    async def _drive(self) -> None:
        while True:
            view = await self._view()
            if view is not None and await self._step(view):
                return
            await asyncio.sleep(POLL_S)

    async def _view(self) -> Members | None:
        try:
            view = await self._target.members()
        except Exception as error:  # noqa: BLE001 - asked again, until time is up
            self._problem = _words(error)
            return None
        if view is None:
            self._problem = "nobody leads"
        elif not view.is_settled:
            self._problem = "a change of membership does not end"
            view = None
        return view

    async def _step(self, view: Members) -> bool:
        """Does the next thing, if any; whether all is as wanted."""
        wanted = self._wanted
        for node in self._nodes:
            if node in self._to_wipe and node not in (*view.voters, *view.learners):
                self._to_wipe.discard(node)
                await self._make_anew(node)
                self.steps.append(f"{node} made anew")
                return False
        joining = [node for node in wanted if node not in view.voters]
        if joining and any(node not in view.learners for node in joining):
            await self._change(view.voters, joining)
        elif set(view.voters) != set(wanted) or view.learners:
            await self._change(wanted, ())
        else:
            # A wish that is gone again before it was done leaves nothing to wipe.
            self._to_wipe.clear()
            return True
        return False

    async def _change(self, voters: Sequence[str], learners: Sequence[str]) -> None:
        asked = f"voters {' '.join(sorted(voters))}" + (
            f", learners {' '.join(learners)}" if learners else ""
        )
        try:
            await self._target.change_members(voters, learners)
        except Exception as error:  # noqa: BLE001 - asked again, until time is up
            self._problem = _words(error)
            return
        self.steps.append(asked)


def _words(error: Any) -> str:
    return str(error) or type(error).__name__
