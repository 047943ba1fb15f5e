"""How clients reach nodes.

`Transport.request` either returns the node's answer, or raises `NotSent` when the request certainly never reached
the process, or `Lost` when nobody can know. It has no retry of its own: the client decides, because
the outcome rule depends on it (`harness.systems.base`).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol


class NotSent(Exception):
    """The request certainly never reached the process (connection refused): it did not and will not happen."""


class Lost(Exception):
    """The connection broke after the request was sent: it may have happened, or may still happen."""


class Transport(Protocol):
    """A way to send requests to nodes, of any kind of cluster."""

    def request(self, node: str, request: Any, timeout_s: float) -> Awaitable[Any]:
        """Send the request to the node and wait for its answer.

        Raises:
            NotSent: it never reached the process.
            Lost: nobody knows.
            TimeoutError: no answer within `timeout_s`; nobody knows either.
        """

    async def close(self) -> None:
        """End what connections there are; late answers are discarded."""
