"""Scene: a job over 100 files that dies after 74 and is started again from the first. Two runs of one task."""

import json
from collections.abc import Mapping
from typing import Any, Final

import loopscope
from loopscope.demo import kit
from loopscope.stub import Ask, Script, ToolCall, Turn, say

AGENT: Final = "file-processor"
MODEL: Final = "claude-haiku-5-5"
FILES: Final = 100
FILES_DONE_AT_FIRST: Final = 74
FILES_A_TURN: Final = 10

SYSTEM: Final = "You convert scanned contracts. Process every file of the list once, ten at a time, then report."


class WorkerEvictedError(Exception):
    """The machine that the job ran on was taken away."""


def names() -> list[str]:
    """The files of the job."""
    return [f"contracts/2026/scan-{number:04d}.tif" for number in range(1, FILES + 1)]


@loopscope.tool(side_effects=True)
def process_file(path: str) -> dict[str, Any]:
    """Convert one scanned contract to text and file it in the archive."""
    number = int(path[-8:-4])
    return {"path": path, "pages": number % 9 + 1, "archived_as": f"A-{number:06d}", "characters": 1_800 + number * 7}


def _turn(ask: Ask) -> Turn:
    files: list[str] = json.loads(str(ask.messages[0]["content"]).partition("\n")[2])
    batch = files[ask.step * FILES_A_TURN : (ask.step + 1) * FILES_A_TURN]
    if not batch:
        return say(f"All {len(files)} contracts are converted and archived.")
    return Turn(
        text=f"Processing files {ask.step * FILES_A_TURN + 1} to {ask.step * FILES_A_TURN + len(batch)}.",
        tool_calls=tuple(ToolCall("process_file", {"path": path}) for path in batch),
    )


def scripts() -> Mapping[str, Script]:
    """The model's side."""
    return {AGENT: _turn}


def _attempt(session: str, files_until_eviction: int | None) -> str:
    """One attempt at the whole job. Raises WorkerEvictedError after so many files."""
    api = kit.client(AGENT, session)
    messages: list[Any] = [{"role": "user", "content": "Process these files:\n" + json.dumps(names())}]
    done = 0
    while True:
        answer = api.messages.create(
            model=MODEL, max_tokens=2_000, system=SYSTEM, tools=[kit.definition(process_file)], messages=messages
        )
        messages.append({"role": "assistant", "content": kit.content_of(answer)})
        if answer.stop_reason != "tool_use":
            return kit.text_of(answer)
        results: list[Any] = []
        for block in answer.content:
            if block.type != "tool_use":
                continue
            if done == files_until_eviction:
                raise WorkerEvictedError(f"worker 10.4.0.17 evicted after {done} of {FILES} files")
            results.append(kit.run_tool(process_file, block))
            done += 1
        messages.append({"role": "user", "content": results})


def main() -> None:
    """The agent's side: the job, and its scheduler, which starts it again from the beginning."""
    loopscope.configure(agent=AGENT, agent_version="3.0.1", environment="production")
    for session, eviction in (("first", FILES_DONE_AT_FIRST), ("second", None)):
        try:
            with loopscope.run(AGENT, input={"files": FILES, "archive": "A"}, task_id="contracts-2026-11") as run:
                run.final_answer = _attempt(session, eviction)
        except WorkerEvictedError:
            continue
        return
