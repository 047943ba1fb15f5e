"""One module a command, each with NAME, HELP, `add_arguments(parser)` and `main(args) -> exit code`."""

from __future__ import annotations

from harness.commands import bugs, check, doctor, images, replay, run, shrink, sim, sweep, workloads

COMMANDS = (run, sweep, check, replay, shrink, sim, bugs, workloads, doctor, images)
