"""Scene: a translation run of ten documents; its process is killed with SIGKILL after five."""

import multiprocessing
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.demo.prose import Prose
from loopscope.stub import Ask, Script, Turn, call, say

AGENT: Final = "batch-translator"
MODEL: Final = "claude-sonnet-4-6"
DOCUMENTS: Final = 10
KILLED_AFTER: Final = 5
GRACE_SECONDS: Final = 2.0
"""Between the fifth turn and the kill: what is older than a second must not be lost."""

SYSTEM: Final = "You translate documents into French. Translate one document a turn and store it."


@loopscope.tool(side_effects=True)
def store_translation(document: int, text: str) -> str:
    """Store a translated document."""
    return f"document {document} stored, {len(text)} characters"


def _turn(ask: Ask) -> Turn:
    if ask.step >= DOCUMENTS:
        return say("All ten documents are translated.")
    text = f"[FR] {Prose(f'document {ask.step}').paragraph(3)}"
    return call("store_translation", document=ask.step + 1, text=text)


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def victim(parent: Connection) -> None:
    """The process that will be killed: tells `parent` when it is half way, and waits for its next document."""
    loopscope.configure(agent=AGENT, agent_version="1.0.3", environment="production")
    documents = "\n\n".join(Prose(f"document {number}").paragraph(3) for number in range(DOCUMENTS))
    messages: list[Any] = [{"role": "user", "content": f"Translate these documents:\n\n{documents}"}]
    api = kit.client(AGENT, "night-batch")
    with loopscope.run(AGENT, input={"documents": DOCUMENTS, "language": "fr"}, task_id="translation-night-batch"):
        for _ in range(KILLED_AFTER):
            answer = api.messages.create(
                model=MODEL,
                max_tokens=2_000,
                system=SYSTEM,
                tools=[kit.definition(store_translation)],
                messages=messages,
            )
            messages.append({"role": "assistant", "content": kit.content_of(answer)})
            results = kit.run_tools({"store_translation": store_translation}, answer)
            messages.append({"role": "user", "content": results})
        parent.send("half way")
        parent.recv()


def main() -> None:
    """Start the victim, wait until it is half way, kill it. Raises EOFError when it ended by itself."""
    # A fork is safe here: the scene's process has started no thread yet.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=victim, args=(theirs,))
    child.start()
    theirs.close()
    try:
        ours.recv()
        time.sleep(GRACE_SECONDS)
    finally:
        child.kill()
        child.join()
