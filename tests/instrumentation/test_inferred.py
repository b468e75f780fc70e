"""Without any decorator: runs, turns and tool calls are read from the message history, and are right."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.sdk_features import needs

import loopscope
from loopscope._internal import inferred, runtime
from loopscope.stub import Ask, Fault, StubServer, ToolCall, Turn

from .agent_loops import ASYNC, LOOKUP, MODEL, STYLES, SYNC, play, possible
from .conftest import Configure, delivered
from .provider_server import Recorded, Server


def several(ask: Ask) -> Turn:
    """Two looks at once, one look, then an answer."""
    if ask.step == 0:
        return Turn(
            text="Both.", tool_calls=(ToolCall("lookup", {"key": f"{ask.session}-a"}), ToolCall("lookup", {"key": "b"}))
        )
    if ask.step == 1:
        return Turn(tool_calls=(ToolCall("lookup", {"key": f"{ask.session}-c"}),))
    return Turn(text="done")


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with StubServer() as running:
        running.add_script("several", several)
        running.add_script("chat", lambda ask: Turn(text=f"answer {ask.step} to {ask.session}"))
        running.add_script("ok", lambda _: Turn(text="ok"))
        yield running


def client_of(stub: StubServer, script: str, **more: Any) -> anthropic.Anthropic:
    settings_: dict[str, Any] = {"max_retries": 0} | more
    return anthropic.Anthropic(api_key="k", base_url=stub.url, default_headers={"x-stub-script": script}, **settings_)


def say(client: anthropic.Anthropic, messages: list[Any], **more: Any) -> Any:
    return client.messages.create(model=MODEL, max_tokens=100, messages=messages, **more)


def runs(server: Server) -> dict[str, Recorded]:
    """The last said state of each inferred run, by run id."""
    found: dict[str, Recorded] = {}
    for span in server.spans():
        if span.operation == "invoke_agent" and span.get("loopscope.run.inferred"):
            run = found.setdefault(span["loopscope.run.id"], span)
            if span.span.end_time_unix_nano > run.span.end_time_unix_nano:
                found[span["loopscope.run.id"]] = span
    return found


def tools(server: Server) -> list[Recorded]:
    return [span for span in server.spans() if span.operation == "execute_tool"]


@pytest.mark.parametrize("style", STYLES)
def test_a_bare_loop_is_one_run(style: str, stub: StubServer, server: Server, configure: Configure) -> None:
    configure()
    play(style, stub.url, "go", default_headers={"x-stub-script": "several/s"})
    delivered()
    (run,) = runs(server).values()
    calls = sorted(server.calls(), key=lambda call: call["loopscope.turn"])
    assert [call["loopscope.turn"] for call in calls] == [1, 2, 3]
    assert {call["loopscope.run.id"] for call in calls} == {run["loopscope.run.id"]}
    assert {call.span.trace_id for call in calls} == {run.span.trace_id}
    assert {call.span.parent_span_id for call in calls} == {run.span.span_id}
    assert run["loopscope.run.outcome"] == "completed"
    assert run.span.start_time_unix_nano <= calls[0].span.start_time_unix_nano
    assert run.span.end_time_unix_nano == calls[-1].span.end_time_unix_nano
    found = sorted(tools(server), key=lambda tool: (tool["loopscope.turn"], tool["gen_ai.tool.call.arguments"]))
    assert [
        (
            tool["loopscope.turn"],
            tool["gen_ai.tool.name"],
            json.loads(tool["gen_ai.tool.call.arguments"]),
            json.loads(tool["gen_ai.tool.call.result"]),
            tool["loopscope.tool.inferred"],
        )
        for tool in found
    ] == [
        (1, "lookup", {"key": "b"}, "B", True),
        (1, "lookup", {"key": "s-a"}, "S-A", True),
        (2, "lookup", {"key": "s-c"}, "S-C", True),
    ]
    for tool in found:
        asked, told = calls[tool["loopscope.turn"] - 1], calls[tool["loopscope.turn"]]
        # The time between request and result.
        assert asked.span.start_time_unix_nano < tool.span.start_time_unix_nano <= asked.span.end_time_unix_nano
        assert tool.span.end_time_unix_nano == told.span.start_time_unix_nano
        assert tool.span.parent_span_id == run.span.span_id
        asked_ids = {
            b["id"] for b in json.loads(asked["loopscope.response.body"])["content"] if b["type"] == "tool_use"
        }
        assert tool["gen_ai.tool.call.id"] in asked_ids


@given(data=st.data())
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_loops_that_go_on_at_once_do_not_mix(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    from .provider_server import running_server

    loops = data.draw(st.integers(2, 24))
    same_question = data.draw(st.booleans())
    seed = data.draw(st.integers(0, 2**32))
    with running_server() as sink, StubServer() as stub:
        stub.add_script("several", several)
        loopscope.configure(agent="t", endpoint=sink.url, spool_dir=tmp_path_factory.mktemp("spool"))
        chance = random.Random(seed)

        def question(index: int) -> str:
            return "the same" if same_question else f"question {index}"

        async def on_the_loop(indices: list[int]) -> None:
            async with anthropic.AsyncAnthropic(api_key="k", base_url=stub.url, max_retries=0) as client:

                async def one(index: int) -> None:
                    style = chance.choice(possible(ASYNC))
                    own = client.with_options(default_headers={"x-stub-script": f"several/{index}"})
                    await ASYNC[style](own, question(index))

                await asyncio.gather(*map(one, indices))

        def in_a_thread(index: int) -> None:
            with client_of(stub, f"several/{index}") as client:
                SYNC[chance.choice(possible(SYNC))](client, question(index))

        half = loops // 2
        with ThreadPoolExecutor(max_workers=6) as pool:
            threads = [pool.submit(in_a_thread, index) for index in range(half)]
            asyncio.run(on_the_loop(list(range(half, loops))))
            for thread in threads:
                thread.result()
        delivered()
        loopscope.shutdown(0.0)
        assert len(runs(sink)) == loops
        by_run: dict[str, list[Recorded]] = {}
        for call in sink.calls():
            by_run.setdefault(call["loopscope.run.id"], []).append(call)
        for run_id, calls in by_run.items():
            assert sorted(call["loopscope.turn"] for call in calls) == [1, 2, 3]
            # The marker of the loop is in the tool calls of the history that the third turn sends.
            last = max(calls, key=lambda call: call["loopscope.turn"])
            history = last["loopscope.request.body"].decode()
            markers = {
                str(json.loads(t["gen_ai.tool.call.arguments"])["key"])
                for t in tools(sink)
                if t["loopscope.run.id"] == run_id
            }
            (session,) = {marker.split("-")[0] for marker in markers if "-" in marker}
            assert f'"{session}-a"' in history
            assert f'"{session}-c"' in history
            assert len(markers) == 3


def test_a_chat_goes_on_in_its_run(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()
    with client_of(stub, "chat/c") as client:
        history: list[Any] = []
        for number in range(4):
            history.append({"role": "user", "content": f"message {number}"})
            answer = say(client, history)
            # As objects, as text, as dictionaries: hosts keep their history in every form.
            form: list[Callable[[], Any]] = [
                lambda answer=answer: answer.content,
                lambda answer=answer: answer.content[0].text,
                lambda answer=answer: [block.model_dump() for block in answer.content],
            ]
            history.append({"role": "assistant", "content": form[number % 3]()})
    delivered()
    (run,) = runs(server).values()
    assert [call["loopscope.turn"] for call in server.calls()] == [1, 2, 3, 4]
    assert run["loopscope.run.outcome"] == "completed"
    states = [s for s in server.spans() if s.operation == "invoke_agent"]
    assert len({state.span.start_time_unix_nano for state in states}) == 1, "a start is never rewritten"


def test_equal_first_calls_are_runs_of_their_own(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()
    with client_of(stub, "ok/1") as client:
        for _ in range(3):
            say(client, [{"role": "user", "content": "classify this"}])
    delivered()
    assert len(runs(server)) == 3
    assert [call["loopscope.turn"] for call in server.calls()] == [1, 1, 1]


def test_equal_chats_that_alternate_are_told_apart(stub: StubServer, server: Server, configure: Configure) -> None:
    """Same messages, same answers: each continuation is one more turn of one of them, and none gets two."""
    configure()
    with client_of(stub, "ok/1") as client:
        for text in ("one", "two", "three"):
            history: list[Any] = []
            for earlier in ("one", "two", "three")[: ("one", "two", "three").index(text)]:
                history += [{"role": "user", "content": earlier}, {"role": "assistant", "content": "ok"}]
            for _ in range(2):
                say(client, [*history, {"role": "user", "content": text}])
    delivered()
    turns = Counter(call["loopscope.run.id"] for call in server.calls())
    assert list(turns.values()) == [3, 3]


def test_a_retry_by_the_host_stays_in_the_run(stub: StubServer, server: Server, configure: Configure) -> None:
    stub.add_script("flaky", [Turn(text="at last", faults=(Fault(529, times=2),))])
    configure()
    with client_of(stub, "flaky/1") as client:
        for _ in range(2):
            with pytest.raises(anthropic.APIStatusError):
                say(client, [{"role": "user", "content": "hello"}])
        say(client, [{"role": "user", "content": "hello"}])
    delivered()
    (run,) = runs(server).values()
    assert run["loopscope.run.outcome"] == "completed"
    assert [call["loopscope.turn"] for call in server.calls()] == [1, 2, 3]


def test_a_run_that_ends_with_an_error(stub: StubServer, server: Server, configure: Configure) -> None:
    stub.add_script("broken", [Turn(text="never", faults=(Fault(400, times=-1),))])
    configure()
    with client_of(stub, "broken/1") as client, pytest.raises(anthropic.BadRequestError):
        say(client, [{"role": "user", "content": "hello"}])
    delivered()
    (run,) = runs(server).values()
    assert run["loopscope.run.outcome"] == "failed"
    assert run.failed
    assert run["error.type"] == "invalid_request_error"


def test_a_loop_that_is_left_is_partial(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()
    with client_of(stub, "several/s") as client:
        say(client, [{"role": "user", "content": "go"}], tools=[LOOKUP])
    delivered()
    assert not runs(server), "it waits for the results"
    loopscope.shutdown(10.0)
    (run,) = runs(server).values()
    assert run["loopscope.run.outcome"] == "partial"


def test_a_loop_that_is_left_in_a_server_ends_some_day(
    stub: StubServer, server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    with client_of(stub, "several/s") as client:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        answer = say(client, messages, tools=[LOOKUP])
        delivered()
        active = runtime.active()
        assert active is not None
        monkeypatch.setattr(inferred, "IDLE_SECONDS", -1.0)
        active.chains.sweep()
        active.chains.sweep()
        delivered()
        (run,) = runs(server).values()
        assert run["loopscope.run.outcome"] == "partial"
        assert len([span for span in server.spans() if span.operation == "invoke_agent"]) == 1
        # A tool call of twenty minutes is no end: the run goes on.
        results = [
            {"type": "tool_result", "tool_use_id": b.id, "content": "x"} for b in answer.content if b.type == "tool_use"
        ]
        say(
            client,
            [*messages, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}],
            tools=[LOOKUP],
        )
    delivered()
    assert len(runs(server)) == 1
    assert [call["loopscope.turn"] for call in server.calls()] == [1, 2]


def test_a_truncated_history_is_still_the_run(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()
    with client_of(stub, "several/s") as client:
        messages: list[Any] = [
            {"role": "user", "content": f"early {i}"} if i % 2 == 0 else {"role": "assistant", "content": "hm"}
            for i in range(9)
        ]
        answer = say(client, messages, tools=[LOOKUP])
        results = [
            {"type": "tool_result", "tool_use_id": b.id, "content": "x"} for b in answer.content if b.type == "tool_use"
        ]
        kept = messages[6:]
        say(
            client,
            [*kept, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}],
            tools=[LOOKUP],
        )
    delivered()
    assert len({call["loopscope.run.id"] for call in server.calls()}) == 1


def test_decorated_tools_in_a_bare_loop_are_not_told_twice(
    stub: StubServer, server: Server, configure: Configure
) -> None:
    configure()

    @loopscope.tool
    def lookup(key: str) -> str:
        return key.upper()

    with client_of(stub, "several/s") as client:
        SYNC["create"](client, "go", lookup)
    delivered()
    (run,) = runs(server).values()
    found = tools(server)
    assert len(found) == 3
    assert {tool["loopscope.run.id"] for tool in found} == {run["loopscope.run.id"]}
    assert not any(tool.get("loopscope.tool.inferred") for tool in found)
    asked = {
        block["id"]: block["input"]
        for call in server.calls()
        for block in json.loads(call["loopscope.response.body"])["content"]
        if block["type"] == "tool_use"
    }
    assert {t["gen_ai.tool.call.id"]: json.loads(t["gen_ai.tool.call.arguments"]) for t in found} == asked


@pytest.mark.parametrize("declared", [True, False])
def test_a_dispatcher_is_not_told_twice(declared: bool, stub: StubServer, server: Server, configure: Configure) -> None:
    configure()

    @loopscope.tool
    def lookup_anything(arguments: dict[str, Any]) -> str:
        return str(arguments["key"]).upper()

    def look(key: str) -> str:
        return lookup_anything({"key": key})

    def play_it() -> None:
        with client_of(stub, "several/s") as client:
            SYNC["create"](client, "go", look)

    if declared:
        with loopscope.run("r"):
            play_it()
        delivered()
        assert len(tools(server)) == 3
    else:
        # Its name explains no tool use, so nothing says whose it is: it stands for itself, beside the history's.
        play_it()
        delivered()
        assert len([tool for tool in tools(server) if tool.get("loopscope.tool.inferred")]) == 3


def test_undecorated_tools_of_a_declared_run(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()

    @loopscope.agent(name="declared")
    def agent() -> None:
        with client_of(stub, "several/s") as client:
            SYNC["stream"](client, "go")

    agent()
    delivered()
    assert not runs(server)
    (run,) = (span for span in server.spans() if span.operation == "invoke_agent")
    found = tools(server)
    assert len(found) == 3
    for tool in found:
        assert tool["loopscope.run.id"] == run["loopscope.run.id"]
        assert tool.span.parent_span_id == run.span.span_id
        assert tool["loopscope.tool.inferred"] is True


def test_failed_tools_and_their_attempts(stub: StubServer, server: Server, configure: Configure) -> None:
    stub.add_script("again", [Turn(tool_calls=(ToolCall("lookup", {"key": "x"}),))] * 3 + [Turn(text="enough")])
    configure()
    with client_of(stub, "again/1") as client:
        messages: list[Any] = [{"role": "user", "content": "go"}]
        for attempt in range(4):
            answer = say(client, messages, tools=[LOOKUP])
            messages.append({"role": "assistant", "content": answer.content})
            messages.append(
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": b.id,
                            "content": f"no {attempt}",
                            "is_error": attempt < 2,
                        }
                        for b in answer.content
                        if b.type == "tool_use"
                    ],
                }
            )
    delivered()
    found = sorted(tools(server), key=lambda tool: tool["loopscope.turn"])
    assert [(t["loopscope.tool.attempt"], t.failed, t.span.status.message) for t in found] == [
        (1, True, "no 0"),
        (2, True, "no 1"),
        (3, False, ""),
    ]
    assert found[0]["error.type"] == "tool_error"


def test_without_content_nothing_of_the_history_is_sent(stub: StubServer, server: Server, configure: Configure) -> None:
    configure(capture_content=False)
    with client_of(stub, "several/secret") as client:
        SYNC["create"](client, "a secret question")
    delivered()
    assert len(tools(server)) == 3
    sent = b"".join(request.body for request in [*server.traces, *server.starts])
    assert b"secret" not in sent


@needs("beta_tool", "beta.messages.thread")
def test_a_message_thread_is_one_run(stub: StubServer, server: Server, configure: Configure) -> None:
    configure()

    @anthropic.beta_tool
    def lookup(key: str) -> str:
        """Looks something up.

        Args:
            key: What to look up.
        """
        return key.upper()

    with client_of(stub, "several/s") as client:
        list(
            client.beta.messages.tool_runner(
                model=MODEL, max_tokens=100, tools=[lookup], messages=[{"role": "user", "content": "go"}]
            )
        )
    delivered()
    assert len(runs(server)) == 1
    assert sorted(call["loopscope.turn"] for call in server.calls()) == [1, 2, 3]
    assert len(tools(server)) == 3


def test_runs_that_may_be_continued_are_bounded(
    stub: StubServer, server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferred, "MAX_RUNS", 5)
    configure()
    with client_of(stub, "several/s") as client:
        for number in range(8):
            own = client.with_options(default_headers={"x-stub-script": f"several/{number}"})
            say(own, [{"role": "user", "content": f"go {number}"}], tools=[LOOKUP])
    delivered()
    active = runtime.active()
    assert active is not None
    held = vars(active.chains)
    assert len(held["_runs"]) == 5
    assert len(held["_by_root"]) == 5
    assert len(held["_by_call_id"]) <= 10
    assert [run["loopscope.run.outcome"] for run in runs(server).values()] == ["partial"] * 3


def test_a_run_ends_after_its_last_heartbeat(
    stub: StubServer, server: Server, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that crosses the end of the last call would have the store take the run for one that goes on."""
    from loopscope._internal import delivery, pipeline

    monkeypatch.setattr(delivery, "HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(pipeline, "COALESCE_SECONDS", 0.005)  # or calls as short as these send no marker
    configure()
    with client_of(stub, "several/s") as client:
        for number in range(20):
            own = client.with_options(default_headers={"x-stub-script": f"several/{number}"})
            SYNC["create"](own, f"go {number}")
    delivered()
    ends = {run["loopscope.run.id"]: run.span.end_time_unix_nano for run in runs(server).values()}
    beats = [marker for marker in server.markers() if marker.get("loopscope.heartbeat.at")]
    assert len(ends) == 20
    assert beats
    assert not [beat for beat in beats if beat["loopscope.heartbeat.at"] > ends[beat["loopscope.run.id"]]]


def test_a_process_that_ends_at_once_loses_nothing_of_it(
    stub: StubServer, server: Server, configure: Configure
) -> None:
    """What is found in the history is found before recording stops: a script's last tool calls, and the run's end."""
    configure()
    play("create", stub.url, "go", default_headers={"x-stub-script": "several/s"})
    assert loopscope.shutdown(30)
    (run,) = runs(server).values()
    assert run["loopscope.run.outcome"] == "completed"
    assert run.span.end_time_unix_nano
    assert sorted(tool["loopscope.turn"] for tool in tools(server)) == [1, 1, 2]


@pytest.mark.parametrize("style", ["create", "stream"])
def test_tools_called_before_a_limit_are_recorded(
    style: str, stub: StubServer, server: Server, configure: Configure
) -> None:
    """Their results stand in the request that the limit forbade."""
    configure(limits=loopscope.Limits(max_turns=1))
    play(style, stub.url, "go", default_headers={"x-stub-script": "several/s"})
    delivered()
    (run,) = runs(server).values()
    assert run["loopscope.run.limit_hit"] == "max_turns"
    assert sorted(json.loads(tool["gen_ai.tool.call.result"]) for tool in tools(server)) == ["B", "S-A"]
    assert {tool["loopscope.turn"] for tool in tools(server)} == {1}
