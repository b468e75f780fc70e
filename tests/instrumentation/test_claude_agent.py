"""Agents written with claude-agent-sdk: the real SDK, its real CLI, over HTTP against the stand-in."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from support.claude_cli import calculator, cli_options, needs_claude_cli, sdk, stub_server

import loopscope
from loopscope._internal import guard
from loopscope._internal.claude_agent.session import Session
from loopscope.stub import StubServer

from .conftest import Configure, ask, delivered
from .provider_server import Recorded, Server

pytestmark = needs_claude_cli
VOLATILE = {"uuid", "session_id", "duration_ms", "duration_api_ms", "user_message_uuid", "user_message_uuids", "data"}


@pytest.fixture
def stub() -> Iterator[StubServer]:
    with stub_server() as running:
        yield running


def of(server: Server, operation: str) -> list[Recorded]:
    found = [span for span in server.spans() if span.operation == operation]
    return sorted(found, key=lambda span: span.span.start_time_unix_nano)


async def messages(options: Any, prompt: Any = "please ADD") -> list[Any]:
    query = sdk().query

    return [message async for message in query(prompt=prompt, options=options)]


def assert_totals(server: Server, result: Any) -> None:
    """Calls and summaries together are what the CLI reported, per model, and its dollars."""
    tokens: Counter[tuple[str, str]] = Counter()
    cost = 0.0
    for span in [*of(server, "chat"), *of(server, "usage_summary")]:
        model = span["gen_ai.response.model"]
        for name, key in (("input", "input_tokens"), ("output", "output_tokens"), ("read", "cache_read.input_tokens")):
            tokens[model, name] += span.get(f"gen_ai.usage.{key}") or 0
        cost += span.get("loopscope.cost.usd") or 0.0
    for model, used in result.model_usage.items():
        inputs = used["inputTokens"] + used["cacheReadInputTokens"] + used["cacheCreationInputTokens"]
        assert tokens[model, "input"] == inputs
        assert tokens[model, "output"] == used["outputTokens"]
        assert tokens[model, "read"] == used["cacheReadInputTokens"]
    assert cost == pytest.approx(result.total_cost_usd, abs=1e-9)
    assert cost > 0


def test_a_query_is_a_run_with_calls_tools_and_what_was_reported(
    server: Server, configure: Configure, client: anthropic.Anthropic, stub: StubServer, tmp_path: Path
) -> None:
    """The tree of one query; what the host does inside a hook and a tool belongs to it."""

    configure()
    hooks: list[str | None] = []

    async def hook(given: Any, tool_use_id: Any, context: Any) -> Any:
        run = loopscope.current_run()
        hooks.append(run.id if run is not None else None)
        return {}

    def call_a_model() -> None:
        client.messages.create(**ask("inside the tool"))

    within = calculator(call_a_model)
    options = cli_options(
        stub, tmp_path, mcp_servers={"calc": within}, hooks={"PreToolUse": [sdk().HookMatcher(hooks=[hook])]}
    )
    found = asyncio.run(messages(options))
    result = found[-1]
    assert isinstance(result, sdk().ResultMessage)
    delivered()

    (run,) = of(server, "invoke_agent")
    assert run["gen_ai.agent.name"] == "tester"
    assert json.loads(run["loopscope.run.input"]) == "please ADD"
    assert json.loads(run["loopscope.run.final_answer"]) == result.result == "It is 3"
    assert run["loopscope.run.outcome"] == "completed"
    assert run["gen_ai.conversation.id"] == run["session.id"] == result.session_id
    assert json.loads(run["loopscope.run.limits"]) == {"max_turns": 6}
    assert json.loads(run["loopscope.run.config"])["model"] == "claude-sonnet-4-6"
    assert hooks == [run["loopscope.run.id"]]

    first, inside, second = of(server, "chat")
    assert [first["loopscope.turn"], second["loopscope.turn"]] == [1, 3]
    body = json.loads(first["loopscope.response.body"])
    assert [block["type"] for block in body["content"]] == ["text", "tool_use"]
    assert body["content"][1]["input"] == {"a": 1, "b": 2}
    assert "output_tokens" not in body["usage"]
    assert first["gen_ai.response.id"] == body["id"]
    assert first.get("gen_ai.usage.output_tokens") is None
    assert first["gen_ai.usage.input_tokens"] > 0
    assert first["loopscope.cost.source"] == "summary"
    assert second["gen_ai.response.finish_reasons"] == ["end_turn"]

    (tool,) = of(server, "execute_tool")
    assert tool["gen_ai.tool.name"] == "mcp__calc__add"
    assert json.loads(tool["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert json.loads(tool["gen_ai.tool.call.result"]) == [{"type": "text", "text": "3"}]
    assert tool["gen_ai.tool.call.id"] == body["content"][1]["id"]
    assert tool["loopscope.tool.inferred"] is True
    assert not tool.failed
    (served,) = of(server, "serve_tool")
    assert served.span.parent_span_id == tool.span.span_id
    assert inside.span.parent_span_id == served.span.span_id
    assert tool.span.start_time_unix_nano <= served.span.start_time_unix_nano
    assert served.span.end_time_unix_nano <= tool.span.end_time_unix_nano
    spans = [first, inside, second, tool, served, *of(server, "usage_summary")]
    assert {span["loopscope.run.id"] for span in spans} == {run["loopscope.run.id"]}
    assert {span.span.trace_id for span in spans} == {run.span.trace_id}
    (summary,) = of(server, "usage_summary")
    assert summary["loopscope.cost.usd"] == pytest.approx(result.total_cost_usd, abs=1e-9)
    assert summary["gen_ai.usage.output_tokens"] == result.model_usage["claude-sonnet-4-6"]["outputTokens"]
    assert summary["loopscope.cost.source"] == "reported"


def test_the_host_sees_what_it_would_see_without_us(configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """Types, order and content of the messages; the generator itself; and the SDK restored afterwards."""
    import inspect

    internal_client = sdk("._internal.client").InternalClient
    connection = sdk("._internal.query").Query

    owners = {
        connection: ("__init__", "_handle_control_request", "close"),
        internal_client: ("process_query",),
        sdk().ClaudeSDKClient: ("connect", "query"),
    }
    before = [owner.__dict__[name] for owner, names in owners.items() for name in names]
    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})
    plain = asyncio.run(messages(options))
    with_client = asyncio.run(_client_turns(options, ["please ADD", "hello"]))
    configure()
    assert loopscope.instrument_claude_agent_sdk() is loopscope.instrument_claude_agent_sdk()
    assert [owner.__dict__[name] for owner, names in owners.items() for name in names] != before
    recorded = asyncio.run(messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})))
    assert [comparable(message) for message in recorded] == [comparable(message) for message in plain]
    recorded_turns = asyncio.run(_client_turns(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}),
                                               ["please ADD", "hello"]))  # fmt: skip
    assert [comparable(m) for m in recorded_turns] == [comparable(m) for m in with_client]
    assert inspect.isasyncgenfunction(sdk().query)
    assert str(inspect.signature(sdk().ClaudeSDKClient.query)).startswith("(self, prompt: ")
    loopscope.instrument_claude_agent_sdk().undo()
    assert [owner.__dict__[name] for owner, names in owners.items() for name in names] == before


async def _client_turns(options: Any, prompts: list[str]) -> list[Any]:

    found: list[Any] = []
    async with sdk().ClaudeSDKClient(options) as connected:
        for prompt in prompts:
            await connected.query(prompt)
            found += [message async for message in connected.receive_response()]
    return found


def comparable(message: Any) -> Any:
    """A message without what differs from one process to the next."""
    if type(message).__name__ == "SystemMessage":
        return type(message).__name__, message.subtype

    def steady(value: Any, name: str = "") -> Any:
        if name in VOLATILE or name.endswith("_id") or name == "id":
            return "..."
        if name in ("usage", "model_usage", "total_cost_usd"):
            return type(value)  # the stand-in's cache knows the first run's prompt when the second comes
        if isinstance(value, list):
            return [steady(item) for item in value]
        if isinstance(value, dict):
            return {key: steady(item, key) for key, item in value.items()}
        if hasattr(value, "__dict__"):
            return type(value).__name__, {key: steady(item, key) for key, item in vars(value).items()}
        return value

    return steady(message)


def test_partial_messages_tell_each_calls_tokens(
    server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """With stream events output tokens, stop reasons and time to first token are known call by call."""
    configure()
    found = asyncio.run(
        messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}, include_partial_messages=True))
    )
    delivered()
    first, second = of(server, "chat")
    assert first["gen_ai.response.finish_reasons"] == ["tool_use"]
    assert second["gen_ai.response.finish_reasons"] == ["end_turn"]
    assert first["gen_ai.response.time_to_first_chunk"] > 0
    usage = found[-1].model_usage["claude-sonnet-4-6"]
    assert first["gen_ai.usage.output_tokens"] + second["gen_ai.usage.output_tokens"] == usage["outputTokens"]
    (summary,) = of(server, "usage_summary")
    assert summary["gen_ai.usage.output_tokens"] == 0
    assert_totals(server, found[-1])


def test_a_sub_agent_is_a_run_of_its_own(
    server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """Its run hangs below the tool call that called it; its calls and tools are its own; the sums hold."""

    configure()
    helper = sdk().AgentDefinition(description="Helps", prompt="You help.", tools=["mcp__calc__add"], model="haiku")
    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}, agents={"helper": helper})
    found = asyncio.run(messages(options, "DELEGATE"))
    delivered()
    main, sub = of(server, "invoke_agent")
    asked, added = of(server, "execute_tool")
    assert (asked["gen_ai.tool.name"], added["gen_ai.tool.name"]) == ("Agent", "mcp__calc__add")
    assert sub["gen_ai.agent.name"] == "helper"
    assert sub["loopscope.run.parent_id"] == main["loopscope.run.id"] == asked["loopscope.run.id"]
    assert sub.span.parent_span_id == asked.span.span_id
    assert json.loads(sub["loopscope.run.input"]) == "SUBTASK"
    assert "11" in json.loads(sub["loopscope.run.final_answer"])
    assert sub["loopscope.run.outcome"] == "completed"
    assert added["loopscope.run.id"] == sub["loopscope.run.id"]
    assert of(server, "serve_tool")[0]["loopscope.run.id"] == sub["loopscope.run.id"]
    owners = {span["gen_ai.response.model"]: span["loopscope.run.id"] for span in of(server, "chat")}
    assert owners == {"claude-sonnet-4-6": main["loopscope.run.id"], "claude-haiku-5-5": sub["loopscope.run.id"]}
    assert {span["loopscope.run.id"] for span in of(server, "usage_summary")} == {main["loopscope.run.id"]}
    assert_totals(server, found[-1])


def test_each_turn_of_a_client_is_a_run(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """One conversation, two runs; the CLI's cumulative figures are taken apart."""
    configure()

    async def turns() -> list[Any]:
        with loopscope.run("outer"):
            return await _client_turns(
                cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}), ["ADD", "hello"]
            )

    results = [m for m in asyncio.run(turns()) if type(m).__name__ == "ResultMessage"]
    delivered()
    outer, first, second = of(server, "invoke_agent")
    assert [json.loads(run["loopscope.run.input"]) for run in (first, second)] == ["ADD", "hello"]
    assert [json.loads(run["loopscope.run.final_answer"]) for run in (first, second)] == ["It is 3", "Fine."]
    assert {run["loopscope.run.parent_id"] for run in (first, second)} == {outer["loopscope.run.id"]}
    assert {run["gen_ai.conversation.id"] for run in (first, second)} == {results[0].session_id}
    assert first.span.end_time_unix_nano <= second.span.start_time_unix_nano
    assert_totals(server, results[-1])
    spent = dict.fromkeys((first["loopscope.run.id"], second["loopscope.run.id"]), 0.0)
    for summary in of(server, "usage_summary"):
        spent[summary["loopscope.run.id"]] += summary["loopscope.cost.usd"]
    assert spent[first["loopscope.run.id"]] == pytest.approx(results[0].total_cost_usd, abs=1e-9)
    (tool,) = of(server, "execute_tool")
    assert tool["loopscope.run.id"] == first["loopscope.run.id"]
    (served,) = of(server, "serve_tool")
    assert served["loopscope.run.id"] == first["loopscope.run.id"]


