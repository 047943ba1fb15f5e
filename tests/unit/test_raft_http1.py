"""HTTP/1.1 as bytes on a transport: what is taken, what is refused, and in which order it is answered."""

import asyncio

import pytest

from raft.http1 import BODY_BYTES_MAX, HEAD_BYTES_MAX, Answer, Connection, Http1, Refusal


class Transport:
    """Collects what is written."""

    def __init__(self):
        self.written = b""
        self.closed = False
        self.reading = True
        self.tls = None

    def write(self, data):
        assert not self.closed
        self.written += data

    def close(self):
        self.closed = True

    def get_extra_info(self, name):
        return self.tls if name == "sslcontext" else None

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def take(self):
        written, self.written = self.written, b""
        return written


class Client:
    """A connection whose calls are answered at once, or by `answer` if they are to `/later`."""

    def __init__(self):
        self.calls = []
        self.open = []
        self.http1 = Http1(self.handle, self.refuse)
        self.transport = Transport()
        self.connection: Connection = self.http1.connection()
        self.connection.connection_made(self.transport)

    def handle(self, call, respond):
        self.calls.append(call)
        if call.path == "/later":
            self.open.append(respond)
        elif call.path == "/stream":
            respond(Answer(200, b"", chunks=chunks(self.connection)))
        elif call.path == "/refused":
            raise Refusal(403, "no")
        else:
            respond(Answer(200, call.body or b"{}"))

    def refuse(self, refusal):
        return Answer(refusal.status, str(refusal).encode())

    def send(self, data):
        self.connection.data_received(data)
        return self.transport.take()


async def chunks(connection):
    yield b"first"
    yield b""
    connection.pause_writing()
    asyncio.get_running_loop().call_later(0.01, connection.resume_writing)
    yield b"second"


def head(answer):
    return answer.split(b"\r\n")[0]


def test_a_call_is_taken_apart():
    client = Client()
    answer = client.send(b"PUT /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nContent-Length:  2\r\nSEQ: 7\r\n\r\nhi")
    assert client.calls[0] == (
        "PUT",
        "/a%20b",
        "x=1",
        {"host": "h", "content-length": "2", "seq": "7"},
        b"hi",
    )
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\nhi"


def test_a_call_may_come_byte_by_byte():
    async def run():
        client = Client()
        call = b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"
        assert [client.send(call[at : at + 1]) for at in range(len(call) - 1)] == [b""] * (len(call) - 1)
        assert head(client.send(call[-1:])) == b"HTTP/1.1 200 OK"

    asyncio.run(run())


def test_calls_sent_ahead_are_answered_in_order():
    client = Client()
    assert client.send(b"GET /later HTTP/1.1\r\n\r\nPUT /x HTTP/1.1\r\nContent-Length: 1\r\n\r\n2") == b""
    assert client.send(b"PUT /y HTTP/1.1\r\nContent-Length: 1\r\n\r\n3") == b""
    client.open[0](Answer(409, b"1"))
    answers = client.transport.take()
    assert [part[-1:] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"1", b"2", b"3"]


def test_what_is_sent_too_far_ahead_is_left_in_the_socket():
    client = Client()
    client.send(b"GET /later HTTP/1.1\r\n\r\n")
    client.send(b"x" * (HEAD_BYTES_MAX + BODY_BYTES_MAX + 1))
    assert not client.transport.reading
    client.open[0](Answer(200, b""))
    assert client.transport.reading


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/2.0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x" * HEAD_BYTES_MAX, b"413"),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"413"),
        (b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1), b"413"),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /refused HTTP/1.1\r\n\r\n", b"403"),
    ],
)
def test_what_is_no_call_is_answered_with_why_and_ends_the_connection(call, status):
    client = Client()
    assert head(client.send(call)).split()[1] == status
    assert client.transport.closed


@pytest.mark.parametrize(
    ("call", "closes"),
    [
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nConnection: TE, close\r\n\r\n", True),
    ],
)
def test_a_connection_lives_as_long_as_the_client_wishes(call, closes):
    client = Client()
    answer = client.send(call)
    assert client.transport.closed == closes
    assert (b"Connection: close\r\n" in answer) == closes


def test_a_client_that_asks_first_is_told_to_go_on_once():
    async def run():
        client = Client()
        call = b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        assert client.send(call) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"h") == b""
        assert head(client.send(b"i")) == b"HTTP/1.1 200 OK"

    asyncio.run(run())


def test_half_a_call_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr("raft.http1._HALF_CALL_S_MAX", 0.01)

    async def run():
        client = Client()
        assert client.send(b"GET / HT") == b""
        for _ in range(20):
            await asyncio.sleep(0.0025)
        assert head(client.transport.take()).split()[1] == b"408"
        assert client.transport.closed

    asyncio.run(run())


