"""Writing rulesets to nodes, without nodes: who is written when, and what becomes of errors."""

import asyncio
import json

import pytest

from nemesis.backend import Backend
from nemesis.network import CommandReach, Network, NetworkError
from nemesis.target import HEALTHY, LinkRule, Ruleset

ADDRESSES = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}
NETEM = Backend("tc", "tc", "netem", {})
QUEUE = Backend("tc", "tc", "nfqueue", {})
IPTABLES = Backend("iptables", None, "nfqueue", {})
CUT = LinkRule(blocked=True)
SLOW = LinkRule(delay_ms=5)


class Talk:
    def __init__(self, reach, node):
        self.reach, self.node = reach, node

    async def ask(self, line):
        self.reach.log.append((self.node, "ask", json.loads(line)["peers"]))
        return self.reach.answers.get(self.node, "ok")

    async def close(self):
        self.reach.log.append((self.node, "close", None))


class Reached:
    """Notes what each node is asked for; answers where its device is."""

    def __init__(self):
        self.log = []
        self.failing = set()
        self.answers = {}
        self.devices = dict.fromkeys(ADDRESSES, "eth0")

    async def run(self, node, argv, stdin=""):
        await asyncio.sleep(0)
        if node in self.failing:
            raise NetworkError(f"{node} is not there")
        if argv[0] == "ip":
            assert argv[:-1] == ["ip", "-o", "addr", "show", "to"]
            return f"2: {self.devices[node]}    inet {argv[-1]}/24 scope global {self.devices[node]}"
        if argv[0] == "sh":
            self.log.append((node, "sh", stdin))
        return "[]" if argv[0] == "tc" else ""

    async def talk(self, node, argv):
        assert argv[1:] == ["-m", "nemesis.nfqueue", node]
        self.log.append((node, "talk", argv[0]))
        return Talk(self, node)

    def take(self):
        """What was asked since the last time: node to kinds of requests, in order."""
        log, self.log = self.log, []
        taken = {}
        for node, what, _ in log:
            taken.setdefault(node, []).append(what)
        return taken


@pytest.fixture
def reach():
    return Reached()


def run(network, *steps):
    async def main():
        for step in steps:
            await step(network)

    asyncio.run(main())


def rules(**links):
    return Ruleset({(name[:2], name[3:]): rule for name, rule in links.items()})


def test_only_nodes_concerned_are_written_and_only_when_something_changed(reach):
    network = Network(reach, ADDRESSES, NETEM)

    async def script(network):
        await network.apply(rules(n1_n2=CUT))
        assert reach.take() == {"n1": ["sh"]}
        await network.apply(rules(n1_n2=CUT))
        assert reach.take() == {}
        await network.apply(rules(n2_n1=CUT))
        assert reach.take() == {"n1": ["sh"], "n2": ["sh"]}
        await network.apply(HEALTHY)
        assert reach.take() == {"n2": ["sh"]}

    run(network, script)


def test_netem_goes_to_the_sender(reach):
    run(Network(reach, ADDRESSES, NETEM), lambda network: network.apply(rules(n1_n2=SLOW)))
    ((node, _, script),) = reach.log
    assert node == "n1"
    assert "qdisc replace dev eth0 parent 5b:10 netem limit 100000 delay 5ms 0ms" in script


def test_the_queue_goes_to_the_receiver_and_tc_knows_nothing_of_it(reach):
    network = Network(reach, ADDRESSES, QUEUE, python="py")

    async def script(network):
        await network.apply(rules(n1_n2=LinkRule(delay_ms=5, rate_kbit=64)))
        assert reach.log[0] == ("n2", "talk", "py") or reach.log[1] == ("n2", "talk", "py")
        asked = [what for node, kind, what in reach.log if kind == "ask"]
        assert [list(peers) for peers in asked] == [["10.0.0.1"]]
        (text,) = [what for node, kind, what in reach.log if kind == "sh"]
        assert "netem" not in text
        assert "htb rate 64000bit" in text
        reach.take()
        await network.apply(HEALTHY)
        assert reach.take() == {"n1": ["sh"], "n2": ["ask"]}
        await network.heal()
        assert "close" in reach.take()["n2"]

    run(network, script)


