"""A cluster in a small world of its own, for tests, scenarios and experiments."""

from raft.api import Get, Put
from raft.testing.storm import Disturber, Owner, Storm, storm
from raft.testing.world import Disk, World

__all__ = ["Disk", "Disturber", "Get", "Owner", "Put", "Storm", "World", "storm"]
