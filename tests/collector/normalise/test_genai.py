"""The GenAI conventions, as made here and as recorded from other instrumentations."""

import json
from decimal import Decimal
from typing import Any

import pytest
from support.otlp import interop_files
from support.telemetry import NOW, put, record, span

from loopscope_collector.normalise import Batch, Context, normalise
from loopscope_collector.queue import Record
from loopscope_schemas import attributes as at
from loopscope_schemas.rows import SpanRow

SCOPE = "opentelemetry.instrumentation.genai.anthropic"
MESSAGES = [
    {"role": "user", "parts": [{"type": "text", "content": "Weather in Paris?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "t", "name": "weather", "arguments": {"city": "Paris"}}],
    },
    {"role": "user", "parts": [{"type": "tool_call_response", "id": "t", "response": "18C"}]},
]
ANSWER = [{"role": "assistant", "parts": [{"type": "text", "content": "It is 18C."}], "finish_reason": "stop"}]


def call(**attributes: Any) -> Batch:
    """The rows of one LLM call."""
    made = span("chat m", gen_ai__operation__name="chat")
    put(made, attributes)
    batch = normalise(record([made], scope=SCOPE), context=Context())
    assert not batch.refused, batch.refused
    return batch


def test_messages_as_text_and_as_structure_are_the_same() -> None:
    """JSON text on the span, or structured values: the same blocks and shapes."""
    content = {
        at.INPUT_MESSAGES: MESSAGES,
        at.OUTPUT_MESSAGES: ANSWER,
        at.SYSTEM_INSTRUCTIONS: [{"type": "text", "content": "Be brief."}],
        at.TOOL_DEFINITIONS: [{"type": "function", "name": "weather"}],
    }
    structured = call(**content)
    text = call(**{key: json.dumps(value, separators=(",", ":")) for key, value in content.items()})
    assert structured.messages == text.messages
    for name in ("input_shape", "output_shape", "input_hashes", "system_hash", "tools_hash", "chain_root"):
        assert getattr(structured.spans[0], name) == getattr(text.spans[0], name)
    row = text.spans[0]
    assert (row.messages, row.input_preview, row.output_preview) == (3, "18C", "It is 18C.")
    assert row.stop_reason == "end_turn"
    assert [(message.source, message.tool) for message in text.messages] == [
        ("user", ""),
        ("tool_call", "weather"),
        ("tool_result", "weather"),
        ("assistant", ""),
    ]


def test_messages_on_the_details_event() -> None:
    """Where the span has none."""
    made = span("chat m", gen_ai__operation__name="chat")
    event = made.events.add(name=at.DETAILS_EVENT, time_unix_nano=NOW)
    put(event, {at.INPUT_MESSAGES: MESSAGES, at.OUTPUT_MESSAGES: ANSWER})
    row = normalise(record([made], scope=SCOPE), context=Context()).spans[0]
    assert row.output_preview == "It is 18C."


@pytest.mark.parametrize(
    "name", [at.USAGE_CACHE_WRITE_TOKENS, at.USAGE_CACHE_CREATION_TOKENS, at.USAGE_CACHE_CREATION_TOKENS_LEGACY]
)
def test_three_names_of_cache_writes(name: str) -> None:
    """All are read."""
    assert call(**{name: 300}).spans[0].cache_write_tokens == 300


def test_the_first_name_wins_and_the_other_is_kept() -> None:
    """Two names for one column: nothing is lost."""
    row = call(**{at.USAGE_CACHE_CREATION_TOKENS: 1, at.USAGE_CACHE_WRITE_TOKENS: 2}).spans[0]
    assert row.cache_write_tokens == 2
    assert row.attributes[at.USAGE_CACHE_CREATION_TOKENS] == "1"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("stop", "end_turn"), ("tool_call", "tool_use"), ("length", "max_tokens"), ("end_turn", "end_turn")],
)
def test_finish_reasons(sent: str, kept: str) -> None:
    """One vocabulary; what was sent stays in the map where it differs."""
    row = call(**{at.RESPONSE_FINISH_REASONS: [sent]}).spans[0]
    assert row.stop_reason == kept
    assert (at.RESPONSE_FINISH_REASONS in row.attributes) == (sent != kept)


@pytest.mark.parametrize(("name", "sent"), [(at.PROVIDER_NAME, "Anthropic"), (at.SYSTEM_LEGACY, "anthropic")])
def test_provider(name: str, sent: str) -> None:
    """Any case, the former name too."""
    assert call(**{name: sent}).spans[0].provider == "anthropic"


