"""Scene: the research run that never feels done. 94 searches, each with the whole history in the request."""

from collections.abc import Mapping
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Script, Turn, call, say

AGENT: Final = "market-researcher"
MODEL: Final = "claude-opus-4-8"
SEARCHES: Final = 94
RESULT_CHARS: Final = 8_140
"""Chosen so that the run costs $47."""

SYSTEM: Final = (
    "You are a market researcher. Answer the question with a report of one page. Support each figure with at least two "
    "independent sources, resolve contradictions, and stop only when you are certain that nothing is missing."
)
QUESTION: Final = "What will the market for residential heat pumps in Europe look like in 2028?"

_DOUBTS: Final = (
    "Two of these figures do not agree; I should check one more source.",
    "This is from last year. Let me look for something newer.",
    "Good, but I have nothing on {place} yet.",
    "The sample seems small. I want to verify it with another survey.",
    "Before I write the report I should make sure about {place}.",
)
_PLACES: Final = ("Poland", "Iberia", "the Baltics", "France", "Austria", "Ireland", "the Czech Republic", "Greece")
_THEMES: Final = (
    "prices",
    "subsidies",
    "installer shortage",
    "import duties",
    "sales 2026",
    "noise rules",
    "refrigerants",
)


@loopscope.tool
def search_web(query: str, page: int = 1) -> str:
    """Search the web; gives the text of the best hit."""
    prose = Prose(f"{query} {page}")
    head = f"# {query} (page {page})\nhttps://news.example/{abs(hash_of(query)) % 90_000}\n\n"
    return head + prose.text(RESULT_CHARS - len(head))


def hash_of(text: str) -> int:
    """A number that is the same for a text on every machine."""
    return sum((position + 1) * ord(char) for position, char in enumerate(text))


def _turn(ask: Ask) -> Turn:
    if ask.step >= SEARCHES:
        return say(
            "Residential heat pumps in Europe, 2028: a report. Sales recover to about 3.1 million units, led by the "
            "Nordics and northern Italy, while prices fall by a fifth. Sources contradict each other on Iberia; I "
            "could not resolve this after ninety-four searches."
        )
    place = _PLACES[ask.step % len(_PLACES)]
    doubt = _DOUBTS[ask.step % len(_DOUBTS)].format(place=place)
    theme = _THEMES[ask.step % len(_THEMES)]
    return call("search_web", doubt, query=f"heat pump {theme} {place}", page=ask.step // 56 + 1)


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def main() -> None:
    """The agent's side: a loop with no limit on turns worth the name."""
    loopscope.configure(agent=AGENT, agent_version="0.9.0", environment="production")
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    with loopscope.run(AGENT, input=QUESTION, task_id="report-heat-pumps-2028", user_id="analyst-7") as run:
        run.final_answer = kit.converse(
            kit.client(AGENT, "heat-pumps"), model=MODEL, system=SYSTEM, tools=[search_web], messages=messages
        )
