"""Scene: a question-and-answer bot on a model of the house's own, which no price list knows. Its cost is unknown."""

from collections.abc import Mapping
from typing import Final

import loopscope
from loopscope.demo import kit
from loopscope.stub import Ask, Script, Turn, say

AGENT: Final = "faq-bot"
MODEL: Final = "kestrel-house-7b"
QUESTIONS: Final = {
    "opening": "When are you open?",
    "recycling": "Do you take my old washing machine with you?",
    "invoice": "How do I get my invoice with a company name on it?",
    "unknown": "Which of your vacuum cleaners does the minister of finance use?",
}
_ANSWERS: Final = {
    "opening": "Monday to Saturday, nine to eighteen o'clock.",
    "recycling": "Yes, on delivery of the new one, free of charge.",
    "invoice": "Write to us within the same calendar month and we send a new one.",
    "unknown": "I do not know.",
}


def _turn(ask: Ask) -> Turn:
    return say(_ANSWERS[ask.session])


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=AGENT, agent_version="7.0.0-beta", environment="staging")
    for session, question in QUESTIONS.items():
        with loopscope.run(AGENT, input=question, conversation_id=f"faq-{session}") as run:
            run.final_answer = kit.converse(
                kit.client(AGENT, session),
                model=MODEL,
                system="Answer from the list of frequent questions, in one sentence. If it is not there, say so.",
                tools=[],
                messages=[{"role": "user", "content": question}],
            )
            if session == "unknown":
                run.outcome("partial")
