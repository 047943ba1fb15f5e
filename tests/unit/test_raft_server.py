"""Real processes on loopback: what is acknowledged survives `kill -9`."""

import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress

import msgspec
import pytest

from raft.core import AppendEntries, Entry, EntryKind, Message, RequestVote
from raft.disk import FileDisk
from raft.framing import BadFrame, Unframer, frame
from raft.http1 import BODY_BYTES_MAX
from raft.peers import Guests, Hello, Inbound
from raft.testing.processes import free_ports, running

CALM = ("--election-timeout-ms-min", "2500", "--election-timeout-ms-max", "4000")  # on a busy machine


def test_followers_name_the_leader_and_only_the_leader_says_that_it_leads(tmp_path):
    with running(tmp_path, 3, *CALM) as cluster:
        leader, follower = cluster.leader(), cluster.follower()
        status, _, headers = cluster.call(follower, "GET", "/v1/keys?prefix=x&limit=3")
        assert status == 307
        assert headers["Location"] == cluster.url(leader, "/v1/keys?prefix=x&limit=3")
        for path in ("/transfer", "/members", "/v1/members"):
            assert cluster.call(follower, "POST", path, {}).status == 307
        assert cluster.call(leader, "GET", "/leader")[:2] == (
            200,
            {"leader": leader, "url": cluster.url(leader)},
        )
        assert cluster.call(follower, "GET", "/leader")[:2] == (
            503,
            {"leader": leader, "url": cluster.url(leader)},
        )

        put = cluster.call(follower, "PUT", "/v1/keys/x", 1, {"Proxy": "true"})
        assert (put.status, put.body["revision"]) == (200, 1)
        assert cluster.call(follower, "GET", "/v1/keys/x", None, {"Proxy": "true"}).body["value"] == 1
        whole = cluster.call(follower, "POST", "/v1/request", ["c", 1, ["get", "x"]], {"Proxy": "true"})
        assert whole.body == ["done", 1, 1, 1]
        largest = "x" * (BODY_BYTES_MAX - 2)
        assert cluster.call(follower, "PUT", "/v1/keys/y", largest, {"Proxy": "true"}).status == 200
        assert cluster.call(follower, "GET", "/v1/keys/y", None, {"Proxy": "true"}).body["value"] == largest
        assert cluster.call(follower, "POST", "/v1/request", ["c", 1, ["get", "x"]]).body == [
            "not-leader",
            leader,
        ]

        peers = cluster.call(leader, "GET", "/status").body["peers"]
        assert set(peers) == set(cluster.names) - {leader}

        def is_in_step(peer):
            return peer["connected"] and peer["state"] == "replicate"

        # A majority is enough for what was written; the third may come later.
        wait_until(
            lambda: all(map(is_in_step, cluster.call(leader, "GET", "/status").body["peers"].values()))
        )
        assert "peers" not in cluster.call(follower, "GET", "/status").body
        members = cluster.call(follower, "GET", "/members").body["members"]
        assert [member["role"] for member in members] == ["voter"] * 3
        assert [member["name"] for member in members if member["leads"]] == [leader]


