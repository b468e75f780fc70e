"""Every HTTP request of a call that needed several is an event on its one span; a call that needed one has none."""

import asyncio
import threading
from typing import Any

import anthropic
import pytest
from support.sdk_features import needs

from .conftest import Configure, ask, delivered
from .provider_server import Recorded, Reply, Server, failing, ok, python_value, stream_events

SOON = {"retry-after-ms": "2"}


def attempts_of(call: Recorded) -> list[dict[str, Any]]:
    return [
        {item.key: python_value(item.value) for item in event.attributes}
        for event in call.span.events
        if event.name == "loopscope.http.attempt"
    ]


def make(server: Server, *, asynchronous: bool, stream: bool = False, **options: Any) -> Any:
    """One call, with a client of its own; its result."""
    options = {"api_key": "k", "base_url": server.url} | options
    if not asynchronous:
        with anthropic.Anthropic(**options) as client:
            result = client.messages.create(**ask(), stream=stream)
            return list(result) if stream else result

    async def main() -> Any:
        async with anthropic.AsyncAnthropic(**options) as client:
            result: Any = await client.messages.create(**ask(), stream=stream)
            return [event async for event in result] if stream else result

    return asyncio.run(main())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_each_request_is_an_event(*, asynchronous: bool, stream: bool, server: Server, configure: Configure) -> None:
    refused = failing(429, "rate_limit_error", **SOON, **{"request-id": "req_first"})
    answered = Reply(events=stream_events()) if stream else ok()
    server.replies = [refused, failing(529, "overloaded_error", **{"retry-after": "0.003"}), answered]
    configure()
    make(server, asynchronous=asynchronous, stream=stream, max_retries=2)
    delivered()
    (call,) = server.calls()
    first, second, third = attempts_of(call)
    assert [each["http.request.resend_count"] for each in (first, second, third)] == [0, 1, 2]
    assert [each["http.response.status_code"] for each in (first, second, third)] == [429, 529, 200]
    assert first["loopscope.http.request_id"] == "req_first"
    assert first["loopscope.http.retry_after"] == first["loopscope.http.retry_delay"] == 0.002
    assert second["loopscope.http.retry_after"] == 0.003
    assert "loopscope.http.retry_delay" not in third
    assert all(each["loopscope.http.attempt.duration"] > 0 for each in (first, second, third))
    assert not any("error.type" in each for each in (first, second, third))
    times = [event.time_unix_nano for event in call.span.events]
    assert times == sorted(times)
    assert call.span.start_time_unix_nano <= times[0] < times[-1] < call.span.end_time_unix_nano
    assert call["loopscope.http.attempts"] == 3
    assert not call.failed


@pytest.mark.parametrize("asynchronous", [False, True])
def test_retries_that_do_not_help(*, asynchronous: bool, server: Server, configure: Configure) -> None:
    server.replies = [failing(529, "overloaded_error", **SOON)]
    configure()
    with pytest.raises(anthropic.APIStatusError):
        make(server, asynchronous=asynchronous, max_retries=2)
    delivered()
    (call,) = server.calls()
    assert [each["http.response.status_code"] for each in attempts_of(call)] == [529, 529, 529]
    assert call["error.type"] == "overloaded_error"
    assert call["loopscope.http.attempts"] == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_requests_that_nobody_answered(
    *, asynchronous: bool, server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.01)
    silent = threading.Event()
    server.replies = [Reply(silent=silent)]
    configure()
    try:
        with pytest.raises(anthropic.APITimeoutError):
            make(server, asynchronous=asynchronous, max_retries=1, timeout=0.1)
    finally:
        silent.set()
    with pytest.raises(anthropic.APIConnectionError):
        make(server, asynchronous=asynchronous, max_retries=1, base_url="http://127.0.0.1:1")
    delivered()
    timed_out, refused = server.calls()
    # Before 1.x the SDK sends again before it has made an error of its own out of the HTTP library's.
    kinds = ("APITimeoutError", "ReadTimeout"), ("APIConnectionError", "ConnectError")
    for call, kind in zip((timed_out, refused), kinds, strict=True):
        first, second = attempts_of(call)
        assert "http.response.status_code" not in first | second
        assert first["error.type"].endswith(kind)
        assert second["error.type"].endswith(kind)
        assert first["loopscope.http.retry_delay"] > 0
    assert attempts_of(timed_out)[0]["loopscope.http.attempt.duration"] >= 0.1


