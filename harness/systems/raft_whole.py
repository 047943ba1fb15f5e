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

from harness.sim.files import SimFiles
from harness.sim.trouble import eio
from harness.systems.raft_service import RaftService
from harness.systems.raft_sim import SIM_OPTIONS
from harness.systems.raft_watch import InvariantWatch, observing
from raft import settings
from raft.core import Options
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


class WholeServer:
    """One life of a server."""

    def __init__(
        self,
        node: str,
        addresses: Mapping[str, str],
        bug: str | None,
        files: SimFiles,
        watch: InvariantWatch,
    ) -> None:
        argv = RaftService().argv("python", node, addresses, Path("/data"), bug)
        told = settings.load([*argv[argv.index("raft") + 1 :], *FLAGS], {})
        self._server = Server(
            told, disk=files, worker=InlineWorker, observer=observing(watch, lambda: self._server.node.core)
        )
        watch.restarted(node)

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
        """The term in which this server thinks that it leads, or None."""
        node = getattr(self._server, "node", None)
        if node is None or not hasattr(node, "core"):
            return None
        status = node.status()
        return status.term if status.role == "leader" else None
