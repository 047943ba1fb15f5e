"""What one turn of the core asks its driver to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from raft.core.messages import Message
from raft.core.records import Record
from raft.core.types import Entry, Index, Snapshot


class Ready(msgspec.Struct, gc=False):
    """The outcome of a turn.

    The only legal order of acting on it:

    1. send `messages`: they rest on nothing that is not durable yet;
    2. write `records` to the storage, in order, and sync it (one sync may serve many turns);
    3. once all that was written up to and including `records` is durable, send `held`. A message to oneself
       is stepped back into the core: that is how a node's own vote and its own log count, and only then;
    4. apply `committed` to the state machine, in order, and then answer `reads`, each of which has a context
       and the index it needs applied.

    Step 4 need not wait for step 3: what is committed is durable on a majority.
    """

    messages: Sequence[Message]
    records: Sequence[Record]
    held: Sequence[Message]
    committed: Sequence[Entry]
    reads: Sequence[tuple[Any, Index]]
    snapshot: Snapshot | None = None
