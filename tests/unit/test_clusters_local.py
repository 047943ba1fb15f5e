"""What the local cluster decides without a network."""

import pytest

from harness import clusters, config, plan
from harness.clusters import local, shims
from harness.errors import ConfigError, SetupError
from nemesis.backend import PROBES, Abilities
from nemesis.netns import NetnsError


def planned(*faults):
    return plan.draw(config.load(None, {"cluster": "local", "faults": list(faults), "time_limit_s": 60.0}), 1)


def abilities(**refusals):
    return Abilities(dict.fromkeys(PROBES) | refusals)


def test_a_fault_that_no_means_can_do_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(local, "probe", lambda: abilities(netem="unknown qdisc", nfqueue="no such target"))
    with pytest.raises(ConfigError, match=r"fault 'latency' needs 'delay_ms'.*unknown qdisc.*no such target"):
        clusters.check(planned("latency"))
    clusters.check(planned("partition", "kill", "pause", "rate"))


def test_shims_are_used_only_where_the_plan_needs_them():
    assert shims.needed(planned("partition", "kill")) == ()
    assert shims.needed(planned("clock")) == ("clock",)
    assert shims.needed(planned("disk", "clock")) == ("clock", "disk")


def test_without_a_compiler_the_fault_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(local, "probe", abilities)
    monkeypatch.setattr(local.shutil, "which", lambda name, **_: None if "c" in name[-2:] else f"/bin/{name}")
    with pytest.raises(SetupError, match=r"the fault 'clock' needs a C compiler.*apt-get install gcc"):
        clusters.check(planned("clock"))


def test_without_namespaces_there_is_no_local_cluster(monkeypatch):
    def refuse(*_args, **_options):
        raise NetnsError("no network namespaces here: not permitted; run as root")

    local.probe.cache_clear()
    monkeypatch.setattr(local, "Netns", refuse)
    with pytest.raises(SetupError, match="cluster 'local': no network namespaces here"):
        clusters.check(planned("kill"))


def test_the_simulator_needs_nothing_of_the_machine():
    clusters.check(plan.draw(config.load(None, {"faults": ["latency"]}), 1))


def test_unknown_kinds_are_refused():
    with pytest.raises(ConfigError, match="unknown cluster 'cloud'; known: sim, local, docker"):
        clusters.require("cloud")
