"""A LangGraph agent (create_agent makes the graph) whose model is langchain-anthropic, which calls the anthropic SDK.

pip install langgraph langchain langchain-anthropic
"""

import sys

from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool

import loopscope

loopscope.configure(agent="orders")


@tool
def find_order(order_id: str) -> str:
    """State of an order."""
    return f"{order_id}: an espresso machine, delivered on Friday"


graph = create_agent(ChatAnthropic(model="claude-sonnet-4-6", max_tokens=1_000), [find_order])


def answer(question: str) -> str:
    with loopscope.run("orders", input=question) as run:
        state = graph.invoke({"messages": [("user", question)]})
        run.final_answer = state["messages"][-1].text
        return run.final_answer


if __name__ == "__main__":
    print(answer(" ".join(sys.argv[1:]) or "Where is order K-88120?"))
