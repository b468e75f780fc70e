"""The host's own OpenTelemetry: metrics into its MeterProvider, spans into its TracerProvider where its owner asks.

Providers are global and can be set once in a process' life, so each test has a process of its own.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from loopscope_schemas import attributes as at

from .provider_server import Reply, Server, failing, ok, stream_events

BEGIN = """
    import json, anthropic, loopscope
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased

    exporter = InMemorySpanExporter()

    def provide(sampler=ALWAYS_ON, **limits):
        provider = TracerProvider(sampler=sampler, span_limits=SpanLimits(**limits))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

    def exported():
        names = {span.context.span_id: span.name for span in exporter.get_finished_spans()}
        return [{"name": span.name, "parent": names.get(span.parent.span_id) if span.parent else None,
                 "trace": span.context.trace_id, "attributes": dict(span.attributes), "kind": span.kind.name,
                 "scope": span.instrumentation_scope.name, "status": span.status.status_code.name,
                 "events": [[event.name, dict(event.attributes)] for event in span.events],
                 "duration": span.end_time - span.start_time}
                for span in exporter.get_finished_spans()]

    from inspect import signature

    own = {"open_telemetry": False} if "open_telemetry" in signature(anthropic.Anthropic).parameters else {}
    client = anthropic.Anthropic(max_retries=0, **own)
    ask = dict(model="claude-sonnet-4-6", max_tokens=9, system="the secret system",
               messages=[{"role": "user", "content": "the secret question " * 20}])

    @loopscope.tool
    def look(where):
        return "the secret result"

    @loopscope.tool
    def fail(where):
        raise ValueError("the secret reason")

    def work():
        with loopscope.run("agent", input="the secret input"):
            client.messages.create(**ask)
            look("the secret place")
            try:
                fail("the secret place")
            except ValueError:
                pass
"""


def host(code: str, server: Server, tmp_path: Path, **environment: str) -> Any:
    """Run a host application; what it prints as JSON."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOOPSCOPE_", "OTEL_"))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BEGIN) + textwrap.dedent(code)],
        env={
            **clean,
            "LOOPSCOPE_ENDPOINT": server.url,
            "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
            "ANTHROPIC_BASE_URL": server.url,
            "ANTHROPIC_API_KEY": "k",
            **environment,
        },
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mode", ["off", "metadata"])
def test_a_host_that_drops_and_cuts_costs_us_nothing_and_learns_no_prompt(
    mode: str, server: Server, tmp_path: Path
) -> None:
    """A sampler that drops everything, limits of 16 attributes of 64 characters; then one that keeps everything."""
    for sampler in ("ALWAYS_OFF", "ALWAYS_ON"):
        server.traces.clear()
        server.messages.clear()
        spans = host(
            f"""
            provide({sampler}, max_span_attributes=16, max_span_attribute_length=64)
            loopscope.configure(host_spans="{mode}")
            with trace.get_tracer("host").start_as_current_span("host work"):
                work()
            assert loopscope.flush(60), loopscope.stats()
            assert loopscope.stats()["internal_errors"] == 0
            print(json.dumps(exported()))
            """,
            server,
            tmp_path,
        )
        assert "secret" not in json.dumps(spans)
        mine = [span for span in spans if span["scope"] == "loopscope.genai"]
        assert len(mine) == (4 if (mode, sampler) == ("metadata", "ALWAYS_ON") else 0)
        assert all(len(span["attributes"]) <= 16 for span in mine)
        # Ours is complete either way: every span, every attribute, every character.
        assert len(server.spans()) == 4
        (call,) = server.calls()
        assert call[at.REQUEST_BODY] == server.messages[0].body
        assert len(call.attributes) > 16
        tool = next(span for span in server.spans() if span.operation == "execute_tool")
        assert tool[at.TOOL_CALL_RESULT] == '"the secret result"'


def test_metadata_says_everything_but_content(server: Server, tmp_path: Path) -> None:
    spans = host(
        """
        provide()
        loopscope.configure(host_spans="metadata", agent="a")
        with trace.get_tracer("host").start_as_current_span("host work"):
            work()
        assert loopscope.flush(60)
        print(json.dumps(exported()))
        """,
        server,
        tmp_path,
    )
    by_name = {span["name"]: span for span in spans}
    chat, run = by_name["chat claude-sonnet-4-6"], by_name["invoke_agent agent"]
    assert (run["parent"], chat["parent"], by_name["execute_tool look"]["parent"]) == ("host work", *[run["name"]] * 2)
    assert len({span["trace"] for span in spans}) == 1
    assert (chat["kind"], run["kind"]) == ("CLIENT", "INTERNAL")
    assert chat["duration"] > 0
    assert chat["attributes"][at.USAGE_INPUT_TOKENS] == 2121
    assert chat["attributes"][at.RESPONSE_FINISH_REASONS] == ["stop"]
    failed = by_name["execute_tool fail"]
    assert failed["status"] == "ERROR"
    assert failed["events"] == [["exception", {"exception.type": "ValueError"}]]
    keys = {key for span in spans for key in span["attributes"]}
    assert not [key for key in keys if key.startswith("loopscope.")]
    assert not keys & {at.INPUT_MESSAGES, at.OUTPUT_MESSAGES, at.SYSTEM_INSTRUCTIONS, at.TOOL_CALL_ARGUMENTS}


