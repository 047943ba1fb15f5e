"""The simulator: a cluster on virtual time in one process, fixed by one seed.

    loop      the clock and the event queue: an asyncio loop on which nothing ever waits
    network   links between hosts: delay, loss, duplication, reordering, partitions
    disk      a log on a disk: what was not synced when the process died may be gone
    host      one machine: its process, clock, links and disk; killed, started, paused, resumed

Nothing here knows Raft, and nothing reads a real clock or an unnamed random source.
"""
