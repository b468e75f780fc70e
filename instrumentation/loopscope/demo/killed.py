"""Scene: a translation run of ten documents; its process is killed with SIGKILL after five."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
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
READY: Final = "half way"


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


def victim() -> None:
    """The process that will be killed: says when it is half way, and then waits for its next document."""
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
        print(READY, flush=True)
        sys.stdin.read()


def main() -> None:
    """Start the victim, wait until it is half way, kill it. Raises RuntimeError when it ended by itself."""
    child = subprocess.Popen(
        [sys.executable, "-c", "from loopscope.demo import killed; killed.victim()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        if child.stdout is None or child.stdout.readline().strip() != READY:
            child.kill()
            raise RuntimeError(f"the run to be killed ended early, with exit code {child.wait()}")
        time.sleep(GRACE_SECONDS)
        child.send_signal(signal.SIGKILL)