def test_the_error_of_the_exception_event() -> None:
    """Type and message where the span itself says only that it failed."""
    made = span("chat m", status=2, gen_ai__operation__name="chat")
    event = made.events.add(name="exception", time_unix_nano=NOW)
    put(event, {at.EXCEPTION_TYPE: "anthropic.RateLimitError", at.EXCEPTION_MESSAGE: "slow down"})
    batch = normalise(record([made], scope=SCOPE), context=Context())
    row = batch.spans[0]
    assert (row.error_type, row.status_message, row.error_class) == (
        "anthropic.RateLimitError",
        "slow down",
        "transient",
    )
    assert batch.events[0].attributes[at.EXCEPTION_MESSAGE] == "slow down"


def test_request_parameters() -> None:
    """The request's attributes, as the request's parameters."""
    row = call(
        **{"gen_ai.request.max_tokens": 5, "gen_ai.request.stop_sequences": ["END"], at.REQUEST_MODEL: "m"}
    ).spans[0]
    assert json.loads(row.request_params) == {"max_tokens": 5, "stop_sequences": ["END"], "model": "m"}


def test_string_arguments_of_a_tool_span() -> None:
    """Arguments and result as text or as structure."""
    for arguments in ({"city": "Paris"}, '{"city":"Paris"}'):
        made = span("execute_tool weather", gen_ai__operation__name="execute_tool", gen_ai__tool__name="weather")
        put(made, {at.TOOL_CALL_ARGUMENTS: arguments, at.TOOL_CALL_RESULT: "18C"})
        batch = normalise(record([made], scope=SCOPE), context=Context())
        row = batch.spans[0]
        assert (row.kind, row.tool, row.input_text, row.output_text) == ("tool", "weather", '{"city":"Paris"}', "18C")
        assert [message.body for message in batch.messages] == ["weather\ncity: Paris", "18C"]


def test_an_unknown_instrumentation_loses_nothing() -> None:
    """Kind other, attributes in the map."""
    made = span("GET /x", http__route="/x", n=3, deep={"a": [1, "b"]})
    row = normalise(record([made], scope="opentelemetry.instrumentation.fastapi"), context=Context()).spans[0]
    assert (row.kind, row.dialect) == ("other", "other")
    assert row.attributes == {"http.route": "/x", "n": "3", "deep": '{"a":[1,"b"]}'}


def recorded(dialect: str, scenario: str) -> list[SpanRow]:
    """The rows of a recorded request."""
    (path,) = (p for p in interop_files(f"{scenario}.traces.pb") if p.parent.name == dialect)
    batch = normalise(Record("traces", "protobuf", 1_795_352_000_000_000_000, path.read_bytes()), context=Context())
    assert not batch.refused
    return batch.spans


@pytest.mark.parametrize("dialect", ["otel_genai", "anthropic_native", "anthropic_native_content", "openllmetry"])
@pytest.mark.parametrize("scenario", ["chat", "async_chat", "image", "retry_529_ok", "stream_mgr"])
def test_recorded_calls(dialect: str, scenario: str) -> None:
    """The same usage in all of them, and the cost that its parts allow."""
    (row,) = (row for row in recorded(dialect, scenario) if row.kind == "llm")
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens) == (2121, 1800, 300)
    assert (row.provider, row.stop_reason) == ("anthropic", "end_turn")
    assert row.request_model.startswith("claude-sonnet-4-6")
    if (dialect, scenario) == ("openllmetry", "stream_mgr"):
        assert row.output_tokens == 43  # it adds the placeholder of the stream's first event
        return
    assert row.output_tokens == 42
    is_native = dialect.startswith("anthropic_native")
    assert row.cost_usd == Decimal("0.002583" if is_native else "0.002358")
    if dialect != "anthropic_native" and scenario == "chat":
        assert (row.input_preview, row.output_preview) == ("Hi there", "Hello from the fake model.")


@pytest.mark.parametrize("dialect", ["otel_genai", "anthropic_native", "openllmetry"])
def test_recorded_errors(dialect: str) -> None:
    """Failed calls: class by status or type, cost unknown."""
    (row,) = (row for row in recorded(dialect, "error_429") if row.kind == "llm")
    assert (row.status, row.error_class, row.cost_usd) == ("error", "transient", None)
    (row,) = (row for row in recorded(dialect, "error_400") if row.kind == "llm")
    assert (row.status, row.error_class) == ("error", "deterministic")


def test_recorded_tool_loop() -> None:
    """A whole loop: one trace, one chain."""
    rows = recorded("otel_genai", "tool_loop")
    calls = [row for row in rows if row.kind == "llm"]
    assert [row.messages for row in calls] == [1, 3]
    assert len({row.chain_root for row in calls}) == len({row.run_id for row in rows}) == 1
