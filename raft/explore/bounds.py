"""How far a search goes, and how far it has to go for each seeded bug of the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may happen at most, and where it begins."""

    nodes: int = 3
    term_max: int = 2
    writes: int = 2
    crashes: int = 1
    reads: int = 0
    changes: tuple[str, ...] = ()  # memberships that leaders may propose, in this order: "a", "ab", ...
    kept_per_link: int = 1  # messages under way on each link in each direction
    pre_vote: bool = False
    heartbeats: int = 0  # without them leaders send only what they have news to send
    logs: tuple[tuple[int, ...], ...] = ()  # terms of the entries that the nodes' logs begin with
    passes: int = 0  # how often time passes; without, it stands still, and nothing rests on clocks
    slow_ticks: int = 1  # by how many ticks the slowest clock moves on while the others do by two
    states_max: int = 20_000_000
    seconds_max: float = 3_600.0


DEFAULT = Bounds()

_SMALL = Bounds(writes=0, crashes=0)
_READ = Bounds(writes=1, crashes=0, reads=1)
_WRITE = Bounds(writes=1, crashes=0)
LEASE = Bounds(writes=0, crashes=0, reads=1, passes=3)

# Within these each bug of the core breaks something. Where three nodes and two terms do not show it, or show it only
# after many steps, there are more nodes, or the logs begin as some earlier leaders left them.
BUG_BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {
        "stale-read": _READ,
        "read-before-own-commit": _READ,
        "read-round-reused": replace(_READ, reads=2),
        "read-quorum-short": _READ,
        "vote-not-persisted": replace(_SMALL, crashes=1),
        "term-not-persisted": replace(_SMALL, crashes=1),
        "duplicate-vote-counted": replace(_SMALL, nodes=4, term_max=1),
        "stale-vote-reply-counted": _SMALL,
        "vote-twice": _SMALL,
        "vote-cleared-same-term": _SMALL,
        "uptodate-wrong-order": replace(_SMALL, term_max=3, logs=((1, 1, 1), (1,), (1,))),
        "uptodate-skipped": _WRITE,
        "commit-prior-term": replace(_SMALL, term_max=4, logs=((1,), (), (2,))),  # Figure 8 (b)
        "ack-before-majority": _WRITE,
        "quorum-one-short": _WRITE,
        "quorum-even-off-by-one": replace(_SMALL, nodes=4, term_max=1),
        "truncate-without-conflict": replace(_WRITE, writes=2, term_max=1, kept_per_link=2),
        "follower-commits-unchecked": replace(
            _SMALL, term_max=3, heartbeats=1, logs=((1, 1), (1, 2), (1, 2))
        ),
        "stale-suffix-retained": _WRITE,
        "ack-before-fsync": replace(_SMALL, crashes=1),
        "prevote-counted-as-vote": replace(_SMALL, pre_vote=True, term_max=1),
        "config-not-rolled-back": replace(_SMALL, changes=("a",)),
        "lease-too-long": LEASE,
        "joint-one-majority": replace(_SMALL, changes=("a",)),
    }
)
