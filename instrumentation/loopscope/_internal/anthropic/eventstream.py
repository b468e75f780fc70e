"""AWS event-stream frames, in which Bedrock streams its answers, as the server-sent events that they stand for. Pure;
worker thread; called by `answers`.

A frame is a prelude (total length, header length, CRC of both), headers, a payload and a CRC of all before it. An
answer's frame carries `{"bytes": "<base64 of one event's JSON>"}`. A frame that is damaged or broken off ends the
reading, as it ends the host's: after it nobody knows where the next one begins. Nothing here raises for what it reads.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterator
from typing import NamedTuple, cast
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
MAX_FRAME_BYTES = 32 * 1024 * 1024
"""AWS allows 24 MiB of payload and 128 KiB of headers; a longer frame is a damaged length."""

_PRELUDE = struct.Struct("!III")
_CRC_BYTES = 4
# Header value type -> its length, where that is fixed: true, false, byte, short, int, long, timestamp, uuid.
_FIXED_LENGTHS = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class Frame(NamedTuple):
    headers: dict[str, str]
    """Those headers that are strings; the protocol's own all are."""
    payload: bytes


def as_server_sent_events(body: bytes) -> bytes:
    """The events of a body of frames, as the provider's own API would have streamed them."""
    return b"".join(b"event: %s\ndata: %s\n\n" % event for event in map(_event, frames(body)) if event is not None)


def frames(body: bytes) -> Iterator[Frame]:
    """The whole and undamaged frames from the beginning of a body."""
    position = 0
    while position + _PRELUDE.size + _CRC_BYTES <= len(body):
        total, headers_length, prelude_crc = _PRELUDE.unpack_from(body, position)
        headers_start = position + _PRELUDE.size
        payload_start = headers_start + headers_length
        payload_end = position + total - _CRC_BYTES
        if crc32(body[position : headers_start - _CRC_BYTES]) != prelude_crc or total > MAX_FRAME_BYTES:
            return
        if payload_start > payload_end or position + total > len(body):
            return
        (crc,) = struct.unpack_from("!I", body, payload_end)
        headers = _headers(body[headers_start:payload_start])
        if crc32(body[position:payload_end]) != crc or headers is None:
            return
        yield Frame(headers, body[payload_start:payload_end])
        position += total


def _headers(data: bytes) -> dict[str, str] | None:
    """The headers; None when they are not what their lengths say."""
    found: dict[str, str] = {}
    position = 0
    try:
        while position < len(data):
            name_end = position + 1 + data[position]
            name, kind = data[position + 1 : name_end].decode("utf-8"), data[name_end]
            position = name_end + 1
            if kind in _FIXED_LENGTHS:
                position += _FIXED_LENGTHS[kind]
                continue
            if kind not in (_BYTES, _STRING):
                return None
            (length,) = struct.unpack_from("!H", data, position)
            value, position = data[position + 2 : position + 2 + length], position + 2 + length
            if kind == _STRING:
                found[name] = value.decode("utf-8")
    except (IndexError, struct.error, UnicodeDecodeError):
        return None
    return found if position == len(data) else None


def _event(frame: Frame) -> tuple[bytes, bytes] | None:
    """A frame's event: its type and its JSON. None for what is no event of an answer."""
    if frame.headers.get(":message-type") in ("exception", "error"):
        return b"error", _error(frame)
    payload = _object(frame.payload)
    encoded = payload.get("bytes") if payload is not None else None
    if not isinstance(encoded, str):
        return None
    try:
        data = base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return None
    event = _object(data)
    kind = event.get("type") if event is not None else None
    # JSON with line breaks between its parts would end the event too early.
    if event is not None and (b"\n" in data or b"\r" in data):
        data = json.dumps(event, separators=(",", ":")).encode()
    return (kind.encode("utf-8", "replace"), data) if isinstance(kind, str) and kind.isprintable() else None


def _error(frame: Frame) -> bytes:
    """What ended the stream, in the form of the API's error event."""
    kind = frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "error"
    payload = _object(frame.payload) or {}
    message = payload.get("message") or payload.get("Message") or frame.headers.get(":error-message") or kind
    return json.dumps({"type": "error", "error": {"type": kind, "message": str(message)}}).encode()


def _object(data: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, object]", value) if isinstance(value, dict) else None
