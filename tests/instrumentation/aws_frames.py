"""Frames of an AWS event stream, written byte by byte as the protocol defines them."""

import base64
import json
import struct
from typing import Any
from zlib import crc32


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One frame with string headers."""
    head = b"".join(
        bytes([len(name.encode())]) + name.encode() + b"\x07" + struct.pack("!H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    begun = prelude + struct.pack("!I", crc32(prelude)) + head + payload
    return begun + struct.pack("!I", crc32(begun))


def chunk_frame(event: dict[str, Any]) -> bytes:
    """One event of an answer, as Bedrock sends it."""
    payload = {"bytes": base64.b64encode(json.dumps(event, ensure_ascii=False).encode()).decode(), "p": "abcdefgh"}
    headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def exception_frame(kind: str, message: str) -> bytes:
    """What Bedrock sends when a stream fails midway."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return frame(headers, json.dumps({"message": message}).encode())


def bedrock_event(event: dict[str, Any]) -> bytes:
    """An event, or the exception that stands for an error event."""
    if event["type"] == "error":
        return exception_frame(event["error"]["type"], event["error"]["message"])
    return chunk_frame(event)
