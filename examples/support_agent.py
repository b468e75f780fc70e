"""A support agent with two tools, recorded by Loopscope.

The two lines that record it are `import loopscope` and `loopscope.configure(...)`; the decorators say which function is
the agent and which ones are tools. Run it against the real API, or without a key against the stand-in:

    loopscope up                                         # in another terminal: the collector and the dashboards
    loopscope stub --port 8089                           # in a third one, instead of the real API
    ANTHROPIC_BASE_URL=http://127.0.0.1:8089 ANTHROPIC_API_KEY=any python examples/support_agent.py
"""

import json
import sys

import anthropic

import loopscope

loopscope.configure(agent="support-example", agent_version="1.0.0", environment="development")

client = anthropic.Anthropic()
MODEL = "claude-sonnet-4-6"

TOOLS = [
    {
        "name": "find_order",
        "description": "State of an order.",
        "input_schema": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}},
            "required": ["order_id"],
        },
    },
    {
        "name": "issue_refund",
        "description": "Pay money back. Cannot be undone.",
        "input_schema": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}, "amount_eur": {"type": "number"}},
            "required": ["order_id", "amount_eur"],
        },
    },
]


@loopscope.tool
def find_order(order_id: str) -> dict:
    return {"order_id": order_id, "item": "espresso machine", "eur": 429.0, "delivered": "2026-10-04"}


@loopscope.tool(side_effects=True)
def issue_refund(order_id: str, amount_eur: float) -> dict:
    return {"order_id": order_id, "refunded_eur": amount_eur}


FUNCTIONS = {"find_order": find_order, "issue_refund": issue_refund}


@loopscope.agent(name="support-example")
def answer(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    while True:
        reply = client.messages.create(
            model=MODEL,
            max_tokens=1_000,
            system="You are the support desk of a small shop. Refunds are possible within 30 days of delivery.",
            tools=TOOLS,
            messages=messages,
        )
        messages.append({"role": "assistant", "content": reply.content})
        if reply.stop_reason != "tool_use":
            return "".join(block.text for block in reply.content if block.type == "text")
        results = []
        for block in reply.content:
            if block.type == "tool_use":
                result = FUNCTIONS[block.name](**block.input)
                results.append({"type": "tool_result", "tool_use_id": block.id, "content": json.dumps(result)})
        messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or "Where is my order K-88120?"))
