"""A primary-backup store over plain asyncio TCP, with a real bug, for `splitbrain sim run`.

    splitbrain sim run examples.primary_backup:scenario --seeds 0:50 --fault kill --fault partition

Clients write to the primary ``n1``, which hands each write to the backup ``n2`` and answers when the backup has it, or
has not answered for a while. Clients that cannot reach the primary read from the backup. The bug is in `replicate`:
nobody tells the backup that it was left behind, so after a partition it answers from its old copy. With `--arg safe`
the store has the line that mends it.
"""

import asyncio
import contextlib
import json
from typing import Any

from harness.sim.scenario import Sim, Test
from harness.sim.world import Host

PORT = 7000
NODES = ("n1", "n2")


class Store:
    def __init__(self, host: Host, *, safe: bool) -> None:
        self.host = host
        self.safe = safe
        self.data = host.storage.setdefault("data", {})
        self.primary = host.name == "n1"

    async def serve(self) -> None:
        server = await asyncio.start_server(self.on_client, port=PORT)
        await server.serve_forever()

    async def on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(await self.handle(json.loads(line))).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def handle(self, request: Any) -> Any:
        if self.safe and not self.primary and request["f"] == "read":
            return {"ok": False}  # the mend: a backup that may be behind does not answer
        if request["f"] != "read":
            self.data[request["key"]] = request["value"]
        if request["f"] == "write":
            await self.replicate(request)
        return {"ok": True, "value": self.data.get(request["key"])}

    async def replicate(self, request: Any) -> None:
        # The bug: where the backup does not answer the primary goes on, and the backup does not know that it is behind.
        with contextlib.suppress(OSError):
            await ask("n2", request | {"f": "replicate"}, timeout_s=0.2)


async def ask(node: str, request: Any, timeout_s: float) -> Any:
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(node, PORT)
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    except TimeoutError as error:
        raise OSError("timeout") from error
    if not line:
        raise OSError("closed")
    return json.loads(line)


# -- the test -----------------------------------------------------------------------------------------------------


def scenario(sim: Sim) -> Test:
    """Two nodes, three clients with registers, checked for linearizability."""
    for name in NODES:
        sim.node(name, lambda host: Store(host, safe=sim.arg == "safe").serve())
    sim.model = "register"

    async def client(number: int) -> None:
        rng = sim.stream(f"client{number}")
        for count in range(40):
            await asyncio.sleep(rng.random() * 0.4)
            f, key = ("read", "write")[rng.random() < 0.5], f"k{int(rng.random() * 2)}"
            value = number * 1000 + count if f == "write" else None
            with sim.operation(f, key, value) as operation:
                node = "n1"
                try:
                    answer = await ask("n1", {"f": f, "key": key, "value": value}, timeout_s=0.5)
                except OSError:
                    if f == "write":
                        continue  # nobody knows whether it happened: `operation` says so
                    answer, node = await ask("n2", {"f": f, "key": key}, timeout_s=0.5), "n2"
                operation.done(answer.get("value"), ok=answer["ok"], node=node)

    async def test() -> None:
        await asyncio.gather(*(client(number) for number in range(3)))

    return test
