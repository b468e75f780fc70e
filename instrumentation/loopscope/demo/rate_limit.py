"""Scene: a report of ten steps meets a rate limit after step 7, four times. 28 steps are run, 21 of them again."""

from collections.abc import Mapping
from typing import Any, Final

import anthropic

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Fault, Script, Turn, call, say

AGENT: Final = "report-builder"
MODEL: Final = "claude-sonnet-5-5"
STEPS: Final = (
    "load the sales figures",
    "load the returns",
    "join both by region",
    "remove test orders",
    "compute margins",
    "compare with the forecast",
    "draft the summary",
    "draw the charts",
    "check the numbers",
    "send the report",
)
LIMIT_AFTER: Final = 7
ATTEMPTS: Final = 4

SYSTEM: Final = "You build the weekly sales report in ten steps. Do one step at a time, in the order given."


@loopscope.tool
def run_step(number: int, what: str) -> str:
    """Run one step of the report."""
    return f"step {number} ({what}) done. " + Prose(f"report {number}").paragraph(4)


def _turn(ask: Ask) -> Turn:
    if ask.step == LIMIT_AFTER:
        return Turn(text="unreached", faults=(Fault(429, times=-1, retry_after=0.05),))
    if ask.step >= len(STEPS):
        return say("The weekly report is sent.")
    return call("run_step", f"Step {ask.step + 1} of {len(STEPS)}.", number=ask.step + 1, what=STEPS[ask.step])


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def main() -> None:
    """The agent's side: every attempt begins with step 1 again."""
    loopscope.configure(agent=AGENT, agent_version="2.2.0", environment="production")
    question = "Build the sales report for week 47:\n" + "\n".join(f"{n}. {what}" for n, what in enumerate(STEPS, 1))
    for attempt in range(1, ATTEMPTS + 1):
        messages: list[Any] = [{"role": "user", "content": question}]
        try:
            with loopscope.run(AGENT, input=question, task_id="sales-report-2026-w47") as run:
                run.final_answer = kit.converse(
                    kit.client(AGENT, f"attempt-{attempt}", max_retries=1),
                    model=MODEL,
                    system=SYSTEM,
                    tools=[run_step],
                    messages=messages,
                )
        except anthropic.RateLimitError:
            continue
