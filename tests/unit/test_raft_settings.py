"""What a server is told, and what it says to what cannot be."""

import pytest

from raft.settings import Address, SettingsError, load

MEMBERS = ["n1=127.0.0.1:7001,127.0.0.1:8001", "n2=[::1]:7002,localhost:8002"]
FLAGS = ["--name", "n1", "--data-dir", "d", "--member", MEMBERS[0], "--member", MEMBERS[1]]


def test_flags():
    settings = load(
        [*FLAGS, "--heartbeat-ms", "40", "--pre-vote", "false", "--bug", "stale-read", "--join"], {}
    )
    assert settings.me.clients == Address(host="127.0.0.1", port=8001)
    assert settings.members[1].peers == Address(host="::1", port=7002)
    assert settings.options.heartbeat_us == 40_000
    assert not settings.options.pre_vote
    assert settings.join
    assert settings.bugs == ("stale-read",)


def test_flags_over_environment_over_file(tmp_path):
    file = tmp_path / "raft.toml"
    file.write_text(
        f'name = "n1"\nmember = {MEMBERS!r}\ndata_dir = "from-file"\ncluster = "file"\nheartbeat_ms = 30\n'
    )
    environment = {"RAFT_CONFIG": str(file), "RAFT_CLUSTER": "environment", "RAFT_HEARTBEAT_MS": "20"}
    settings = load(["--heartbeat-ms", "10"], environment)
    assert (str(settings.data_dir), settings.cluster, settings.options.heartbeat_us) == (
        "from-file",
        "environment",
        10_000,
    )


def test_members_in_the_environment_are_separated_by_spaces():
    environment = {
        "RAFT_NAME": "n2",
        "RAFT_DATA_DIR": "d",
        "RAFT_MEMBER": " ".join(MEMBERS),
        "RAFT_JOIN": "yes",
    }
    settings = load([], environment)
    assert [member.name for member in settings.members] == ["n1", "n2"]
    assert settings.join


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (FLAGS[2:], "name is not set"),
        (FLAGS[:2], "member is not set"),
        ([*FLAGS, "--name", "n9"], "'n9' must be one of the members"),
        ([*FLAGS, "--member", "n3"], "is not of the form name=host:port,host:port"),
        ([*FLAGS, "--member", "n3=a:1,b"], "address 'b' is not of the form host:port"),
        ([*FLAGS, "--member", MEMBERS[0]], "each named once"),
        ([*FLAGS, "--peer-cert", __file__], "peer_cert without peer_key, peer_ca: TLS needs"),
        ([*FLAGS, "--client-key", __file__], "client_key without client_cert"),
        (
            [*FLAGS, "--client-cert", "no/such", "--client-key", __file__],
            "client_cert is no/such, where there is no",
        ),
        ([*FLAGS, "--token-file", "no/such"], "cannot read the token in no/such"),
        ([*FLAGS, "--log-format", "xml"], "log_format is 'xml'; it must be one of text, json"),
        ([*FLAGS, "--listen-clients", "here"], "address 'here' is not of the form host:port"),
        ([*FLAGS, "--heartbeat-ms", "soon"], "heartbeat_ms is 'soon'; it must be a whole number"),
        ([*FLAGS, "--heartbeat-ms", "500"], "must be positive and below"),
        ([*FLAGS, "--pre-vote", "maybe"], "pre_vote is 'maybe'; it must be true or false"),
        ([*FLAGS, "--heartbeat-ms", "9" * 5_000], "it must be a whole number"),
        ([*FLAGS, "--lease-drift-max", "much"], "lease_drift_max is 'much'; it must be a number"),
        ([*FLAGS, "--snapshot-trailing", "-5"], "snapshot_trailing -5 must not be negative"),
        ([*FLAGS, "--request-timeout-ms", "0"], "request_timeout_ms is 0; it must be at least 1"),
        ([*FLAGS, "--bug", "no-such"], "bug is 'no-such'; it must be one of stale-read, "),
        ([*FLAGS, "--member", "n3=a:²,b:1"], "address 'a:²' is not of the form host:port"),
        ([*FLAGS, "--color"], "unrecognized arguments: --color"),
        ([*FLAGS, "--config", "nowhere.toml"], "cannot read the settings in nowhere.toml"),
    ],
)
def test_what_cannot_be_is_named(flags, why):
    with pytest.raises(SettingsError, match=why.replace("(", r"\(")):
        load(flags, {})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("heartbeat_ms = true", "heartbeat_ms is True; it must be a whole number"),
        ("heartbeat_ms = [1]", r"heartbeat_ms is \[1\]; it must be a whole number"),
        ("lease_drift_max = [1]", r"lease_drift_max is \[1\]; it must be a number"),
        ("pre_vote = 3", "pre_vote is 3; it must be true or false"),
        ("member = [1]", "member is 1; it must be text"),
        ("member = 3", "member is 3; it must be text, or a list of texts"),
        ("bug = 3", "bug is 3; it must be text, or a list of texts"),
        ("data_dir = 3", "data_dir is 3; it must be text"),
        ("cluster = 3", "cluster is 3; it must be text"),
        ("token_file = 3", "token_file is 3; it must be text"),
        ("peer_cert = 3", "peer_cert is 3; it must be text"),
        ('cluster = "\udcff"', "cannot read the settings in"),
    ],
)
def test_what_a_file_says_must_be_of_the_right_kind(tmp_path, line, why):
    file = tmp_path / "raft.toml"
    file.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    named = line.partition(" ")[0].replace("_", "-")
    flags = [flag for at, flag in enumerate(FLAGS) if f"--{named}" not in FLAGS[max(0, at - 1) : at + 1]]
    with pytest.raises(SettingsError, match=why):
        load(["--config", str(file), *flags], {})


