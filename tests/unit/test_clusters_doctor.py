"""What the doctor says of machines that can much, little and nothing."""

import json
import os
from pathlib import Path

import pytest

from harness import cli, machine
from harness.clusters import docker, docker_box, local, scratch, ssh
from harness.commands import doctor
from harness.errors import SetupError
from nemesis.backend import PROBES, Abilities
from nemesis.kinds import FAULTS

FAULTS_OF_ALL_CLUSTERS = (
    "partition", "latency", "kill", "pause", "loss", "duplicate", "reorder", "corrupt", "rate", "clock", "disk",
)  # fmt: skip
ALL = Abilities(dict.fromkeys(PROBES))


@pytest.fixture(autouse=True)
def _docker(monkeypatch):
    monkeypatch.setattr(docker, "probe", lambda: ALL)
    monkeypatch.setattr(docker, "libraries", lambda: ("clock", "disk"))
    monkeypatch.setattr(docker_box, "sweep", list)


def say(capsys, *options):
    code = cli.main(["doctor", *options])
    return code, capsys.readouterr().out


def test_a_machine_that_can_all(monkeypatch, capsys):
    monkeypatch.setattr(local, "probe", lambda: ALL)
    monkeypatch.setattr(doctor, "_shim_refusals", dict)
    code, out = say(capsys, "--json")
    clusters = json.loads(out)["clusters"]
    assert code == 0
    assert clusters["docker"]["faults"]["clock"]["by"] == "library"
    assert clusters["docker"]["faults"]["kill"]["by"] == "signals"
    assert clusters["docker"]["faults"]["corrupt"]["by"] == "netem"
    assert set(clusters["sim"]["faults"]) == set(clusters["local"]["faults"]) == set(FAULTS)
    assert all(fault["can"] for fault in clusters["sim"]["faults"].values())
    assert all(
        clusters[name]["faults"][kind]["can"]
        for name in ("local", "docker")
        for kind in FAULTS_OF_ALL_CLUSTERS
    )
    simulated_only = {"timer-drift", "misdirected-write"}
    cannot = {
        name: {fault for fault, found in clusters[name]["faults"].items() if not found["can"]}
        for name in ("local", "docker")
    }
    assert cannot["local"] == cannot["docker"] == simulated_only
    assert clusters["docker"]["faults"]["timer-drift"]["reason"] == "this cluster cannot do it"
    assert clusters["local"]["faults"]["partition"]["by"] == "tc"
    assert clusters["local"]["faults"]["latency"]["by"] == "netem"
    assert clusters["local"]["faults"]["kill"]["by"] == "signals"


def test_what_is_missing_is_named_with_a_remedy(monkeypatch, capsys):
    poor = Abilities(dict.fromkeys(PROBES) | {"iptables": "sh: iptables: not found", "netem": "unknown"})
    monkeypatch.setattr(local, "probe", lambda: poor)
    monkeypatch.setattr(doctor, "_shim_refusals", lambda: {"disk": "the fault 'disk' needs a C compiler"})
    faults = doctor.examine_local().faults
    assert faults["partition"].can
    assert not faults["loss"].can
    assert "iptables: not found" in faults["loss"].reason
    assert "apt-get install" in faults["loss"].remedy
    assert faults["clock"].can
    assert faults["disk"].reason == "the fault 'disk' needs a C compiler"
    lines = [line for line in say(capsys)[1].splitlines() if "netem: unknown" in line]
    assert len(lines) == 1, "one line for all kinds that lack the same"
    assert lines[0].startswith("local: latency, loss, ")


def test_without_namespaces_the_reason_is_told(monkeypatch, capsys):
    def refuse():
        raise SetupError("cluster 'local': no network namespaces here; run as root")

    monkeypatch.setattr(local, "probe", refuse)
    code, out = say(capsys)
    assert code == 0
    assert "cluster 'local': no network namespaces here; run as root" in out


