"""Delay, jitter, loss, duplicates, reordering and corruption in user space, on the node that receives.

For kernels without netem. Packets from a peer are handed to this process by an iptables rule (NFQUEUE), wait
in a heap until their time has come, and get their verdict.

Rules of this module
    1. Only packets from the addresses of peers reach the queue, and none over loopback.
    2. The receiver delays, not the sender: a queued packet still counts as unsent for its socket, and a
       sender so throttled is far slower than a slow link.
    3. If this process dies, packets pass (`--queue-bypass`); if its input ends, it removes its rules and
       goes. So nobody is left cut off by a forgotten daemon.
    4. All rules live in one chain of our own in the mangle table, replaced whole and at once. No other chain
       is changed but for one jump.
    5. When a rule is lifted, packets that wait are let through at once, in order.

Theory of operation
    Run as `python -m nemesis.nfqueue`. A line of JSON on standard input is the whole desired state,

        {"peers": {"10.91.0.2": {"delay_ms": 50, "jitter_ms": 10}}}

    and is answered by `ok` or `error: ...` on standard output. Each peer gets a queue number of its own, so
    that the number in a packet's message tells the rule, and the kernel need not copy the packet itself
    unless it may be duplicated or corrupted. Verdicts that fall due together go in one system call.

    A duplicate is sent to ourselves through a raw socket, with its checksum made good: the original may have
    none yet where the sender leaves that to hardware that, between namespaces, is not there.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random

import msgspec

from nemesis import nfnetlink
from nemesis.jitter import extra_ms, mixed
from nemesis.nfnetlink import payload, verdict
from nemesis.packet import as_reset, with_bit_flipped, with_checksum
from nemesis.target import Link, LinkRule, Ruleset

CHAIN = "SPLITBRAIN"
FIRST_QUEUE = 0x5B00
DONE_HERE = ("delay_ms", "jitter_ms", "loss", "duplicate", "reorder", "corrupt", "reset")
QUEUE_PACKETS_MAX = 100_000
VERDICTS_PER_CALL_MAX = 200
PACKETS_PER_ROUND_MAX = 64
POLL_S_MAX = 0.5
RECEIVE_BUFFER_BYTES = 8 << 20
ANSWER_S_MAX = 5.0
NICENESS = -15
# After packets, wait for more of them before looking again: waking up for each one costs three times as much.
COALESCE_S = 0.0002
# From the kernel's headers; the socket module does not have them.
NETLINK_NETFILTER, SOL_NETLINK, NETLINK_NO_ENOBUFS, SO_RCVBUFFORCE = 12, 270, 5, 33


class QueueError(RuntimeError):
    """The kernel or iptables refused; the message says what and what helps."""


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole desired state of one node: what is wrong with what arrives from each peer's address."""

    peers: dict[str, LinkRule]


def state(
    rules: Ruleset, node: str, peers: Mapping[str, str], fields_of: Callable[[Link], Collection[str]]
) -> State:
    """The part of a ruleset that is done on this node, by fields of a `LinkRule`; a blocked link is nothing else.

    >>> peers = {"n1": "10.0.0.1", "n2": "10.0.0.2"}
    >>> state(Ruleset({("n1", "n2"): LinkRule(loss=0.5)}), "n2", peers, lambda link: ["loss"]).peers
    {'10.0.0.1': LinkRule(blocked=False, ..., loss=0.5, ...)}
    """
    arriving: dict[str, LinkRule] = {}
    for (src, dst), rule in rules.links.items():
        if dst == node:
            fields = fields_of((src, dst))
            kept = ("blocked",) if rule.blocked else fields
            here = LinkRule(**{name: getattr(rule, name) for name in kept if name in fields})
            if here.blocked or any(getattr(here, name) for name in DONE_HERE):
                arriving[peers[src]] = here
    return State(arriving)


def chain(verdicts: Mapping[str, int | None]) -> str:
    """Input for `iptables-restore --noflush`: our chain, whole, one rule per address: its queue, or drop.

    >>> print(chain({"10.0.0.1": 23296, "10.0.0.2": None}), end="")
    *mangle
    :SPLITBRAIN - [0:0]
    -A SPLITBRAIN ! -i lo -s 10.0.0.1 -j NFQUEUE --queue-num 23296 --queue-bypass
    -A SPLITBRAIN ! -i lo -s 10.0.0.2 -j DROP
    COMMIT
    """
    lines = [
        f"-A {CHAIN} ! -i lo -s {address} -j "
        + ("DROP" if number is None else f"NFQUEUE --queue-num {number} --queue-bypass")
        for address, number in verdicts.items()
    ]
    return "\n".join(("*mangle", f":{CHAIN} - [0:0]", *lines, "COMMIT", ""))


