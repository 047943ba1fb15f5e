"""Ctrl-C and SIGTERM, for what is to end cleanly and keep what it has."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

# Kept: in a simulated world the function of the module takes the handlers of the programs in it.
_set_handler = signal.signal


@contextlib.contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM calls `interrupt`; a second Ctrl-C ends the program."""

    def on_signal(_number: int, _frame: Any) -> None:
        _set_handler(signal.SIGINT, signal.default_int_handler)
        interrupt()

    try:
        previous = {number: _set_handler(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: a library user handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            _set_handler(number, handler)


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that nothing is left behind; what is more is for the command to do."""
    try:
        previous = _set_handler(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not the main thread: whoever called handles signals
        yield
        return
    try:
        yield
    finally:
        _set_handler(signal.SIGTERM, previous)
