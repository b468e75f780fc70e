"""What an answer cost in tokens, in one vocabulary; and counts of tokens, which are no usage."""

import json
from typing import Any

import anthropic
import pytest
from support.sdk_features import needs

import loopscope

from .conftest import Configure, ask, delivered
from .provider_server import USAGE, Reply, Server, failing, message, ok

ITERATIONS = [
    {"type": "compaction", "input_tokens": 900, "output_tokens": 80},
    {"type": "message", "input_tokens": 21, "output_tokens": 42},
]
FULL = USAGE | {
    "output_tokens_details": {"thinking_tokens": 12},
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3},
    "service_tier": "priority",
    "iterations": ITERATIONS,
}


def test_usage_of_every_kind(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [ok(usage=FULL)]
    configure()
    client.beta.messages.create(**ask())
    delivered()
    (call,) = server.calls()
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call["gen_ai.usage.cache_read.input_tokens"] == 1800
    assert call["gen_ai.usage.cache_write.input_tokens"] == 300
    assert call["loopscope.usage.cache_write_1h.input_tokens"] == 100
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["gen_ai.usage.reasoning.output_tokens"] == 12
    assert call["loopscope.usage.web_searches"] == 2
    assert call["loopscope.usage.web_fetches"] == 3
    assert call["loopscope.usage.service_tier"] == "priority"
    assert json.loads(call["loopscope.usage.raw"]) == FULL
    assert call["loopscope.http.request_id"] == "req_1"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 5, "output_tokens": 6}, {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6}),
        (
            {
                "input_tokens": 5,
                "output_tokens": 0,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": None,
                "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0},
                "server_tool_use": None,
                "service_tier": None,
                "output_tokens_details": None,
            },
            {
                "gen_ai.usage.input_tokens": 12,
                "gen_ai.usage.output_tokens": 0,
                "gen_ai.usage.cache_write.input_tokens": 7,
                "loopscope.usage.cache_write_1h.input_tokens": 0,
            },
        ),
        ({"input_tokens": "many", "output_tokens": -1, "server_tool_use": [1], "cache_creation": 3}, {}),
    ],
)
def test_what_is_not_said_is_not_there(
    usage: dict[str, Any], expected: dict[str, Any], server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.replies = [ok(usage=usage)]
    configure()
    client.messages.with_raw_response.create(**ask())
    delivered()
    (call,) = server.calls()
    found = {name: value for name, value in call.attributes.items() if ".usage." in name}
    assert json.loads(found.pop("loopscope.usage.raw")) == usage
    assert found == expected


@pytest.mark.parametrize("reason", ["refusal", "pause_turn", "max_tokens", "model_context_window_exceeded"])
def test_stop_reasons(reason: str, server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [ok(stop_reason=reason)]
    configure()
    assert client.messages.create(**ask()).stop_reason == reason
    delivered()
    (call,) = server.calls()
    assert call["gen_ai.response.finish_reasons"] == [reason]
    assert not call.failed


@needs("messages.count_tokens", "beta.messages.count_tokens")
def test_a_count_of_tokens_is_no_llm_call(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.counts = [Reply(body=b'{"input_tokens": 1234}')]
    configure()
    asked: Any = {"model": "claude-sonnet-4-6", "messages": ask("how long is this?")["messages"]}
    with loopscope.run("counter") as run:
        assert client.messages.count_tokens(**asked).input_tokens == 1234
        assert client.beta.messages.count_tokens(**asked, betas=["some-beta"]).input_tokens == 1234
        assert run.turn == 0
        client.messages.create(**ask())
        assert run.turn == 1
    delivered()
    plain, beta, call, agent = server.spans()
    for count, request in zip((plain, beta), server.others, strict=True):
        assert count.operation == "count_tokens"
        assert count.span.name == "count_tokens claude-sonnet-4-6"
        assert count.span.kind == 3
        assert count.span.parent_span_id == agent.span.span_id
        assert count["loopscope.run.id"] == run.id
        assert count["loopscope.request.body"] == request.body
        assert json.loads(count["loopscope.response.body"]) == {"input_tokens": 1234}
        assert count["gen_ai.usage.input_tokens"] == 1234
        assert count["gen_ai.request.model"] == "claude-sonnet-4-6"
        assert count["http.response.status_code"] == 200
        for name in ("loopscope.turn", "loopscope.usage.raw", "loopscope.cost.usd", "loopscope.cost.source"):
            assert count.get(name) is None
        assert not count.failed
    assert call["loopscope.turn"] == 1


@needs("messages.count_tokens")
def test_a_count_of_tokens_that_fails(server: Server, configure: Configure) -> None:
    server.counts = [failing(429, "rate_limit_error", **{"retry-after-ms": "1"}), failing(400, "invalid_request_error")]
    configure()
    with (
        anthropic.Anthropic(api_key="k", base_url=server.url) as client,
        pytest.raises(anthropic.BadRequestError),
    ):
        client.messages.count_tokens(model="m", messages=ask()["messages"])
    delivered()
    (count,) = server.spans()
    assert count.failed
    assert count["error.type"] == "invalid_request_error"
    assert count["loopscope.error.class"] == "deterministic"
    assert [event.name for event in count.span.events] == [
        "exception",
        "loopscope.http.attempt",
        "loopscope.http.attempt",
    ]
    assert count.get("gen_ai.usage.input_tokens") is None


def test_the_text_of_a_message_is_no_usage(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(body=json.dumps(message() | {"usage": None}).encode())]
    configure()
    client.messages.with_raw_response.create(**ask())
    delivered()
    (call,) = server.calls()
    assert call.get("loopscope.usage.raw") is None
    assert call.get("loopscope.cost.usd") is None