def test_a_change_asks_for_no_more_than_it_needs(reach):
    """On hosts by ssh each of these costs a round trip and some processes, and a burst of faults has little time."""
    network = Network(reach, ADDRESSES, QUEUE)

    async def script(network):
        await network.open()
        reach.take()
        await network.apply(rules(n1_n2=CUT))
        assert reach.take() == {"n1": ["sh"]}, "the queues had nothing to do, and have nothing"
        await network.apply(rules(n1_n2=CUT, n1_n3=SLOW))
        assert reach.take() == {"n3": ["ask"]}, "tc does the same as before"
        await network.apply(rules(n1_n3=SLOW))
        assert [text.startswith("tc -batch") for _, what, text in reach.log if what == "sh"] == [True]
        assert reach.take() == {"n1": ["sh"]}
        await network.apply(HEALTHY)
        assert reach.take() == {"n3": ["ask"]}

    run(network, script)


def test_a_probe_that_is_given_up_holds_nobody_up(reach):
    """Its prober answers in its own time, and is waited for when all is over."""
    ended = asyncio.Event()

    class Probing(Talk):
        async def ask(self, line):
            await asyncio.sleep(60)

        async def close(self):
            await ended.wait()
            reach.log.append((self.node, "close", None))

    async def talk(node, argv):
        return Probing(reach, node)

    reach.talk = talk

    async def script(network):
        probe = asyncio.create_task(network.probe("n1", "n2", 7000, 1, 400))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        probe.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(probe, return_exceptions=True)
        assert reach.take() == {}
        healing = asyncio.create_task(network.heal())
        await asyncio.sleep(0.01)
        assert not healing.done()
        ended.set()
        await healing
        assert reach.take()["n1"][0] == "close"

    run(Network(reach, ADDRESSES, NETEM), script)


def test_without_tc_links_are_blocked_by_the_receiver(reach):
    network = Network(reach, ADDRESSES, IPTABLES)
    run(network, lambda network: network.apply(rules(n1_n2=CUT)))
    assert reach.take() == {"n2": ["talk", "ask"]}


def test_opening_starts_the_queues_ahead(reach):
    run(Network(reach, ADDRESSES, QUEUE), lambda network: network.open())
    assert reach.take() == {key: ["talk", "ask"] for key in ADDRESSES}
    run(Network(reach, ADDRESSES, NETEM), lambda network: network.open())
    assert reach.take() == {}


def test_healing_asks_every_node_also_one_that_was_never_touched(reach):
    run(Network(reach, ADDRESSES, NETEM), lambda network: network.heal())
    assert reach.take() == {key: ["sh"] for key in ADDRESSES}


def test_healing_removes_what_the_backend_may_have_set_up(reach):
    for backend, has_tree, has_chain in ((NETEM, True, False), (QUEUE, True, True), (IPTABLES, False, True)):
        run(Network(reach, ADDRESSES, backend), lambda network: network.heal())
        scripts = [what for _, kind, what in reach.log if kind == "sh"]
        assert len(scripts) == 3
        assert all(("tc qdisc del" in script) == has_tree for script in scripts)
        assert all(("SPLITBRAIN" in script) == has_chain for script in scripts)
        reach.take()


def test_a_node_that_is_gone_is_left_out_and_written_when_it_is_back(reach):
    async def script(network):
        await network.apply(rules(n1_n2=CUT))
        await network.leave("n1")
        reach.take()
        reach.failing = {"n1"}
        await network.apply(rules(n1_n2=CUT, n2_n1=CUT))
        assert reach.take() == {"n2": ["sh"]}
        reach.failing = set()
        reach.devices["n1"] = "eth1"
        await network.refresh("n1")
        ((node, _, text),) = reach.log
        assert node == "n1"
        assert "dev eth1" in text

    run(Network(reach, ADDRESSES, NETEM), script)


def test_a_node_started_anew_is_written_although_nothing_changed(reach):
    async def script(network):
        await network.apply(rules(n1_n2=CUT, n3_n1=SLOW))
        assert reach.take() == {"n1": ["talk", "ask", "sh"]}
        await network.refresh("n1")
        taken = reach.take()
        assert taken["n1"].count("sh") == 1
        assert taken["n1"].count("close") == 1
        assert taken["n1"].count("talk") == 1
        assert set(taken) == {"n1"}

    run(Network(reach, ADDRESSES, QUEUE), script)


