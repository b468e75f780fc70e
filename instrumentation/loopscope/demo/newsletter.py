"""Scene: a bad day of the API. Overloaded twice, then fine; a stream that breaks off and is asked for again.

The first draft uses the provider's own web search.
"""

from collections.abc import Mapping
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Fault, Pacing, Script, Turn, say

AGENT: Final = "newsletter-writer"
MODEL: Final = "claude-sonnet-5-5"

_SEARCH: Final[list[dict[str, Any]]] = [
    {"type": "text", "text": "I look for this week's news first."},
    {"type": "server_tool_use", "id": "srvtoolu_01Heat", "name": "web_search", "input": {"query": "heat pump news"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_01Heat",
        "content": [
            {
                "type": "web_search_result",
                "url": "https://news.example/heat-pumps",
                "title": "Heat pumps: second plant opens",
                "encrypted_content": "RW5jcnlwdGVk",
                "page_age": "2 days ago",
            }
        ],
    },
    {"type": "text", "text": "Draft: the second plant opens, and delivery times fall. " + Prose("draft").paragraph(3)},
]


def _turn(ask: Ask) -> Turn:
    if ask.session == "draft":
        overloaded = Fault(529, times=2, retry_after=0.05)
        return Turn(content=tuple(_SEARCH), server_tool_use={"web_search_requests": 1}, faults=(overloaded,))
    if ask.step == 0:
        return Turn(text=Prose("final").text(1_200), pacing=Pacing(break_at=0.5))
    return say(Prose("final").text(1_200))


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def _final(draft: str) -> str:
    """The streamed final text; asked for once more when the connection breaks."""
    api = kit.client(AGENT, "final")
    request: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 2_000,
        "messages": [{"role": "user", "content": f"Polish this newsletter:\n\n{draft}"}],
    }
    for attempt in (1, 2):
        try:
            with api.messages.stream(**request) as stream:
                return "".join(stream.text_stream)
        except Exception as error:
            if attempt == 2 or not kit.connection_broke(error):
                raise
    raise AssertionError("unreachable: the second attempt returns or raises")


def main() -> None:
    """The agent's side."""
    loopscope.configure(agent=AGENT, agent_version="1.8.2", environment="production")
    with loopscope.run(AGENT, input="newsletter of week 47", task_id="newsletter-w47") as run:
        draft = kit.client(AGENT, "draft", max_retries=3).messages.create(
            model=MODEL,
            max_tokens=2_000,
            tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}],
            messages=[{"role": "user", "content": "Write a short newsletter on heat pumps. Look for news first."}],
        )
        run.final_answer = _final(kit.text_of(draft))
