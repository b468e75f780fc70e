"""The SDK's own loop, the beta tool runner: it calls the functions and sends their results by itself."""

import sys

import anthropic
from anthropic import beta_tool

import loopscope

loopscope.configure(agent="orders")


@beta_tool
def find_order(order_id: str) -> str:
    """State of an order.

    Args:
        order_id: The number on the invoice.
    """
    return f"{order_id}: an espresso machine, delivered on Friday"


def answer(question: str) -> str:
    runner = anthropic.Anthropic().beta.messages.tool_runner(
        model="claude-sonnet-4-6",
        max_tokens=1_000,
        tools=[find_order],
        messages=[{"role": "user", "content": question}],
    )
    message = runner.until_done()
    return "".join(block.text for block in message.content if block.type == "text")


if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?"))
