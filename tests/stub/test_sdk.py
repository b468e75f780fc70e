"""The real SDK against the stand-in: every way of asking that agents use."""

import asyncio
import json
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_tool

from loopscope.stub import StubServer, ToolCall, Turn, call, say

MODEL = "claude-sonnet-4-6"
WEATHER: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city", "days"],
    },
}


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def test_an_answer_repeats_the_question(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=100, messages=[user("How far is the moon?")])
    assert "How far is the moon?" in str(message.content[0])
    assert message.stop_reason == "end_turn"
    assert message.model == MODEL
    assert message.usage.input_tokens == 8 + 4 + 5
    assert message.usage.output_tokens == 8
    assert message.usage.service_tier == "standard"


def test_without_a_script_one_tool_is_called_and_then_the_answer_given(client: anthropic.Anthropic) -> None:
    messages = [user("weather?")]
    first = client.messages.create(model=MODEL, max_tokens=100, tools=[WEATHER], messages=messages)
    assert first.stop_reason == "tool_use"
    block = first.content[0]
    assert block.type == "tool_use"
    assert block.input == {"city": "example", "days": 1}
    messages += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny, 21 degrees"}]},
    ]
    second = client.messages.create(model=MODEL, max_tokens=100, tools=[WEATHER], messages=messages)
    assert second.stop_reason == "end_turn"
    assert "sunny, 21 degrees" in str(second.content)


def test_the_choice_of_tools_is_obeyed(client: anthropic.Anthropic) -> None:
    other = {**WEATHER, "name": "tides"}
    request: Any = {"model": MODEL, "max_tokens": 100, "tools": [WEATHER, other], "messages": [user("?")]}
    forced = client.messages.create(tool_choice={"type": "tool", "name": "tides"}, **request)
    assert getattr(forced.content[0], "name", None) == "tides"
    without = client.messages.create(tool_choice={"type": "none"}, **request)
    assert [block.type for block in without.content] == ["text"]


TURN = Turn(
    thinking="Let me think: ünïcödé 👍.",
    text="First the weather, then the tides. " * 9,
    tool_calls=(ToolCall("weather", {"city": "Kraków 👍", "days": 3, "deep": [{"a": None}]}), ToolCall("tides")),
    server_tool_use={"web_search_requests": 2},
)


