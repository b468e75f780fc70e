"""Anthropic's request and response as messages in the schema of OpenTelemetry's GenAI conventions. Pure.

Called by `genai_spans` for backends that do not know the provider's own format. What a block holds is kept: a kind that
the conventions do not name stays a part of its own kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Json = dict[str, Any]

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}
"""Anthropic's stop reasons in the conventions' words; others stand as they are."""
_RESULT = "_tool_result"
_OURS = "loopscope"
_NOT_CONTENT = {"type", "cache_control"}


def finish_reason(stop_reason: str) -> str:
    """The conventions' word for a stop reason."""
    return _FINISH.get(stop_reason, stop_reason)


def input_messages(request: Mapping[str, Any]) -> list[Json]:
    """`gen_ai.input.messages` of a request body."""
    messages = request.get("messages")
    return [_message(one) for one in _objects(messages)]


def output_messages(response: Mapping[str, Any]) -> list[Json]:
    """`gen_ai.output.messages` of a response body; empty when it is no message (an error)."""
    if response.get("type") != "message" and "content" not in response:
        return []
    found: Json = {"role": str(response.get("role") or "assistant"), "parts": parts_of(response.get("content"))}
    stop = response.get("stop_reason")
    if isinstance(stop, str):
        found["finish_reason"] = finish_reason(stop)
    return [found]


def system_instructions(request: Mapping[str, Any]) -> list[Json]:
    """`gen_ai.system_instructions` of a request body."""
    return parts_of(request.get("system"))


def tool_definitions(request: Mapping[str, Any]) -> list[Json]:
    """`gen_ai.tool.definitions` of a request body. A tool of the provider's own keeps its type."""
    found: list[Json] = []
    for tool in _objects(request.get("tools")):
        kind = tool.get("type")
        made: Json = {"type": "function" if kind in (None, "custom") else kind, "name": tool.get("name")}
        if "description" in tool:
            made["description"] = tool["description"]
        if "input_schema" in tool:
            made["parameters"] = tool["input_schema"]
        known = {"name", "description", "input_schema", *_NOT_CONTENT}
        if made["type"] != "function":
            made |= {key: value for key, value in tool.items() if key not in known}
        found.append(made)
    return found


def parts_of(content: object) -> list[Json]:
    """The parts of a message's content: a text, or a list of blocks."""
    if isinstance(content, str):
        return [_text(content)]
    found: list[Json] = []
    for block in _objects(content):
        found += _parts(block)
    return found


def _message(message: Json) -> Json:
    role = str(message.get("role") or "user")
    parts = parts_of(message.get("content"))
    if role == "user" and parts and all(part["type"] == "tool_call_response" for part in parts):
        role = "tool"
    return {"role": role, "parts": parts}


def _parts(block: Json) -> list[Json]:
    match block.get("type"):
        case "text":
            return [_text(block.get("text"))]
        case "image":
            return [_media("image", block)]
        case "document":
            return _document(block)
        case "tool_use":
            arguments = block["partial_json"] if "partial_json" in block else block.get("input")
            return [{"type": "tool_call", "id": block.get("id"), "name": block.get("name"), "arguments": arguments}]
        case "tool_result":
            content = block.get("content")
            response = content if isinstance(content, str) or content is None else parts_of(content)
            made: Json = {"type": "tool_call_response", "id": block.get("tool_use_id"), "response": response}
            if block.get("is_error"):
                made["is_error"] = True
            return [made]
        case "thinking":
            return [{"type": "reasoning", "content": block.get("thinking")}]
        case "server_tool_use" | "mcp_tool_use" as kind:
            call: Json = {"type": block.get("name") if kind == "server_tool_use" else "mcp"}
            if "server_name" in block:
                call["server_name"] = block["server_name"]
            call["arguments"] = block["partial_json"] if "partial_json" in block else block.get("input")
            name = block.get("name")
            return [{"type": "server_tool_call", "id": block.get("id"), "name": name, "server_tool_call": call}]
        case str(kind) if kind.endswith(_RESULT):
            result: Json = {"type": kind.removesuffix(_RESULT), "content": block.get("content")}
            return [
                {
                    "type": "server_tool_call_response",
                    "id": block.get("tool_use_id"),
                    "server_tool_call_response": result,
                }
            ]
        case kind:
            rest = {k: v for k, v in block.items() if k not in _NOT_CONTENT and not k.startswith(_OURS)}
            return [{"type": kind if isinstance(kind, str) else "unknown", **rest}]


def _text(text: object) -> Json:
    return {"type": "text", "content": text if isinstance(text, str) else ""}


def _document(block: Json) -> list[Json]:
    source = _object(block.get("source"))
    if source.get("type") == "text":
        return [_text(source.get("data"))]
    if source.get("type") == "content":
        return parts_of(source.get("content"))
    return [_media("document", block)]


def _media(modality: str, block: Json) -> Json:
    source = _object(block.get("source"))
    made: Json = {"modality": modality}
    if "media_type" in source:
        made["mime_type"] = source["media_type"]
    match source.get("type"):
        case "base64":
            return {"type": "blob", **made, "content": source.get("data")}
        case "url":
            return {"type": "uri", **made, "uri": source.get("url")}
        case "file":
            return {"type": "file", **made, "file_id": source.get("file_id")}
        case _:
            return {"type": modality, **made, "source": source}


def _object(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[Json]:
    return (
        [_object(item) for item in cast("list[Any]", value) if isinstance(item, dict)]
        if isinstance(value, list)
        else []
    )
