"""Reading what a call gave: the body's JSON, a stream's events, usage and timing. Worker thread; pure but for its
inputs.

`complete` fills the span's payload with the two bodies and returns the attributes that only the content shows.
"""

from __future__ import annotations

import contextlib
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
from .attempts import request_id_of
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
    keep_bodies(answer, reading.body, payload)
    return reading.attributes


def _read(answer: Answer) -> Reading:
    attributes = request_id(answer)
    failed: str | None = None
    body = answer.body
    if answer.streamed:
        body = decoded(answer)
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


def complete_count(answer: Answer, payload: Payload) -> Mapping[str, Any]:
    """The same for a count of tokens: what it counted is no usage, so it has no raw usage and no cost."""
    attributes = request_id(answer)
    body = decoded(answer) if answer.streamed else answer.body
    if answer.streamed and not answer.exhausted:
        attributes[at.PARTIAL] = True
    counted = _tokens((_json_object(body) or {}).get("input_tokens"))
    if counted is not None:
        attributes[at.USAGE_INPUT_TOKENS] = counted
    keep_bodies(answer, body, payload)
    return attributes


def keep_bodies(answer: Answer, body: bytes | None, payload: Payload) -> None:
    """Both bodies onto the payload."""
    if answer.request_body:
        payload.bodies[at.REQUEST_BODY] = answer.request_body
    if body:
        payload.bodies[at.RESPONSE_BODY] = body


def request_id(answer: Answer) -> dict[str, Any]:
    """The provider's id of the request, as the answer's headers give it."""
    found = request_id_of(answer.headers) if answer.headers is not None else None
    return {at.HTTP_REQUEST_ID: found} if found is not None else {}


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
    lifetimes = _object(usage.get("cache_creation"))
    written = _tokens(usage.get("cache_creation_input_tokens"))
    if written is None and lifetimes:
        parts = [_tokens(lifetimes.get(name)) for name in ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")]
        written = sum(part or 0 for part in parts)
    output = _tokens(usage.get("output_tokens"))
    if fresh is not None:
        attributes[at.USAGE_INPUT_TOKENS] = fresh + (read or 0) + (written or 0)
    if read is not None:
        attributes[at.USAGE_CACHE_READ_TOKENS] = read
    if written is not None:
        attributes[at.USAGE_CACHE_WRITE_TOKENS] = written
    if output is not None and output_known:
        attributes[at.USAGE_OUTPUT_TOKENS] = output
    tools = _object(usage.get("server_tool_use"))
    for part, name, attribute in (
        (_object(usage.get("output_tokens_details")), "thinking_tokens", at.USAGE_REASONING_TOKENS),
        (lifetimes, "ephemeral_1h_input_tokens", at.USAGE_CACHE_WRITE_1H_TOKENS),
        (tools, "web_search_requests", at.USAGE_WEB_SEARCHES),
        (tools, "web_fetch_requests", at.USAGE_WEB_FETCHES),
    ):
        if (value := _tokens(part.get(name))) is not None:
            attributes[attribute] = value
    if isinstance(tier := usage.get("service_tier"), str):
        attributes[at.SERVICE_TIER] = tier
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


def decoded(answer: Answer) -> bytes:
    """A streamed body without its content encoding, by the HTTP library's own decoders; of one that broke off, as much
    as can be decoded."""
    encoding = _header(answer.headers, "content-encoding")
    if not answer.chunks or not encoding or encoding == "identity":
        return b"".join(answer.chunks)
    package = sys.modules[type(answer.headers).__module__.partition(".")[0]]
    response = package.Response(200, headers={"content-encoding": encoding}, content=iter(answer.chunks))
    parts: list[bytes] = []
    with contextlib.suppress(package.DecodingError):  # cut off within its encoding: what came before is in the list
        parts.extend(response.iter_bytes())
    return b"".join(parts)


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


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _tokens(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
