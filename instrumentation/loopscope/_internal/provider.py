"""The private TracerProvider: always on, without limits, with ids of its own randomness, never the global one.

The host's provider stays as it is. Sharing it would lose runs to its sampler, cut prompts to its limits and send them
to its exporter. Created at `configure`, once for the life of the process; what its spans end in is asked for anew at
each end, so that a later `configure` or a fork needs no new provider.
"""

import os
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, get_current_span, set_span_in_context

from .recording import CLIENT, INTERNAL

KINDS = {INTERNAL: SpanKind.INTERNAL, CLIENT: SpanKind.CLIENT}


class SystemIds(IdGenerator):
    """Ids from the operating system.

    OpenTelemetry's generator draws from the shared `random`: a host that seeds it would give two processes the same
    ids, and would see its own random numbers shifted by ours.
    """

    def generate_trace_id(self) -> int:
        return int.from_bytes(os.urandom(16), "big") or 1

    def generate_span_id(self) -> int:
        return int.from_bytes(os.urandom(8), "big") or 1


class _OnEnd(SpanProcessor):
    def __init__(self, ended: Callable[[ReadableSpan], None]) -> None:
        self._ended = ended

    def on_end(self, span: ReadableSpan) -> None:
        self._ended(span)


def make_tracer(version: str, ended: Callable[[ReadableSpan], None]) -> Tracer:
    """A tracer of a new private provider; `ended` is called on the thread that ends a span, and must be quick."""
    unlimited = SpanLimits.UNSET
    provider = TracerProvider(
        sampler=ALWAYS_ON,
        resource=Resource({}),  # ours is written by the encoder; reading detectors here would cost time
        shutdown_on_exit=False,
        id_generator=SystemIds(),
        span_limits=SpanLimits(
            max_attributes=unlimited,
            max_events=unlimited,
            max_links=unlimited,
            max_span_attributes=unlimited,
            max_event_attributes=unlimited,
            max_link_attributes=unlimited,
            max_attribute_length=unlimited,
            max_span_attribute_length=unlimited,
        ),
        meter_provider=NoOpMeterProvider(),  # else the SDK counts our spans into the host's metrics
    )
    provider.add_span_processor(_OnEnd(ended))
    tracer = provider.get_tracer("loopscope", version)
    if not isinstance(tracer, Tracer):
        raise RuntimeError("OpenTelemetry gave a tracer that does not record; unset OTEL_SDK_DISABLED")
    return tracer


def host_span() -> SpanContext | None:
    """The span that the host has current in OpenTelemetry's context, if any."""
    context = get_current_span().get_span_context()
    return context if context.is_valid else None


def parent_context(parent: SpanContext | None) -> Context:
    """A context that names this parent and nothing else (the host's baggage and flags stay out)."""
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
