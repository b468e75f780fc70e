"""How much is recorded: without content no text leaves the process or reaches the disk, and off is off."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import loopscope
from loopscope._internal.config import resolve

from .conftest import Configure, ask, delivered
from .provider_server import Reply, Server, failing, message, ok, stream_events

MARK = "zq-secret-zq"


def everything_with_a_mark(client: anthropic.Anthropic, server: Server) -> None:
    """A run with the mark in every place where text can come from, plain calls beside it."""
    tool_use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"who": MARK}}
    events = stream_events((MARK, MARK))
    broken = [*events[:4], {"type": "error", "error": {"type": "overloaded_error", "message": MARK}}]
    server.replies = [
        ok(MARK, content=[{"type": "text", "text": MARK}, tool_use], stop_reason="tool_use"),
        Reply(events=events),
        Reply(status=400, body=json.dumps({"error": {"type": "invalid_request_error", "message": MARK}}).encode()),
        Reply(events=broken),
        Reply(events=events, break_after=4),
        ok(MARK),
    ]
    request = ask(
        MARK,
        system=MARK,
        stop_sequences=[MARK],
        metadata={"user_id": MARK},
        tools=[{"name": "look", "description": MARK, "input_schema": {"type": "object"}}],
    )

    @loopscope.tool
    def look(who: str, deep: bool = True) -> str:
        if not deep:
            raise ValueError(f"no {who}")
        return f"found {who}"

    @loopscope.agent(name="helper")
    def helper(task: str) -> str:
        client.messages.create(**ask(task))
        return task

    with contextlib.suppress(RuntimeError), loopscope.run("support", input=MARK, config={"a": MARK}) as run:
        client.messages.create(**request)
        with client.messages.stream(**request) as stream:
            stream.get_final_message()
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**request)
        with pytest.raises(anthropic.APIError), client.messages.stream(**request) as stream:
            stream.get_final_message()
        with contextlib.suppress(Exception), client.messages.stream(**request) as stream:
            stream.get_final_message()
        look(MARK)
        with pytest.raises(ValueError, match=MARK):
            look(MARK, deep=False)
        helper(MARK)
        run.event("looked", said=MARK, parts=[MARK], size=3, good=True)
        run.final_answer = MARK
        raise RuntimeError(MARK)


def spooled(tmp_path: Path) -> bytes:
    return b"".join(path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file())


def test_metadata_holds_no_text(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    configure(capture="metadata")
    everything_with_a_mark(client, server)
    delivered()
    sent = b"".join(request.body for request in server.traces + server.starts)
    assert MARK.encode() in b"".join(request.body for request in server.messages)
    assert MARK.encode() not in sent
    assert b"test_capture.py" not in sent, "no stack trace"
    spans = server.spans()
    assert all(span["loopscope.capture"] == "metadata" for span in spans + server.markers())
    calls = server.calls()
    assert len(calls) == 6
    first = calls[0]
    assert first["gen_ai.usage.output_tokens"] == 42
    assert first["loopscope.cost.usd"] > 0
    assert first["gen_ai.response.model"] == "claude-sonnet-4-6"
    assert first["gen_ai.response.finish_reasons"] == ["tool_use"]
    assert first["loopscope.request.body.size"] == len(server.messages[0].body)
    assert first["loopscope.response.body.size"] > 100
    assert first.get("gen_ai.request.stop_sequences") is None
    assert calls[1]["gen_ai.response.time_to_first_chunk"] > 0
    assert (calls[2]["error.type"], calls[2].span.status.message) == ("invalid_request_error", "invalid_request_error")
    assert (calls[3]["error.type"], calls[3]["loopscope.error.class"]) == ("overloaded_error", "transient")
    assert calls[4]["loopscope.partial"]
    tools = [span for span in spans if span.operation == "execute_tool"]
    assert [span["gen_ai.tool.name"] for span in tools] == ["look", "look"]
    assert tools[0]["loopscope.tool.call.arguments.size"] == len(json.dumps({"who": MARK}).replace(" ", ""))
    assert tools[1]["error.type"] == "ValueError"
    (run,) = [span for span in spans if span.operation == "invoke_agent" and span["gen_ai.agent.name"] == "support"]
    assert run["loopscope.run.input.size"] == len(MARK) + 2
    event = {event.name: {item.key for item in event.attributes} for event in run.span.events}
    assert event == {"looked": {"size", "good"}, "exception": {"exception.type"}}


def test_metadata_puts_no_text_into_the_spool(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    server.answer_traces = lambda _: (503, {})
    configure(capture={"*": "metadata"})
    everything_with_a_mark(client, server)
    loopscope.flush(3.0)
    kept = spooled(tmp_path)
    assert b"claude-sonnet-4-6" in kept
    assert MARK.encode() not in kept
    loopscope.shutdown(0.5)
    assert MARK.encode() not in spooled(tmp_path)


def test_the_same_with_full_capture_holds_the_text(
    server: Server, configure: Configure, client: anthropic.Anthropic, tmp_path: Path
) -> None:
    configure()
    everything_with_a_mark(client, server)
    delivered()
    for span in server.spans():
        assert MARK.encode() in span.span.SerializeToString(), span.operation
        assert span.get("loopscope.capture") is None


def test_off_records_nothing(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(capture="off")
    everything_with_a_mark(client, server)
    client.messages.create(**ask())
    delivered()
    assert len(server.messages) == 7
    assert (server.traces, server.starts) == ([], [])
    assert loopscope.stats()["spans_recorded"] == 0


def names(server: Server) -> dict[str, list[str]]:
    """Agent -> what was recorded of its LLM calls: `text` or `metadata`."""
    found: dict[str, list[str]] = {}
    for call in server.calls():
        mode = "text" if call.get("loopscope.request.body") else call["loopscope.capture"]
        found.setdefault(call["gen_ai.agent.name"], []).append(mode)
    return found


def test_each_agent_by_its_name_and_the_nearest_wins(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure(capture={"support": "metadata", "secret": "off", "tester": "metadata"})

    def call() -> None:
        client.messages.create(**ask())

    @loopscope.agent(name="open", capture="full")
    def openly() -> None:
        call()

    @loopscope.agent
    def secret() -> None:
        call()
        openly()
        with loopscope.run("inside"):
            call()

    @loopscope.tool
    def tool() -> None:
        call()

    call()
    with loopscope.run("other"):
        call()
        with loopscope.run("support") as run:
            assert not run.content_allowed
            tool()
            with loopscope.run("below"):
                call()
            openly()
            secret()
        tool()
    delivered()
    assert names(server) == {
        "tester": ["metadata"],
        "other": ["text", "text"],
        "support": ["metadata"],
        "below": ["metadata"],
        "open": ["text", "text"],
    }
    runs = {s["loopscope.run.id"]: s for s in server.spans() if s.operation == "invoke_agent"}
    parents = [
        runs[span["loopscope.run.parent_id"]]["gen_ai.agent.name"]
        for span in runs.values()
        if span["gen_ai.agent.name"] == "open"
    ]
    assert parents == ["support", "support"], "below what is recorded around a run that is off"
    declared = [span for span in runs.values() if not span.get("loopscope.run.inferred")]
    assert len({span.span.trace_id for span in declared}) == 1


def test_a_run_that_is_off_keeps_its_behaviour(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()
    with loopscope.run("quiet", capture="off", conversation_id="c-1") as run:
        assert loopscope.current_run() is run
        assert (run.trace_id, len(run.id)) == (None, 32)
        run.event("x")
        run.outcome("partial")
        with loopscope.run("loud", capture="full"):
            client.messages.create(**ask())
    client.messages.create(**ask())
    delivered()
    assert names(server) == {"loud": ["text"], "tester": ["text"]}
    (loud,) = [
        span for span in server.spans() if span.operation == "invoke_agent" and span["gen_ai.agent.name"] == "loud"
    ]
    assert (loud.get("loopscope.run.parent_id"), loud.span.parent_span_id) == (None, b"")
    assert loud["gen_ai.conversation.id"] == "c-1"


def test_generators_and_tasks_keep_the_mode_of_their_run(
    server: Server, configure: Configure, client: anthropic.Anthropic
) -> None:
    configure()

    @loopscope.agent(name="gen", capture="off")
    def steps() -> Iterator[int]:
        for index in range(2):
            client.messages.create(**ask())
            yield index

    @loopscope.agent(name="agen", capture="metadata")
    async def steps_async() -> AsyncIterator[int]:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url, max_retries=0) as other:
            for index in range(2):
                await asyncio.gather(other.messages.create(**ask()), other.messages.create(**ask()))
                yield index

    async def consume() -> None:
        async for _ in steps_async():
            client.messages.create(**ask())

    with loopscope.run("outer"):
        for _ in steps():
            client.messages.create(**ask())
        asyncio.run(consume())
    delivered()
    assert names(server) == {"outer": ["text"] * 4, "agen": ["metadata"] * 4}


@pytest.mark.parametrize(
    ("environ", "arguments", "expected"),
    [
        ({}, {}, "full"),
        ({"LOOPSCOPE_CAPTURE": "metadata"}, {}, "metadata"),
        ({"LOOPSCOPE_CAPTURE": "OFF"}, {}, "off"),
        ({"LOOPSCOPE_CAPTURE": "a=off, *=metadata"}, {}, "metadata"),
        ({"LOOPSCOPE_CAPTURE": "a=off"}, {}, "full"),
        ({"LOOPSCOPE_CAPTURE": "nothing"}, {}, "metadata"),
        ({"LOOPSCOPE_CAPTURE": "a=none,*=full"}, {}, "metadata"),
        ({"LOOPSCOPE_CAPTURE_CONTENT": "off"}, {}, "metadata"),
        ({"LOOPSCOPE_CAPTURE_CONTENT": "off", "LOOPSCOPE_CAPTURE": "full"}, {}, "full"),
        ({"LOOPSCOPE_CAPTURE": "full"}, {"capture_content": False}, "metadata"),
        ({"LOOPSCOPE_CAPTURE": "off"}, {"capture": "full"}, "full"),
        ({}, {"capture": "off", "capture_content": True}, "off"),
        ({}, {"capture": {"a": "off"}}, "full"),
    ],
)
def test_what_wins(environ: dict[str, str], arguments: dict[str, Any], expected: str, tmp_path: Path) -> None:
    made = resolve(arguments, {"LOOPSCOPE_SPOOL_DIR": str(tmp_path), **environ})
    assert made.capture.of("b") == expected
    assert made.capture_content == (expected == "full")
    if "a=off" in environ.get("LOOPSCOPE_CAPTURE", ""):
        assert made.capture.of("a") == "off"


@pytest.mark.parametrize("wrong", ["none", True, 3, {"a": "some"}, {3: "full"}, {"": "full"}])
def test_a_wrong_argument_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(loopscope.ConfigurationError, match="capture"):
        loopscope.configure(capture=wrong, spool_dir=tmp_path)


def test_a_wrong_word_at_a_run_keeps_text_out(
    server: Server, configure: Configure, client: anthropic.Anthropic, caplog: pytest.LogCaptureFixture
) -> None:
    configure()
    wrong: Any = "metdata"
    with loopscope.run("r", capture=wrong):
        client.messages.create(**ask())
    with pytest.raises(loopscope.ConfigurationError, match="metdata"):
        loopscope.agent(capture=wrong)
    delivered()
    assert names(server) == {"r": ["metadata"]}
    assert "metdata" in caplog.text


def test_a_failing_call_off_raises_as_it_did(server: Server, configure: Configure, client: anthropic.Anthropic) -> None:
    configure(capture="off")
    server.replies = [failing(429, "rate_limit_error"), Reply(body=json.dumps(message()).encode())]
    with pytest.raises(anthropic.RateLimitError):
        client.messages.create(**ask())
    assert client.messages.create(**ask()).usage.output_tokens == 42
