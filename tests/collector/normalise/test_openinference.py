"""OpenInference, as made here and as recorded from the real instrumentation."""

import json
from decimal import Decimal
from typing import Any

import pytest
from support.otlp import interop_files
from support.telemetry import NOW, put, record, span

from loopscope_collector.normalise import Batch, Context, normalise
from loopscope_collector.queue import Record
from loopscope_schemas import attributes as at
from loopscope_schemas.rows import MessageRow, PromptRow, SpanRow

SCOPE = "openinference.instrumentation.anthropic"
USAGE = {
    at.OPENINFERENCE_PROMPT_TOKENS: 2121,
    at.OPENINFERENCE_COMPLETION_TOKENS: 42,
    at.OPENINFERENCE_CACHE_READ_TOKENS: 1800,
    at.OPENINFERENCE_CACHE_WRITE_TOKENS: 300,
    at.OPENINFERENCE_REASONING_TOKENS: 12,
}
MESSAGE = "llm.input_messages.{}.message.{}"
ANSWER = "llm.output_messages.{}.message.{}"


def spans_of(attributes: dict[str, Any], kind: str = "LLM", *, scope: str = SCOPE, **more: Any) -> Batch:
    """The rows of one span."""
    made = span("anything", **more)
    put(made, {at.OPENINFERENCE_KIND: kind, **attributes})
    batch = normalise(record([made], scope=scope), context=Context())
    assert not batch.refused, batch.refused
    return batch


def blocks(batch: Batch) -> list[tuple[str, str, str, str]]:
    """Role, kind, tool and text of each content block."""
    return [(item.role, item.kind, item.tool, item.body) for item in batch.messages]


def test_usage_model_and_finish() -> None:
    """In the columns, and no second time in the map."""
    row = spans_of(
        {
            **USAGE,
            at.OPENINFERENCE_REQUEST_MODEL: "claude-sonnet-4-6",
            at.OPENINFERENCE_RESPONSE_MODEL: "claude-sonnet-4-6",
            at.OPENINFERENCE_PROVIDER: "Anthropic",
            at.OPENINFERENCE_FINISH_REASON: "end_turn",
            at.OPENINFERENCE_COST: 0.5,
            at.SESSION_ID: "s1",
            at.USER_ID: "u1",
            at.METADATA: '{"server_tool_use": {"web_search_requests": 1}}',
        }
    ).spans[0]
    assert (row.kind, row.operation, row.provider, row.model, row.stop_reason) == (
        "llm",
        "chat",
        "anthropic",
        "claude-sonnet-4-6",
        "end_turn",
    )
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens, row.output_tokens) == (2121, 1800, 300, 42)
    assert (row.thinking_tokens, row.web_searches, row.conversation_id, row.user_id) == (12, 1, "s1", "u1")
    # Of the cache writes nothing says that some are kept for an hour.
    assert row.cost_usd == Decimal("0.012358")
    assert row.reported_cost_usd == Decimal("0.5")
    assert not {*USAGE, at.OPENINFERENCE_FINISH_REASON} & row.attributes.keys()
    assert row.attributes[at.OPENINFERENCE_PROVIDER] == "Anthropic"


def test_tokens_without_the_cached_ones() -> None:
    """Fewer input tokens than cached ones: the figure leaves those out."""
    row = spans_of({**USAGE, at.OPENINFERENCE_PROMPT_TOKENS: 21}).spans[0]
    assert row.input_tokens == 2121


