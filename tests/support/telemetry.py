"""Spans as instrumentations send them, for tests of normalising and of the store."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from loopscope_collector.queue import Record
from loopscope_schemas import attributes as at

NOW = 1_795_000_000_000_000_000
"""A moment of 2026-11-18, in Unix nanoseconds."""
SECOND = 1_000_000_000
RESOURCE = {
    at.SERVICE_NAME: "shop",
    at.SERVICE_VERSION: "1.2",
    at.PROCESS_ID: "process-1",
    at.DEPLOYMENT_ENVIRONMENT: "test",
}


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP's."""
    found = AnyValue()
    match value:
        case bool():
            found.bool_value = value
        case str():
            found.string_value = value
        case bytes():
            found.bytes_value = value
        case int():
            found.int_value = value
        case float():
            found.double_value = value
        case list():
            found.array_value.SetInParent()
            found.array_value.values.extend(any_value(item) for item in value)
        case dict():
            found.kvlist_value.SetInParent()
            for key, item in value.items():
                found.kvlist_value.values.add(key=key, value=any_value(item))
        case _:
            pass
    return found


def span(
    name: str = "span",
    *,
    trace: str | bytes = "trace",
    parent: str | bytes = "",
    start: int = NOW,
    end: int | None = None,
    status: int = 1,
    message: str = "",
    **attributes: Any,
) -> Span:
    """A span; ids are made of names unless they are bytes. `attributes` go by their names with `.` written `__`."""
    made = Span(
        name=name,
        trace_id=trace if isinstance(trace, bytes) else id_of(trace, 16),
        span_id=id_of(name, 8),
        parent_span_id=parent if isinstance(parent, bytes) else id_of(parent, 8) if parent else b"",
        start_time_unix_nano=start,
        end_time_unix_nano=start + SECOND if end is None else end,
    )
    made.status.code = status  # type: ignore[assignment]
    made.status.message = message
    put(made, {key.replace("__", "."): value for key, value in attributes.items()})
    return made


def put(target: Any, attributes: dict[str, Any]) -> None:
    """Add attributes to a span, event or resource."""
    for key, value in attributes.items():
        if value is not None:
            target.attributes.add(key=key, value=any_value(value))


def id_of(name: str, length: int) -> bytes:
    """An id made of a name."""
    return hashlib.blake2b(name.encode(), digest_size=length).digest()


def request(
    spans: Iterable[Span], *, scope: str = "loopscope", resource: dict[str, Any] | None = None
) -> ExportTraceServiceRequest:
    """Spans of one scope as a request."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    put(group.resource, RESOURCE if resource is None else resource)
    scope_spans = group.scope_spans.add()
    scope_spans.scope.name = scope
    scope_spans.spans.extend(spans)
    return made


def record(
    spans: Iterable[Span],
    *,
    kind: str = "traces",
    received_at: int = NOW + 2 * SECOND,
    scope: str = "loopscope",
    resource: dict[str, Any] | None = None,
) -> Record:
    """Spans as the receiver queues them."""
    return Record(kind, "protobuf", received_at, request(spans, scope=scope, resource=resource).SerializeToString())


def json_bytes(value: Any) -> bytes:
    """JSON as the anthropic SDK writes a body: compact, characters beyond ASCII as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class MemorySegment:
    """A sealed segment that was never on a disk."""

    id: str
    held: Sequence[Record]

    def records(self) -> Iterator[Record]:
        """Its records."""
        return iter(self.held)