def test_an_error_of_the_host_around_the_call_is_not_the_attempts(server: Server, configure: Configure) -> None:
    server.replies = [failing(429, "rate_limit_error", **SOON), ok()]
    configure()
    try:
        raise KeyError("the host's own")
    except KeyError:
        make(server, asynchronous=False, max_retries=1)
    delivered()
    first, second = attempts_of(server.calls()[0])
    assert first["http.response.status_code"] == 429
    assert "error.type" not in first | second


def test_a_call_that_is_cancelled_between_two_requests(server: Server, configure: Configure) -> None:
    server.replies = [failing(529, "overloaded_error", **{"retry-after": "30"})]
    configure()

    class Cancelling(anthropic.AsyncAnthropic):
        """Its task is cancelled when it begins to wait for its second request."""

        def _calculate_retry_timeout(self, *args: Any, **kwargs: Any) -> float:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return super()._calculate_retry_timeout(*args, **kwargs)

    async def main() -> None:
        async with Cancelling(api_key="k", base_url=server.url, max_retries=1) as client:
            await client.messages.create(**ask())

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    delivered()
    (call,) = server.calls()
    assert call["loopscope.http.attempts"] == 1
    assert call["error.type"] == "asyncio.exceptions.CancelledError"
    assert call["loopscope.error.class"] == "cancelled"
    assert attempts_of(call) == []


def test_many_requests_keep_the_first_ones_and_the_last(server: Server, configure: Configure) -> None:
    from loopscope._internal.anthropic.attempts import EVENTS_MAX

    server.replies = [*[failing(529, "overloaded_error", **{"retry-after-ms": "1"})] * (EVENTS_MAX + 5), ok()]
    configure()
    make(server, asynchronous=False, max_retries=EVENTS_MAX + 10)
    delivered()
    (call,) = server.calls()
    assert call["loopscope.http.attempts"] == EVENTS_MAX + 6
    numbers = [each["http.request.resend_count"] for each in attempts_of(call)]
    assert numbers == [*range(EVENTS_MAX - 1), EVENTS_MAX + 5]


