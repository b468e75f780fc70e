"""Tool calls read from the message history: what the model asked for, and what the next request gave it back.

A run knows the tool uses of its answers. When a later request carries their results, each is a tool call whose time is
that between the answer and the request. One that `@loopscope.tool` (or another hook of ours) recorded as it ran is not
recorded again; it gets the model's id for it. Everything here but `results_in` runs on the worker's thread.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from loopscope_schemas import attributes as at

from . import runtime
from .capture import FULL
from .errors import UNKNOWN
from .fingerprints import blocks_of, field_of
from .jsontext import json_text
from .recording import INTERNAL, Recording

if TYPE_CHECKING:
    from .recording import Payload
    from .runs import Run

MAX_PENDING = 1_000
"""Tool uses of one run that wait for their result; of an agent that never sends results the oldest are forgotten."""
_RESULT_TYPES = ("tool_result", "mcp_tool_result")


class ToolResult(NamedTuple):
    """A result in a request: the id of its tool use, and the block by reference."""

    call_id: str
    block: Any


@dataclass(slots=True)
class ToolUse:
    """What an answer asked for."""

    call_id: str
    name: str
    input: Any
    asked_at: int
    """Unix nanoseconds: when the answer was complete."""
    turn: int
    recorded: bool = False
    """Whether the call was recorded as it ran."""


def results_in(messages: Sequence[Any]) -> list[ToolResult]:
    """The tool results since the last answer in a request's messages. Host's thread."""
    found: list[ToolResult] = []
    for message in reversed(messages):
        if isinstance(message, dict):
            role, content = message.get("role"), message.get("content")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        else:
            role, content = getattr(message, "role", None), getattr(message, "content", None)
        if role == "assistant":
            break
        if isinstance(content, str):
            continue
        for block in blocks_of(message):
            if field_of(block, "type") in _RESULT_TYPES and isinstance(id_ := field_of(block, "tool_use_id"), str):
                found.append(ToolResult(id_, block))
    found.reverse()
    return found


class ToolUses:
    """Of one run: what was asked for and has no result yet."""

    def __init__(self) -> None:
        self._pending: OrderedDict[str, ToolUse] = OrderedDict()
        self._lock = threading.RLock()
        self._failed: dict[tuple[str, bytes], int] = {}
        self._unmatched = 0
        """Tool calls that were recorded since the last results and that no tool use explains."""

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    @property
    def names(self) -> set[str]:
        """Names of the tools that are asked for."""
        with self._lock:
            return {use.name for use in self._pending.values()}

    def learn(self, message: Mapping[str, Any], asked_at: int, turn: int) -> list[str]:
        """Take in the tool uses of an answer; their ids. Again: nothing new."""
        ids: list[str] = []
        for block in blocks_of(message):
            if field_of(block, "type") != "tool_use":
                continue
            id_, name = field_of(block, "id"), field_of(block, "name")
            if not isinstance(id_, str) or not isinstance(name, str):
                continue
            ids.append(id_)
            with self._lock:
                self._pending.setdefault(id_, ToolUse(id_, name, field_of(block, "input"), asked_at, turn))
                while len(self._pending) > MAX_PENDING:
                    self._pending.popitem(last=False)
        return ids

    def matcher(self, name: str, then: Callable[[Payload], Mapping[str, Any]] | None = None) -> Any:
        """For the payload of a tool call that was recorded: completes it with the model's id of the call."""

        def complete(payload: Payload) -> Mapping[str, Any]:
            attributes = dict(then(payload)) if then is not None else {}
            if at.TOOL_CALL_ID in payload.attributes:
                self._mark(str(payload.attributes[at.TOOL_CALL_ID]))
                return attributes
            use = self._match(name, payload.texts.get(at.TOOL_CALL_ARGUMENTS))
            if use is not None:
                attributes[at.TOOL_CALL_ID] = use.call_id
            return attributes

        return complete

    def _mark(self, call_id: str) -> None:
        with self._lock:
            if (use := self._pending.get(call_id)) is not None:
                use.recorded = True

    def _match(self, name: str, arguments: bytes | None) -> ToolUse | None:
        """The tool use that a recorded call carries out: by name and arguments, by either where only one is left."""
        given = _parsed(arguments)
        with self._lock:
            free = [use for use in self._pending.values() if not use.recorded]
            named = [use for use in free if use.name == name]
            same = [use for use in named if use.input == given] or [use for use in free if use.input == given]
            found = same[0] if same else named[0] if len(named) == 1 else None
            if found is not None:
                found.recorded = True
            elif free:
                self._unmatched += 1
            return found

    def answered(self, run: Run, results: Sequence[ToolResult], until: int) -> None:
        """Record the tool calls that these results tell of, as far as nobody did; `until` is when they were sent."""
        with self._lock:
            told = [(self._pending.pop(id_, None), block) for id_, block in results]
            unmatched, self._unmatched = self._unmatched, 0
        left = [(use, block) for use, block in told if use is not None and not use.recorded]
        if unmatched and unmatched >= len(left):
            return  # recorded under other names, with other arguments: a dispatcher of the host
        for use, block in left:
            self._record(run, use, block, until)

    def _record(self, run: Run, use: ToolUse, block: Any, until: int) -> None:
        active, parent = runtime.configured(), run.scope
        if active is None or parent is None:
            return
        arguments = json_text(use.input)
        key = (use.name, arguments)
        attempt = self._failed.get(key, 0) + 1
        attributes: dict[str, Any] = {
            **run.shared_attributes,
            at.OPERATION_NAME: "execute_tool",
            at.TOOL_NAME: use.name,
            at.TOOL_TYPE: "function",
            at.TOOL_CALL_ID: use.call_id,
            at.TOOL_ATTEMPT: attempt,
            at.TOOL_INFERRED: True,
            at.TURN: use.turn,
        }
        content = (parent.capture or active.config.capture.default) == FULL
        recording = Recording(
            active.generation, f"execute_tool {use.name}", INTERNAL, parent.span, attributes, content=content
        )
        recording.start = recording.start._replace(start_time=min(use.asked_at, until))
        result = field_of(block, "content")
        payload = recording.payload
        if field_of(block, "is_error") is True:
            self._failed[key] = attempt
            payload.failed = _text_of(result)
            recording.set({at.ERROR_TYPE: "tool_error", at.ERROR_CLASS: UNKNOWN})
        else:
            self._failed.pop(key, None)
        payload.texts[at.TOOL_CALL_ARGUMENTS] = arguments
        payload.texts[at.TOOL_CALL_RESULT] = json_text(result)
        runtime.end(recording, at_time=max(until, recording.start.start_time))


def _parsed(arguments: bytes | None) -> Any:
    if arguments is None:
        return None
    try:
        return json.loads(arguments)
    except ValueError:
        return None


def _text_of(result: Any) -> str:
    if isinstance(result, str):
        return result
    texts = [field_of(block, "text") for block in cast("Sequence[Any]", result)] if isinstance(result, list) else []
    return "\n".join(text for text in texts if isinstance(text, str)) or "the tool reported an error"