def test_a_streamed_answer_equals_the_plain_one(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("both", lambda _: TURN)
    request: Any = {
        "model": MODEL,
        "max_tokens": 3_000,
        "thinking": {"type": "enabled", "budget_tokens": 1_024},
        "messages": [user("x")],
    }
    plain = client.messages.create(extra_headers={"x-stub-script": "both/plain"}, **request)
    with client.messages.stream(extra_headers={"x-stub-script": "both/stream"}, **request) as stream:
        events = [event.type for event in stream]
        streamed = stream.get_final_message()
    left_out = {"id", "content"}
    assert streamed.model_dump(exclude=left_out) == plain.model_dump(exclude=left_out)
    for one, other in zip(streamed.content, plain.content, strict=True):
        ids = {"id", "signature", "parsed_output"}
        assert one.model_dump(exclude=ids, exclude_none=True) == other.model_dump(exclude=ids, exclude_none=True)
    assert events.count("message_start") == events.count("message_stop") == 1
    assert plain.usage.server_tool_use is not None
    assert plain.usage.server_tool_use.web_search_requests == 2
    assert plain.usage.output_tokens_details is not None
    assert 0 < plain.usage.output_tokens_details.thinking_tokens < plain.usage.output_tokens


def test_raw_stream_events_come_in_order(client: anthropic.Anthropic) -> None:
    events = list(client.messages.create(model=MODEL, max_tokens=100, stream=True, messages=[user("x" * 200)]))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert kinds.count("content_block_delta") > 3


def test_the_async_client(stub: StubServer) -> None:
    async def ask() -> tuple[str, str]:
        async with anthropic.AsyncAnthropic(base_url=stub.url, api_key="k") as api:
            plain = await api.messages.create(model=MODEL, max_tokens=100, messages=[user("one")])
            async with api.messages.stream(model=MODEL, max_tokens=100, messages=[user("two")]) as stream:
                return str(plain.content), "".join([text async for text in stream.text_stream])

    one, two = asyncio.run(ask())
    assert "one" in one
    assert "two" in two


def test_counted_tokens_are_the_input_tokens_of_the_answer(client: anthropic.Anthropic) -> None:
    request: Any = {"model": MODEL, "system": "Be brief.", "tools": [WEATHER], "messages": [user("x" * 399)]}
    counted = client.messages.count_tokens(**request)
    assert counted.input_tokens == client.messages.create(max_tokens=10, **request).usage.input_tokens
    assert client.beta.messages.count_tokens(**request).input_tokens == counted.input_tokens


def test_the_tool_runner_and_its_threads(stub: StubServer, client: anthropic.Anthropic) -> None:
    asked: list[str] = []

    @beta_tool
    def population(city: str) -> str:
        """How many people live in a city.

        Args:
            city: Name of the city.
        """
        asked.append(city)
        return "800,000"

    turns = [call("population", city="Kraków"), call("population", city="Oslo"), say("Kraków has 800,000.")]
    stub.add_script("runner", turns)
    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=500,
        system="You know cities.",
        tools=[population],
        messages=[user("How big are Kraków and Oslo?")],
        extra_headers={"x-stub-script": "runner"},
    )
    assert "800,000" in str(runner.until_done().content)
    assert asked == ["Kraków", "Oslo"]
    first, second, third = stub.log.entries()
    if second.request.get("thread", {}).get("type") == "continue":
        # The later requests carry only what is new; their tokens count the whole conversation.
        assert len(second.body) < len(first.body)
    assert first.usage is not None
    assert third.usage is not None
    assert third.usage["input_tokens"] > first.usage["input_tokens"]


def test_a_thread_that_is_unknown_is_refused_with_the_code_that_lets_the_client_recover(
    client: anthropic.Anthropic,
) -> None:
    thread = {"type": "continue", "previous_message_id": "msg_gone"}
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model=MODEL, max_tokens=9, messages=[user("x")], extra_body={"thread": thread})
    assert caught.value.body["error"]["details"] == {"error_code": "thread_not_found"}  # pyright: ignore


def test_structured_output_fits_its_schema(client: anthropic.Anthropic) -> None:
    class Answer(pydantic.BaseModel):
        name: str
        count: int
        parts: list[str]
        good: bool | None

    parsed = client.messages.parse(model=MODEL, max_tokens=200, output_format=Answer, messages=[user("?")])
    assert isinstance(parsed.parsed_output, Answer)


def test_the_answer_ends_at_max_tokens_and_at_a_stop_sequence(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("long", lambda _: say("word " * 400 + "STOP and more"))
    headers = {"x-stub-script": "long"}
    cut = client.messages.create(model=MODEL, max_tokens=50, messages=[user("x")], extra_headers=headers)
    assert cut.stop_reason == "max_tokens"
    assert cut.usage.output_tokens == 50
    stopped = client.messages.create(
        model=MODEL, max_tokens=9_000, stop_sequences=["STOP"], messages=[user("x")], extra_headers=headers
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "STOP")
    assert "STOP" not in str(stopped.content)


def test_lone_surrogates_in_an_answer_reach_the_client(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("half", [call("look", "half: \ud83d", what="\ude00"), call("look", what="\ude00")])
    headers = {"x-stub-script": "half"}
    message = client.messages.create(model=MODEL, max_tokens=50, messages=[user("x")], extra_headers=headers)
    assert message.content[1].model_dump()["input"] == {"what": "\ude00"}
    events = client.messages.create(
        model=MODEL, max_tokens=50, messages=[user("x")], extra_headers=headers, stream=True
    )
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    pieces = [delta.partial_json for delta in deltas if delta.type == "input_json_delta"]
    assert json.loads("".join(pieces)) == {"what": "\ude00"}
