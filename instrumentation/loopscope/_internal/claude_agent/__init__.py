"""Agents written with claude-agent-sdk, recorded from the messages of the CLI. Door: `instrument_claude_agent_sdk`.

`patching` wraps the SDK's methods and nothing else; `session` is one connection to a CLI: it opens and ends runs and
gives each message to its loop; `loops` turns the messages of one agent into LLM and tool calls; `usage` and `results`
read what the CLI reports at the end, purely. The SDK is never imported here.
"""

from .patching import instrument_claude_agent_sdk

__all__ = ["instrument_claude_agent_sdk"]
