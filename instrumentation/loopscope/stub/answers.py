"""From a turn to the API's message: ids, content blocks, stop reason, usage. And the answer when there is no script.

Pure and deterministic: ids come from the seed and the place in the session. Called by the app.
"""

import hashlib
import json
from typing import Any, Final, cast

from loopscope.stub.script import Ask, ToolCall, Turn
from loopscope.stub.tokens import CHARS_PER_TOKEN, InputUsage, output_tokens

JsonDict = dict[str, Any]

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_ECHO_CHARS: Final = 240
"""How much of the question the answer without a script repeats."""
_SCHEMA_DEPTH: Final = 8
"""Deeper schemas are answered with null."""


def make_id(prefix: str, *parts: object, length: int = 24) -> str:
    """An id in the API's style, the same for the same parts: `msg_01...`, `toolu_01...`, `req_01...`."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode(errors="surrogatepass")).digest()
    number = int.from_bytes(digest, "big")
    letters: list[str] = []
    for _ in range(length - 2):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return f"{prefix}_01{''.join(letters)}"


def default_turn(ask: Ask) -> Turn:
    """An answer without a script: call a tool once if tools are offered, else say what was asked."""
    thinking = "I should answer briefly." if _thinks(ask.body) else None
    results = ask.tool_results
    tool = None if results else _tool_to_call(ask.body)
    if tool is not None:
        arguments: object = sample(tool.get("input_schema"))
        if not isinstance(arguments, dict):
            arguments = {}
        return Turn(thinking=thinking, tool_calls=(ToolCall(str(tool["name"]), cast("JsonDict", arguments)),))
    schema = _output_schema(ask.body)
    if schema is not None:
        return Turn(thinking=thinking, text=json.dumps(sample(schema)))
    if results:
        return Turn(thinking=thinking, text=f"The tool returned: {results[-1][:_ECHO_CHARS]}")
    return Turn(thinking=thinking, text=f"You asked: {ask.last_user_text[:_ECHO_CHARS]}")


def sample(schema: object, depth: int = 0) -> Any:
    """A small value that fits a JSON schema: required properties only, the first choice of an enum.

    What is no schema, or deeper than eight levels, gives None.
    """
    if depth > _SCHEMA_DEPTH or not isinstance(schema, dict):
        return None
    schema = cast("JsonDict", schema)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for choices in ("enum", "examples"):
        if isinstance(schema.get(choices), list) and schema[choices]:
            return schema[choices][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(union), list) and schema[union]:
            return sample(schema[union][0], depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = cast("list[object]", kind)[0] if kind else None
    properties = schema.get("properties")
    if kind == "object" or isinstance(properties, dict):
        known = cast("JsonDict", properties) if isinstance(properties, dict) else {}
        required = schema.get("required")
        names = cast("list[object]", required) if isinstance(required, list) else list(known)
        return {str(name): sample(known.get(str(name)), depth + 1) for name in names}
    if kind == "array":
        return [sample(schema.get("items"), depth + 1)] if schema.get("minItems") else []
    return {"string": "example", "integer": 1, "number": 1.0, "boolean": True}.get(str(kind))


def build_message(turn: Turn, ask: Ask, used: InputUsage, identity: tuple[object, ...]) -> JsonDict:
    """The API's message object for a turn. `identity` is what its ids are made from."""
    body = ask.body
    content = _content(turn, identity)
    stop_reason, stop_sequence = _stop(turn, content, body)
    usage = _usage(content, used, body, turn)
    return {
        "id": make_id("msg", *identity),
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": usage,
    }


def _content(turn: Turn, identity: tuple[object, ...]) -> list[JsonDict]:
    if turn.content:
        return [dict(block) for block in turn.content]
    content: list[JsonDict] = []
    if turn.thinking is not None:
        signature = make_id("sig", *identity, turn.thinking, length=88)
        content.append({"type": "thinking", "thinking": turn.thinking, "signature": signature})
    if turn.text:
        content.append({"type": "text", "text": turn.text})
    for number, one in enumerate(turn.tool_calls):
        call_id = one.id or make_id("toolu", *identity, number)
        content.append({"type": "tool_use", "id": call_id, "name": one.name, "input": dict(one.input)})
    return content


def _stop(turn: Turn, content: list[JsonDict], body: JsonDict) -> tuple[str, str | None]:
    """Stop reason and sequence; cuts the last text where max_tokens or a stop sequence ends it."""
    last = content[-1] if content else None
    if last is not None and last["type"] == "text":
        sequences = [str(one) for one in body.get("stop_sequences") or []]
        found = [(last["text"].find(one), one) for one in sequences if one and one in last["text"]]
        if found:
            position, sequence = min(found)
            last["text"] = last["text"][:position]
            return "stop_sequence", sequence
        over = output_tokens(content)[0] - int(body["max_tokens"])
        if over > 0:
            last["text"] = last["text"][: max(0, len(last["text"]) - over * CHARS_PER_TOKEN)]
            return "max_tokens", None
    if turn.stop_reason:
        return turn.stop_reason, None
    return ("tool_use" if any(block["type"] == "tool_use" for block in content) else "end_turn"), None


def _usage(content: list[JsonDict], used: InputUsage, body: JsonDict, turn: Turn) -> JsonDict:
    output, thinking = output_tokens(content)
    usage: JsonDict = {
        "input_tokens": used.fresh,
        "cache_creation_input_tokens": used.cache_write_5m + used.cache_write_1h,
        "cache_read_input_tokens": used.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": used.cache_write_5m,
            "ephemeral_1h_input_tokens": used.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "priority" if body.get("service_tier") == "priority" else "standard",
        "inference_geo": body.get("inference_geo") or "not_available",
    }
    if thinking or _thinks(body):
        usage["output_tokens_details"] = {"thinking_tokens": thinking}
    if turn.server_tool_use:
        usage["server_tool_use"] = {"web_search_requests": 0, "web_fetch_requests": 0, **turn.server_tool_use}
    usage.update(turn.usage)
    return usage


def _thinks(body: JsonDict) -> bool:
    return isinstance(body.get("thinking"), dict) and body["thinking"].get("type") in ("enabled", "adaptive")


def _tool_to_call(body: JsonDict) -> JsonDict | None:
    tools = [tool for tool in body.get("tools") or [] if (tool.get("type") or "custom") == "custom"]
    choice: JsonDict = body.get("tool_choice") or {}
    if not tools or choice.get("type") == "none":
        return None
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool["name"] == choice.get("name")), None)
    return tools[0]


def _output_schema(body: JsonDict) -> JsonDict | None:
    config: JsonDict = body.get("output_config") or {}
    wanted = config.get("format") or body.get("output_format")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return None
    schema = wanted.get("schema")
    return cast("JsonDict", schema) if isinstance(schema, dict) else None
