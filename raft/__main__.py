r"""`python -m raft`: one server of a cluster.

python -m raft --name n1 --data-dir data/n1 \
        --member n1=127.0.0.1:7001,127.0.0.1:8001 \
        --member n2=127.0.0.1:7002,127.0.0.1:8002 \
        --member n3=127.0.0.1:7003,127.0.0.1:8003

SIGTERM hands leadership over and ends it; SIGHUP reads certificates anew.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import signal
import sys

from raft import logs, open_files
from raft.disk import DirectoryInUse
from raft.http1 import CONNECTIONS_MAX
from raft.server import Broken, Server
from raft.settings import Settings, SettingsError, load
from raft.wal import CorruptLog


def main(argv: list[str] | None = None) -> int:
    """Runs a server until SIGTERM or SIGINT; 254 for bad settings, 255 if it had to give up."""
    try:
        settings = load(sys.argv[1:] if argv is None else argv)
    except SettingsError as error:
        return _end(254, error)
    # The disk's thread wakes up to say that it is done, and must not wait 5 ms, Python's default, for its turn.
    sys.setswitchinterval(0.000_5)
    gc.freeze()  # what is imported stays: the collector need not look at it again
    gc.set_threshold(50_000)  # nothing in the path of a request makes cycles
    logs.set_up(settings.name, settings.log_format, settings.log_level)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(settings))
    except SettingsError as error:
        return _end(254, error)
    except (Broken, CorruptLog, DirectoryInUse, OSError) as error:
        return _end(255, error)
    return _end(0)


def _end(code: int, error: Exception | None = None) -> int:
    """Says why; where even that cannot be written, as to a log on a full disk, the exit code is still what it is."""
    try:
        sys.stderr.write(f"raft: {error}\n" if error else "")
        sys.stderr.flush()
    except OSError:  # what is left in the buffer would fail once more when Python ends, and change the code
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code


async def _serve(settings: Settings) -> None:
    server = Server(settings, connections_max=open_files.for_connections(CONNECTIONS_MAX))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    loop.add_signal_handler(signal.SIGHUP, server.reload)
    await server.run()


def loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    """The uvloop event loop where it is installed: the same, with less time spent."""
    try:
        found: type[asyncio.AbstractEventLoop] = importlib.import_module("uvloop").Loop
    except ImportError:
        return None
    return found


if __name__ == "__main__":
    sys.exit(main())
