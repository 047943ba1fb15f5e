"""The messages of the kernel's packet queue (nfnetlink_queue), as bytes.

Rules of this module
    1. Pure functions, no socket.
    2. Netlink speaks the byte order of the machine in its own headers and network order in the fields of the
       queue subsystem; both occur in one message.

Theory of operation
    A message is a netlink header (16 bytes: length, type, flags, sequence, port), a header of the subsystem
    (4 bytes: family, version, number of the queue) and attributes (length, type, value, padded to 4 bytes).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

NLMSG_ERROR = 2
NLM_F_REQUEST, NLM_F_ACK = 1, 4
# Message types of the queue subsystem (3) and what they carry, from linux/netfilter/nfnetlink_queue.h.
MSG_PACKET, MSG_VERDICT, MSG_CONFIG = 3 << 8, 3 << 8 | 1, 3 << 8 | 2
CFG_CMD, CFG_PARAMS, CFG_QUEUE_MAXLEN, CFG_MASK, CFG_FLAGS = 1, 2, 3, 4, 5
CMD_BIND = 1
COPY_META, COPY_PACKET = 1, 2
FLAG_GSO = 1 << 2
ATTR_PACKET_HDR, ATTR_VERDICT_HDR, ATTR_PAYLOAD = 1, 2, 10
DROP, ACCEPT = 0, 1

HEADER_BYTES = 16
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PACKET = struct.Struct(">2xHHHI")
_VERDICT = struct.Struct("=IHHII BBH HHII")


def messages(buffer: bytearray, size: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of each message in what was received."""
    start = 0
    while start + HEADER_BYTES <= size:
        length, kind = struct.unpack_from("=IH", buffer, start)
        yield kind, start, start + length
        start += max(HEADER_BYTES, (length + 3) & ~3)


def packet(buffer: bytearray, start: int) -> tuple[int, int]:
    """Number of the queue and id of the packet of a packet message; its header attribute stands first."""
    number, _, _, packet_id = _PACKET.unpack_from(buffer, start + HEADER_BYTES)
    return number, packet_id


def payload(buffer: bytearray, start: int, end: int) -> bytes:
    """The packet itself, where the kernel was asked to copy it; else nothing."""
    place = start + HEADER_BYTES + 4
    while place + _ATTRIBUTE.size <= end:
        length, kind = _ATTRIBUTE.unpack_from(buffer, place)
        if kind & 0x3FFF == ATTR_PAYLOAD:
            return bytes(buffer[place + 4 : place + length])
        place += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return b""


def error(buffer: bytearray, start: int) -> int:
    """The error number of an answer, 0 for an acknowledgement."""
    (code,) = struct.unpack_from("=i", buffer, start + HEADER_BYTES)
    return -int(code)


def verdict(number: int, packet_id: int, decision: int, replacement: bytes = b"") -> bytes:
    """What becomes of a packet; with a replacement it goes on as that."""
    extra = _attribute(ATTR_PAYLOAD, replacement) if replacement else b""
    flags, sequence, port, family, version = NLM_F_REQUEST, 0, 0, 0, 0
    head = (
        _VERDICT.size + len(extra),
        MSG_VERDICT,
        flags,
        sequence,
        port,
        family,
        version,
        socket.htons(number),
    )
    body = (12, ATTR_VERDICT_HDR, socket.htonl(decision), socket.htonl(packet_id))
    return _VERDICT.pack(*head, *body) + extra


def configuration(number: int, attributes: dict[int, bytes]) -> bytes:
    """Changes what a queue is like, and asks for an acknowledgement."""
    body = struct.pack(">BBH", 0, 0, number)
    body += b"".join(_attribute(kind, value) for kind, value in attributes.items())
    return _HEADER.pack(HEADER_BYTES + len(body), MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, 0, 0) + body


def bind(size_max: int) -> list[dict[int, bytes]]:
    """The configurations that make a queue ours: bind it, bound it, take large segments as they are."""
    return [
        {CFG_CMD: struct.pack(">BBH", CMD_BIND, 0, socket.AF_INET)},
        {CFG_QUEUE_MAXLEN: struct.pack(">I", size_max)},
        {CFG_MASK: struct.pack(">I", FLAG_GSO), CFG_FLAGS: struct.pack(">I", FLAG_GSO)},
    ]


def copy_mode(*, needs_payload: bool) -> dict[int, bytes]:
    """The configuration that asks for packets with or without their content."""
    mode, size = (COPY_PACKET, 0xFFFF) if needs_payload else (COPY_META, 0)
    return {CFG_PARAMS: struct.pack(">IB", size, mode)}


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)
