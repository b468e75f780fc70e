"""Scene: recorded conversations of a real airline agent, replayed through the SDK.

The recordings are OpenAI chat messages, one conversation a line; they are not part of Loopscope. The stand-in plays the
assistant's turns, the tools return what they returned then, and the user says what the user said. A recorded tool
error is raised by the tool.
"""

import gzip
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import anthropic
from anthropic.types import ToolParam

import loopscope
from loopscope.demo import kit
from loopscope.stub import Ask, Pacing, Script, ToolCall, Turn

AGENT: Final = "airline-agent"
MODEL: Final = "claude-sonnet-4-6"
DATA_VARIABLE: Final = "LOOPSCOPE_DEMO_DATA"
"""Environment variable with the path of the recordings, for the scene's process."""
AT_ONCE: Final = 4
HAND_OVER: Final = "transfer_to_human_agents"
_FAST: Final = Pacing(latency=0.004)
"""1,200 calls must fit into the demo's minute."""

JsonDict = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """One recording: who, which trial, and its messages in OpenAI chat format."""

    number: int
    task: int
    trial: int
    messages: list[JsonDict]

    @property
    def system(self) -> str:
        """The system prompt."""
        return str(self.messages[0]["content"])

    @property
    def assistant(self) -> list[JsonDict]:
        """The assistant's messages: one LLM call each."""
        return [message for message in self.messages if message["role"] == "assistant"]

    def tool_results(self) -> dict[str, str]:
        """Tool call id -> what the tool returned."""
        return {str(one["tool_call_id"]): str(one["content"]) for one in self.messages if one["role"] == "tool"}


@cache
def conversations(path: Path) -> list[Conversation]:
    """The recordings. Raises OSError, ValueError."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [cast("JsonDict", json.loads(line)) for line in lines]
    return [Conversation(number, row["task_id"], row["trial"], row["traj"]) for number, row in enumerate(rows)]


def scripts(path: Path) -> Mapping[str, Script]:
    """The model's side: the recorded turn."""
    recorded = conversations(path)

    def turn(ask: Ask) -> Turn:
        message = recorded[int(ask.session)].assistant[ask.step]
        calls = tuple(
            ToolCall(one["function"]["name"], json.loads(one["function"]["arguments"]), one["id"])
            for one in message.get("tool_calls") or []
        )
        return Turn(text=message["content"] or None, tool_calls=calls, pacing=_FAST)

    return {AGENT: turn}


class Desk:
    """The tools of one conversation: each call returns, or raises, what it did when it was recorded."""

    def __init__(self, recorded: Conversation) -> None:
        self._results = recorded.tool_results()
        self._tools: dict[str, kit.Tool] = {}

    def call(self, name: str, call_id: str, arguments: Mapping[str, Any]) -> JsonDict:
        """The tool result block for a tool call."""

        @loopscope.tool(name=name, side_effects=name.split("_")[0] in ("book", "cancel", "update", "send"))
        def recorded_tool(**_: Any) -> str:
            text = self._results[call_id]
            if text.startswith("Error"):
                raise kit.ToolFailedError(text)
            return text

        try:
            return {"type": "tool_result", "tool_use_id": call_id, "content": recorded_tool(**arguments)}
        except kit.ToolFailedError as error:
            return {"type": "tool_result", "tool_use_id": call_id, "content": str(error), "is_error": True}


def definitions(recorded: list[Conversation]) -> list[ToolParam]:
    """Tool definitions for every tool that occurs, from the arguments it was called with."""
    properties: dict[str, dict[str, Any]] = {}
    for message in (message for one in recorded for message in one.assistant):
        for call in message.get("tool_calls") or []:
            known = properties.setdefault(call["function"]["name"], {})
            for name, value in json.loads(call["function"]["arguments"]).items():
                known.setdefault(name, {"type": _json_type(value)})
    return [
        {
            "name": name,
            "description": name.replace("_", " ").capitalize() + ".",
            "input_schema": {"type": "object", "properties": dict(sorted(known.items()))},
        }
        for name, known in sorted(properties.items())
    ]


def replay(api: anthropic.Anthropic, recorded: Conversation, tools: list[ToolParam]) -> None:
    """Run one conversation as one run of the agent."""
    desk = Desk(recorded)
    spoken = [message for message in recorded.messages if message["role"] == "user"]
    session = api.with_options(default_headers=kit.route(AGENT, str(recorded.number)))
    history: list[Any] = [{"role": "user", "content": spoken.pop(0)["content"]}]
    escalated = False
    with loopscope.run(
        AGENT,
        input=history[0]["content"],
        task_id=f"airline-{recorded.task}",
        conversation_id=f"airline-{recorded.task}-{recorded.trial}",
    ) as run:
        for _ in recorded.assistant:
            answer = session.messages.create(
                model=MODEL, max_tokens=4_096, system=recorded.system, tools=tools, messages=history
            )
            history.append({"role": "assistant", "content": kit.content_of(answer)})
            calls = [block for block in answer.content if block.type == "tool_use"]
            if calls:
                escalated = escalated or any(call.name == HAND_OVER for call in calls)
                results = [desk.call(call.name, call.id, cast("JsonDict", call.input)) for call in calls]
                history.append({"role": "user", "content": results})
            elif spoken:
                history.append({"role": "user", "content": spoken.pop(0)["content"]})
            run.final_answer = kit.text_of(answer) or run.final_answer
        if escalated:
            run.outcome("escalated")


def main() -> None:
    """The agent's side: four conversations at a time."""
    loopscope.configure(agent=AGENT, agent_version="2024.5", environment="production")
    recorded = conversations(Path(os.environ[DATA_VARIABLE]))
    tools = definitions(recorded)
    api = anthropic.Anthropic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(replay, api, one, tools) for one in recorded]:
            done.result()


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"
