"""The HTTP transport against servers that behave, and that do not."""

import asyncio
import socket
from contextlib import asynccontextmanager

import msgspec
import pytest

from harness.clusters.http import CONNECT_TIMEOUT_S, Connection, HttpTransport, fetch
from harness.systems.base import Call
from harness.transport import Lost, NotSent


class Echo:
    """A service whose requests and answers are JSON."""

    client_port = 0
    status_path = "/status"

    def encode(self, request):
        return Call("POST", "/", msgspec.json.encode(request))

    def decode(self, status, body):
        return (status, msgspec.json.decode(body))


class Server:
    """Counts connections and requests, and answers as it is told."""

    def __init__(self, reply):
        self.reply = reply
        self.connections = 0
        self.requests = []

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                self.requests.append(msgspec.json.decode(body) if body else head.split()[1])
                if not await self.reply(writer, body):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def echo(writer, body):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return True


async def echo_and_close(writer, body):
    await echo(writer, body)
    return False


@asynccontextmanager
async def serving(reply):
    server = Server(reply)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=500)
    port = listener.sockets[0].getsockname()[1]

    async def dial(_node):
        return Connection(*await asyncio.open_connection("127.0.0.1", port))

    try:
        yield server, dial
    finally:
        listener.close()


def transport(dial, connect_timeout_s=30):
    """Patient by default: what a busy machine delays is not what is tested."""
    return HttpTransport(dial, Echo(), lambda _: None, connect_timeout_s)


async def until_it_arrives():
    """Lets the loop take in what is there already: so many rounds, however long each takes."""
    for _ in range(20):
        await asyncio.sleep(0.0025)


def test_one_connection_carries_all_requests_of_a_process():
    async def main():
        async with serving(echo) as (server, dial):
            client = transport(dial)
            answers = [await client.request("n1", [number]) for number in range(20)]
            assert answers == [(200, [number]) for number in range(20)]
            assert server.connections == 1
            await client.request("n2", "another node")
            assert server.connections == 2
            await client.close()

    asyncio.run(main())


def test_a_refused_connection_was_not_sent():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody else gets it while it is bound, and nobody listens

        async def dial(_node):
            return Connection(*await asyncio.open_connection("127.0.0.1", port))

        with pytest.raises(NotSent, match="n1"):
            asyncio.run(transport(dial).request("n1", 1))


def test_a_connection_that_does_not_come_about_was_not_sent():
    async def dial(_node):
        await asyncio.sleep(30)

    with pytest.raises(NotSent, match="n1: no connection in time"):
        asyncio.run(transport(dial, CONNECT_TIMEOUT_S).request("n1", 1))


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"SSH-2.0-hello\r\n\r\n",
        b"x" * 100_000,
    ],
)
def test_after_the_first_byte_everything_is_lost(said):
    async def reply(writer, _body):
        writer.write(said)
        return False

    async def main():
        async with serving(reply) as (server, dial):
            with pytest.raises(Lost, match="n1"):
                await transport(dial).request("n1", 1)
            assert server.requests == [1]

    asyncio.run(main())


def test_a_reset_is_lost():
    async def reply(writer, _body):
        writer.transport.abort()
        return False

    async def main():
        async with serving(reply) as (_, dial):
            with pytest.raises(Lost):
                await transport(dial).request("n1", 1)

    asyncio.run(main())


def test_a_connection_closed_in_between_is_replaced_before_anything_is_sent():
    async def main():
        async with serving(echo_and_close) as (server, dial):
            client = transport(dial)
            for number in range(3):
                assert await client.request("n1", number) == (200, number)
                await until_it_arrives()  # the end of the connection
            assert server.requests == [0, 1, 2], "each exactly once"
            assert server.connections == 3
            await client.close()

    asyncio.run(main())


def test_a_late_answer_is_not_taken_for_the_next_one():
    async def reply(writer, body):
        if body == b'"slow"':
            await asyncio.sleep(0.2)
        return await echo(writer, body)

    async def main():
        async with serving(reply) as (server, dial):
            client = transport(dial)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.request("n1", "slow")
            assert await client.request("n1", "next") == (200, "next")
            await asyncio.sleep(0.2)
            assert await client.request("n1", "last") == (200, "last")
            assert server.connections == 2
            await client.close()

    asyncio.run(main())


def test_what_nobody_asked_for_ends_a_kept_connection():
    async def reply(writer, body):
        await echo(writer, body)
        await echo(writer, b'"unasked"')
        return True

    async def main():
        async with serving(reply) as (_, dial):
            client = transport(dial)
            for number in range(3):
                assert await client.request("n1", number) == (200, number)
                await until_it_arrives()
            await client.close()

    asyncio.run(main())


def test_two_hundred_clients():
    async def main():
        async with serving(echo) as (server, dial):
            clients = [transport(dial) for _ in range(200)]

            async def work(number):
                for turn in range(5):
                    assert await clients[number].request("n1", [number, turn]) == (200, [number, turn])

            await asyncio.gather(*map(work, range(200)))
            assert server.connections == 200
            assert len(server.requests) == 1000
            for client in clients:
                client.drop()

    asyncio.run(main())


def test_fetch_answers_or_gives_none():
    async def slow(_writer, _body):
        await asyncio.sleep(30)

    async def main():
        async with serving(echo) as (server, dial):
            assert (await fetch(dial, "n1", "/status", 30)).status == 200
            assert server.requests == ["/status"]
        async with serving(slow) as (_, dial):
            assert await fetch(dial, "n1", "/status", 0.05) is None

    asyncio.run(main())
