"""Text that protobuf refuses, deep values, odd JSON: kept, in a form that says what it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValueList
from support.otlp import request_with, span_names

from loopscope_collector.receiver import texts
from loopscope_collector.receiver.otlp_json import decode_json
from loopscope_collector.receiver.protobuf import UndecodableError, decode_protobuf

PLACE = "P" * 60
SPAN = {"name": "span", "attributes": [{"key": "key", "value": {"stringValue": PLACE}}]}


def value_after_protobuf(raw: bytes) -> AnyValue:
    """An attribute value whose string holds these bytes, after the receiver mended its request."""
    request = request_with("neighbour", "span", key=PLACE[: len(raw)])
    body = request.SerializeToString().replace(PLACE[: len(raw)].encode(), raw)
    decoded = decode_protobuf(body)
    assert span_names(decoded.body) == ["neighbour", "span"]
    return first_value(decoded.body, span=1)


def value_after_json(value: str) -> AnyValue:
    """An attribute value from a JSON body whose string holds this escaped text."""
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN]}]}]}
    return first_value(decode_json(json.dumps(document).replace(PLACE, value).encode("utf-8", "surrogateescape")).body)


def first_value(body: bytes, span: int = 0) -> AnyValue:
    """The value of a span's first attribute."""
    scope = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0]
    return scope.spans[span].attributes[0].value


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"cut \xed\xa0\xbd here", r"cut \ud83d here"),
        (b"byte \xff here", r"byte \xff here"),
        (b'{"a": "cut \xed\xa0\xbd"}', r'{"a": "cut \ud83d"}'),
        (b'["byte \xff"]', r'["byte \udcff"]'),
        (b'"pair \xed\xa0\xbd\xed\xb2\xa9"', r'"pair \ud83d\udca9"'),
        (b"caf\xc3\xa9 \xff", r"café \xff"),
    ],
)
def test_bad_bytes_in_protobuf_text_stay_text(raw: bytes, text: str) -> None:
    assert value_after_protobuf(raw).string_value == text


def test_text_that_looks_written_out_already_keeps_its_bytes() -> None:
    raw = rb"a literal \ud83d and a bad " + b"\xff"
    assert value_after_protobuf(raw).bytes_value == raw
    assert (
        value_after_json(r"a literal \\ud83d and a lone \ud83d").bytes_value
        == b"a literal \\ud83d and a lone \xed\xa0\xbd"
    )


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"cut \ud83d here", r"cut \ud83d here"),
        (r"whole \ud83d\udca9", "whole \U0001f4a9"),
        (r"[\"cut \ud83d\"]", r'["cut \ud83d"]'),
        ("byte \udcff", r"byte \xff"),
        (r"nul \u0000 bell \u0007", "nul \0 bell \a"),
    ],
)
def test_bad_text_in_json_stays_text(escaped: str, text: str) -> None:
    assert value_after_json(escaped).string_value == text


@given(st.text(st.characters(categories=("Cs", "L", "P")), max_size=40))
def test_written_json_means_what_it_meant(text: str) -> None:
    """JSON text with lone surrogates in it, unescaped, reads back as the same string."""
    document = json.dumps([text], ensure_ascii=False)
    written = texts.of_text(document, marked_bytes=False)
    assert written is not None
    written.encode()
    (read,) = json.loads(written)
    assert read == text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@given(st.binary(max_size=60))
