"""What the receiver answers: OTLP responses and `google.rpc.Status` errors, in the encoding of the request.

Pure. Used by `app` and `requests`.
"""

import json
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from loopscope_collector.receiver.protobuf import varint

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

RETRY_AFTER_SECONDS: Final = 2

_INVALID_ARGUMENT: Final = 3
_CODES: Final = {401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 11, 415: 3, 429: 8, 503: 14}
"""HTTP status to the code of google.rpc.Code; everything else is INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    close: bool = False
    """Close the connection: the rest of the request was not read."""


@dataclass(slots=True, eq=False)
class RefusedError(Exception):
    """A request is refused. `reason` is what is counted, `message` what its sender reads."""

    status: int
    reason: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = field(default=())
    close: bool = False

    def answer(self, content_type: str) -> Answer:
        """The response, in the encoding of the request (JSON when it named none that is known)."""
        headers = self.headers
        if self.status in (429, 503):
            headers = (*headers, (b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        body = status_body(_CODES.get(self.status, _INVALID_ARGUMENT), self.message, content_type)
        kind = PROTOBUF if content_type == PROTOBUF else JSON
        return Answer(self.status, kind, body, headers, self.close)


def status_body(code: int, message: str, content_type: str) -> bytes:
    """A `google.rpc.Status`: int32 code = 1, string message = 2."""
    if content_type != PROTOBUF:
        return json.dumps({"code": code, "message": message}).encode()
    text = message.encode("utf-8", "backslashreplace")
    return b"\x08" + varint(code) + b"\x12" + varint(len(text)) + text


def accepted(content_type: str, *, rejected_spans: int = 0, message: str = "") -> Answer:
    """The response to a body that is on disk, with what could not be read of it."""
    if content_type == PROTOBUF:
        response = ExportTraceServiceResponse()
        if rejected_spans or message:
            response.partial_success.rejected_spans = rejected_spans
            response.partial_success.error_message = message
        return Answer(200, PROTOBUF, response.SerializeToString())
    partial = {"rejectedSpans": str(rejected_spans), "errorMessage": message} if rejected_spans or message else None
    return Answer(200, JSON, json.dumps({"partialSuccess": partial} if partial else {}).encode())