def test_a_stream_is_sent_in_chunks_no_faster_than_it_is_taken():
    async def run():
        client = Client()
        client.send(b"GET /stream HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\n")
        for _ in range(20):  # rounds of the loop, however long each takes
            await asyncio.sleep(0.0025)
        written = client.transport.take()
        body, _, after = written.partition(b"\r\n\r\n")[2].partition(b"0\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in written
        assert body == b"5\r\nfirst\r\n6\r\nsecond\r\n"
        assert head(after) == b"HTTP/1.1 200 OK"

    asyncio.run(run())


def test_who_knows_no_chunks_gets_a_stream_that_ends_with_its_connection():
    async def run():
        client = Client()
        client.send(b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        for _ in range(20):
            await asyncio.sleep(0.0025)
        head_, _, body = client.transport.take().partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head_
        assert b"Connection: close" in head_
        assert body == b"firstsecond"
        assert client.transport.closed

    asyncio.run(run())


def test_head_gets_no_body():
    client = Client()
    answer = client.send(b"HEAD /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nhiGET /y HTTP/1.1\r\n\r\n")
    assert [call.method for call in client.calls] == ["GET", "GET"]
    assert b"Content-Length: 2\r\n" in answer
    assert b"hi" not in answer
    assert answer.endswith(b"{}")
    stream = client.send(b"HEAD /stream HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert stream.endswith(b"\r\n\r\n")
    assert client.transport.closed


def test_a_stream_ends_with_its_connection():
    async def run():
        client = Client()
        client.connection.pause_writing()
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        await asyncio.sleep(0.01)
        client.connection.connection_lost(None)
        await asyncio.sleep(0.01)
        assert b"second" not in client.transport.take()
        assert not client.http1.connections

    asyncio.run(run())


def test_answers_to_a_client_that_is_gone_go_nowhere():
    client = Client()
    client.send(b"GET /later HTTP/1.1\r\n\r\n")
    client.http1.close()
    client.open[0](Answer(200, b""))
    assert client.transport.take() == b""


def test_there_are_never_too_many_connections():
    client = Client()
    client.http1.connections_max = 1
    client.send(b"GET /later HTTP/1.1\r\n\r\n")
    second, third = Transport(), Transport()
    client.http1.connection().connection_made(second)
    assert second.closed
    assert second.written.startswith(b"HTTP/1.1 503 ")
    assert not client.transport.closed
    client.open[0](Answer(200, b""))  # now it asks nothing, and makes room
    client.http1.connection().connection_made(third)
    assert client.transport.closed
    assert not third.closed
    assert len(client.http1.connections) == 1


@pytest.mark.parametrize(
    "header",
    [
        "Content-Length : 5",
        "Content-Length: 5\r\nContent-Length: 6",
        " folded: value",
        "no colon",
        ": no name",
        "Host: a\r\nHost: b",
    ],
)
def test_what_a_proxy_might_read_differently_is_refused(header):
    client = Client()
    answer = client.send(f"PUT /x HTTP/1.1\r\n{header}\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n".encode())
    assert head(answer) == b"HTTP/1.1 400 Bad Request"
    assert client.calls == []
    assert client.transport.closed


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://h:80/v1/keys/a?x=1", "/v1/keys/a", "x=1"),
        ("HTTP://h/a://b", "/a://b", ""),
        ("https://h", "/", ""),
        ("http://h?x=/", "/", "x=/"),
        ("ftp://h/a", "ftp://h/a", ""),
        ("*", "*", ""),
    ],
)
def test_a_target_may_name_the_server_too(target, path, query):
    client = Client()
    assert head(client.send(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode())) == b"HTTP/1.1 200 OK"
    assert client.calls[0][1:3] == (path, query)


@pytest.mark.parametrize("cut", [False, True])
def test_an_empty_line_before_a_call_is_ignored_and_many_are_not(cut):
    async def run():
        client, call = Client(), b"GET /x HTTP/1.1\r\n\r\n"
        pieces = [b"\r", b"\n", b"\r", b"\n" + call] if cut else [b"\r\n\r\n" + call]
        for _ in range(2):
            assert b"".join(map(client.send, pieces)).startswith(b"HTTP/1.1 200 OK")
        assert client.send(b"\r\n") == b""
        assert client.connection.is_idle
        assert client.connection._timer is None  # nobody waits for the other half
        assert client.send(b"\r\n\r\n" + call).startswith(b"HTTP/1.1 400 ")
        assert client.transport.closed

    asyncio.run(run())


def test_who_sends_no_more_gets_its_answers_and_then_the_end():
    client = Client()
    client.send(b"GET /later HTTP/1.1\r\n\r\nGET /later HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\nGET /half")
    assert client.connection.eof_received()
    client.open[0](Answer(200, b"1"))
    assert not client.transport.closed
    client.open[1](Answer(200, b"2"))
    answers = client.transport.take()
    assert [part[-1:] for part in answers.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"}"]
    assert client.transport.closed


@pytest.mark.parametrize("sent", [b"", b"GET /x HTTP/1.1\r\n\r\n", b"GET /half"])
def test_who_sends_no_more_and_waits_for_nothing_is_gone(sent):
    async def run():
        client = Client()
        client.send(sent)
        assert not client.connection.eof_received()
        client.connection.connection_lost(None)

    asyncio.run(run())


def test_tls_ends_as_a_whole():
    client = Client()
    client.transport.tls = object()
    client.send(b"GET /later HTTP/1.1\r\n\r\n")
    assert not client.connection.eof_received()