def test_help_says_what_every_setting_is(capsys):
    with pytest.raises(SystemExit):
        load(["--help"], {})
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "--pre-vote PRE_VOTE ask who would vote before disturbing anybody with a new term (true unless given)"
        in text
    )
    assert "--heartbeat-ms HEARTBEAT_MS how often a leader is heard of (50 unless given)" in text


def test_unknown_settings_in_a_file_are_named(tmp_path):
    file = tmp_path / "raft.toml"
    file.write_text("heart_beat = 3\n")
    with pytest.raises(SettingsError, match="has unknown settings: heart_beat"):
        load(["--config", str(file)], {})


def test_a_port_alone_is_one_of_loopback():
    settings = load(["--name", "n1", "--data-dir", "d", "--member", "n1=7001,8001"], {})
    assert settings.me.clients == Address(host="127.0.0.1", port=8001)
    assert settings.exposed == []


def test_who_listens_to_the_world_is_told_what_that_means():
    everywhere = ["--listen-peers", "0.0.0.0:7001", "--listen-clients", "[::]:8001"]
    settings = load([*FLAGS, *everywhere], {})
    assert settings.listen_clients == Address(host="::", port=8001)
    assert len(settings.exposed) == 2
    assert len(load([*FLAGS, *everywhere], {"RAFT_TOKEN": "secret"}).exposed) == 1


def test_the_token_is_not_shown(tmp_path):
    file = tmp_path / "token"
    file.write_text("secret\n")
    settings = load([*FLAGS, "--token-file", str(file)], {})
    assert settings.token == "secret"
    assert "secret" not in repr(settings)
    file.write_text("\n")
    with pytest.raises(SettingsError, match="which is empty"):
        load([*FLAGS, "--token-file", str(file)], {})


def test_no_sync_is_asked_for_by_name_only():
    base = ["--name", "n1", "--data-dir", "d", "--member", "n1=h:1,h:2"]
    assert not load(base, {}).unsafe_no_sync
    assert load([*base, "--unsafe-no-sync"], {}).unsafe_no_sync
