"""What the SDK's benchmark compares: each a recorder that can be switched on and off in a running process.

Set up as its own documentation says, with everything sent to the benchmark's server over OTLP/HTTP in protobuf. Span
limits are lifted where there are any: with OpenTelemetry's default of 128 attributes OpenInference loses most of a long
prompt, and is then measured for what it does not record. Imported by `sdk_worker` in the recorder's own environment, so
imports stand inside.
"""

# The peers are installed in environments of their own:
# pyright: reportMissingImports=false
# ruff: noqa: ARG002 - all recorders are made alike

import contextlib
import importlib.metadata
import json
import os
from typing import Any


class Recorder:
    """The uninstrumented SDK; base of the others."""

    packages: tuple[str, ...] = ()

    def __init__(self, url: str, folder: str) -> None:
        """Import and configure."""

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("anthropic", *self.packages)}

    def on(self) -> None:
        """Record from here on."""

    def off(self) -> None:
        """Record nothing from here on."""

    def run(self) -> contextlib.AbstractContextManager[Any]:
        """What a block of calls is inside of."""
        return contextlib.nullcontext()

    def client(self, client: Any) -> Any:
        """The client to call while on."""
        return client

    def create(self, client: Any) -> Any:
        """What to call while on."""
        return client.messages.create

    def create_async(self, client: Any) -> Any:
        return client.messages.create

    def flush(self) -> None:
        """Everything recorded is sent."""

    def close(self) -> None:
        """The end of the process."""


class Loopscope(Recorder):
    packages = ("loopscope",)

    def __init__(self, url: str, folder: str) -> None:
        import loopscope

        self.loopscope = loopscope
        loopscope.configure(agent="bench", endpoint=url, spool_dir=folder, **self.settings())
        self.instrumentation = loopscope.instrument_anthropic()

    def settings(self) -> dict[str, Any]:
        return {}

    def on(self) -> None:
        self.instrumentation = self.loopscope.instrument_anthropic()

    def off(self) -> None:
        self.instrumentation.undo()

    def run(self) -> contextlib.AbstractContextManager[Any]:
        return self.loopscope.run("bench")

    def flush(self) -> None:
        if not self.loopscope.flush(60):
            raise SystemExit(f"not delivered: {self.loopscope.stats()}")

    def close(self) -> None:
        self.loopscope.shutdown(5)


class LoopscopeRules(Loopscope):
    """All kinds of personal data and three rules looked for as well."""

    def settings(self) -> dict[str, Any]:
        rules = {"customer": r"CUST-\d{6}", "project": r"(?i)project (?:falcon|heron)", "case": r"\bcase #\d+"}
        return {"redact_pii": True, "redact_rules": rules}


class LoopscopeMetadata(Loopscope):
    def settings(self) -> dict[str, Any]:
        return {"capture": "metadata"}


