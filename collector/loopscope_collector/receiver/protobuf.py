"""OTLP/protobuf bodies: checked by decoding, and mended where one bad string would cost all of them.

The decoder refuses a whole message for one string that is not UTF-8, or that nests deeper than it goes. Such a body is
walked as raw wire data: a bad string is written as `texts` says, an attribute value that cannot be becomes
`bytes_value` with the very same bytes. Pure. Used by `requests`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from loopscope_collector.receiver import texts

MAX_DEPTH: Final = 90
"""Messages inside messages; the decoders' usual bound is 100. Deeper attribute values become bytes."""

_STRING_VALUE: Final = AnyValue.STRING_VALUE_FIELD_NUMBER
_BYTES_VALUE: Final = AnyValue.BYTES_VALUE_FIELD_NUMBER
_ANY_VALUE: Final = AnyValue.DESCRIPTOR

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class UndecodableError(ValueError):
    """The body is no OTLP trace request, not even after mending."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A body that decodes."""

    body: bytes
    spans: int
    mended: int = 0
    """Strings and values that had to be rewritten for the body to decode."""
    rejected_spans: int = 0
    """Spans that had to be left out."""
    message: str = ""
    """Why, for the sender."""


def decode_protobuf(body: bytes) -> Decoded:
    """Check a protobuf body. Raises UndecodableError."""
    try:
        return Decoded(body, count_spans(ExportTraceServiceRequest.FromString(body)))
    except DecodeError as first:
        mender = _Mender()
        try:
            mended = mender.message(body, ExportTraceServiceRequest.DESCRIPTOR, 0)
            request = ExportTraceServiceRequest.FromString(mended)
        except DecodeError:
            raise UndecodableError(str(first)) from first
        except UndecodableError as error:
            raise UndecodableError(f"{first}; {error}") from first
        return Decoded(mended, count_spans(request), mended=mender.mended)


def count_spans(request: ExportTraceServiceRequest) -> int:
    """Spans in a request."""
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


class _Mender:
    """Copies a message field by field, rewriting what a decoder would refuse."""

    def __init__(self) -> None:
        self.mended = 0

    def message(self, data: bytes, kind: Descriptor, depth: int) -> bytes:
        out: list[bytes] = []
        for number, wire_type, start, value_at, end in _fields(data):
            field = kind.fields_by_number.get(number)
            if field is None or wire_type != _LENGTH:
                out.append(data[start:end])
            elif field.type == FieldDescriptor.TYPE_STRING:
                out.append(self._string(data[start:end], data[value_at:end], kind, number))
            elif field.message_type is not None:
                out.append(_field(number, self._inner(data[value_at:end], field.message_type, depth + 1)))
            else:
                out.append(data[start:end])
        return b"".join(out)

    def _inner(self, value: bytes, kind: Descriptor, depth: int) -> bytes:
        # Two levels are left free: an array inside the value and the value in it.
        if depth > MAX_DEPTH - 2 and kind is _ANY_VALUE:
            self.mended += 1
            return _field(_BYTES_VALUE, value)
        if depth > MAX_DEPTH:
            raise UndecodableError(f"messages nest deeper than {MAX_DEPTH}")
        return self.message(value, kind, depth)

    def _string(self, whole: bytes, value: bytes, kind: Descriptor, number: int) -> bytes:
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            self.mended += 1
            text = texts.of_bytes(value)
            if text is not None:
                return _field(number, text.encode())
            if kind is _ANY_VALUE and number == _STRING_VALUE:
                return _field(_BYTES_VALUE, value)
            return _field(number, value.decode("utf-8", "backslashreplace").encode())
        return whole


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Number, wire type, start, start of the value, end of each field. Raises UndecodableError."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _read_varint(data, at)
        wire_type = tag & 7
        value_at = at
        if wire_type == _VARINT:
            _, at = _read_varint(data, at)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == _LENGTH:
            length, value_at = _read_varint(data, at)
            at = value_at + length
        else:
            raise UndecodableError(f"wire type {wire_type} at byte {start} does not occur in OTLP")
        if at > len(data) or not tag >> 3:
            raise UndecodableError(f"the field at byte {start} of {len(data)} is cut off or has no number")
        yield tag >> 3, wire_type, start, value_at, at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise UndecodableError(f"the number at byte {at} is cut off or longer than ten bytes")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | _LENGTH) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
