"""The dialect of OpenLLMetry: the conventions' names today, numbered prompts and completions before, its decorators.

What has neither is read as the conventions are.
"""

from typing import Final

from loopscope_collector.normalise import genai, indexed
from loopscope_collector.normalise.content import put_input, put_output, split_parts
from loopscope_collector.normalise.fields import count, json_text, stop_reason, text
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas import attributes as at
from loopscope_schemas.content import Json, Pairs, dump, split_messages

NAME: Final = "openllmetry"
_CALLS: Final = frozenset({"chat", "completion"})
_DECORATED: Final = {
    "workflow": ("invoke_workflow", "run"),
    "agent": ("invoke_agent", "run"),
    "tool": ("execute_tool", "tool"),
}
_CALL: Final[indexed.Columns] = {
    at.OPENLLMETRY_PROMPT_TOKENS: ("input_tokens", count),
    at.OPENLLMETRY_COMPLETION_TOKENS: ("output_tokens", count),
}
_ANY: Final[indexed.Columns] = {
    at.TRACELOOP_USER_ID: ("user_id", text),
    at.TRACELOOP_SESSION_ID: ("conversation_id", text),
}
_ENTITY: Final[indexed.Columns] = {
    at.TRACELOOP_INPUT: ("input_text", json_text),
    at.TRACELOOP_OUTPUT: ("output_text", json_text),
}


def translate(draft: Draft) -> None:
    """Fill the columns of a span."""
    columns = draft.columns
    indexed.fill(draft, _ANY)
    decorated = _DECORATED.get(indexed.plain(draft.rest.get(at.TRACELOOP_KIND)))
    if not columns.get("operation"):
        if indexed.plain(draft.rest.get(at.OPENLLMETRY_REQUEST_TYPE)) in _CALLS:
            columns["operation"], columns["kind"] = "chat", "llm"
        elif decorated is not None:
            _put_entity(draft, *decorated)
    if columns["kind"] == "llm":
        indexed.fill(draft, _CALL)
        _put_numbered(draft)
    genai.translate(draft)


def _put_entity(draft: Draft, operation: str, kind: str) -> None:
    columns = draft.columns
    columns["operation"], columns["kind"] = operation, kind
    indexed.fill(draft, _ENTITY)
    name = draft.rest.get(at.TRACELOOP_NAME)
    if isinstance(name, str) and kind == "tool":
        columns["tool"] = text(name) or ""
    elif isinstance(name, str) and columns.get("agent") == columns.get("service"):
        columns["agent"] = text(name) or ""


def _put_numbered(draft: Draft) -> None:
    """Messages under numbers, where there are any."""
    trace_id, run_id = draft.columns["trace_id"], draft.columns["run_id"]
    prompts = _messages(draft, at.OPENLLMETRY_PROMPTS)
    functions = [_function(fields) for fields in indexed.numbered(draft.rest, at.OPENLLMETRY_FUNCTIONS)]
    if prompts or functions:
        memo = draft.context.memo(trace_id, run_id)
        system, rest = indexed.without_system(prompts)
        texts = [system, dump(functions) if functions else None, indexed.messages_json(rest) if rest else None]
        split = split_messages(texts[2], memo, role="user") if texts[2] is not None else None
        put_input(draft, split_parts(texts[0], texts[1], split), sum(len(item.encode()) for item in texts if item))
        draft.context.keep(trace_id, run_id, memo)
    reason = draft.rest.get(f"{at.OPENLLMETRY_COMPLETIONS}0.finish_reason")
    if not draft.columns.get("stop_reason"):
        draft.columns["stop_reason"] = stop_reason(reason) or ""
    answers = _messages(draft, at.OPENLLMETRY_COMPLETIONS)
    if answers:
        said = indexed.messages_json(answers)
        put_output(draft, split_messages(said, role="assistant"), len(said.encode()))


def _messages(draft: Draft, prefix: str) -> list[Json]:
    found = indexed.numbered(draft.rest, prefix)
    role = "assistant" if prefix == at.OPENLLMETRY_COMPLETIONS else "user"
    messages = [_message(fields, role) for fields in found]
    indexed.give_back(draft.rest, prefix, found)
    return messages


def _message(fields: indexed.Fields, default: str) -> Json:
    role = indexed.plain(fields.pop("role", "")) or default
    content = indexed.parsed(fields.pop("content", ""))
    parts: list[Json] = []
    if isinstance(content, list) and not isinstance(content, Pairs):
        # The provider's own content blocks, written as JSON text.
        parts.extend(content)
    elif content != "":
        parts.append(indexed.text_part(content if isinstance(content, str) else dump(content)))
    calls = indexed.numbered(fields, "tool_calls.")
    parts += [
        indexed.call_part(call.pop("id", None), call.pop("name", None), call.pop("arguments", None)) for call in calls
    ]
    indexed.give_back(fields, "tool_calls.", calls)
    return {"role": role, "parts": parts}


def _function(fields: indexed.Fields) -> Json:
    made: dict[str, Json] = {"type": "function", "name": indexed.plain(fields.get("name"))}
    if "description" in fields:
        made["description"] = indexed.plain(fields["description"])
    if "parameters" in fields:
        made["parameters"] = indexed.parsed(fields["parameters"])
    return made
