"""OTLP/JSON bodies turned into OTLP/protobuf, so that everything behind sees one encoding.

Follows the OTLP rules for JSON: lowerCamelCase names, ids as hex, other bytes as base64, 64-bit integers as decimal
strings, enums as integers, unknown fields ignored. Generous where it costs nothing (original names, numbers for 64-bit
integers, enum names), strict about types. A span that cannot be read is left out and reported, its neighbours are kept.

Text that protobuf cannot hold (lone surrogates, bytes that are not UTF-8) becomes `bytes_value` in attribute values:
UTF-8 in which a lone surrogate is written as its three bytes, and a bad byte as itself. Elsewhere it is written out as
`\\udc00`. Values nested deeper than protobuf goes become JSON text. Pure. Used by `requests`.
"""

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loopscope_collector.receiver.protobuf import MAX_DEPTH, Decoded, UndecodableError, count_spans

_HEX_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_SHOWN: Final = 60
"""Characters of a bad value shown in a message."""

_KINDS: Final[dict[type, str]] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
_DECIMAL: Final = re.compile(r"-?[0-9]{1,20}")

_FD: Final = FieldDescriptor
_INTEGERS: Final = {
    _FD.TYPE_INT32: (-(2**31), 2**31 - 1),
    _FD.TYPE_SINT32: (-(2**31), 2**31 - 1),
    _FD.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    _FD.TYPE_UINT32: (0, 2**32 - 1),
    _FD.TYPE_FIXED32: (0, 2**32 - 1),
    _FD.TYPE_INT64: (-(2**63), 2**63 - 1),
    _FD.TYPE_SINT64: (-(2**63), 2**63 - 1),
    _FD.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    _FD.TYPE_UINT64: (0, 2**64 - 1),
    _FD.TYPE_FIXED64: (0, 2**64 - 1),
}


class _BadValueError(ValueError):
    """A value is not what its field needs; the text says where."""


def decode_json(body: bytes) -> Decoded:
    """Turn a JSON body into protobuf. Raises UndecodableError."""
    parsed, had_bad_bytes = _parse(body)
    if not isinstance(parsed, dict):
        raise UndecodableError(f"the body is a JSON {_kind(parsed)}; an export request is an object with resourceSpans")
    document = cast("dict[str, Any]", parsed)
    if document and "resourceSpans" not in document and "resource_spans" not in document:
        names = ", ".join(sorted(document)[:5])
        raise UndecodableError(f"the object has no resourceSpans (it has: {names[:_SHOWN]!r}); send OTLP traces here")
    reader = _Reader(had_bad_bytes)
    request = ExportTraceServiceRequest()
    try:
        reader.fill(request, document, "", 0)
    except _BadValueError as error:
        raise UndecodableError(str(error)) from error
    return Decoded(
        body=request.SerializeToString(),
        spans=count_spans(request),
        mended=reader.mended,
        rejected_spans=reader.rejected_spans,
        message=reader.first_rejection,
    )


def _parse(body: bytes) -> tuple[object, bool]:
    """The JSON value, and whether the body held bytes that are not UTF-8 (each is a surrogate U+DC80-U+DCFF now)."""
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        # Strict and fast said no. It also refuses lone surrogates and bad UTF-8, which must not cost the batch.
        had_bad_bytes = False
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = body.decode("utf-8", "surrogateescape")
            had_bad_bytes = True
        try:
            return json.loads(text, parse_constant=_no_constant), had_bad_bytes
        except RecursionError as error:
            raise UndecodableError("the JSON nests too deeply to be read") from error
        except ValueError as error:
            raise UndecodableError(f"the body is not JSON: {str(error)[:200]}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write it as a string")


