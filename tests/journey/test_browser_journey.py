"""From an agent's two lines to the page that shows it: agent, collector, store and a real Chromium."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.chromium import PATIENCE_MS, chromium

from loopscope.stub import Script, StubServer, call, say

from .collector import Collector

pytestmark = [pytest.mark.browser, pytest.mark.slow]

QUESTION = "May I return the <b>kettle</b> of order W-4711? $x^2$ [click](javascript:alert(1))"
ANSWER = "The kettle of order W-4711 was delivered 40 days ago, so it is not eligible for a refund."
SCRIPT: Script = [call("find_order", "Let me look.", order_id="W-4711"), say(ANSWER)]
AGENT = """
import pathlib, sys, time
import anthropic
import loopscope

loopscope.configure(environment="test")
client = anthropic.Anthropic()
go_on = pathlib.Path(sys.argv[1])


@loopscope.tool
def find_order(order_id: str) -> dict:
    deadline = time.monotonic() + 240
    while not go_on.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return {"order_id": order_id, "delivered_days_ago": 40}


@loopscope.agent(name="returns-desk", version="3.1.0")
def answer(question: str) -> str:
    messages = [{"role": "user", "content": question}]
    tools = [{"name": "find_order", "input_schema": {"type": "object", "properties": {"order_id": {"type": "string"}}}}]
    while True:
        reply = client.messages.create(
            model="claude-sonnet-4-6", max_tokens=500, system="[[stub:journey]] You decide on returns.",
            messages=messages, tools=tools,
        )
        calls = [block for block in reply.content if block.type == "tool_use"]
        if not calls:
            return reply.content[0].text
        messages.append({"role": "assistant", "content": reply.content})
        messages.append({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": one.id, "content": str(find_order(**one.input))} for one in calls
        ]})


answer(sys.argv[2])
assert loopscope.flush(30)
"""


@pytest.fixture
def page() -> Iterator[Page]:
    """A fresh page of a fresh browser."""
    with chromium() as browser:
        found = browser.new_page(viewport={"width": 1440, "height": 1000})
        found.set_default_timeout(PATIENCE_MS)
        yield found


def test_a_run_is_seen_while_it_runs_and_read_when_it_is_done(tmp_path: Path, page: Page) -> None:
    """It appears while it runs, its page grows turn by turn, and the prompt reads exactly as it was sent."""
    program = tmp_path / "agent.py"
    program.write_text(AGENT)
    go_on = tmp_path / "go-on"
    with Collector(tmp_path / "data", dashboard=True) as collector, StubServer(scripts={"journey": SCRIPT}) as stub:
        page.goto(collector.addresses["dashboard"])
        environment = {
            "ANTHROPIC_BASE_URL": stub.url,
            "ANTHROPIC_API_KEY": "any",
            "LOOPSCOPE_ENDPOINT": collector.addresses["otlp-http"],
            "LOOPSCOPE_SPOOL_DIR": str(tmp_path / "spool"),
            "PATH": "/usr/bin:/bin",
        }
        agent = subprocess.Popen([sys.executable, str(program), str(go_on), QUESTION], env=environment)
        try:
            # Nobody reloads: the page finds the run by itself, while its tool still waits.
            expect(page.get_by_text("returns-desk").first).to_be_visible()
            expect(page.get_by_text("running", exact=True).first).to_be_visible()
            page.locator("a[href*='run=']").first.click()
            expect(page).to_have_url(re.compile(r"run=[0-9a-f]{32}"))
            expect(page.get_by_text(QUESTION, exact=True).first).to_be_visible()
            expect(page.get_by_text("unfinished").first).to_be_visible()
            expect(page.get_by_text(ANSWER, exact=True)).to_have_count(0)
            go_on.touch()
            expect(page.get_by_text(ANSWER, exact=True).first).to_be_visible()
            expect(page.get_by_text("completed", exact=True).first).to_be_visible()
            assert agent.wait(60) == 0
        finally:
            go_on.touch()
            agent.wait(60)
        # The address alone brings another reader to the same turn.
        page.goto(f"{page.url.partition('&')[0]}&turn=1")
        expect(page.get_by_text(QUESTION, exact=True).first).to_be_visible()
        expect(page.get_by_text("find_order").first).to_be_visible()
        assert collector.stop() == 0
