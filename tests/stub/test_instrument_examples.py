"""The programs of "Instrument an existing agent", each run as a user runs it, and what the collector is then sent."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from journey.otlp_sink import OtlpSink
from support.sdk_features import has

from loopscope.stub import Ask, StubServer, ToolCall, Turn

EXAMPLES = Path(__file__).parents[2] / "examples/instrument"
QUESTION = "Where are my orders?"
NEEDS = {
    "langgraph_agent.py": ("langchain", "langchain_anthropic", "langgraph"),
    "otel_source.py": ("openinference.instrumentation.anthropic", "opentelemetry.exporter.otlp.proto.http"),
    "pydantic_ai_agent.py": ("pydantic_ai",),
    "pydantic_ai_otel.py": ("pydantic_ai", "opentelemetry.exporter.otlp.proto.http"),
}
TURNS = (("K-1", "K-2"), ("K-3",))


def behave(ask: Ask) -> Turn:
    """Looks at two orders at once, then at a third, then answers; a function of the request alone."""
    done = sum("K-3" in result for result in ask.tool_results)
    if done:
        return Turn(text="All three were delivered.")
    step = 1 if ask.tool_results else 0
    return Turn(tool_calls=tuple(ToolCall("find_order", {"order_id": order}) for order in TURNS[step]))


def play(example: str, stub: StubServer, sink: OtlpSink, spool: Path, *launcher: str) -> str:
    """What the program printed; the test fails when it failed."""
    stub.add_script("claude-sonnet-4-6", behave)
    environment = {
        **os.environ,
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "any",
        "LOOPSCOPE_ENDPOINT": sink.url,
        "LOOPSCOPE_SPOOL_DIR": str(spool),
        "LOOPSCOPE_EXIT_FLUSH_SECONDS": "30",
    }
    command = [sys.executable, *launcher, str(EXAMPLES / example), QUESTION]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    return done.stdout


def check(sink: OtlpSink, *, inferred_run: bool, inferred_tools: bool) -> None:
    """One run of three turns and three tool calls, each once, with everything that was said."""
    spans = sink.spans()
    runs, calls, tools = (
        [span for span in spans if span["gen_ai.operation.name"] == operation]
        for operation in ("invoke_agent", "chat", "execute_tool")
    )
    assert len(spans) == 7
    (run,) = runs
    assert run["loopscope.run.outcome"] == "completed"
    assert run.get("loopscope.run.inferred", False) is inferred_run
    assert {span["loopscope.run.id"] for span in spans} == {run["loopscope.run.id"]}
    assert sorted(call["loopscope.turn"] for call in calls) == [1, 2, 3]
    for call in calls:
        assert call["gen_ai.usage.input_tokens"] > 0
        assert call["gen_ai.usage.output_tokens"] > 0
        assert call["loopscope.cost.usd"]
    told = {json.loads(tool["gen_ai.tool.call.arguments"])["order_id"]: tool for tool in tools}
    assert {order: tool["loopscope.turn"] for order, tool in told.items()} == {"K-1": 1, "K-2": 1, "K-3": 2}
    for order, tool in told.items():
        assert f"{order}: an espresso machine" in tool["gen_ai.tool.call.result"]
        assert tool.get("loopscope.tool.inferred", False) is inferred_tools
        assert tool["gen_ai.tool.call.id"].startswith("toolu_")


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def need(example: str) -> None:
    lacking = [module for module in NEEDS[example] if not installed(module)]
    if lacking:
        pytest.skip(f"{', '.join(lacking)}: not installed, as frameworks are not in the dev group")


def test_a_plain_loop_without_a_changed_line(stub: StubServer, tmp_path: Path) -> None:
    with OtlpSink() as sink:
        printed = play("plain_loop.py", stub, sink, tmp_path, "-m", "loopscope.cli", "run", "--agent", "orders")
        assert printed == "All three were delivered.\n"
        check(sink, inferred_run=True, inferred_tools=True)


def test_a_declared_loop(stub: StubServer, tmp_path: Path) -> None:
    with OtlpSink() as sink:
        printed = play("plain_loop_declared.py", stub, sink, tmp_path)
        assert printed == "All three were delivered.\n"
        check(sink, inferred_run=False, inferred_tools=False)


@pytest.mark.skipif(not has("beta_tool"), reason="the SDK has no beta_tool")
def test_a_tool_runner(stub: StubServer, tmp_path: Path) -> None:
    with OtlpSink() as sink:
        assert play("tool_runner.py", stub, sink, tmp_path) == "All three were delivered.\n"
        check(sink, inferred_run=True, inferred_tools=True)


@pytest.mark.parametrize("example", ["langgraph_agent.py", "pydantic_ai_agent.py"])
def test_a_framework_through_the_sdk(example: str, stub: StubServer, tmp_path: Path) -> None:
    need(example)
    with OtlpSink() as sink:
        assert play(example, stub, sink, tmp_path) == "All three were delivered.\n"
        check(sink, inferred_run=False, inferred_tools=True)


@pytest.mark.parametrize(("example", "tools"), [("otel_source.py", 0), ("pydantic_ai_otel.py", 3)])
def test_spans_of_another_instrumentation(example: str, tools: int, stub: StubServer, tmp_path: Path) -> None:
    need(example)
    with OtlpSink() as sink:
        assert play(example, stub, sink, tmp_path) == "All three were delivered.\n"
        spans = sink.spans()
        ids = {span["gen_ai.response.id"] for span in spans if "gen_ai.response.id" in span}
        assert len(ids) == 3 or any("llm.model_name" in span for span in spans)
        assert len([span for span in spans if span.get("gen_ai.operation.name") == "execute_tool"]) == tools
        assert not sink.received("/loopscope/v1/starts")


def test_every_program_is_run_here_or_by_the_tests_of_its_sdk() -> None:
    """claude_agent.py drives a CLI of 400 MB: tests/instrumentation/test_claude_agent.py has agents like it."""
    tried = {"plain_loop.py", "plain_loop_declared.py", "tool_runner.py", "claude_agent.py", *NEEDS}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tried
