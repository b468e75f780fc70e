"""Tools over MCP: the real SDK, over memory, stdio and streamable HTTP."""

import asyncio
import importlib
import inspect
import json
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import loopscope
from loopscope._internal import guard
from loopscope._internal.mcp import client as mcp_client
from loopscope._internal.mcp import context
from loopscope._internal.mcp import server as mcp_server
from loopscope._internal.recording import SpanIds
from loopscope._internal.scope import Scope

from .conftest import Configure, delivered
from .provider_server import Recorded, Server

pytest.importorskip("mcp", reason="the MCP SDK is not installed; it is in the dev group")
from support.mcp_tools import GENERATION_2, TRANSPORTS, connected  # it imports the SDK


def of(server: Server, operation: str) -> list[Recorded]:
    found = [span for span in server.spans() if span.operation == operation]
    return sorted(found, key=lambda span: span.span.start_time_unix_nano)


def run(steps: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(steps)


def program(server: Server, tmp_path: Path) -> dict[str, str]:
    """Environment of a server in a process of its own that records."""
    return {"LOOPSCOPE_ENDPOINT": server.url, "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "server-spool")}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_counts_once_and_is_seen_from_both_ends(
    transport: str, server: Server, configure: Configure, tmp_path: Path
) -> None:
    """The client's span is the tool call; the server's is below it, in the same run; what it calls is below that."""
    configure()

    async def steps() -> str:
        async with connected(transport, **program(server, tmp_path)) as client:
            with loopscope.run("caller") as inside:
                assert not (await client.call_tool("add", {"a": 1, "b": 2})).model_dump().get("is_error")
                await client.call_tool("nested", arguments={"number": 1})
            return inside.id

    run_id = run(steps())
    delivered()
    calls = [span for span in of(server, "execute_tool") if span["gen_ai.tool.name"] != "inner"]
    (inner,) = [span for span in of(server, "execute_tool") if span["gen_ai.tool.name"] == "inner"]
    served = of(server, "serve_tool")
    assert [call["gen_ai.tool.name"] for call in calls] == ["add", "nested"]
    assert [one["gen_ai.tool.name"] for one in served] == ["add", "nested"]
    assert {span["loopscope.run.id"] for span in [*calls, *served, inner]} == {run_id}
    for call, one in zip(calls, served, strict=True):
        assert one.span.parent_span_id == call.span.span_id
        assert one.span.trace_id == call.span.trace_id
        assert json.loads(one["gen_ai.tool.call.arguments"]) == json.loads(call["gen_ai.tool.call.arguments"])
    assert inner.span.parent_span_id == served[1].span.span_id
    result = json.loads(calls[0]["gen_ai.tool.call.result"])
    assert result["content"] == [{"type": "text", "text": "3"}]
    assert result["structuredContent"] == {"result": 3}
    assert json.loads(calls[0]["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert calls[0]["gen_ai.agent.name"] == "caller"
    assert calls[0]["gen_ai.tool.type"] == "extension"
    assert calls[0]["mcp.method.name"] == served[0]["mcp.method.name"] == "tools/call"
    assert calls[0]["loopscope.mcp.server.name"] == served[0]["loopscope.mcp.server.name"] == "calc"
    assert (calls[0].span.kind, served[0].span.kind) == (3, 2)
    assert not any(span.failed for span in [*calls, *served])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_alone(transport: str, server: Server, configure: Configure, tmp_path: Path) -> None:
    """A call of a client that nobody records, or that keeps its ids to itself, is a tool call of the server."""
    configure()
    loopscope.instrument_mcp(propagate=False)

    async def steps() -> None:
        async with connected(transport, **program(server, tmp_path)) as client:
            await client.call_tool("nested", {"number": 1})

    run(steps())
    delivered()
    (call,) = [span for span in of(server, "execute_tool") if span.span.kind == 3]
    served = [span for span in server.spans() if span.span.kind == 2]
    (inner,) = [span for span in server.spans() if span.get("gen_ai.tool.name") == "inner"]
    assert len(served) == 1
    assert inner.span.parent_span_id == served[0].span.span_id
    assert inner["loopscope.run.id"] == served[0]["loopscope.run.id"]
    if served[0].operation == "execute_tool":
        assert served[0].span.trace_id != call.span.trace_id
    else:
        assert served[0].span.parent_span_id == call.span.span_id  # one process: the context itself went along
    assert served[0].operation == "execute_tool" or transport not in ("stdio", "http")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_errors_of_tools(transport: str, server: Server, configure: Configure, tmp_path: Path) -> None:
    """A tool that raises, arguments that do not fit, a tool that does not exist: an error at both ends."""
    configure()

    async def steps() -> list[bool]:
        async with connected(transport, **program(server, tmp_path)) as client:
            outcomes: list[bool] = []
            for name, arguments in (("fail", {"why": "on purpose"}), ("add", {"a": "no number"}), ("missing", {})):
                try:
                    result = await client.call_tool(name, arguments)
                except Exception:  # noqa: BLE001 - generations differ in whether a missing tool raises
                    outcomes.append(name == "missing")
                else:
                    outcomes.append(mcp_client.is_error(result))
            return outcomes

    assert run(steps()) == [True, True, True]
    delivered()
    calls, served = of(server, "execute_tool"), of(server, "serve_tool")
    assert [span["gen_ai.tool.name"] for span in calls] == ["fail", "add", "missing"]
    assert len(served) == 3
    assert all(span.failed for span in [*calls, *served])
    assert calls[0]["error.type"] == "tool_error"
    assert served[0]["error.type"] == "ValueError"  # the client is told as much as the SDK tells it, the server all
    assert served[0].span.status.message == "on purpose"
    assert [event.name for event in served[0].span.events] == ["exception"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_time_outs_and_cancelling(transport: str, server: Server, configure: Configure, tmp_path: Path) -> None:
    """The host's time-out and its cancelling reach it as they do without us, and end the span."""
    configure()
    limit: Any = 0.2 if GENERATION_2 else timedelta(seconds=0.2)

    async def steps() -> None:
        async with connected(transport, **program(server, tmp_path)) as client:
            with pytest.raises(Exception, match=r"[Tt]imed out"):
                await client.call_tool("slow", {"seconds": 30}, read_timeout_seconds=limit)
            task = asyncio.create_task(client.call_tool("slow", {"seconds": 30}))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await client.call_tool("add", {"a": 1, "b": 1})

    run(steps())
    delivered()
    timed_out, cancelled, added = [span for span in of(server, "execute_tool") if span.span.kind == 3]
    assert timed_out.failed
    assert timed_out["loopscope.error.class"] == "transient"
    assert cancelled.failed
    assert "CancelledError" in cancelled["error.type"]
    assert not added.failed


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_host_sees_what_it_would_see_without_us(
    transport: str, server: Server, configure: Configure, tmp_path: Path
) -> None:
    """Results are equal, the server's code sees no key of ours, and `undo` restores the SDK's own methods."""
    session: Any = importlib.import_module("mcp.client.session").ClientSession
    original = session.__dict__["call_tool"]
    meta = {"mine": 1}

    async def steps() -> list[Any]:
        async with connected(transport, **program(server, tmp_path)) as client:
            found = [
                await client.call_tool("add", {"a": 1, "b": 2}),
                await client.call_tool("fail", {"why": "on purpose"}),
                await client.call_tool("seen_meta", {}),
                await client.call_tool("seen_meta", {}, meta=meta),
            ]
            return [(type(result), result.model_dump()) for result in found]

    plain = run(steps())
    configure()
    assert loopscope.instrument_mcp() is loopscope.instrument_mcp()
    assert session.__dict__["call_tool"] is not original
    assert inspect.signature(session.call_tool) == inspect.signature(original)
    assert run(steps()) == plain
    assert meta == {"mine": 1}
    loopscope.instrument_mcp().undo()
    assert session.__dict__["call_tool"] is original


def test_attempts_of_the_same_call_are_counted(server: Server, configure: Configure) -> None:
    """As for every tool: the call after a failed one with the same arguments is its next attempt."""
    configure()

    async def steps() -> None:
        async with connected("memory") as client:
            with loopscope.run("caller"):
                for why in ("one", "one", "two"):
                    await client.call_tool("fail", {"why": why})

    run(steps())
    delivered()
    assert [span["loopscope.tool.attempt"] for span in of(server, "execute_tool")] == [1, 2, 1]


def test_a_low_level_server(server: Server, configure: Configure) -> None:
    """Tools that are served without FastMCP or MCPServer."""
    if not GENERATION_2:
        pytest.skip("the low-level API of generation 1 is what FastMCP uses; it is tested through that")
    types: Any = importlib.import_module("mcp_types")
    mcp: Any = importlib.import_module("mcp")
    configure()

    async def call_tool(_: Any, params: Any) -> Any:
        return types.CallToolResult(content=[types.TextContent(type="text", text=f"called {params.name}")])

    async def list_tools(*_: Any) -> Any:
        return types.ListToolsResult(tools=[types.Tool(name="any", input_schema={"type": "object"})])

    async def steps() -> None:
        async with mcp.Client(mcp.server.Server("low", on_call_tool=call_tool, on_list_tools=list_tools)) as client:
            await client.call_tool("any", {})

    run(steps())
    delivered()
    (served,) = of(server, "serve_tool")
    assert served["loopscope.mcp.server.name"] == "low"
    assert json.loads(served["gen_ai.tool.call.result"])["content"] == [{"type": "text", "text": "called any"}]


def test_a_fault_of_ours_never_reaches_the_host(
    monkeypatch: pytest.MonkeyPatch, server: Server, configure: Configure
) -> None:
    """Everything that does our work made to raise, one after the other: the results are the same."""
    configure()
    monkeypatch.setattr(guard, "reraise", False)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault of ours")

    async def steps() -> None:
        async with connected("memory") as client:
            result = await client.call_tool("add", {"a": 1, "b": 2})
            assert result.content[0].text == "3"

    for module, name in (
        (mcp_client, "open_span"),
        (mcp_client, "owner_attributes"),
        (mcp_client, "finish"),
        (mcp_client, "wire_form"),
        (mcp_server, "open_span"),
        (mcp_server, "_place"),
        (mcp_server, "finish"),
        (context, "inject"),
        (context, "without"),
    ):
        with monkeypatch.context() as one:
            one.setattr(module, name, broken)
            run(steps())
    assert loopscope.stats()["internal_errors"] >= 9


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {context.TRACEPARENT: "nonsense", context.RUN_ID: "0" * 32},
        {context.TRACEPARENT: f"00-{'0' * 32}-{'0' * 16}-01", context.RUN_ID: "1" * 32},
        {context.TRACEPARENT: 7, context.RUN_ID: ["x"]},
        {context.TRACEPARENT: f"00-{'a' * 32}-{'b' * 16}-01", context.RUN_ID: "not hex"},
        {context.TRACEPARENT: f"00-{'a' * 32}-{'b' * 16}-01"},
    ],
)
def test_what_is_no_context_of_ours_is_none(meta: Any) -> None:
    """Anybody may send anything."""
    assert context.extract(meta) is None


def test_a_context_survives_the_way() -> None:
    """In and out again; what the owner sent stays, and without ours it is as it was."""
    where = Scope(SpanIds(0xABC, 0x12), None, "f" * 32)
    sent = context.inject({"mine": 1}, where)
    assert context.extract(sent) == where
    assert context.without({"name": "t", "_meta": sent}) == {"name": "t", "_meta": {"mine": 1}}
    assert context.without({"name": "t", "_meta": context.inject(None, where)}) == {"name": "t"}
