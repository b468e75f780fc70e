"""Scene: a customer who does not exist is looked up, and looked up again three times. The error will not go away."""

from collections.abc import Mapping
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.stub import Script, call, say

AGENT: Final = "crm-assistant"
MODEL: Final = "claude-sonnet-4-6"

SYSTEM: Final = "You keep the customer records up to date. If a tool fails, try again."
QUESTION: Final = "Please add the phone number +44 20 7946 0018 to customer C-99999."

_DOUBTS: Final = (
    None,
    "The lookup failed. Let me try again.",
    "Perhaps a temporary problem; I will retry.",
    "One last attempt.",
)


@loopscope.tool
def get_customer(customer_id: str) -> dict[str, Any]:
    """Read a customer's record."""
    raise kit.ToolFailedError(f"404 customer not found: {customer_id}")


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    lookups = [call("get_customer", doubt, customer_id="C-99999") for doubt in _DOUBTS]
    return {AGENT: [*lookups, say("I could not find customer C-99999, so the phone number was not added.")]}


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=AGENT, agent_version="0.3.7", environment="staging")
    with loopscope.run(AGENT, input=QUESTION, user_id="agent-smith", conversation_id="crm-118") as run:
        run.final_answer = kit.converse(
            kit.client(AGENT, "phone"),
            model=MODEL,
            system=SYSTEM,
            tools=[get_customer],
            messages=[{"role": "user", "content": QUESTION}],
        )
        run.outcome("failed")
