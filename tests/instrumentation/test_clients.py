"""The SDK's clients for other providers: each call is recorded once, and is what it is without us."""

import asyncio
import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest
from support.sdk_features import need, needs

from loopscope._internal.anthropic.providers import address_attributes

from .aws_frames import bedrock_event
from .conftest import Configure, ask, delivered
from .provider_server import Reply, Server, failing, message, ok, stream_events

AWS_KEYS = {"aws_access_key": "AKIAIOSFODNN7EXAMPLE", "aws_secret_key": "not/a/real/secret", "aws_region": "us-east-1"}
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@dataclass(frozen=True)
class Platform:
    """One of the SDK's clients, and what calling it looks like from outside."""

    client: str
    arguments: dict[str, Any]
    provider: str
    path: str
    streaming_path: str = ""
    model: str = "claude-sonnet-4-6"
    framed: bool = False
    """Streams in AWS' frames."""

    def make(self, server: Server, *, asynchronous: bool, **more: Any) -> Any:
        made = getattr(anthropic, ("Async" if asynchronous else "") + self.client)
        return made(base_url=server.url, **({"max_retries": 0} | self.arguments | more))

    def events(self, reply: Reply) -> Reply:
        """The reply as this platform streams it."""
        if self.framed:
            reply.encode, reply.content_type = bedrock_event, "application/vnd.amazon.eventstream"
        return reply


VERTEX = "/projects/p1/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929:"
PLATFORMS = [
    Platform(
        "AnthropicBedrock",
        AWS_KEYS,
        "aws.bedrock",
        f"/model/{MODEL}/invoke",
        f"/model/{MODEL}/invoke-with-response-stream",
        model=MODEL,
        framed=True,
    ),
    Platform("AnthropicBedrockMantle", AWS_KEYS, "aws.bedrock", "/v1/messages", model="anthropic.claude-sonnet-4-6"),
    Platform(
        "AnthropicVertex",
        {"region": "us-east5", "project_id": "p1", "access_token": "t"},
        "gcp.vertex_ai",
        VERTEX + "rawPredict",
        VERTEX + "streamRawPredict",
        model="claude-sonnet-4-5@20250929",
    ),
    Platform("AnthropicFoundry", {"api_key": "k"}, "azure.ai.inference", "/v1/messages"),
    Platform("AnthropicAWS", AWS_KEYS | {"workspace_id": "w1"}, "anthropic", "/v1/messages"),
    Platform(
        "AnthropicGoogleCloud", {"token_provider": lambda: "t", "workspace_id": "w1"}, "anthropic", "/v1/messages"
    ),
]

TOOL_USE: dict[str, Any] = {
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": "hier"}}],
    "stop_reason": "tool_use",
}
OVERLOADED: dict[str, Any] = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
THROTTLED: dict[str, Any] = {"type": "error", "error": {"type": "throttlingException", "message": "slow down"}}

pytestmark = pytest.mark.parametrize(
    "platform", [pytest.param(each, id=each.client, marks=needs(each.client)) for each in PLATFORMS]
)
both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


def outcome(platform: Platform, server: Server, *, asynchronous: bool, **more: Any) -> Any:
    """What the host sees of one call: the result, or each event, or the exception; and what was sent."""
    settings = {name: more.pop(name) for name in ("max_retries",) if name in more}
    seen: list[Any] = []

    def see(result: Any) -> None:
        seen.append((type(result).__qualname__, repr(result)))

    def call() -> None:
        with platform.make(server, asynchronous=False, **settings) as client:
            result = client.messages.create(**ask(model=platform.model, **more))
            if not more.get("stream"):
                see(result)
                return
            for event in result:
                see(event)

    async def async_call() -> None:
        async with platform.make(server, asynchronous=True, **settings) as client:
            result = await client.messages.create(**ask(model=platform.model, **more))
            if not more.get("stream"):
                see(result)
                return
            async for event in result:
                see(event)

    before = len(server.messages)
    try:
        if asynchronous:
            asyncio.run(async_call())
        else:
            call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the recorded call must raise the same
        seen.append((type(error).__qualname__, str(error).replace(server.url, "")))
    gc.collect()  # an old SDK leaves a stream that failed to be forgotten
    return seen, [(sent.path, sent.body) for sent in server.messages[before:]]


def twice(
    platform: Platform, server: Server, configure: Configure, replies: Callable[[], list[Reply]], **more: Any
) -> Any:
    """The same call without and with recording; asserts that the host sees the same, and returns the one LLM span."""
    server.replies = replies()
    plain = outcome(platform, server, **more)
    configure()
    server.replies = replies()
    assert outcome(platform, server, **more) == plain
    delivered()
    (call,) = server.calls()
    assert call["gen_ai.provider.name"] == platform.provider
    assert call["gen_ai.request.model"] == platform.model
    assert call["loopscope.request.body"] == server.messages[-1].body
    assert call["loopscope.turn"] == 1
    return call