def test_a_resumed_session_does_not_count_twice(
    server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """The CLI's figures go on from the process before; each run has its own part of them."""
    configure()
    first = asyncio.run(messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})))[-1]
    resumed = cli_options(stub, tmp_path, resume=first.session_id, mcp_servers={"calc": calculator()})
    second = asyncio.run(messages(resumed, "hello"))[-1]
    assert second.session_id == first.session_id
    delivered()
    assert {run["gen_ai.conversation.id"] for run in of(server, "invoke_agent")} == {first.session_id}
    assert_totals(server, second)


def test_an_interrupted_turn_is_partial(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """What had arrived is kept, its output tokens are not taken for known, and the next turn is a run like any."""
    configure()

    async def turns() -> Any:
        options = cli_options(stub, tmp_path, include_partial_messages=True)
        async with sdk().ClaudeSDKClient(options) as connected:
            await connected.query("SLOWLY")
            seen = 0
            async for message in connected.receive_response():
                seen += isinstance(message, sdk().StreamEvent)
                if seen == 5:
                    await connected.interrupt()
            await connected.query("hello")
            return [message async for message in connected.receive_response()][-1]

    result = asyncio.run(turns())
    delivered()
    runs = of(server, "invoke_agent")
    assert [run["loopscope.run.outcome"] for run in runs] == ["partial", "completed"]
    broken, whole = of(server, "chat")
    assert broken["loopscope.partial"] is True
    assert broken.get("gen_ai.usage.output_tokens") is None
    assert "word" in json.loads(broken["loopscope.response.body"])["content"][0]["text"]
    assert whole.get("loopscope.partial") is None
    assert_totals(server, result)


def test_a_sub_agent_in_the_background(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """It outlives the tool call that began it, and its answer is its own."""
    configure()
    helper = sdk().AgentDefinition(description="Helps", prompt="You help.", tools=["mcp__calc__add"], model="haiku")
    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}, agents={"helper": helper})
    found = asyncio.run(messages(options, "DELEGATE LATER"))
    delivered()
    main, sub = of(server, "invoke_agent")
    begun = next(span for span in of(server, "execute_tool") if span["gen_ai.tool.name"] == "Agent")
    assert sub.span.parent_span_id == begun.span.span_id
    assert sub.span.end_time_unix_nano > begun.span.end_time_unix_nano
    assert sub["loopscope.run.outcome"] == "completed"
    assert "It is 11" in json.loads(sub["loopscope.run.final_answer"])
    assert main["loopscope.run.outcome"] == "completed"
    assert not any(span.get("loopscope.partial") for span in server.spans())
    assert_totals(server, found[-1])


