"""Scene: 100 e-mails of 500 tokens are sorted, eight at a time. 30 of them carry a PDF of 5,000 tokens."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final

import anthropic

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose, invoice_pdf
from loopscope.stub import Ask, Script, Turn, say

AGENT: Final = "inbox-triage"
MODEL: Final = "claude-haiku-5-5"
MAILS: Final = 100
MAILS_WITH_PDF: Final = 30
MAIL_CHARS: Final = 2_000
"""500 tokens of four characters."""
PDF_BYTES: Final = 20_000
"""5,000 tokens of four bytes."""
AT_ONCE: Final = 8

SYSTEM: Final = "Sort the e-mail: invoice, complaint, application or spam. Answer with the word and one reason."
_SENDERS: Final = (
    "billing@ostara.example",
    "j.lindqvist@kestrel.example",
    "noreply@wallbox.example",
    "hr@helio.example",
)
_KINDS: Final = ("complaint", "application", "spam")


def has_pdf(number: int) -> bool:
    """Whether the e-mail of this number (from 1) carries an invoice."""
    return number * MAILS_WITH_PDF // MAILS > (number - 1) * MAILS_WITH_PDF // MAILS


def mail(number: int) -> str:
    """The text of an e-mail."""
    head = (
        f"From: {_SENDERS[number % len(_SENDERS)]}\nTo: office@kestrel-home.example\n"
        f"Subject: {'Invoice' if has_pdf(number) else 'Your message'} no. {number}\n\n"
    )
    return head + Prose(f"mail {number}").text(MAIL_CHARS - len(head))


def _turn(ask: Ask) -> Turn:
    number = int(ask.session)
    if has_pdf(number):
        return say(f"invoice: the attached PDF 2026-{number:04d} asks for a payment.")
    return say(f"{_KINDS[number % len(_KINDS)]}: judged by its wording, no attachment.")


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


async def _sort(api: anthropic.AsyncAnthropic, number: int, turnstile: asyncio.Semaphore) -> None:
    async with turnstile:
        content: list[Any] = [{"type": "text", "text": mail(number)}]
        if has_pdf(number):
            data = base64.b64encode(invoice_pdf(number, PDF_BYTES)).decode()
            source = {"type": "base64", "media_type": "application/pdf", "data": data}
            content.append({"type": "document", "source": source})
        async with loopscope.run(AGENT, input=f"e-mail {number}", task_id=f"mail-{number:04d}") as run:
            answer = await api.messages.create(
                model=MODEL,
                max_tokens=200,
                system=SYSTEM,
                messages=[{"role": "user", "content": content}],
                extra_headers=kit.route(AGENT, str(number)),
            )
            run.final_answer = kit.text_of(answer)


async def _all() -> None:
    turnstile = asyncio.Semaphore(AT_ONCE)
    async with anthropic.AsyncAnthropic() as api:
        await asyncio.gather(*(_sort(api, number, turnstile) for number in range(1, MAILS + 1)))


def main() -> None:
    """The agent's side: one run for each e-mail, with the async client."""
    loopscope.configure(agent=AGENT, agent_version="2.0.0", environment="production")
    asyncio.run(_all())
