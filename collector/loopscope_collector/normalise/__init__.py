"""OTLP -> rows. Pure and deterministic: bytes, time of receipt, retention and prices in, rows out.

`normalise` decodes a record of the queue and gives each span to its dialect: chosen by the name of the instrumentation
scope, else by its attributes. A span that cannot be turned into a row is set aside; its neighbours go on. Nothing here
does I/O; the ingest half of the collector calls it.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from loopscope_collector.normalise import genai, loopscope, openinference, openllmetry
from loopscope_collector.normalise.batch import Batch, Refused
from loopscope_collector.normalise.context import Context
from loopscope_collector.normalise.costs import put_cost
from loopscope_collector.normalise.spans import Origin, draft_of, finish, ids_of, origin_of
from loopscope_schemas import attributes as at
from loopscope_schemas.rows import SpanRow

__all__ = ["Batch", "Context", "NotTelemetryError", "QueueRecord", "Refused", "normalise", "single_spans"]

_DIALECTS: Final = {
    "com.anthropic.sdk.python": "anthropic_native",
    "opentelemetry.instrumentation.genai": "otel_genai",
    "opentelemetry.instrumentation.anthropic": openllmetry.NAME,
    "traceloop": openllmetry.NAME,
    "openinference.instrumentation": openinference.NAME,
    "com.anthropic.claude_code": "claude_code",
}
"""Beginning of a scope's name -> dialect. Those without a module of their own are read as `genai` reads them."""
_MODULES: Final = {module.NAME: module for module in (loopscope, openinference, openllmetry)}
_MARKS: Final = {at.OPENINFERENCE_KIND: openinference.NAME, at.TRACELOOP_KIND: openllmetry.NAME}
"""Attribute that only one dialect writes -> dialect, for spans of scopes that are not known."""


class NotTelemetryError(ValueError):
    """A record does not hold spans; nothing of it can be stored."""


class QueueRecord(Protocol):
    """What is needed of a record of the queue."""

    @property
    def kind(self) -> str:
        """`traces` or `starts`."""
        ...

    @property
    def encoding(self) -> str:
        """`protobuf`."""
        ...

    @property
    def received_at(self) -> int:
        """Unix nanoseconds."""
        ...

    @property
    def body(self) -> bytes:
        """ExportTraceServiceRequest."""
        ...


def normalise(record: QueueRecord, *, context: Context, into: Batch | None = None) -> Batch:
    """The rows of a record, added to `into`. Raises NotTelemetryError for bytes that do not decode."""
    batch = into if into is not None else Batch()
    if record.encoding != "protobuf":
        raise NotTelemetryError(f"encoding {record.encoding!r}: the receiver turns everything into protobuf")
    try:
        request = ExportTraceServiceRequest.FromString(record.body)
    except DecodeError as error:
        raise NotTelemetryError(f"no ExportTraceServiceRequest: {error}") from error
    marker = record.kind == "starts"
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            name = _dialect_of(scope_spans)
            origin = origin_of(resource_spans.resource, scope_spans.scope, name)
            for span in scope_spans.spans:
                try:
                    row = _row(span, origin, batch, context, record.received_at, marker)
                except Exception as error:  # noqa: BLE001 - whatever a hostile span does, its neighbours are kept
                    batch.refused.append(Refused(_alone(resource_spans, scope_spans, span), _reason(error)))
                else:
                    batch.spans.append(row)
    return batch


def single_spans(record: QueueRecord) -> Iterator[tuple[str, str, bytes]]:
    """Every span of a record: its trace and span id as its row has them, and a request that holds it alone."""
    request = ExportTraceServiceRequest.FromString(record.body)
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                trace_id, span_id = (found.hex() for found in ids_of(span))
                yield trace_id, span_id, _alone(resource_spans, scope_spans, span)


def _row(span: Span, origin: Origin, batch: Batch, context: Context, received_at: int, marker: bool) -> SpanRow:
    draft = draft_of(span, origin, batch, context, received_at, marker=marker)
    _MODULES.get(origin.dialect, genai).translate(draft)
    if draft.columns["kind"] in ("llm", "usage") and "end_time" in draft.columns:
        put_cost(draft)
    finish(draft)
    return SpanRow(**draft.columns)


def _dialect_of(scope_spans: ScopeSpans) -> str:
    scope = scope_spans.scope.name
    if scope in loopscope.SCOPES:
        return loopscope.NAME
    for prefix, name in _DIALECTS.items():
        if scope.startswith(prefix):
            return name
    for span in scope_spans.spans:
        for item in span.attributes:
            if item.key in _MARKS:
                return _MARKS[item.key]
    for span in scope_spans.spans:
        if any(item.key.startswith("gen_ai.") for item in span.attributes):
            return genai.NAME
    return "other"


def _alone(resource_spans: ResourceSpans, scope_spans: ScopeSpans, span: Span) -> bytes:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(resource=resource_spans.resource, schema_url=resource_spans.schema_url)
    group.scope_spans.add(scope=scope_spans.scope, schema_url=scope_spans.schema_url, spans=[span])
    return request.SerializeToString()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:500]}"
