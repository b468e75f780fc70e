"""One ingest request taken apart: headers, then the body from its wire form to a body that is known to decode.

`read_head` looks at headers alone, so that a request is refused before its body is read; `decode_body` is pure and may
run on any thread. Used by `app`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from loopscope_collector.receiver.answers import JSON, PROTOBUF, RefusedError
from loopscope_collector.receiver.compression import (
    ACCEPTED,
    GZIP,
    IDENTITY,
    BadCompressionError,
    TooLargeError,
    gunzip,
)
from loopscope_collector.receiver.otlp_json import decode_json
from loopscope_collector.receiver.protobuf import Decoded, UndecodableError, decode_protobuf

_TYPES: Final = {
    PROTOBUF: PROTOBUF,
    "application/protobuf": PROTOBUF,
    JSON: JSON,
}

SMALL_PROTOBUF_BYTES: Final = 256 * 1024
SMALL_OTHER_BYTES: Final = 16 * 1024
"""Bodies up to these sizes are decoded on the event loop: a millisecond at most, less than a thread switch is worth."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request. Sizes are bytes."""

    body_bytes: int
    decompressed_bytes: int
    spans: int


@dataclass(frozen=True, slots=True)
class Head:
    """What the headers say about the body."""

    content_type: str
    gzipped: bool
    length: int | None
    """Announced length; None for a chunked body."""

    def is_small(self, body_bytes: int) -> bool:
        """Whether decoding is too little work for another thread."""
        plain_protobuf = self.content_type == PROTOBUF and not self.gzipped
        return body_bytes <= (SMALL_PROTOBUF_BYTES if plain_protobuf else SMALL_OTHER_BYTES)


def content_type_of(headers: Mapping[bytes, bytes]) -> str:
    """The media type, in lower case and without parameters; empty when there is none."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def read_head(headers: Mapping[bytes, bytes], limits: Limits) -> Head:
    """Check the headers of an ingest request. Raises RefusedError 415 or 413."""
    given = content_type_of(headers)
    content_type = _TYPES.get(given)
    if content_type is None:
        raise RefusedError(
            415,
            "content_type",
            f"Content-Type {given[:80]!r} is not accepted; send {PROTOBUF} or {JSON}",
            close=True,
        )
    encoding = headers.get(b"content-encoding", b"").strip().lower().decode("latin-1") or IDENTITY
    if encoding not in ACCEPTED:
        raise RefusedError(
            415,
            "content_encoding",
            f"Content-Encoding {encoding[:80]!r} is not accepted; send one of: {', '.join(ACCEPTED)}",
            headers=((b"accept-encoding", ", ".join(ACCEPTED).encode()),),
            close=True,
        )
    announced = headers.get(b"content-length", b"")
    length = int(announced) if announced.isdigit() else None
    if length is not None and length > limits.body_bytes:
        raise too_large(f"{length} bytes", limits)
    return Head(content_type, encoding == GZIP, length)


def too_large(what: str, limits: Limits) -> RefusedError:
    """The refusal of a body that is larger than it may be as sent."""
    return RefusedError(
        413,
        "body_bytes",
        f"the body has {what}, more than {limits.body_bytes}; send smaller batches or raise LOOPSCOPE_MAX_BODY_BYTES",
        close=True,
    )


def decode_body(head: Head, body: bytes, limits: Limits) -> Decoded:
    """Decompress, decode, check. Raises RefusedError 400 or 413."""
    if head.gzipped:
        try:
            body = gunzip(body, limits.decompressed_bytes)
        except BadCompressionError as error:
            text = f"the body of {len(body)} bytes is not valid gzip ({error}); compress it again or send it plain"
            raise RefusedError(400, "gzip", text) from error
        except TooLargeError as error:
            raise RefusedError(
                413,
                "decompressed_bytes",
                f"the body has {error}; send smaller batches or raise LOOPSCOPE_MAX_DECOMPRESSED_BYTES",
            ) from error
    decode = decode_protobuf if head.content_type == PROTOBUF else decode_json
    try:
        decoded = decode(body)
    except UndecodableError as error:
        raise RefusedError(
            400,
            "undecodable",
            f"the body of {len(body)} bytes is no OTLP trace request in {head.content_type}: {error}",
        ) from error
    if decoded.spans > limits.spans:
        raise RefusedError(
            413,
            "spans",
            f"the request has {decoded.spans} spans, more than {limits.spans}; "
            "send smaller batches or raise LOOPSCOPE_MAX_REQUEST_SPANS",
        )
    return decoded
