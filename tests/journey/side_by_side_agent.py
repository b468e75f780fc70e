"""An agent of a host that has OpenTelemetry of its own, for `test_side_by_side`: run as a program, prints what it used.

Arguments: collector, stand-in, name of the agent, where it calls from (bare, run, host), instrumentations by comma.
"""

import asyncio
import importlib
import json
import sys
from contextlib import ExitStack
from typing import Any

import anthropic
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import loopscope

INSTRUMENTORS = {
    "openinference": ("openinference.instrumentation.anthropic", "AnthropicInstrumentor"),
    "openllmetry": ("opentelemetry.instrumentation.anthropic", "AnthropicInstrumentor"),
    "otel_genai": ("opentelemetry.instrumentation.genai.anthropic", "AnthropicInstrumentor"),
}
ASK: Any = {"model": "claude-sonnet-4-6", "max_tokens": 200}


def asks(text: str) -> Any:
    """Arguments of a call; the agent's name makes it a conversation of its own for the stand-in."""
    return {**ASK, "messages": [{"role": "user", "content": f"{sys.argv[3]}: {text}"}]}


async def at_once(url: str) -> list[Any]:
    """Three calls at the same time, and two that fail at the same time."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        answers = await asyncio.gather(*(client.messages.create(**asks(f"at once {number}")) for number in range(3)))
        fault = {"x-stub-fault": "status=529;times=-1"}
        failing = (client.messages.create(extra_headers=fault, **asks(f"fail {number}")) for number in range(2))
        failed = await asyncio.gather(*failing, return_exceptions=True)
        assert all(isinstance(item, anthropic.InternalServerError) for item in failed), failed
    return [item.usage for item in answers]


def calls(url: str) -> list[Any]:
    """Every style, answered and refused; the usage of those that were answered."""
    used: list[Any] = []
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        used.append(client.messages.create(**asks("plain")).usage)
        with client.messages.stream(**asks("streamed")) as stream:
            used.append(stream.get_final_message().usage)
        try:
            client.messages.create(extra_headers={"x-stub-fault": "status=429;times=-1"}, **asks("refused"))
        except anthropic.RateLimitError:
            pass
        else:
            raise AssertionError("the stand-in was to refuse")
        retrying = client.with_options(max_retries=2)
        fault = {"x-stub-fault": "status=529;times=1;retry_after=0.01"}
        used.append(retrying.messages.create(extra_headers=fault, **asks("tried again")).usage)
    return used + asyncio.run(at_once(url))


def main(collector: str, stub: str, name: str, place: str, instrumentations: str) -> None:
    """Set up the host's OpenTelemetry, then ours, then call."""
    chosen = instrumentations.split(",")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{collector}/v1/traces")))
    trace.set_tracer_provider(provider)
    for one in chosen:
        if one in INSTRUMENTORS:
            module, instrumentor = INSTRUMENTORS[one]
            getattr(importlib.import_module(module), instrumentor)().instrument(tracer_provider=provider)
    if "loopscope" in chosen:
        loopscope.configure(agent=name, endpoint=collector)
    with ExitStack() as around:
        if place == "host":
            around.enter_context(provider.get_tracer("my-app").start_as_current_span("handle request"))
        if place != "bare" and "loopscope" in chosen:
            around.enter_context(loopscope.run(name))
        used = calls(stub)
    assert provider.force_flush()
    if "loopscope" in chosen:
        assert loopscope.flush(60), loopscope.stats()
        assert loopscope.stats()["internal_errors"] == 0, loopscope.stats()
    print(json.dumps({"input": sum(u.input_tokens for u in used), "output": sum(u.output_tokens for u in used)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
