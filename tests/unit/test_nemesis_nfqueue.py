"""The queue in user space without a kernel: states, chains, messages, checksums, and when packets go on."""

import socket
import struct
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemesis import nfnetlink, nfqueue, packet
from nemesis.abilities import SHAPES
from nemesis.target import LinkRule, Ruleset

PEERS = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3"}


def ip_packet(protocol, segment, source="10.0.0.1", to="10.0.0.2", fragment=0):
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 7, fragment, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(to) + segment


def plain_checksum(data):
    """The checksum as RFC 1071 writes it down, word by word."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_a_node_does_what_arrives_there():
    rules = Ruleset(
        {
            ("n1", "n2"): LinkRule(delay_ms=5),
            ("n2", "n1"): LinkRule(loss=0.5),
            ("n3", "n2"): LinkRule(blocked=True, delay_ms=5),
        }
    )
    assert nfqueue.state(rules, "n2", PEERS, lambda _: SHAPES).peers == {"10.0.0.1": LinkRule(delay_ms=5)}
    with_blocked = nfqueue.state(rules, "n2", PEERS, lambda _: (*SHAPES, "blocked")).peers
    assert with_blocked == {"10.0.0.1": LinkRule(delay_ms=5), "10.0.0.3": LinkRule(blocked=True)}
    assert nfqueue.state(rules, "n3", PEERS, lambda _: SHAPES).peers == {}


def test_only_what_is_done_here_needs_the_queue():
    """A rate is for tc; a shape of a jitter that there is not does nothing."""
    for rule in (LinkRule(rate_kbit=64), LinkRule(distribution="normal", delay_correlation=0.5)):
        assert nfqueue.state(Ruleset({("n1", "n2"): rule}), "n2", PEERS, lambda _: SHAPES).peers == {}
    for name in ("delay_ms", "jitter_ms", "loss", "duplicate", "reorder", "corrupt", "reset"):
        rules = Ruleset({("n1", "n2"): LinkRule(**{name: 0.5})})
        assert nfqueue.state(rules, "n2", PEERS, lambda _: (*SHAPES, "reset")).peers
    assert (
        nfqueue.state(Ruleset({("n1", "n2"): LinkRule(reset=0.5)}), "n2", PEERS, lambda _: SHAPES).peers == {}
    )


def test_a_segment_becomes_the_end_of_its_connection():
    """Head only, RST set, both checksums right, the place in the stream kept; what is no TCP stays as it is."""
    segment = struct.pack(">HHIIBBHHH", 1, 2, 0xAABBCCDD, 7, 5 << 4, 0x18, 100, 0, 0) + b"payload"
    made = packet.as_reset(ip_packet(6, segment))
    assert len(made) == 40 == int.from_bytes(made[2:4], "big")
    assert made[20:32] == segment[:12]
    assert made[33] == 0x14
    assert plain_checksum(made[:20]) == 0
    assert packet.with_checksum(made) == made
    for other in (ip_packet(17, b"12345678udp"), ip_packet(6, segment, fragment=0x2000), b"", b"short"):
        assert packet.as_reset(other) == other


def test_a_state_goes_over_the_wire():
    state = nfqueue.State({"10.0.0.1": LinkRule(delay_ms=5, loss=0.25)})
    assert msgspec.json.decode(msgspec.json.encode(state), type=nfqueue.State) == state
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode('{"peers":{},"peer":1}', type=nfqueue.State)


def test_an_empty_chain_is_written_as_well():
    assert nfqueue.chain({}) == "*mangle\n:SPLITBRAIN - [0:0]\nCOMMIT\n"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_the_checksum_is_that_of_the_rfc(data):
    assert packet.internet_checksum(data) == plain_checksum(data)


def test_the_checksum_of_zeros_and_of_a_full_sum():
    assert packet.internet_checksum(b"\0\0\0\0") == 0xFFFF
    assert packet.internet_checksum(b"\xff\xff") == 0


@settings(deadline=None)
@given(st.binary(max_size=100), st.binary(min_size=2, max_size=2))
def test_a_copy_has_a_checksum_that_verifies(data, wrong):
    for protocol, head, place in ((17, 8, 6), (6, 20, 16)):
        segment = bytearray(head) + data
        segment[place : place + 2] = wrong
        good = packet.with_checksum(ip_packet(protocol, bytes(segment)))
        pseudo = good[12:20] + bytes((0, protocol)) + struct.pack(">H", len(segment))
        assert plain_checksum(pseudo + good[20:]) == 0
        assert good[:20] == ip_packet(protocol, bytes(segment))[:20]
        assert good[20 + head :] == data
        if protocol == 17:
            assert good[26:28] != b"\0\0"


@pytest.mark.parametrize(("protocol", "head", "place", "written"), [(17, 8, 6, 0xFFFF), (6, 20, 16, 0)])
def test_a_checksum_of_zero_means_none_in_udp_only(protocol, head, place, written):
    """The two bytes of data that bring the sum to zero: the checksum of the packet without them."""
    empty = packet.with_checksum(ip_packet(protocol, bytes(head) + b"\0\0"))
    needed = empty[20 + place : 22 + place]
    good = packet.with_checksum(ip_packet(protocol, bytes(head) + needed))
    assert int.from_bytes(good[20 + place : 22 + place], "big") == written


def test_what_cannot_be_copied_is_left_alone():
    assert packet.with_checksum(ip_packet(1, bytes(8))) == b""
    assert packet.with_checksum(ip_packet(17, bytes(8), fragment=0x2000)) == b""
    assert packet.with_checksum(ip_packet(17, bytes(8), fragment=5)) == b""
    assert packet.with_checksum(ip_packet(17, bytes(8), fragment=0x4000)) != b""
    assert packet.with_checksum(ip_packet(17, bytes(7))) == b""
    assert packet.with_checksum(b"\x60" + bytes(60)) == b""
    assert packet.with_checksum(b"") == b""


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=50), st.floats(0, 1))
def test_exactly_one_bit_behind_the_header_is_flipped(data, where):
    before = ip_packet(17, data)
    after = packet.with_bit_flipped(before, where)
    assert after[:20] == before[:20]
    difference = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
    assert difference.bit_count() == 1


def test_the_first_and_the_last_bit_can_be_hit():
    before = ip_packet(17, b"\0\0")
    assert packet.with_bit_flipped(before, 0.0)[20:] == b"\x01\0"
    assert packet.with_bit_flipped(before, 1.0)[20:] == b"\0\x80"


def test_nothing_behind_the_header_nothing_flipped():
    assert packet.with_bit_flipped(ip_packet(17, b""), 0.5) == ip_packet(17, b"")
    assert packet.with_bit_flipped(b"", 0.5) == b""
    v6 = b"\x60" + bytes(39) + b"\0"
    assert packet.with_bit_flipped(v6, 0.0) == v6[:-1] + b"\x01"


def packet_message(number, packet_id, payload=b"", mark=b""):
    """As the kernel sends it: the header attribute first, others, and the packet where asked for."""
    attributes = struct.pack("=HHIHBB", 11, nfnetlink.ATTR_PACKET_HDR, socket.htonl(packet_id), 8, 0, 0)
    for kind, value in ((3, mark), (nfnetlink.ATTR_PAYLOAD, payload)):
        if value:
            attributes += struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
    body = struct.pack(">BBH", 2, 0, number) + attributes
    return struct.pack("=IHHII", 16 + len(body), nfnetlink.MSG_PACKET, 0, 0, 0) + body


def test_messages_are_taken_apart():
    first, second = packet_message(0x5B00, 0x01020304, b"hello", b"abcd"), packet_message(0x5B01, 9)
    buffer = bytearray(first + second + b"rest of an earlier, longer one")
    (kind, start, end), (_, start2, end2) = nfnetlink.messages(buffer, len(first + second))
    assert kind == nfnetlink.MSG_PACKET
    assert nfnetlink.packet(buffer, start) == (0x5B00, 0x01020304)
    assert nfnetlink.payload(buffer, start, end) == b"hello"
    assert nfnetlink.packet(buffer, start2) == (0x5B01, 9)
    assert nfnetlink.payload(buffer, start2, end2) == b""


def test_broken_messages_end():
    assert len(list(nfnetlink.messages(bytearray(64), 64))) == 4


def test_a_verdict_is_what_the_header_file_says():
    expected = bytes.fromhex("5b00 0c000200 00000001 00000007".replace(" ", ""))
    if struct.pack("=H", 1) == b"\x01\x00":
        assert nfnetlink.verdict(0x5B00, 7, nfnetlink.ACCEPT)[18:] == expected
    assert len(nfnetlink.verdict(0x5B00, 7, nfnetlink.ACCEPT)) == 32
    mangled = nfnetlink.verdict(0x5B00, 7, nfnetlink.ACCEPT, b"abcde")
    assert struct.unpack_from("=I", mangled) == (44,)
    assert len(mangled) == 44
    assert mangled[36:41] == b"abcde"


class Kernel:
    """Stands in for the netlink socket: hands out packets, keeps verdicts."""

    def __init__(self):
        self.waiting = []
        self.verdicts = []

    def recv_into(self, buffer, *_):
        if not self.waiting:
            raise BlockingIOError
        message = self.waiting.pop(0)
        buffer[: len(message)] = message
        return len(message)

    def send(self, data):
        while data:
            (size,) = struct.unpack_from("=I", data)
            decision, packet_id = struct.unpack_from(">II", data, 24)
            self.verdicts.append((packet_id, decision, data[36:size]))
            data = data[size:]

    def sendto(self, data, address):
        self.verdicts.append((address, data))

    def close(self):
        pass


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now_s = 100.0

    monkeypatch.setattr(nfqueue.time, "monotonic", lambda: Clock.now_s)
    return Clock


@pytest.fixture
def queue(clock):
    one = nfqueue.Queue.__new__(nfqueue.Queue)
    one._random, one._rules, one._waiting, one._count = Random(1), {}, [], 0
    one._buffer, one.socket, one._raw = bytearray(1 << 17), Kernel(), None
    one._bound, one._before = set(), {}
    one._bind = lambda number, needs_payload: None
    return one


def feed(queue, *ids, number=1, payload=b""):
    queue.socket.waiting += [packet_message(number, packet_id, payload) for packet_id in ids]
    while queue.socket.waiting:
        queue.receive()


def test_packets_wait_their_time_in_order(queue, clock):
    queue.set_rules({1: LinkRule(delay_ms=50)})
    feed(queue, 1, 2, 3)
    queue.release(clock.now_s + 0.0499)
    assert queue.socket.verdicts == []
    assert queue.wait_s() == pytest.approx(0.05)
    queue.release(clock.now_s + 0.05)
    assert queue.socket.verdicts == [(1, 1, b""), (2, 1, b""), (3, 1, b"")]
    assert queue.wait_s() == nfqueue.POLL_S_MAX


def test_a_lifted_rule_lets_go_at_once_and_only_its_own(queue, clock):
    queue.set_rules({1: LinkRule(delay_ms=50), 2: LinkRule(delay_ms=10)})
    feed(queue, 1, 2, number=1)
    feed(queue, 3, number=2)
    queue.set_rules({2: LinkRule(delay_ms=10)})
    queue.release(clock.now_s)
    assert [one[0] for one in queue.socket.verdicts] == [1, 2]
    feed(queue, 4, number=1)
    queue.release(clock.now_s)
    assert [one[0] for one in queue.socket.verdicts] == [1, 2, 4]


def test_jitter_stays_in_its_bounds(queue, clock):
    queue.set_rules({1: LinkRule(delay_ms=50, jitter_ms=20)})
    feed(queue, *range(500))
    dues = sorted(entry[0] - clock.now_s for entry in queue._waiting)
    assert 0.050 <= dues[0] < 0.052
    assert 0.068 < dues[-1] <= 0.070


def test_loss_drops_and_reordering_overtakes(queue, clock):
    queue.set_rules({1: LinkRule(loss=0.25)})
    feed(queue, *range(1000))
    queue.release(clock.now_s)
    decisions = [one[1] for one in queue.socket.verdicts]
    assert 180 < decisions.count(nfnetlink.DROP) < 320
    queue.set_rules({1: LinkRule(delay_ms=50, reorder=0.25)})
    feed(queue, *range(1000))
    assert 180 < sum(entry[0] == clock.now_s for entry in queue._waiting) < 320


def test_copies_go_to_ourselves_with_their_own_delay(queue, clock, monkeypatch):
    raw = Kernel()
    monkeypatch.setattr(nfqueue.socket, "socket", lambda *_: raw)
    queue.set_rules({1: LinkRule(duplicate=1.0, delay_ms=5)})
    feed(queue, 7, payload=ip_packet(17, bytes(8) + b"hi"))
    queue.release(clock.now_s)
    assert raw.verdicts == []
    queue.release(clock.now_s + 0.005)
    assert queue.socket.verdicts == [(7, 1, b"")]
    ((address, copy),) = raw.verdicts
    assert address == ("10.0.0.2", 0)
    assert copy == packet.with_checksum(ip_packet(17, bytes(8) + b"hi"))


def test_a_damaged_packet_replaces_the_good_one(queue, clock):
    original = ip_packet(17, bytes(8) + b"hello")
    queue.set_rules({1: LinkRule(corrupt=1.0)})
    feed(queue, 7, payload=original)
    queue.release(clock.now_s)
    ((packet_id, decision, damaged),) = queue.socket.verdicts
    assert (packet_id, decision) == (7, nfnetlink.ACCEPT)
    assert damaged[: len(original)] != original
    assert damaged[:20] == original[:20]


def test_many_verdicts_go_in_few_calls(queue, clock):
    calls = []
    queue.set_rules({1: LinkRule(delay_ms=1)})
    feed(queue, *range(500))
    keep, queue.socket.send = queue.socket.send, lambda data: (calls.append(len(data)), keep(data))
    queue.release(clock.now_s + 1)
    assert len(queue.socket.verdicts) == 500
    assert calls == [200 * 32, 200 * 32, 100 * 32]


def test_closing_lets_everything_go(queue, clock):
    queue.set_rules({1: LinkRule(delay_ms=60_000)})
    feed(queue, 1, 2)
    queue.close()
    assert [one[0] for one in queue.socket.verdicts] == [1, 2]


def test_refusals_name_the_remedy():
    assert "CAP_NET_ADMIN" in nfqueue._refusal(1, 1)
    assert "splitbrain doctor --heal" in nfqueue._refusal(1, 16)
