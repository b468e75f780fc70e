"""Scene: streamed reports. One of them falls silent for seconds in the middle, while somebody watches the screen."""

from collections.abc import Mapping
from typing import Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Pacing, Script, Turn

AGENT: Final = "report-writer"
MODEL: Final = "claude-opus-5-5"
SILENCE_SECONDS: Final = 4.0
TOPICS: Final = ("quarterly results", "warehouse fire drill", "hiring plan")


def _turn(ask: Ask) -> Turn:
    text = f"# Report: {ask.session}\n\n" + Prose(ask.session).text(2_400)
    silent = ask.session == TOPICS[0]
    pacing = Pacing(first_token=0.3, chunk_delay=0.005, silence=SILENCE_SECONDS if silent else 0.0, silence_at=0.4)
    return Turn(text=text, pacing=pacing)


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def main() -> None:
    """The agent's side: text is shown as it arrives."""
    loopscope.configure(agent=AGENT, agent_version="4.1.0", environment="production")
    for topic in TOPICS:
        question = f"Write a report on {topic}."
        with (
            loopscope.run(AGENT, input=question, user_id="reader-1") as run,
            kit.client(AGENT, topic).messages.stream(
                model=MODEL, max_tokens=4_000, messages=[{"role": "user", "content": question}]
            ) as stream,
        ):
            run.final_answer = "".join(stream.text_stream)
