"""What an HTTP/1.1 server costs a call: our own protocol beside h11, httptools and aiohttp.

Each answers the same PUT with the same JSON and does nothing else, in a process of its own on asyncio's loop (or
uvloop's with --uvloop); the load is a closed loop of bare sockets. Rounds alternate, and the best of each is kept,
for what disturbs a measurement only ever makes it slower. Libraries that are not installed are left out:

    pip install h11 httptools aiohttp
    python benchmarks/http_servers.py --seconds 2 --rounds 3 [--connections 16] [--uvloop] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

ANSWER = b'{"ok":true,"mod_revision":123456,"revision":123456}'
BODY = b'{"some":"value","of":"a usual size","n":12345}'
CALL = (
    b"PUT /v1/keys/some-key HTTP/1.1\r\nHost: 127.0.0.1\r\nClient: c17\r\nSeq: 42\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


# -- servers -------------------------------------------------------------------------------------------------


async def serve_own(sock):
    from raft.http1 import Answer, Http1

    http1 = Http1(lambda _call, respond: respond(Answer(200, ANSWER)), lambda _refusal: Answer(400, b""))
    return await asyncio.get_running_loop().create_server(http1.connection, sock=sock)


async def serve_h11(sock):
    import h11

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.h11, self.body = transport, h11.Connection(h11.SERVER), b""

        def data_received(self, data):
            self.h11.receive_data(data)
            while (event := self.h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Data):
                    self.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    headers = [("content-length", str(len(ANSWER))), ("content-type", "application/json")]
                    out = self.h11.send(h11.Response(status_code=200, headers=headers))
                    out += self.h11.send(h11.Data(data=ANSWER)) + self.h11.send(h11.EndOfMessage())
                    self.transport.write(out)
                    self.h11.start_next_cycle()
                    self.body = b""

    return await asyncio.get_running_loop().create_server(Connection, sock=sock)


async def serve_httptools(sock):
    import httptools

    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n" % len(ANSWER)

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.parser = transport, httptools.HttpRequestParser(self)
            self.headers, self.body, self.path = {}, b"", ""

        def data_received(self, data):
            self.parser.feed_data(data)

        def on_url(self, url):
            self.path = url.decode("latin-1")

        def on_header(self, name, value):
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

        def on_body(self, body):
            self.body += body

        def on_message_complete(self):
            self.transport.write(head + ANSWER)
            self.headers, self.body = {}, b""

    return await asyncio.get_running_loop().create_server(Connection, sock=sock)


async def serve_aiohttp(sock):
    from aiohttp import web

    async def handle(request):
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    app = web.Application()
    app.router.add_put("/v1/keys/{key}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.SockSite(runner, sock)
    await site.start()
    return runner


SERVERS = {"own": serve_own, "h11": serve_h11, "httptools": serve_httptools, "aiohttp": serve_aiohttp}


def serve(name, fileno, loop_factory):
    async def main():
        server = await SERVERS[name](socket.socket(fileno=fileno))
        await asyncio.Event().wait()
        del server

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


# -- load ----------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """Sends a call, waits for its answer, and sends the next."""

    size = 0  # of an answer, known after the first

    def __init__(self):
        self.count = self.got = 0
        self.latencies = []
        self.stopped = False

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        self.began = time.perf_counter()
        self.transport.write(CALL)

    def data_received(self, data):
        self.got += len(data)
        if not self.size:
            assert data.startswith(b"HTTP/1.1 200"), data
            assert data.endswith(ANSWER), data
            self.size = len(data)
        if self.got < self.size:
            return
        self.got -= self.size
        self.count += 1
        self.latencies.append(time.perf_counter() - self.began)
        if not self.stopped:
            self.send()


async def load(port, connections, seconds):
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(connections)]
    began = time.perf_counter()
    # Nobody tells us of the hundredth call; looking now and then costs nothing.
    while time.perf_counter() < began + seconds or sum(client.count for client in clients) < 100:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    count, spent = sum(client.count for client in clients), time.perf_counter() - began
    for client in clients:
        client.stopped = True
        client.transport.abort()
    latencies = sorted(one for client in clients for one in client.latencies)
    await asyncio.sleep(0)
    return (
        count / spent,
        count,
        latencies[len(latencies) // 2] * 1e3,
        latencies[len(latencies) * 99 // 100] * 1e3,
    )


def cpu_s(pid):
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name, connections, seconds, flags):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, str(sock.fileno()), *flags], pass_fds=[sock.fileno()]
        )
        try:
            asyncio.run(load(port, connections, 0.3))  # imports, caches
            before = cpu_s(process.pid)
            rate, count, p50, p99 = asyncio.run(load(port, connections, seconds))
            return (cpu_s(process.pid) - before) / count * 1e6, rate, p50, p99
        finally:
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    factory = importlib.import_module("uvloop").Loop if options.uvloop else None
    if options.serve:
        serve(options.serve[0], int(options.serve[1]), factory)
        return
    names = [name for name in SERVERS if name == "own" or importlib.util.find_spec(name)]
    flags = ["--uvloop"] if options.uvloop else []
    best = {}
    for _ in range(options.rounds):
        for name in names:
            got = measure(name, options.connections, options.seconds, flags)
            best[name] = min(best.get(name, (float("inf"),)), got)
    if options.json:
        keys = ("cpu_us_per_call", "calls_per_s", "p50_ms", "p99_ms")
        print(json.dumps({name: dict(zip(keys, got, strict=True)) for name, got in best.items()}))
        return
    print(f"{'server':<10} {'CPU us/call':>12} {'of own':>8} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8}")
    for name, (cpu_us, rate, p50, p99) in best.items():
        print(
            f"{name:<10} {cpu_us:>12.1f} {cpu_us / best['own'][0]:>7.2f}x {rate:>9.0f} {p50:>8.2f} {p99:>8.2f}"
        )


if __name__ == "__main__":
    main()
