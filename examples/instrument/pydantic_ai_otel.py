"""A pydantic-ai agent that sends its own OpenTelemetry spans to the collector: without Loopscope in the process.

pip install "pydantic-ai-slim[anthropic]" opentelemetry-sdk opentelemetry-exporter-otlp-proto-http
"""

import os
import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings

COLLECTOR = os.environ.get("LOOPSCOPE_ENDPOINT", "http://127.0.0.1:4318")

provider = TracerProvider(resource=Resource.create({"service.name": "orders"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{COLLECTOR}/v1/traces")))
Agent.instrument_all(InstrumentationSettings(tracer_provider=provider))

agent = Agent("anthropic:claude-sonnet-4-6", name="orders", instructions="You are the support desk of a small shop.")


@agent.tool_plain
def find_order(order_id: str) -> str:
    """State of an order."""
    return f"{order_id}: an espresso machine, delivered on Friday"


if __name__ == "__main__":
    print(agent.run_sync(" ".join(sys.argv[1:]) or "Where is order K-88120?").output)
    provider.shutdown()