@dataclass
class Conversation:
    """A run of Loopscope's own dialect whose history grows, span by span."""

    name: str = "run"
    start: int = NOW
    agent: str = "support"
    model: str = "claude-sonnet-4-6"
    system: Any = "You answer briefly."
    run_id: str = ""
    parent_run_id: str = ""
    messages: list[Any] = field(default_factory=list[Any])
    spans: list[Span] = field(default_factory=list[Span])
    bodies: dict[str, tuple[bytes, bytes]] = field(default_factory=dict[str, tuple[bytes, bytes]])
    """Span id in hex -> request and response as sent."""
    turn: int = 0
    clock: int = 0

    def __post_init__(self) -> None:
        self.run_id = self.run_id or id_of(self.name, 16).hex()
        self.clock = self.start

    def _common(self) -> dict[str, Any]:
        return {
            at.RUN_ID: self.run_id,
            at.RUN_PARENT_ID: self.parent_run_id or None,
            at.AGENT_NAME: self.agent,
        }

    def _span(self, name: str, attributes: dict[str, Any], *, seconds: float = 1.0, **more: Any) -> Span:
        made = span(
            f"{self.name}/{name}",
            trace=self.name,
            parent=f"{self.name}/run",
            start=self.clock,
            end=self.clock + int(seconds * SECOND),
            **more,
        )
        self.clock += int(seconds * SECOND) + 1_000
        put(made, {**self._common(), **attributes})
        self.spans.append(made)
        return made

    def call(
        self,
        said: Any,
        answer: list[Any],
        *,
        usage: dict[str, Any] | None = None,
        stop: str = "end_turn",
        **params: Any,
    ) -> Span:
        """An LLM call: the user (or a tool) says something, the model answers."""
        self.turn += 1
        self.messages.append({"role": "user", "content": said})
        body = json_bytes(
            {"max_tokens": 512, "messages": self.messages, "model": self.model, "system": self.system, **params}
        )
        usage = usage if usage is not None else {"input_tokens": 100 + self.turn, "output_tokens": 10 + self.turn}
        message = json_bytes(
            {
                "id": f"msg_{self.name}_{self.turn}",
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": answer,
                "stop_reason": stop,
                "usage": usage,
            }
        )
        made = self._span(
            f"call{self.turn}",
            {
                at.OPERATION_NAME: "chat",
                at.TURN: self.turn,
                at.PROVIDER_NAME: "anthropic",
                at.REQUEST_MODEL: self.model,
                at.RESPONSE_MODEL: self.model,
                at.RESPONSE_ID: f"msg_{self.name}_{self.turn}",
                at.RESPONSE_FINISH_REASONS: [stop],
                at.USAGE_RAW: json.dumps(usage),
                **inclusive(usage),
                at.REQUEST_BODY: body,
                at.RESPONSE_BODY: message,
            },
        )
        self.bodies[made.span_id.hex()] = (body, message)
        self.messages = [*self.messages, {"role": "assistant", "content": answer}]
        return made

    def tool(self, name: str, call_id: str, arguments: Any, result: Any, **attributes: Any) -> Span:
        """A tool call."""
        return self._span(
            f"tool{len(self.spans)}",
            {
                at.OPERATION_NAME: "execute_tool",
                at.TURN: max(self.turn, 1),
                at.TOOL_NAME: name,
                at.TOOL_CALL_ID: call_id,
                at.TOOL_CALL_ARGUMENTS: json.dumps(arguments),
                at.TOOL_CALL_RESULT: json.dumps(result),
                at.TOOL_ATTEMPT: 1,
                **attributes,
            },
        )

    def other(self, name: str, attributes: dict[str, Any]) -> Span:
        """A span of the run that is neither call nor tool."""
        return self._span(name, attributes)

    def end(self, *, asked: Any = "a question", answered: Any = "an answer", **attributes: Any) -> Span:
        """The run's own span."""
        made = span(
            f"{self.name}/run",
            trace=self.name,
            start=self.start - 1_000,
            end=self.clock,
            status=attributes.pop("status", 1),
        )
        put(
            made,
            {
                **self._common(),
                at.OPERATION_NAME: "invoke_agent",
                at.RUN_INPUT: None if asked is None else json.dumps(asked),
                at.RUN_FINAL_ANSWER: None if answered is None else json.dumps(answered),
                at.RUN_OUTCOME: "completed",
                **attributes,
            },
        )
        self.spans.append(made)
        return made

    def marker(self, name: str = "run", *, operation: str = "invoke_agent", heartbeat_at: int | None = None) -> Span:
        """A start marker of one of its spans, or the run's heartbeat."""
        start = self.start - 1_000 if name == "run" else self.clock
        made = span(f"{self.name}/{name}", trace=self.name, start=start, end=0, status=0)
        put(made, {**self._common(), at.OPERATION_NAME: operation, at.HEARTBEAT_AT: heartbeat_at})
        return made


def inclusive(usage: dict[str, Any]) -> dict[str, Any]:
    """Anthropic's usage in OpenTelemetry's terms, as our instrumentation sends it."""
    read, written = usage.get("cache_read_input_tokens"), usage.get("cache_creation_input_tokens")
    return {
        at.USAGE_INPUT_TOKENS: usage["input_tokens"] + (read or 0) + (written or 0)
        if "input_tokens" in usage
        else None,
        at.USAGE_CACHE_READ_TOKENS: read,
        at.USAGE_CACHE_WRITE_TOKENS: written,
        at.USAGE_OUTPUT_TOKENS: usage.get("output_tokens"),
    }