def test_prompts_that_the_cli_answers_together(
    server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """Two prompts, sent before the first answer: whether the CLI merges them or not, both runs end with an answer."""
    configure()

    async def turns() -> None:
        options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})
        async with sdk().ClaudeSDKClient(options) as connected:
            await connected.query("ADD one")
            await connected.query("hello two")
            async for message in connected.receive_messages():
                if isinstance(message, sdk().ResultMessage):
                    delivered()
                    if len(of(server, "invoke_agent")) == 2:
                        return

    asyncio.run(turns())
    delivered()
    first, second = of(server, "invoke_agent")
    assert [json.loads(run["loopscope.run.input"]) for run in (first, second)] == ["ADD one", "hello two"]
    assert first["loopscope.run.outcome"] == second["loopscope.run.outcome"] == "completed"
    assert json.loads(first["loopscope.run.final_answer"]) == "It is 3"
    assert json.loads(second["loopscope.run.final_answer"]) in ("It is 3", "Fine.")


def test_a_limit_of_the_sdk(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """error_max_turns is the outcome `limit`; the exception reaches the host as it does without us."""

    configure()
    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}, max_turns=1)
    with pytest.raises(sdk().ProcessError, match="maximum number of turns"):
        asyncio.run(messages(options))
    delivered()
    (run,) = of(server, "invoke_agent")
    assert (run["loopscope.run.outcome"], run["loopscope.run.limit_hit"]) == ("limit", "max_turns")


