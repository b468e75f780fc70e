"""A message as server-sent events, and back.

`events_of` cuts a message into the events of the streaming API; `assemble` puts events together again, so that the
log holds what was really sent, however early the stream ended. Pure; no network.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

JsonDict = dict[str, Any]
Event = tuple[str, JsonDict]

_PLACEHOLDER_OUTPUT_TOKENS: Final = 1
"""What `message_start` says of the output, which is not known yet."""
_DELTA_USAGE: Final = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)


def events_of(message: JsonDict, chunk_chars: int) -> list[Event]:
    """The events of a streamed message; texts in chunks of `chunk_chars` characters."""
    start_usage = {**message["usage"], "output_tokens": _PLACEHOLDER_OUTPUT_TOKENS}
    start_usage.pop("output_tokens_details", None)
    start_usage.pop("server_tool_use", None)
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": start_usage}
    events: list[Event] = [("message_start", {"type": "message_start", "message": start})]
    for index, block in enumerate(message["content"]):
        empty, deltas = _deltas(block, chunk_chars)
        events.append(("content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}))
        if index == 0:
            events.append(("ping", {"type": "ping"}))
        events.extend(
            ("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas
        )
        events.append(("content_block_stop", {"type": "content_block_stop", "index": index}))
    usage = {name: message["usage"][name] for name in _DELTA_USAGE if name in message["usage"]}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    events.append(("message_delta", {"type": "message_delta", "delta": delta, "usage": usage}))
    events.append(("message_stop", {"type": "message_stop"}))
    return events


def encode(event: Event) -> bytes:
    """One event in the wire format."""
    return b"event: " + event[0].encode() + b"\ndata: " + to_bytes(event[1]) + b"\n\n"


def to_bytes(value: object) -> bytes:
    """JSON as the API sends it: UTF-8, escaped only where a lone surrogate leaves no other way."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()


def assemble(events: Iterable[Event]) -> JsonDict | None:
    """The message that these events describe, whole or not; None before `message_start`."""
    message: JsonDict | None = None
    partial_json: dict[int, str] = {}
    for kind, data in events:
        if kind == "message_start":
            message = {**data["message"], "content": [], "usage": dict(data["message"]["usage"])}
        elif message is None:
            continue
        elif kind == "content_block_start":
            message["content"].append(dict(data["content_block"]))
        elif kind == "content_block_delta":
            _apply(message["content"][data["index"]], data["delta"], data["index"], partial_json)
        elif kind == "content_block_stop":
            text = partial_json.pop(data["index"], None)
            if text is not None:
                message["content"][data["index"]]["input"] = json.loads(text or "{}")
        elif kind == "message_delta":
            message.update(data["delta"])
            message["usage"].update(data["usage"])
    return message


def _deltas(block: JsonDict, chunk_chars: int) -> tuple[JsonDict, list[JsonDict]]:
    """(the block as it starts, its deltas)."""
    kind = block["type"]
    if kind == "text":
        deltas = [{"type": "text_delta", "text": piece} for piece in _pieces(block["text"], chunk_chars)]
        cited = [{"type": "citations_delta", "citation": one} for one in block.get("citations") or []]
        return {**block, "text": "", **({"citations": []} if cited else {})}, deltas + cited
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"], chunk_chars)]
        signature = {"type": "signature_delta", "signature": block.get("signature", "")}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signature]
    if kind in ("tool_use", "server_tool_use"):
        text = json.dumps(block["input"], ensure_ascii=False) if block["input"] else ""
        pieces = ["", *_pieces(text, chunk_chars)]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return dict(block), []


def _apply(block: JsonDict, delta: JsonDict, index: int, partial_json: dict[int, str]) -> None:
    kind = delta["type"]
    if kind == "text_delta":
        block["text"] += delta["text"]
    elif kind == "citations_delta":
        block["citations"] = [*(block.get("citations") or []), delta["citation"]]
    elif kind == "thinking_delta":
        block["thinking"] += delta["thinking"]
    elif kind == "signature_delta":
        block["signature"] = delta["signature"]
    elif kind == "input_json_delta":
        partial_json[index] = partial_json.get(index, "") + delta["partial_json"]


def _pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), max(1, size))]
