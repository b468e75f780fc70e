"""OpenTelemetry's GenAI conventions: messages as JSON text or structured values on the span or on its details event.

Also the fallback for every dialect without a module of its own: what speaks the conventions' names comes out right,
the rest is in the map of attributes.
"""

from typing import Final

from loopscope_collector.normalise.content import put_input, put_output, put_run, put_tool, split_parts
from loopscope_collector.normalise.fields import stop_reason
from loopscope_collector.normalise.otlp import Value, text_of, value_of
from loopscope_collector.normalise.spans import Draft
from loopscope_schemas import attributes as at
from loopscope_schemas.content import InexactJsonError, Json, Raw, Split, dump, parse, split_messages

NAME: Final = "otel_genai"
_CONTENT: Final = (at.SYSTEM_INSTRUCTIONS, at.TOOL_DEFINITIONS, at.INPUT_MESSAGES, at.OUTPUT_MESSAGES)


def translate(draft: Draft) -> None:
    """Fill the columns that the content of a span says."""
    kind = draft.columns["kind"]
    if kind == "tool":
        put_tool(draft)
        return
    if kind == "llm":
        _put_params(draft)
    _take_details_event(draft)
    if any(name in draft.content for name in _CONTENT):
        _translate_messages(draft)
    elif kind == "run":
        put_run(draft)


def _translate_messages(draft: Draft) -> None:
    columns, content = draft.columns, draft.content
    system, tools, inputs, outputs = (_text(content.pop(name, None)) for name in _CONTENT)
    trace_id, run_id = columns["trace_id"], columns["run_id"]
    memo = draft.context.memo(trace_id, run_id)
    if system is not None or tools is not None or inputs is not None:
        messages = split_messages(inputs, memo, role="user") if inputs is not None else None
        size = sum(len(text.encode()) for text in (system, tools, inputs) if text is not None)
        put_input(draft, split_parts(system, tools, messages), size)
    if outputs is not None:
        split = split_messages(outputs, role="assistant")
        put_output(draft, split, len(outputs.encode()))
        if not columns.get("stop_reason"):
            columns["stop_reason"] = _finish_reason(split, outputs)
    draft.context.keep(trace_id, run_id, memo)


def _put_params(draft: Draft) -> None:
    """The attributes of the request as the parameters of the request; they stay in the map too."""
    columns = draft.columns
    params: dict[str, Json] = {}
    if columns.get("request_model"):
        params["model"] = columns["request_model"]
    for key, value in draft.rest.items():
        if key.startswith(at.REQUEST_PREFIX):
            params[key.removeprefix(at.REQUEST_PREFIX)] = _json(value)
    if params:
        columns["request_params"] = dump(params)


def _json(value: Value) -> Json:
    if isinstance(value, (str, bool)) or value is None:
        return value
    return Raw(text_of(value)) if isinstance(value, (int, float)) else parse(text_of(value))


def _take_details_event(draft: Draft) -> None:
    """Content that stands on the event instead of the span, where the span has none."""
    for event in draft.span.events:
        if event.name == at.DETAILS_EVENT:
            for item in event.attributes:
                if item.key in _CONTENT and item.key not in draft.content:
                    draft.content[item.key] = value_of(item.value)


def _text(value: Value) -> str | None:
    return None if value is None else text_of(value)


def _finish_reason(split: Split, text: str) -> str:
    if len(split.messages) != 1:
        return ""
    try:
        document = parse(text)
    except InexactJsonError:
        return ""
    first = document[0] if isinstance(document, list) and document else None
    return (stop_reason(first.get("finish_reason")) or "") if isinstance(first, dict) else ""
