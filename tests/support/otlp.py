"""OTLP requests for tests, and the recorded bytes of other instrumentations where they are at hand."""

from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


def request_with(*names: str, **attributes: str) -> ExportTraceServiceRequest:
    """A request with a span for each name, each with the attributes."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, name in enumerate(names, 1):
        span = spans.add(name=name, trace_id=bytes(15) + b"\x01", span_id=number.to_bytes(8, "big"))
        for key, value in attributes.items():
            span.attributes.add(key=key).value.string_value = value
    return request


def span_names(body: bytes) -> list[str]:
    """Names of the spans in a protobuf body."""
    request = ExportTraceServiceRequest.FromString(body)
    return [span.name for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def interop_files(pattern: str) -> list[Path]:
    """Recorded requests in `../shared/interop/<dialect>/`; skips the test where there are none."""
    for parent in Path(__file__).parents:
        found = sorted((parent / "shared" / "interop").glob(f"*/{pattern}"))
        if found:
            return found
    pytest.skip("no recorded OTLP requests: ../shared/interop is not there")
