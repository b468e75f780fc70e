"""What the demo's agents share: a client, tool definitions from functions, and the plain agent loop.

Written as a user would write it: nothing here knows about recording. Used by the scenes only.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import anthropic
from anthropic.types import Message, MessageParam, TextBlockParam, ToolParam

MAX_TURNS: Final = 200
MAX_TOKENS: Final = 4_096

_JSON_TYPES: Final[Mapping[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean"}

Tool = Callable[..., object]


class ToolFailedError(Exception):
    """A tool could not do what it was asked; the model is told why."""


def client(script: str, session: str, **options: Any) -> anthropic.Anthropic:
    """The SDK's client; address and key come from its own environment variables.

    The header tells the stand-in which script answers; the real API passes over it.
    """
    return anthropic.Anthropic(default_headers=route(script, session), **options)


def route(script: str, session: str) -> dict[str, str]:
    """The header that chooses a script and a session of it."""
    return {"x-stub-script": f"{script}/{session}"}


def definition(tool: Tool) -> ToolParam:
    """The API's definition of a tool, from a function's name, docstring and annotations."""
    parameters = inspect.signature(tool).parameters
    properties = {name: {"type": _JSON_TYPES.get(one.annotation, "string")} for name, one in parameters.items()}
    required = [name for name, one in parameters.items() if one.default is inspect.Parameter.empty]
    return {
        "name": cast("str", getattr(tool, "__name__", "tool")),
        "description": inspect.getdoc(tool) or "",
        "input_schema": {"type": "object", "properties": properties, "required": required},
    }


def converse(
    api: anthropic.Anthropic,
    *,
    model: str,
    system: str | Sequence[TextBlockParam],
    tools: Sequence[Tool],
    messages: list[MessageParam],
    **options: Any,
) -> str:
    """Ask, run the tools that the model wants, and ask again until it has an answer. `messages` grows.

    Raises what the SDK raises, and RuntimeError after 200 turns.
    """
    by_name = {cast("str", getattr(tool, "__name__", "")): tool for tool in tools}
    definitions = [definition(tool) for tool in tools]
    request: dict[str, Any] = {"model": model, "max_tokens": MAX_TOKENS, "system": system, **options}
    if definitions:
        request["tools"] = definitions
    for _ in range(MAX_TURNS):
        answer: Message = api.messages.create(messages=messages, **request)
        messages.append({"role": "assistant", "content": content_of(answer)})
        if answer.stop_reason != "tool_use":
            return text_of(answer)
        messages.append({"role": "user", "content": run_tools(by_name, answer)})
    raise RuntimeError(f"no answer after {MAX_TURNS} turns")


def run_tools(tools: Mapping[str, Tool], answer: Message) -> list[Any]:
    """The tool results for every tool call of an answer."""
    return [run_tool(tools[block.name], block) for block in answer.content if block.type == "tool_use"]


def run_tool(tool: Tool, block: Any) -> dict[str, Any]:
    """One tool call; an expected failure becomes an error result."""
    try:
        result = tool(**block.input)
    except ToolFailedError as error:
        return {"type": "tool_result", "tool_use_id": block.id, "content": str(error), "is_error": True}
    text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return {"type": "tool_result", "tool_use_id": block.id, "content": sendable(text)}


def connection_broke(error: Exception) -> bool:
    """Whether an answer broke off midway: the SDK passes on what its HTTP library raises then."""
    return isinstance(error, anthropic.APIConnectionError) or type(error).__module__.startswith("httpx")


def text_of(answer: Message) -> str:
    """The text of an answer."""
    return "".join(block.text for block in answer.content if block.type == "text")


def content_of(answer: Message) -> Any:
    """An answer's content, to be sent back in the next request."""
    blocks = [block.to_dict(mode="json", exclude_unset=True) for block in answer.content]
    return cast("list[dict[str, Any]]", _sendable_json(blocks))


def sendable(text: str) -> str:
    """The text without lone surrogates, which have no UTF-8 and which the SDK refuses to send."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _sendable_json(value: object) -> object:
    if isinstance(value, str):
        return sendable(value)
    if isinstance(value, list):
        return [_sendable_json(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {name: _sendable_json(one) for name, one in cast("dict[str, object]", value).items()}
    return value
