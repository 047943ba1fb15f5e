"""Which means a machine has, which a run uses, and what is refused before it starts."""

import msgspec
import pytest

from nemesis.backend import Backend, check_faults, choose, needs, only, parse, probe_script
from nemesis.faults import ClockSkew, Corrupt, Disk, FaultError, Kill, Latency, Partition, Pause, Rate
from nemesis.rules import combine, compose
from nemesis.target import HEALTHY, LinkRule, Ruleset

NODES = ("n1", "n2", "n3")
TREE = "htb yes\nu32 yes\nblackhole yes\n"
QUEUE = "iptables yes\nnfqueue yes\ndaemon yes\n"
NO_NETEM = "netem no Error: Specified qdisc kind is unknown.\n"
SLOW = Latency(aim="one", nodes=("n1",), delay_ms=5)
CUT = Partition(topology="one", nodes=("n1",))


@pytest.mark.parametrize(
    ("said", "means"),
    [
        (TREE + "netem yes\n" + QUEUE, ("tc", "tc", "netem")),
        (TREE + NO_NETEM + QUEUE, ("tc", "tc", "nfqueue")),
        (TREE + NO_NETEM, ("tc", "tc", None)),
        (NO_NETEM + QUEUE, ("iptables", None, "nfqueue")),
        ("htb yes\nu32 yes\nnetem yes\n" + QUEUE, ("iptables", "tc", "netem")),
        ("htb yes\nnetem yes\nblackhole yes\n", (None, None, None)),
        (TREE + "iptables yes\nnfqueue yes\ndaemon no python3: not found\n", ("tc", "tc", None)),
        ("", (None, None, None)),
    ],
)
def test_the_first_means_that_works_is_chosen(said, means):
    backend = choose(parse(said))
    assert (backend.blocked, backend.rate, backend.shapes) == means
    assert ("resets" in backend.reasons) == (QUEUE not in said) == (backend.resets is None)
    assert set(backend.reasons) - {"resets"} == {
        name for name, one in zip(("blocked", "rate", "shapes"), means, strict=True) if one is None
    }
    assert msgspec.json.decode(msgspec.json.encode(backend), type=Backend) == backend


def test_reasons_are_the_kernels_own_words():
    backend = choose(parse(TREE + NO_NETEM + "iptables no iptables: command not found\nnoise\n"))
    assert backend.reason("delay_ms") == (
        "netem: Error: Specified qdisc kind is unknown.; iptables: iptables: command not found; "
        "nfqueue: not tried; daemon: not tried"
    )
    assert backend.reason("blocked") == ""


def test_what_has_no_means_is_refused_before_the_run():
    backend = choose(parse(TREE + NO_NETEM))
    check_faults([CUT, Kill(aim="one", nodes=("n1",))], NODES, backend, ["kill"])
    with pytest.raises(
        FaultError, match=r"'latency' needs 'delay_ms', which this cluster cannot do \(netem: Err"
    ):
        check_faults([CUT, SLOW], NODES, backend, ["kill"])
    with pytest.raises(FaultError, match="'rate' needs 'rate_kbit'"):
        check_faults(
            [Rate(aim="one", nodes=("n1",), rate_kbit=5)], NODES, choose(parse(NO_NETEM + QUEUE)), []
        )


def test_needs():
    assert needs(CUT, NODES) == ("blocked",)
    assert needs(Latency(aim="one", nodes=("n1",), delay_ms=5, jitter_ms=1), NODES) == (
        "delay_ms",
        "jitter_ms",
    )
    assert needs(Corrupt(aim="one", nodes=("n1",), probability=0.1), NODES) == ("corrupt",)
    assert needs(Kill(aim="one", nodes=("n1",)), NODES) == ("kill",)
    assert needs(Pause(aim="one", nodes=("n1",)), NODES) == ("pause",)
    assert needs(Disk(aim="one", nodes=("n1",), write_error=1), NODES) == ("disk",)
    assert needs(ClockSkew(aim="one", nodes=("n1",), offset_ms=1), NODES) == ("clock",)


def test_the_probe_script_names_the_python_it_is_given():
    assert "try daemon /opt/python -m nemesis.nfqueue --check" in probe_script("/opt/python")


def test_only_some_fields():
    rules = Ruleset({("a", "b"): LinkRule(blocked=True, loss=0.5), ("b", "a"): LinkRule(delay_ms=5)})
    assert only(rules, lambda _: ["blocked"]) == Ruleset({("a", "b"): LinkRule(blocked=True)})
    assert only(rules, lambda _: ["delay_ms", "loss"]).links[("a", "b")] == LinkRule(loss=0.5)


def test_rules_combine():
    one = LinkRule(delay_ms=5, jitter_ms=1, loss=0.5, duplicate=0.5, reorder=0.5, corrupt=0.5, rate_kbit=64)
    other = LinkRule(blocked=True, delay_ms=7, jitter_ms=2, loss=0.5, duplicate=0.5, reorder=0.5, corrupt=0.5)
    assert combine(one, other) == LinkRule(
        blocked=True,
        delay_ms=12,
        jitter_ms=3,
        loss=0.75,
        duplicate=0.75,
        reorder=0.75,
        corrupt=0.75,
        rate_kbit=64,
    )
    assert combine(LinkRule(rate_kbit=64), LinkRule(rate_kbit=32)).rate_kbit == 32
    assert combine(LinkRule(), LinkRule()) == LinkRule()


def test_composing_names_sick_links_only_in_a_fixed_order():
    b, a = Ruleset({("b", "a"): LinkRule(delay_ms=1)}), Ruleset({("a", "b"): LinkRule(loss=0.5)})
    assert compose([b, a]) == compose([a, b])
    assert list(compose([b, a]).links) == [("a", "b"), ("b", "a")]
    assert compose([Ruleset({("a", "b"): LinkRule()})]) == HEALTHY
    assert compose([]) == HEALTHY
