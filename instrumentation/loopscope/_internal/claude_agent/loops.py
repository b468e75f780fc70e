"""One agent's loop as the CLI tells it: messages of the model -> LLM calls, tool_use and tool_result -> tool calls.

A Loop belongs to one run: the host's turn, or a sub-agent. `session` gives it the raw messages as they arrive, on the
host's event loop; each is looked at once and its content turned into JSON text at once, since the host gets the same
objects and may change them. What the CLI does not tell (the request, the real time a request was sent) is not made up:
a call begins when the model had all its input, and a tool call when its tool_use arrived.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from loopscope._internal import runtime, scope, toolcalls
from loopscope._internal.anthropic.answers import usage_attributes
from loopscope._internal.errors import DETERMINISTIC, TRANSIENT, UNKNOWN
from loopscope._internal.jsontext import json_text
from loopscope._internal.recording import CLIENT, INTERNAL, Recording
from loopscope._internal.runs import Run
from loopscope_schemas import attributes as at

from .usage import NOTHING, Tokens, of_call

if TYPE_CHECKING:
    from loopscope._internal.runtime import Runtime

SYNTHETIC = "<synthetic>"
"""The model of messages that the CLI wrote itself: an error of the API, told as an answer."""
ERROR_CLASSES = {
    "rate_limit": TRANSIENT,
    "server_error": TRANSIENT,
    "overloaded": TRANSIENT,
    "authentication_failed": DETERMINISTIC,
    "billing_error": DETERMINISTIC,
    "invalid_request": DETERMINISTIC,
}
"""The CLI's names of errors of the API; others are unknown."""
MAX_ERROR_CHARS = 2_000
AGENT_TOOLS = ("Agent", "Task")
"""The tool that calls a sub-agent: its name now, and before."""


class _Call:
    """One message of the model, which the CLI tells block by block."""

    __slots__ = ("blocks", "head", "last", "message_id", "model", "output_known", "recording", "stop_reason", "usage")

    def __init__(self, recording: Recording, message_id: object, model: str) -> None:
        self.recording = recording
        self.message_id = message_id
        self.model = model
        self.head: dict[str, Any] = {}
        self.blocks: list[bytes] = []
        self.usage: dict[str, Any] | None = None
        self.output_known = False
        self.stop_reason: str | None = None
        self.last = time.perf_counter_ns()


class _Tool:
    """A tool call whose result is still to come."""

    __slots__ = ("agent_prompt", "attempt", "key", "name", "recording")

    def __init__(self, recording: Recording, name: str, key: tuple[str, bytes], attempt: int) -> None:
        self.recording = recording
        self.name = name
        self.key = key
        self.attempt = attempt
        self.agent_prompt: object = None


