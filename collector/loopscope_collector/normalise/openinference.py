"""The dialect of OpenInference: `openinference.span.kind`, `llm.*`, numbered messages, whole requests in `input.value`.

Where `input.value` is a provider's request and `output.value` its answer, they are the content: exact, and the same
blocks as those of our own recording. Otherwise the numbered messages are. Tokens include cached ones.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from loopscope_collector.normalise import genai, indexed
from loopscope_collector.normalise.content import (
    put_input,
    put_output,
    put_run,
    put_tool,
    request_params,
    split_parts,
)
from loopscope_collector.normalise.fields import count, json_text, provider, small_count, stop_reason, text, usd
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas import attributes as at
from loopscope_schemas.content import (
    InexactJsonError,
    Json,
    Memo,
    Split,
    dump,
    parse,
    split_answer,
    split_document,
    split_messages,
)

NAME: Final = "openinference"
_OPERATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "LLM": ("chat", "llm"),
    "AGENT": ("invoke_agent", "run"),
    "TOOL": ("execute_tool", "tool"),
}
"""Kind of span -> operation and kind; all others are parts of a run that is neither call nor tool."""
_CALL: Final[indexed.Columns] = {
    at.OPENINFERENCE_REQUEST_MODEL: ("request_model", text),
    at.OPENINFERENCE_RESPONSE_MODEL: ("model", text),
    at.OPENINFERENCE_MODEL: ("request_model", text),
    at.OPENINFERENCE_PROVIDER: ("provider", provider),
    at.OPENINFERENCE_SYSTEM: ("provider", provider),
    at.OPENINFERENCE_FINISH_REASON: ("stop_reason", stop_reason),
    at.OPENINFERENCE_PROMPT_TOKENS: ("input_tokens", count),
    at.OPENINFERENCE_COMPLETION_TOKENS: ("output_tokens", count),
    at.OPENINFERENCE_CACHE_READ_TOKENS: ("cache_read_tokens", count),
    at.OPENINFERENCE_CACHE_WRITE_TOKENS: ("cache_write_tokens", count),
    at.OPENINFERENCE_REASONING_TOKENS: ("thinking_tokens", count),
    at.OPENINFERENCE_COST: ("reported_cost_usd", usd),
}
_TOOL: Final[indexed.Columns] = {
    at.OPENINFERENCE_TOOL: ("tool", text),
    at.OPENINFERENCE_TOOL_CALL_ID: ("call_id", text),
    at.INPUT_VALUE: ("input_text", json_text),
    at.OPENINFERENCE_TOOL_PARAMETERS: ("input_text", json_text),
    at.OUTPUT_VALUE: ("output_text", json_text),
}
_RUN: Final[indexed.Columns] = {at.INPUT_VALUE: ("input_text", json_text), at.OUTPUT_VALUE: ("output_text", json_text)}
_ANY: Final[indexed.Columns] = {
    at.OPENINFERENCE_AGENT: ("agent", text),
    at.OPENINFERENCE_TEMPLATE_VERSION: ("prompt_version", text),
}


def translate(draft: Draft) -> None:
    """Fill the columns of a span."""
    columns = draft.columns
    stated = draft.rest.get(at.OPENINFERENCE_KIND)
    if not columns.get("operation") and isinstance(stated, str):
        columns["operation"], columns["kind"] = _OPERATIONS.get(stated.upper(), ("", "other"))
    # The name of the service stood in for an agent that has none of its own.
    if at.OPENINFERENCE_AGENT in draft.rest and columns.get("agent") == columns.get("service"):
        columns["agent"] = ""
    indexed.fill(draft, _ANY)
    match columns["kind"]:
        case "llm":
            _translate_call(draft)
        case "tool":
            _put_call_id(draft)
            indexed.fill(draft, _TOOL)
            put_tool(draft)
        case "run":
            indexed.fill(draft, _RUN)
            put_run(draft)
        case _:
            genai.translate(draft)


def _translate_call(draft: Draft) -> None:
    columns = draft.columns
    indexed.fill(draft, _CALL)
    cached = (columns.get("cache_read_tokens") or 0) + (columns.get("cache_write_tokens") or 0)
    if columns.get("input_tokens") is not None and columns["input_tokens"] < cached:
        # Some versions give the provider's figure, without what came from the cache.
        columns["input_tokens"] += cached
    searches = _searches(draft.rest.get(at.METADATA))
    if searches is not None:
        columns["web_searches"] = searches
    trace_id, run_id = columns["trace_id"], columns["run_id"]
    memo = draft.context.memo(trace_id, run_id)
    if not _put_request(draft, memo):
        _put_input_messages(draft, memo)
    if not _put_response(draft, memo):
        _put_output_messages(draft)
    draft.context.keep(trace_id, run_id, memo)


def _put_request(draft: Draft, memo: Memo) -> bool:
    """The request as it was given to the SDK, if that is what `input.value` is."""
    body = draft.rest.get(at.INPUT_VALUE)
    document = _document(body)
    if not isinstance(body, str) or not isinstance(document.get("messages"), list):
        return False
    split = split_document(body.encode(), memo, role="user")
    kinds = [prompt.kind for prompt in split.prompts]
    if not split.messages or len(kinds) != len(set(kinds)):
        return False
    put_input(draft, split, len(body.encode()))
    draft.columns["request_params"] = request_params(split)
    # The numbered messages, the tools and the parameters say the same once more.
    for prefix in (at.OPENINFERENCE_INPUT_MESSAGES, at.OPENINFERENCE_TOOLS):
        indexed.numbered(draft.rest, prefix)
    for name in (at.INPUT_VALUE, at.INPUT_MIME_TYPE, at.OPENINFERENCE_PARAMETERS):
        draft.rest.pop(name, None)
    return True


def _put_response(draft: Draft, memo: Memo) -> bool:
    """The answer as the provider gave it, if that is what `output.value` is; its id in any case."""
    columns = draft.columns
    body = draft.rest.get(at.OUTPUT_VALUE)
    document = _document(body)
    if not columns.get("response_id"):
        # LangChain's result of a call holds the provider's answer, or what is left of it, as `llm_output`.
        columns["response_id"] = indexed.id_of(document) or indexed.id_of(_member(document, "llm_output"))
    if not isinstance(body, str) or not isinstance(document.get("content"), list) or "role" not in document:
        return False
    split = split_answer(body.encode(), memo)
    put_output(draft, split, len(body.encode()))
    if document.get("stop_reason", "") is None:
        # A message of Anthropic's that never came to its end: its usage is what stood at its beginning.
        columns["partial"] = True
    usage = document.get("usage")
    if isinstance(usage, dict) and not columns.get("usage_raw"):
        columns["usage_raw"] = dump(usage)
    indexed.numbered(draft.rest, at.OPENINFERENCE_OUTPUT_MESSAGES)
    for name in (at.OUTPUT_VALUE, at.OUTPUT_MIME_TYPE):
        draft.rest.pop(name, None)
    return True


def _put_call_id(draft: Draft) -> None:
    """A tool of LangChain's answers with a message that says which call of the model it is for."""
    call_id = _member(_document(draft.rest.get(at.OUTPUT_VALUE)), "data").get("tool_call_id")
    if isinstance(call_id, str) and at.OPENINFERENCE_TOOL_CALL_ID not in draft.rest:
        draft.columns["call_id"] = call_id


