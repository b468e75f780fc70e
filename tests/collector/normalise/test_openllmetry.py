"""OpenLLMetry: its older names, its decorators; today's names are the conventions'."""

from decimal import Decimal
from typing import Any

import pytest
from support.telemetry import put, record, span

from loopscope_collector.normalise import Batch, Context, normalise
from loopscope_schemas import attributes as at

SCOPE = "opentelemetry.instrumentation.anthropic"
LEGACY = {
    at.OPENLLMETRY_REQUEST_TYPE: "completion",
    at.SYSTEM_LEGACY: "Anthropic",
    at.REQUEST_MODEL: "claude-sonnet-4-6",
    at.RESPONSE_MODEL: "claude-sonnet-4-6",
    at.RESPONSE_ID: "msg_1",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be brief.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": '[{"type": "text", "text": "Weather?"}]',
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "Let me check.",
    "gen_ai.completion.0.finish_reason": "tool_use",
    "gen_ai.completion.0.tool_calls.0.id": "t1",
    "gen_ai.completion.0.tool_calls.0.name": "weather",
    "gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Paris"}',
    "llm.request.functions.0.name": "weather",
    "llm.request.functions.0.description": "Current weather",
    "llm.request.functions.0.parameters": '{"type":"object"}',
    at.OPENLLMETRY_PROMPT_TOKENS: 2121,
    at.OPENLLMETRY_COMPLETION_TOKENS: 42,
    at.USAGE_CACHE_READ_TOKENS_LEGACY: 1800,
    at.USAGE_CACHE_CREATION_TOKENS_LEGACY: 300,
}


def rows_of(attributes: dict[str, Any], scope: str = SCOPE) -> Batch:
    """The rows of one span."""
    made = span("anything")
    put(made, attributes)
    batch = normalise(record([made], scope=scope), context=Context())
    assert not batch.refused, batch.refused
    return batch


def test_older_names() -> None:
    """A call with everything: usage, cost, messages, tools."""
    batch = rows_of(LEGACY)
    row = batch.spans[0]
    assert (row.kind, row.provider, row.stop_reason, row.response_id) == ("llm", "anthropic", "tool_use", "msg_1")
    assert (row.input_tokens, row.cache_read_tokens, row.cache_write_tokens, row.output_tokens) == (2121, 1800, 300, 42)
    assert row.cost_usd == Decimal("0.002358")
    assert [(item.role, item.kind, item.body) for item in batch.messages] == [
        ("user", "text", "Weather?"),
        ("assistant", "text", "Let me check."),
        ("assistant", "tool_call", "weather\ncity: Paris"),
    ]
    assert {(item.kind, item.body) for item in batch.prompts} == {
        ("system", "Be brief."),
        ("tools", "weather\nCurrent weather"),
    }
    assert not any(key.startswith(("gen_ai.prompt.", "llm.request.functions.")) for key in row.attributes)


@pytest.mark.parametrize(
    ("kind", "row_kind", "operation"),
    [("agent", "run", "invoke_agent"), ("workflow", "run", "invoke_workflow"), ("tool", "tool", "execute_tool")],
)
def test_decorators(kind: str, row_kind: str, operation: str) -> None:
    """Whatever the scope."""
    batch = rows_of(
        {
            at.TRACELOOP_KIND: kind,
            at.TRACELOOP_NAME: "look",
            at.TRACELOOP_INPUT: '{"a":1}',
            at.TRACELOOP_OUTPUT: '"b"',
            at.TRACELOOP_USER_ID: "u1",
            at.TRACELOOP_SESSION_ID: "s1",
        },
        scope="some.tracer",
    )
    row = batch.spans[0]
    assert (row.kind, row.operation, row.input_text, row.output_text) == (row_kind, operation, '{"a":1}', '"b"')
    assert row.tool if kind == "tool" else row.agent == "look"
    assert (row.user_id, row.conversation_id, row.dialect) == ("u1", "s1", "openllmetry")


def test_a_task_is_a_part_of_a_run() -> None:
    """Neither call nor run."""
    assert (
        rows_of({at.TRACELOOP_KIND: "task", at.TRACELOOP_NAME: "x"}, scope="traceloop.tracer").spans[0].kind == "other"
    )


@pytest.mark.parametrize(
    "more",
    [
        {"gen_ai.prompt.2.content": b"\x00"},
        {"gen_ai.prompt.x": "y", "gen_ai.completion.0.tool_calls.a": 1},
        {"gen_ai.completion.1.finish_reason": ["stop"]},
        {"llm.request.functions.0.parameters": "[" * 5_000},
        {at.OPENLLMETRY_PROMPT_TOKENS: "lots"},
    ],
)
def test_nothing_that_is_sent_is_refused(more: dict[str, Any]) -> None:
    """Odd values are kept as they are."""
    assert rows_of({**LEGACY, **more}).spans[0].kind == "llm"
