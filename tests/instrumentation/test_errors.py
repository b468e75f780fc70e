"""Failed calls: what the host sees is what the SDK raises; what is recorded says why and if a retry is worth it."""

import json

import anthropic
import pytest

from .conftest import Configure, ask, delivered
from .provider_server import Reply, Server, failing, ok

CASES = [
    (400, "invalid_request_error", anthropic.BadRequestError, "deterministic"),
    (401, "authentication_error", anthropic.AuthenticationError, "deterministic"),
    (404, "not_found_error", anthropic.NotFoundError, "deterministic"),
    (409, "conflict_error", anthropic.ConflictError, "transient"),
    (429, "rate_limit_error", anthropic.RateLimitError, "transient"),
    (500, "api_error", anthropic.InternalServerError, "transient"),
    (529, "overloaded_error", anthropic.APIStatusError, "transient"),
]


@pytest.mark.parametrize(("status", "kind", "raises", "worth"), CASES)
def test_api_errors(
    status: int,
    kind: str,
    raises: type[anthropic.APIStatusError],
    worth: str,
    server: Server,
    configure: Configure,
    client: anthropic.Anthropic,
) -> None:
    server.replies = [failing(status, kind)]
    configure()
    with pytest.raises(raises) as raised:
        client.messages.create(**ask())
    assert raised.value.status_code == status
    assert raised.value.__cause__ is None
    delivered()
    (call,) = server.calls()
    assert call.failed
    assert call["error.type"] == kind
    assert call["loopscope.error.class"] == worth
    assert call["http.response.status_code"] == status
    assert call["loopscope.request.body"] == server.messages[0].body
    assert json.loads(call["loopscope.response.body"])["error"]["type"] == kind
    assert [event.name for event in call.span.events] == ["exception"]
    assert call.get("loopscope.cost.usd") is None


def test_an_error_that_is_no_json(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(status=502, body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"})]
    configure()
    with pytest.raises(anthropic.InternalServerError):
        client.messages.create(**ask())
    delivered()
    (call,) = server.calls()
    assert call["error.type"] == "anthropic.InternalServerError"
    assert call["loopscope.response.body"] == b"<html>Bad gateway</html>"


def test_retries_are_one_call_with_its_attempts(server: Server, configure: Configure) -> None:
    again = {"retry-after-ms": "1"}
    server.replies = [failing(429, "rate_limit_error", **again), failing(529, "overloaded_error", **again), ok("third")]
    configure()
    with anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=2) as client:
        client.messages.create(**ask())
    delivered()
    (call,) = server.calls()
    assert len(server.messages) == 3
    assert call["loopscope.http.attempts"] == 3
    assert call["http.response.status_code"] == 200
    assert not call.failed


def test_streamed_calls_can_fail_before_they_stream(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.replies = [failing(429, "rate_limit_error")]
    configure()
    with pytest.raises(anthropic.RateLimitError), client.messages.stream(**ask()):
        pass
    delivered()
    (call,) = server.calls()
    assert call["error.type"] == "rate_limit_error"
    assert json.loads(call["loopscope.response.body"])["error"]["type"] == "rate_limit_error"


def test_nobody_answers(server: Server, configure: Configure) -> None:
    configure()
    with (
        anthropic.Anthropic(api_key="k", base_url="http://127.0.0.1:1", max_retries=0) as client,
        pytest.raises(anthropic.APIConnectionError),
    ):
        client.messages.create(**ask())
    delivered()
    (call,) = server.calls()
    assert call["error.type"] == "anthropic.APIConnectionError"
    assert call["loopscope.error.class"] == "transient"
    assert call.get("http.response.status_code") is None
    assert json.loads(call["loopscope.request.body"])["max_tokens"] == 99


def test_wrong_arguments_never_reach_us(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure()
    incomplete = ask()
    del incomplete["messages"]
    with pytest.raises(TypeError):
        client.messages.create(**incomplete)
    delivered()
    assert server.spans() == []