def _put_input_messages(draft: Draft, memo: Memo) -> None:
    tools = [item for item in (_tool(fields) for fields in _take(draft, at.OPENINFERENCE_TOOLS)) if item is not None]
    messages = _messages(draft, at.OPENINFERENCE_INPUT_MESSAGES)
    parameters = draft.rest.get(at.OPENINFERENCE_PARAMETERS)
    if isinstance(parameters, str) and _document(parameters):
        draft.columns["request_params"] = draft.rest.pop(at.OPENINFERENCE_PARAMETERS)
    if not messages and not tools:
        return
    system, rest = indexed.without_system(messages)
    texts = [system, dump(tools) if tools else None, indexed.messages_json(rest) if rest else None]
    split = split_messages(texts[2], memo, role="user") if texts[2] is not None else None
    put_input(draft, split_parts(texts[0], texts[1], split), sum(len(item.encode()) for item in texts if item))


def _put_output_messages(draft: Draft) -> None:
    messages = _messages(draft, at.OPENINFERENCE_OUTPUT_MESSAGES)
    if messages:
        said = indexed.messages_json(messages)
        split: Split = split_messages(said, role="assistant")
        put_output(draft, split, len(said.encode()))


def _take(draft: Draft, prefix: str) -> list[indexed.Fields]:
    return indexed.numbered(draft.rest, prefix)


def _messages(draft: Draft, prefix: str) -> list[Json]:
    found = indexed.numbered(draft.rest, prefix)
    messages = [_message(fields) for fields in found]
    indexed.give_back(draft.rest, prefix, found)
    return messages


def _message(fields: indexed.Fields) -> Json:
    """`message.*` as a message; what is read is taken out of `fields`."""
    role = indexed.plain(fields.pop("message.role", "")) or "user"
    parts: list[Json] = []
    contents = indexed.numbered(fields, "message.contents.")
    for part in contents:
        parts.extend(_part(part))
    indexed.give_back(fields, "message.contents.", contents)
    content = fields.pop("message.content", None)
    answers = fields.pop("message.tool_call_id", None)
    if content is not None and answers is not None:
        parts.append(indexed.result_part(answers, content))
    elif content is not None:
        parts.insert(0, indexed.text_part(content))
    known = {part.get("id") for part in parts if isinstance(part, dict) and part.get("type") == "tool_call"}
    calls = indexed.numbered(fields, "message.tool_calls.")
    for call in calls:
        part = _call(call)
        if part["id"] not in known or not part["id"]:
            parts.append(part)
    indexed.give_back(fields, "message.tool_calls.", calls)
    return {"role": role, "parts": parts}


def _part(fields: indexed.Fields) -> list[Json]:
    kind = fields.pop("message_content.type", "")
    if kind == "tool_use" or "tool_call.function.name" in fields:
        return [_call(fields)]
    text_ = fields.pop("message_content.text", None)
    if text_ is not None:
        return [
            {"type": "reasoning", "content": indexed.plain(text_)} if kind == "reasoning" else indexed.text_part(text_)
        ]
    url = fields.pop("message_content.image.image.url", None)
    if url is not None:
        return [indexed.image_part(url)]
    return [{"type": indexed.plain(kind)}] if kind else []


def _call(fields: indexed.Fields) -> dict[str, Json]:
    return indexed.call_part(
        fields.pop("tool_call.id", None),
        fields.pop("tool_call.function.name", None),
        fields.pop("tool_call.function.arguments", None),
    )


def _tool(fields: indexed.Fields) -> Json:
    schema = fields.pop("tool.json_schema", None)
    return None if schema is None else indexed.parsed(schema)


def _searches(metadata: Any) -> int | None:
    server = _document(metadata).get("server_tool_use")
    # Numbers of a parsed document are texts of their own type.
    return small_count(str(server.get("web_search_requests", ""))) if isinstance(server, dict) else None


def _document(value: Any) -> dict[str, Any]:
    """A JSON object, or nothing."""
    if not isinstance(value, str) or not value.startswith("{"):
        return {}
    try:
        found = parse(value)
    except InexactJsonError:
        return {}
    return found if isinstance(found, dict) else {}


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
