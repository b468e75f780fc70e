"""A pydantic-ai agent. Its AnthropicModel calls the anthropic SDK, which Loopscope records.

pip install "pydantic-ai-slim[anthropic]"
"""

import sys

from pydantic_ai import Agent

import loopscope

loopscope.configure(agent="orders")

agent = Agent("anthropic:claude-sonnet-4-6", instructions="You are the support desk of a small shop.")


@agent.tool_plain
def find_order(order_id: str) -> str:
    """State of an order."""
    return f"{order_id}: an espresso machine, delivered on Friday"


def answer(question: str) -> str:
    with loopscope.run("orders", input=question) as run:
        run.final_answer = agent.run_sync(question).output
        return run.final_answer


if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?"))
