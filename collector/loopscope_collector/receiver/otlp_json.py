"""OTLP/JSON bodies turned into OTLP/protobuf, so that everything behind sees one encoding.

Follows the OTLP rules for JSON: lowerCamelCase names, ids as hex, other bytes as base64, 64-bit integers as decimal
strings, enums as integers, unknown fields ignored. Generous where it costs nothing (original names, numbers for 64-bit
integers, enum names), strict about types. A span that cannot be read is left out and reported, its neighbours are kept.

Text that protobuf cannot hold (lone surrogates, bytes that are not UTF-8) is written as `texts` says; an attribute
value that cannot be becomes `bytes_value`. Values nested deeper than protobuf goes become JSON text. Pure. Used by
`requests`.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Self, cast

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loopscope_collector.receiver import texts
from loopscope_collector.receiver.protobuf import MAX_DEPTH, Decoded, UndecodableError, count_spans

_HEX_FIELDS: Final = frozenset({"trace_id", "span_id", "parent_span_id"})
_SHOWN: Final = 60
"""Characters of a bad value shown in a message."""
_SHOWN_PATH: Final = 200

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
    """A value is not what its field needs. The path to it is put together on the way up: good values pay nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.path: list[str] = []

    def within(self, step: str) -> Self:
        self.path.insert(0, step)
        return self

    def __str__(self) -> str:
        return f"{''.join(self.path).removeprefix('.')[:_SHOWN_PATH] or 'the body'} {self.args[0]}"


@dataclass(frozen=True, slots=True)
class _Field:
    """What reading needs of a field; descriptors themselves are slow to ask."""

    name: str
    kind: int
    is_repeated: bool
    is_message: bool
    is_span: bool
    as_hex: bool
    enum: Mapping[str, int]

    @classmethod
    def of(cls, field: FieldDescriptor) -> Self:
        return cls(
            name=field.name,
            kind=field.type,
            is_repeated=field.is_repeated,
            is_message=field.type == _FD.TYPE_MESSAGE,
            is_span=field.message_type is Span.DESCRIPTOR,
            as_hex=field.name in _HEX_FIELDS,
            enum={item.name: item.number for item in field.enum_type.values} if field.enum_type else {},
        )


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
        reader.fill(request, document, 0)
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

    def fill(self, message: Message, value: object, depth: int) -> None:
        """Set a message's fields from a JSON object. Raises _BadValueError."""
        if not isinstance(value, dict):
            raise _BadValueError(f"is a JSON {_kind(value)}, not an object")
        fields = _fields_of(cast("Descriptor", message.DESCRIPTOR))
        for name, item in cast("dict[str, object]", value).items():
            field = fields.get(name)
            if field is None or item is None:
                continue
            try:
                if field.is_repeated:
                    self._repeated(message, field, item, depth)
                elif field.is_message:
                    inner = getattr(message, field.name)
                    inner.SetInParent()
                    self._message(inner, item, depth + 1)
                elif field.kind == _FD.TYPE_STRING:
                    self._string(message, field, _text(item))
                else:
                    setattr(message, field.name, _scalar(field, item))
            except _BadValueError as error:
                raise error.within(f".{name}") from None

    def _message(self, message: Message, value: object, depth: int) -> None:
        if depth > MAX_DEPTH - 2 and isinstance(message, AnyValue):
            self.mended += 1
            try:
                message.string_value = json.dumps(value)
            except RecursionError as error:
                raise _BadValueError("nests too deeply to be kept") from error
            return
        self.fill(message, value, depth)

    def _repeated(self, message: Message, field: _Field, value: object, depth: int) -> None:
        if not isinstance(value, list):
            raise _BadValueError(f"is a JSON {_kind(value)}, not an array")
        target = getattr(message, field.name)
        for index, item in enumerate(cast("list[object]", value)):
            try:
                if field.is_span:
                    span = Span()
                    self.fill(span, item, depth + 1)
                    target.append(span)
                elif field.is_message:
                    self._message(target.add(), item, depth + 1)
                else:
                    target.append(_text(item) if field.kind == _FD.TYPE_STRING else _scalar(field, item))
            except _BadValueError as error:
                if not field.is_span:
                    raise error.within(f"[{index}]") from None
                self.rejected_spans += 1
                self.first_rejection = self.first_rejection or f"left out: span {index}: {error}"

    def _string(self, message: Message, field: _Field, text: str) -> None:
        try:
            setattr(message, field.name, text)
        except UnicodeEncodeError:
            self.mended += 1
            written = texts.of_text(text, marked_bytes=self.had_bad_bytes)
            if written is not None:
                setattr(message, field.name, written)
            elif isinstance(message, AnyValue):
                message.bytes_value = texts.raw(text, marked_bytes=self.had_bad_bytes)
            else:
                setattr(message, field.name, texts.written_out(text, marked_bytes=self.had_bad_bytes))


_FIELDS: dict[str, dict[str, _Field]] = {}


def _fields_of(kind: Descriptor) -> dict[str, _Field]:
    found = _FIELDS.get(kind.full_name)
    if found is None:
        found = {name: _Field.of(field) for field in kind.fields for name in (field.name, field.json_name)}
        _FIELDS[kind.full_name] = found
    return found


def _scalar(field: _Field, item: object) -> object:
    kind = field.kind
    if kind == _FD.TYPE_BYTES:
        return _bytes(item, as_hex=field.as_hex)
    if kind == _FD.TYPE_BOOL:
        if isinstance(item, bool):
            return item
        raise _BadValueError(f"is {_shown(item)}, not true or false")
    if kind in (_FD.TYPE_DOUBLE, _FD.TYPE_FLOAT):
        return _double(item)
    if kind == _FD.TYPE_ENUM:
        known = field.enum.get(item) if isinstance(item, str) else None
        return _integer(item, *_INTEGERS[_FD.TYPE_INT32]) if known is None else known
    return _integer(item, *_INTEGERS[kind])


def _text(item: object) -> str:
    if isinstance(item, str):
        return item
    raise _BadValueError(f"is {_shown(item)}, not a string")


def _bytes(item: object, *, as_hex: bool) -> bytes:
    text = _text(item)
    try:
        if as_hex:
            return binascii.unhexlify(text)
        padded = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(padded + "=" * (-len(padded) % 4), validate=True)
    except ValueError as error:
        raise _BadValueError(f"is {_shown(item)}, not {'hexadecimal' if as_hex else 'base64'}") from error


def _integer(item: object, least: int, most: int) -> int:
    value: int | None = None
    if isinstance(item, int) and not isinstance(item, bool):
        value = item
    elif (isinstance(item, float) and item.is_integer()) or (isinstance(item, str) and _DECIMAL.fullmatch(item)):
        value = int(item)
    if value is None or not least <= value <= most:
        raise _BadValueError(f"is {_shown(item)}, not an integer from {least} to {most}")
    return value


def _double(item: object) -> float:
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
    raise _BadValueError(f"is {_shown(item)}, not a number")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "number")


def _shown(value: object) -> str:
    return ascii(value)[:_SHOWN]
