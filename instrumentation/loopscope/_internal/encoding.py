"""Spans as OTLP protobuf. Small parts through the generated classes, large bodies framed by hand beside them.

A field of a protobuf message may be written after all others, so a body's attribute is the span's bytes plus a few
bytes of framing plus the body itself, by reference: nothing large is copied or walked here. Used by the worker's
threads only; imports the generated classes, which is why nothing on the host's path imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from loopscope_schemas import attributes as at

from .jsontext import escape_surrogates

if TYPE_CHECKING:
    from .recording import Payload, Recording, Start

# Field tags (number << 3 | wire type 2) of opentelemetry-proto 1.x.
_REQUEST_RESOURCE_SPANS = b"\x0a"
_RESOURCE_SPANS_RESOURCE = b"\x0a"
_RESOURCE_SPANS_SCOPE_SPANS = b"\x12"
_SCOPE_SPANS_SCOPE = b"\x0a"
_SCOPE_SPANS_SPAN = b"\x12"
_SPAN_ATTRIBUTE = b"\x4a"
_KEY_VALUE_KEY = b"\x0a"
_KEY_VALUE_VALUE = b"\x12"
_ANY_STRING = b"\x0a"
_ANY_BYTES = b"\x3a"
_INT64 = 2**63

Parts = list[bytes]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_of(value: str) -> str:
    """A text that UTF-8 can hold: lone surrogates become escapes."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return escape_surrogates(value)
    return value


def any_value(value: Any) -> common_pb2.AnyValue:
    match value:
        case bool():
            return common_pb2.AnyValue(bool_value=value)
        case str():
            return common_pb2.AnyValue(string_value=text_of(value))
        case int() if -_INT64 <= value < _INT64:
            return common_pb2.AnyValue(int_value=int(value))
        case float():
            return common_pb2.AnyValue(double_value=value)
        case bytes():
            return common_pb2.AnyValue(bytes_value=value)
        case list() | tuple():
            items = [any_value(item) for item in cast("Sequence[Any]", value)]
            return common_pb2.AnyValue(array_value=common_pb2.ArrayValue(values=items))
        case None:
            return common_pb2.AnyValue()
        case _:
            return common_pb2.AnyValue(string_value=text_of(str(value)))


def key_values(attributes: Mapping[str, Any]) -> list[common_pb2.KeyValue]:
    return [common_pb2.KeyValue(key=text_of(key), value=any_value(value)) for key, value in attributes.items()]


def span_parts(recording: Recording, attributes: Mapping[str, Any], changed: Mapping[str, str] | None = None) -> Parts:
    """A finished span as the pieces of one `Span` message.

    A small text that is a key of `changed` is written as its value.
    """
    payload = recording.payload
    message = _span(recording.start, _changed(attributes, changed))
    message.end_time_unix_nano = recording.end_time
    if payload.failed is not None:
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        message.status.message = text_of((changed or {}).get(payload.failed, payload.failed))
    for at_nano, name, values in payload.events:
        message.events.append(
            trace_pb2.Span.Event(
                time_unix_nano=at_nano, name=text_of(name), attributes=key_values(_changed(values, changed))
            )
        )
    parts: Parts = [message.SerializeToString()]
    for name, text in payload.texts.items():
        parts += _large_attribute(name, _ANY_STRING, text)
    for name, body in payload.bodies.items():
        parts += _large_attribute(name, _ANY_BYTES, body)
    return parts


def small_texts(payload: Payload, attributes: Mapping[str, Any]) -> list[str]:
    """The texts of a span that its owner, an exception or a user may have written, its large content aside."""
    texts = [payload.failed or ""]
    for group in (attributes, *(values for _, _, values in payload.events)):
        for value in group.values():
            if isinstance(value, str):
                texts.append(value)
            elif isinstance(value, list | tuple):
                texts += [item for item in cast("Sequence[Any]", value) if isinstance(item, str)]
    return texts


def _changed(attributes: Mapping[str, Any], changed: Mapping[str, str] | None) -> dict[str, Any]:
    if not changed:
        return dict(attributes)

    def of(value: Any) -> Any:
        if isinstance(value, str):
            return changed.get(value, value)
        return [of(item) for item in cast("Sequence[Any]", value)] if isinstance(value, list | tuple) else value

    return {key: of(value) for key, value in attributes.items()}


def marker(start: Start, heartbeat_at: int | None = None) -> bytes:
    """A start marker: the span as it began, without an end."""
    attributes = dict(start.attributes)
    if heartbeat_at is not None:
        attributes[at.HEARTBEAT_AT] = heartbeat_at
    return _span(start, attributes).SerializeToString()


def _span(start: Start, attributes: Mapping[str, Any]) -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=start.trace_id.to_bytes(16, "big"),
        span_id=start.span_id.to_bytes(8, "big"),
        parent_span_id=start.parent_id.to_bytes(8, "big") if start.parent_id else b"",
        name=text_of(start.name),
        kind=cast("Any", start.kind),
        start_time_unix_nano=start.start_time,
        attributes=key_values(attributes),
    )


def _large_attribute(name: str, value_tag: bytes, value: bytes) -> Parts:
    value_head = value_tag + varint(len(value))
    key = name.encode()
    inside = (
        _KEY_VALUE_KEY + varint(len(key)) + key + _KEY_VALUE_VALUE + varint(len(value_head) + len(value)) + value_head
    )
    return [_SPAN_ATTRIBUTE + varint(len(inside) + len(value)) + inside, value]


def resource(attributes: Mapping[str, Any]) -> bytes:
    return resource_pb2.Resource(attributes=key_values(attributes)).SerializeToString()


def scope(version: str) -> bytes:
    return common_pb2.InstrumentationScope(name="loopscope", version=version).SerializeToString()


def request_parts(resource_bytes: bytes, scope_bytes: bytes, spans: Iterable[Sequence[bytes]]) -> Parts:
    """An `ExportTraceServiceRequest` of one resource and one scope around spans already encoded, each in pieces."""
    scope_field = _SCOPE_SPANS_SCOPE + varint(len(scope_bytes)) + scope_bytes
    pieces: Parts = []
    size = len(scope_field)
    for span in spans:
        length = sum(map(len, span))
        head = _SCOPE_SPANS_SPAN + varint(length)
        pieces += (head, *span)
        size += len(head) + length
    inside = (
        _RESOURCE_SPANS_RESOURCE
        + varint(len(resource_bytes))
        + resource_bytes
        + _RESOURCE_SPANS_SCOPE_SPANS
        + varint(size)
        + scope_field
    )
    total = len(inside) + size - len(scope_field)
    return [_REQUEST_RESOURCE_SPANS + varint(total) + inside, *pieces]