@dataclass(slots=True)
class _Reader:
    had_bad_bytes: bool
    mended: int = 0
    rejected_spans: int = 0
    first_rejection: str = ""

    def fill(self, message: Message, value: object, at: str, depth: int) -> None:
        """Set a message's fields from a JSON object. Raises _BadValueError."""
        if not isinstance(value, dict):
            raise _BadValueError(f"{at or 'the body'} is a JSON {_kind(value)}, not an object")
        fields = _fields_of(cast("Descriptor", message.DESCRIPTOR))
        for name, item in cast("dict[str, object]", value).items():
            field = fields.get(name)
            if field is None or item is None:
                continue
            where = f"{at}.{name}" if at else name
            if field.is_repeated:
                self._repeated(message, field, item, where, depth)
            elif field.type == _FD.TYPE_MESSAGE:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self.message(inner, item, where, depth + 1)
            else:
                self._scalar(message, field, item, where)

    def message(self, message: Message, value: object, at: str, depth: int) -> None:
        if isinstance(message, AnyValue) and depth > MAX_DEPTH - 2:
            self.mended += 1
            try:
                message.string_value = json.dumps(value)
            except RecursionError as error:
                raise _BadValueError(f"{at[:_SHOWN]}... nests too deeply to be kept") from error
            return
        self.fill(message, value, at, depth)

    def _repeated(self, message: Message, field: FieldDescriptor, value: object, at: str, depth: int) -> None:
        if not isinstance(value, list):
            raise _BadValueError(f"{at} is a JSON {_kind(value)}, not an array")
        target = getattr(message, field.name)
        for index, item in enumerate(cast("list[object]", value)):
            where = f"{at}[{index}]"
            if field.type != _FD.TYPE_MESSAGE:
                target.append(self._value(field, item, where))
                continue
            if field.message_type is not Span.DESCRIPTOR:
                self.message(target.add(), item, where, depth + 1)
                continue
            span = Span()
            try:
                self.fill(span, item, where, depth + 1)
            except _BadValueError as error:
                self.rejected_spans += 1
                self.first_rejection = self.first_rejection or f"span left out: {error}"
            else:
                target.append(span)

    def _scalar(self, message: Message, field: FieldDescriptor, item: object, at: str) -> None:
        if field.type == _FD.TYPE_STRING and isinstance(message, AnyValue):
            text = _text(item, at)
            try:
                message.string_value = text
            except UnicodeEncodeError:
                self.mended += 1
                message.bytes_value = _raw(text, had_bad_bytes=self.had_bad_bytes)
            return
        setattr(message, field.name, self._value(field, item, at))

    def _value(self, field: FieldDescriptor, item: object, at: str) -> object:
        kind = field.type
        if kind == _FD.TYPE_STRING:
            text = _text(item, at)
            try:
                text.encode()
            except UnicodeEncodeError:
                self.mended += 1
                return text.encode("utf-8", "backslashreplace").decode()
            return text
        if kind == _FD.TYPE_BYTES:
            return _bytes(item, at, as_hex=field.name in _HEX_FIELDS)
        if kind == _FD.TYPE_BOOL:
            if isinstance(item, bool):
                return item
            raise _BadValueError(f"{at} is {_shown(item)}, not true or false")
        if kind in (_FD.TYPE_DOUBLE, _FD.TYPE_FLOAT):
            return _double(item, at)
        if kind == _FD.TYPE_ENUM:
            return _enum(field, item, at)
        return _integer(item, at, *_INTEGERS[kind])


_FIELDS: dict[str, dict[str, FieldDescriptor]] = {}


def _fields_of(kind: Descriptor) -> dict[str, FieldDescriptor]:
    found = _FIELDS.get(kind.full_name)
    if found is None:
        found = {name: field for field in kind.fields for name in (field.name, field.json_name)}
        _FIELDS[kind.full_name] = found
    return found


def _text(item: object, at: str) -> str:
    if isinstance(item, str):
        return item
    raise _BadValueError(f"{at} is {_shown(item)}, not a string")


def _raw(text: str, *, had_bad_bytes: bool) -> bytes:
    """UTF-8 with lone surrogates as three bytes each; those that stand for a bad byte become that byte again."""
    if not had_bad_bytes:
        return text.encode("utf-8", "surrogatepass")
    return b"".join(
        (ord(char) - 0xDC00).to_bytes(1, "big")
        if "\udc80" <= char <= "\udcff"
        else char.encode("utf-8", "surrogatepass")
        for char in text
    )


def _bytes(item: object, at: str, *, as_hex: bool) -> bytes:
    text = _text(item, at)
    try:
        if as_hex:
            return binascii.unhexlify(text)
        padded = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except ValueError as error:
        raise _BadValueError(f"{at} is {_shown(item)}, not {'hexadecimal' if as_hex else 'base64'}") from error


def _integer(item: object, at: str, least: int, most: int) -> int:
    value: int | None = None
    if isinstance(item, int) and not isinstance(item, bool):
        value = item
    elif (isinstance(item, float) and item.is_integer()) or (isinstance(item, str) and _DECIMAL.fullmatch(item)):
        value = int(item)
    if value is None or not least <= value <= most:
        raise _BadValueError(f"{at} is {_shown(item)}, not an integer from {least} to {most}")
    return value


def _double(item: object, at: str) -> float:
    if isinstance(item, int | float) and not isinstance(item, bool):
        try:
            return float(item)
        except OverflowError:
            return math.inf if item > 0 else -math.inf
    if isinstance(item, str) and len(item) <= _SHOWN:
        try:
            return float({"Infinity": "inf", "-Infinity": "-inf"}.get(item, item))
        except ValueError:
            pass
    raise _BadValueError(f"{at} is {_shown(item)}, not a number")


def _enum(field: FieldDescriptor, item: object, at: str) -> int:
    if isinstance(item, str) and field.enum_type is not None:
        known = field.enum_type.values_by_name.get(item)
        if known is not None:
            return known.number
    return _integer(item, at, -(2**31), 2**31 - 1)


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "number")


def _shown(value: object) -> str:
    return ascii(value)[:_SHOWN]
