"""What a leader knows of one follower (Figure 2: `nextIndex[]`, `matchIndex[]`), and how fast it may send.

Three ways of sending
    probe       The leader does not know where the logs agree. It sends one message and waits for the answer,
                or for the next heartbeat, which probes again.
    replicate   The logs agree up to `match_index`. The leader sends on without waiting, counting on success
                (`next_index` runs ahead of `match_index`), until the window of messages or bytes is full.
    snapshot    The follower needs entries that are compacted. It gets the snapshot, one chunk at a time, and
                then probes again.

A rejection leads from replicate back to probe, a success from probe to replicate. A lost message needs no
timer of its own: the next heartbeat names the entry before `next_index`, which the follower lacks, and it
rejects.
"""

from __future__ import annotations

from collections import deque

from raft.core.types import Index, Snapshot


class Progress:
    """One follower as its leader sees it. `match_index` never falls within a term."""

    __slots__ = (
        "_inflight",
        "_inflight_bytes",
        "heard_us",
        "match_index",
        "next_index",
        "probe_sent",
        "probing",
        "read_seq",
        "snapshot",
        "snapshot_offset",
    )

    def __init__(self, next_index: Index, now_us: int = 0) -> None:
        self.match_index: Index = 0
        self.next_index: Index = next_index
        self.probing = True
        self.probe_sent = False
        self.read_seq = 0
        self.heard_us = now_us
        self.snapshot: Snapshot | None = None
        self.snapshot_offset = 0
        self._inflight: deque[tuple[Index, int]] = deque()  # last index and size of each message
        self._inflight_bytes = 0

    @property
    def state(self) -> str:
        """Which of the three ways of sending is in use."""
        if self.snapshot is not None:
            return "snapshot"
        return "probe" if self.probing else "replicate"

    @property
    def inflight(self) -> int:
        """How many messages with entries are not answered yet."""
        return len(self._inflight)

    @property
    def inflight_bytes(self) -> int:
        """How large those are."""
        return self._inflight_bytes

    def may_send(self, appends_max: int, bytes_max: int) -> bool:
        """Whether entries may be sent now, without waiting for an answer."""
        if self.probing:
            return not self.probe_sent
        return len(self._inflight) < appends_max and self._inflight_bytes < bytes_max

    def sent(self, last_index: Index, size: int) -> None:
        """Entries up to `last_index` are on their way."""
        if self.probing:
            self.probe_sent = True
        elif last_index >= self.next_index:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size))
            self._inflight_bytes += size

    def accepted(self, index: Index) -> bool:
        """The follower has everything up to `index`; says whether that is news."""
        inflight = self._inflight
        while inflight and inflight[0][0] <= index:
            self._inflight_bytes -= inflight.popleft()[1]
        if self.snapshot is not None and index >= self.snapshot.index:
            self.snapshot = None
        self.probe_sent = False
        if self.next_index <= index:
            self.next_index = index + 1
        self.probing = False
        if index <= self.match_index:
            return False
        self.match_index = index
        return True

    def rejected(self, prev_index: Index, try_index: Index) -> bool:
        """The follower does not have `prev_index`; says whether that is news, and goes back to `try_index`.

        A follower never loses what it acknowledged, so a rejection of something not above `match_index`, or
        of another message than the probe that is out, is an old one come late.
        """
        if prev_index <= self.match_index:
            return False
        if self.probing and prev_index != self.next_index - 1:
            return False
        self.next_index = max(self.match_index, min(prev_index - 1, try_index)) + 1
        self.probe_again()
        return True

    def probe_again(self) -> None:
        """Forgets what is on its way, and asks anew."""
        self.probing = True
        self.probe_sent = False
        self.snapshot = None
        self._inflight.clear()
        self._inflight_bytes = 0