def test_after_healing_nothing_is_sick_and_nothing_comes_back(reach):
    async def script(network):
        await network.apply(rules(n1_n2=CUT))
        await network.heal()
        assert await network.evidence() == {}
        reach.take()
        await network.refresh("n1")
        assert reach.take() == {}
        await network.apply(rules(n1_n2=CUT))
        assert reach.take() == {"n1": ["sh"]}

    run(Network(reach, ADDRESSES, NETEM), script)


def test_evidence_is_what_both_ends_counted(reach):
    class Counting(Reached):
        async def run(self, node, argv, stdin=""):
            if argv[0] == "tc":
                assert node == "n1"
                return '[{"kind": "blackhole", "parent": "5b:10", "drops": 7}, {"kind": "htb"}]'
            if stdin.startswith("iptables"):
                assert node == "n3"
                return "9 99 NFQUEUE 0 -- !lo * 10.0.0.2 0.0.0.0/0\n5 9 DROP 0 -- * * 192.0.2.1 0.0.0.0/0"
            return await super().run(node, argv, stdin)

    async def script(network):
        await network.apply(rules(n1_n2=CUT, n2_n3=SLOW))
        assert await network.evidence() == {("n1", "n2"): 7, ("n2", "n3"): 9}
        assert await network.evidence() == {("n1", "n2"): 0, ("n2", "n3"): 0}, "since it was last asked"

    run(Network(Counting(), ADDRESSES, QUEUE), script)


def test_what_a_leaf_met_is_told_once_and_one_with_a_rate_from_when_it_has_one(reach):
    """Leaves stay while other links change, and a leaf without trouble counts too."""
    met = {"n2": 0, "n3": 0}

    class Counting(Reached):
        async def run(self, node, argv, stdin=""):
            if argv[0] != "tc":
                return await super().run(node, argv, stdin)
            assert node == "n1"
            return (
                f'[{{"kind": "blackhole", "handle": "8:", "parent": "5b:10", "drops": {met["n2"]}}},'
                f' {{"kind": "pfifo", "handle": "9:", "parent": "5b:11", "packets": {met["n3"]}}}]'
            )

    async def script(network):
        await network.apply(rules(n1_n2=CUT))
        met.update(n2=7, n3=100)
        assert await network.evidence() == {("n1", "n2"): 7}
        await network.apply(rules(n1_n2=CUT, n1_n3=LinkRule(rate_kbit=64)))
        met.update(n2=9, n3=103)
        assert await network.evidence() == {("n1", "n2"): 2, ("n1", "n3"): 3}
        await network.apply(rules(n1_n2=CUT, n1_n3=LinkRule(rate_kbit=128)))
        met.update(n3=104)
        assert await network.evidence() == {("n1", "n2"): 0, ("n1", "n3"): 1}

    run(Network(Counting(), ADDRESSES, NETEM), script)


def test_a_new_address_is_told_to_all(reach):
    async def script(network):
        await network.apply(rules(n2_n1=CUT))
        reach.take()
        await network.refresh("n1", "10.0.0.9")
        text = [what for node, _, what in reach.log if node == "n2"][-1]
        assert "dst 10.0.0.9/32" in text
        assert "10.0.0.1/32" not in text
        assert "tc qdisc del dev eth0 root" in next(what for node, _, what in reach.log if node == "n2")

    run(Network(reach, ADDRESSES, NETEM), script)


def test_one_node_that_fails_does_not_stop_the_others_and_is_written_again(reach):
    async def script(network):
        reach.failing = {"n1", "n3"}
        with pytest.raises(NetworkError, match="n1 is not there; n3 is not there"):
            await network.apply(rules(n1_n2=CUT, n2_n3=CUT, n3_n1=CUT))
        assert reach.take() == {"n2": ["sh"]}
        reach.failing = {"n1"}
        with pytest.raises(NetworkError, match=r"^n1 is not there$"):
            await network.apply(rules(n1_n2=CUT, n2_n3=CUT, n3_n1=CUT))
        assert reach.take() == {"n3": ["sh"]}
        with pytest.raises(NetworkError, match="n1"):
            await network.heal()
        assert reach.take() == {"n2": ["sh"], "n3": ["sh"]}

    run(Network(reach, ADDRESSES, NETEM), script)