@both
def test_ok(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    reply = ok("the answer", model=platform.model)
    call = twice(platform, server, configure, lambda: [reply], asynchronous=asynchronous)
    assert server.messages[-1].path == platform.path
    assert call["loopscope.response.body"] == reply.body
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["loopscope.cost.source"] == "computed"
    assert call.get("gen_ai.request.stream") is None
    assert not call.failed


@both
def test_tool_use(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    tools = [{"name": "look", "description": "looks", "input_schema": {"type": "object", "properties": {}}}]
    call = twice(platform, server, configure, lambda: [ok(**TOOL_USE)], asynchronous=asynchronous, tools=tools)
    assert json.loads(call["loopscope.request.body"])["tools"] == tools
    assert json.loads(call["loopscope.response.body"])["content"] == TOOL_USE["content"]
    assert call["gen_ai.response.finish_reasons"] == ["tool_use"]


@both
def test_stream(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    call = twice(
        platform,
        server,
        configure,
        lambda: [platform.events(Reply(events=stream_events()))],
        asynchronous=asynchronous,
        stream=True,
    )
    assert server.messages[-1].path == (platform.streaming_path or platform.path)
    content = [{"type": "text", "text": "Hello wörld"}, {**TOOL_USE["content"][0], "input": {"where": "here"}}]
    assert json.loads(call["loopscope.response.body"]) == message() | {"content": content, "stop_reason": "tool_use"}
    assert call["gen_ai.request.stream"] is True
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["gen_ai.response.time_to_first_chunk"] > 0
    assert call.get("loopscope.partial") is None
    assert not call.failed


@both
def test_refused(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    call = twice(
        platform, server, configure, lambda: [failing(400, "invalid_request_error")], asynchronous=asynchronous
    )
    assert call.failed
    assert call["http.response.status_code"] == 400
    assert call["error.type"] == "invalid_request_error"
    assert call["loopscope.error.class"] == "deterministic"


@both
def test_a_retry_is_one_call(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    first = failing(429, "rate_limit_error", **{"retry-after-ms": "1"})
    call = twice(platform, server, configure, lambda: [first, ok("at last")], asynchronous=asynchronous, max_retries=2)
    assert call["loopscope.http.attempts"] == 2
    assert not call.failed


@both
def test_a_stream_that_breaks(platform: Platform, asynchronous: bool, server: Server, configure: Configure) -> None:
    call = twice(
        platform,
        server,
        configure,
        lambda: [platform.events(Reply(events=stream_events(), break_after=5))],
        asynchronous=asynchronous,
        stream=True,
    )
    assert call.failed
    assert call["loopscope.partial"] is True
    assert call["loopscope.error.class"] == "transient"
    assert json.loads(call["loopscope.response.body"])["content"] == [{"type": "text", "text": "Hello "}]
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call.get("gen_ai.usage.output_tokens") is None


@both
def test_an_error_inside_the_stream(
    platform: Platform, asynchronous: bool, server: Server, configure: Configure
) -> None:
    error = THROTTLED if platform.framed else OVERLOADED
    call = twice(
        platform,
        server,
        configure,
        lambda: [platform.events(Reply(events=[*stream_events()[:5], error]))],
        asynchronous=asynchronous,
        stream=True,
    )
    assert call.failed
    assert call.span.status.message == error["error"]["message"]
    assert call["error.type"] == error["error"]["type"]
    assert call["loopscope.error.class"] == "transient"
    assert call["loopscope.partial"] is True


def test_what_beta_sends_is_recorded_too(platform: Platform, server: Server, configure: Configure) -> None:
    configure()
    with platform.make(server, asynchronous=False) as client:
        client.beta.messages.create(**ask(model=platform.model), betas=["some-beta"])
    delivered()
    (call,) = server.calls()
    assert call["gen_ai.request.model"] == platform.model
    assert call["loopscope.request.body"] == server.messages[0].body


def test_counting_tokens_is_no_llm_call(platform: Platform, server: Server, configure: Configure) -> None:
    need("messages.count_tokens")
    question = {"model": platform.model, "messages": ask()["messages"]}
    with platform.make(server, asynchronous=False) as client:
        plain = _result(lambda: client.messages.count_tokens(**question))
        configure()
        assert _result(lambda: client.messages.count_tokens(**question)) == plain
        client.messages.create(**ask(model=platform.model))
    delivered()
    assert len(server.calls()) == 1


def _result(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except Exception as error:  # noqa: BLE001 - as above
        return repr(error)


def test_what_an_address_says(platform: Platform) -> None:
    found = address_attributes(platform.path)
    assert found.get("gen_ai.request.model", platform.model) == platform.model
    assert address_attributes("/v1/messages") == {}
    assert address_attributes("/model/a%2Fb%3A0/invoke?x=1") == {"gen_ai.request.model": "a/b:0"}
    assert address_attributes("/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict") == {}
