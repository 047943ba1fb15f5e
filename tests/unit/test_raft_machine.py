"""The protocol core in the hands of Hypothesis: what it must keep is Figure 3 of the paper, after each step.

Hypothesis chooses who is heard, who waits, who dies and who writes. A rule is one thing that can happen to a cluster.
Nothing moves by itself: messages wait until a rule delivers, doubles or loses one, syncs until a rule finishes one.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from raft.bugs import BUGS
from raft.core import Core, Leader, Options, replay
from raft.invariants import Invariants, InvariantViolated

NAMES = ("a", "b", "c")
OPTIONS = Options()
MESSAGES_MAX = 60
which = st.integers(0, MESSAGES_MAX - 1)
nodes = st.sampled_from(NAMES)


class Machine:
    """A core with its disk: records that are durable, and records and messages that wait for a sync."""

    def __init__(self, core_class, name, saved, now_us):
        self.core = core_class(
            name, NAMES, saved, random=lambda: NAMES.index(name) / len(NAMES), now_us=now_us, options=OPTIONS
        )
        self.waiting = []


class RaftMachine(RuleBasedStateMachine):
    core_class = Core

    @initialize()
    def start(self):
        self.now_us = 0
        self.disks = {name: [] for name in NAMES}
        self.machines = {name: Machine(self.core_class, name, None, 0) for name in NAMES}
        self.network = []
        self.figure_3 = Invariants()
        self.written = 0

    # -- what can happen ------------------------------------------------------------------------------------------

    @rule(name=nodes)
    def time_passes_until_a_deadline(self, name):
        core = self.machines[name].core
        self.now_us = max(self.now_us, core.deadline_us)
        core.tick(self.now_us)
        self.turn(name)

    @precondition(lambda self: self.network)
    @rule(at=which)
    def a_message_arrives(self, at):
        self.deliver(self.network.pop(at % len(self.network)))

    @precondition(lambda self: self.network)
    @rule(at=which)
    def a_message_arrives_and_a_copy_stays(self, at):
        self.deliver(self.network[at % len(self.network)])

    @precondition(lambda self: self.network)
    @rule(at=which)
    def a_message_is_lost(self, at):
        del self.network[at % len(self.network)]

    @rule(name=nodes)
    def all_that_waits_for_a_node_arrives(self, name):
        mine = [message for message in self.network if message.dst == name]
        self.network = [message for message in self.network if message.dst != name]
        for message in mine:
            self.deliver(message)

    @rule(name=nodes)
    def a_sync_finishes(self, name):
        machine = self.machines[name]
        waiting, machine.waiting = machine.waiting, []
        for records, held in waiting:
            self.disks[name].extend(records)
            for message in held:
                self.send(name, message)
        self.turn(name)

    @rule(name=nodes)
    def a_client_writes(self, name):
        core = self.machines[name].core
        if isinstance(core.role, Leader):
            self.written += 1
            core.propose(str(self.written).encode(), self.now_us)
            self.turn(name)

    @rule(name=nodes)
    def a_node_dies_with_what_it_had_not_synced_and_starts_again(self, name):
        self.figure_3.restarted(name)
        self.machines[name] = Machine(self.core_class, name, replay(self.disks[name]), self.now_us)
        self.turn(name)

    @rule()
    def the_network_is_flushed(self):
        self.network.clear()

    # -- how it happens -------------------------------------------------------------------------------------------

    def deliver(self, message):
        self.machines[message.dst].core.step(message, self.now_us)
        self.turn(message.dst)

    def send(self, name, message):
        if message.dst == name:
            self.machines[name].core.step(message, self.now_us)
        elif len(self.network) < MESSAGES_MAX:
            self.network.append(message)

    def turn(self, name):
        machine = self.machines[name]
        while (ready := machine.core.ready()) is not None:
            for message in ready.messages:
                self.send(name, message)
            if ready.records or ready.held:
                machine.waiting.append((list(ready.records), list(ready.held)))
        self.figure_3.check(machine.core)


def machine_of(bug):
    return type("Buggy", (RaftMachine,), {"core_class": bug.core})


def explored(examples, steps, **more):
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def test_the_core_keeps_its_invariants_whatever_happens():
    run_state_machine_as_test(RaftMachine, settings=explored(40, 50))


@pytest.mark.slow
def test_a_seeded_bug_breaks_them_and_the_steps_shrink():
    """Few bugs are within reach of steps drawn at random; the others are the explorer's and the scenarios'."""
    dice = settings(explored(1_500, 40, database=None), derandomize=True)
    with pytest.raises(InvariantViolated) as caught:
        run_state_machine_as_test(machine_of(BUGS["vote-twice"]), settings=dice)
    steps = [line for line in "\n".join(caught.value.__notes__).splitlines() if line.startswith("state.")]
    assert 2 <= len(steps) <= 30