def test_numbered_messages() -> None:
    """Where there is no request to be read, the numbered attributes are; a tool call that stands twice is one."""
    batch = spans_of(
        {
            MESSAGE.format(0, "role"): "system",
            MESSAGE.format(0, "content"): "Be brief.",
            MESSAGE.format(10, "role"): "tool",
            MESSAGE.format(10, "tool_call_id"): "t1",
            MESSAGE.format(10, "content"): "18C",
            MESSAGE.format(1, "role"): "user",
            MESSAGE.format(1, "contents.0.message_content.type"): "text",
            MESSAGE.format(1, "contents.0.message_content.text"): "Weather?",
            MESSAGE.format(1, "contents.1.message_content.type"): "image",
            MESSAGE.format(1, "contents.1.message_content.image.image.url"): "https://example.com/a.png",
            MESSAGE.format(2, "role"): "assistant",
            MESSAGE.format(2, "contents.0.message_content.type"): "tool_use",
            MESSAGE.format(2, "contents.0.tool_call.id"): "t1",
            MESSAGE.format(2, "contents.0.tool_call.function.name"): "weather",
            MESSAGE.format(2, "contents.0.tool_call.function.arguments"): '{"city": "Paris"}',
            MESSAGE.format(2, "tool_calls.0.tool_call.id"): "t1",
            MESSAGE.format(2, "tool_calls.0.tool_call.function.name"): "weather",
            MESSAGE.format(2, "tool_calls.0.tool_call.function.arguments"): '{"city": "Paris"}',
            MESSAGE.format(2, "unheard.of"): "kept",
            ANSWER.format(0, "role"): "assistant",
            ANSWER.format(0, "content"): "It is 18C.",
            "llm.tools.0.tool.json_schema": '{"name":"weather","input_schema":{"type":"object"}}',
            at.OPENINFERENCE_PARAMETERS: '{"max_tokens": 5}',
            at.INPUT_VALUE: "not a request",
            at.OUTPUT_VALUE: '{"id": "msg_1", "choices": []}',
        },
        scope="openinference.instrumentation.langchain",
    )
    row = batch.spans[0]
    assert blocks(batch) == [
        ("user", "text", "", "Weather?"),
        ("user", "uri", "", "https://example.com/a.png"),
        ("assistant", "tool_call", "weather", "weather\ncity: Paris"),
        ("tool", "tool_call_response", "weather", "18C"),
        ("assistant", "text", "", "It is 18C."),
    ]
    assert {(item.kind, item.body) for item in batch.prompts} == {("system", "Be brief."), ("tools", "weather")}
    assert (row.messages, row.input_preview, row.output_preview) == (3, "18C", "It is 18C.")
    assert (row.response_id, row.request_params) == ("msg_1", '{"max_tokens": 5}')
    assert {key for key in row.attributes if "message" in key} == {MESSAGE.format(2, "unheard.of")}
    assert row.attributes[at.INPUT_VALUE] == "not a request"


def test_the_whole_request_is_the_content() -> None:
    """Exact, with the blocks that our own recording of the same call has."""
    request = {
        "model": "claude-sonnet-4-6",
        "max_tokens": 64,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Weather?"}],
    }
    answer = {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "It is 18C."}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 21,
            "cache_creation": {"ephemeral_1h_input_tokens": 100, "ephemeral_5m_input_tokens": 200},
            "server_tool_use": {"web_search_requests": 1},
            "service_tier": "standard",
        },
    }
    batch = spans_of(
        {
            **USAGE,
            at.OPENINFERENCE_RESPONSE_MODEL: "claude-sonnet-4-6",
            at.INPUT_VALUE: json.dumps(request),
            at.OUTPUT_VALUE: json.dumps(answer),
            MESSAGE.format(0, "role"): "user",
            MESSAGE.format(0, "content"): "Weather?",
            ANSWER.format(0, "content"): "It is 18C.",
        }
    )
    ours = span("ours")
    put(
        ours,
        {
            at.OPERATION_NAME: "chat",
            at.REQUEST_BODY: json.dumps(request).encode(),
            at.RESPONSE_BODY: json.dumps(answer).encode(),
        },
    )
    other = normalise(record([ours]), context=Context())
    for name in ("input_hashes", "input_shape", "output_hashes", "output_shape", "system_hash", "request_params"):
        assert getattr(batch.spans[0], name) == getattr(other.spans[0], name)
    row = batch.spans[0]
    assert (row.response_id, row.cost_usd, row.service_tier, row.partial) == (
        "msg_7",
        Decimal("0.012583"),
        "standard",
        False,
    )
    assert not any("message" in key or key.endswith(".value") for key in row.attributes)