def heal_script() -> str:
    """A shell script that removes our chain wherever it is, and does nothing where it is not."""
    return "".join(
        f"if {tool} -w -t mangle -S {CHAIN} >/dev/null 2>&1; then\n"
        f"  while {tool} -w -t mangle -D PREROUTING -j {CHAIN} 2>/dev/null; do :; done\n"
        f"  {tool} -w -t mangle -F {CHAIN} && {tool} -w -t mangle -X {CHAIN}\n"
        "fi\n"
        for tool in ("iptables", "ip6tables")
    )


def tools(addresses: Iterable[str]) -> tuple[str, ...]:
    """The commands that have something to do with these addresses: most clusters have no IPv6.

    >>> tools(["10.0.0.1"]), tools(["10.0.0.1", "fe80::1"])
    (('iptables',), ('iptables', 'ip6tables'))
    """
    kinds = {":" in address for address in addresses}
    return tuple(tool for tool, is_v6 in (("iptables", False), ("ip6tables", True)) if is_v6 in kinds)


def needs_payload(rule: LinkRule) -> bool:
    """Whether the kernel must copy the packets of a queue to us."""
    return bool(rule.duplicate or rule.corrupt or rule.reset)


def met(said: str) -> dict[str, int]:
    r"""How many packets from each address met our chain, from `iptables -nvxL SPLITBRAIN`.

    >>> met("pkts bytes target prot opt in out source dest\n 7 99 DROP 0 -- !lo * 10.0.0.1 0.0.0.0/0\n")
    {'10.0.0.1': 7}
    """
    counts: dict[str, int] = {}
    for line in said.splitlines():
        words = line.split()
        # The source is the first address of a row; ip6tables has one column less before it.
        addresses = [word for word in words if ":" in word or word.count(".") == 3]
        if addresses and words[0].isdigit():
            counts[addresses[0]] = int(words[0])
    return counts


@dataclass(slots=True)
class _Before:
    """What became of the packet before, for correlations."""

    u: float
    was_lost: bool


