"""The same loop with everything said: which function is the agent, which ones are tools, and what a run may use."""

import sys

import anthropic

import loopscope

loopscope.configure(agent="orders")

TOOLS = [
    {
        "name": "find_order",
        "description": "State of an order.",
        "input_schema": {
            "type": "object",
            "properties": {"order_id": {"type": "string"}},
            "required": ["order_id"],
        },
    }
]


@loopscope.tool
def find_order(order_id: str) -> str:
    return f"{order_id}: an espresso machine, delivered on Friday"


@loopscope.agent(name="orders", version="1.5.0", limits=loopscope.Limits.recommended(expected_turns=10))
def answer(question: str) -> str:
    client = anthropic.Anthropic()
    messages = [{"role": "user", "content": question}]
    while True:
        reply = client.messages.create(model="claude-sonnet-4-6", max_tokens=1_000, tools=TOOLS, messages=messages)
        messages.append({"role": "assistant", "content": reply.content})
        if reply.stop_reason != "tool_use":
            return "".join(block.text for block in reply.content if block.type == "text")
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": find_order(**block.input)}
            for block in reply.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})


if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?"))
    loopscope.flush(timeout=5)
    print(loopscope.stats(), file=sys.stderr)
