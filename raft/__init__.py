"""Raft: the reference system, a replicated key-value store."""
