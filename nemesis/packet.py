"""Just enough of IPv4, TCP and UDP to copy, to damage and to end a connection.

Rules of this module
    1. Pure functions on bytes. What is not understood is left alone: `with_checksum` gives nothing for it.

>>> udp = bytes.fromhex("4500001d000000004011000001010101020202020035003500090000") + b"x"
>>> with_checksum(udp)[26:28].hex()
'816c'
"""

from __future__ import annotations

TCP, UDP = 6, 17
RST, ACK = 4, 16
CHECKSUM_AT = {TCP: 16, UDP: 6}


def with_checksum(packet: bytes) -> bytes:
    """The IPv4 packet with the right checksum of its TCP or UDP part; empty for fragments and all else."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return b""
    header, protocol = (packet[0] & 15) * 4, packet[9]
    is_fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
    place = CHECKSUM_AT.get(protocol)
    if place is None or is_fragment or len(packet) < header + place + 2:
        return b""
    segment = bytearray(packet[header:])
    segment[place : place + 2] = b"\0\0"
    pseudo = packet[12:20] + bytes((0, protocol)) + len(segment).to_bytes(2, "big")
    total = internet_checksum(pseudo + bytes(segment))
    # In UDP a checksum of zero would say that there is none.
    segment[place : place + 2] = (total or (0xFFFF if protocol == UDP else 0)).to_bytes(2, "big")
    return packet[:header] + bytes(segment)


def internet_checksum(data: bytes) -> int:
    """The complement of the ones' complement sum of all 16-bit words.

    That sum is the whole number modulo 65535, except that a sum of words that are not all zero is 65535
    where the remainder is 0.

    >>> hex(internet_checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    padded = data + b"\0" * (len(data) % 2)
    number = int.from_bytes(padded, "big")
    return ~((number % 0xFFFF) or (0xFFFF if number else 0)) & 0xFFFF


def as_reset(packet: bytes) -> bytes:
    """The packet as the end of its connection: of a TCP segment its head, with RST set; all else as it is.

    A segment that arrives in order so resets the receiver at once (RFC 9293, section 3.10.7.4), and the sender when
    it sends again, for then nobody knows the connection.
    """
    is_ipv4 = len(packet) >= 20 and packet[0] >> 4 == 4
    header = (packet[0] & 15) * 4 if is_ipv4 else 0
    if (
        not is_ipv4
        or packet[9] != TCP
        or len(packet) < header + 20
        or int.from_bytes(packet[6:8], "big") & 0x3FFF
    ):
        return packet
    head = bytearray(packet[: header + 20])
    head[2:4] = len(head).to_bytes(2, "big")
    head[10:12] = b"\0\0"
    head[10:12] = internet_checksum(bytes(head[:header])).to_bytes(2, "big")
    head[header + 12 : header + 14] = bytes((5 << 4, RST | ACK))
    return with_checksum(bytes(head))


def with_bit_flipped(packet: bytes, where: float) -> bytes:
    """The packet with one bit flipped behind the IP header, at a place between 0 (first) and 1 (last).

    >>> with_bit_flipped(bytes.fromhex("4500001500000000ff110000010101010202020200"), 0.0)[-1]
    1
    """
    header = (packet[0] & 15) * 4 if packet and packet[0] >> 4 == 4 else 40
    body_bits = (len(packet) - header) * 8
    if body_bits <= 0:
        return packet
    place = min(int(where * body_bits), body_bits - 1)
    damaged = bytearray(packet)
    damaged[header + place // 8] ^= 1 << place % 8
    return bytes(damaged)
