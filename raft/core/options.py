"""Every number a node can be given: the paper's timings, and the bound on everything that could grow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Timings in microseconds and limits; the defaults are those of section 9.3."""

    election_timeout_us_min: int = 150_000
    election_timeout_us_max: int = 300_000
    heartbeat_us: int = 50_000
    pre_vote: bool = True  # thesis 9.6
    check_quorum: bool = True  # thesis 6.2, and leader stickiness: thesis 4.2.3
    lease_reads: bool = False  # thesis 6.4.1: rests on clocks, hence off
    lease_drift_max: float = 0.1  # how much faster one clock may run than another
    priority: int = 0  # of two logs that are equally good, that of the higher priority gets the votes
    promotes_learners: bool = False  # a learner becomes a voter once it has caught up (thesis 4.2.1)
    follower_reads: bool = False  # thesis 6.4, last paragraph
    snapshot_entries: int = 10_000  # applied entries between two snapshots
    snapshot_log_bytes: int = 64 << 20  # or so many bytes of them, and as many as the last snapshot has
    snapshot_trailing_bytes: int = 16 << 20  # and of those that are kept behind it, so many at most
    snapshot_trailing: int = (
        1_000  # entries kept in memory behind a snapshot, for followers that lag a little
    )
    snapshot_chunk_bytes: int = 65_536
    entries_per_append_max: int = 64
    bytes_per_append_max: int = 1 << 20
    inflight_appends_max: int = 64
    inflight_bytes_max: int = 4 << 20
    uncommitted_entries_max: int = 1024
    uncommitted_bytes_max: int = 64 << 20
    pending_reads_max: int = 1024
    committed_per_turn_max: int = 256
    sessions_max: int = 10_000
    leases_max: int = 10_000
    watches_max: int = 1_024  # requests that wait for a change
    watch_events_max: int = 10_000  # changes that are kept for those who watch
    watch_events_bytes_max: int = 64 << 20

    def __post_init__(self) -> None:
        """Refuses timings under which no leader could last."""
        if not 0 < self.election_timeout_us_min <= self.election_timeout_us_max:
            raise ValueError(
                f"election timeout {self.election_timeout_us_min}..{self.election_timeout_us_max} us: "
                "give a positive minimum not above the maximum"
            )
        if not 0 < self.heartbeat_us < self.election_timeout_us_min:
            raise ValueError(
                f"heartbeat_us {self.heartbeat_us} must be positive and below election_timeout_us_min "
                f"{self.election_timeout_us_min}, or followers campaign against a healthy leader"
            )
        if self.lease_reads and not self.check_quorum:
            raise ValueError("lease_reads needs check_quorum: without it voters do not respect the lease")
        if not 0 <= self.lease_drift_max < 1:
            raise ValueError(f"lease_drift_max {self.lease_drift_max} must be in [0, 1)")
        for limit in _LIMITS:
            if getattr(self, limit) < 1:
                raise ValueError(f"{limit} {getattr(self, limit)} must be at least 1")
        if self.snapshot_trailing < 0:
            raise ValueError(f"snapshot_trailing {self.snapshot_trailing} must not be negative")


_LIMITS = (
    "snapshot_entries",
    "snapshot_chunk_bytes",
    "entries_per_append_max",
    "bytes_per_append_max",
    "inflight_appends_max",
    "inflight_bytes_max",
    "uncommitted_entries_max",
    "uncommitted_bytes_max",
    "pending_reads_max",
    "committed_per_turn_max",
    "sessions_max",
    "leases_max",
    "watches_max",
    "watch_events_max",
    "watch_events_bytes_max",
    "snapshot_log_bytes",
    "snapshot_trailing_bytes",
)