def test_bad_requests_get_an_answer_and_the_server_lives_on(tmp_path):
    with running(tmp_path, 1) as cluster:
        port = cluster.clients[cluster.leader()]
        for raw, status in [
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
            (b"PUT /v1/keys/x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
            (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b"413"),
        ]:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                with suppress(OSError):  # it may have answered and closed before it was told everything
                    connection.sendall(raw)
                assert connection.recv(1000).split(b" ")[1] == status
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in connection.recv(1000)
        assert cluster.call("n1", "GET", "/health")[0] == 200


@pytest.mark.slow
def test_kill_9_of_the_leader_loses_nothing_that_was_acknowledged(tmp_path):
    with running(tmp_path, 3, "--snapshot-entries", "20") as cluster:
        acknowledged = {}
        for round_number in range(4):
            for number in range(15):
                key = f"k{round_number}-{number}"
                at_leader(cluster, "PUT", f"/v1/keys/{key}", number)
                acknowledged[key] = number
            victim = cluster.leader()
            cluster.kill(victim)
            assert cluster.leader() != victim
            cluster.start(victim)
        for name in cluster.names:  # and everybody at once
            if name in cluster.running:
                cluster.kill(name)
        for name in cluster.names:
            cluster.start(name)
        assert len(acknowledged) == 60
        for key, value in acknowledged.items():
            assert at_leader(cluster, "GET", f"/v1/keys/{key}").body["value"] == value


def test_sigterm_hands_leadership_over(tmp_path):
    with running(tmp_path, 3, *CALM) as cluster:
        at_leader(cluster, "PUT", "/v1/keys/x", 1)
        leader = cluster.leader()
        assert cluster.terminate(leader) == 0
        assert cluster.leader() != leader
        assert at_leader(cluster, "GET", "/v1/keys/x").body["value"] == 1


def test_a_member_joins_a_running_cluster(tmp_path):
    with running(tmp_path, 3, *CALM) as cluster:
        at_leader(cluster, "PUT", "/v1/keys/x", 1)
        gone = cluster.follower()
        at_leader(cluster, "POST", "/members", {"remove": gone}, status=202)
        wait_until(lambda: gone not in roles(cluster.call(cluster.leader(), "GET", "/members")))
        cluster.kill(gone)
        at_leader(cluster, "PUT", "/v1/keys/x", 2)
        (tmp_path / gone).rename(tmp_path / "old")
        cluster.start(gone, "--join")
        at_leader(cluster, "POST", "/members", {"add": gone}, status=202)
        at_leader(cluster, "POST", "/members", {"add": gone}, status=400)
        wait_until(lambda: roles(cluster.call(gone, "GET", "/members")).get(gone) == "learner")
        at_leader(cluster, "POST", "/members", {"promote": gone}, status=202)
        wait_until(lambda: cluster.call(gone, "GET", "/status").body["config"]["voters"] == cluster.names)
        wait_until(lambda: not cluster.call(gone, "GET", "/status").body["config"]["outgoing"])
        assert cluster.call(gone, "GET", "/status").body["applied_index"] > 2


def test_a_member_that_no_setting_names_joins_by_its_address(tmp_path):
    with running(tmp_path, 3, *CALM) as cluster:
        at_leader(cluster, "PUT", "/v1/keys/x", 1)
        address = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
        cluster.clients["n4"] = int(address.rpartition(":")[2])
        cluster.start("n4", "--join", "--member", f"n4={address}")
        refused = at_leader(cluster, "POST", "/members", {"add": "n4"}, status=400)
        assert refused.body["error"].startswith("nobody has told this server where n4 is")
        at_leader(cluster, "POST", "/members", {"add": "n4", "address": "nowhere"}, status=400)
        at_leader(cluster, "POST", "/members", {"add": "n4", "address": address}, status=202)
        at_leader(cluster, "POST", "/members", {"promote": "n4"}, status=202)
        wait_until(lambda: roles(cluster.call("n1", "GET", "/members")).get("n4") == "voter")

        deadline = time.monotonic() + 60
        while cluster.leader() != "n4" and time.monotonic() < deadline:  # a busy machine may be late for one
            cluster.call(cluster.leader(), "POST", "/transfer", {"to": "n4"})
            time.sleep(0.2)
        assert cluster.leader() == "n4"
        cluster.kill("n1")
        cluster.start("n1")  # it has the address from its log
        at_leader(cluster, "PUT", "/v1/keys/x", 2)
        wait_until(lambda: cluster.call("n1", "GET", "/v1/keys/x").status in (200, 307))
        shown = {one["name"]: one for one in cluster.call("n1", "GET", "/members").body["members"]}
        assert f"{shown['n4']['peers']},{shown['n4']['clients']}" == address
        if (leader := cluster.leader()) != "n1":
            moved = cluster.call("n1", "GET", "/v1/keys/x").headers["Location"]
            assert moved == cluster.url(leader, "/v1/keys/x")

        at_leader(cluster, "POST", "/members", {"remove": "n4"}, status=202)
        wait_until(lambda: "n4" not in roles(cluster.call("n1", "GET", "/members")))
        at_leader(cluster, "POST", "/members", {"add": "n4"}, status=400)  # its address has gone with it


def roles(reply):
    """What who is in the cluster, as one server sees it."""
    return {member["name"]: member["role"] for member in reply.body["members"]}


def at_leader(cluster, method, path, body=None, status=200, timeout_s=30):
    """The answer of whoever leads, once it is this one: on a busy machine leaders change."""
    found = []

    def is_answered():
        for name in list(cluster.running):
            reply = cluster.call(name, method, path, body)
            if reply.status == status:
                found.append(reply)
                return True
        return False

    wait_until(is_answered, timeout_s)
    return found[0]


def wait_until(condition, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    pytest.fail(f"not within {timeout_s} s")


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "raft", *flags], check=False, capture_output=True, text=True, timeout=60
    )


