"""Every call that a client can make, against one real server."""

import http.client
import json
import socket
import threading
import time

import pytest

from raft.testing.processes import running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(tmp_path_factory.mktemp("cluster"), 1) as cluster:
        cluster.leader()
        yield cluster


@pytest.fixture
def call(cluster):
    def call(method, path, body=None, **headers):
        return cluster.call("n1", method, path, body, headers)[:2]

    call.port = cluster.clients["n1"]
    return call


def test_keys(call):
    status, body = call("GET", "/v1/keys/k")
    assert (status, body["value"], body["mod_revision"]) == (200, None, 0)
    _, put = call("PUT", "/v1/keys/k", {"a": [1, 1.0, True]})
    assert put == {"ok": True, "mod_revision": put["revision"], "revision": put["revision"]}
    _, body = call("GET", "/v1/keys/k")
    assert body == {
        "key": "k",
        "value": {"a": [1, 1.0, True]},
        "create_revision": put["revision"],
        "mod_revision": put["revision"],
        "version": 1,
        "lease": "",
        "revision": put["revision"],
    }
    status, body = call("POST", "/v1/keys/k", {"expected": 1, "new": 2})
    assert (status, body["current"]) == (409, {"a": [1, 1.0, True]})
    assert call("POST", "/v1/keys/k2", {"expected": None, "new": 2})[0] == 200
    assert call("DELETE", "/v1/keys/k")[0] == 200
    assert call("GET", "/v1/keys/k")[1]["value"] is None
    assert call("PUT", "/v1/keys/a%2Fb%20c", 1)[0] == 200
    assert call("POST", "/v1/request", ["c", 1, ["get", "a/b c"]])[1][:2] == ["done", 1]


def test_a_repeated_write_takes_effect_once(call):
    who = {"Client": "me", "Seq": "1"}
    first = call("POST", "/v1/keys/z", {"expected": None, "new": 1}, **who)
    assert first[0] == 200
    assert call("PUT", "/v1/keys/z", 5)[0] == 200
    assert call("POST", "/v1/keys/z", {"expected": None, "new": 1}, **who) == first
    assert call("GET", "/v1/keys/z")[1]["value"] == 5


def test_ranges(call):
    for key in ("r/1", "r/2", "r/3", "s"):
        call("PUT", f"/v1/keys/{key}", key)
    _, body = call("GET", "/v1/keys?prefix=r/&limit=2")
    assert [record["value"] for record in body["records"]] == ["r/1", "r/2"]
    assert body["more"]
    _, body = call("GET", "/v1/keys?start=r/2&end=s")
    assert [record["key"] for record in body["records"]] == ["r/2", "r/3"]
    assert call("DELETE", "/v1/keys?prefix=r/")[1]["deleted"] == 3
    assert call("GET", "/v1/keys?prefix=r/")[1]["records"] == []


def test_transactions(call):
    call("PUT", "/v1/keys/t", 1)
    txn = {
        "compare": [{"key": "t", "target": "version", "relation": ">", "operand": 0}],
        "then": [{"put": {"key": "t", "value": 2}}, {"get": {"key": "t"}}, {"range": {"prefix": "t"}}],
        "else": [{"delete": {"key": "t"}}, {"txn": {"then": [{"put": {"key": "u", "value": 1}}]}}],
    }
    status, body = call("POST", "/v1/txn", txn)
    assert (status, body["succeeded"], body["results"][0]) == (200, True, None)
    assert body["results"][1]["value"] == 2
    txn["compare"][0]["operand"] = 100
    _, body = call("POST", "/v1/txn", txn)
    assert body["results"] == [1, {"succeeded": True, "results": [None]}]
    status, body = call("POST", "/v1/txn", {"ops": [["append", "l", 1], ["r", "l", None]]})
    assert (status, body["ops"]) == (200, [["append", "l", 1], ["r", "l", [1]]])
    assert call("POST", "/v1/txn", {"ops": [["w", "l", 1]], "guards": [["l", 7]]})[0] == 409


