"""A streamed answer's events put together into the message they describe. Pure; worker thread.

The result is what a call without streaming would have been answered: blocks in order, deltas joined, usage merged. What
this module does not know is kept beside its block under `loopscope_deltas`, so that nothing is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

UNKNOWN_DELTAS = "loopscope_deltas"
PARTIAL_JSON = "partial_json"
"""The text of a tool's input that broke off before it was whole; `input` is then what the block began with."""

# delta type -> (field of the delta, field of the block) whose texts are joined.
_TEXT_DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "compaction_delta": ("content", "content"),
}
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


@dataclass(slots=True)
class Assembled:
    message: dict[str, Any] | None
    """None when the stream broke off before the message began."""
    finished: bool
    """Whether the provider said that the message is complete."""
    error: dict[str, Any] | None
    """The error that the provider sent inside the stream."""


def assemble(body: bytes) -> Assembled:
    """The message of a stream of server-sent events; what had arrived, if it broke off."""
    message: dict[str, Any] | None = None
    blocks: dict[int, dict[str, Any]] = {}
    texts: dict[tuple[int, str], list[str]] = {}
    finished, error = False, None
    for event in events(body):
        match event.get("type"):
            case "message_start":
                message = _object(event.get("message")) or {}
            case "content_block_start":
                blocks[_index(event, blocks)] = _object(event.get("content_block")) or {}
            case "content_block_delta":
                index = _index(event, blocks)
                _apply(blocks.setdefault(index, {}), index, _object(event.get("delta")) or {}, texts)
            case "message_delta" if message is not None:
                _merge(message, event)
            case "message_stop":
                finished = True
            case "error":
                error = _object(event.get("error")) or {}
            case _:
                pass  # ping, content_block_stop and what is to come carry nothing of the message
    if message is not None:
        _join(blocks, texts)
        message["content"] = [blocks[index] for index in sorted(blocks)]
    return Assembled(message, finished, error)


def events(body: bytes) -> Iterator[dict[str, Any]]:
    """The JSON objects of the events; one that is cut off or no JSON is passed over."""
    for chunk in _EVENT_END.split(body):
        lines = [line[5:].removeprefix(b" ") for line in chunk.splitlines() if line.startswith(b"data:")]
        if not lines:
            continue
        try:
            value = json.loads(b"\n".join(lines))
        except ValueError:
            continue
        if isinstance(value, dict):
            yield cast("dict[str, Any]", value)


def _apply(block: dict[str, Any], index: int, delta: dict[str, Any], texts: dict[tuple[int, str], list[str]]) -> None:
    kind = delta.get("type")
    if isinstance(kind, str) and kind in _TEXT_DELTAS:
        source, target = _TEXT_DELTAS[kind]
        if isinstance(text := delta.get(source), str):
            texts.setdefault((index, target), []).append(text)
    elif kind == "input_json_delta":
        texts.setdefault((index, PARTIAL_JSON), []).append(str(delta.get("partial_json", "")))
    elif kind == "citations_delta":
        if not isinstance(block.get("citations"), list):
            block["citations"] = []
        block["citations"].append(delta.get("citation"))
    else:
        block.setdefault(UNKNOWN_DELTAS, []).append(delta)


def _join(blocks: dict[int, dict[str, Any]], texts: dict[tuple[int, str], list[str]]) -> None:
    for (index, name), parts in texts.items():
        block, text = blocks[index], "".join(parts)
        if name != PARTIAL_JSON:
            begun = block.get(name)
            block[name] = (begun if isinstance(begun, str) else "") + text
            continue
        if not text:
            continue
        try:
            block["input"] = json.loads(text)
        except ValueError:
            block[PARTIAL_JSON] = text


def _merge(message: dict[str, Any], event: dict[str, Any]) -> None:
    """A message_delta: its delta's fields are the message's, its usage replaces what it names."""
    message.update(_object(event.get("delta")) or {})
    usage = _object(event.get("usage")) or {}
    known = _object(message.get("usage")) or {}
    message["usage"] = known | {name: value for name, value in usage.items() if value is not None}
    for name, value in event.items():
        if name not in ("type", "delta", "usage"):
            message[name] = value


def _index(event: dict[str, Any], blocks: dict[int, dict[str, Any]]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else len(blocks)


def _object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None
