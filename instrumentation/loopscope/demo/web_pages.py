"""Scene: ten web pages of 15,000 tokens each are read into one context."""

from collections.abc import Mapping
from typing import Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Script, Turn, call, say

AGENT: Final = "web-summariser"
MODEL: Final = "claude-haiku-5-5"
PAGES: Final = 10
PAGE_CHARS: Final = 60_000
"""15,000 tokens of four characters."""

SYSTEM: Final = "You read web pages in full and summarise what they have in common."
QUESTION: Final = "Summarise these ten pages on energy prices: " + ", ".join(
    f"https://energy.example/{number}" for number in range(1, PAGES + 1)
)


@loopscope.tool
def fetch_page(url: str) -> str:
    """Fetch a web page as text."""
    return Prose(url).text(PAGE_CHARS)


def _turn(ask: Ask) -> Turn:
    if ask.step < PAGES:
        return call("fetch_page", url=f"https://energy.example/{ask.step + 1}")
    return say("All ten pages expect falling prices in the Nordics, and disagree on northern Italy. " * 4)


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=AGENT, agent_version="1.0.0", environment="production")
    with loopscope.run(AGENT, input=QUESTION, user_id="analyst-3") as run:
        run.final_answer = kit.converse(
            kit.client(AGENT, "pages"),
            model=MODEL,
            system=SYSTEM,
            tools=[fetch_page],
            messages=[{"role": "user", "content": QUESTION}],
        )
