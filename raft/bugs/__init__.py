"""Known bugs of real Raft systems, as values that a test run can switch on.

Theory of operation
    The core, the node and the state machine keep every decision in a small method of its own. A bug is a
    subclass that overrides one of them (and, where real systems with the bug lacked the rule that would hide
    it, that rule too). `assemble(names)` makes a node class with any set of them. The code under test has no
    `if bug`.

    A core with a bug in it does not stop at what the protocol rules out (`_impossible`): the systems that had
    these bugs did not notice either, and it is the checkers that are to notice.

`breaks` uses: LW lost write, SR stale read, SB two leaders of one term, DV diverging replicas, DU a write
applied twice or one that was reported failed, LV liveness, LE a lease that ends early, WG a watch that misses changes,
TX a transaction that is not atomic.
`needs` uses: P partition, C crash, R restart of all, D delay, reordering, duplicates or loss, Z pause, E an
even number of nodes, M changes of membership.
"""

from raft.bugs.catalogue import BUGS, Bug, assemble

__all__ = ["BUGS", "Bug", "assemble"]
