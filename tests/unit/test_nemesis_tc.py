"""Rulesets as input for tc: what each rule becomes, and that only peers are touched."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemesis import tc
from nemesis.target import HEALTHY, LinkRule, Ruleset

PEERS = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}


def leaf_of(rule):
    """The options of the leaf that n1 gets towards n2."""
    text = tc.leaves(Ruleset({("n1", "n2"): rule}), "n1", PEERS, "eth0")
    (line,) = [line for line in text.splitlines() if line.startswith("qdisc") and " 5b:10 " in line]
    return line.partition(" 5b:10 ")[2]


@pytest.mark.parametrize(
    ("rule", "leaf"),
    [
        (LinkRule(), "pfifo limit 10000"),
        (LinkRule(rate_kbit=64), "pfifo limit 10000"),
        (LinkRule(blocked=True), "blackhole"),
        (LinkRule(blocked=True, delay_ms=5, loss=0.5), "blackhole"),
        (LinkRule(delay_ms=50), "netem limit 100000 delay 50ms 0ms"),
        (LinkRule(delay_ms=50, jitter_ms=10), "netem limit 100000 delay 55ms 5ms"),
        (LinkRule(jitter_ms=0.5), "netem limit 100000 delay 0.25ms 0.25ms"),
        (LinkRule(loss=0.25), "netem limit 100000 delay 0ms 0ms loss 25%"),
        (
            LinkRule(delay_ms=1, loss=0.001, duplicate=0.5, reorder=0.125, corrupt=1),
            "netem limit 100000 delay 1ms 0ms loss 0.1% duplicate 50% reorder 12.5% corrupt 100%",
        ),
    ],
)
def test_leaves(rule, leaf):
    assert leaf_of(rule) == leaf


def test_a_rate_is_the_rate_of_the_class():
    text = tc.leaves(Ruleset({("n1", "n2"): LinkRule(rate_kbit=64.5)}), "n1", PEERS, "eth0")
    assert "class replace dev eth0 parent 5b: classid 5b:10 htb rate 64500bit quantum 60000" in text
    assert "class replace dev eth0 parent 5b: classid 5b:11 htb rate 10gbit quantum 60000" in text


def test_a_rate_beyond_that_of_healthy_links_is_none():
    text = tc.leaves(Ruleset({("n1", "n2"): LinkRule(rate_kbit=1e300)}), "n1", PEERS, "eth0")
    assert "classid 5b:10 htb rate 10gbit " in text


def test_a_rate_is_never_refused_for_being_small():
    text = tc.leaves(Ruleset({("n1", "n2"): LinkRule(rate_kbit=1e-9)}), "n1", PEERS, "eth0")
    assert "htb rate 8bit " in text


def test_rules_of_others_and_what_arrives_here_are_not_this_nodes_business():
    rules = Ruleset({("n2", "n1"): LinkRule(blocked=True), ("n2", "n3"): LinkRule(delay_ms=5)})
    assert tc.leaves(rules, "n1", PEERS, "eth0") == tc.leaves(HEALTHY, "n1", PEERS, "eth0")


def test_the_skeleton_matches_each_peer_and_nothing_else():
    assert tc.skeleton("n2", {**PEERS, "n4": "fd00::4"}, "veth7") == (
        "qdisc add dev veth7 root handle 5b: htb default 0\n"
        "class add dev veth7 parent 5b: classid 5b:10 htb rate 10gbit quantum 60000\n"
        "filter add dev veth7 parent 5b: protocol ip prio 1 u32 match ip dst 10.0.0.1/32 flowid 5b:10\n"
        "class add dev veth7 parent 5b: classid 5b:11 htb rate 10gbit quantum 60000\n"
        "filter add dev veth7 parent 5b: protocol ip prio 1 u32 match ip dst 10.0.0.3/32 flowid 5b:11\n"
        "class add dev veth7 parent 5b: classid 5b:12 htb rate 10gbit quantum 60000\n"
        "filter add dev veth7 parent 5b: protocol ipv6 prio 2 u32 match ip6 dst fd00::4/128 flowid 5b:12\n"
    )


def test_class_numbers_are_hexadecimal():
    many = {f"n{number}": f"10.0.0.{number}" for number in range(1, 30)}
    text = tc.skeleton("n1", many, "eth0")
    assert "dst 10.0.0.11/32 flowid 5b:19\n" in text
    assert "dst 10.0.0.12/32 flowid 5b:1a\n" in text


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), max_size=8, unique=True),
    st.builds(
        LinkRule,
        blocked=st.booleans(),
        delay_ms=st.floats(0, 500),
        jitter_ms=st.floats(0, 500),
        loss=st.floats(0, 1),
        rate_kbit=st.floats(0, 1e6),
    ),
)
def test_every_ruleset_writes_the_whole_tree(links, rule):
    """Each class and each leaf exactly once, whatever the rules: nothing an earlier state left survives."""
    peers = {name: f"10.0.0.{number}" for number, name in enumerate("abcde", 1)}
    text = tc.leaves(Ruleset(dict.fromkeys(links, rule)), "a", peers, "eth0")
    classes = re.findall(r"^class replace .* classid (5b:\w+) ", text, re.MULTILINE)
    leaves = re.findall(r"^qdisc replace .* parent (5b:\w+) ", text, re.MULTILINE)
    assert classes == leaves == ["5b:10", "5b:11", "5b:12", "5b:13"]
    assert not re.search(r"nan|inf|e[+-]\d", text), "tc reads plain numbers only"


def test_a_device_that_has_the_tree_gets_the_leaves_at_once_and_the_rest_only_if_that_fails():
    rules = Ruleset({("n1", "n2"): LinkRule(blocked=True)})
    text = tc.change_script(rules, "n1", PEERS, "eth0")
    assert text.startswith(
        "tc -batch - 2>/dev/null <<'END' && exit\n" + tc.leaves(rules, "n1", PEERS, "eth0")
    )
    assert text.endswith(tc.script(rules, "n1", PEERS, "eth0"))
    assert tc.is_sick(rules, "n1")
    assert not tc.is_sick(rules, "n2")
    assert tc.is_sick(Ruleset({("n1", "n2"): LinkRule(rate_kbit=64)}), "n1")


def test_a_leaf_that_only_has_a_rate_counts_as_well():
    rules = Ruleset({("n1", "n2"): LinkRule(rate_kbit=64), ("n1", "n3"): LinkRule(rate_kbit=64, delay_ms=5)})
    assert tc.rated(rules, "n1") == {"n2"}
    said = (
        '[{"kind": "pfifo", "handle": "8:", "parent": "5b:10", "packets": 7, "drops": 1},'
        ' {"kind": "pfifo", "handle": "9:", "parent": "5b:11", "packets": 3}]'
    )
    assert tc.met(said, "n1", PEERS, frozenset()) == {}
    assert tc.met(said, "n1", PEERS, tc.rated(rules, "n1")) == {"n2": ("8:", 8)}


def test_scripts_touch_only_our_own_root():
    script = tc.script(HEALTHY, "n1", PEERS, "eth0")
    assert "tc qdisc show dev eth0 root | grep -q 'qdisc htb 5b: root'" in script
    assert "del dev eth0 root" in tc.heal_script("eth0")
    assert tc.heal_script("eth0").startswith("if tc qdisc show dev eth0 root | grep -q 'qdisc htb 5b: root'")
