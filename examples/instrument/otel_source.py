"""Any OpenTelemetry source: here OpenInference records a plain loop, and an exporter sends its spans to the collector.

pip install openinference-instrumentation-anthropic opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
"""

import os
import sys

from openinference.instrumentation.anthropic import AnthropicInstrumentor
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from plain_loop import answer

COLLECTOR = os.environ.get("LOOPSCOPE_ENDPOINT", "http://127.0.0.1:4318")

provider = TracerProvider(resource=Resource.create({"service.name": "orders"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{COLLECTOR}/v1/traces")))
trace.set_tracer_provider(provider)
AnthropicInstrumentor().instrument(tracer_provider=provider)


if __name__ == "__main__":
    with trace.get_tracer("orders").start_as_current_span("answer"):  # one trace: one run
        print(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?"))
    provider.shutdown()