def test_leases(call):
    status, body = call("POST", "/v1/leases", {"ttl_ms": 60_000, "lease": "l"})
    assert (status, body["lease"], body["ttl_ms"]) == (200, "l", 60_000)
    assert call("POST", "/v1/leases", {"ttl_ms": 60_000, "lease": "l"})[0] == 409
    assert call("PUT", "/v1/keys/leased?lease=l", 1)[0] == 200
    assert call("PUT", "/v1/keys/leased?lease=gone", 1) == (
        404,
        {"error": "there is no lease 'gone': it has ended, or never was"},
    )
    _, body = call("GET", "/v1/leases/l")
    assert body["keys"] == ["leased"]
    assert 50_000 < body["left_ms"] <= 60_000
    assert call("POST", "/v1/leases/l")[1]["ttl_ms"] == 60_000
    assert call("GET", "/v1/leases")[1]["leases"] == ["l"]
    assert call("DELETE", "/v1/leases/l")[1]["deleted"] == 1
    assert call("GET", "/v1/keys/leased")[1]["value"] is None
    assert call("DELETE", "/v1/leases/l")[0] == 404


def test_sessions(call):
    session = call("POST", "/v1/sessions", {"ttl_ms": 60_000})[1]["session"]
    assert call("PUT", "/v1/keys/s", 1, Client=session, Seq="1")[0] == 200
    assert call("POST", f"/v1/sessions/{session}", None, Client=session, Seq="2")[1]["ttl_ms"] == 60_000
    assert call("POST", f"/v1/sessions/{session}")[0] == 400
    assert call("DELETE", f"/v1/sessions/{session}", None, Client=session, Seq="3")[0] == 200
    assert call("PUT", "/v1/keys/s", 1, Client=session, Seq="4")[0] == 404


def test_a_watch_is_a_stream_that_goes_on(cluster, call):
    connection = http.client.HTTPConnection("127.0.0.1", cluster.clients["n1"], timeout=10)
    connection.request("GET", "/v1/watch?prefix=w/")
    answer = connection.getresponse()
    assert answer.status == 200
    began = json.loads(answer.readline())
    assert began["events"] == []
    call("PUT", "/v1/keys/w/1", 1)
    call("PUT", "/v1/keys/elsewhere", 1)
    call("DELETE", "/v1/keys/w/1")
    events = []
    while len(events) < 2:
        events += json.loads(answer.readline())["events"]
    connection.close()
    assert [event["type"] for event in events] == ["put", "delete"]
    _, again = call("GET", f"/v1/watch?key=w/1&after={began['revision']}&wait_ms=1")
    assert again["events"] == events


def test_a_watch_may_wait_for_one_answer(cluster, call):
    after = call("GET", "/v1/keys/w")[1]["revision"]
    answers = []
    thread = threading.Thread(
        target=lambda: answers.append(call("GET", f"/v1/watch?key=w&after={after}&wait_ms=9000"))
    )
    thread.start()
    call("PUT", "/v1/keys/w", "woken")
    thread.join()
    assert [event["value"] for event in answers[0][1]["events"]] == ["woken"]
    assert call("GET", f"/v1/watch?key=w&after={after + 1}&wait_ms=10")[1]["events"] == []


def test_the_committed_log(call):
    call("PUT", "/v1/keys/logged", "here", Client="logger", Seq="1")
    _, body = call("GET", "/v1/log?after=0")
    assert body["entries"][0]["kind"] in ("noop", "config", "command")
    assert [e["index"] for e in body["entries"]] == list(range(1, body["commit_index"] + 1))
    assert ["logger", 1, ["put", "logged", "here", ""]] in [entry["request"] for entry in body["entries"]]
    assert call("GET", f"/v1/log?after={body['commit_index']}")[1]["entries"] == []


