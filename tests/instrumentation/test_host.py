"""The host always wins: its tracing, sampler, exporter and SDK are as they were, with and without us."""

import inspect
import json
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic._base_client import AsyncAPIClient, BaseClient, SyncAPIClient
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from support.sdk_features import has

import loopscope

from .conftest import Configure, ask, delivered
from .provider_server import Server

PATCHED = [
    (BaseClient, "_build_request"),
    (SyncAPIClient, "request"),
    (SyncAPIClient, "_process_response"),
    (AsyncAPIClient, "request"),
    (AsyncAPIClient, "_process_response"),
]


class Host:
    """A host application with tracing of its own, given to the client explicitly: nothing global is touched here."""

    def __init__(self, sampler: Sampler) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("host")

    def client(self, server: Server) -> anthropic.Anthropic:
        # The SDK's own tracing, where it has any.
        own: Any = {"open_telemetry": {"tracer_provider": self.provider}} if has("open_telemetry=") else {}
        return anthropic.Anthropic(api_key="k", base_url=server.url, **own)

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


def scenario(host: Host, client: anthropic.Anthropic) -> None:
    """Some work of a host: calls outside and inside of its own spans, inside and outside of a run."""
    with loopscope.run("agent"):
        client.messages.create(**ask())
        with host.tracer.start_as_current_span("host work"):
            client.messages.create(**ask())
    with host.tracer.start_as_current_span("host request"), loopscope.run("agent"):
        client.messages.create(**ask())


def shape(spans: list[ReadableSpan]) -> list[Any]:
    """What a backend would show of the host's spans, without ids and times."""
    names = {span.context.span_id: span.name for span in spans if span.context}
    found: list[Any] = []
    for span in spans:
        # A parent that the backend never received would be a broken trace.
        parent = "-" if span.parent is None else names.get(span.parent.span_id, "missing parent")
        attributes = {k: v for k, v in (span.attributes or {}).items() if "duration" not in k and "time" not in k}
        found.append((span.name, parent, span.kind, attributes, span.status.status_code))
    return found


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ParentBased(ALWAYS_ON), ParentBased(ALWAYS_OFF)])
def test_the_host_exports_what_it_exported_without_us(sampler: Sampler, server: Server, configure: Configure) -> None:
    without, with_us = Host(sampler), Host(sampler)
    with without.client(server) as client:
        scenario(without, client)
    configure()
    before = trace.get_tracer_provider()
    with with_us.client(server) as client:
        scenario(with_us, client)
    assert trace.get_tracer_provider() is before
    delivered()
    assert shape(with_us.spans()) == shape(without.spans())
    exported = 5 if has("open_telemetry=") else 2  # with the SDK's own spans, or the host's alone
    off = sampler.get_description().startswith("ParentBased{root:AlwaysOff")
    assert len(with_us.spans()) == (0 if off else exported)
    # Our collector gets each call once, whatever the host's sampler said, and nothing of the host's.
    assert len(server.calls()) == 3
    assert {span.operation for span in server.spans()} == {"chat", "invoke_agent"}
    # What goes to the provider names the same trace parents as without us: the host's own, or none.
    headers = [request.headers.get("traceparent") is not None for request in server.messages]
    assert headers[:3] == headers[3:]


def test_a_run_in_a_trace_of_the_host_joins_it(server: Server, configure: Configure) -> None:
    host = Host(ALWAYS_ON)
    configure()
    with host.tracer.start_as_current_span("request") as outer, host.client(server) as client:
        with loopscope.run("agent") as run:
            client.messages.create(**ask())
        client.messages.create(**ask())
    delivered()
    inside, bare = server.calls()
    agent, found = (span for span in server.spans() if span.operation == "invoke_agent")
    context = outer.get_span_context()
    assert run.trace_id == f"{context.trace_id:032x}"
    assert agent.span.parent_span_id == context.span_id.to_bytes(8, "big") == found.span.parent_span_id
    assert bare.span.parent_span_id == found.span.span_id
    assert inside.span.parent_span_id == agent.span.span_id
    ids = {run.id, run.trace_id, bare["loopscope.run.id"]}
    assert len(ids) == 3, "in a host's trace, run ids are of their own"


def test_undo_restores_the_sdk_and_twice_is_once() -> None:
    originals = [owner.__dict__[name] for owner, name in PATCHED]
    first = loopscope.instrument_anthropic()
    wrapped = [owner.__dict__[name] for owner, name in PATCHED]
    assert loopscope.instrument_anthropic() is first
    assert [owner.__dict__[name] for owner, name in PATCHED] == wrapped
    assert all(new is not old for new, old in zip(wrapped, originals, strict=True))
    assert [new.__doc__ for new in wrapped] == [old.__doc__ for old in originals]
    first.undo()
    first.undo()
    assert [owner.__dict__[name] for owner, name in PATCHED] == originals
    assert not first.active
    with loopscope.instrument_anthropic() as second:
        assert second is not first
    assert [owner.__dict__[name] for owner, name in PATCHED] == originals