def test_bad_settings_end_with_254_and_a_sentence():
    done = run("--name", "n1")
    assert (done.returncode, done.stderr) == (254, done.stderr)
    assert done.stderr.startswith("raft: member is not set")


def test_what_cannot_be_served_from_ends_with_255_and_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, other = taken.getsockname()[1], free_ports(1)[0]
        in_use = run("--name", "n1", "--data-dir", str(tmp_path / "d"), "--member", f"n1={other},{port}")
    no_directory = run("--name", "n1", "--data-dir", str(tmp_path / "file"), "--member", "n1=1,2")
    assert (in_use.returncode, no_directory.returncode) == (255, 255)
    assert f"raft: cannot listen to clients on 127.0.0.1:{port}: " in in_use.stderr
    assert "in use" in in_use.stderr
    assert no_directory.stderr == (
        f"raft: data_dir {tmp_path / 'file'} cannot be used: File exists; name a directory that can be written\n"
    )


def test_a_directory_of_another_server_is_refused(tmp_path):
    members = ["--member", "n1=1,2", "--member", "n2=3,4", "--data-dir", str(tmp_path)]
    disk = FileDisk(tmp_path)
    assert disk.owner() is None
    disk.claim("n1")
    disk.close()
    done = run("--name", "n2", *members)
    assert done.returncode == 254
    assert done.stderr == (
        f"raft: data_dir {tmp_path} is the directory of n1, and the name of this server is n2; "
        "give n2 a directory of its own, or set name to n1\n"
    )
    disk = FileDisk(tmp_path)
    assert (disk.owner(), disk.names()) == ("n1", [])
    (tmp_path / "lock").write_bytes((tmp_path / "lock").read_bytes().replace(b"n1", b"n3"))
    assert disk.owner() is None  # damage is no name
    disk.close()


def test_a_directory_made_before_names_stood_in_it_is_taken_over(tmp_path):
    with running(tmp_path, 1) as cluster:
        cluster.leader()
        assert cluster.call("n1", "PUT", "/v1/keys/x", 1).status == 200
        cluster.kill("n1")
        assert (tmp_path / "n1" / "lock").read_text().startswith("n1 ")
        (tmp_path / "n1" / "lock").write_bytes(b"")
        cluster.start("n1")
        cluster.leader()
        assert cluster.call("n1", "GET", "/v1/keys/x").body["value"] == 1
        assert (tmp_path / "n1" / "lock").read_text().startswith("n1 ")


def test_a_damaged_log_ends_with_255_and_a_sentence(tmp_path):
    (tmp_path / "wal-0000000000000001").write_bytes(b"raft-wal 1\n" + b"\xff" * 40 + frame(b"abc"))
    port, other = free_ports(2)
    member = f"n1=127.0.0.1:{port},127.0.0.1:{other}"
    done = run("--name", "n1", "--data-dir", str(tmp_path), "--member", member)
    assert done.returncode == 255
    assert "is damaged at byte 11" in done.stderr


def test_a_disk_that_cannot_be_written_ends_with_255_and_a_sentence(tmp_path):
    """As a full one: a limit on the size of files makes the write-ahead log fail."""
    with running(tmp_path, 1) as cluster:
        cluster.leader()
        acknowledged = 0
        process = cluster.running["n1"]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        with suppress(OSError):  # it answers until it cannot write, and then nobody does
            while acknowledged < 100:
                acknowledged += (
                    cluster.call("n1", "PUT", f"/v1/keys/k{acknowledged}", "x" * 2_000).status == 200
                )
        assert process.wait(30) == 255
        cluster.running.clear()
        log = cluster.log_file("n1").read_text()
        assert "the disk failed, so this server stops" in log
        assert log.splitlines()[-1] == (
            f"raft: data_dir {tmp_path / 'n1'} cannot be used: File too large; raise the limit on the size of files "
            "(ulimit -f), and start this server again"
        )
        cluster.start("n1")
        cluster.leader()
        found = cluster.call("n1", "GET", "/v1/keys?prefix=k&limit=1000").body["records"]
        assert len(found) >= acknowledged
        assert 5 < acknowledged < 100