def test_full_says_content_too(server: Server, tmp_path: Path) -> None:
    spans = host(
        """
        provide()
        loopscope.configure()
        work()
        assert loopscope.flush(60)
        print(json.dumps(exported()))
        """,
        server,
        tmp_path,
        LOOPSCOPE_HOST_SPANS="full",
    )
    by_name = {span["name"]: span for span in spans}
    chat = by_name["chat claude-sonnet-4-6"]["attributes"]
    assert json.loads(chat[at.INPUT_MESSAGES])[0]["parts"][0]["content"].startswith("the secret question")
    assert json.loads(chat[at.OUTPUT_MESSAGES])[0]["finish_reason"] == "stop"
    assert by_name["execute_tool look"]["attributes"][at.TOOL_CALL_RESULT] == '"the secret result"'
    assert by_name["invoke_agent agent"]["parent"] is None


def test_the_hosts_sampler_decides_by_its_own_parent(server: Server, tmp_path: Path) -> None:
    spans = host(
        """
        from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
        provide(ParentBased(ALWAYS_ON))
        loopscope.configure(host_spans="metadata")
        with use_span(NonRecordingSpan(SpanContext(1, 2, True, TraceFlags(0)))):
            work()  # an unsampled request
        with use_span(NonRecordingSpan(SpanContext(3, 4, True, TraceFlags(1)))):
            work()
        assert loopscope.flush(60)
        print(json.dumps(exported()))
        """,
        server,
        tmp_path,
    )
    assert {span["trace"] for span in spans} == {3}
    assert len(spans) == 4
    assert len(server.spans()) == 8


def test_a_host_exporter_that_hangs_or_raises_holds_up_nothing(server: Server, tmp_path: Path) -> None:
    result = host(
        """
        import threading
        from opentelemetry.sdk.trace.export import SpanExporter

        class Hangs(SpanExporter):
            def export(self, spans):
                threading.Event().wait()

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Hangs()))
        trace.set_tracer_provider(provider)
        loopscope.configure(host_spans="full")
        for _ in range(5):
            work()
        loopscope.flush(2)
        print(json.dumps(loopscope.stats()))
        """,
        server,
        tmp_path,
    )
    assert result["spans_dropped"] == 0
    server.wait_for(lambda: len(server.spans()) == 20, "our own spans")


def test_metrics(server: Server, tmp_path: Path) -> None:
    server.replies = [ok(), Reply(events=stream_events()), failing(529, "overloaded_error"), ok()]
    data = host(
        """
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        loopscope.configure()
        client.messages.create(**ask)
        with client.messages.stream(**ask) as stream:
            stream.until_done()
        try:
            client.messages.create(**ask)
        except anthropic.APIStatusError:
            pass
        look("here")
        assert loopscope.flush(60)
        assert loopscope.stats()["internal_errors"] == 0
        print(reader.get_metrics_data().to_json())
        """,
        server,
        tmp_path,
    )
    (scope,) = data["resource_metrics"][0]["scope_metrics"]
    assert scope["scope"]["name"] == "loopscope.genai"
    found = {metric["name"]: metric for metric in scope["metrics"]}
    assert {name: metric["unit"] for name, metric in found.items()} == {
        "gen_ai.client.operation.duration": "s",
        "gen_ai.client.token.usage": "{token}",
        "gen_ai.client.operation.time_to_first_chunk": "s",
    }
    common = {
        at.OPERATION_NAME: "chat",
        at.PROVIDER_NAME: "anthropic",
        at.REQUEST_MODEL: "claude-sonnet-4-6",
        at.SERVER_ADDRESS: "127.0.0.1",
        at.SERVER_PORT: int(server.url.rpartition(":")[2]),
    }
    answered = common | {at.RESPONSE_MODEL: "claude-sonnet-4-6"}

    def points(name: str) -> list[dict[str, Any]]:
        return found[name]["data"]["data_points"]

    durations = points("gen_ai.client.operation.duration")
    assert [(point["attributes"], point["count"]) for point in durations] == [
        (answered, 2),
        (common | {at.ERROR_TYPE: "overloaded_error"}, 1),
    ]
    assert durations[0]["explicit_bounds"] == [0.01 * 2**power for power in range(14)]
    tokens = points("gen_ai.client.token.usage")
    assert [(p["attributes"], p["count"], p["sum"]) for p in tokens] == [
        (answered | {at.TOKEN_TYPE: "input"}, 2, 2 * 2121),
        (answered | {at.TOKEN_TYPE: "output"}, 2, 84),
    ]
    assert tokens[0]["explicit_bounds"] == [4**power for power in range(14)]
    (first,) = points("gen_ai.client.operation.time_to_first_chunk")
    assert (first["attributes"], first["count"]) == (answered, 1)
    assert first["sum"] > 0


def test_a_meter_provider_that_raises_costs_no_span(server: Server, tmp_path: Path) -> None:
    result = host(
        """
        class Broken(metrics.NoOpMeterProvider):
            def get_meter(self, *args, **kwargs):
                raise RuntimeError("broken")

        metrics.set_meter_provider(Broken())
        loopscope.configure()
        work()
        assert loopscope.flush(60)
        print(json.dumps(loopscope.stats()))
        """,
        server,
        tmp_path,
    )
    assert result["spans_dropped"] == 0
    assert result["internal_errors"] >= 1
    assert len(server.spans()) == 4
