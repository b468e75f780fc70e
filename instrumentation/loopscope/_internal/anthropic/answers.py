"""Reading what a call gave: the body's JSON, a stream's events, usage and timing. Worker thread; pure but for its
inputs.

`complete` fills the span's payload with the two bodies and returns the attributes that only the content shows.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from loopscope._internal.errors import class_of_api_type
from loopscope._internal.jsontext import json_text
from loopscope_schemas import attributes as at

from .assembly import Assembled, assemble
from .eventstream import CONTENT_TYPE, as_server_sent_events

if TYPE_CHECKING:
    from loopscope._internal.recording import Payload


@dataclass(slots=True)
class Answer:
    """What was kept, by reference, of one call."""

    request_body: bytes | None = None
    status: int | None = None
    headers: Any = None
    body: bytes | None = None
    chunks: list[bytes] = field(default_factory=list[bytes])
    arrivals: list[float] = field(default_factory=list[float])
    """Clock of each chunk, in seconds; 0 is arbitrary."""
    requested: float = 0.0
    """The same clock, when the call began."""
    streamed: bool = False
    exhausted: bool = False
    overflow_bytes: int = 0
    capture_content: bool = True
    _reading: Reading | None = None

    def reading(self) -> Reading:
        """What the answer says; read once, by whichever thread asks first."""
        if self._reading is None:
            self._reading = _read(self)
        return self._reading


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says."""

    body: bytes | None
    """Its JSON; of a stream, that of the message it describes."""
    message: Mapping[str, Any] | None
    """The body as an object; None where it is none."""
    attributes: Mapping[str, Any]
    failed: str | None
    """The provider's message, when it reported an error in the middle of a stream."""


def complete(answer: Answer, payload: Payload) -> Mapping[str, Any]:
    """Bodies onto the payload, attributes back."""
    reading = answer.reading()
    if reading.failed is not None:
        payload.failed = reading.failed
    if answer.capture_content:
        if answer.request_body:
            payload.bodies[at.REQUEST_BODY] = answer.request_body
        if reading.body:
            payload.bodies[at.RESPONSE_BODY] = reading.body
    return reading.attributes


def _read(answer: Answer) -> Reading:
    attributes: dict[str, Any] = {}
    failed: str | None = None
    body = answer.body
    if answer.streamed:
        raw = b"".join(answer.chunks)
        body = decoded(raw, answer)
        content_type = _header(answer.headers, "content-type")
        if frames := content_type.startswith(CONTENT_TYPE):
            body = as_server_sent_events(body)
        if frames or content_type.startswith("text/event-stream"):
            attributes |= _timing(answer)
            assembled = assemble(body)
            said, failed = _stream_attributes(assembled)
            attributes |= said
            body = json_text(assembled.message) if assembled.message is not None else b""
        elif not answer.exhausted:
            attributes[at.PARTIAL] = True
        if answer.overflow_bytes:
            cut = {at.RESPONSE_BODY: {"left_out_bytes": answer.overflow_bytes, "why": "stream too large to hold"}}
            attributes[at.CUT] = json.dumps(cut)
    message = _json_object(body)
    if message is not None:
        attributes |= message_attributes(message, partial=attributes.get(at.PARTIAL, False))
    return Reading(body, message, attributes, failed)


def message_attributes(message: Mapping[str, Any], *, partial: bool) -> dict[str, Any]:
    """Identity, stop reason and usage of a message. A broken-off answer's output count is a placeholder: left out."""
    attributes: dict[str, Any] = {}
    for name, attribute in (("id", at.RESPONSE_ID), ("model", at.RESPONSE_MODEL)):
        if isinstance(value := message.get(name), str):
            attributes[attribute] = value
    if isinstance(stop := message.get("stop_reason"), str):
        attributes[at.RESPONSE_FINISH_REASONS] = [stop]
    usage = message.get("usage")
    if isinstance(usage, dict):
        attributes |= usage_attributes(
            cast("dict[str, Any]", usage), output_known=not partial or message.get("stop_reason") is not None
        )
    return attributes


def usage_attributes(usage: Mapping[str, Any], *, output_known: bool = True) -> dict[str, Any]:
    """Anthropic's usage in OpenTelemetry's terms: its input tokens exclude the cached ones, ours include them."""
    attributes: dict[str, Any] = {at.USAGE_RAW: json_text(usage).decode("utf-8")}
    fresh = _tokens(usage.get("input_tokens"))
    read = _tokens(usage.get("cache_read_input_tokens"))
    written = _tokens(usage.get("cache_creation_input_tokens"))
    output = _tokens(usage.get("output_tokens"))
    if fresh is not None:
        attributes[at.USAGE_INPUT_TOKENS] = fresh + (read or 0) + (written or 0)
    if read is not None:
        attributes[at.USAGE_CACHE_READ_TOKENS] = read
    if written is not None:
        attributes[at.USAGE_CACHE_WRITE_TOKENS] = written
    if output is not None and output_known:
        attributes[at.USAGE_OUTPUT_TOKENS] = output
    details = usage.get("output_tokens_details")
    if isinstance(details, dict):
        thinking = _tokens(cast("dict[str, Any]", details).get("thinking_tokens"))
        if thinking is not None:
            attributes[at.USAGE_REASONING_TOKENS] = thinking
    return attributes


def _stream_attributes(assembled: Assembled) -> tuple[dict[str, Any], str | None]:
    attributes: dict[str, Any] = {}
    failed: str | None = None
    if not assembled.finished:
        attributes[at.PARTIAL] = True
    if assembled.error is not None:
        # An error event inside a 200: only now is it known that the call failed.
        kind = assembled.error.get("type")
        kind = kind if isinstance(kind, str) else "error"
        attributes[at.ERROR_TYPE] = kind
        attributes[at.ERROR_CLASS] = class_of_api_type(kind)
        failed = str(assembled.error.get("message") or kind)
    return attributes, failed


def _timing(answer: Answer) -> dict[str, Any]:
    """Time to the first chunk and the longest silence; a ping is nothing that anybody sees, so it ends no silence."""
    chunks = zip(answer.arrivals, answer.chunks, strict=True)
    times = [arrived for arrived, chunk in chunks if not chunk.startswith(b"event: ping")]
    if not times:
        return {}
    gaps = [later - earlier for earlier, later in pairwise([answer.requested, *times])]
    return {at.RESPONSE_TTFT: times[0] - answer.requested, at.STREAM_LONGEST_GAP: max(gaps)}


def decoded(raw: bytes, answer: Answer) -> bytes:
    """A body without its content encoding, by the HTTP library's own decoders."""
    encoding = _header(answer.headers, "content-encoding")
    if not raw or not encoding or encoding == "identity":
        return raw
    package = sys.modules[type(answer.headers).__module__.partition(".")[0]]
    return package.Response(200, headers={"content-encoding": encoding}, content=raw).content


def _header(headers: Any, name: str) -> str:
    value = headers.get(name) if headers is not None else None
    return value.lower() if isinstance(value, str) else ""


def _json_object(body: bytes | None) -> dict[str, Any] | None:
    if not body:
        return None
    try:
        value = json.loads(body)
    except ValueError:
        return None  # an error page of a proxy, or a body that broke off: kept as it is, nothing read from it
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