class Queue:
    """The packets that wait, and the netlink socket they come from."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._rules: dict[int, LinkRule] = {}
        self._before: dict[int, _Before] = {}
        self._bound: set[int] = set()
        self._waiting: list[tuple[float, int, int, bytes, bytes]] = []
        self._count = 0
        self._raw: socket.socket | None = None
        self._buffer = bytearray(1 << 17)
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self.socket.bind((0, 0))
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # in a user namespace only up to net.core.rmem_max
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_NO_ENOBUFS, 1)

    def set_rules(self, rules: Mapping[int, LinkRule]) -> None:
        """What becomes of the packets of each queue from now on; those of queues without a rule go free."""
        for number, rule in rules.items():
            self._bind(number, needs_payload=needs_payload(rule))
            self._before.setdefault(number, _Before(u=0.5, was_lost=False))
            if rule.duplicate and self._raw is None:
                self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._rules = dict(rules)
        self._waiting = [entry if entry[2] in rules else (0.0, *entry[1:]) for entry in self._waiting]
        heapq.heapify(self._waiting)

    def wait_s(self) -> float:
        """How long until the next packet is due."""
        if not self._waiting:
            return POLL_S_MAX
        return min(POLL_S_MAX, max(0.0, self._waiting[0][0] - time.monotonic()))

    def receive(self) -> bool:
        """Takes what the kernel has queued, as far as it fits one round; whether there was anything."""
        buffer, receive_into = self._buffer, self.socket.recv_into
        for number in range(PACKETS_PER_ROUND_MAX):
            try:
                size = receive_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return number > 0
            for kind, start, end in nfnetlink.messages(buffer, size):
                if kind == nfnetlink.MSG_PACKET:
                    self._packet(start, end)
        return True

    def release(self, now_s: float) -> None:
        """Gives the verdict on every packet that is due."""
        waiting = self._waiting
        verdicts: list[bytes] = []
        while waiting and waiting[0][0] <= now_s:
            _, _, _, verdict, copy = heapq.heappop(waiting)
            if copy:
                self._send_verdicts(verdicts)
                verdicts = []
                self._send_copy(copy)
            else:
                verdicts.append(verdict)
        self._send_verdicts(verdicts)

    def close(self) -> None:
        """Lets everything through that still waits."""
        self.release(float("inf"))
        self.socket.close()
        if self._raw:
            self._raw.close()

    def _packet(self, start: int, end: int) -> None:
        """Decides when the packet of the message in the buffer goes on."""
        number, packet_id = nfnetlink.packet(self._buffer, start)
        rule = self._rules.get(number)
        now_s, random = time.monotonic(), self._random.random
        if rule is None:
            self._push(0.0, number, verdict(number, packet_id, nfnetlink.ACCEPT))
            return
        before = self._before[number]
        if rule.loss and self._is_lost(rule, before):
            self._push(0.0, number, verdict(number, packet_id, nfnetlink.DROP))
            return
        decision = verdict(number, packet_id, nfnetlink.ACCEPT)
        packet = payload(self._buffer, start, end) if needs_payload(rule) else b""
        if rule.reset and random() < rule.reset:
            decision = verdict(number, packet_id, nfnetlink.ACCEPT, as_reset(packet))
        if rule.corrupt and random() < rule.corrupt:
            decision = verdict(number, packet_id, nfnetlink.ACCEPT, with_bit_flipped(packet, random()))
        self._push(now_s + self._delay_s(rule, before), number, decision)
        if rule.duplicate and random() < rule.duplicate:
            self._push(now_s + self._delay_s(rule, before), number, b"", packet)

    def _is_lost(self, rule: LinkRule, before: _Before) -> bool:
        random = self._random.random
        if not (rule.loss_correlation and random() < rule.loss_correlation):
            before.was_lost = random() < rule.loss
        return before.was_lost

    def _delay_s(self, rule: LinkRule, before: _Before) -> float:
        random = self._random.random
        if rule.reorder and random() < rule.reorder:
            return 0.0
        if not rule.jitter_ms:
            return rule.delay_ms / 1000
        before.u = mixed(random(), before.u, rule.delay_correlation)
        return max(0.0, rule.delay_ms + extra_ms(rule, before.u)) / 1000

    def _push(self, due_s: float, number: int, verdict: bytes, copy: bytes = b"") -> None:
        self._count += 1
        heapq.heappush(self._waiting, (due_s, self._count, number, verdict, copy))

    def _send_verdicts(self, verdicts: list[bytes]) -> None:
        for first in range(0, len(verdicts), VERDICTS_PER_CALL_MAX):
            self.socket.send(b"".join(verdicts[first : first + VERDICTS_PER_CALL_MAX]))

    def _send_copy(self, packet: bytes) -> None:
        good = with_checksum(packet)
        if good and self._raw:
            with contextlib.suppress(OSError):  # a full buffer: then it is not duplicated
                self._raw.sendto(good, (socket.inet_ntoa(packet[16:20]), 0))

    def _bind(self, number: int, *, needs_payload: bool) -> None:
        if number not in self._bound:
            for attributes in nfnetlink.bind(QUEUE_PACKETS_MAX):
                self._configure(number, attributes)
            self._bound.add(number)
        self._configure(number, nfnetlink.copy_mode(needs_payload=needs_payload))

    def _configure(self, number: int, attributes: dict[int, bytes]) -> None:
        """Sends one configuration message and waits for its acknowledgement; packets may come in between."""
        self.socket.send(nfnetlink.configuration(number, attributes))
        deadline_s = time.monotonic() + ANSWER_S_MAX
        while time.monotonic() < deadline_s:
            if not select.select([self.socket], [], [], ANSWER_S_MAX)[0]:
                continue
            size = self.socket.recv_into(self._buffer)
            for kind, start, end in nfnetlink.messages(self._buffer, size):
                if kind == nfnetlink.MSG_PACKET:
                    self._packet(start, end)
                elif kind == nfnetlink.NLMSG_ERROR:
                    code = nfnetlink.error(self._buffer, start)
                    if code:
                        raise QueueError(_refusal(number, code))
                    return
        raise QueueError(f"the kernel did not answer the configuration of queue {number}; try again")


def _refusal(number: int, code: int) -> str:
    hints = {
        1: "it needs CAP_NET_ADMIN in the namespace of the node",
        2: "the kernel has no CONFIG_NETFILTER_NETLINK_QUEUE",
        16: "another process has it; stop that one or run `splitbrain doctor --heal`",
    }
    return f"queue {number} refused: {os.strerror(code)}; {hints.get(code, 'see nfnetlink_queue')}"


class Daemon:
    """Reads states, keeps the chain and serves the queue until its input ends."""

    def __init__(self, random: Random) -> None:
        self._queue = Queue(random)
        self._numbers: dict[str, int] = {}
        self._pending = b""
        self._has_rules = False
        self._jumps: set[str] = set()  # the commands by which our chain is jumped to

    def serve(self) -> None:
        """Runs until standard input ends or SIGTERM comes; then removes the rules and lets all packets go."""
        queue, stdin = self._queue, sys.stdin.fileno()
        os.set_blocking(stdin, False)
        # Nothing here makes cycles, and a collection would be jitter that nobody asked for.
        gc.disable()
        try:
            while True:
                ready, _, _ = select.select([queue.socket, stdin], [], [], queue.wait_s())
                had_packets = queue.socket in ready and queue.receive()
                queue.release(time.monotonic())
                if stdin in ready and not self._read_states(stdin):
                    return
                if had_packets:
                    time.sleep(COALESCE_S)
        finally:
            if self._has_rules:
                _run(["sh", "-c", heal_script()])
            queue.receive()
            queue.close()

    def _read_states(self, stdin: int) -> bool:
        """Takes each complete line as the new state; False when the input has ended."""
        data = os.read(stdin, 1 << 16)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            try:
                self._set_state(msgspec.json.decode(line, type=State))
                print("ok", flush=True)  # noqa: T201 - the answer of the protocol
            except (QueueError, OSError, msgspec.DecodeError) as error:
                print(f"error: {str(error).replace(chr(10), ' ')}", flush=True)  # noqa: T201
        return bool(data)

    def _set_state(self, state: State) -> None:
        for address, rule in state.peers.items():
            if ":" in address and (rule.duplicate or rule.reset):
                raise QueueError(
                    f"{address}: the queue duplicates and resets IPv4 packets only; use a kernel with netem"
                )
            self._numbers.setdefault(address, FIRST_QUEUE + len(self._numbers))
        queues = {
            address: self._numbers[address] for address, rule in state.peers.items() if not rule.blocked
        }
        self._queue.set_rules({number: state.peers[address] for address, number in queues.items()})
        self._write_chain({address: queues.get(address) for address in state.peers})

    def _write_chain(self, verdicts: Mapping[str, int | None]) -> None:
        """One command for each change, once all is there: an empty chain costs nothing, and stays to the end."""
        for tool in tools(self._numbers) if self._has_rules else tools(verdicts):
            mine = {address: number for address, number in verdicts.items() if tools([address]) == (tool,)}
            self._has_rules = True
            _run([f"{tool}-restore", "-w", "--noflush"], chain(mine))
            if tool not in self._jumps:
                self._jump(tool)
                self._jumps.add(tool)

    @staticmethod
    def _jump(tool: str) -> None:
        jump = ["PREROUTING", "-j", CHAIN]
        with contextlib.suppress(QueueError):  # it is there already
            _run([tool, "-w", "-t", "mangle", "-C", *jump])
            return
        _run([tool, "-w", "-t", "mangle", "-A", *jump])


def _run(argv: Iterable[str], stdin: str = "") -> None:
    command = list(argv)
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands, addresses checked by iptables
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env=os.environ | {"PATH": path},
        )
    except FileNotFoundError as error:
        raise QueueError(f"{command[0]} not found; on Debian: apt-get install iptables") from error
    if done.returncode:
        raise QueueError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> int:
    """`python -m nemesis.nfqueue [SEED]`, or with `--check` only to see whether it could."""

    def stop(_signal: int, _frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        if sys.argv[1:] == ["--check"]:
            queue = Queue(Random())
            queue.set_rules({FIRST_QUEUE - 1: LinkRule(duplicate=1.0)})
            queue.close()
            return 0
        with contextlib.suppress(PermissionError):  # on a busy machine a late verdict is a longer delay
            os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        daemon = Daemon(Random(sys.argv[1] if len(sys.argv) > 1 else "splitbrain"))
        print("ready", flush=True)  # noqa: T201 - the greeting of the protocol
        daemon.serve()
    except (OSError, QueueError) as error:
        print(f"error: {error}", flush=True)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