def test_a_queue_that_refuses_is_an_error_and_is_started_anew(reach):
    async def script(network):
        reach.answers = {"n2": "error: no iptables"}
        with pytest.raises(NetworkError, match="the packet queue of n2 answered 'error: no iptables'"):
            await network.apply(rules(n1_n2=SLOW))
        assert reach.take() == {"n2": ["talk", "ask", "close"]}
        reach.answers = {}
        await network.apply(rules(n1_n2=SLOW))
        assert reach.take() == {"n2": ["talk", "ask"]}

    run(Network(reach, ADDRESSES, QUEUE), script)


def test_a_node_without_the_address_is_named():
    class NoDevice(Reached):
        async def run(self, node, argv, stdin=""):
            return ""

    with pytest.raises(NetworkError, match=r"n1 has no device with the address 10\.0\.0\.1"):
        run(Network(NoDevice(), ADDRESSES, NETEM), lambda network: network.apply(rules(n1_n2=CUT)))


def here(_node, argv):
    return argv


def test_commands_run_and_their_failures_are_told():
    async def script(reach):
        assert await reach.run("n1", ["cat"], "hello") == "hello"
        with pytest.raises(NetworkError, match="sh on n1 failed: oh no"):
            await reach.run("n1", ["sh"], "echo oh no >&2; exit 3")
        with pytest.raises(NetworkError, match="no-such-program, by which n1 is reached, did not start"):
            await reach.run("n1", ["no-such-program"])

    run(CommandReach(here), script)


def test_conversations():
    async def script(reach):
        talk = await reach.talk("n1", ["sh", "-c", "echo ready; while read line; do echo got $line; done"])
        assert await talk.ask("a") == "got a"
        assert await talk.ask("b") == "got b"
        await talk.close()
        await talk.close()
        with pytest.raises(NetworkError, match="did not start: error: no"):
            await reach.talk("n1", ["sh", "-c", "echo error: no"])
        ended = await reach.talk("n1", ["sh", "-c", "echo ready"])
        await asyncio.sleep(0.1)
        assert await ended.ask("a") in {"", "nothing: it has ended"}
        await ended.close()

    run(CommandReach(here), script)


def test_what_takes_too_long_is_ended(monkeypatch):
    async def script(reach):
        # It is started with all patience: a busy machine may take longer than the moment that is left below.
        talk = await reach.talk("n1", ["sh", "-c", "echo ready; exec sleep 60"])
        monkeypatch.setattr("nemesis.network.ANSWER_S_MAX", 0.1)
        with pytest.raises(NetworkError, match=r"sleep 60 on n1 took more than 0\.1 s"):
            await reach.run("n1", ["sleep", "60"])
        assert await talk.ask("a") == "nothing within 0.1 s"
        await talk.close()

    run(CommandReach(here), script)


def test_a_refresh_in_the_middle_of_a_change_neither_loses_it_nor_overlaps_it():
    """A node that is started while a fault is written gets what is wanted last, and never two scripts at once."""

    class Slow(Reached):
        busy: frozenset = frozenset()

        async def run(self, node, argv, stdin=""):
            assert node not in self.busy, "two commands at once"
            self.busy |= {node}
            for _ in range(5):
                await asyncio.sleep(0)
            self.busy -= {node}
            return await super().run(node, argv, stdin)

    slow = Slow()

    async def script(network):
        await network.apply(rules(n1_n2=CUT))
        await asyncio.gather(
            network.apply(rules(n1_n2=SLOW)),
            network.refresh("n1"),
            network.apply(rules(n1_n3=CUT)),
            network.refresh("n1"),
        )

    run(Network(slow, ADDRESSES, NETEM), script)
    last = [stdin for node, what, stdin in slow.log if (node, what) == ("n1", "sh")][-1]
    assert "parent 5b:10 pfifo" in last
    assert "parent 5b:11 blackhole" in last
