"""Streamed answers: chunks reach the host when they arrive, and what was recorded is the message they describe."""

import asyncio
import gc
import json
import threading

import anthropic
import pytest
from anthropic import Stream
from hypothesis import given
from hypothesis import strategies as st

from loopscope._internal.anthropic.assembly import assemble

from .conftest import Configure, ask, delivered
from .provider_server import Reply, Server, message, sse, stream_events

WHOLE = message() | {
    "content": [
        {"type": "text", "text": "Hello wörld"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"where": "here"}},
    ],
    "stop_reason": "tool_use",
}


def test_create_with_stream(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(events=stream_events())]
    configure()
    stream = client.messages.create(**ask(), stream=True)
    assert isinstance(stream, Stream)
    kinds = [event.type for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    delivered()
    (call,) = server.calls()
    assert call["loopscope.request.body"] == server.messages[0].body
    assert json.loads(call["loopscope.response.body"]) == WHOLE
    assert call["gen_ai.request.stream"] is True
    assert call["gen_ai.usage.output_tokens"] == 42
    assert call["gen_ai.response.finish_reasons"] == ["tool_use"]
    assert call.get("loopscope.partial") is None
    assert call["loopscope.cost.usd"] == 0.002583
    assert 0 < call["gen_ai.response.time_to_first_chunk"] <= call["loopscope.stream.longest_gap"]


def test_message_stream_helpers(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(events=stream_events())]
    configure()
    with client.messages.stream(**ask()) as stream:
        assert "".join(stream.text_stream) == "Hello wörld"
        final = stream.get_final_message()
    delivered()
    (call,) = server.calls()
    recorded = json.loads(call["loopscope.response.body"])
    assert final.content[0].to_dict()["text"] == recorded["content"][0]["text"]
    assert call.get("loopscope.partial") is None


def test_async_streams(server: Server, configure: Configure) -> None:
    server.replies = [Reply(events=stream_events())]
    configure()

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:
            async for _ in await client.messages.create(**ask(), stream=True):
                pass
            async with client.messages.stream(**ask()) as stream:
                assert await stream.get_final_text() == "Hello wörld"

    asyncio.run(main())
    delivered()
    assert [json.loads(call["loopscope.response.body"]) for call in server.calls()] == [WHOLE, WHOLE]


def test_chunks_are_not_held_back(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    """The server sends the rest only after the host has seen the beginning."""
    hold = threading.Event()
    server.replies = [Reply(events=stream_events(), hold=hold)]
    configure()
    for event in client.messages.create(**ask(), stream=True):
        if event.type == "content_block_start":
            hold.set()
    delivered()
    assert json.loads(server.calls()[0]["loopscope.response.body"]) == WHOLE


def test_the_longest_silence_is_measured_and_a_ping_does_not_end_it(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    # The ping is event 2; the first text, event 3, comes after two silences with the ping between them.
    server.replies = [Reply(events=stream_events(), delays={2: 0.2, 3: 0.2})]
    configure()
    for _ in client.messages.create(**ask(), stream=True):
        pass
    delivered()
    # More than one silence; not quite two, as the host may have read the event before them late.
    assert server.calls()[0]["loopscope.stream.longest_gap"] > 0.25


@pytest.mark.parametrize("how", ["closed", "left", "forgotten"])
def test_abandoned_streams_keep_what_had_arrived(
    how: str, server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    hold = threading.Event()
    server.replies = [Reply(events=stream_events(), hold=hold)]
    configure()
    stream = client.messages.create(**ask(), stream=True)
    while next(stream).type != "content_block_start":
        pass
    if how == "closed":
        stream.close()
    elif how == "left":
        with stream:
            pass
    del stream
    gc.collect()
    hold.set()
    delivered()
    (call,) = server.calls()
    assert call["loopscope.partial"] is True
    assert not call.failed
    body = json.loads(call["loopscope.response.body"])
    assert body["id"] == "msg_01test"
    assert body["stop_reason"] is None
    assert call["gen_ai.usage.input_tokens"] == 2121
    assert call.get("gen_ai.usage.output_tokens") is None, "the 1 of message_start is a placeholder"
    assert call["loopscope.cost.source"] == "unknown"


def test_an_abandoned_async_stream(server: Server, configure: Configure) -> None:
    hold = threading.Event()
    server.replies = [Reply(events=stream_events(), hold=hold)]
    configure()

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:
            stream = await client.messages.create(**ask(), stream=True)
            async for event in stream:
                if event.type == "content_block_start":
                    break
            await stream.close()

    asyncio.run(main())
    hold.set()
    delivered()
    assert server.calls()[0]["loopscope.partial"] is True


def test_a_broken_connection(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(events=stream_events(), break_after=5)]
    configure()
    seen: list[str] = []
    with pytest.raises(Exception, match=r"(?i)peer|closed|incomplete") as raised:
        seen += [event.type for event in client.messages.create(**ask(), stream=True)]
    assert type(raised.value).__name__ == "RemoteProtocolError"
    delivered()
    (call,) = server.calls()
    assert call.failed
    assert call["loopscope.partial"] is True
    assert call["error.type"].endswith("RemoteProtocolError")
    assert call["loopscope.error.class"] == "transient"
    assert json.loads(call["loopscope.response.body"])["content"] == [{"type": "text", "text": "Hello "}]
    assert [event.name for event in call.span.events] == ["exception"]


def test_an_error_inside_the_stream(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.replies = [Reply(events=[*stream_events()[:5], error])]
    configure()
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(**ask(), stream=True))
    delivered()
    (call,) = server.calls()
    assert call.failed
    assert call.span.status.message == "Overloaded"
    assert call["error.type"] == "overloaded_error"
    assert call["loopscope.error.class"] == "transient"
    assert call["loopscope.partial"] is True


def test_compressed_streams(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(events=stream_events(), gzip=True)]
    configure()
    assert len(list(client.messages.create(**ask(), stream=True))) == len(stream_events()) - 1
    delivered()
    assert json.loads(server.calls()[0]["loopscope.response.body"]) == WHOLE


def test_raw_lines_of_a_stream(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    server.replies = [Reply(events=stream_events())]
    configure()
    with client.messages.with_streaming_response.create(**ask(), stream=True) as response:
        text = b"".join(response.iter_bytes())
    assert text == b"".join(map(sse, stream_events()))
    delivered()
    assert json.loads(server.calls()[0]["loopscope.response.body"]) == WHOLE


@given(st.binary(max_size=400), st.integers(0, 2000))
def test_assembling_never_fails(noise: bytes, cut: int) -> None:
    whole = b"".join(map(sse, stream_events()))
    broken = assemble(whole[:cut] + noise + whole[cut:])
    assert broken.message is None or isinstance(broken.message["content"], list)


@given(st.integers(0, 3000))
def test_every_beginning_of_a_stream_is_a_beginning_of_the_message(cut: int) -> None:
    whole = b"".join(map(sse, stream_events()))
    part = assemble(whole[:cut])
    assert part.finished is (cut >= len(whole) - 1)
    if part.message is None or not part.message["content"]:
        return
    assert "Hello wörld".startswith(part.message["content"][0]["text"])
    for block in part.message["content"][1:]:
        assert block["input"] in ({}, {"where": "here"})


def test_what_is_unknown_in_a_stream_is_kept() -> None:
    delta = {"type": "hologram_delta", "beam": 1}
    events = [
        {
            "type": "message_start",
            "message": {"id": "m", "usage": {"input_tokens": 1, "cache_read_input_tokens": None}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "hologram"}},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"n": 1}}},
        {"type": "message_delta", "delta": {"container": "c"}, "usage": {"input_tokens": None, "output_tokens": 9}},
        {"type": "message_stop"},
    ]
    built = assemble(b"".join(map(sse, events))).message
    assert built == {
        "id": "m",
        "usage": {"input_tokens": 1, "cache_read_input_tokens": None, "output_tokens": 9},
        "container": "c",
        "content": [{"type": "hologram", "loopscope_deltas": [delta], "citations": [{"n": 1}]}],
    }
