"""What a stream holds for the recording is bounded, let go of in the end, and never in the host's way."""

import asyncio
import gc
import json
import threading
from operator import attrgetter
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal import guard
from loopscope._internal.anthropic import streams
from loopscope._internal.anthropic.calls import LLMCall

from .conftest import Configure, ask, delivered
from .provider_server import Reply, Server, failing, stream_events

EVENTS = [event["type"] for event in stream_events() if event["type"] != "ping"]


def read(client: anthropic.Anthropic) -> list[str]:
    return [event.type for event in client.messages.create(**ask(), stream=True)]


def test_a_stream_larger_than_what_may_be_held(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CAPTURE_MAX_BYTES", 1_500)
    server.replies = [Reply(events=stream_events(), delays={4: 0.05})]
    configure()
    assert read(client) == EVENTS
    delivered()
    (call,) = server.calls()
    cut = json.loads(call["loopscope.cut"])["loopscope.response.body"]
    assert cut["left_out_bytes"] > 500
    assert call["loopscope.partial"] is True
    assert call.get("gen_ai.usage.output_tokens") is None
    assert json.loads(call["loopscope.response.body"])["id"] == "msg_01test"
    assert streams.held_bytes() == 0


def test_many_half_read_streams_together_hold_no_more_than_their_bound(
    server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 4_000
    monkeypatch.setattr(streams, "CAPTURES_MAX_BYTES", bound)
    hold = threading.Event()
    server.replies = [Reply(events=stream_events(), hold=hold, hold_at=5)]
    configure()
    left: list[Any] = []
    for _ in range(12):
        stream = client.messages.create(**ask(), stream=True)
        assert [next(stream).type for _ in range(4)] == EVENTS[:4]
        left.append(stream)
        assert streams.held_bytes() <= bound
    assert streams.held_bytes() > bound // 2
    hold.set()
    for stream in left:
        assert [event.type for event in stream] == EVENTS[4:]
    assert streams.held_bytes() == 0
    delivered()
    assert len(server.calls()) == 12
    assert sum(call.get("loopscope.cut") is not None for call in server.calls()) > 6


def test_what_is_read_after_the_end_is_not_held() -> None:
    ended: list[BaseException | None] = []
    capture = streams.StreamCapture(ended.append)
    capture.chunk(b"before")
    capture.end()
    capture.chunk(b"after")
    capture.end(ValueError("again"))
    assert ended == [None]
    assert capture.chunks == []
    assert streams.held_bytes() == 0


@pytest.mark.parametrize("part", ["chunk", "end"])
def test_a_fault_of_ours_in_a_stream_never_reaches_the_host(
    part: str, server: Server, configure: Configure, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [Reply(events=stream_events())]
    configure()
    monkeypatch.setattr(guard, "reraise", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("ours")

    if part == "chunk":
        monkeypatch.setattr(streams.StreamCapture, "_reserve", broken)
    else:
        monkeypatch.setattr(LLMCall, "_end", broken)
    assert read(client) == EVENTS
    gc.collect()
    assert loopscope.stats()["internal_errors"] > 0
    assert streams.held_bytes() == 0


def test_an_exception_that_the_host_keeps_keeps_nothing_of_ours(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    server.replies = [failing(400, "invalid_request_error")]
    configure()
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.messages.create(**ask())
    delivered()
    calls: list[LLMCall] = []
    trace = raised.value.__traceback__
    while trace is not None:
        calls += [value for value in trace.tb_frame.f_locals.values() if isinstance(value, LLMCall)]
        trace = trace.tb_next
    assert calls, "the frame of our wrapper is part of the traceback"
    kept = json.dumps([repr(attrgetter("_answer")(call)) for call in calls])
    assert "hello" not in kept
    assert "invalid_request_error" not in kept


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_ends_when_it_is_closed_though_the_host_keeps_it(
    *, asynchronous: bool, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    hold = threading.Event()
    server.replies = [Reply(events=stream_events(), hold=hold)]
    configure()
    kept: list[Any] = []
    if asynchronous:

        async def main() -> None:
            async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as other:
                kept.append(await other.messages.create(**ask(), stream=True))
                assert (await anext(kept[0])).type == "message_start"
                await kept[0].close()

        asyncio.run(main())
    else:
        kept.append(client.messages.create(**ask(), stream=True))
        assert next(kept[0]).type == "message_start"
        kept[0].close()
    delivered()
    (call,) = server.calls()
    hold.set()
    assert call["loopscope.partial"] is True
    assert not call.failed
    assert json.loads(call["loopscope.response.body"])["id"] == "msg_01test"
    assert kept