def _asks_again(*, when: Any) -> Any:
    """A middleware that asks for the answer once more."""

    def middleware(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        return call_next(request) if when(response) else response

    return middleware


@needs("middleware=")
@pytest.mark.parametrize("stream", [False, True])
def test_a_middleware_that_asks_again_although_it_was_answered_makes_another_call(
    *, stream: bool, server: Server, configure: Configure
) -> None:
    bodies: list[bytes] = []

    def read(response: Any) -> bool:
        bodies.append(response.http_response.read())
        return True

    again = Reply(events=stream_events()) if stream else ok("second")
    server.replies = [ok("first", stop_reason="refusal"), failing(529, "overloaded_error", **SOON), again]
    configure()
    with (
        anthropic.Anthropic(
            api_key="k", base_url=server.url, middleware=[_asks_again(when=read)], max_retries=1
        ) as client,
        pytest.raises(anthropic.APIStatusError),
    ):
        client.with_options(max_retries=0).messages.create(**ask(), stream=stream)
    delivered()
    refused, failed = server.calls()
    assert refused["gen_ai.response.finish_reasons"] == ["refusal"]
    assert refused["loopscope.response.body"] == bodies[0]
    assert failed["error.type"] == "overloaded_error"
    assert [call["loopscope.http.attempts"] for call in (refused, failed)] == [1, 1]
    assert [call["loopscope.request.body"] for call in (refused, failed)] == [each.body for each in server.messages]


@needs("middleware=")
@pytest.mark.parametrize("stream", [False, True])
def test_a_middleware_that_retries_is_one_call(*, stream: bool, server: Server, configure: Configure) -> None:
    answer = Reply(events=stream_events()) if stream else ok("second")
    server.replies = [failing(529, "overloaded_error"), answer]
    configure()

    def was_overloaded(response: Any) -> bool:
        return response.status_code == 529

    middleware = _asks_again(when=was_overloaded)
    with anthropic.Anthropic(api_key="k", base_url=server.url, middleware=[middleware], max_retries=0) as client:
        result: Any = client.messages.create(**ask(), stream=stream)
        if stream:
            assert [event.type for event in result][-1] == "message_stop"
    delivered()
    (call,) = server.calls()
    assert [each["http.response.status_code"] for each in attempts_of(call)] == [529, 200]
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call.get("loopscope.partial") is None
    assert not call.failed


@needs("middleware=")
def test_an_error_answer_that_a_middleware_reads_is_not_the_end(server: Server, configure: Configure) -> None:
    server.replies = [failing(529, "overloaded_error", **SOON), Reply(events=stream_events())]
    configure()

    def reading(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        if response.status_code >= 400:
            response.http_response.read()
        return response

    with anthropic.Anthropic(api_key="k", base_url=server.url, middleware=[reading], max_retries=1) as client:
        assert len(list(client.messages.create(**ask(), stream=True))) > 5
    delivered()
    (call,) = server.calls()
    first, second = attempts_of(call)
    assert [each["http.response.status_code"] for each in (first, second)] == [529, 200]
    assert first["loopscope.http.retry_delay"] == 0.002
    assert call["gen_ai.usage.output_tokens"] == 42


@needs("lib.middleware.BetaRefusalFallbackMiddleware")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("helped", [True, False])
def test_a_request_that_a_middleware_sends_while_the_stream_is_read(
    *, asynchronous: bool, helped: bool, server: Server, configure: Configure
) -> None:
    """The SDK's own fallback after a refusal: the second model is asked while the host reads the first one's stream."""
    from anthropic.lib import middleware

    refusal = [*stream_events()[:3], stream_events()[6]]
    details = {"type": "refusal", "category": "cyber", "explanation": "no", "fallback_credit_token": "credit_1"}
    stop = {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
    refusal += [{"type": "message_delta", "delta": stop, "usage": {"output_tokens": 3}}, {"type": "message_stop"}]
    second = Reply(events=stream_events()) if helped else failing(529, "overloaded_error")
    server.replies = [Reply(events=refusal), second]

    def ask_through() -> list[str]:
        options: dict[str, Any] = {
            "api_key": "k",
            "base_url": server.url,
            "max_retries": 0,
            "middleware": [middleware.BetaRefusalFallbackMiddleware([{"model": "claude-opus-4-5"}])],
        }
        if not asynchronous:
            with anthropic.Anthropic(**options) as client:
                return [repr(event) for event in client.beta.messages.create(**ask(), stream=True)]

        async def main() -> list[str]:
            async with anthropic.AsyncAnthropic(**options) as client:
                return [repr(event) async for event in await client.beta.messages.create(**ask(), stream=True)]

        return asyncio.run(main())

    as_it_is = ask_through()
    assert len(server.messages) == 2, "the middleware asked a second model"
    server.replies = [Reply(events=refusal), second]
    configure()
    assert ask_through() == as_it_is
    delivered()
    first, fallback = server.calls()
    assert first["gen_ai.response.finish_reasons"] == ["refusal"]
    assert first["gen_ai.usage.output_tokens"] == 3
    assert fallback["gen_ai.request.model"] == "claude-opus-4-5"
    assert [call["loopscope.request.body"] for call in (first, fallback)] == [each.body for each in server.messages[2:]]
    assert fallback.failed == (not helped)
    if helped:
        assert fallback["gen_ai.usage.output_tokens"] == 42
        assert fallback.get("loopscope.partial") is None
    else:
        assert fallback["http.response.status_code"] == 529
        assert fallback["loopscope.error.class"] == "transient"