def test_undo_under_somebody_elses_wrapper_passes_through(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    ours = SyncAPIClient.request

    def theirs(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    patched: Any = theirs
    SyncAPIClient.request = patched
    loopscope.instrument_anthropic().undo()
    client.messages.create(**ask())
    delivered()
    assert server.calls() == []
    assert SyncAPIClient.request is theirs
    # Instrumented again, above the wrapper that stayed: once.
    loopscope.instrument_anthropic()
    client.messages.create(**ask())
    delivered()
    assert [call["loopscope.http.attempts"] for call in server.calls()] == [1]
    assert server.calls()[0]["loopscope.request.body"] == server.messages[1].body
    loopscope.instrument_anthropic().undo()
    original: Any = inspect.unwrap(ours)
    SyncAPIClient.request = original


def test_seeded_random_numbers_are_not_ours(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    random.seed(7)
    client.messages.create(**ask())
    with loopscope.run("r"):
        pass
    drawn = random.random()
    random.seed(7)
    assert drawn == random.random()


def run_python(code: str, **environment: str) -> str:
    """Run code in an interpreter of its own and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_door_is_light() -> None:
    heavy = ("anthropic", "chdb", "genai_prices", "pandas", "pyarrow", "rich", "starlette", "streamlit", "typer")
    loaded = run_python(
        f"""
        import sys, tempfile, loopscope
        assert "opentelemetry" not in sys.modules
        loopscope.configure(endpoint="http://127.0.0.1:1", spool_dir=tempfile.mkdtemp(), exit_flush_seconds=0)
        print([name for name in {heavy!r} if name in sys.modules])
        """
    )
    assert loaded.strip() == "[]"


def test_configure_before_the_sdk_is_imported(server: Server, tmp_path: Path) -> None:
    run_python(
        """
        import sys, loopscope
        loopscope.configure()
        assert "anthropic" not in sys.modules
        import anthropic, anthropic._base_client as base
        assert base.__spec__.loader is base.__loader__
        assert type(base.__loader__).__module__.startswith(("importlib", "_frozen_importlib")), base.__loader__
        client = anthropic.Anthropic(api_key="k")
        client.messages.create(model="claude-sonnet-4-6", max_tokens=1, messages=[{"role": "user", "content": "hi"}])
        assert loopscope.flush(60)
        """,
        LOOPSCOPE_ENDPOINT=server.url,
        LOOPSCOPE_SPOOL_DIR=str(tmp_path),
        LOOPSCOPE_AGENT="by environment",
        ANTHROPIC_BASE_URL=server.url,
    )
    (call,) = server.calls()
    assert call["gen_ai.agent.name"] == "by environment"
    assert call["loopscope.request.body"] == server.messages[0].body


def test_limits_and_samplers_of_the_environment_are_not_for_us(server: Server, tmp_path: Path) -> None:
    run_python(
        """
        import loopscope, anthropic
        loopscope.configure()
        with loopscope.run("r", input="x" * 5000):
            anthropic.Anthropic().messages.create(
                model="claude-sonnet-4-6", max_tokens=1, messages=[{"role": "user", "content": "y" * 5000}])
        assert loopscope.flush(60)
        """,
        LOOPSCOPE_ENDPOINT=server.url,
        LOOPSCOPE_SPOOL_DIR=str(tmp_path),
        ANTHROPIC_BASE_URL=server.url,
        ANTHROPIC_API_KEY="k",
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="10",
        OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="10",
        OTEL_ATTRIBUTE_COUNT_LIMIT="2",
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="2",
    )
    call, run = server.spans()
    assert call["loopscope.request.body"] == server.messages[0].body
    assert json.loads(run["loopscope.run.input"]) == "x" * 5000
    assert call["gen_ai.agent.name"] == "r"


def test_an_error_of_ours_never_reaches_the_host(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopscope._internal import guard, runtime

    configure()
    monkeypatch.setattr(guard, "reraise", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(runtime, "start", broken)

    @loopscope.tool
    def doubled(a: int) -> int:
        return 2 * a

    with loopscope.run("r") as run:
        run.event("e")
        assert client.messages.create(**ask()).id == "msg_01test"
        assert doubled(4) == 8
    assert loopscope.stats()["internal_errors"] >= 4, "the run, the one found in its place, the call, the tool"
