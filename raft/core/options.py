"""Every number a node can be given: the paper's timings, and the bound on everything that could grow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Timings in microseconds and limits; the defaults are those of section 9.3."""

    election_timeout_us_min: int = 150_000
    election_timeout_us_max: int = 300_000
    heartbeat_us: int = 50_000
    entries_per_append_max: int = 64
    inflight_entries_max: int = 256
    uncommitted_entries_max: int = 1024
    pending_reads_max: int = 1024
    committed_per_turn_max: int = 256
    sessions_max: int = 10_000

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
        for limit in (
            "entries_per_append_max",
            "inflight_entries_max",
            "uncommitted_entries_max",
            "pending_reads_max",
            "committed_per_turn_max",
            "sessions_max",
        ):
            if getattr(self, limit) < 1:
                raise ValueError(f"{limit} {getattr(self, limit)} must be at least 1")