def test_no_bytes_in_an_attribute_cost_the_batch(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError:
        value = value_after_protobuf(raw)
        assert value.bytes_value == raw or value.string_value.encode()


def test_names_and_keys_are_written_out() -> None:
    body = request_with("PLACE", KEYKEY="value").SerializeToString()
    decoded = decode_protobuf(body.replace(b"PLACE", b"PL\xffCE").replace(b"KEYKEY", b"KEY\xfe\xfd\xfc"))
    request = ExportTraceServiceRequest.FromString(decoded.body)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert (span.name, span.attributes[0].key) == (r"PL\xffCE", r"KEY\xfe\xfd\xfc")
    assert decoded.mended == 2


@pytest.mark.parametrize("depth", [30, 60, 500])
def test_deep_values_are_kept_in_protobuf(depth: int) -> None:
    value = AnyValue(string_value="leaf")
    raw = value.SerializeToString()
    for _ in range(depth):
        array = b"\x0a" + _length(raw) + raw
        raw = b"\x2a" + _length(array) + array
    span = b"\x4a" + _length(b"\x0a\x01k\x12" + _length(raw) + raw) + b"\x0a\x01k\x12" + _length(raw) + raw
    scope_spans = b"\x12" + _length(span) + span
    resource_spans = b"\x12" + _length(scope_spans) + scope_spans
    body = b"\x0a" + _length(resource_spans) + resource_spans
    decoded = decode_protobuf(body)
    assert decoded.spans == 1
    assert decoded.mended == (1 if depth > 60 else decoded.mended)
    ExportTraceServiceRequest.FromString(decoded.body)


@pytest.mark.parametrize("depth", [30, 60, 200])
def test_deep_values_are_kept_in_json(depth: int) -> None:
    value: object = {"stringValue": "leaf"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    spans = [{"name": "deep", "attributes": [{"key": "k", "value": value}]}, {"name": "flat"}]
    decoded = decode_json(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode())
    assert span_names(decoded.body) == ["deep", "flat"]


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"intValue": "-9223372036854775808"}, AnyValue(int_value=-(2**63))),
        ({"intValue": 5}, AnyValue(int_value=5)),
        ({"intValue": 5.0}, AnyValue(int_value=5)),
        ({"doubleValue": "NaN"}, None),
        ({"doubleValue": "-Infinity"}, AnyValue(double_value=float("-inf"))),
        ({"doubleValue": 3}, AnyValue(double_value=3)),
        ({"boolValue": False}, AnyValue(bool_value=False)),
        ({"bytesValue": "/+8="}, AnyValue(bytes_value=b"\xff\xef")),
        ({"bytesValue": "_-8"}, AnyValue(bytes_value=b"\xff\xef")),
        ({"stringValue": ""}, AnyValue(string_value="")),
        ({"kvlistValue": {"values": []}}, AnyValue(kvlist_value=KeyValueList())),
        ({"futureValue": 1}, AnyValue()),
    ],
)
def test_values_of_otlp_json(attribute: dict[str, object], expected: AnyValue | None) -> None:
    span = {"name": "s", "attributes": [{"key": "k", "value": attribute}], "unknownField": {"a": 1}}
    decoded = decode_json(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode())
    request = ExportTraceServiceRequest.FromString(decoded.body)
    value = request.resource_spans[0].scope_spans[0].spans[0].attributes[0].value
    if expected is None:
        assert value.double_value != value.double_value
    else:
        assert value == expected


@pytest.mark.parametrize(
    ("span", "complaint"),
    [
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano is 'soon', not an integer from 0 to 18446744073709551615"),
        ({"startTimeUnixNano": -1}, "startTimeUnixNano is -1, not"),
        ({"kind": "SPAN_KIND_NONE"}, "kind is 'SPAN_KIND_NONE', not"),
        ({"name": 7}, "name is 7, not a string"),
        ({"spanId": "abc"}, "spanId is 'abc', not hexadecimal"),
        ({"attributes": {"k": "v"}}, "attributes is a JSON object, not an array"),
        (
            {"attributes": [{"value": {"boolValue": "yes"}}]},
            "attributes[0].value.boolValue is 'yes', not true or false",
        ),
        ({"attributes": [{"value": {"intValue": 2**63}}]}, "attributes[0].value.intValue is 9223372036854775808"),
        ({"attributes": [{"value": {"doubleValue": "x"}}]}, "attributes[0].value.doubleValue is 'x', not a number"),
        ({"status": []}, "status is a JSON array, not an object"),
    ],
)
def test_a_span_of_wrong_types_is_left_out_with_a_reason(span: dict[str, object], complaint: str) -> None:
    spans = [{"name": "good"}, span]
    decoded = decode_json(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode())
    assert span_names(decoded.body) == ["good"]
    assert decoded.rejected_spans == 1
    assert decoded.message.startswith(f"left out: span 1: {complaint}")


def test_names_of_enums_and_original_names_are_read_too() -> None:
    body = {
        "resource_spans": [{"scope_spans": [{"spans": [{"name": "s", "kind": "SPAN_KIND_CLIENT", "trace_id": "0A"}]}]}]
    }
    request = ExportTraceServiceRequest.FromString(decode_json(json.dumps(body).encode()).body)
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert (span.kind, span.trace_id) == (3, b"\n")


def test_what_is_no_message_stays_undecodable() -> None:
    with pytest.raises(UndecodableError, match=r"cut off|wire type|longer than"):
        decode_protobuf(b"\x0a\x7f\xff\xff")


def _length(data: bytes) -> bytes:
    from loopscope_collector.receiver.protobuf import varint

    return varint(len(data))