def test_an_api_error(server: Server, configure: Configure, tmp_path: Path) -> None:
    """The run failed, and so did the call; there is no cost."""
    from loopscope.stub import Fault, say

    configure()
    failing = say("never", faults=(Fault(status=429, times=-1),))
    with StubServer(scripts={"cli": lambda _: failing}) as stub, pytest.raises(Exception, match="429"):
        asyncio.run(messages(cli_options(stub, tmp_path)))
    delivered()
    (run,) = of(server, "invoke_agent")
    assert run["loopscope.run.outcome"] == "failed"
    assert run.failed
    (call,) = of(server, "chat")
    assert call.failed
    assert (call["error.type"], call["loopscope.error.class"]) == ("rate_limit", "transient")
    assert (run["error.type"], run["loopscope.error.class"]) == ("claude_agent_sdk._errors.ResultError", "transient")


def test_a_tool_that_fails(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """is_error of a result is the tool's failure, not the run's."""
    configure()
    asyncio.run(messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()}), "DIVIDE"))
    delivered()
    (tool,) = of(server, "execute_tool")
    assert tool.failed
    assert "division by zero" in tool.span.status.message
    assert tool["error.type"] == "tool_error"
    (served,) = of(server, "serve_tool")
    assert served.failed
    assert of(server, "invoke_agent")[0]["loopscope.run.outcome"] == "completed"