def test_a_node_that_meets_what_cannot_be_ends_with_255_and_a_sentence(tmp_path):
    """Here somebody poses as another leader of the same term."""
    with running(tmp_path, 1) as cluster:
        cluster.leader()
        term = cluster.call("n1", "GET", "/status").body["term"]
        port = int(cluster.call("n1", "GET", "/members").body["members"][0]["peers"].rpartition(":")[2])
        encode = msgspec.msgpack.Encoder().encode
        with socket.create_connection(("127.0.0.1", port)) as impostor:
            impostor.sendall(frame(encode(Hello("raft", "n2"))))
            impostor.sendall(frame(encode([AppendEntries("n2", "n1", term, 0, 0, 0, 0, ())])))
            assert cluster.running["n1"].wait(30) == 255
        cluster.running.clear()
        log = cluster.log_file("n1").read_text()
        assert "another leader of the same term; this is a bug, the node stops here" in log
        assert log.splitlines()[-1].startswith(
            "raft: the node broke, so this server stops: ProtocolViolation: n1, leader"
        )


def test_idle_clients_leave_the_log_the_files_that_it_needs(tmp_path):
    (peers, port), clients = free_ports(2), []
    flags = [
        "--name",
        "n1",
        "--data-dir",
        str(tmp_path),
        "--member",
        f"n1={peers},{port}",
        "--snapshot-entries",
        "20",
    ]
    command = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh", sys.executable, "-m", "raft", *flags]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while len(clients) < 200:
            with suppress(ConnectionRefusedError):  # it is not there yet
                clients.append(socket.create_connection(("127.0.0.1", port), 30))
        put = b"PUT /v1/keys/x HTTP/1.1\r\nContent-Length: 1\r\n\r\n1"
        acknowledged = 0
        while acknowledged < 100:  # so that snapshots are taken
            answer = ask(clients[-1], put)
            assert answer
            acknowledged += answer == b"HTTP/1.1 200 OK"
        assert not ask(clients[0], put)  # it made room
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        for client in clients:
            client.close()


def ask(client, call):
    with suppress(ConnectionError):
        client.sendall(call)
        return client.recv(1000).split(b"\r\n")[0]


taken = []


class Transport:
    closed = False

    def close(self):
        self.closed = True


def guest(guests, name=None):
    """A connection that somebody has dialled."""
    inbound, transport = Inbound("raft", taken.append, lambda _name: None, guests, me="n1"), Transport()
    inbound.connection_made(transport)
    if name is not None:
        inbound.data_received(frame(msgspec.msgpack.encode(Hello("raft", name))))
    return inbound, transport


def test_a_server_that_takes_this_one_for_another_is_told_in_the_log_and_not_listened_to(caplog):
    inbound, transport = guest(Guests(), "n2")
    taken.clear()
    for dst in ("n1", "n3"):
        message = RequestVote("n2", dst, 1, 0, 0)
        inbound.data_received(frame(msgspec.msgpack.encode([message])))
    assert taken == [[RequestVote("n2", "n1", 1, 0, 0)]]
    assert transport.closed
    assert caplog.records[-1].fields["reason"] == (
        "n2 takes this server, n1, for n3: compare their --member lines"
    )


def test_a_server_that_dials_again_takes_the_place_of_its_former_connection():
    guests = Guests()
    came = [guest(guests, name) for name in ("n2", "n3", "n2")]
    assert [transport.closed for _, transport in came] == [True, False, False]
    for (inbound, _), left in zip(came, (2, 1, 0), strict=True):
        inbound.connection_lost(None)
        assert len(guests) == left


@pytest.mark.parametrize("name", [None, "n%d"])
def test_those_who_dial_are_never_too_many(name):
    guests = Guests(3)
    came = [guest(guests, name and name % number) for number in range(5)]
    assert [transport.closed for _, transport in came] == [True, True, False, False, False]
    assert len(guests) == 3


# -- frames -------------------------------------------------------------------------------------------------


def test_frames_survive_any_cutting():
    data = b"".join(frame(bytes([n]) * (n + 1)) for n in range(20))
    unframer, bodies = Unframer(1000), []
    for at in range(0, len(data), 7):
        bodies += unframer.feed(data[at : at + 7])
    assert bodies == [bytes([n]) * (n + 1) for n in range(20)]


def test_damaged_and_oversized_frames_end_the_connection():
    with pytest.raises(BadFrame, match="checksum"):
        Unframer(1000).feed(frame(b"abc")[:-1] + b"x")
    with pytest.raises(BadFrame, match="at most 2"):
        Unframer(2).feed(frame(b"abc"))


def test_messages_are_what_they_were_after_the_wire():
    decode = msgspec.msgpack.Decoder(Message).decode
    for message in (
        RequestVote("a", "b", 1, 2, 3, pre=True),
        AppendEntries("a", "b", 1, 2, 3, 4, 5, (Entry(3, 1, EntryKind.CONFIG, b"\x00x"),)),
    ):
        assert decode(msgspec.msgpack.encode(message)) == message
