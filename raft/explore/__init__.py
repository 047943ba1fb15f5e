"""Model checking of the core: every order of events of a small cluster. `raft.explore.search` says how.

>>> from raft.explore import Bounds, explore
>>> report = explore(Bounds(nodes=2, term_max=1, writes=1, crashes=0))
>>> report.complete, report.violation
(True, None)
"""

from raft.explore.bounds import BUG_BOUNDS, DEFAULT, Bounds
from raft.explore.search import Report, explore

__all__ = ["BUG_BOUNDS", "DEFAULT", "Bounds", "Report", "explore"]
