"""Failures on demand, as the real client meets them."""

import time
from typing import Any

import anthropic
import httpx2
import pytest

from loopscope.stub import Fault, LogEntry, Pacing, StubServer, Turn, say

ASK: Any = {"model": "m", "max_tokens": 500, "messages": [{"role": "user", "content": "x"}]}
HEADERS = {"x-stub-script": "failing/one"}
IMPATIENT = httpx2.Timeout(60, read=0.5)
"""Only the wait for an answer is short: the request itself always arrives."""


def logged(stub: StubServer, count: int) -> list[LogEntry]:
    """The log once it has so many entries: what a client left behind is noticed a moment later."""
    deadline = time.monotonic() + 60
    while len(stub.log.entries()) < count:
        assert time.monotonic() < deadline, stub.log.entries()
        time.sleep(0.01)
    return stub.log.entries()


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, anthropic.RateLimitError), (500, anthropic.InternalServerError), (529, anthropic.InternalServerError)],
)
def test_so_many_times_and_then_an_answer(
    stub: StubServer, client: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    stub.add_script("failing", [Turn(text="fine", faults=(Fault(status, times=3, retry_after=0.01),)), say("next")])
    retrying = client.with_options(max_retries=2)
    with pytest.raises(error) as caught:
        retrying.messages.create(extra_headers=HEADERS, **ASK)
    assert caught.value.response.headers["retry-after"] == "0.01"
    assert caught.value.type in ("rate_limit_error", "api_error", "overloaded_error")
    assert "fine" in str(retrying.messages.create(extra_headers=HEADERS, **ASK).content)
    assert [(entry.status, entry.retry) for entry in stub.log.entries()] == [
        (status, 0),
        (status, 1),
        (status, 2),
        (200, 0),
    ]
    assert [entry.step for entry in stub.log.entries()] == [0, 0, 0, 0]


def test_a_fault_by_header_after_so_many_answers(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", lambda ask: say(f"answer {ask.step}"))
    headers = {**HEADERS, "x-stub-fault": "status=429;after=2;times=1;message=slow down"}
    answers: list[str] = []
    for _ in range(4):
        try:
            answers.append(str(client.messages.create(extra_headers=headers, **ASK).content))
        except anthropic.RateLimitError as error:
            answers.append(str(error.api_message))
    assert [one.partition("answer ")[2][:1] or one for one in answers] == ["0", "1", "slow down", "2"]


def test_a_fault_that_nobody_understands_is_named(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="unknown field 'stauts'"):
        client.messages.create(extra_headers={"x-stub-fault": "stauts=1"}, **ASK)


def test_a_dropped_connection(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", [Turn(text="fine", faults=(Fault(kind="drop"),))])
    with pytest.raises(anthropic.APIConnectionError):
        client.messages.create(extra_headers=HEADERS, **ASK)
    assert "fine" in str(client.messages.create(extra_headers=HEADERS, **ASK).content)
    assert [(entry.status, entry.ended) for entry in stub.log.entries()] == [(None, "broken"), (200, "answered")]


def test_a_request_that_hangs_until_the_client_gives_up(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", [Turn(text="fine", faults=(Fault(kind="hang", seconds=300),))])
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=IMPATIENT).messages.create(extra_headers=HEADERS, **ASK)
    assert "fine" in str(client.messages.create(extra_headers=HEADERS, **ASK).content)
    assert [entry.ended for entry in logged(stub, 2)] == ["abandoned", "answered"]


def test_an_answer_that_is_too_late_is_given_to_the_next_request(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", lambda ask: say(f"answer {ask.step}", pacing=Pacing(latency=300.0 * (not ask.attempt))))
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=IMPATIENT).messages.create(extra_headers=HEADERS, **ASK)
    logged(stub, 1)
    stub.add_script("failing", lambda ask: say(f"answer {ask.step}"))
    assert "answer 0" in str(client.messages.create(extra_headers=HEADERS, **ASK).content)


def test_a_stream_that_breaks_off_is_logged_as_far_as_it_came(stub: StubServer, client: anthropic.Anthropic) -> None:
    text = "one two three four five six " * 20
    stub.add_script("failing", [say(text, pacing=Pacing(break_at=0.5)), say(text)])
    got: list[str] = []
    with (
        pytest.raises(httpx2.RemoteProtocolError),
        client.messages.stream(extra_headers=HEADERS, **ASK) as stream,
    ):
        got.extend(stream.text_stream)
    (entry,) = stub.log.entries()
    assert entry.response is not None
    assert entry.ended == "broken"
    assert entry.response["stop_reason"] is None
    assert entry.response["usage"]["output_tokens"] == 1
    assert 0 < len("".join(got)) <= len(entry.response["content"][0]["text"]) < len(text)
    with client.messages.stream(extra_headers=HEADERS, **ASK) as stream:
        assert stream.get_final_text() == text


def test_an_error_event_in_a_stream(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", [say("x" * 500, pacing=Pacing(error_at=0.5))])
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        client.messages.stream(extra_headers=HEADERS, **ASK) as stream,
    ):
        stream.until_done()
    assert caught.value.type == "overloaded_error"
    assert stub.log.entries()[0].ended == "error"


def test_silence_lies_where_it_was_asked_for(stub: StubServer, client: anthropic.Anthropic) -> None:
    whole = say("x" * 2_000)
    silent = say("x" * 2_000, pacing=Pacing(silence=300, silence_at=0.5))
    stub.add_script("failing", [whole, silent])
    total = len(list(client.messages.create(stream=True, extra_headers=HEADERS, **ASK)))
    arrived: list[object] = []
    patience = client.with_options(timeout=httpx2.Timeout(60, read=3))
    with (
        pytest.raises((httpx2.ReadTimeout, anthropic.APITimeoutError)),
        patience.messages.create(stream=True, extra_headers=HEADERS, **ASK) as stream,
    ):
        arrived.extend(stream)
    assert total // 2 - 2 <= len(arrived) + 1 <= total // 2 + 1


def test_a_stream_that_its_client_leaves(stub: StubServer, client: anthropic.Anthropic) -> None:
    stub.add_script("failing", [say("x" * 2_000, pacing=Pacing(silence=300, silence_at=0.5))])
    with client.messages.stream(extra_headers=HEADERS, **ASK) as stream:
        next(iter(stream))
    (entry,) = logged(stub, 1)
    assert entry.ended == "abandoned"
    assert entry.response is not None
    assert entry.response["content"][0]["text"].startswith("x")
