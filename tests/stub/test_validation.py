"""What the API refuses, the stand-in refuses, with the same kind of words."""

import json
import urllib.error
import urllib.request
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscope.stub import StubServer
from loopscope.stub.errors import ApiError
from loopscope.stub.service import Service
from loopscope.stub.validation import parse_request, validate_request

TOOL_USE: Any = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
TOOL: Any = {"name": "look", "input_schema": {"type": "object"}}


def result(call_id: str = "toolu_1") -> Any:
    return {"type": "tool_result", "tool_use_id": call_id, "content": "seen"}


def messages(*contents: Any) -> list[Any]:
    return [{"role": ("user", "assistant")[n % 2], "content": content} for n, content in enumerate(contents)]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": ...}, "max_tokens: Field required"),
    ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
    ({"max_tokens": "9"}, "max_tokens: Input should be a valid integer"),
    ({"model": ...}, "model: Field required"),
    ({"messages": ...}, "messages: Field required"),
    ({"messages": []}, "messages: at least one message is required"),
    ({"messages": [{"role": "assistant", "content": "x"}]}, 'first message must use the "user" role'),
    ({"messages": [{"role": "system", "content": "x"}]}, "top-level `system` parameter"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be 'user' or 'assistant'"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": messages("")}, "messages.0: all messages must have non-empty content"),
    ({"messages": messages([{"type": "text", "text": ""}])}, "text content blocks must be non-empty"),
    ({"messages": messages("x", "trailing ")}, "final assistant content cannot end with trailing whitespace"),
    ({"messages": messages([result()])}, "unexpected `tool_use_id` found in `tool_result` blocks: toolu_1"),
    ({"messages": messages("x", [TOOL_USE], "y")}, "messages.1: `tool_use` ids were found without `tool_result`"),
    ({"messages": messages("x", [TOOL_USE])}, "ids were found without `tool_result` blocks immediately after: toolu_1"),
    ({"messages": messages("x", [TOOL_USE], [result(), result()])}, "each tool_use must have a single result"),
    ({"messages": messages("x", [TOOL_USE, TOOL_USE], [result()])}, "`tool_use` ids must be unique"),
    ({"messages": messages([TOOL_USE])}, "`tool_use` blocks can only be in `assistant` messages"),
    ({"messages": messages("x", [result()], "y")}, "`tool_result` blocks can only be in `user` messages"),
    ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique."),
    ({"tools": [{**TOOL, "name": "a b"}]}, "String should match pattern"),
    ({"tools": [{"name": "look"}]}, "tools.0.custom.input_schema: Field required"),
    ({"tool_choice": {"type": "any"}}, "may only be specified while providing `tools`"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "Tool 'x' not found in provided tools"),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "`max_tokens` must be greater than"),
    ({"thinking": {"type": "enabled", "budget_tokens": 10}}, "Input should be greater than or equal to 1024"),
    (
        {"system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}] * 5},
        "A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    ({"system": 7}, "system: Input should be a valid string or a valid list"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[words[:40] for _, words in REFUSED])
def test_refused(change: dict[str, Any], words: str) -> None:
    body = {"model": "m", "max_tokens": 1_500, "messages": messages("hello"), **change}
    body = {name: value for name, value in body.items() if value is not ...}
    with pytest.raises(ApiError) as caught:
        validate_request(parse_request(json.dumps(body).encode()))
    assert words in caught.value.message
    assert (caught.value.status, caught.value.error_type) == (400, "invalid_request_error")


ACCEPTED: list[list[Any]] = [
    messages("x", [TOOL_USE], [result()]),
    messages("x", [TOOL_USE], [result(), {"type": "text", "text": "and now?"}], "fine", "go on"),
    [*messages("x", [TOOL_USE]), {"role": "user", "content": [result()]}, {"role": "user", "content": "two in a row"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    messages("x", "The answer is ("),
    messages("nul \x00 and \x1b control"),
]


@pytest.mark.parametrize("accepted", ACCEPTED)
def test_accepted(accepted: list[Any]) -> None:
    validate_request(parse_request(json.dumps({"model": "m", "max_tokens": 1, "messages": accepted}).encode()))


def test_errors_reach_the_client_in_the_apis_shape(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model="m", max_tokens=0, messages=[{"role": "user", "content": "x"}])
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == caught.value.type == "invalid_request_error"
    assert body["request_id"] == caught.value.request_id


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"model": "\\ud800"}', "no low surrogate"),
        (b'{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_bodies_that_are_no_request(raw: bytes, words: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_request(raw)
    assert words in caught.value.message


def test_a_key_is_required_and_any_will_do(stub: StubServer) -> None:
    with anthropic.Anthropic(base_url=stub.url, auth_token="any") as bearer:
        bearer.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": messages("x")}).encode()
    request = urllib.request.Request(f"{stub.url}/v1/messages", body, {"anthropic-version": "2023-06-01"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    error = json.loads(caught.value.read())["error"]
    assert (caught.value.code, error["type"]) == (401, "authentication_error")
    assert error["message"] == "x-api-key header is required"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_use", "tool_result", "image", "document", "thinking", "odd"])},
    optional=dict.fromkeys(("text", "id", "name", "input", "tool_use_id", "content", "source", "thinking"), JSON),
)
REQUEST = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "max_tokens": st.just(9),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": st.text(min_size=1) | st.lists(BLOCK | JSON)}),
            max_size=3,
        ),
    },
    optional={
        name: JSON | st.lists(st.fixed_dictionaries({"name": st.just("a"), "input_schema": JSON}), max_size=2)
        for name in (
            "system",
            "tools",
            "tool_choice",
            "thinking",
            "metadata",
            "stop_sequences",
            "stream",
            "thread",
            "cache_control",
            "output_config",
            "service_tier",
        )
    },
)


@given(REQUEST | JSON)
def test_whatever_is_sent_is_answered_or_refused_for_what_it_is(body: object) -> None:
    service = Service(seed=0, latency_seconds=0, clock=lambda: 0.0)
    raw = json.dumps(body).encode()
    plan = service.plan(raw, {"x-api-key": "k", "anthropic-version": "2023-06-01"}, "k")
    if plan.error is None:
        assert plan.message is not None
    else:
        assert plan.error.status in (400, 404), plan.error
