"""What all clusters of real processes share: the real clock, requests over HTTP, and looking at the nodes.

Rules of this module
    1. A cluster is ready when every node answers and one of them leads; there is a limit to the wait.
    2. Whatever ends a run, `_end` is called last, outside the event loop: it must leave nothing behind.
    3. A node that died although nobody killed it is named, with its last words; one whose disk was made to fail
       is expected to stop, and is only counted.

Theory of operation
    Once a second each node is asked for its status, and what it said goes to `nodes/status.jsonl` of the run: who
    led when, as the nodes saw it. The seed fixes the plan and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.clusters.http import Connection, HttpTransport, fetch
from harness.errors import Interrupted, SetupError
from harness.plan import Plan
from harness.systems.base import Service
from nemesis.target import Ruleset

T = TypeVar("T")

READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.05
STATUS_TIMEOUT_S = 0.25  # a paused node costs this much where a fault looks for the leader
SAMPLE_INTERVAL_S = 1.0
LAST_WORDS_BYTES = 4096
LAST_WORDS_LINES = 3


class RealCluster(ABC):
    """See the module; one instance serves one run."""

    kind: str

    def __init__(self, plan: Plan, service: Service, directory: Path) -> None:
        self._nodes = tuple(plan.nodes)
        self._plan = plan
        self._service = service
        self._directory = directory
        self._opened_ns = time.monotonic_ns()
        self._closed_ns: int | None = None
        self._transports: set[HttpTransport] = set()
        self._sampler: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[Any] | None = None
        self._is_interrupted = False
        self._deaths: list[str] = []

    @property
    def nodes(self) -> Sequence[str]:
        """Names of all nodes."""
        return self._nodes

    # -- the loop -----------------------------------------------------------------------------------------------

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run to the end on the real clock."""
        try:
            with asyncio.Runner() as runner:
                return runner.run(self._guard(main))
        except asyncio.CancelledError:
            raise Interrupted("interrupted") from None
        finally:
            self._end()

    async def _guard(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        if self._is_interrupted:
            raise asyncio.CancelledError
        try:
            return await main()
        finally:
            self._main = None

    def interrupt(self) -> None:
        """Cancel what is going on; it heals and closes on its way out."""
        self._is_interrupted = True
        if self._loop is not None and self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)

    def now_ns(self) -> int:
        """Real nanoseconds since the cluster was opened; the clock stands still once it is closed."""
        return (self._closed_ns or time.monotonic_ns()) - self._opened_ns

    # -- opening and closing ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start all nodes and wait until one of them leads."""
        (self._directory / "nodes").mkdir(exist_ok=True)
        await self._begin()
        await self._wait_until_ready()
        self._sampler = asyncio.create_task(self._sample())
        self._opened_ns = time.monotonic_ns()

    async def close(self) -> None:
        """End connections and nodes."""
        self._closed_ns = time.monotonic_ns()
        if self._sampler is not None:
            self._sampler.cancel()
        for transport in self._transports:
            transport.drop()
        self._transports.clear()
        await self._finish()
        await asyncio.sleep(0)  # lets dropped connections go

    async def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        statuses: dict[str, Any] = {}
        while time.monotonic() < deadline_s:
            statuses = await self._statuses()
            everybody = all(status is not None for status in statuses.values())
            # A seeded bug may be that nobody can be elected.
            if everybody and (self._leader_of(statuses) or self._plan.config.bug):
                return
            if dead := self._dead():
                raise SetupError(
                    f"{self.kind} cluster: {dead[0]}; see its log in {self._directory / 'nodes'}"
                )
            await asyncio.sleep(READY_POLL_S)
        silent = [node for node, status in statuses.items() if status is None]
        what = f"no answer from {', '.join(silent)}" if silent else "no node became the leader"
        raise SetupError(
            f"{self.kind} cluster: {what} within {READY_TIMEOUT_S:g} s; see the logs in {self._directory / 'nodes'}"
        )

    # -- looking at nodes ---------------------------------------------------------------------------------------

    def transport(self) -> HttpTransport:
        """Connections for one client process."""
        transport = HttpTransport(self._dial, self._service, self._transports.discard)
        self._transports.add(transport)
        return transport

    async def leader(self) -> str | None:
        """The node that leads in the highest term, of those that think they lead and say so in time."""
        return self._leader_of(await self._statuses())

    def _leader_of(self, statuses: dict[str, Any]) -> str | None:
        best: tuple[int, str] | None = None
        for node, status in statuses.items():
            term = self._service.leader_term(status) if status is not None else None
            if term is not None and (best is None or term > best[0]):
                best = (term, node)
        return best[1] if best is not None else None

    async def _statuses(self) -> dict[str, Any]:
        answers = await asyncio.gather(*(self._status(node) for node in self._nodes))
        return dict(zip(self._nodes, answers, strict=True))

    async def _status(self, node: str) -> Any:
        answer = await fetch(self._dial, node, self._service.status_path, STATUS_TIMEOUT_S)
        if answer is None or answer.status != 200:
            return None
        try:
            return msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            return None

    async def _sample(self) -> None:
        with (self._directory / "nodes" / "status.jsonl").open("w", encoding="utf-8") as file:
            while True:
                at_s = round(self.now_ns() / 1e9, 3)
                for node, status in (await self._statuses()).items():
                    file.write(json.dumps({"at_s": at_s, "node": node, "status": status}) + "\n")
                file.flush()
                await asyncio.sleep(SAMPLE_INTERVAL_S)

    def deaths(self) -> list[str]:
        """Nodes that died although nobody killed them."""
        return self._deaths

    def log_file(self, node: str) -> Path:
        """Where a node's output goes."""
        return self._directory / "nodes" / f"{node}.log"

    def last_words(self, node: str) -> str:
        """The end of a node's log, in one line."""
        try:
            with self.log_file(node).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LAST_WORDS_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return " / ".join(line.strip() for line in lines[-LAST_WORDS_LINES:]) or "nothing"

    # -- what each kind of cluster does in its own way ----------------------------------------------------------

    @abstractmethod
    async def _begin(self) -> None:
        """Start all nodes."""

    @abstractmethod
    async def _finish(self) -> None:
        """Stop all nodes, after looking at what is worth keeping."""

    @abstractmethod
    def _end(self) -> None:
        """Remove whatever is left, also of a cluster that was opened only in part. Called once, and last."""

    @abstractmethod
    async def _dial(self, node: str) -> Connection:
        """A connection to the clients' side of a node; OSError where there is none."""

    @abstractmethod
    def _dead(self) -> list[str]:
        """Nodes that are not running now although nobody killed them, as sentences."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What is worth storing with the results."""

    # -- the nemesis' side ----------------------------------------------------------------------------------------

    @abstractmethod
    async def set_network(self, rules: Ruleset) -> None:
        """Replace all rules."""

    @abstractmethod
    async def kill(self, node: str) -> None:
        """SIGKILL."""

    @abstractmethod
    async def start(self, node: str) -> None:
        """Start the node again on its data."""

    @abstractmethod
    async def pause(self, node: str) -> None:
        """Stop the node without telling anyone."""

    @abstractmethod
    async def resume(self, node: str) -> None:
        """Let it run on."""