class Loop:
    """The calls of one run."""

    def __init__(self, active: Runtime, run: Run, provider: str) -> None:
        self.run = run
        self.visible: dict[str, Tokens] = {}
        """Model -> what the LLM calls told so far carry themselves."""
        self._active = active
        self._provider = provider
        self._call: _Call | None = None
        self._tools: dict[str, _Tool] = {}
        self._ready = time.perf_counter_ns()
        self.sent_at = self._ready
        """Clock (`time.perf_counter_ns()`) of the prompt."""
        self.last_ready = 0
        """The same, when the last LLM call had its input; 0 before the first."""

    # --- messages ---

    def asked(self) -> None:
        """The model has its input from now on: a prompt was sent."""
        self._ready = time.perf_counter_ns()

    def assistant(self, raw: Mapping[str, Any]) -> None:
        """A message of the model, or a part of it: the CLI sends each content block as a message of the same id."""
        message = cast("Mapping[str, Any]", raw.get("message") or {})
        model = message.get("model")
        if model == SYNTHETIC or not isinstance(model, str):
            self._api_error(raw, message)
            return
        call = self._call_of(message.get("id"), model)
        call.last = time.perf_counter_ns()
        call.head |= {name: value for name, value in message.items() if name != "content"}
        usage = message.get("usage")
        if isinstance(usage, dict) and not call.output_known:
            call.usage = dict(cast("dict[str, Any]", usage))
        if isinstance(stop := message.get("stop_reason"), str):
            call.stop_reason = stop
        for block in _blocks(message):
            call.blocks.append(json_text(block))
            if block.get("type") == "tool_use":
                self._tool_began(block)

    def partial(self, event: Mapping[str, Any], ttft_ms: object) -> None:
        """An event of the API's stream, which the CLI sends when the host asked for partial messages."""
        kind = event.get("type")
        if kind == "message_start":
            message = cast("Mapping[str, Any]", event.get("message") or {})
            if isinstance(model := message.get("model"), str):
                call = self._call_of(message.get("id"), model)
                if isinstance(ttft_ms, int | float):
                    call.recording.set({at.RESPONSE_TTFT: ttft_ms / 1000})
        elif kind == "message_delta" and self._call is not None:
            call = self._call
            call.last = time.perf_counter_ns()
            delta = event.get("delta")
            stop = cast("dict[str, Any]", delta).get("stop_reason") if isinstance(delta, dict) else None
            if isinstance(stop, str):
                call.stop_reason = stop
            usage = event.get("usage")
            # Of a message that was interrupted the CLI makes up an end: no stop reason, and the placeholder again.
            if isinstance(usage, dict) and isinstance(stop, str):
                known = {name: value for name, value in cast("dict[str, Any]", usage).items() if value is not None}
                call.usage = (call.usage or {}) | known
                call.output_known = "output_tokens" in known
        elif kind == "message_stop":
            self.end_call(broken=True)

    def user(self, raw: Mapping[str, Any]) -> list[tuple[str, object, bool]]:
        """Results of tools, or a prompt. Gives the tool calls that ended: id, content, whether it is an error."""
        message = cast("Mapping[str, Any]", raw.get("message") or {})
        results = [block for block in _blocks(message) if block.get("type") == "tool_result"]
        ended: list[tuple[str, object, bool]] = []
        for block in results:
            call_id = block.get("tool_use_id")
            if isinstance(call_id, str):
                failed = block.get("is_error") is True
                self._tool_ended(call_id, block.get("content"), failed=failed)
                ended.append((call_id, block.get("content"), failed))
        if results and not self._tools:
            self.end_call()
        self._ready = time.perf_counter_ns()
        return ended

    # --- the ends ---

    def end_call(self, stop_reason: str | None = None, *, broken: bool = False) -> None:
        """The model's message is complete, or `broken` off."""
        call, self._call = self._call, None
        if call is None:
            return
        stop = call.stop_reason or stop_reason
        attributes: dict[str, Any] = {at.COST_SOURCE: "summary"}
        if broken and stop is None:
            attributes[at.PARTIAL] = True
        if isinstance(call.message_id, str):
            attributes[at.RESPONSE_ID] = call.message_id
        if stop is not None:
            attributes[at.RESPONSE_FINISH_REASONS] = [stop]
        if call.usage is not None:
            usage = call.usage if call.output_known else _without(call.usage, "output_tokens")
            attributes |= usage_attributes(usage, output_known=call.output_known)
            used = of_call(usage, output_known=call.output_known)
            self.visible[call.model] = self.visible.get(call.model, NOTHING).plus(used)
            call.head["usage"] = usage
        if stop is not None:
            call.head["stop_reason"] = stop
        call.recording.set(attributes)
        call.recording.payload.bodies[at.RESPONSE_BODY] = _message(call)
        runtime.end(call.recording, at_time=call.recording.now(call.last))

    def close(self, *, broken: bool) -> None:
        """The loop is over. A tool call without a result broke off; so did the LLM call when the loop is `broken`."""
        self.end_call(broken=broken)
        for call_id, tool in self._tools.items():
            toolcalls.closed(call_id)
            tool.recording.set({at.PARTIAL: True})
            runtime.end(tool.recording)
        self._tools.clear()

    def prompt_of(self, call_id: str) -> object:
        """What a sub-agent was asked, by the id of the tool call that called it."""
        tool = self._tools.get(call_id)
        return tool.agent_prompt if tool is not None else None

    # --- parts ---

    def _call_of(self, message_id: object, model: str) -> _Call:
        call = self._call
        if call is not None and call.message_id == message_id:
            return call
        self.end_call()
        attributes = self._attributes("chat", self.run.next_turn())
        attributes[at.PROVIDER_NAME] = self._provider
        attributes[at.RESPONSE_MODEL] = model
        recording = self._start(f"chat {model}", CLIENT, attributes)
        recording.began(self._ready)
        self.last_ready = self._ready
        runtime.announce(recording, heartbeat=False)
        self._call = _Call(recording, message_id, model)
        return self._call

    def _api_error(self, raw: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        """The CLI gave up on a request, after its own retries; it says so in a message of its own."""
        kind = raw.get("error")
        if not isinstance(kind, str):
            return  # a word of the CLI that is no error, such as the answer to a slash command
        self.end_call()
        attributes = self._attributes("chat", self.run.next_turn()) | {at.PROVIDER_NAME: self._provider}
        recording = self._start("chat", CLIENT, attributes)
        recording.began(self._ready)
        texts = [str(block.get("text")) for block in _blocks(message) if block.get("type") == "text"]
        recording.payload.failed = "\n".join(texts)[:MAX_ERROR_CHARS] or kind
        recording.set(
            {at.ERROR_TYPE: kind, at.ERROR_CLASS: ERROR_CLASSES.get(kind, UNKNOWN), at.COST_SOURCE: "summary"}
        )
        runtime.end(recording)

    def _tool_began(self, block: Mapping[str, Any]) -> None:
        call_id, name = block.get("id"), block.get("name")
        if not isinstance(call_id, str) or not isinstance(name, str) or call_id in self._tools:
            return
        given = block.get("input")
        arguments = json_text(given)
        key = (name, hashlib.blake2b(arguments, digest_size=16).digest())
        attempt = self.run.failed_attempts.get(key, 0) + 1
        attributes = self._attributes("execute_tool", max(self.run.turn, 1))
        attributes |= {
            at.TOOL_NAME: name,
            at.TOOL_TYPE: "extension" if name.startswith("mcp__") else "function",
            at.TOOL_CALL_ID: call_id,
            at.TOOL_ATTEMPT: attempt,
            at.TOOL_INFERRED: True,
        }
        recording = self._start(f"execute_tool {name}", INTERNAL, attributes)
        recording.payload.texts[at.TOOL_CALL_ARGUMENTS] = arguments
        runtime.announce(recording, heartbeat=False)
        tool = _Tool(recording, name, key, attempt)
        if name in AGENT_TOOLS and isinstance(given, dict):
            tool.agent_prompt = cast("dict[str, Any]", given).get("prompt")
        self._tools[call_id] = tool
        toolcalls.opened(call_id, self._place(recording))

    def _tool_ended(self, call_id: str, content: object, *, failed: bool) -> None:
        toolcalls.closed(call_id)
        tool = self._tools.pop(call_id, None)
        if tool is None:
            return
        payload = tool.recording.payload
        payload.texts[at.TOOL_CALL_RESULT] = json_text(content)
        if failed:
            payload.failed = text_of(content)[:MAX_ERROR_CHARS] or "the tool failed"
            tool.recording.set({at.ERROR_TYPE: "tool_error", at.ERROR_CLASS: UNKNOWN})
            self.run.failed_attempts[tool.key] = tool.attempt
        else:
            self.run.failed_attempts.pop(tool.key, None)
        runtime.end(tool.recording)

    def _attributes(self, operation: str, turn: int) -> dict[str, Any]:
        return self.run.shared_attributes | {at.OPERATION_NAME: operation, at.TURN: turn}

    def _start(self, name: str, kind: int, attributes: dict[str, Any]) -> Recording:
        inside = self.run.scope
        return runtime.start(
            self._active,
            name,
            kind,
            inside.span if inside is not None else None,
            attributes,
            capture=inside.capture if inside is not None else None,
        )

    def _place(self, recording: Recording) -> scope.Scope:
        inside = self.run.scope
        return scope.Scope(recording.ids, self.run, self.run.id, inside.capture if inside is not None else None)


def text_of(content: object) -> str:
    """The text of a tool result: a text, or blocks of it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    blocks = [cast("dict[str, Any]", block) for block in cast("list[Any]", content) if isinstance(block, dict)]
    return "\n".join(str(block.get("text")) for block in blocks if block.get("type") == "text")


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if not isinstance(content, list):
        return []
    return [cast("dict[str, Any]", block) for block in cast("list[Any]", content) if isinstance(block, dict)]


def _message(call: _Call) -> bytes:
    """The message put together again: its fields, then the blocks in the order they came."""
    head = json_text(call.head)[:-1]
    return head + (b"," if len(head) > 1 else b"") + b'"content":[' + b",".join(call.blocks) + b"]}"


def _without(usage: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in usage.items() if key != name}