def test_what_operators_see(call):
    assert call("GET", "/health") == (200, {"healthy": True})
    assert call("GET", "/leader")[0] == 200
    _, status = call("GET", "/status")
    assert (status["role"], status["config"]["voters"], status["peers"]) == ("leader", ["n1"], {})
    metrics = call("GET", "/metrics")[1].splitlines()
    assert "raft_is_leader 1" in metrics
    assert "# TYPE raft_request_seconds histogram" in metrics
    count = next(line for line in metrics if line.startswith("raft_request_seconds_count"))
    last = next(line for line in metrics if line.startswith('raft_request_seconds_bucket{le="+Inf"'))
    assert count.split()[1] == last.split()[1] != "0"
    names = [line.split()[2] for line in metrics if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) > 20


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("GET", "/nothing", None, 404, "there is no GET /nothing"),
        ("DELETE", "/health", None, 405, "there is no DELETE /health"),
        ("PATCH", "/v1/keys/x", None, 405, "there is no PATCH"),
        ("DELETE", "/v1/keys", None, 405, "without naming one"),
        ("POST", "/v1/request", {"not": "one"}, 400, "not what it should be"),
        ("POST", "/v1/leases", {"ttl_ms": 0}, 400, "it must be from 1 to"),
        ("POST", "/v1/leases", {"ttl": 5}, 400, "unknown field"),
        (
            "POST",
            "/v1/txn",
            {"compare": [{"key": "x", "target": "size", "operand": 1}]},
            400,
            "'size' is nothing",
        ),
        ("POST", "/v1/txn", {"then": [{}]}, 400, "is one of put, get"),
        ("POST", "/v1/txn", {"ops": [["increment", "x", 1]]}, 400, "is no operation"),
        ("GET", "/v1/keys?prefix=x&limit=many", None, 400, "limit is 'many'"),
        ("GET", "/v1/watch?key=x&after=soon", None, 400, "after is 'soon'"),
        ("GET", "/v1/keys?prefx=x", None, 400, "the query has 'prefx'; there is prefix, start, end, limit"),
        ("DELETE", "/v1/keys?prefx=x", None, 400, "the query has 'prefx'; there is prefix, start, end"),
        ("DELETE", "/v1/keys?prefix=x&limit=1", None, 400, "the query has 'limit'"),
        ("PUT", "/v1/keys/x?leas=y", 1, 400, "the query has 'leas'; there is lease"),
        ("GET", "/v1/watch?keys=x", None, 400, "the query has 'keys'; there is key, prefix"),
        ("POST", "/v1/txn", {"ops": [["w", "x", 1]] * 10_001}, 413, "of 10001 conditions and operations"),
        (
            "POST",
            "/v1/txn",
            {
                "then": [{"txn": {"else": [{"get": {"key": "x"}}] * 6_000}}],
                "else": [{"get": {"key": "x"}}] * 6_000,
            },
            413,
            "of 12000 conditions and operations; at most 10000",
        ),
        ("POST", "/v1/request", ["c", 1, ["txn", [["w", "x", 1]] * 10_001]], 413, "at most 10000 are taken"),
        ("POST", "/members", {"voters": []}, 409, "a cluster needs voters"),
        ("POST", "/members", {"add": "n9", "address": "a:0,b:1"}, 400, "has the port 0"),
        ("POST", "/members", {"add": "n\n9", "address": "a:1,b:1"}, 400, "cannot be printed"),
        ("POST", "/members", {"add": "n9"}, 400, "where n9 is"),
        ("POST", "/members", {"add": "n1"}, 400, "is a member already"),
        ("POST", "/members", {"promote": "n1"}, 400, "is no learner"),
        ("POST", "/members", {"remove": "n9"}, 400, "is no member"),
        ("POST", "/members", {}, 400, "say one of"),
        ("POST", "/transfer", {"to": "nobody"}, 409, "cannot go to 'nobody': it is no other voter"),
        ("POST", "/transfer", {}, 409, "cannot go to anybody: there is no other voter"),
    ],
)
def test_what_cannot_be_is_said(call, method, path, body, status, why):
    got, answer = call(method, path, body)
    assert got == status
    assert why in answer["error"]


