"""Real processes on loopback: what is acknowledged survives `kill -9`."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import msgspec
import pytest

from raft.core import AppendEntries, Entry, EntryKind, Message, RequestVote
from raft.framing import BadFrame, Unframer, frame


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


class Cluster:
    def __init__(self, directory, size=3):
        ports = free_ports(2 * size)
        self.directory = directory
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.clients = dict(zip(self.names, ports[size:], strict=True))
        self.members = [
            f"{name}=127.0.0.1:{ports[at]},127.0.0.1:{ports[size + at]}" for at, name in enumerate(self.names)
        ]
        self.processes = {}

    def start(self, name, *flags):
        arguments = [flag for member in self.members for flag in ("--member", member)]
        command = [sys.executable, "-m", "raft", "--name", name, "--data-dir", str(self.directory / name)]
        command += [
            "--election-timeout-ms-min=300",
            "--election-timeout-ms-max=600",
        ]  # CI's machines are busy
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([*command, *arguments, *flags], stdout=log, stderr=log)

    def kill(self, name):
        self.processes[name].kill()
        self.processes.pop(name).wait()

    def call(self, name, method, path, body=None, headers=None):
        """Status, JSON and headers of one call."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.clients[name]}{path}", data, headers or {}, method=method
        )
        try:
            with OPENER.open(request, timeout=10) as answer:
                text, status, got = answer.read(), answer.status, answer.headers
        except urllib.error.HTTPError as error:
            text, status, got = error.read(), error.code, error.headers
        return status, json.loads(text) if got["Content-Type"] == "application/json" else text.decode(), got

    def leader(self, timeout_s=15):
        """The name of a leader that a majority of the running nodes agree on."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            seen = []
            for name in list(self.processes):
                try:
                    seen.append(self.call(name, "GET", "/leader")[1]["leader"])
                except OSError:
                    continue
            for name in self.processes:
                if seen.count(name) > len(self.names) // 2:
                    return name
            time.sleep(0.02)
        raise TimeoutError("no leader")

    def put(self, key, value):
        status, body, _ = self.call(self.leader(), "PUT", f"/v1/keys/{key}", value)
        return status, body


@contextmanager
def running(directory, size=3, *flags):
    cluster = Cluster(directory, size)
    try:
        for name in cluster.names:
            cluster.start(name, *flags)
        yield cluster
    finally:
        for process in cluster.processes.values():
            process.kill()
            process.wait()


def test_keys_over_http(tmp_path):
    with running(tmp_path) as cluster:
        leader = cluster.leader()

        def call(method, path, body=None, headers=None):
            return cluster.call(leader, method, path, body, headers)[:2]

        assert call("GET", "/v1/keys/x") == (200, {"value": None})
        assert call("PUT", "/v1/keys/x", {"a": [1, 1.0, True]}) == (200, {"ok": True})
        assert call("GET", "/v1/keys/x") == (200, {"value": {"a": [1, 1.0, True]}})
        assert call("POST", "/v1/keys/x", {"expected": 1, "new": 2}) == (
            409,
            {"current": {"a": [1, 1.0, True]}},
        )
        assert call("POST", "/v1/keys/y", {"expected": None, "new": 2}) == (200, {"ok": True})
        assert call("DELETE", "/v1/keys/x") == (200, {"ok": True})
        assert call("PUT", "/v1/keys/a%2Fb%20c", 1) == (200, {"ok": True})
        assert call("POST", "/v1/request", ["c", 1, ["get", "a/b c"]]) == (200, ["done", 1, 4, 4])

        who = {"Client": "me", "Seq": "1"}
        assert call("POST", "/v1/keys/z", {"expected": None, "new": 1}, who) == (200, {"ok": True})
        assert call("PUT", "/v1/keys/z", 5) == (200, {"ok": True})
        assert call("POST", "/v1/keys/z", {"expected": None, "new": 1}, who) == (200, {"ok": True})
        assert call("GET", "/v1/keys/z") == (200, {"value": 5})

        assert call("GET", "/nothing")[0] == 404
        assert call("DELETE", "/health")[0] == 405
        assert call("PATCH", "/v1/keys/x")[0] == 405
        assert call("PUT", "/v1/keys/x", None, {"Content-Length": "0"})[0] == 400
        assert call("PUT", "/v1/keys/x", 1, {"Client": "me", "Seq": "one"})[0] == 400
        assert call("POST", "/v1/request", {"not": "a request"})[0] == 400

        follower = next(name for name in cluster.names if name != leader)
        status, _, headers = cluster.call(follower, "GET", "/v1/keys/x")
        assert status == 307
        assert headers["Location"] == f"http://127.0.0.1:{cluster.clients[leader]}/v1/keys/x"
        assert cluster.call(follower, "POST", "/v1/transfer")[0] == 307

        assert call("GET", "/health") == (200, {"healthy": True})
        status, body = call("GET", "/status")
        assert (status, body["role"], body["config"]["voters"]) == (200, "leader", cluster.names)
        assert "raft_is_leader 1\n" in call("GET", "/metrics")[1]
        assert call("POST", "/v1/members", {"voters": []})[0] == 409
        assert call("POST", "/v1/transfer", {"to": "nobody"})[0] == 409


def test_bad_requests_get_an_answer_and_the_server_lives_on(tmp_path):
    with running(tmp_path, 1) as cluster:
        port = cluster.clients[cluster.leader()]
        for raw, status in [
            (b"nonsense\r\n\r\n", b"400"),
            (b"GET /health HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
            (b"PUT /v1/keys/x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
            (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", b"413"),
        ]:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(raw)
                assert connection.recv(1000).split(b" ")[1] == status
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
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
                status, _ = cluster.put(key, number)
                if status == 200:
                    acknowledged[key] = number
            victim = cluster.leader()
            cluster.kill(victim)
            assert cluster.leader() != victim
            cluster.start(victim)
        for name in cluster.names:  # and everybody at once
            if name in cluster.processes:
                cluster.kill(name)
        for name in cluster.names:
            cluster.start(name)
        leader = cluster.leader()
        assert len(acknowledged) > 50
        for key, value in acknowledged.items():
            assert cluster.call(leader, "GET", f"/v1/keys/{key}")[:2] == (200, {"value": value})


def test_sigterm_hands_leadership_over(tmp_path):
    with running(tmp_path) as cluster:
        leader = cluster.leader()
        cluster.put("x", 1)
        process = cluster.processes.pop(leader)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        new = cluster.leader()
        assert new != leader
        assert "TimeoutNow" not in (tmp_path / f"{new}.log").read_text()
        assert cluster.call(new, "GET", "/v1/keys/x")[:2] == (200, {"value": 1})


def test_a_member_joins_a_running_cluster(tmp_path):
    with running(tmp_path, 3) as cluster:
        cluster.put("x", 1)
        leader = cluster.leader()
        gone = next(name for name in cluster.names if name != leader)
        rest = [name for name in cluster.names if name != gone]
        assert cluster.call(leader, "POST", "/v1/members", {"voters": rest})[0] == 202
        time.sleep(0.5)
        cluster.kill(gone)
        assert cluster.put("x", 2)[0] == 200
        (tmp_path / gone).rename(tmp_path / "old")
        cluster.start(gone, "--join")
        assert cluster.call(leader, "POST", "/v1/members", {"voters": cluster.names})[0] == 202
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                status = cluster.call(gone, "GET", "/status")[1]
                if status["config"]["voters"] == cluster.names and not status["config"]["outgoing"]:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        assert status["config"]["voters"] == cluster.names
        assert status["applied_index"] > 2


def run(*flags):
    return subprocess.run(
        [sys.executable, "-m", "raft", *flags], check=False, capture_output=True, text=True, timeout=30
    )


def test_bad_settings_end_with_254_and_a_sentence():
    done = run("--name", "n1")
    assert (done.returncode, done.stderr) == (254, done.stderr)
    assert done.stderr.startswith("raft: member is not set")


def test_a_damaged_log_ends_with_255_and_a_sentence(tmp_path):
    (tmp_path / "wal-0000000000000001").write_bytes(b"raft-wal 1\n" + b"\xff" * 40 + frame(b"abc"))
    port, other = free_ports(2)
    member = f"n1=127.0.0.1:{port},127.0.0.1:{other}"
    done = run("--name", "n1", "--data-dir", str(tmp_path), "--member", member)
    assert done.returncode == 255
    assert "is damaged at byte 11" in done.stderr


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
