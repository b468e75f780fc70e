"""The real CLI of claude-agent-sdk against the stand-in: options that need no key, no network and no home directory."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from loopscope.stub import Ask, Pacing, StubServer, ToolCall, Turn, call, say

MODEL = "claude-sonnet-4-6"
SCRIPT = "cli"

needs_claude_cli = pytest.mark.skipif(
    importlib.util.find_spec("claude_agent_sdk") is None,
    reason="claude-agent-sdk is not installed (its CLI is 400 MB, so it is not in the dev group); "
    "`make test-claude-agent` installs it and runs these tests",
)
"""For tests that drive the CLI."""


def sdk(module: str = "") -> Any:
    """claude-agent-sdk or a module of it; untyped, as it is not there when types are checked."""
    return importlib.import_module(f"claude_agent_sdk{module}")


def behave(ask: Ask) -> Turn:
    """What the model does, by the capital words of the prompt; the CLI writes many of its own around them."""
    said = ask.last_user_text
    if ask.tool_results:
        return say("It is " + " and ".join(result.partition("\n")[0] for result in ask.tool_results))
    if "SUBTASK" in said:
        return call("mcp__calc__add", a=5, b=6)
    if "DELEGATE" in said:
        later = "LATER" in said
        return call(
            "Agent", "I ask.", description="d", prompt="SUBTASK", subagent_type="helper", run_in_background=later
        )
    if "SLOWLY" in said:
        return say("word " * 400, pacing=Pacing(chunk_delay=0.2))
    if "ADD TWICE" in said:
        adds = (ToolCall("mcp__calc__add", {"a": 1, "b": 2}), ToolCall("mcp__calc__add", {"a": 3, "b": 4}))
        return Turn(text="Adding.", tool_calls=adds)
    if "ADD" in said:
        return call("mcp__calc__add", "Adding.", a=1, b=2)
    if "DIVIDE" in said:
        return call("mcp__calc__divide", a=1, b=0)
    return say("Fine.")


def stub_server() -> StubServer:
    """A stand-in that behaves so."""
    return StubServer(scripts={SCRIPT: behave})


def cli_options(stub: StubServer, home: Path, **more: Any) -> Any:
    """`ClaudeAgentOptions` for the CLI."""
    env = {
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": "sk-ant-of-nobody",
        "ANTHROPIC_CUSTOM_HEADERS": f"x-stub-script: {SCRIPT}",
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        **more.pop("env", {}),
    }
    settings: dict[str, Any] = {
        "env": env,
        "model": MODEL,
        "cwd": home,
        "setting_sources": [],
        "max_turns": 6,
        "allowed_tools": ["mcp__calc__add", "mcp__calc__divide"],
    }
    return sdk().ClaudeAgentOptions(**(settings | more))


def calculator(within: Any = None) -> Any:
    """An in-process MCP server with `add`, which calls `within()` as it works, and `divide`, which may raise."""
    tool, create_sdk_mcp_server = sdk().tool, sdk().create_sdk_mcp_server

    @tool("add", "Adds two numbers", {"a": int, "b": int})
    async def add(args: dict[str, Any]) -> dict[str, Any]:
        if within is not None:
            within()
        return {"content": [{"type": "text", "text": str(args["a"] + args["b"])}]}

    @tool("divide", "Divides two numbers", {"a": int, "b": int})
    async def divide(args: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": str(args["a"] / args["b"])}]}

    return create_sdk_mcp_server("calc", tools=[add, divide])