class _OpenTelemetry(Recorder):
    """A tracer provider of the host's, batching to the benchmark's server."""

    def __init__(self, url: str, folder: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import SpanLimits, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        limits = SpanLimits(max_span_attributes=100_000, max_attributes=100_000, max_events=100_000)
        self.provider = TracerProvider(span_limits=limits)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
        self.set_up()

    def set_up(self) -> None:
        pass

    def flush(self) -> None:
        self.provider.force_flush(60_000)

    def close(self) -> None:
        self.provider.shutdown()


class Manual(_OpenTelemetry):
    """What an engineer writes by hand: one span around the call, request and answer as JSON."""

    packages = ("opentelemetry-sdk",)

    def set_up(self) -> None:
        self.tracer = self.provider.get_tracer("bench")

    def create(self, client: Any) -> Any:
        def create(**request: Any) -> Any:
            with self.tracer.start_as_current_span(f"chat {request['model']}") as span:
                span.set_attribute("gen_ai.input.messages", json.dumps(request["messages"]))
                answer = client.messages.create(**request)
                if request.get("stream"):
                    answer = list(answer)
                    span.set_attribute("gen_ai.output.messages", json.dumps([event.to_dict() for event in answer]))
                else:
                    span.set_attribute("gen_ai.output.messages", answer.to_json(indent=None))
                    span.set_attribute("gen_ai.usage.input_tokens", answer.usage.input_tokens)
                return answer

        return create

    def create_async(self, client: Any) -> Any:
        async def create(**request: Any) -> Any:
            with self.tracer.start_as_current_span(f"chat {request['model']}") as span:
                span.set_attribute("gen_ai.input.messages", json.dumps(request["messages"]))
                answer = await client.messages.create(**request)
                if request.get("stream"):
                    events = [event async for event in answer]
                    span.set_attribute("gen_ai.output.messages", json.dumps([event.to_dict() for event in events]))
                    return _replayed(events)
                span.set_attribute("gen_ai.output.messages", answer.to_json(indent=None))
                return answer

        return create


async def _replayed(events: list[Any]) -> Any:
    for event in events:
        yield event


class Native(_OpenTelemetry):
    """The anthropic SDK's own spans, without content."""

    packages = ("opentelemetry-sdk",)
    traces: Any = True

    def client(self, client: Any) -> Any:
        return client.with_options(open_telemetry={"tracer_provider": self.provider, "traces": self.traces})


class NativeContent(Native):
    traces: Any = {"enabled": True, "content_mode": "content", "max_content_bytes": 64 * 1024 * 1024}  # noqa: RUF012 - a constant


class _Instrumentor(_OpenTelemetry):
    instrumentor: Any

    def on(self) -> None:
        self.instrumentor.instrument(tracer_provider=self.provider)

    def off(self) -> None:
        if self.instrumentor.is_instrumented_by_opentelemetry:
            self.instrumentor.uninstrument()


class OpenInference(_Instrumentor):
    packages = ("openinference-instrumentation-anthropic", "opentelemetry-sdk")

    def set_up(self) -> None:
        from openinference.instrumentation.anthropic import AnthropicInstrumentor

        self.instrumentor = AnthropicInstrumentor()


class OpenLLMetry(_Instrumentor):
    packages = ("opentelemetry-instrumentation-anthropic", "opentelemetry-sdk")

    def set_up(self) -> None:
        from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

        self.instrumentor = AnthropicInstrumentor()


class Langfuse(Recorder):
    """Langfuse's client, and for anthropic the instrumentation that its documentation names."""

    packages = ("langfuse", "opentelemetry-instrumentation-anthropic")

    def __init__(self, url: str, folder: str) -> None:
        os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "LANGFUSE_BASE_URL": url}
        os.environ |= {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "100000", "LANGFUSE_HOST": url}
        from langfuse import Langfuse as Client
        from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

        self.langfuse = Client()
        self.instrumentor: Any = AnthropicInstrumentor()

    def on(self) -> None:
        self.instrumentor.instrument()

    def off(self) -> None:
        if self.instrumentor.is_instrumented_by_opentelemetry:
            self.instrumentor.uninstrument()

    def flush(self) -> None:
        self.langfuse.flush()


class MLflow(Recorder):
    packages = ("mlflow",)

    def __init__(self, url: str, folder: str) -> None:
        os.environ |= {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "100000",
        }
        import mlflow
        import mlflow.anthropic

        self.mlflow: Any = mlflow
        mlflow.anthropic.autolog()

    def on(self) -> None:
        self.mlflow.anthropic.autolog()

    def off(self) -> None:
        self.mlflow.anthropic.autolog(disable=True)

    def flush(self) -> None:
        from mlflow.tracing import provider

        provider.provider.get().force_flush(60_000)


RECORDERS: dict[str, type[Recorder]] = {
    "loopscope": Loopscope,
    "loopscope-metadata": LoopscopeMetadata,
    "loopscope-rules": LoopscopeRules,
    "manual": Manual,
    "native": Native,
    "native-content": NativeContent,
    "openinference": OpenInference,
    "openllmetry": OpenLLMetry,
    "langfuse": Langfuse,
    "mlflow": MLflow,
}
ENVIRONMENTS = {"native-content": "native"}
"""Recorder -> the folder below .venv-bench that it runs in, where that is not its own name. Ours run in .venv."""
