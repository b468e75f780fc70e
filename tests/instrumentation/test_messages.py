"""Calls without streaming: what the server received is what the collector got, and the host sees no difference."""

import asyncio
import json
from typing import Any

import anthropic
import pytest
from support.sdk_features import has, needs

import loopscope

from .conftest import Configure, ask, delivered
from .provider_server import Server, ok

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

BODIES: dict[str, dict[str, Any]] = {
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "text", "text": "what is this?", "cache_control": {"type": "ephemeral"}},
                ],
            }
        ]
    },
    "thinking and nested tool results": {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object", "properties": {}}}],
        "messages": [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm\n", "signature": "c2ln"},
                    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"n": 12345678901234567890}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "toolu_1",
                        "content": [
                            {"type": "text", "text": "seen"},
                            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                        ],
                    }
                ],
            },
        ],
    },
    "control characters": {"messages": [{"role": "user", "content": "a\x00b\x07\x1b\x7f\u2028\ufeff\U0001f600 é"}]},
    "ten megabytes": {"messages": [{"role": "user", "content": "word und Wörter " * 650_000}]},
    "merged at the last moment": {"extra_body": {"temperature": 0.25, "top_k": 5, "unheard_of": {"deep": [1, None]}}},
}


def test_a_bare_call_is_a_run_of_one_turn(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [ok("the answer")]
    configure()
    answer = client.messages.create(**ask())
    assert answer.content[0].to_dict()["text"] == "the answer"
    delivered()
    (call,) = server.calls()
    assert call["loopscope.request.body"] == server.messages[0].body
    assert call["loopscope.response.body"] == server.replies[0].body
    assert call["loopscope.run.id"] == call.span.trace_id.hex()
    (run,) = (span for span in server.spans() if span.operation == "invoke_agent")
    assert call.span.parent_span_id == run.span.span_id
    assert run.span.parent_span_id == b""
    assert run["loopscope.run.inferred"] is True is call["loopscope.run.inferred"]
    assert run["loopscope.run.outcome"] == "completed"
    assert run.span.end_time_unix_nano == call.span.end_time_unix_nano
    assert call["loopscope.turn"] == 1
    assert call["gen_ai.provider.name"] == "anthropic"
    assert call["gen_ai.agent.name"] == "tester"
    assert call["gen_ai.request.model"] == "claude-sonnet-4-6"
    assert call["gen_ai.request.max_tokens"] == 99
    assert call["gen_ai.response.id"] == "msg_01test"
    assert call["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call["gen_ai.usage.cache_read.input_tokens"] == 1800
    assert call["gen_ai.usage.cache_write.input_tokens"] == 300
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["loopscope.cost.usd"] == 0.002583
    assert call["loopscope.cost.source"] == "computed"
    assert call["loopscope.cost.price_version"].startswith("genai-prices/")
    assert call["loopscope.http.attempts"] == 1
    assert call["http.response.status_code"] == 200
    assert call.span.kind == 3
    assert call.span.end_time_unix_nano > call.span.start_time_unix_nano
    assert not call.failed
    assert call.get("loopscope.partial") is None
    assert call.get("gen_ai.response.time_to_first_chunk") is None
    assert call.resource["service.name"] == "tester"
    assert call.resource["loopscope.process.id"] == call.resource["service.instance.id"]


@pytest.mark.parametrize("name", BODIES)
def test_the_recorded_request_is_the_one_that_was_sent(
    name: str, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    client.messages.create(**ask() | BODIES[name])
    delivered()
    (call,) = server.calls()
    assert call["loopscope.request.body"] == server.messages[0].body
    if name == "merged at the last moment":
        assert call["gen_ai.request.temperature"] == 0.25
        assert call["gen_ai.request.top_k"] == 5


def test_a_history_edited_after_the_call_is_recorded_as_it_was_sent(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    arguments = ask("before")
    client.messages.create(**arguments)
    arguments["messages"][0]["content"] = "after"
    delivered()
    assert b"before" in server.calls()[0]["loopscope.request.body"]


def test_async_calls_at_the_same_time_are_not_confused(server: Server, configure: Configure) -> None:
    configure()

    async def one(client: anthropic.AsyncAnthropic, number: int) -> str:
        async with loopscope.run(f"agent {number}") as run:
            for turn in range(3):
                await client.messages.create(**ask(f"number {number} turn {turn}"))
            return run.id

    async def main() -> list[str]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:
            return await asyncio.gather(*(one(client, number) for number in range(8)))

    ids = asyncio.run(main())
    delivered()
    calls = server.calls()
    assert len(calls) == 24
    for call in calls:
        number = ids.index(call["loopscope.run.id"])
        assert call["gen_ai.agent.name"] == f"agent {number}"
        text = json.loads(call["loopscope.request.body"])["messages"][0]["content"]
        assert text == f"number {number} turn {call['loopscope.turn'] - 1}"


def test_raw_and_streaming_response_work_as_before(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    raw = client.messages.with_raw_response.create(**ask())
    assert raw.headers["request-id"] == "req_1"
    assert raw.parse().id == "msg_01test"
    with client.messages.with_streaming_response.create(**ask()) as response:
        text = b"".join(response.iter_bytes())
    delivered()
    first, second = server.calls()
    assert first["loopscope.response.body"] == second["loopscope.response.body"] == text
    assert second["gen_ai.usage.output_tokens"] == 42
    assert second.get("loopscope.partial") is None


def test_a_response_body_that_nobody_read_is_partial(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    with client.messages.with_streaming_response.create(**ask()) as response:
        assert response.status_code == 200
    delivered()
    (call,) = server.calls()
    assert call["loopscope.partial"] is True
    assert call.get("loopscope.response.body") is None
    assert call["loopscope.request.body"] == server.messages[0].body


def test_compressed_answers_are_recorded_as_text(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    reply = ok("pressed")
    reply.gzip = True
    server.replies = [reply]
    configure()
    client.messages.create(**ask())
    with client.messages.with_streaming_response.create(**ask()) as response:
        response.read()
    delivered()
    assert [call["loopscope.response.body"] for call in server.calls()] == [reply.body, reply.body]


def test_beta_calls_are_calls_and_everything_else_passes(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    client.beta.messages.create(**ask(), betas=["some-beta"])
    counting: Any = client.messages if has("messages.count_tokens") else client.beta.messages
    assert counting.count_tokens(model="claude-sonnet-4-6", messages=ask()["messages"]).input_tokens == 7
    delivered()
    (call,) = server.calls()
    assert server.messages[0].path in ("/v1/messages", "/v1/messages?beta=true")
    assert call["loopscope.request.body"] == server.messages[0].body
    assert len(server.others) == 1


def test_cost_of_an_unknown_model_is_unknown_not_zero(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.replies = [ok(model="nobody-prices-this")]
    configure()
    client.messages.create(**ask() | {"model": "nobody-prices-this"})
    delivered()
    (call,) = server.calls()
    assert call["loopscope.cost.source"] == "unknown"
    assert call.get("loopscope.cost.usd") is None
    assert call["gen_ai.usage.output_tokens"] == 42


def test_price_overrides_win(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(price_overrides={"claude-sonnet-4-6": {"input": 1, "output": 10, "cache_read": 0, "cache_write": 0}})
    client.messages.create(**ask())
    delivered()
    (call,) = server.calls()
    assert call["loopscope.cost.usd"] == 0.000441
    assert call["loopscope.cost.price_version"].startswith("override/")


def test_content_can_be_left_out(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(capture_content=False)

    @loopscope.tool
    def look(where: str) -> str:
        return where

    with loopscope.run("quiet", input="secret question", config={"secret": 1}) as run:
        client.messages.create(**ask("secret question"))
        look("secret place")
        run.final_answer = "secret answer"
    delivered()
    assert len(server.spans()) == 3
    assert not any(b"secret" in request.body for request in server.traces)
    assert server.calls()[0]["gen_ai.usage.input_tokens"] == 2121


@needs("middleware=")
def test_what_the_middleware_answers_itself_is_recorded_without_a_request(server: Server, configure: Configure) -> None:
    configure()
    from anthropic.types import Message

    canned = Message.model_validate_json(ok("from a cache").body)

    def cache(request: Any, call_next: Any) -> Any:
        return canned

    with anthropic.Anthropic(api_key="k", base_url=server.url, middleware=[cache]) as client:
        assert client.messages.create(**ask()) is canned
    delivered()
    (call,) = server.calls()
    assert call["loopscope.http.attempts"] == 0
    assert call.get("loopscope.request.body") is None
