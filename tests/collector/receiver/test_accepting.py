"""What the receiver takes: both encodings, gzip, both paths, real exporters' bytes; and how it answers."""

import gzip
import json

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.otlp import JSON, PROTOBUF, interop_files, request_with, span_names
from support.receiver import Running, StartReceiver


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("path", "kind"), [("/v1/traces", "traces"), ("/loopscope/v1/starts", "starts")])
def test_protobuf_is_kept_byte_for_byte(receiver: Running, zipped: bool, path: str, kind: str) -> None:
    body = request_with("one", "two", text="hello").SerializeToString()
    headers = PROTOBUF | ({"content-encoding": "gzip"} if zipped else {})
    answer = receiver.client.post(path, content=gzip.compress(body) if zipped else body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    (record,) = receiver.kept()
    assert (record.kind, record.encoding, record.body) == (kind, "protobuf", body)
    assert record.received_at > 1_700_000_000_000_000_000


def test_spans_of_the_opentelemetry_sdk_arrive(receiver: Running) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
        pass
    body = encode_spans(exporter.get_finished_spans()).SerializeToString()
    assert receiver.client.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
    assert receiver.kept_spans() == ["inner", "outer"]


def test_recorded_requests_of_other_instrumentations_are_kept(receiver: Running) -> None:
    files = interop_files("*.traces*.pb")
    for path in files:
        answer = receiver.client.post("/v1/traces", content=path.read_bytes(), headers=PROTOBUF)
        assert answer.status_code == 200, path
    assert [record.body for record in receiver.kept()] == [path.read_bytes() for path in files]


def test_recorded_json_requests_equal_their_protobuf_twins(receiver: Running) -> None:
    files = interop_files("*.traces.otlp.json")
    for path in files:
        answer = receiver.client.post("/v1/traces", content=path.read_bytes(), headers=JSON)
        assert (answer.status_code, answer.json()) == (200, {}), path
    for path, record in zip(files, receiver.kept(), strict=True):
        twin = path.with_name(path.name.replace(".otlp.json", ".pb"))
        assert ExportTraceServiceRequest.FromString(record.body) == ExportTraceServiceRequest.FromString(
            twin.read_bytes()
        ), path


def test_a_chunked_body_of_many_members_is_put_together(receiver: Running) -> None:
    body = request_with("long", text="x" * 300_000).SerializeToString()
    members = gzip.compress(body[:100_000]) + gzip.compress(body[100_000:]) + bytes(512)
    pieces = (members[at : at + 1000] for at in range(0, len(members), 1000))
    headers = PROTOBUF | {"content-encoding": "gzip"}
    assert receiver.client.post("/v1/traces", content=pieces, headers=headers).status_code == 200
    assert [record.body for record in receiver.kept()] == [body]


@pytest.mark.parametrize(("headers", "empty"), [(PROTOBUF, b""), (JSON, b"{}"), (JSON, b'{"resourceSpans":[]}')])
def test_an_empty_request_is_fine_and_keeps_nothing(receiver: Running, headers: dict[str, str], empty: bytes) -> None:
    assert receiver.client.post("/v1/traces", content=empty, headers=headers).status_code == 200
    assert receiver.queue.is_empty


def test_a_json_span_that_cannot_be_read_costs_itself_alone(receiver: Running) -> None:
    spans = [{"name": "good"}, {"name": "bad", "traceId": "not hex"}, {"name": "also good"}]
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    answer = receiver.client.post("/v1/traces", content=body, headers=JSON)
    assert answer.status_code == 200
    partial = answer.json()["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert partial["errorMessage"] == "left out: span 1: traceId is 'not hex', not hexadecimal"
    assert receiver.kept_spans() == ["good", "also good"]
    assert receiver.metrics.value("receiver_rejected_spans") == 1


def test_one_bad_string_in_protobuf_does_not_cost_its_neighbours(receiver: Running) -> None:
    body = request_with("good", "broken", text="a value").SerializeToString()
    body = body.replace(b"broken", b"bro\xffen").replace(b"a value", b"a\xed\xa0\x80lue"[:7])
    assert receiver.client.post("/v1/traces", content=body, headers=PROTOBUF).status_code == 200
    (record,) = receiver.kept()
    assert span_names(record.body) == ["good", r"bro\xffen"]
    request = ExportTraceServiceRequest.FromString(record.body)
    for span in request.resource_spans[0].scope_spans[0].spans:
        assert span.attributes[0].value.string_value == r"a\ud800lue"
    assert receiver.metrics.value("receiver_mended_strings") == 3


def test_metrics_count_what_was_taken(receiver: Running) -> None:
    body = request_with("one", "two").SerializeToString()
    receiver.client.post("/v1/traces", content=body, headers=PROTOBUF)
    text = receiver.client.get("/metrics").text
    assert 'loopscope_receiver_spans_total{kind="traces"} 2\n' in text
    assert f'loopscope_receiver_bytes_total{{kind="traces"}} {len(body)}\n' in text
    assert "# TYPE loopscope_receiver_request_seconds histogram\n" in text


def test_health_says_whether_data_is_taken_and_stored(start_receiver: StartReceiver) -> None:
    from loopscope_collector.receiver import Readiness

    state = [Readiness(ready=True, detail={"store": "ok"})]
    receiver = start_receiver(readiness=lambda: state[0])
    answer = receiver.client.get("/healthz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["store"]) == (200, True, "ok")
    state[0] = Readiness(ready=False, detail={"store": "gone"})
    answer = receiver.client.get("/healthz")
    assert (answer.status_code, answer.json()["ready"], answer.json()["store"]) == (503, False, "gone")
    assert receiver.client.head("/healthz").status_code == 503
