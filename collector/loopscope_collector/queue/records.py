"""One record of the queue and its frame on disk.

    magic (4) | crc32 of the rest (4) | body length (4) | kind (1) | encoding (1) | 0 (2) | received_at (8) | body

Little-endian. Pure: bytes in, bytes out. Used by `segments` and `durable`.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"LSQ1"
KINDS: Final = ("traces", "starts")
ENCODINGS: Final = ("protobuf", "json")
MAX_BODY_BYTES: Final = 2**31 - 1
"""The largest message that protobuf can hold."""

_HEADER: Final = struct.Struct("<4sIIBBHQ")
_CHECKED_FROM: Final = 8
HEADER_BYTES: Final = _HEADER.size


@dataclass(frozen=True, slots=True)
class Record:
    """One request body, already decompressed and known to decode."""

    kind: str
    """"traces" (finished spans) or "starts" (start markers and heartbeats)."""
    encoding: str
    """"protobuf" or "json"; the receiver turns JSON into protobuf, so behind it everything is protobuf."""
    received_at: int
    """Unix nanoseconds, stamped once at receipt: a replay sees the same time."""
    body: bytes

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.encoding not in ENCODINGS or len(self.body) > MAX_BODY_BYTES:
            raise ValueError(f"no frame for a record of kind {self.kind!r}, {self.encoding!r}, {len(self.body)} bytes")


def frame(record: Record) -> tuple[bytes, bytes]:
    """Header and body as they stand on disk."""
    kind, encoding = KINDS.index(record.kind), ENCODINGS.index(record.encoding)
    header = _HEADER.pack(MAGIC, 0, len(record.body), kind, encoding, 0, record.received_at)
    crc = zlib.crc32(record.body, zlib.crc32(header[_CHECKED_FROM:]))
    return MAGIC + crc.to_bytes(4, "little") + header[_CHECKED_FROM:], record.body


def framed_bytes(record: Record) -> int:
    """Bytes that a record takes on disk."""
    return HEADER_BYTES + len(record.body)


def read_frame(data: memoryview, at: int) -> tuple[Record, int] | None:
    """The record whose frame begins at `at`, and where the next one begins; None when no whole frame is there."""
    if at + HEADER_BYTES > len(data):
        return None
    magic, crc, length, kind, encoding, zero, received_at = _HEADER.unpack_from(data, at)
    start = at + HEADER_BYTES
    end = start + length
    if magic != MAGIC or zero or kind >= len(KINDS) or encoding >= len(ENCODINGS) or end > len(data):
        return None
    if zlib.crc32(data[start:end], zlib.crc32(data[at + _CHECKED_FROM : start])) != crc:
        return None
    return Record(KINDS[kind], ENCODINGS[encoding], received_at, bytes(data[start:end])), end


def whole_prefix(data: memoryview) -> int:
    """Length of the run of whole frames at the beginning of the data: what follows is a torn tail."""
    at = 0
    while (found := read_frame(data, at)) is not None:
        at = found[1]
    return at


def read_all(data: bytes) -> Iterator[Record | int]:
    """Every record; where bytes are damaged, their number, and then what can be read behind them."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        found = read_frame(view, at)
        if found is not None:
            record, at = found
            yield record
            continue
        behind = data.find(MAGIC, at + 1)
        while behind >= 0 and read_frame(view, behind) is None:
            behind = data.find(MAGIC, behind + 1)
        yield (behind if behind >= 0 else len(data)) - at
        at = behind if behind >= 0 else len(data)
