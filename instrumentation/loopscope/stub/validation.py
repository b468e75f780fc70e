"""What the API refuses: the shape of a request, the order of its messages, tool calls without results.

Pure: bytes in, a request dict out, or an `ApiError` with the kind of message that the API gives. Called by the app
for every request, before any script sees it. Fields that it does not know are let through: the API grows.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from loopscope.stub.errors import ApiError, invalid

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""The API refuses larger requests with 413."""
MAX_CACHE_BREAKPOINTS: Final = 4
"""Blocks with `cache_control` in one request."""
MIN_THINKING_BUDGET: Final = 1024
"""Smallest `thinking.budget_tokens`."""

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")

JsonDict = dict[str, Any]

_KINDS: Final[Mapping[str, type]] = {
    "cache_control": dict,
    "metadata": dict,
    "output_config": dict,
    "stop_sequences": list,
    "thinking": dict,
    "thread": dict,
    "tool_choice": dict,
}


def parse_request(raw: bytes) -> JsonDict:
    """The request as a dict. Raises `ApiError` 413 or 400 where the bytes are no JSON object."""
    if len(raw) > MAX_BODY_BYTES:
        raise ApiError(413, f"Request exceeds the maximum size: {len(raw)} > {MAX_BODY_BYTES} bytes")
    try:
        body: object = json.loads(raw)
    except ValueError as error:
        raise invalid(f"The request body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise invalid("The request body is not valid JSON: nested too deeply") from error
    if not isinstance(body, dict):
        raise invalid(f"The request body must be a JSON object, not {type(body).__name__}")
    if b"\\u" in raw and _LONE_SURROGATE.search(json.dumps(body, ensure_ascii=False)):
        raise invalid("The request body is not valid JSON: no low surrogate in string")
    return cast("JsonDict", body)


def validate_request(body: JsonDict, *, counting: bool = False, continues: bool = False) -> None:
    """Refuse what the API refuses.

    `counting` is the count_tokens endpoint, which takes no `max_tokens`. `continues` is a request that carries only
    the new messages of a stored thread, whose first message may answer a tool call that is not in it.
    Raises `ApiError` 400.
    """
    _require_string(body, "model")
    if not counting:
        _check_max_tokens(body)
    if not isinstance(body.get("system"), str | list | None):
        raise invalid("system: Input should be a valid string or a valid list")
    for name, kind in _KINDS.items():
        if not isinstance(body.get(name), kind | None):
            raise invalid(f"{name}: Input should be a valid {'list' if kind is list else 'dictionary'}")
    messages = _check_messages(body, may_be_empty=continues)
    _check_tools(body)
    if not continues:
        _check_tool_results(messages)
    if sum(1 for _ in cache_breakpoints(body)) > MAX_CACHE_BREAKPOINTS:
        found = sum(1 for _ in cache_breakpoints(body))
        raise invalid(f"A maximum of {MAX_CACHE_BREAKPOINTS} blocks with cache_control may be provided. Found {found}.")


def cache_breakpoints(body: Mapping[str, Any]) -> Iterator[JsonDict]:
    """Every `cache_control` of a request, in the order of the prompt."""
    for tool in body.get("tools") or []:
        if tool.get("cache_control"):
            yield tool["cache_control"]
    for block in content_blocks(body.get("system")):
        if block.get("cache_control"):
            yield block["cache_control"]
    for message in body.get("messages") or []:
        for block in content_blocks(message.get("content")):
            if block.get("cache_control"):
                yield block["cache_control"]
    if body.get("cache_control"):
        yield body["cache_control"]


def content_blocks(content: object) -> list[JsonDict]:
    """Content as a list of blocks; a plain string is one text block, anything else is none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return []
    return [block for block in cast("list[object]", content) if isinstance(block, dict)]


def _require_string(body: JsonDict, name: str) -> None:
    if name not in body:
        raise invalid(f"{name}: Field required")
    if not isinstance(body[name], str) or not body[name]:
        raise invalid(f"{name}: Input should be a valid string")


def _check_max_tokens(body: JsonDict) -> None:
    if "max_tokens" not in body:
        raise invalid("max_tokens: Field required")
    max_tokens = body["max_tokens"]
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if max_tokens < 1:
        raise invalid("max_tokens: Input should be greater than or equal to 1")
    thinking = body.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int):
            raise invalid("thinking.enabled.budget_tokens: Field required")
        if budget < MIN_THINKING_BUDGET:
            raise invalid(
                f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_BUDGET}"
            )
        if budget >= max_tokens:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_messages(body: JsonDict, *, may_be_empty: bool) -> list[JsonDict]:
    if "messages" not in body:
        raise invalid("messages: Field required")
    if not isinstance(body["messages"], list):
        raise invalid("messages: Input should be a valid list")
    messages = cast("list[JsonDict]", body["messages"])
    if not messages and not may_be_empty:
        raise invalid("messages: at least one message is required")
    for index, message in enumerate(messages):
        _check_message(index, message, last=index == len(messages) - 1)
    if messages and messages[0]["role"] != "user":
        raise invalid('messages: first message must use the "user" role')
    return messages


def _check_message(index: int, message: object, *, last: bool) -> None:
    if not isinstance(message, dict):
        raise invalid(f"messages.{index}: Input should be a valid dictionary")
    message = cast("JsonDict", message)
    role = message.get("role")
    if role == "system":
        raise invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if role not in ("user", "assistant"):
        raise invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")
    content = message.get("content")
    if content is None:
        raise invalid(f"messages.{index}.content: Field required")
    if not isinstance(content, str | list):
        raise invalid(f"messages.{index}.content: Input should be a valid string or a valid list")
    if not content and not (last and role == "assistant"):
        raise invalid(
            f"messages.{index}: all messages must have non-empty content except for the optional final assistant "
            "message"
        )
    if isinstance(content, list):
        for position, block in enumerate(cast("list[object]", content)):
            _check_block(f"messages.{index}.content.{position}", block, role)
    if last and role == "assistant":
        _check_prefill(content_blocks(content))


def _check_prefill(blocks: list[JsonDict]) -> None:
    if blocks and blocks[-1].get("type") == "text":
        text = str(blocks[-1]["text"])
        if text != text.rstrip():
            raise invalid("messages: final assistant content cannot end with trailing whitespace")


def _check_block(where: str, block: object, role: str) -> None:
    if not isinstance(block, dict):
        raise invalid(f"{where}: Input should be a valid dictionary")
    block = cast("JsonDict", block)
    kind = block.get("type")
    if not isinstance(kind, str):
        raise invalid(f"{where}.type: Field required")
    if kind == "text":
        if not isinstance(block.get("text"), str):
            raise invalid(f"{where}.text.text: Input should be a valid string")
        if not block["text"]:
            raise invalid("messages: text content blocks must be non-empty")
    elif kind == "tool_use":
        if role != "assistant":
            raise invalid(f"{where}: `tool_use` blocks can only be in `assistant` messages")
        for field, expected in (("id", str), ("name", str), ("input", dict)):
            if not isinstance(block.get(field), expected):
                raise invalid(f"{where}.tool_use.{field}: Input should be a valid {expected.__name__}")
    elif kind == "tool_result":
        if role != "user":
            raise invalid(f"{where}: `tool_result` blocks can only be in `user` messages")
        if not isinstance(block.get("tool_use_id"), str):
            raise invalid(f"{where}.tool_result.tool_use_id: Field required")
    elif kind in ("image", "document") and not isinstance(block.get("source"), dict):
        raise invalid(f"{where}.{kind}.source: Field required")


def _check_tools(body: JsonDict) -> None:
    tools = body.get("tools")
    if tools is None:
        tools = []
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names: list[str] = []
    for index, tool in enumerate(cast("list[JsonDict]", tools)):
        if not isinstance(cast("object", tool), dict):
            raise invalid(f"tools.{index}: Input should be a valid dictionary")
        kind = tool.get("type") or "custom"
        name = tool.get("name")
        if not isinstance(name, str):
            if kind == "custom":
                raise invalid(f"tools.{index}.custom.name: Field required")
            continue  # some server tools have no name
        if not _TOOL_NAME.fullmatch(name):
            raise invalid(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if kind == "custom":
            schema = tool.get("input_schema")
            if not isinstance(schema, dict):
                raise invalid(f"tools.{index}.custom.input_schema: Field required")
            if schema.get("type") != "object":
                raise invalid(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
        names.append(name)
    if len(set(names)) != len(names):
        raise invalid("tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        if not tools:
            raise invalid("tool_choice: `tool_choice` may only be specified while providing `tools`.")
        if choice.get("type") == "tool" and choice.get("name") not in names:
            raise invalid(f"Tool '{choice.get('name')}' not found in provided tools")


def _check_tool_results(messages: list[JsonDict]) -> None:
    """Each tool_use needs its tool_result in the very next message, and the other way round.

    Neighbouring messages of one role count as one, as the API merges them.
    """
    merged: list[tuple[int, str, list[JsonDict]]] = []
    for index, message in enumerate(messages):
        blocks = content_blocks(message["content"])
        if merged and merged[-1][1] == message["role"]:
            merged[-1][2].extend(blocks)
        else:
            merged.append((index, message["role"], list(blocks)))
    for position, (index, role, blocks) in enumerate(merged):
        if role == "assistant":
            following = merged[position + 1][2] if position + 1 < len(merged) else []
            answered = {block.get("tool_use_id") for block in following if block.get("type") == "tool_result"}
            asked = [str(block["id"]) for block in blocks if block.get("type") == "tool_use"]
            if len(set(asked)) != len(asked):
                raise invalid(f"messages.{index}: `tool_use` ids must be unique")
            missing = [call for call in asked if call not in answered]
            if missing:
                raise invalid(
                    f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                    f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                    "next message."
                )
            continue
        before = merged[position - 1][2] if position else []
        offered = {block.get("id") for block in before if block.get("type") == "tool_use"}
        seen: set[str] = set()
        for number, block in enumerate(blocks):
            if block.get("type") != "tool_result":
                continue
            call = str(block["tool_use_id"])
            if call not in offered:
                raise invalid(
                    f"messages.{index}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{call}. Each `tool_result` block must have a corresponding `tool_use` block in the previous "
                    "message."
                )
            if call in seen:
                raise invalid(
                    f"messages.{index}.content.{number}: each tool_use must have a single result. Found multiple "
                    f"`tool_result` blocks with id: {call}"
                )
            seen.add(call)
