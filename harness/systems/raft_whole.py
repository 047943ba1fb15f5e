"""The program of ``python -m raft`` in a simulated world: its command line, server, framing, HTTP and log, unchanged.

Only the directory is another: `raft.wal` works on the files of the simulated machine, and where the server would start
a thread for that it takes the loop's executor, which the simulator runs inline and lets take as long as the disk.
What the log cannot read back ends the process, as it does in reality; here that is told as a failure of the disk,
which it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.sim.trouble import eio
from harness.systems.base import Machine
from harness.systems.raft_service import RaftService
from harness.systems.raft_sim import SIM_OPTIONS, OperatedNode
from harness.systems.raft_watch import InvariantWatch
from raft import settings
from raft.core import Options
from raft.node import Node
from raft.server import Server
from raft.wal import CorruptLog

# The same sizes as in the fast depth: every run takes snapshots.
FLAGS = [
    f"--{name.replace('_', '-')}={value}"
    for name in ("snapshot_entries", "snapshot_trailing", "snapshot_chunk_bytes")
    if (value := getattr(SIM_OPTIONS, name)) != getattr(Options(), name)
]


class InlineWorker:
    """Does the disk's work in the simulated executor."""

    def submit(self, job: Callable[[], None], then: Callable[[BaseException | None], None]) -> None:
        """Do the job now; call back when the disk is done with it."""
        future = asyncio.get_running_loop().run_in_executor(None, job)
        future.add_done_callback(lambda done: then(done.exception()))

    def close(self) -> None:
        """Whoever runs inline is never under way."""


class WholeServer(OperatedNode):
    """One life of a server."""

    def __init__(
        self, machine: Machine, addresses: Mapping[str, str], bug: str | None, watch: InvariantWatch
    ) -> None:
        argv = RaftService().argv("python", machine.name, addresses, Path("/data"), bug)
        flags = [*FLAGS, "--join"] if machine.joins else FLAGS
        told = settings.load([*argv[argv.index("raft") + 1 :], *flags], {})
        self._server = Server(told, disk=machine.files, worker=InlineWorker, observer=self._observe)
        self._machine = machine
        self._watch = watch
        watch.restarted(machine.name)

    @property
    def node(self) -> Node:  # type: ignore[override]
        """The node, which there is once the server runs."""
        return self._server.node

    async def run(self) -> None:
        """Serve until killed.

        Raises:
            DiskError: the disk failed, or lost what was durable.
        """
        try:
            await self._server.run()
        except CorruptLog as error:
            raise eio(f"keep the log: {error}") from error

    def leader_term(self) -> int | None:
        """The term in which this server thinks that it leads, or None; a server that starts has no node yet."""
        node = getattr(self._server, "node", None)
        return super().leader_term() if node is not None and hasattr(node, "core") else None

    def _observe(self, event: str, **fields: Any) -> None:
        self._machine.observe(event, **fields)
        if event == "stopped":
            return
        self._watch.check(self.node.core)
        if event == "configured" and fields.get("outgoing"):
            self._machine.reached("membership")