def test_names_that_are_no_text_are_refused_rather_than_confused(call):
    for path in ("/v1/keys/%FF", "/v1/keys?prefix=%FE", "/v1/watch?key=%FF", "/v1/leases/%FF"):
        status, answer = call("GET", path)
        assert (status, "utf-8" in answer["error"]) == (400, True)


@pytest.mark.parametrize("sent", [b"\xd1\x84", b"%D1%84", b"%d1\x84"])
def test_a_name_is_the_same_with_and_without_escapes(call, sent):
    """A head that is read as Latin-1 would make two names of one."""
    assert call("PUT", "/v1/keys/%D1%84", 5)[0] == 200
    for path in (b"/v1/keys/" + sent, b"/v1/keys?prefix=" + sent):
        with socket.create_connection(("127.0.0.1", call.port), timeout=10) as client:
            client.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
            head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
        if sent.startswith(b"%d1\x84"):
            assert head.startswith(b"HTTP/1.1 400 ")
        else:
            found = json.loads(body)
            assert (found if "key" in found else found["records"][0]).items() >= {
                "key": "ф",
                "value": 5,
            }.items()


@pytest.mark.parametrize("deep", [101, 990, 100_000])
def test_what_is_nested_too_deep_is_refused(call, deep):
    whole = {"value": []}
    for _ in range(98):
        whole = [whole]
    assert call("PUT", "/v1/keys/deep", whole)[0] == 200
    assert call("PUT", "/v1/keys/flat", [[]] * 500)[0] == 200
    assert call("PUT", "/v1/keys/text", '[{\\"[[' * 500)[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", call.port, timeout=10)
    connection.request("PUT", "/v1/keys/deep", "[" * deep + "]" * deep)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())) == (
        400,
        {"error": "the JSON is nested more than 100 deep"},
    )
    connection.close()


def test_head_is_get_without_the_body(call):
    connection = http.client.HTTPConnection("127.0.0.1", call.port, timeout=10)
    for path, status in (("/health", 200), ("/leader", 200), ("/nothing", 404), ("/v1/watch?key=x", 200)):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read()) == {"healthy": True}
    connection.close()


def test_a_number_must_go_with_a_client(call):
    assert call("PUT", "/v1/keys/x", 1, Client="me", Seq="one")[0] == 400
    assert call("PUT", "/v1/keys/x", None)[0] == 400


def waited(is_so):
    deadline = time.monotonic() + 20
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert is_so()


def test_a_name_stands_in_metrics_as_prometheus_wants_it(call):
    assert call("POST", "/members", {"add": 'a"\\b', "address": "127.0.0.1:1,127.0.0.1:2"})[0] == 202
    metrics = call("GET", "/metrics")[1]
    assert 'raft_peer_match_index{peer="a\\"\\\\b"} 0\n' in metrics
    waited(lambda: call("POST", "/members", {"remove": 'a"\\b'})[0] != 409)
    waited(lambda: len(call("GET", "/members")[1]["members"]) == 1)


def watches(cluster):
    body = cluster.call("n1", "GET", "/metrics", None, {})[1]
    return int(next(line for line in body.splitlines() if line.startswith("raft_watches ")).split()[1])


@pytest.mark.parametrize("how", [b"", b"&wait_ms=50000"])
def test_a_client_that_goes_away_leaves_nothing_behind(cluster, how):
    with socket.create_connection(("127.0.0.1", cluster.clients["n1"])) as connection:
        connection.sendall(b"GET /v1/watch?key=nobody%b HTTP/1.1\r\n\r\n" % how)
        waited(lambda: watches(cluster) == 1)
    waited(lambda: watches(cluster) == 0)