@pytest.mark.parametrize("found", [[], ["killed process 7 (python), left by process 6"]])
def test_heal_tells_what_it_removed(monkeypatch, capsys, tmp_path, found):
    monkeypatch.setattr(local, "probe", lambda: ALL)
    monkeypatch.setattr(doctor.netns, "sweep", lambda: list(found))
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    ours = tmp_path / f"{scratch.PREFIX}{os.getpid()}-abc"
    ours.mkdir()
    assert json.loads(say(capsys, "--heal", "--json")[1])["healed"] == found
    assert ours.exists(), "its maker lives"
    abandoned = tmp_path / f"{scratch.PREFIX}{2**22 + 1}-abc"
    abandoned.mkdir()
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    with scratch.passing("shims") as passing:
        assert Path(passing).name.startswith(f"{scratch.PREFIX}{os.getpid()}-"), "its maker may be killed too"
    assert json.loads(say(capsys, "--heal", "--json")[1])["healed"] == [*found, f"removed {abandoned}"]
    assert not abandoned.exists()
    assert "nothing was left" in say(capsys, "--heal")[1] or found


def test_the_exit_code_answers_what_was_asked(monkeypatch, capsys):
    poor = Abilities(dict.fromkeys(PROBES) | {"iptables": "not found", "netem": "unknown"})
    monkeypatch.setattr(local, "probe", lambda: poor)
    monkeypatch.setattr(doctor, "_shim_refusals", dict)
    assert say(capsys)[0] == 0
    assert say(capsys, "--cluster", "local")[0] == 0
    assert say(capsys, "--cluster", "local", "--fault", "partition")[0] == 0
    code, out = say(capsys, "--cluster", "local", "--fault", "latency", "--json")
    assert code == 255
    assert list(json.loads(out)["clusters"]) == ["local"]
    assert say(capsys, "--fault", "latency")[0] == 255, "not on all"
    assert say(capsys, "--cluster", "docker", "--fault", "latency")[0] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "cloud"], "unknown cluster 'cloud'"),
        (["--cluster", "ssh"], "cluster 'ssh' is a matter of its hosts; give each with --node user@host"),
        (["--fault", "fire"], "unknown kind of fault 'fire'"),
    ],
)
def test_a_question_about_what_there_is_not_is_refused(capsys, options, said):
    assert cli.main(["doctor", *options]) == 254
    assert said in capsys.readouterr().err


def test_the_machine_is_told_with_remedies(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda *_, **__: None)
    facts = machine.facts()
    assert int(facts["cores"].value) >= 1
    assert facts["tc"].remedy == "apt-get install iproute2 (Debian, Ubuntu)"
    assert facts["user namespaces"].remedy == "apt-get install util-linux"


def test_hosts_are_a_column_of_their_own(monkeypatch, capsys):
    monkeypatch.setattr(local, "probe", lambda: ALL)
    monkeypatch.setattr(doctor, "_shim_refusals", dict)
    monkeypatch.setattr(ssh, "probe", lambda *_: ALL)
    clusters = json.loads(say(capsys, "--node", "ann@db1", "--json")[1])["clusters"]
    assert clusters["ssh"]["faults"]["latency"]["by"] == "netem"


def test_a_host_that_cannot_be_used_is_an_answer_too(monkeypatch, capsys):
    """Also where a kind of cluster is asked for beside it: the host was not looked at then."""

    def refuse(*_):
        raise SetupError("cluster 'ssh': ann@db1: no connection")

    monkeypatch.setattr(local, "probe", lambda: ALL)
    monkeypatch.setattr(doctor, "_shim_refusals", dict)
    monkeypatch.setattr(ssh, "probe", refuse)
    for more in [], ["--cluster", "local"]:
        code, out = say(capsys, "--node", "ann@db1", *more)
        assert code == 255
        assert "ann@db1: no connection" in out
    monkeypatch.setattr(ssh, "probe", lambda *_: ALL)
    assert say(capsys, "--node", "ann@db1", "--cluster", "local")[0] == 0
