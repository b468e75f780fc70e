"""A recorded span as OpenTelemetry's GenAI conventions know it: what a backend gets that is not Loopscope's. Pure.

Called by `backend` at delivery (the spool keeps our own form) and by `host_spans`. Nothing of ours is left: no
attribute, event or link attribute of our namespace, no bytes, and no run that nobody declared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loopscope_schemas import attributes as at

from .genai_messages import finish_reason, input_messages, output_messages, system_instructions, tool_definitions
from .jsontext import json_text

OPERATIONS = {
    "chat",
    "create_agent",
    "embeddings",
    "execute_tool",
    "generate_content",
    "invoke_agent",
    "text_completion",
}
"""Operations that the conventions define. A span of another one is sent without its operation: a plain span."""
CONTENT = {
    at.INPUT_MESSAGES,
    at.OUTPUT_MESSAGES,
    at.SYSTEM_INSTRUCTIONS,
    at.TOOL_DEFINITIONS,
    at.TOOL_CALL_ARGUMENTS,
    at.TOOL_CALL_RESULT,
    at.TOOL_DESCRIPTION,
    at.EXCEPTION_MESSAGE,
    at.EXCEPTION_STACKTRACE,
}
"""What may hold words of a user, a prompt or a tool; left out where no content is wanted."""


def standard_span(recorded: bytes, *, content: bool) -> Span | None:
    """The span that another backend gets for a recorded one (a `Span` message); None when it gets none.

    With `content=False` it carries no text of prompts, answers, arguments, results and errors.
    """
    span = Span.FromString(recorded)
    own = {item.key: item.value for item in span.attributes}
    operation = own[at.OPERATION_NAME].string_value if at.OPERATION_NAME in own else ""
    if at.RUN_INFERRED in own and own[at.RUN_INFERRED].bool_value:
        if operation == "invoke_agent":
            return None
        span.ClearField("parent_span_id")
    extra = _content(operation, own) if content else {}
    kept = list(_kept(span.attributes, content=content))
    del span.attributes[:]
    for item in kept:
        if item.key == at.OPERATION_NAME and operation not in OPERATIONS:
            continue
        if item.key == at.RESPONSE_FINISH_REASONS:
            for reason in item.value.array_value.values:
                reason.string_value = finish_reason(reason.string_value)
        span.attributes.append(item)
    for key, value in extra.items():
        span.attributes.add(key=key).value.string_value = json_text(value).decode("utf-8")
    events = [event for event in span.events if not event.name.startswith(at.OWN_PREFIX)]
    for holder in (*events, *span.links):
        inside = list(_kept(holder.attributes, content=content))
        del holder.attributes[:]
        holder.attributes.extend(inside)
    del span.events[:]
    span.events.extend(events)
    if not content:
        span.status.ClearField("message")
    return span


def standard_resource(recorded: bytes) -> bytes:
    """A `Resource` message without our own attributes."""
    resource = Resource.FromString(recorded)
    kept = list(_kept(resource.attributes, content=True))
    del resource.attributes[:]
    resource.attributes.extend(kept)
    return resource.SerializeToString()


def standard_scope(recorded: bytes) -> bytes:
    """The `InstrumentationScope` message under which standard spans go: not the one of our own form."""
    scope = InstrumentationScope.FromString(recorded)
    scope.name = f"{at.OWN_PREFIX}genai"
    return scope.SerializeToString()


def _kept(items: Iterable[KeyValue], *, content: bool) -> list[KeyValue]:
    """Copies, as the list that they come from is about to be emptied."""
    kept: list[KeyValue] = []
    for item in items:
        if item.key.startswith(at.OWN_PREFIX) or item.value.HasField("bytes_value"):
            continue
        if item.key in CONTENT and not content:
            continue
        copy = KeyValue()
        copy.CopyFrom(item)
        kept.append(copy)
    return kept


def _content(operation: str, own: Mapping[str, AnyValue]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if operation == "invoke_agent":
        for name, attribute, role in (
            (at.RUN_INPUT, at.INPUT_MESSAGES, "user"),
            (at.RUN_FINAL_ANSWER, at.OUTPUT_MESSAGES, "assistant"),
        ):
            if name in own:
                text = _plain_text(own[name].string_value)
                found[attribute] = [{"role": role, "parts": [{"type": "text", "content": text}]}]
        return found
    request, response = _body(own, at.REQUEST_BODY), _body(own, at.RESPONSE_BODY)
    for attribute, value in (
        (at.INPUT_MESSAGES, input_messages(request)),
        (at.SYSTEM_INSTRUCTIONS, system_instructions(request)),
        (at.TOOL_DEFINITIONS, tool_definitions(request)),
        (at.OUTPUT_MESSAGES, output_messages(response)),
    ):
        if value and attribute not in own:
            found[attribute] = value
    return found


def _plain_text(text: str) -> str:
    """A JSON text's string when it is one, else the JSON itself."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _body(own: Mapping[str, AnyValue], name: str) -> dict[str, Any]:
    if name not in own:
        return {}
    try:
        value = json.loads(own[name].bytes_value)
    except ValueError:  # an error page of a proxy, or a body that broke off: there are no messages in it
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