@pytest.mark.parametrize("way", ["close", "break", "raise", "cancel"])
def test_a_query_that_is_left_early(
    way: str, server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """However the host stops iterating, the run ends, with what had arrived, and the host's own error is its own."""
    query = sdk().query

    configure()
    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})

    async def leave() -> None:
        steps: Any = query(prompt="please ADD", options=options)
        async for message in steps:
            if isinstance(message, sdk().AssistantMessage):
                if way == "close":
                    await steps.aclose()
                if way == "raise":
                    raise KeyError("the host's own")
                if way == "cancel":
                    task = asyncio.current_task()
                    assert task is not None
                    task.cancel()
                    continue
                break

    expected: Any = {"raise": KeyError, "cancel": asyncio.CancelledError}.get(way)
    if expected is None:
        asyncio.run(leave())
    else:
        with pytest.raises(expected):
            asyncio.run(leave())
    delivered()
    (run,) = of(server, "invoke_agent")
    assert run["loopscope.run.outcome"] == ("failed" if way == "cancel" else "partial")
    assert len(of(server, "chat")) == 1


def test_a_cli_that_is_not_there(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """The SDK's error reaches the host; the run has failed with it. The same for a client's prompt at connect."""

    configure()
    options = cli_options(stub, tmp_path, cli_path=tmp_path / "no-such-cli")
    with pytest.raises(sdk().CLIConnectionError):
        asyncio.run(messages(options))
    with pytest.raises(sdk().CLIConnectionError):
        asyncio.run(sdk().ClaudeSDKClient(options).connect("hello"))
    delivered()
    runs = of(server, "invoke_agent")
    assert [run["loopscope.run.outcome"] for run in runs] == ["failed", "failed"]
    assert "CLI" in runs[0]["error.type"]
    assert runs[0]["error.type"] == runs[1]["error.type"]


def test_a_prompt_that_is_a_stream_and_a_permission(
    server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """Messages that the host yields are the input; its code for them, and can_use_tool, run inside the run."""

    configure()
    seen: list[str | None] = []

    def note() -> None:
        run = loopscope.current_run()
        seen.append(run.id if run is not None else None)

    async def prompts() -> AsyncIterator[dict[str, Any]]:
        note()
        yield {"type": "user", "message": {"role": "user", "content": "please ADD"}, "parent_tool_use_id": None}

    async def allow(name: str, given: dict[str, Any], context: Any) -> Any:
        note()
        return sdk().PermissionResultAllow()

    options = cli_options(stub, tmp_path, mcp_servers={"calc": calculator(note)}, allowed_tools=[], can_use_tool=allow)
    found = asyncio.run(messages(options, prompts()))
    assert found[-1].result == "It is 3"
    delivered()
    (run,) = of(server, "invoke_agent")
    assert json.loads(run["loopscope.run.input"]) == ["please ADD"]
    assert seen == [run["loopscope.run.id"]] * 3


def test_queries_at_once_are_not_mixed(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """Each in a run of its own, below the run it was started in."""
    configure()

    async def one(number: int) -> None:
        with loopscope.run(f"outer-{number}"):
            home = tmp_path / str(number)
            home.mkdir()
            await messages(cli_options(stub, home, mcp_servers={"calc": calculator()}), f"ADD for {number}")

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(3)))

    asyncio.run(all_of_them())
    delivered()
    runs = {run["loopscope.run.id"]: run for run in of(server, "invoke_agent")}
    for number in range(3):
        (outer,) = [run for run in runs.values() if run["gen_ai.agent.name"] == f"outer-{number}" and not
                    run.get("loopscope.run.parent_id")]  # fmt: skip
        (inner,) = [run for run in runs.values() if run.get("loopscope.run.parent_id") == outer["loopscope.run.id"]]
        assert json.loads(inner["loopscope.run.input"]) == f"ADD for {number}"
        mine = [span.operation for span in server.spans() if span["loopscope.run.id"] == inner["loopscope.run.id"]]
        assert Counter(mine) == {
            "invoke_agent": 1, "chat": 2, "execute_tool": 1, "serve_tool": 1, "usage_summary": 1,
        }  # fmt: skip
        assert {
            span.span.trace_id for span in server.spans() if span["loopscope.run.id"] == inner["loopscope.run.id"]
        } == {outer.span.trace_id}


def test_a_fault_of_ours_never_reaches_the_host(
    monkeypatch: pytest.MonkeyPatch, server: Server, configure: Configure, stub: StubServer, tmp_path: Path
) -> None:
    """Every method that does our work made to raise: the answer is there, and the fault is counted."""
    configure()
    monkeypatch.setattr(guard, "reraise", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault of ours")

    for name in ("_begin", "_system", "_result", "_loop_of", "_retire"):
        with monkeypatch.context() as one:
            one.setattr(Session, name, broken)
            found = asyncio.run(messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})))
            assert found[-1].result == "It is 3", name
    assert loopscope.stats()["internal_errors"] > 0


def test_without_content(server: Server, configure: Configure, stub: StubServer, tmp_path: Path) -> None:
    """capture_content=False: figures and names, no text."""
    configure(capture_content=False)
    asyncio.run(messages(cli_options(stub, tmp_path, mcp_servers={"calc": calculator()})))
    delivered()
    for span in server.spans():
        assert not {
            name for name in span.attributes if name.endswith(("body", "arguments", "result", "input", "answer"))
        }
    assert of(server, "usage_summary")[0]["gen_ai.usage.output_tokens"] > 0
