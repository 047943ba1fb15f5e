"""The process of a node in its container: kept by a small shell script, which starts it again when told to.

Rules of this module
    1. The container outlives the node: killing a process takes microseconds, stopping a container a second, and with
       it would go the network namespace and all rules in it.
    2. The script is the node's parent, so it knows how the node ended. It never starts the node by itself. It tells the
       end without a process of its own: signals go to whatever child it has, as long as no end is told.
    3. Where the containers' processes are those of this machine and we are root, signals and files go straight there;
       elsewhere by `docker exec`.

Theory of operation
    In `CONTROL`, a directory of the image: `pid` of the node as the container numbers it, `exit` with its exit code
    once it has ended, `start`, a pipe on which the script waits for a line, and `options`, if there are any: what is
    added to the node's command line from its next start on.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from harness.clusters.docker_box import Box
from harness.errors import SetupError

CONTROL = PurePosixPath("/run/splitbrain-control")
WAIT_S = 10.0
POLL_S = 0.002

_KEEPER = f"""
cd {CONTROL} && rm -f start exit && mkfifo start || exit 1
while :; do
  "$@" $(cat options 2>/dev/null) &
  echo $! >pid.new; mv pid.new pid
  wait $!; echo $? >exit
  read -r _ <start
done
"""


def keeper(argv: Sequence[str]) -> list[str]:
    """The command line of the container of a node."""
    return ["sh", "-c", _KEEPER, "node", *argv]


def kill(box: Box, node: str) -> None:
    """SIGKILL to the node, and wait for its end."""
    send(box, node, signal.SIGKILL)

    def has_ended() -> bool:
        if ended(box, node) is not None:
            return True
        if box.is_here:
            send(box, node, signal.SIGKILL)  # the script may have been about to start it when we looked
        return False

    _until(has_ended, f"{node} did not end")


def send(box: Box, node: str, number: signal.Signals) -> None:
    """A signal to the node."""
    if box.is_here:
        for keeper_pid in _children(box.pid(node)):
            for pid in _children(keeper_pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
    else:
        box.run(node, f"kill -{int(number)} $(cat {CONTROL}/pid)")


def stat(box: Box, node: str) -> str:
    """`/proc/PID/stat` of the node; empty where it is gone."""
    if not box.is_here:
        return box.run(node, f"cat /proc/$(cat {CONTROL}/pid)/stat 2>/dev/null || true")
    for keeper_pid in _children(box.pid(node)):
        for pid in _children(keeper_pid):
            try:
                return Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
            except OSError:
                return ""
    return ""


def ended(box: Box, node: str) -> str | None:
    """How the node ended; None while it runs."""
    if not box.is_running(node):
        return f"its container, {box.how_it_ended(node)}"
    if box.is_here:
        try:
            code = (_control(box, node) / "exit").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
    else:
        code = box.run(node, f"cat {CONTROL}/exit 2>/dev/null || true")
    if not code:
        return None
    number = int(code) - 128
    return f"signal {signal.Signals(number).name}" if 0 < number < signal.NSIG else f"exit code {code}"


def add_options(box: Box, node: str, options: Sequence[str]) -> None:
    """Start the node with these as well, from its next start on."""
    box.run(node, f"echo {shlex.join(options)} >{CONTROL}/options")


def start(box: Box, node: str) -> None:
    """Start the node again, which has ended."""
    if not box.is_here:
        box.run(node, f"rm -f {CONTROL}/exit; echo >{CONTROL}/start")
        return
    control = _control(box, node)
    (control / "exit").unlink(missing_ok=True)
    _until(lambda: _told(control / "start"), f"{node} did not start")


def _told(pipe: Path) -> bool:
    try:
        end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # the script is not listening yet
        return False
    with os.fdopen(end, "wb") as file:
        file.write(b"\n")
    return True


def _control(box: Box, node: str) -> Path:
    return Path(f"/proc/{box.pid(node)}/root{CONTROL}")


def _children(pid: int) -> list[int]:
    """Empty where the process is gone."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except OSError:
        return []


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SetupError(otherwise)
        time.sleep(POLL_S)
