"""How many packets a second the queue in user space takes (`nemesis.nfqueue`), where the kernel has no netem.

Two nodes in namespaces of their own; one sends datagrams as fast as it can for a while, first over a healthy link, then
over one that is delayed by the queue. Reported are the rates of arrival, their ratio, and the processor time of the
queue for each packet. Run it on an idle machine: three processes share its cores.

    python benchmarks/packet_queue.py [SECONDS]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

from nemesis.backend import Backend
from nemesis.netns import Netns
from nemesis.network import CommandReach, Network
from nemesis.target import HEALTHY, LinkRule, Ruleset

SEND = """
import socket, sys, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
start, count = time.perf_counter(), 0
while time.perf_counter() < start + float(sys.argv[2]):
    for _ in range(50):
        end.sendto(b"x" * 64, (sys.argv[1], 7001))
    count += 50
    time.sleep(0.001)
print(count / (time.perf_counter() - start))
"""
RECEIVE = """
import socket, sys, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
end.bind(("0.0.0.0", 7001))
end.settimeout(0.5)
print("ready", flush=True)
count = first = last = 0
try:
    while True:
        end.recv(100)
        last = time.perf_counter()
        first = first or last
        count += 1
except TimeoutError:
    pass
print(count / (last - first) if count > 1 else 0)
"""


def processor_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def daemon_of() -> int:
    """The queue that works for this process; there is one at a time."""
    mine = str(os.getpid())
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if b"nemesis.nfqueue\0n2" in (process / "cmdline").read_bytes():
                label = (process / "environ").read_bytes()
                if f"SPLITBRAIN_OWNER={mine}:".encode() in label:
                    return int(process.name)
    raise SystemExit("no queue runs")


def measure(net: Netns, seconds: float) -> tuple[float, float]:
    """Packets a second sent, and arrived."""
    receiver = subprocess.Popen(
        net.command("n2", [sys.executable, "-c", RECEIVE.replace("0.5)", f"{seconds + 3})", 1)]),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert receiver.stdout
    receiver.stdout.readline()
    sent = net.run("n1", [sys.executable, "-c", SEND, net.addresses["n2"], str(seconds)])
    arrived, _ = receiver.communicate(timeout=60)
    return float(sent), float(arrived)


async def main(seconds: float) -> None:
    """Healthy, delayed, and the ratio."""
    with Netns(("n1", "n2")) as net:
        backend = Backend("tc", "tc", "nfqueue", {}, "nfqueue")
        network = Network(CommandReach(net.command), net.addresses, backend)
        await network.open()
        try:
            healthy = await asyncio.to_thread(measure, net, seconds)
            await network.apply(Ruleset({("n1", "n2"): LinkRule(delay_ms=20, jitter_ms=5)}))
            before_s = processor_s(daemon_of())
            delayed = await asyncio.to_thread(measure, net, seconds)
            used_us = (processor_s(daemon_of()) - before_s) / (delayed[1] * seconds) * 1e6
            await network.apply(HEALTHY)
        finally:
            await network.heal()
    figures = {
        "healthy_sent_hz": round(healthy[0]), "healthy_arrived_hz": round(healthy[1]),
        "queued_sent_hz": round(delayed[0]), "queued_arrived_hz": round(delayed[1]),
        "ratio": round(delayed[1] / healthy[1], 2), "processor_us_per_packet": round(used_us, 1),
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