def test_a_stream_that_never_ended() -> None:
    """What its answer shows is marked as partial."""
    answer = {"id": "msg_7", "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    assert spans_of({at.OUTPUT_VALUE: json.dumps(answer)}).spans[0].partial


def test_agents_and_tools() -> None:
    """A run states its name, question and answer; a tool its arguments and result."""
    row = spans_of(
        {at.OPENINFERENCE_AGENT: "planner", at.INPUT_VALUE: "go", at.OUTPUT_VALUE: "gone"}, kind="AGENT"
    ).spans[0]
    assert (row.kind, row.operation, row.agent, row.input_text, row.output_text) == (
        "run",
        "invoke_agent",
        "planner",
        "go",
        "gone",
    )
    row = spans_of(
        {
            at.OPENINFERENCE_TOOL: "weather",
            at.OPENINFERENCE_TOOL_CALL_ID: "t1",
            at.INPUT_VALUE: '{"city":"Paris"}',
            at.OUTPUT_VALUE: "18C",
        },
        kind="TOOL",
    ).spans[0]
    assert (row.kind, row.tool, row.call_id, row.input_text, row.output_text) == (
        "tool",
        "weather",
        "t1",
        '{"city":"Paris"}',
        "18C",
    )
    assert row.agent == "shop"
    assert spans_of({at.INPUT_VALUE: "go"}, kind="CHAIN").spans[0].kind == "other"


@pytest.mark.parametrize(
    "attributes",
    [
        {at.OPENINFERENCE_KIND: 7},
        {at.INPUT_VALUE: '{"messages": 5}'},
        {at.INPUT_VALUE: '{"messages": [[[[]]]]}'},
        {at.INPUT_VALUE: b"\xff", at.OUTPUT_VALUE: '{"content": [3], "role": 4, "id": 5}'},
        {at.OPENINFERENCE_PROMPT_TOKENS: -1, at.OPENINFERENCE_COMPLETION_TOKENS: "many"},
        {"llm.input_messages.99999999999.message.role": "user"},
        {"llm.input_messages.x.message.role": "user", "llm.input_messages.": "user"},
        {MESSAGE.format(0, "tool_calls.0.tool_call.function.arguments"): "{{{", MESSAGE.format(0, "contents"): [1]},
        {at.METADATA: '{"server_tool_use": {"web_search_requests": [1]}}'},
        {"llm.tools.0.tool.json_schema": "[" * 5_000},
    ],
)
def test_nothing_that_is_sent_is_refused(attributes: dict[str, Any]) -> None:
    """Odd values stay attributes; the span is a call all the same."""
    batch = spans_of({**attributes, at.OPENINFERENCE_KIND: "LLM"})
    assert batch.spans[0].kind == "llm"


def recorded(name: str, dialect: str = "openinference") -> list[SpanRow]:
    """The calls of a recorded request."""
    return [row for row in whole(name, dialect).spans if row.kind == "llm"]


def whole(name: str, dialect: str = "openinference") -> Batch:
    """A recorded request of the real instrumentation."""
    paths = [path for path in interop_files(f"{name}.traces.pb") if path.parent.name == dialect]
    if not paths:
        pytest.skip(f"no recorded request {dialect}/{name}")
    batch = normalise(Record("traces", "protobuf", NOW, paths[0].read_bytes()), context=Context())
    assert not batch.refused
    return batch


@pytest.mark.parametrize("name", ["chat", "async_chat", "image", "stream_create", "stream_mgr"])
def test_recorded_calls(name: str) -> None:
    """Model, usage, cost, text and stop reason of what the instrumentation really sends."""
    (row,) = recorded(name)
    assert (row.provider, row.model, row.response_id) == ("anthropic", "claude-sonnet-4-6", "msg_fake0001")
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens, row.output_tokens) == (2121, 1800, 300, 42)
    assert (row.thinking_tokens, row.web_searches, row.cost_usd) == (12, 1, Decimal("0.012583"))
    assert (row.stop_reason, row.output_preview, row.partial) == ("end_turn", "Hello from the fake model.", False)


@pytest.mark.parametrize(("name", "class_"), [("error_429", "transient"), ("error_400", "deterministic")])
def test_recorded_errors(name: str, class_: str) -> None:
    """The error is on the exception event."""
    (row,) = recorded(name)
    assert (row.status, row.error_class, row.request_model != "", row.input_preview) == (
        "error",
        class_,
        True,
        "Hi there",
    )
    assert row.error_type.startswith("anthropic.")


def test_a_recorded_tool_loop() -> None:
    """The second request holds the first's answer: stored once."""
    batch = whole("tool_loop")
    calls = [row for row in batch.spans if row.kind == "llm"]
    assert [row.stop_reason for row in calls] == ["tool_use", "end_turn"]
    assert calls[1].input_hashes[:2] == [*calls[0].input_hashes, calls[0].output_hashes[0]]
    messages: list[MessageRow] = batch.messages
    assert [item.source for item in messages] == ["user", "assistant", "tool_call", "tool_result", "assistant"]
    prompts: list[PromptRow] = batch.prompts
    assert [item.kind for item in prompts] == ["tools"]


def test_ids_in_what_langchain_gives() -> None:
    """Calls and tool calls that somebody else recorded as well are told by them."""
    kwargs = {"content": "hi", "id": "lc_run--1", "response_metadata": {"id": "msg_1"}}
    result = {
        "generations": [[{"text": "hi", "message": {"lc": 1, "kwargs": kwargs}}]],
        "llm_output": {"id": "msg_1", "model": "claude-sonnet-4-6"},
    }
    call = spans_of({**USAGE, at.OUTPUT_VALUE: json.dumps(result)}).spans[0]
    assert call.response_id == "msg_1"
    said = {"type": "tool", "data": {"content": "K-1: here", "name": "find_order", "tool_call_id": "toolu_1"}}
    tool = spans_of({at.OPENINFERENCE_KIND: "TOOL", at.OUTPUT_VALUE: json.dumps(said)}).spans[0]
    assert (tool.kind, tool.call_id) == ("tool", "toolu_1")
    nothing = spans_of({at.OPENINFERENCE_KIND: "TOOL", at.OUTPUT_VALUE: '{"data": [1]}'}).spans[0]
    assert nothing.call_id == ""
