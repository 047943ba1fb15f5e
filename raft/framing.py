"""Frames: how bytes are kept apart and kept honest, in files and on connections alike.

A frame is a length, a checksum of length and body, and the body. The checksum covers the length, so that a
damaged length is not followed into the middle of nowhere.
"""

from __future__ import annotations

import errno
import struct
import zlib

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size
FRAME_BYTES_MAX = 1 << 30


def _checksum(body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(len(body).to_bytes(4, "little")))


def frame(body: bytes) -> bytes:
    """Wraps a body.

    >>> frame(b"abc")[8:]
    b'abc'

    Raises:
        OSError: nobody could read it back.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise OSError(
            errno.EFBIG, f"{len(body)} bytes are too many for a file of the log; at most {FRAME_BYTES_MAX}"
        )
    return _HEADER.pack(len(body), _checksum(body)) + body


def unframe(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The body of the frame at a place and the place after it; None if there is no intact frame.

    >>> unframe(frame(b"abc"), 0)
    (b'abc', 11)
    >>> unframe(frame(b"abc")[:-1], 0) is None
    True
    """
    if at + HEADER_BYTES > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, at)
    start, end = at + HEADER_BYTES, at + HEADER_BYTES + length
    if not 0 < length <= FRAME_BYTES_MAX or end > len(data):
        return None
    body = data[start:end]
    return (body, end) if _checksum(body) == checksum else None


class BadFrame(Exception):
    """A peer sent something that is no frame; the connection is worth nothing any more."""


class Unframer:
    """Takes bytes as they come from a connection, and gives the bodies of whole frames.

    >>> unframer = Unframer(bytes_max=100)
    >>> list(unframer.feed(frame(b"abc") + frame(b"de")[:5]))
    [b'abc']
    >>> list(unframer.feed(frame(b"de")[5:]))
    [b'de']
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete."""
        buffer = self._buffer
        buffer += data
        at = 0
        bodies: list[bytes] = []
        while len(buffer) - at >= HEADER_BYTES:
            length, checksum = _HEADER.unpack_from(buffer, at)
            if not 0 < length <= self._bytes_max:
                raise BadFrame(f"a frame of {length} bytes; at most {self._bytes_max} are taken")
            end = at + HEADER_BYTES + length
            if end > len(buffer):
                break
            body = bytes(buffer[at + HEADER_BYTES : end])
            if _checksum(body) != checksum:
                raise BadFrame("a frame whose checksum is wrong")
            bodies.append(body)
            at = end
        del buffer[:at]
        return bodies
