"""An agent written with claude-agent-sdk, with a tool of its own.

pip install claude-agent-sdk
"""

import asyncio
import sys
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, create_sdk_mcp_server, query, tool

import loopscope

loopscope.configure(agent="orders")


@tool("find_order", "State of an order.", {"order_id": str})
async def find_order(arguments: dict[str, Any]) -> dict[str, Any]:
    text = f"{arguments['order_id']}: an espresso machine, delivered on Friday"
    return {"content": [{"type": "text", "text": text}]}


OPTIONS = ClaudeAgentOptions(
    model="claude-sonnet-4-6",
    mcp_servers={"shop": create_sdk_mcp_server("shop", tools=[find_order])},
    allowed_tools=["mcp__shop__find_order"],
    setting_sources=[],
    max_turns=5,
)


async def answer(question: str) -> str | None:
    text = None
    async for message in query(prompt=question, options=OPTIONS):
        if isinstance(message, ResultMessage):
            text = message.result
    return text


if __name__ == "__main__":
    print(asyncio.run(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?")))
